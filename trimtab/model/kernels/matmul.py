"""Matrix products of linear layers in training (LoRA, gradients): by C kernel where that is faster, else by torch.

Shapes: N tokens, I inputs and O outputs of a layer, S a rank, or the ranks of layers with one input together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab.model.kernels.build import call, supports
from trimtab.model.kernels.ops import PAIR

LEAST = 96  # rows: for fewer torch's products are as fast, and for one much faster


def matmul(
    input_NI: Tensor,
    weight: Tensor,
    *,
    transposed_weight: bool = False,
    low: tuple[Tensor, Tensor] | None = None,
    bias_O: Tensor | None = None,
    onto_NO: Tensor | None = None,
) -> Tensor:
    """Return the input times a weight `[O, I]` (`[I, O]` if `transposed_weight`) as `out_NO`; `onto_NO` is added and
    may be overwritten.

    `low`: factors `[N, S]` and `[S, O]` whose product is added.
    """
    outputs = weight.shape[1 if transposed_weight else 0]
    if not use_kernel(input_NI, weight) or outputs % PAIR:
        return _by_torch(input_NI, weight if transposed_weight else weight.T, low, bias_O, onto_NO)
    input_NI, tokens = input_NI.contiguous(), len(input_NI)
    out_NO = input_NI.new_empty(tokens, outputs) if onto_NO is None else onto_NO
    low_NS, side_SO = low or (None, None)
    if low_NS is not None and side_SO is not None:
        low_NS, side_SO = _contiguous_rows(low_NS), side_SO.contiguous()
    thin = (None, 0, None, 0) if low_NS is None else (low_NS, low_NS.stride(0), side_SO, low_NS.shape[1])
    counts = tokens, input_NI.shape[1], outputs
    call(
        "product", input_NI, weight.contiguous(), transposed_weight, *thin, bias_O, onto_NO is not None, *counts, out_NO
    )
    return out_NO


def _by_torch(
    input_NI: Tensor,
    weight_IO: Tensor,
    low: tuple[Tensor, Tensor] | None,
    bias_O: Tensor | None,
    onto_NO: Tensor | None,
) -> Tensor:
    if low is not None:  # first: added to a sum already rounded to bfloat16, a small change would be rounded away
        onto_NO = low[0] @ low[1] if onto_NO is None else onto_NO.addmm_(*low)
    out_NO = input_NI @ weight_IO if onto_NO is None else onto_NO.addmm_(input_NI, weight_IO)
    return out_NO if bias_O is None else out_NO.add_(bias_O)


def lora_down(input_NI: Tensor, side_SI: Tensor) -> Tensor:
    """Return the input times LoRA's down-projection, `low_NS`."""
    if not use_kernel(input_NI, side_SI):
        return input_NI @ side_SI.T
    low_NS = input_NI.new_empty(len(input_NI), len(side_SI))
    call("narrow", input_NI.contiguous(), side_SI.contiguous(), *input_NI.shape, len(side_SI), low_NS, len(side_SI))
    return low_NS


def grad_matmul(left_NS: Tensor, right_NI: Tensor, scale: float = 1.0, *, transposed: bool = False) -> Tensor:
    """Return `left.T @ right` times `scale`, summed over tokens: float32 `[S, I]`, or `[I, S]` if `transposed`."""
    if not use_kernel(right_NI, left_NS):
        plain = (right_NI.T @ left_NS if transposed else left_NS.T @ right_NI).float()
        return plain if scale == 1.0 else plain * scale
    (tokens, inputs), rank, left_NS = right_NI.shape, left_NS.shape[1], _contiguous_rows(left_NS)
    sums = torch.empty((inputs, rank) if transposed else (rank, inputs))
    counts = tokens, inputs, rank
    call("gather", left_NS, left_NS.stride(0), right_NI.contiguous(), *counts, scale, transposed, sums, None)
    return sums


def weight_gradient(grad_NO: Tensor, input_NI: Tensor) -> Tensor:
    """Return the gradient of a weight, `[O, I]` in its type."""
    (tokens, outputs), inputs = grad_NO.shape, input_NI.shape[1]
    if not use_kernel(input_NI, grad_NO):
        return grad_NO.T @ input_NI
    grad_OI, counts = grad_NO.new_empty(outputs, inputs), (tokens, inputs, outputs)
    left_NS, right_NI, transposed = grad_NO, input_NI.contiguous(), outputs > inputs and outputs % PAIR == 0
    if transposed:  # the left side is read for every 32 columns of the right one: it should be the narrow one
        left_NS, right_NI, counts = right_NI, grad_NO.contiguous(), (tokens, outputs, inputs)
    call("gather", left_NS, left_NS.stride(0), right_NI, *counts, 1.0, transposed, None, grad_OI)
    return grad_OI


def contiguous_transpose(side_OS: Tensor, input_NI: Tensor) -> Tensor:
    """Return `side_SO`, contiguous only where a kernel reads it: the last bits of torch's products depend on the
    layout."""
    return side_OS.T.contiguous() if use_kernel(input_NI) else side_OS.T


def use_kernel(rows: Tensor, *others: Tensor) -> bool:
    """Return True if a kernel multiplies these faster than torch; the first are rows of a layer's input."""
    enough = rows.shape[:-1].numel() >= LEAST and rows.shape[-1] % PAIR == 0
    return enough and supports("product", rows, *others)


def _contiguous_rows(low_NS: Tensor) -> Tensor:
    """Return the same numbers with contiguous rows."""
    return low_NS if low_NS.stride(1) == 1 else low_NS.contiguous()
