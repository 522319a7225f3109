"""Which arms fill a two by two: base or tuned weights with and without a context, shots and passages on the same weights."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from trimtab.base.records import Arm
from trimtab.reports.words import endpoint, parts_of

OF_CONTEXT = {"rag": "passages", "few-shot": "shots", "nearest-shots": "shots"}  # the setting that sizes each part
Parts = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    """Four arms: `neither` factor, the `first` alone, the `second` alone, `both`; in `tuning` the first factor is tuned weights."""

    neither: Arm
    first: Arm
    second: Arm
    both: Arm
    tuning: bool


def squares(arms: Sequence[Arm]) -> tuple[Square, ...]:
    """Every two by two that `arms` fill, in their order; arms that differ in a setting are never taken for the same."""
    known = {(_weights(arm), _parts(arm)): arm for arm in reversed(arms)}  # of two that are the same the first stays
    base: Hashable = ("base",)
    none: Parts = frozenset()
    found = []
    for arm in arms:
        weights, parts = _weights(arm), _parts(arm)
        corners: list[tuple[bool, list[tuple[Hashable, Parts]]]] = []
        if parts and arm.weights not in ("base", "linear", "api"):
            corners.append((True, [(base, none), (weights, none), (base, parts), (weights, parts)]))
        if len(parts) == 2:
            passages, shots = (frozenset({part}) for part in sorted(parts, key=lambda part: part[0] != "rag"))
            corners.append((False, [(weights, none), (weights, passages), (weights, shots), (weights, parts)]))
        for tuning, four in corners:
            if all(corner in known for corner in four) and known[four[3]] is arm:
                neither, first, second, both = (known[corner] for corner in four)
                found.append(Square(neither=neither, first=first, second=second, both=both, tuning=tuning))
    return tuple(found)


def _weights(arm: Arm) -> Hashable:
    """What tells weights apart: the method, its stages and settings; for an endpoint its name."""
    if arm.weights == "base":
        return ("base",)
    if arm.weights == "api":
        return ("api", endpoint(arm))
    settings = {key: value for key, value in arm.settings.items() if key not in OF_CONTEXT.values()}
    return (arm.weights, arm.stages, repr(sorted(settings.items())))


def _parts(arm: Arm) -> Parts:
    """What tells contexts apart: the parts, each with the setting that sizes it."""
    return frozenset((part, repr(arm.settings.get(OF_CONTEXT.get(part, "")))) for part in parts_of(arm.context))
