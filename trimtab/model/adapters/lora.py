"""LoRA and rsLoRA as one fused autograd function over the frozen weight and both low-rank factors.

Sources: LoRA, Hu et al. 2021 (arXiv 2106.09685), y = W x + (alpha / r) B A x, with B = 0 at the start; rsLoRA,
Kalajdzievski 2023 (arXiv 2312.03732), the same with alpha / sqrt(r). Shapes: N tokens, I inputs, O outputs, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.model.adapters.base import AdapterLayer, frozen_bias
from trimtab.model.kernels.matmul import contiguous_transpose, grad_matmul, lora_down, matmul
from trimtab.model.kernels.ops import apply_function


@dataclass(frozen=True, slots=True)
class _FrozenLinear:
    """The frozen part of a layer. `weight` is a function, so that a quantised weight is unpacked for each product."""

    weight: Callable[[], Tensor]
    bias_O: Tensor | None
    scale: float


class _LoraLinearFunction(torch.autograd.Function):
    """Forward and backward of layers with the same input (mostly one): all A factors are one product, S their total
    rank.
    """

    @staticmethod
    def forward(ctx: Any, input_NI: Tensor, layers: Sequence[_FrozenLinear], *factors: Tensor) -> tuple[Tensor, ...]:
        a_SI = _concat([a_RI.to(input_NI.dtype) for a_RI in factors[::2]], 0)
        bs = [
            contiguous_transpose((b_OR * one.scale).to(input_NI.dtype), input_NI)
            for one, b_OR in zip(layers, factors[1::2], strict=True)
        ]
        low_NS = lora_down(input_NI, a_SI)
        outs = [
            matmul(input_NI, one.weight(), low=(low_NR, b_RO), bias_O=one.bias_O)
            for one, b_RO, low_NR in zip(layers, bs, _split_ranks(low_NS, bs), strict=True)
        ]
        ctx.save_for_backward(input_NI, low_NS, a_SI, *bs)
        ctx.layers = layers
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        input_NI, low_NS, a_SI, *bs = ctx.saved_tensors
        grad_low_NS = _concat([lora_down(grad_NO, b_RO) for grad_NO, b_RO in zip(grads, bs, strict=True)], 1)
        grad_a_SI = grad_matmul(grad_low_NS, input_NI)
        grad_sides: list[Tensor] = []
        for one, grad_NO, low_NR, grad_a_RI in zip(
            ctx.layers, grads, _split_ranks(low_NS, bs), torch.split(grad_a_SI, [len(b_RO) for b_RO in bs]), strict=True
        ):
            grad_sides += [grad_a_RI, grad_matmul(low_NR, grad_NO, one.scale, transposed=True)]
        grad_input_NI = None
        if ctx.needs_input_grad[0]:
            low: tuple[Tensor, Tensor] | None = (grad_low_NS, a_SI)
            for one, grad_NO in zip(ctx.layers, grads, strict=True):
                grad_input_NI = matmul(grad_NO, one.weight(), transposed_weight=True, low=low, onto_NO=grad_input_NI)
                low = None
        return grad_input_NI, None, *grad_sides


def _concat(parts: Sequence[Tensor], dim: int) -> Tensor:
    return torch.cat(list(parts), dim) if len(parts) > 1 else parts[0]


def _split_ranks(low_NS: Tensor, bs: Sequence[Tensor]) -> Sequence[Tensor]:
    return torch.split(low_NS, [len(b_RO) for b_RO in bs], dim=1)


class LowRankLayer(AdapterLayer):
    """An adapter that adds `scale * B A` to the weight; subclasses define A and B."""

    scale = 1.0

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return A `[R, I]` and B `[O, R]` in float32."""
        raise NotImplementedError

    def frozen_weight(self) -> Tensor:
        """Return the frozen weight, `[O, I]`, in the dtype of the input."""
        return self.base.weight.detach()

    def saved_for_backward(self, tokens: int) -> int:
        """The low-rank activations, and both factors in the dtype of the weights."""
        return (tokens + self.base.in_features + self.base.out_features) * int(self.factors()[0].shape[0])

    def linear(self, input: Tensor, bias_O: Tensor | None) -> Tensor:
        """Return the changed weight times the input, plus a bias if one is given."""
        return _lora_forward(input, [_FrozenLinear(self.frozen_weight, bias_O, self.scale)], [self])[0]

    def forward_adapted(self, input: Tensor) -> Tensor:
        """Return the output with the low-rank change."""
        return self.linear(input, self.base.bias)

    def delta(self) -> Tensor:
        """Return the change of the weight, `[O, I]`, in float32."""
        a_RI, b_OR = self.factors()
        return (b_OR.detach() @ a_RI.detach()) * self.scale

    def merged_weight(self) -> tuple[Tensor, Tensor | None]:
        """Return the weight with its low-rank change, and the unchanged bias."""
        return self.frozen_weight().float() + self.delta(), frozen_bias(self.base)


def shared_input_forward(layers: Sequence[nn.Module], input: Tensor) -> list[Tensor]:
    """Return the outputs of layers with the same input; their low-rank factors A are applied in one product."""
    low = [
        one
        for one in layers
        if isinstance(one, LowRankLayer) and type(one).forward_adapted is LowRankLayer.forward_adapted
    ]
    if len(low) < len(layers) or any(one.is_merged for one in low):
        return [one(input) for one in layers]
    return _lora_forward(input, [_FrozenLinear(one.frozen_weight, one.base.bias, one.scale) for one in low], low)


def _lora_forward(input: Tensor, frozen: Sequence[_FrozenLinear], layers: Sequence[LowRankLayer]) -> list[Tensor]:
    flat_NI = input.reshape(-1, input.shape[-1])
    factors = [factor for layer in layers for factor in layer.factors()]
    outs = apply_function(_LoraLinearFunction, flat_NI, frozen, *factors)
    return [out_NO.view(*input.shape[:-1], -1) for out_NO in outs]


class LoraLinear(LowRankLayer):
    """LoRA with trained factors in float32; `use_rslora` scales by the root of the rank instead of the rank."""

    def __init__(
        self,
        base: nn.Linear,
        rank: int,
        alpha: float,
        generator: torch.Generator | None = None,
        *,
        use_rslora: bool = False,
    ) -> None:
        super().__init__(base)
        self.rank, self.alpha, self.use_rslora = rank, alpha, use_rslora
        self.scale = alpha / (math.sqrt(rank) if use_rslora else rank)
        device = base.weight.device
        a_RI = torch.empty(rank, base.in_features)
        nn.init.kaiming_uniform_(a_RI, a=math.sqrt(5), generator=generator)
        self.lora_a = nn.Parameter(a_RI.to(device))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank, device=device))

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return the trained factors."""
        return self.lora_a, self.lora_b

    def peft_tensors(self) -> dict[str, Tensor]:
        """Return both factors."""
        return {"lora_A.weight": self.lora_a.detach(), "lora_B.weight": self.lora_b.detach()}
