"""Questions that stand on both sides of a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from trimtab.base.errors import InputError
from trimtab.base.records import Example, Split
from trimtab.base.task import Task
from trimtab.data.audit import Audit
from trimtab.data.duplicates import PairKind, place, short
from trimtab.data.split import SPLITS


@dataclass(frozen=True, slots=True)
class Overlap:
    """A row of one split and its most alike row in another, whatever their answers are."""

    kind: PairKind
    similarity: float
    left: Example
    left_split: Split
    right: Example
    right_split: Split


def find_overlaps(audit: Audit, splits: Mapping[Split, Sequence[Example]]) -> tuple[Overlap, ...]:
    """Rows of dev in train, of test in train, and of test in dev; for each the most alike one.

    The few-shot pool is train, so it is covered. Compared are the turns up to the answer: the same question with another answer
    leaks too.
    """
    numbers = audit.numbers(splits)
    likeness = {"dev": audit.examples, "test": audit.rows}  # what is right of train, and of dev
    return tuple(
        Overlap(pair.kind, pair.similarity, splits[left][pair.a], left, splits[right][pair.b], right)
        for left, right in combinations(SPLITS, 2)
        for pair in likeness[right].between(numbers.get(left, ()), numbers.get(right, ()))
    )


def refuse_overlaps(overlaps: Sequence[Overlap], task: Task) -> None:
    """Raise InputError on any overlap when `data.leakage` is "stop"."""
    if overlaps and task.data.leakage == "stop":
        raise InputError(describe(overlaps), overlap_remedy(overlaps, task), file=task.file, field="data.leakage")


def overlap_remedy(overlaps: Sequence[Overlap], task: Task) -> str:
    """What to do about overlaps; a group holds rows together only where the data themselves are not split."""
    given = bool(task.data.test) or any(overlap.left.split or overlap.right.split for overlap in overlaps)
    group = "" if given else "give both the same `group`, "
    return f'take those rows out of one side, {group}or set data.leakage = "report"'


def describe(overlaps: Sequence[Overlap]) -> str:
    """One sentence: how many rows of which splits overlap, and the first pair."""
    counts: dict[tuple[Split, Split], int] = defaultdict(int)
    for overlap in overlaps:
        counts[overlap.right_split, overlap.left_split] += 1
    parts = [
        f"{count} {right} row{'s' * (count > 1)} repeat{'s' * (count == 1)} {left}"
        for (right, left), count in counts.items()
    ]
    first = overlaps[0]
    how = f"near, {first.similarity:.2f}" if first.kind == "near" else first.kind
    return (
        f"{' and '.join(parts)}; the first: {place(first.right)} repeats {place(first.left)} "
        f"({how}): {short(first.right.input)!r}"
    )
