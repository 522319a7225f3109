"""Items in groups that repeat: which group each is of, and the error of a mean over groups."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trimtab.measurement.resampling import Array, Indices

Groups = Sequence[str | None]

MIN_GROUPS = 20  # fewer clusters than this estimate their own variance badly


def group_codes(groups: Groups) -> Indices | None:
    """Each item's group as a number from 0, or None where no group repeats."""
    numbers: dict[tuple[str | None, int], int] = {}
    keys = [(group, -1) if group is not None else (None, place) for place, group in enumerate(groups)]
    codes = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.intp)
    return codes if len(numbers) < len(codes) else None


def group_count(groups: Groups) -> int | None:
    """How many groups the items form; None where no group repeats."""
    codes = group_codes(groups)
    return None if codes is None else int(codes.max()) + 1


def too_few_groups(groups: Groups | None) -> int | None:
    """The number of groups, where they repeat and there are fewer than 20: intervals by group are then rough."""
    count = None if groups is None else group_count(groups)
    return count if count is not None and count < MIN_GROUPS else None


def clustered_error(x: Array, codes: Indices) -> float:
    """Standard error of a mean over clusters (linearised ratio), never below that of independent items."""
    count, centred = int(codes.max()) + 1, x - x.mean()
    sums = np.bincount(codes, centred)
    clustered = count / (count - 1) * float(sums @ sums)
    independent = len(x) / (len(x) - 1) * float(centred @ centred)
    return math.sqrt(max(clustered, independent)) / len(x)
