"""Short sequences that are attended at once, against each of them alone."""

from itertools import accumulate
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trimtab.model import padding as places
from trimtab.model.attention import AttentionConfig, PackedSequences
from trimtab.model.padding import PaddedLayout, padded_groups

HEADS, SHARED, SIZE = 4, 2, 8


def attended(lengths, parents, rule, dtype, *, short, moving=True):
    """What every sequence mixes and its gradients, where sequences of up to `short` tokens are attended at once; how
    many calls that took."""
    torch.manual_seed(sum(lengths))
    sides = [torch.randn(heads, sum(lengths), SIZE, dtype=dtype) for heads in (HEADS, SHARED, SHARED)]
    sides = [side.requires_grad_(moving) for side in sides]
    with patch.object(places, "MAX_PADDED_LENGTH", short):
        layout = PackedSequences(lengths, parents)
    out = layout.attend(0, *sides, rule)
    if moving:
        (out * torch.randn_like(out)).sum().backward()
    return out, [side.grad for side in sides], len(layout.groups)


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    data=st.data(),
    window=st.none() | st.integers(1, 12),
    cap=st.none() | st.just(3.0),
    moving=st.booleans(),
)
def test_sequences_attend_at_once_as_each_does_alone(lengths, data, window, cap, moving):
    parents = [data.draw(st.none() | st.integers(0, number - 1)) if number else None for number in range(len(lengths))]
    rule = AttentionConfig(0.3, window, cap)
    ours, theirs = (
        attended(lengths, parents, rule, torch.float64, short=short, moving=moving)
        for short in (places.MAX_PADDED_LENGTH, 0)
    )
    assert ours[2] <= theirs[2] == len(lengths)
    assert torch.allclose(ours[0], theirs[0], atol=1e-12)
    for one, other in zip(ours[1], theirs[1], strict=True):
        assert (one is None and other is None) or torch.allclose(one, other, atol=1e-12)


def test_short_neighbours_attend_at_once_in_every_precision():
    lengths, parents, rule = [12, 7, 9, 8, 7], [None, 0, 0, 0, 0], AttentionConfig(0.3)
    for dtype, tolerance in ((torch.bfloat16, 0.03), (torch.float32, 1e-5)):
        ours, theirs = (attended(lengths, parents, rule, dtype, short=short) for short in (64, 0))
        assert (ours[2], theirs[2]) == (2, 5)
        for one, other in zip((ours[0], *ours[1]), (theirs[0], *theirs[1]), strict=True):
            assert torch.allclose(one, other, atol=tolerance, rtol=tolerance)


def test_neighbours_are_together_while_they_are_short_alike_and_go_on_from_the_same():
    def groups(lengths, chains=None):
        return [list(group) for group in padded_groups(lengths, chains or [()] * len(lengths))]

    assert groups([5, 6, 7]) == [[0, 1, 2]]
    assert groups([30, 5, 6, 7], [(), (0,), (0,), (0,)]) == [[0], [1, 2, 3]]
    assert groups([5, 6, 7], [(), (0,), ()]) == [[0], [1], [2]]
    assert groups([65, 64, 64, 66]) == [[0], [1, 2], [3]]
    assert groups([2, 60, 60]) == [[0], [1, 2]], "120 places for 62 tokens are too many"
    assert groups([]) == []


@pytest.mark.parametrize("heads", [1, 3])
def test_tokens_go_to_their_places_and_back(heads):
    lengths = [2, 3, 1]
    side = torch.arange(6.0).repeat(heads)[None, :, None] + 10 * torch.arange(heads).repeat_interleave(6)[None, :, None]
    where = PaddedLayout(lengths)
    placed = where.pad(side, heads)
    shape = placed.view(3, heads, 3)
    for number, start in enumerate(list(accumulate(lengths, initial=0))[:-1]):
        for head in range(heads):
            own = [10.0 * head + token for token in range(start, start + lengths[number])]
            assert shape[number, head, : lengths[number]].tolist() == own
    assert torch.equal(where.unpad(placed, heads), side)
