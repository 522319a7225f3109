"""Operators of torch whose names are private: torch may change or remove them. Nothing else in Trimtab calls one.

Each has a probe, which calls it once on a few numbers and compares the result with public operators. Callers ask
`works` first; where a probe fails they compute the same by public operators, which is slower. Shapes: N rows, I
inputs and O outputs of a layer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

_ROUNDING = 2**-6  # relative, of a few added bf16 products


def works(operator: Callable[..., object]) -> bool:
    """Return True if an operator of this file exists in this version of torch and computes the right result on this
    processor.
    """
    return _probed(operator)


def int8_matmul(input_NI: Tensor, whole_OI: Tensor, scale_O: Tensor) -> Tensor:
    """The product `out_NO` with weights of 8-bit integers, each row times its scale."""
    out_NO: Tensor = torch._weight_int8pack_mm(input_NI, whole_OI, scale_O)
    return out_NO


def mkldnn_weight(weight_OI: Tensor) -> Tensor:
    """A copy of a bf16 weight in oneDNN's own order; only `mkldnn_linear` can read it."""
    copy_OI: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_OI, None)
    return copy_OI


def mkldnn_linear(input: Tensor, reordered_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """A linear layer's output, `[..., O]` from `[..., I]`, by a weight of `mkldnn_weight`."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(input, reordered_OI, bias_O, "none", [], "")
    return out


def softmax_gradient(grads: Tensor, weights: Tensor) -> Tensor:
    """The gradient of a softmax's input, over the last dimension, from that of its output."""
    out: Tensor = torch._softmax_backward_data(grads, weights, -1, weights.dtype)
    return out


def _numbers(*shape: int) -> Tensor:
    """Numbers between -1 and 1; none from the random generator, whose state belongs to the caller."""
    count = torch.Size(shape).numel()
    return torch.arange(1, count + 1, dtype=torch.float32).mul_(0.7).sin_().view(shape)


def _near(found: Tensor, right: Tensor) -> bool:
    return torch.allclose(found.float(), right.float(), rtol=_ROUNDING, atol=_ROUNDING)


def _probe_int8() -> bool:
    input_NI, scale_O = _numbers(2, 32).bfloat16(), torch.full((32,), 1 / 127).bfloat16()
    whole_OI = _numbers(32, 32).mul_(127).round_().to(torch.int8)
    right_NO = input_NI.float() @ (whole_OI.float() * scale_O.float()[:, None]).T
    return _near(int8_matmul(input_NI, whole_OI, scale_O), right_NO)


def _probe_reordered() -> bool:
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):  # type: ignore[no-untyped-call]
        return False
    input_NI, weight_OI, bias_O = _numbers(2, 32).bfloat16(), _numbers(32, 32).bfloat16(), _numbers(32).bfloat16()
    found_NO = mkldnn_linear(input_NI, mkldnn_weight(weight_OI), bias_O)
    return _near(found_NO, F.linear(input_NI, weight_OI, bias_O))


def _probe_softmax() -> bool:
    scores, grads = _numbers(2, 8).requires_grad_(), _numbers(2, 8).flip(0)
    weights = scores.softmax(-1)
    (right,) = torch.autograd.grad(weights, scores, grads)
    return _near(softmax_gradient(grads, weights.detach()), right)


_PROBES: Mapping[Callable[..., object], Callable[[], bool]] = {
    int8_matmul: _probe_int8,
    mkldnn_linear: _probe_reordered,
    softmax_gradient: _probe_softmax,
}


@functools.cache
def _probed(operator: Callable[..., object]) -> bool:
    try:
        with torch.inference_mode(False), torch.enable_grad():
            return _PROBES[operator]()
    except (AttributeError, RuntimeError, TypeError):  # it is gone, does not run here, or takes other arguments
        return False
