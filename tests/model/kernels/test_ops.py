"""Our kernels against float64 and against the same in torch, at lengths, heads and windows around their edges."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trimtab.model.attention import AttentionConfig, causal_part_attention, unmasked_attention
from trimtab.model.kernels import build as compiled
from trimtab.model.kernels import ops as operations

pytestmark = pytest.mark.skipif(not compiled.library(), reason="no C compiler, so no kernels")

ROUNDING = 2.0**-8  # of bfloat16


def bf16(*shape: int, seed: int = 0, by: float = 1.0) -> Tensor:
    return (by * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(torch.bfloat16)


def norm(width: int) -> Any:
    return SimpleNamespace(weight=1 + bf16(width, seed=9, by=0.1), variance_epsilon=1e-5)


def nearly(ours: Tensor, exact: Tensor, roundings: float = 1.0) -> None:
    """Within so many roundings of the number itself, or of a thousandth for what is next to nothing."""
    assert ((ours.double() - exact.double()).abs() <= roundings * ROUNDING * exact.double().abs().clamp(min=1e-3)).all()


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("width", [32, 576])
def test_sums_and_norms_are_those_of_torch(rows: int, width: int) -> None:
    hidden, more = bf16(rows, width), bf16(rows, width, seed=1)
    kept = hidden.clone()
    sums, ours = operations.add_rms_norm(hidden, more, norm(width))
    alone = operations.rms_norm(hidden, norm(width))
    assert torch.equal(hidden, kept)
    with compiled.kernels_off():
        plain_sums, theirs = operations.add_rms_norm(hidden, more, norm(width))
        plain_alone = operations.rms_norm(hidden, norm(width))
    assert torch.equal(sums, plain_sums)
    # what is added up in another order may be rounded to the other side, here and there
    nearly(ours, theirs)
    nearly(alone, plain_alone)
    assert (ours == theirs).float().mean() > 0.99


def test_rows_of_a_width_that_kernels_do_not_take_are_left_to_torch() -> None:
    hidden = bf16(3, 40)
    assert operations.rms_norm(hidden, norm(40)).shape == hidden.shape
    assert operations.gated_activation(bf16(1, 7), bf16(1, 7, seed=1), nn.SiLU()).shape == (1, 7)
    assert not operations.supports_rows("add_and_norm", bf16(2, 40))


def test_the_gate_is_that_of_torch_over_all_of_its_range() -> None:
    silu, gelu, up = nn.SiLU(), nn.GELU(), bf16(2, 4096, seed=1)
    gate = torch.cat([bf16(1, 4096, by=3.0), torch.linspace(-200, 200, 4096).to(torch.bfloat16)[None]])
    ours, theirs = operations.gated_activation(gate, up, silu), silu(gate) * up
    nearly(ours, theirs, 2)
    assert (ours == theirs)[0].float().mean() > 0.99
    assert torch.equal(operations.gated_activation(gate, up, gelu), gelu(gate) * up)


@pytest.mark.parametrize(("tokens", "heads", "size"), [(1, 3, 64), (7, 5, 128), (40, 12, 64)])
def test_heads_turn_to_the_bit(tokens: int, heads: int, size: int) -> None:
    """What stands behind the heads that turn, the values, stays as it was."""
    rows = bf16(tokens, heads + 2, size)
    cos, sin = bf16(tokens, size, seed=1), bf16(tokens, size, seed=2)
    values = rows[:, heads:].clone()
    with compiled.kernels_off():
        theirs = operations.apply_rope(rows[:, :heads], cos, sin)
    assert torch.equal(operations.apply_rope(rows[:, :heads], cos, sin), theirs)
    assert torch.equal(rows[:, heads:], values)


@pytest.mark.parametrize("places", [1, 2, 31, 32, 33, 64, 100, 535])
@pytest.mark.parametrize("queries", [1, 17])
def test_weights_and_what_they_sum_to(places: int, queries: int) -> None:
    places = max(places, queries)
    scores = bf16(2, 3 * queries, places, by=4.0)
    exact = 0.3 * scores.double()
    hidden = torch.ones(queries, places).triu(places - queries + 1).bool().repeat(3, 1)
    exact = exact.masked_fill(hidden, float("-inf"))
    weights, log_sums = operations.scaled_softmax(scores.clone(), 0.3, queries)
    nearly(weights, exact.softmax(-1))
    assert torch.allclose(log_sums.double(), exact.logsumexp(-1), atol=1e-4)
    assert (weights.masked_select(hidden) == 0).all()


def test_weights_of_scores_that_lie_far_apart() -> None:
    scores = torch.tensor([[0.0, -200.0, 3e4, 3e4], [-3e38, 0.0, 0.0, -1e30]]).to(torch.bfloat16)
    weights, log_sums = operations.scaled_softmax(scores[None].clone(), 1.0)
    assert weights[0].tolist() == [[0.0, 0.0, 0.5, 0.5], [0.0, 0.5, 0.5, 0.0]]
    assert torch.allclose(log_sums[0].double(), scores.double().logsumexp(-1))


@pytest.mark.parametrize("rows", [1, 5])
def test_logarithms_of_summed_exponentials(rows: int) -> None:
    scores = bf16(rows, 4096, by=5.0)
    found = operations.log_sum_exp(scores)
    assert torch.allclose(found.double(), scores.double().logsumexp(-1), atol=1e-5)


class Slots:
    """Slots filled with something, and new tokens for them."""

    def __init__(self, lengths: list[int], each: int, shared: int, groups: int, size: int, room: int) -> None:
        count = len(lengths)
        self.each, self.scale = each, size**-0.5
        self.keys = bf16(count, shared, room // 64, size, 64, seed=1)
        self.values = bf16(count, shared, room, size, seed=2)
        every = bf16(count * each, (groups + 2) * shared, size, seed=3).transpose(0, 1)  # as a layer hands them over
        self.query, self.key, self.value = every.split([groups * shared, shared, shared])
        self.at = torch.tensor(lengths)

    def ours(self, window: int | None) -> tuple[Tensor, Tensor]:
        new = self.query, self.key, self.value
        return operations.attend_decode(new, self.keys, self.values, self.at, self.scale, window)

    def keys_in_order(self) -> Tensor:
        """`[slots, K, T, D]`."""
        return self.keys.transpose(3, 4).flatten(2, 3)

    def exact(self, window: int | None) -> tuple[Tensor, Tensor]:
        """In float64, sequence by sequence and token by token."""
        groups, keys, values = len(self.query) // len(self.key), self.keys_in_order().double(), self.values.double()
        outs, sums = [], []
        for token in range(self.query.shape[1]):
            slot, ahead = divmod(token, self.each)
            own = range(slot * self.each, slot * self.each + ahead + 1)
            end = int(self.at[slot])
            key = torch.cat([keys[slot, :, :end], self.key[:, own].double()], 1)
            value = torch.cat([values[slot, :, :end], self.value[:, own].double()], 1)
            start = max(0, key.shape[1] - window) if window else 0
            key, value = (side[:, start:].repeat_interleave(groups, 0) for side in (key, value))
            scores = self.scale * torch.einsum("hd,htd->ht", self.query[:, token].double(), key)
            outs.append(torch.einsum("ht,htd->hd", scores.softmax(-1), value))
            sums.append(scores.logsumexp(-1))
        return torch.stack(outs), torch.stack(sums)


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize(("shared", "groups", "size"), [(3, 3, 64), (1, 1, 128), (2, 7, 64), (1, 4, 256)])
@pytest.mark.parametrize("window", [None, 5, 70])
def test_new_tokens_attend_to_their_slot(each: int, shared: int, groups: int, size: int, window: int | None) -> None:
    lengths = [0, 1, 60, 61, 63, 64, 65, 120, 125]
    slots = Slots(lengths, each, shared, groups, size, room=128)
    keys, values = slots.keys_in_order(), slots.values.clone()
    exact, exact_sums = slots.exact(window)
    out, sums = slots.ours(window)
    assert ((out.double() - exact).abs() <= ROUNDING * (exact.abs() + 0.05)).all()
    assert torch.allclose(sums.double(), exact_sums, atol=1e-4)
    for slot, length in enumerate(lengths):  # they stand in their slots now, and nothing else has changed
        own, new = slice(slot * each, (slot + 1) * each), slice(length, length + each)
        keys[slot, :, new], values[slot, :, new] = slots.key[:, own], slots.value[:, own]
    assert torch.equal(slots.keys_in_order(), keys)
    assert torch.equal(slots.values, values)


def test_a_sequence_gets_the_same_beside_others_to_the_bit() -> None:
    draw = random.Random(0)
    lengths = [draw.randrange(190) for _ in range(20)]
    many = Slots(lengths, 1, 3, 3, 64, room=192)
    outs, _ = many.ours(None)
    for slot in (0, 7, 19):
        one = Slots(lengths[:1], 1, 3, 3, 64, room=192)
        one.at = many.at[slot : slot + 1]
        one.keys, one.values = many.keys[slot : slot + 1].clone(), many.values[slot : slot + 1].clone()
        own = slice(slot, slot + 1)
        one.query, one.key, one.value = many.query[:, own], many.key[:, own], many.value[:, own]
        assert torch.equal(one.ours(None)[0][0], outs[slot])


@pytest.mark.parametrize("groups", [1, 3, 4])
@pytest.mark.parametrize("prompt", [1, 30, 64, 90])
@pytest.mark.parametrize("nodes", [1, 40])
def test_nodes_attend_to_their_prompt_and_their_way(groups: int, prompt: int, nodes: int) -> None:
    shared, size, draw = 2, 64, random.Random(prompt)
    ways: list[list[int]] = []
    for node in range(nodes):  # each goes on from an earlier one, or from the prompt
        before = draw.choice([[], *ways])
        ways.append([*(before if len(before) < 5 else []), prompt + node])
    deepest = max(map(len, ways))
    query = bf16(nodes, groups * shared, size).transpose(0, 1)
    key, value = bf16(shared, prompt + nodes, size, seed=1), bf16(prompt + nodes, shared, size, seed=2).transpose(0, 1)
    ways_QA = torch.tensor([[*way, *[0] * (deepest - len(way))] for way in ways])
    depths = torch.tensor([len(way) for way in ways])
    out, sums = operations.attend_tree(query, key, value, ways_QA, depths, prompt, 0.2)
    for node, way in enumerate(ways):
        seen = [*range(prompt), *way]
        keys, values = (side[:, seen].double().repeat_interleave(groups, 0) for side in (key, value))
        scores = 0.2 * torch.einsum("hd,htd->ht", query[:, node].double(), keys)
        exact = torch.einsum("ht,htd->hd", scores.softmax(-1), values)
        assert ((out[node].double() - exact).abs() <= ROUNDING * (exact.abs() + 0.05)).all()
        assert torch.allclose(sums[node].double(), scores.logsumexp(-1), atol=1e-4)


@pytest.mark.parametrize("tokens", [65, 300])
def test_prompts_attend_as_by_torch_alone(tokens: int) -> None:
    query, key, value = bf16(9, tokens, 64), bf16(3, tokens, 64, seed=1), bf16(3, tokens, 64, seed=2)
    ours = [
        causal_part_attention(query, key, value, AttentionConfig(0.125)),
        unmasked_attention(query[:3], key, value, AttentionConfig(0.125)),
    ]
    with compiled.kernels_off():
        theirs = [
            causal_part_attention(query, key, value, AttentionConfig(0.125)),
            unmasked_attention(query[:3], key, value, AttentionConfig(0.125)),
        ]
    for (out, sums), (plain_out, plain_sums) in zip(ours, theirs, strict=True):
        assert ((out.double() - plain_out.double()).abs() <= 2 * ROUNDING * (plain_out.double().abs() + 0.05)).all()
        assert torch.allclose(sums, plain_sums, atol=1e-4)


def test_what_is_no_number_stays_none() -> None:
    """Training stops where a loss is no number, so none may be lost on the way."""
    bad = bf16(2, 64)
    bad[1, 5] = float("nan")
    fine, weight = bf16(2, 64, seed=1), norm(64)
    rows = [
        operations.rms_norm(bad, weight),
        operations.add_rms_norm(bad, fine, weight)[1],
        operations.add_rms_norm(fine, bad, weight)[0],
        operations.gated_activation(bad, fine, nn.SiLU()),
        operations.gated_activation(fine, bad, nn.SiLU()),
        operations.scaled_softmax(bad[None].clone(), 0.5)[0][0],
        operations.softmax_backward(fine.clone(), bad.clone()),
        operations.apply_rope(bad[:, None].clone(), fine, fine)[:, 0],
    ]
    for row in rows:
        assert row[0].isfinite().all()
        assert row[1].isnan().any()
    assert operations.log_sum_exp(bad).isnan().tolist() == [False, True]
    infinite = torch.full((1, 64), float("inf"), dtype=torch.bfloat16)
    assert operations.gated_activation(infinite, infinite, nn.SiLU()).isinf().all()


def test_heads_of_several_sizes_are_left_to_torch() -> None:
    """A kernel is told where numbers lie and one size for all of them."""
    query, key, value = bf16(4, 3, 128), bf16(2, 3, 128, seed=1), bf16(2, 3, 64, seed=2)
    assert operations.supports_heads("attend_own", query, key, key)
    assert not operations.supports_heads("attend_own", query, key, value)
    assert not operations.supports_heads("attend_own", query[..., :80], key[..., :80])
    assert not operations.supports_decode((query, key, key), bf16(2, 2, 1, 128, 96))
    short = bf16(3, 32, seed=3)  # angles for a part of each head
    with pytest.raises(RuntimeError, match="size"):
        operations.apply_rope(bf16(3, 2, 64), short, short)
