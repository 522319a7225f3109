"""Draws representative samples of a split: seeded and stratified, never the first rows of a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from heapq import heappop, heappush

from trimtab.base.files import sha256_text
from trimtab.base.records import Example, Kind


def sample_rows(examples: Sequence[Example], limit: int, kind: Kind, seed: int = 0) -> tuple[Example, ...]:
    """Draw at most `limit` of the examples, in their order; all if there are no more.

    Each label (classify), else each group, gets its share to within one row, and a larger sample contains a smaller
    one. The sample depends on ids and seed only, not on the order of the file.
    """
    if len(examples) <= limit:
        return tuple(examples)
    strata: dict[str, list[Example]] = {}
    for example in sorted(examples, key=lambda example: sha256_text(str(seed), example.id)):
        strata.setdefault(_stratum(example, kind), []).append(example)
    # Row k of a stratum may enter once its share exceeds k rows, and must before its share reaches k + 1; of the
    # eligible rows the most urgent enters (Tijdeman 1980, "The chairman assignment problem": every share is then kept
    # to within one row).
    not_due = sorted((0, sha256_text(str(seed), name), name, 0) for name in strata)
    due: list[tuple[int, str, str, int]] = []
    picked: set[str] = set()
    for position in range(limit):
        while not_due and not_due[0][0] <= position:
            _, tie, name, rank = heappop(not_due)
            heappush(due, (-(-(rank + 1) * len(examples) // len(strata[name])), tie, name, rank))
        _, tie, name, rank = heappop(due)
        picked.add(strata[name][rank].id)
        if rank + 1 < len(strata[name]):
            heappush(not_due, ((rank + 1) * len(examples) // len(strata[name]), tie, name, rank + 1))
    return tuple(example for example in examples if example.id in picked)


def _stratum(example: Example, kind: Kind) -> str:
    if kind == "classify":
        return example.references[0]
    return "" if example.group is None else example.group


def sample_groups(
    examples: Sequence[Example], limit: int, kind: Kind, *, every_label: bool = False, seed: int = 0
) -> tuple[Example, ...]:
    """Draw a stratified sample of about `limit` examples, in their order; groups stay whole.

    Each label (kind classify), else each slice, keeps its share to within one group. The last group may exceed `limit`
    by less than its own rows. With `every_label` the first rows drawn cover every label. The sample depends on groups,
    ids and seed only; a larger sample contains a smaller one.
    """
    if len(examples) <= limit:
        return tuple(examples)
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(f"row:{example.id}" if example.group is None else f"group:{example.group}", []).append(
            example
        )
    strata: dict[str, list[str]] = {}
    for name in sorted(groups, key=lambda name: sha256_text(str(seed), name)):
        # A group with several labels belongs to its most frequent one, so that the order of the rows decides nothing.
        labels = Counter((row.references[0] if kind == "classify" else row.slice) or "" for row in groups[name])
        strata.setdefault(min(labels, key=lambda label: (-labels[label], label)), []).append(name)
    # A group's quantile within its stratum, 0 to 1: groups up to one quantile are the same share of every stratum.
    quantiles: dict[str, tuple[float, str]] = {}
    for stratum, names in strata.items():
        total, rows_before = sum(len(groups[name]) for name in names), 0
        for rank, name in enumerate(names):
            middle = (rows_before + len(groups[name]) / 2) / total
            quantiles[name] = (0.0 if every_label and not rank else middle, sha256_text(str(seed), stratum))
            rows_before += len(groups[name])
    picked: set[str] = set()
    for name in sorted(groups, key=lambda name: quantiles[name]):
        if len(picked) >= limit:
            break
        picked.update(example.id for example in groups[name])
    return tuple(example for example in examples if example.id in picked)
