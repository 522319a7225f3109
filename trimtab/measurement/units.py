"""Units of answers that come in sessions, days and bursts: what may be taken for independent of each other.

A unit is a user (or session, or day) where answers name one, and an answer where they do not. Where neighbouring units
resemble each other more than units in another order would, several in a row are one unit: a block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from trimtab.measurement.clusters import ItemGroups
from trimtab.measurement.resampling import Array, Indices

ORDERS = 199  # random ones that the order of the units is compared with
ALIKE = 0.1  # the level at which neighbours count as alike
REACH = 3  # a block is so many times as long, and one more, as the longest ones that resembled their neighbours
FEWEST_BLOCKS = 6  # of fewer their order says nothing


def unit_codes(names: ItemGroups, length: int = 1, *, begin: int = 0) -> Indices:
    """Return the unit of each answer, numbered from `begin`: answers of one name together, others alone, and `length`
    of them in a row, in the order in which they began."""
    numbers: dict[object, int] = {}
    own = np.array(
        [numbers.setdefault(place if name is None else name, len(numbers)) for place, name in enumerate(names)],
        dtype=np.intp,
    )
    blocks = max(1, len(numbers) // length)
    return own * blocks // len(numbers) + begin


def block_length(features: Sequence[Array], names: ItemGroups) -> int | None:
    """Return how many units in a row have to be taken as one; 1 where their order does not matter, None where no block
    is long enough.

    `features`: `[N, …]` of each signal, of the answers in their order. Neighbours are compared by the mean of each
    unit: the sum of the inner products of all pairs, each divided by their distance, against that of random orders,
    and the least p-value of all signals against the least of each order (Westfall and Young 1993). Blocks are doubled
    while they are alike; the length is `REACH` times the last that was, and one more.
    """
    length, alike = 1, 0
    while True:
        codes = unit_codes(names, length)
        count = int(codes.max()) + 1
        if count < FEWEST_BLOCKS:
            return None if alike else 1
        if not _neighbours_alike([_unit_means(values, codes) for values in features]):
            break
        alike, length = length, 2 * length
    return alike * REACH + 1 if alike else 1


def splits(units: int, of_them: int) -> int:
    """Return in how many ways so many units can be drawn from all: fewer than 1 / p never show p."""
    return math.comb(units, of_them)


def _unit_means(values: Array, codes: Indices) -> Array:
    """Return the centred mean of each unit, `[U, D]`."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    count = int(codes.max()) + 1
    member_NU = (codes[:, None] == np.arange(count)).astype(np.float64)
    mean_UD: Array = (member_NU / member_NU.sum(0)).T @ flat
    centred_UD: Array = mean_UD - mean_UD.mean(0)
    return centred_UD


def _neighbours_alike(means: Sequence[Array]) -> bool:
    """True if near units resemble each other more than in random orders, in any signal."""
    nearness_PU = _nearness(len(means[0]))
    gram_SU = np.stack([(mean_UD @ mean_UD.T).ravel() for mean_UD in means]).astype(np.float32)
    found_SP = np.round(gram_SU @ nearness_PU.T / np.maximum(np.abs(gram_SU).max(1), 1e-12)[:, None], 4)
    p_SP = (found_SP[:, None, :] >= found_SP[:, :, None]).mean(2)
    least_P = p_SP.min(0)
    return bool((least_P <= least_P[0]).mean() <= ALIKE)


@lru_cache(maxsize=8)
def _nearness(count: int) -> NDArray[np.float32]:
    """Return 1 / distance of each pair of `count` units, as they are and in `ORDERS` random orders."""
    random, place = np.random.default_rng(0), np.arange(count)
    apart_UU = np.abs(place[:, None] - place)
    near_UU = np.divide(1.0, apart_UU, out=np.zeros(apart_UU.shape), where=apart_UU > 0).astype(np.float32)
    orders = [place, *(random.permutation(count) for _ in range(ORDERS))]
    return np.stack([near_UU[np.ix_(order, order)].ravel() for order in orders])
