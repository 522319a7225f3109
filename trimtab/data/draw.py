"""A part of a split that stands for all of it: a seeded draw, stratified, never the first rows of a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from trimtab.base.files import sha256_text
from trimtab.base.records import Example, Kind


def drawn(examples: Sequence[Example], most: int, kind: Kind, seed: int = 0) -> tuple[Example, ...]:
    """At most `most` of the examples, in their order; all of them where there are no more.

    Each label (classify), else each group, gets its share, rounded; where there are more of them than rows to draw, as
    many as can be are in it. The draw follows from ids and seed alone, whatever the order of the file.
    """
    if len(examples) <= most:
        return tuple(examples)
    strata: dict[str, list[Example]] = {}
    for example in sorted(examples, key=lambda example: sha256_text(str(seed), example.id)):
        strata.setdefault(_stratum(example, kind), []).append(example)
    # A row's place within its stratum, from 0 to 1: rows up to one place are the same share of every stratum.
    places = {
        example.id: ((rank + 0.5) / len(rows), sha256_text(str(seed), name))
        for name, rows in strata.items()
        for rank, example in enumerate(rows)
    }
    picked = {example.id for example in sorted(examples, key=lambda example: places[example.id])[:most]}
    return tuple(example for example in examples if example.id in picked)


def _stratum(example: Example, kind: Kind) -> str:
    if kind == "classify":
        return example.references[0]
    return "" if example.group is None else example.group


def sampled(
    examples: Sequence[Example], most: int, kind: Kind, *, every_label: bool = False, seed: int = 0
) -> tuple[Example, ...]:
    """Draw a stratified sample of about `most` examples, in their order. Groups stay whole.

    Each label (kind classify), else each slice, keeps its share to within one group. The last group may exceed `most` by less than its own
    rows. With `every_label` the first rows drawn cover every label. The sample depends on groups, ids and seed alone; a larger sample
    contains a smaller one.
    """
    if len(examples) <= most:
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
    # A group's place within its stratum, from 0 to 1: groups up to one place are the same share of every stratum.
    places: dict[str, tuple[float, str]] = {}
    for stratum, names in strata.items():
        whole, before = sum(len(groups[name]) for name in names), 0
        for rank, name in enumerate(names):
            middle = (before + len(groups[name]) / 2) / whole
            places[name] = (0.0 if every_label and not rank else middle, sha256_text(str(seed), stratum))
            before += len(groups[name])
    picked: set[str] = set()
    for name in sorted(groups, key=lambda name: places[name]):
        if len(picked) >= most:
            break
        picked.update(example.id for example in groups[name])
    return tuple(example for example in examples if example.id in picked)
