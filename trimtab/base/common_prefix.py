"""What sequences begin with in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def common_prefix_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many items (letters, tokens) two sequences of one type begin with in common; of many, ask for the least and the greatest."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # of slices, which are compared faster than item by item
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
