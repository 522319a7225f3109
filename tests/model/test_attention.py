"""Flat rows through our attention against transformers' own, one sequence at a time; parts of attention joined."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import FAMILIES, VOCABULARY, base_of, plain_model

from trimtab.model import attention
from trimtab.model.attention import (
    AttentionConfig,
    PackedSequences,
    causal_attention,
    visibility_mask,
)

pytestmark = pytest.mark.no_kernels


@pytest.mark.parametrize("family", FAMILIES)
def test_a_flat_row_gives_the_logits_of_each_sequence_alone(family):
    base, plain = base_of(family), plain_model(family)
    lengths = [1, 13, 2, 20]  # longer than the sliding windows
    ids = torch.arange(sum(lengths)) * 7 % (VOCABULARY - 3) + 3
    layout = PackedSequences(lengths)
    with torch.no_grad():
        ours = base.logits(base.hidden(ids, layout.positions_N, layout))
        for part in range(len(lengths)):
            own = slice(sum(lengths[:part]), sum(lengths[: part + 1]))
            assert torch.allclose(ours[own], plain(input_ids=ids[own][None]).logits[0], atol=1e-4)


def test_positions_start_anew_in_every_sequence():
    assert PackedSequences([2, 3]).positions_N.tolist() == [0, 1, 0, 1, 2]


def by_hand(query, key, value, rule):
    groups = query.shape[0] // key.shape[0]
    key, value = key.repeat_interleave(groups, 0), value.repeat_interleave(groups, 0)
    scores = query @ key.transpose(1, 2) * rule.scale
    if rule.softcap:
        scores = rule.softcap * torch.tanh(scores / rule.softcap)
    seen = visibility_mask(query.shape[1], key.shape[1], rule.window, query.device)
    return scores.masked_fill(~seen, float("-inf")).softmax(-1) @ value


@given(
    heads=st.sampled_from([1, 2, 4]),
    keys=st.integers(1, 20),
    queries=st.integers(1, 20),
    window=st.none() | st.integers(1, 25),
    cap=st.none() | st.just(3.0),
    blocks=st.sampled_from([(256, 128), (3, 2), (5, 4), (1, 1)]),
    moving=st.sampled_from([(True, True, True), (False, False, True), (False, True, False)]),
)
def test_causal_attention_is_the_formula_with_its_gradients(heads, keys, queries, window, cap, blocks, moving):
    queries = min(queries, keys)
    torch.manual_seed(keys)
    shapes = [(4, queries, 8), (heads, keys, 8), (heads, keys, 8)]
    ours = [torch.randn(shape, requires_grad=moves) for shape, moves in zip(shapes, moving, strict=True)]
    theirs = [value.detach().clone().requires_grad_(value.requires_grad) for value in ours]
    rule = AttentionConfig(0.3, window, cap)
    with patch.multiple(attention, _SINGLE_BLOCK_QUERIES=blocks[0], _BLOCK_QUERIES=blocks[1]):
        left, right = causal_attention(*ours, rule), by_hand(*theirs, rule)
        assert torch.allclose(left, right, atol=1e-5)
        assert torch.allclose(causal_attention(*(side.detach() for side in ours), rule), right, atol=1e-5)
        check_gradients(left, right, ours, theirs)


def check_gradients(left, right, ours, theirs):
    weighting = torch.randn_like(left)
    (left * weighting).sum().backward()
    (right * weighting).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.allclose(one.grad, other.grad, atol=1e-4)
