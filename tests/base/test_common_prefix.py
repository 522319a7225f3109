"""The length of the common prefix of two sequences."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.common_prefix import common_prefix_length


@given(st.text("ab", max_size=9), st.text("ab", max_size=9))
def test_up_to_there_they_are_the_same_and_no_further(one: str, other: str) -> None:
    length = common_prefix_length(one, other)
    assert one[:length] == other[:length]
    assert length in (len(one), len(other)) or one[length] != other[length]
    assert common_prefix_length(tuple(one), tuple(other)) == length
