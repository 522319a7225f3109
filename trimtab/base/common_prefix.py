"""Length of the common prefix of two sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def common_prefix_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Return the length of the common prefix of two sequences; of many, compare the smallest and the largest."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # bisection on slices: comparing slices is faster than comparing item by item
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
