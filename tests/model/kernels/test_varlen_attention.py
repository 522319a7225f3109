"""Causal attention by one kernel, with its gradient, against float64: trees, lengths around its blocks, heads that
share keys."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trimtab.model.attention import AttentionConfig, PackedSequences
from trimtab.model.kernels import build as compiled
from trimtab.model.kernels.varlen_attention import VarlenAttention

needs_kernels = pytest.mark.skipif("attend_causal" not in compiled.library(), reason="no kernel for it here")

SHAPES: dict[str, tuple[list[int], list[int | None] | None]] = {
    "one": ([1], None),
    "several": ([1, 2, 31, 32, 33, 64, 65], None),
    "long": ([300], None),
    "tree": ([40, 7, 33, 20, 90, 1], [None, 0, 0, 2, None, 4]),
    "trees within one another": ([5, 6, 7, 40], [None, None, 0, 1]),
}


def sides(tokens: int, heads: tuple[int, int], size: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(tokens, count, size, generator=generator).bfloat16() for count in (heads[0], *heads[1:] * 2)]


def learned(layout: PackedSequences, given: list[Tensor], dtype: torch.dtype, rule: AttentionConfig) -> list[Tensor]:
    """What comes out, and the gradients of queries, keys and values."""
    own = [side.detach().to(dtype).requires_grad_() for side in given]
    out = layout.attend(0, *(side.transpose(0, 1) for side in own), rule)
    target = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    out.backward(target.to(dtype))
    return [out.detach(), *(side.grad for side in own)]


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("heads", "size"), [((6, 2), 64), ((3, 3), 128)])
def test_it_is_nearer_to_float64_than_torch(
    shape: str, heads: tuple[int, int], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths, parents = SHAPES[shape]
    layout, given, rule = (
        PackedSequences(lengths, parents),
        sides(sum(lengths), heads, size),
        AttentionConfig(size**-0.5),
    )
    exact = learned(layout, given, torch.float64, rule)
    calls = counted(monkeypatch)
    ours = learned(layout, given, torch.bfloat16, rule)
    assert calls == ["attend_causal"] * 2
    with compiled.kernels_off():
        theirs = learned(layout, given, torch.bfloat16, rule)
    assert len(calls) == 2
    for own, plain, true in zip(ours, theirs, exact, strict=True):
        if true.norm() > 1e-9:
            assert error(own, true) <= 1.05 * error(plain, true) + 1e-4
        else:  # what a token alone gives its query and key
            assert own.abs().max() < 1e-5


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of kernels that trees run."""
    calls: list[str] = []
    real = compiled.call

    def noted(kernel: str, *given: Tensor | float | None) -> None:
        calls.append(kernel)
        real(kernel, *given)

    monkeypatch.setattr("trimtab.model.kernels.varlen_attention.call", noted)
    return calls


@needs_kernels
def test_scores_that_lie_far_apart_and_nan() -> None:
    layout, given = PackedSequences([50]), sides(50, (2, 2), 64)
    given[0] *= 100
    found = learned(layout, given, torch.bfloat16, AttentionConfig(1.0))
    exact = learned(layout, given, torch.float64, AttentionConfig(1.0))
    assert error(found[0], exact[0]) < 0.01
    given[1][20, 0, 3] = float("nan")
    out = learned(layout, given, torch.bfloat16, AttentionConfig(1.0))[0]
    assert out[20:, 0].isnan().all()
    assert out[:20].isfinite().all()
    assert out[:, 1].isfinite().all()


@needs_kernels
def test_windows_and_caps_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    layout, given = PackedSequences([9, 40], [None, 0]), sides(49, (2, 2), 64)
    for rule in (AttentionConfig(0.1, window=48), AttentionConfig(0.1, softcap=5.0)):
        learned(layout, given, torch.bfloat16, rule)
    assert not calls
    learned(layout, given, torch.bfloat16, AttentionConfig(0.1, window=49))
    assert calls


def test_trees_are_told_apart() -> None:
    assert VarlenAttention([2, 3, 4], [(), (), ()]).roots.tolist() == [0, 1, 2, 3]
    assert VarlenAttention([2, 3, 4], [(), (0,), (0, 1)]).roots.tolist() == [0, 3]
    assert VarlenAttention([2, 3, 4, 1], [(), (0,), (), (2,)]).roots.tolist() == [0, 2, 4]
    # one that goes on from a tree before the last one: all are one
    assert VarlenAttention([2, 3, 4], [(), (), (0,)]).roots.tolist() == [0, 3]
    assert VarlenAttention([2, 3, 4], [(), (0,), (0, 1)]).parents.tolist() == [-1, 0, 1]
