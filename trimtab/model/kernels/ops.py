"""Calls of the C kernels for norms, activations, RoPE, softmax and attention; some fall back to torch here, for the
others the caller does.

Kernels and torch round where transformers rounds. Shapes: N tokens of the flat row, H query heads, K key/value heads, D
head size or width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import SiLUActivation

from trimtab.model.kernels.build import call, supports
from trimtab.model.kernels.torch_private import softmax_gradient, works

PAIR, BLOCK = 32, 64  # numbers that the kernels work on at once: of a row, and of a head or a slot


def apply_function(function: type[torch.autograd.Function], *given: Any) -> Any:
    """Return the result of an autograd function; torch types its `apply` in some versions and not in others."""
    apply: Any = function.apply
    return apply(*given)


def supports_rows(op: str, *rows: Tensor) -> bool:
    """Return True if there is a kernel `op` for these rows: as `supports`, and of a width that is a multiple of
    PAIR."""
    return rows[0].shape[-1] % PAIR == 0 and supports(op, *rows)


def rms_norm(input_ND: Tensor, norm: Any) -> Tensor:
    """Return the RMS norm, rounded as transformers rounds it: before and after the multiplication with the weight."""
    if supports_rows("add_and_norm", input_ND, norm.weight):
        return _add_and_norm(input_ND, None, norm)[1]
    out: Tensor = F.rms_norm(input_ND, input_ND.shape[-1:], eps=norm.variance_epsilon) * norm.weight
    return out


def add_rms_norm(hidden_ND: Tensor, more_ND: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    """Return the sum of two tensors, and its RMS norm."""
    if supports_rows("add_and_norm", hidden_ND, more_ND, norm.weight):
        return _add_and_norm(hidden_ND, more_ND, norm)
    sum_ND = hidden_ND + more_ND
    return sum_ND, rms_norm(sum_ND, norm)


def gated_activation(gate: Tensor, up: Tensor, activation: Any) -> Tensor:
    """Return the activation of `gate` times `up`: the input of a gated MLP's last product."""
    if is_silu(activation) and gate.numel() % PAIR == 0 and supports("gated", gate, up):
        gate, up = gate.contiguous(), up.contiguous()
        out = torch.empty_like(gate)
        call("gated", gate, up, out, gate.numel())
        return out
    mixed: Tensor = activation(gate) * up
    return mixed


def is_silu(activation: Any) -> bool:
    """Return True for SiLU, the one activation with kernels."""
    return isinstance(activation, SiLUActivation | nn.SiLU)


def apply_rope(heads_NHD: Tensor, cos_ND: Tensor, sin_ND: Tensor) -> Tensor:
    """Return queries or keys rotated to their positions (RoPE); the input may be overwritten."""
    tokens, heads, size = heads_NHD.shape
    fits = size % BLOCK == 0 and cos_ND.shape[1] == size and heads_NHD.stride()[1:] == (size, 1)
    if fits and supports("rotate", heads_NHD, cos_ND, sin_ND):
        cos_ND, sin_ND = cos_ND.contiguous(), sin_ND.contiguous()
        apart = size, heads_NHD.stride(0)
        call("rotate", heads_NHD, *apart, heads_NHD, *apart, cos_ND, sin_ND, tokens, heads, size, 1.0)
        return heads_NHD
    first, second = heads_NHD.chunk(2, dim=-1)
    return heads_NHD * cos_ND[:, None] + torch.cat((-second, first), -1) * sin_ND[:, None]


def scaled_softmax(scores_KRT: Tensor, scale: float, queries: int = 1) -> tuple[Tensor, Tensor]:
    """Return the softmax of bf16 scores times `scale`, which may be overwritten, and `log_sum_KR`, the log of its
    divisor.

    Rows come in groups of `queries`: the last of a group sees all T positions, each before it one less. There is no
    torch twin here: callers that mask otherwise have their own.
    """
    scores_KRT, places = scores_KRT.contiguous(), scores_KRT.shape[-1]
    log_sum_KR = torch.empty(scores_KRT.shape[:-1])
    call("softmax", scores_KRT, log_sum_KR.numel(), places, queries, scale, log_sum_KR)
    return scores_KRT, log_sum_KR


def softmax_backward(weights_KRT: Tensor, grads_KRT: Tensor) -> Tensor:
    """Return the gradient of a softmax's input from that of its output, which may be overwritten."""
    if not supports("softmax_backward", weights_KRT, grads_KRT):
        if works(softmax_gradient):
            return softmax_gradient(grads_KRT, weights_KRT)
        wide_KRT = weights_KRT.to(torch.promote_types(weights_KRT.dtype, torch.float32))
        wide_KRT = wide_KRT * (grads_KRT - (wide_KRT * grads_KRT).sum(-1, keepdim=True))
        return wide_KRT.to(weights_KRT.dtype)
    weights_KRT, grads_KRT, places = weights_KRT.contiguous(), grads_KRT.contiguous(), weights_KRT.shape[-1]
    call("softmax_backward", weights_KRT, grads_KRT, weights_KRT.numel() // places, places)
    return grads_KRT


def supports_heads(op: str, *sides_HND: Tensor) -> bool:
    """Return True if there is a kernel `op` for these queries, keys and values: of one head size, a multiple of
    BLOCK."""
    sizes = {side.shape[2] for side in sides_HND}
    return len(sizes) == 1 and max(sizes) % BLOCK == 0 and supports(op, *sides_HND)


def log_sum_exp(scores_BV: Tensor) -> Tensor:
    """Return each row's log-sum-exp, float32 `log_sum_B`, for rows that `supports_rows("log_sums", ...)`."""
    log_sum_B = torch.empty(len(scores_BV))
    call("log_sums", scores_BV.contiguous(), *scores_BV.shape, log_sum_B)
    return log_sum_B


def head_strides(*sides_HND: Tensor) -> list[Tensor | int]:
    """Return each tensor with the strides of its heads and tokens; a head's numbers are contiguous."""
    told: list[Tensor | int] = []
    for given in sides_HND:
        side = given if given.stride(-1) == 1 else given.contiguous()
        told += [side, side.stride(0), side.stride(1)]
    return told


def _add_and_norm(hidden_ND: Tensor, more_ND: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
    hidden_ND, out_ND = hidden_ND.contiguous(), torch.empty_like(hidden_ND, memory_format=torch.contiguous_format)
    more_ND = more_ND if more_ND is None else more_ND.contiguous()
    sum_ND = hidden_ND if more_ND is None else torch.empty_like(hidden_ND)
    rows, width = hidden_ND.numel() // hidden_ND.shape[-1], hidden_ND.shape[-1]
    call("add_and_norm", hidden_ND, more_ND, norm.weight, sum_ND, out_ND, rows, width, norm.variance_epsilon)
    return sum_ND, out_ND
