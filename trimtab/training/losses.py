"""Losses that never hold the logits of a whole batch.

Shapes: M scored positions, D hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 48_000_000  # float32 logits of one chunk: each chunk reads the whole head once, so small ones are slow


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Weighted sum of token cross entropies; the gradient is taken while the chunk's logits are at hand."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_MD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        labels_M: Tensor,
        weights_M: Tensor,
        cap: float | None,
    ) -> Tensor:
        rows = max(1, CHUNK_BYTES // (4 * weight_VD.shape[0]))
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden_MD) if need_hidden else None
        grad_weight = torch.zeros_like(weight_VD, dtype=torch.float32) if need_weight else None
        grad_bias = None if bias_V is None or not need_bias else torch.zeros_like(bias_V, dtype=torch.float32)
        total = hidden_MD.new_zeros((), dtype=torch.float32)
        for start in range(0, hidden_MD.shape[0], rows):
            part = slice(start, start + rows)
            logits = torch.nn.functional.linear(hidden_MD[part], weight_VD, bias_V).float()
            squashed = torch.tanh(logits / cap) if cap is not None else None
            if squashed is not None and cap is not None:
                logits = cap * squashed
            log_p = torch.log_softmax(logits, dim=-1)
            total -= (log_p.gather(1, labels_M[part, None])[:, 0] * weights_M[part]).sum()
            if not any(ctx.needs_input_grad):
                continue
            grad = log_p.exp_()
            grad[torch.arange(grad.shape[0], device=grad.device), labels_M[part]] -= 1.0
            grad *= weights_M[part, None]
            if squashed is not None:
                grad *= 1.0 - squashed.square()
            low = grad.to(hidden_MD.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = low @ weight_VD
            if grad_weight is not None:
                grad_weight += (low.T @ hidden_MD[part]).float()
            if grad_bias is not None:
                grad_bias += grad.sum(0)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.dtype = weight_VD.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        return (
            None if grad_hidden is None else grad_hidden.mul_(grads[0]),
            None if grad_weight is None else (grad_weight * grads[0]).to(ctx.dtype),
            None if grad_bias is None else (grad_bias * grads[0]).to(ctx.dtype),
            None,
            None,
            None,
        )


def cross_entropy_sum(
    hidden_MD: Tensor,
    weight_VD: Tensor,
    labels_M: Tensor,
    weights_M: Tensor,
    *,
    bias_V: Tensor | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Sum over positions of weight times cross entropy in nats, the head applied in chunks. Every label must be >= 0."""
    total: Tensor = _ChunkedCrossEntropy.apply(hidden_MD, weight_VD, bias_V, labels_M, weights_M, softcap)  # type: ignore[no-untyped-call]
    return total
