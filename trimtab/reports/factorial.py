"""Finds the two-by-two designs among arms: weights by context, and shots by passages on the same weights."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from trimtab.base.grammar import PARTS, is_trained
from trimtab.base.records import Arm

CONTEXT_SETTINGS = {part.setting for part in PARTS.values()}  # settings of a context, not of weights
FactorialParts = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoByTwo:
    """Four arms: `neither` factor, the `first` alone, the `second` alone, `both`; with `tuning` the first factor is
    tuned weights."""

    neither: Arm
    first: Arm
    second: Arm
    both: Arm
    tuning: bool


def two_by_twos(arms: Sequence[Arm]) -> tuple[TwoByTwo, ...]:
    """Return every two-by-two among `arms`, in their order; arms that differ in a setting count as different."""
    by_key = {(_weights_key(arm), _context_key(arm)): arm for arm in reversed(arms)}  # of equal arms the first counts
    base: Hashable = ("base",)
    no_parts: FactorialParts = frozenset()
    squares = []
    for arm in arms:
        weights, parts = _weights_key(arm), _context_key(arm)
        corners: list[tuple[bool, list[tuple[Hashable, FactorialParts]]]] = []
        if parts and is_trained(arm):
            corners.append((True, [(base, no_parts), (weights, no_parts), (base, parts), (weights, parts)]))
        if len(parts) == 2:
            passages, shots = (frozenset({part}) for part in sorted(parts, key=lambda part: part[0] != "rag"))
            corners.append((False, [(weights, no_parts), (weights, passages), (weights, shots), (weights, parts)]))
        for tuning, keys in corners:
            if all(corner in by_key for corner in keys) and by_key[keys[3]] is arm:
                neither, first, second, both = (by_key[corner] for corner in keys)
                squares.append(TwoByTwo(neither=neither, first=first, second=second, both=both, tuning=tuning))
    return tuple(squares)


def _weights_key(arm: Arm) -> Hashable:
    """Return what identifies weights: method, stages and settings; for an endpoint its name."""
    if arm.weights == "base":
        return ("base",)
    if arm.weights == "api":
        return ("api", arm.endpoint)
    settings = {key: value for key, value in arm.settings.items() if key not in CONTEXT_SETTINGS}
    return (arm.weights, arm.stages, repr(sorted(settings.items())))


def _context_key(arm: Arm) -> FactorialParts:
    """Return what identifies a context: its parts, each with the setting of its size."""
    return frozenset((part, repr(arm.settings.get(PARTS[part].setting))) for part in arm.parts)
