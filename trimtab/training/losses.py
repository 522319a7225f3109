"""Target-token log-probabilities and KL divergence from a teacher, computed in chunks of logits, and the `Loss` record.

Shapes: N tokens of the flat row, M scored positions, R of them in one chunk, S of these in one slice, D hidden size, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from trimtab.model.fast.partial_forward import hidden_at
from trimtab.model.kernels.build import call
from trimtab.model.kernels.matmul import matmul, weight_gradient
from trimtab.model.kernels.ops import apply_function, supports_rows
from trimtab.model.load import Base, softcap
from trimtab.training.activation_cache import ActivationCache
from trimtab.training.batch import Batch

CHUNK_BYTES = 48_000_000  # logits of one chunk; each chunk reads the whole head once, so small ones are slow
PlainLoss = tuple[Tensor, dict[str, Tensor | float], Tensor | None]
SLICE_ROWS = 8  # rows of a chunk in float32 at once, so that they stay in cache


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A micro-batch's part of the step's loss and figures; both are summed over the micro-batches.

    A mean is divided by the count of the whole step, as the weights of `step_batches` are. Figures are fields of the
    step's `train` event, beside `loss`, `gradient_norm` and `learning_rate`. `parts_M`: the terms of a loss that is a
    sum over scored positions; they give the loss of each dev row, so that two evaluations can be compared row by row.
    """

    value: Tensor
    figures: Mapping[str, Tensor | float] = field(default_factory=dict)
    parts_M: Tensor | None = None

    def detached(self) -> Loss:
        """Return the same loss without its autograd graph."""
        return replace(self, value=self.value.detach())

    def plain(self) -> PlainLoss:
        """Return the loss as plain data, which processes exchange; `from_plain` is its inverse."""
        return self.value, dict(self.figures), self.parts_M

    @classmethod
    def from_plain(cls, plain: PlainLoss) -> Loss:
        """Return the loss of `plain`."""
        value, figures, parts_M = plain
        return cls(value=value, figures=figures, parts_M=parts_M)

    def by_row(self, batch: Batch) -> list[float]:
        """Return the loss of each row of the batch; empty if the objective gives no terms."""
        if self.parts_M is None:
            return []
        sums: list[float] = sums_by_row(self.parts_M.double().cpu(), batch).tolist()
        return sums


def sums_by_row(values_M: Tensor, batch: Batch) -> Tensor:
    """Sum values over the scored positions of each row of a batch, `[rows]`."""
    return values_M.new_zeros(batch.rows).index_add(0, batch.row_M.to(values_M.device), values_M)


def scored_hidden(base: Base, batch: Batch, activation_cache: ActivationCache | None = None) -> Tensor:
    """Return the last hidden states `hidden_MD` at the scored positions; uses cached activations if a cache is
    given.
    """
    if activation_cache is not None:
        return activation_cache.hidden_at_scored(base, batch)
    device = base.device
    flat = batch.ids_N.to(device), batch.positions_N.to(device), batch.layout
    return hidden_at(base, batch.scored_M.to(device), *flat)


def label_log_probabilities(
    base: Base, hidden_MD: Tensor, labels_M: Tensor, *, upstream_grad_M: Tensor | None = None
) -> Tensor:
    """Return `log_p_M` of the labels under the model's own head, in nats.

    `upstream_grad_M` as in `token_log_probabilities`.
    """
    head = base.model.get_output_embeddings()
    return token_log_probabilities(
        hidden_MD,
        head.weight,
        labels_M.to(hidden_MD.device),
        bias_V=head.bias,
        softcap=softcap(base.model),
        upstream_grad_M=upstream_grad_M,
    )


def token_log_probabilities(
    hidden_MD: Tensor,
    weight_VD: Tensor,
    labels_M: Tensor,
    *,
    bias_V: Tensor | None = None,
    softcap: float | None = None,
    upstream_grad_M: Tensor | None = None,
) -> Tensor:
    """Return the natural log-probability of each label, float32 `log_p_M`, differentiable for any loss.

    `upstream_grad_M`: the gradient of the loss with respect to `log_p_M` if it is known in advance, nowhere 0 (-w for a
    sum of weighted cross entropies). It changes no result beyond rounding and saves a trainable head its second pass.
    Every label must be >= 0.
    """
    log_p_M: Tensor = apply_function(
        _TokenLogProbabilities, hidden_MD, weight_VD, bias_V, labels_M, upstream_grad_M, softcap
    )
    return log_p_M


def kl_from_teacher(
    teacher: Callable[[slice], Tensor],
    hidden_MD: Tensor,
    weight_VD: Tensor,
    weights_M: Tensor,
    *,
    bias_V: Tensor | None = None,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the weighted sum of `KL(teacher || student)` over the vocabulary, in nats.

    The second value is its terms `[M]`, without gradient. `teacher` returns the float32 log-probabilities `log_p_RV` of
    a chunk of positions, which may be overwritten.
    """
    found: tuple[Tensor, Tensor] = apply_function(
        _KlFromTeacher, hidden_MD, weight_VD, bias_V, weights_M, teacher, softcap
    )
    return found


class _KlFromTeacher(torch.autograd.Function):
    """Both heads in chunks; the gradient of the student's logits, `w (p - q)` for teacher q, is computed with the
    loss.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_MD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        weights_M: Tensor,
        teacher: Callable[[slice], Tensor],
        cap: float | None,
    ) -> tuple[Tensor, Tensor]:
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        parts_M = torch.zeros_like(weights_M)
        grad_hidden_MD = torch.empty_like(hidden_MD) if need_hidden else None
        head = _HeadGradient(weight_VD, bias_V, need_weight, need_bias)
        for part in _chunks(len(weights_M), 4 * len(weight_VD)):
            log_p_RV, tanh_RV = head_log_softmax(hidden_MD[part], weight_VD, bias_V, cap)
            log_q_RV, weights_R1 = teacher(part), weights_M[part, None]
            nats_RV = torch.nn.functional.kl_div(log_p_RV, log_q_RV, reduction="none", log_target=True)
            parts_M[part] = weights_R1[:, 0] * nats_RV.sum(1)
            if need_hidden or head.needed:
                grad_RV = (log_p_RV.exp_() - log_q_RV.exp_()) * weights_R1
                if tanh_RV is not None:
                    grad_RV *= 1.0 - tanh_RV.square()
                grad_low_RV = grad_RV.to(hidden_MD.dtype)
                if grad_hidden_MD is not None:
                    grad_hidden_MD[part] = grad_low_RV @ weight_VD
                head.add_to_bias(grad_RV)
                head.add(grad_low_RV, hidden_MD[part])
        ctx.head = head
        ctx.save_for_backward(grad_hidden_MD)
        ctx.mark_non_differentiable(parts_M)
        return parts_M.sum(), parts_M

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad_hidden_MD,) = ctx.saved_tensors
        if grad_hidden_MD is not None:
            grad_hidden_MD = grad_hidden_MD * grads[0].to(grad_hidden_MD.dtype)
        return grad_hidden_MD, *ctx.head.scaled(grads[0]), None, None, None


class _TokenLogProbabilities(torch.autograd.Function):
    """The head in chunks, with gradients computed while a chunk's logits are in memory.

    For an upstream gradient g, the gradient of hidden state m is g_m (1[label_m] - p_m) W, known in the forward pass
    except for the factor g_m. It is stored scaled by the predicted upstream gradient (1 if there is none), and the
    backward pass multiplies by g_m / predicted_m. The head's own gradient sums over positions, each with its g_m: the
    sum of the forward pass is valid if g is the predicted gradient times one factor; otherwise it is recomputed chunk
    by chunk.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_MD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        labels_M: Tensor,
        upstream_grad_M: Tensor | None,
        cap: float | None,
    ) -> Tensor:
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        count = hidden_MD.shape[0]
        log_p_M = hidden_MD.new_empty(count, dtype=torch.float32)
        scale_M = torch.ones_like(log_p_M) if upstream_grad_M is None else upstream_grad_M
        grad_hidden_MD = torch.empty_like(hidden_MD) if need_hidden else None
        head = _HeadGradient(weight_VD, bias_V, need_weight, need_bias) if upstream_grad_M is not None else None
        needs_grad = need_hidden or (head is not None and head.needed)
        for part in _head_chunks(count, weight_VD, whole_gradient=head is not None and need_weight):
            logits_RV = _logits(hidden_MD[part], weight_VD, bias_V)
            log_p_M[part] = _label_log_probabilities(
                logits_RV, labels_M[part], scale_M[part] if needs_grad else None, cap, head
            )
            if grad_hidden_MD is not None:
                grad_hidden_MD[part] = matmul(logits_RV, weight_VD, transposed_weight=True)
            if head is not None:
                head.add(logits_RV, hidden_MD[part])
        ctx.grad_head, ctx.cap = head, cap
        # inputs are saved only if the head's gradient may be recomputed
        recompute_inputs = (hidden_MD, weight_VD, bias_V, labels_M) if need_weight or need_bias else (None,) * 4
        ctx.save_for_backward(grad_hidden_MD, upstream_grad_M, *recompute_inputs)
        return log_p_M

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden_MD, upstream_grad_M, hidden_MD, weight_VD, bias_V, labels_M = ctx.saved_tensors
        factor_M = grads[0] if upstream_grad_M is None else grads[0] / upstream_grad_M
        if grad_hidden_MD is not None:
            grad_hidden_MD = (grad_hidden_MD * factor_M[:, None]).to(grad_hidden_MD.dtype)
        _, need_weight, need_bias = ctx.needs_input_grad[:3]
        if not (need_weight or need_bias):
            return grad_hidden_MD, None, None, None, None, None
        if ctx.grad_head is not None and len(factor_M) and bool((factor_M == factor_M[0]).all()):
            return grad_hidden_MD, *ctx.grad_head.scaled(factor_M[0]), None, None, None
        head = _HeadGradient(weight_VD, bias_V, need_weight, need_bias)
        for part in _head_chunks(len(labels_M), weight_VD, whole_gradient=need_weight):
            logits_RV = _logits(hidden_MD[part], weight_VD, bias_V)
            _label_log_probabilities(logits_RV, labels_M[part], grads[0][part], ctx.cap, head)
            head.add(logits_RV, hidden_MD[part])
        return grad_hidden_MD, *head.scaled(grads[0].new_ones(())), None, None, None


class _HeadGradient:
    """Sums of the head's weight and bias gradients over chunks, in float32 from the second chunk on."""

    def __init__(self, weight_VD: Tensor, bias_V: Tensor | None, need_weight: bool, need_bias: bool) -> None:
        self.head_VD, self.need_weight = weight_VD, need_weight
        # a single chunk stays in the weights' dtype: converting and adding this matrix is slow
        self.weight_VD: Tensor | None = None
        self.bias_V = torch.zeros_like(bias_V, dtype=torch.float32) if bias_V is not None and need_bias else None

    @property
    def needed(self) -> bool:
        return self.need_weight or self.bias_V is not None

    def add(self, grad_RV: Tensor, hidden_RD: Tensor) -> None:
        """Add a chunk's contribution to the weight gradient; `grad_RV` is in the weights' dtype."""
        if self.need_weight:
            part_VD = weight_gradient(grad_RV, hidden_RD)
            self.weight_VD = part_VD if self.weight_VD is None else self.weight_VD.float().add_(part_VD)

    def add_to_bias(self, grad_RV: Tensor) -> None:
        """Add a chunk's contribution to the bias gradient; `grad_RV` is float32."""
        if self.bias_V is not None:
            self.bias_V += grad_RV.sum(0)

    def scaled(self, factor: Tensor) -> tuple[Tensor | None, Tensor | None]:
        nothing = self.need_weight and self.weight_VD is None  # no position was scored
        totals = (torch.zeros_like(self.head_VD) if nothing else self.weight_VD, self.bias_V)
        weight_VD, bias_V = (None if total is None else (total * factor).to(self.head_VD.dtype) for total in totals)
        return weight_VD, bias_V


def head_log_softmax(
    hidden_RD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, cap: float | None
) -> tuple[Tensor, Tensor | None]:
    """Return log-probabilities `log_p_RV` under a head, float32, and the tanh of its soft cap if it has one."""
    return _log_softmax(_logits(hidden_RD, weight_VD, bias_V), cap)


def _logits(hidden_RD: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    if bias_V is None:
        return matmul(hidden_RD, weight_VD)
    return torch.nn.functional.linear(hidden_RD, weight_VD, bias_V)


def _log_softmax(logits_RV: Tensor, cap: float | None) -> tuple[Tensor, Tensor | None]:
    capped_RV, tanh_RV = _capped(logits_RV.float(), cap)
    return torch.log_softmax(capped_RV, dim=-1), tanh_RV


def _capped(logits_RV: Tensor, cap: float | None) -> tuple[Tensor, Tensor | None]:
    if cap is None:
        return logits_RV, None
    tanh_RV = torch.tanh(logits_RV / cap)
    return cap * tanh_RV, tanh_RV


def _label_log_probabilities(
    logits_RV: Tensor, labels_R: Tensor, scale_R: Tensor | None, cap: float | None, head: _HeadGradient | None
) -> Tensor:
    """Return float32 `log_p_R` of the labels; given `scale_R`, an upstream gradient, the logits are overwritten by
    their gradient.

    Uses a kernel if it supports the logits; else a few rows at a time on CPU, so that a chunk has no float32 copies
    beside it.
    """
    log_p_R = torch.empty(len(labels_R), dtype=torch.float32, device=logits_RV.device)
    if cap is None and (head is None or head.bias_V is None) and supports_rows("label_scores", logits_RV):
        scales = None if scale_R is None else scale_R.contiguous()
        call("label_scores", logits_RV, labels_R.contiguous(), scales, log_p_R, *logits_RV.shape)
        return log_p_R
    rows = SLICE_ROWS if logits_RV.device.type == "cpu" else max(1, len(labels_R))
    for part in (slice(start, start + rows) for start in range(0, len(labels_R), rows)):
        logits_SV, tanh_SV = _capped(logits_RV[part].float(), cap)
        p_SV, log_p_R[part] = _softmax(logits_SV, labels_R[part])
        if scale_R is not None:
            grad_SV = _logits_gradient(p_SV, tanh_SV, labels_R[part], scale_R[part])
            logits_RV[part] = grad_SV
            if head is not None:
                head.add_to_bias(grad_SV)
    return log_p_R


def _softmax(logits_SV: Tensor, labels_S: Tensor) -> tuple[Tensor, Tensor]:
    """Return probabilities `p_SV` and the labels' log-probabilities `log_p_S`, from float32 logits."""
    p_SV = logits_SV.softmax(-1)
    label_logits_S = logits_SV.gather(1, labels_S[:, None])[:, 0]
    # subtract the largest logit first, so that large logits do not round away a certain label's small log-probability
    return p_SV, label_logits_S - logits_SV.amax(-1) + p_SV.amax(-1).log_()


def _logits_gradient(p_RV: Tensor, tanh_RV: Tensor | None, labels_R: Tensor, scale_R: Tensor) -> Tensor:
    """Return the gradient of the raw logits for the upstream gradient `scale_R`; overwrites the probabilities
    `p_RV`.
    """
    grad_RV = p_RV
    grad_RV[torch.arange(grad_RV.shape[0], device=grad_RV.device), labels_R] -= 1.0
    grad_RV *= -scale_R[:, None]
    if tanh_RV is not None:
        grad_RV *= 1.0 - tanh_RV.square()
    return grad_RV


def _head_chunks(count: int, head_VD: Tensor, *, whole_gradient: bool) -> Iterator[slice]:
    """Split positions into equal chunks of at most CHUNK_BYTES of logits; with `whole_gradient`, as large as the head's
    gradient.

    From the second chunk on, the gradient of a trainable head is converted to float32 and added: a first chunk of that
    size saves both time and memory. Not on a GPU, which holds a float32 copy of a chunk.
    """
    row = len(head_VD) * head_VD.element_size()
    most = max(CHUNK_BYTES, 4 * head_VD.numel() if whole_gradient and head_VD.device.type == "cpu" else 0)
    parts = -(-count // max(1, most // row))
    rows = -(-count // max(1, parts))
    return (slice(start, start + rows) for start in range(0, count, max(1, rows)))


def _chunks(count: int, row_bytes: int) -> Iterator[slice]:
    rows = max(1, CHUNK_BYTES // row_bytes)
    return (slice(start, start + rows) for start in range(0, count, rows))
