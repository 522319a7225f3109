"""Finds and drops questions that are in several splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from trimtab.base.errors import InputError
from trimtab.base.records import Example, Refusal, Split
from trimtab.base.sanitize import printable
from trimtab.base.task import Task
from trimtab.data.audit import Audit
from trimtab.data.duplicates import PairKind, ellipsize, row_location
from trimtab.data.row_store import select_rows
from trimtab.data.split import SPLITS


@dataclass(frozen=True, slots=True)
class Overlap:
    """A row of one split and its most similar row in another, whatever their answers."""

    kind: PairKind
    similarity: float
    left: Example
    left_split: Split
    right: Example
    right_split: Split


def find_overlaps(audit: Audit, splits: Mapping[Split, Sequence[Example]]) -> tuple[Overlap, ...]:
    """Return rows of dev in train, of test in train, and of test in dev, each with its most similar row.

    The few-shot pool is train, so it is covered. The turns before the answer are compared: the same question with
    another answer leaks too.
    """
    numbers = audit.row_numbers(splits)
    duplicates = {"dev": audit.examples, "test": audit.rows}  # the index that covers the right split
    return tuple(
        Overlap(pair.kind, pair.similarity, splits[left][pair.a], left, splits[right][pair.b], right)
        for left, right in combinations(SPLITS, 2)
        for pair in duplicates[right].between(numbers.get(left, ()), numbers.get(right, ()))
    )


def drop_repeats(
    audit: Audit, splits: Mapping[Split, Sequence[Example]]
) -> tuple[dict[Split, Sequence[Example]], tuple[Overlap, ...]]:
    """Return the splits without train rows that repeat dev or test, and without dev rows that repeat test; and the
    dropped overlaps.

    In each overlap `right` is the dropped row, `left` the one it repeats. No overlaps remain.
    """
    kept: dict[Split, Sequence[Example]] = dict(splits)
    dropped: list[Overlap] = []
    steps: tuple[tuple[Split, Split], ...] = (("dev", "test"), ("train", "test"), ("train", "dev"))
    for name, other in steps:
        numbers, duplicates = audit.row_numbers(kept), audit.rows if other == "test" else audit.examples
        pairs = duplicates.between(numbers.get(other, ()), numbers.get(name, ()))
        dropped += [
            Overlap(pair.kind, pair.similarity, kept[other][pair.a], other, kept[name][pair.b], name) for pair in pairs
        ]
        is_kept = np.ones(len(kept.get(name, ())), bool)
        is_kept[[pair.b for pair in pairs]] = False
        kept[name] = select_rows(kept.get(name, ()), np.flatnonzero(is_kept).astype(np.int32))
    return kept, tuple(dropped)


def dropped_refusal(overlap: Overlap) -> Refusal:
    """Return the ledger line of a row that `drop_repeats` dropped."""
    row, goal = overlap.right, overlap.right_split
    reason = f"repeats {overlap.left_split} {row_location(overlap.left)} ({_how(overlap)})"
    return Refusal(
        file=row.file, line=row.line, reason=printable(reason), remedy=f'left {goal}, as data.leakage = "drop" says'
    )


def refuse_overlaps(overlaps: Sequence[Overlap], task: Task, dropped: Sequence[Overlap]) -> None:
    """Raise InputError for overlaps if `data.leakage` is "stop"; `dropped`: what "drop" would drop."""
    if overlaps and task.data.leakage == "stop":
        raise InputError(
            describe_overlaps(overlaps), overlap_remedy(overlaps, task, dropped), file=task.file, field="data.leakage"
        )


def overlap_remedy(overlaps: Sequence[Overlap], task: Task, dropped: Sequence[Overlap]) -> str:
    """Return what to do about overlaps; `group` helps only if the data do not fix the splits themselves."""
    is_fixed = bool(task.data.test) or any(overlap.left.split or overlap.right.split for overlap in overlaps)
    group = "" if is_fixed else "give both the same `group`, "
    return (
        f'set data.leakage = "drop", which takes out {dropped_counts(dropped)}, take rows out yourself, '
        f'{group}or go on with all of them by data.leakage = "report"'
    )


def dropped_counts(dropped: Sequence[Overlap]) -> str:
    """Return the numbers of rows that `drop_repeats` drops, by split, as text."""
    counts = Counter(overlap.right_split for overlap in dropped)
    return " and ".join(f"{counts[name]:,} row{'s' * (counts[name] != 1)} of {name}" for name in SPLITS if counts[name])


def describe_overlaps(overlaps: Sequence[Overlap]) -> str:
    """Return one sentence: how many rows of which splits overlap, and the first pair."""
    counts = Counter((overlap.right_split, overlap.left_split) for overlap in overlaps)
    parts = [
        f"{count} {right} row{'s' * (count > 1)} repeat{'s' * (count == 1)} {left}"
        for (right, left), count in counts.items()
    ]
    return f"{' and '.join(parts)}; the first: {describe_pair(overlaps[0])}"


def describe_pair(overlap: Overlap) -> str:
    """Return which row repeats which, how, and its text."""
    right, left = overlap.right, overlap.left
    return (
        f"{overlap.right_split} {row_location(right)} repeats {overlap.left_split} {row_location(left)} "
        f"({_how(overlap)}): "
        f"{ellipsize(right.input)!r}"
    )


def _how(overlap: Overlap) -> str:
    return f"near, {overlap.similarity:.2f}" if overlap.kind == "near" else overlap.kind
