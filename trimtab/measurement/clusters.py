"""Clustered items: the group of each item, and the standard error of a mean over groups."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trimtab.measurement.resampling import Array, Indices

ItemGroups = Sequence[str | None]

MIN_GROUPS = 10  # of one size: fewer estimate their own variance badly


def group_codes(groups: ItemGroups) -> Indices | None:
    """Return each item's group as a number from 0; None if no group has two items."""
    numbers: dict[tuple[str | None, int], int] = {}
    keys = [(group, -1) if group is not None else (None, place) for place, group in enumerate(groups)]
    codes = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.intp)
    return codes if len(numbers) < len(codes) else None


def group_count(groups: ItemGroups) -> int | None:
    """Return the number of groups; None if no group has two items."""
    codes = group_codes(groups)
    return None if codes is None else int(codes.max()) + 1


def effective_groups(codes: Indices, weights: Array | None = None) -> float:
    """Return the effective number of groups: G* = 1 / sum of the squared shares (Carter, Schnepel and Steigerwald
    2017).

    `weights`: of each item; of items that are groups of their own this is Kish's (1965) effective number of items.
    """
    sizes = np.bincount(codes, weights)
    return float(sizes.sum()) ** 2 / float(sizes @ sizes)


def degrees_of_freedom(codes: Indices, weights: Array | None = None) -> float:
    """Return the degrees of freedom of t for a clustered error: the harmonic mean of G* - 1 and Satterthwaite's; 0 for
    one group.

    Satterthwaite's (Bell and McCaffrey 2002): of the error's square as a sum over groups whose items all agree. G* -
    1 claims too much where groups are of very unequal sizes, Satterthwaite's next to nothing; the mean of their
    1/degrees is ours, chosen by simulation. Of groups of one size both are G - 1. `weights`: of each item; a group
    then counts as large as they sum to.
    """
    sizes = np.bincount(codes, weights).astype(np.float64)
    if len(sizes) < 2:
        return 0.0
    # The covariance of the shifts in `clustered_error` is that of their weights times
    # diag(v) - p v' - v p' + sum(v) p p'.
    p, v, each = sizes / sizes.sum(), sizes**2, (sizes.sum() - sizes) ** -2.0
    diagonal = -2 * p * v + v.sum() * p**2
    pp, pv, vv = float(each @ p**2), float(each @ (p * v)), float(each @ v**2)
    whole = float(v.sum())
    squares = 2 * pp * vv + 2 * pv**2 + (whole * pp) ** 2 - 4 * whole * pp * pv
    squares += float(each**2 @ (v**2 + 2 * v * diagonal))
    satterthwaite = float(each @ (v + diagonal)) ** 2 / squares
    return 2 / (1 / (effective_groups(codes, weights) - 1) + 1 / satterthwaite)


def too_few_groups(groups: ItemGroups | None) -> int | None:
    """Return the effective number of groups (G*) if groups repeat and it is below 10, so that intervals by group are
    rough; else None."""
    codes = None if groups is None else group_codes(groups)
    count = MIN_GROUPS if codes is None else effective_groups(codes)
    return min(round(count), MIN_GROUPS - 1) if count < MIN_GROUPS else None


def clustered_error(x: Array, codes: Indices, weights: Array | None = None) -> float:
    """Return the standard error of a mean over clusters, by the leave-one-cluster-out jackknife, at least that of
    independent items.

    CR3: the square is (G - 1)/G sum (mean without g - mean)^2 (Bell and McCaffrey 2002; MacKinnon, Nielsen and Webb
    2023, "Fast and reliable jackknife and bootstrap methods for cluster-robust inference"). Where groups are of one
    size it is the usual linearised error with G/(G - 1). The floor is ours. With `weights` it is that of the
    weighted mean, and the floor that of as many items as they count for, each with the spread of all: a few heavy
    items that happen to agree do not make it sure.
    """
    count, centred = int(codes.max()) + 1, x - np.average(x, weights=weights)
    if weights is not None:
        whole = float(weights.sum())
        independent = float(weights @ centred**2) / whole / (whole**2 / float(weights @ weights) - 1)
        shifts = np.bincount(codes, centred * weights) / (whole - np.bincount(codes, weights))
    else:
        independent = float(centred @ centred) / (len(x) - 1) / len(x)
        shifts = np.bincount(codes, centred) / (len(x) - np.bincount(codes))
    return math.sqrt(max((count - 1) / count * float(shifts @ shifts), independent))


def left_out_error(value: float, left_out: Array) -> float:
    """Return the jackknife standard error of any figure, from its `value` and its values with each unit left out."""
    shifts = left_out - value
    return math.sqrt((len(shifts) - 1) / len(shifts) * float(shifts @ shifts))
