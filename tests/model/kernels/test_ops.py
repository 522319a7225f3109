"""Our kernels against float64 and against the same in torch, at lengths, heads and windows around their edges."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

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
    assert operations.supports_heads("attend_causal", query, key, key) == ("attend_causal" in compiled.library())
    assert not operations.supports_heads("attend_causal", query, key, value)
    assert not operations.supports_heads("attend_causal", query[..., :80], key[..., :80])
    short = bf16(3, 32, seed=3)  # angles for a part of each head
    with pytest.raises(RuntimeError, match="size"):
        operations.apply_rope(bf16(3, 2, 64), short, short)
