"""LoRA, and the base class and autograd function of adapters that add a low-rank update to a frozen weight.

Source: Hu et al. 2021 (arXiv 2106.09685), y = W x + (alpha / r) B A x, with B = 0 at the start. Shapes: N tokens, I
inputs, O outputs, R rank.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from trimtab.model.adapters.base import (
    AdapterInit,
    AdapterLayer,
    LayerMaker,
    MethodDefaults,
    PeftFormat,
    frozen_bias,
)
from trimtab.model.adapters.saved_adapter import SavedAdapter
from trimtab.model.kernels.matmul import contiguous_transpose, grad_matmul, lora_down, matmul
from trimtab.model.kernels.ops import apply_function

ALPHA_PER_RANK = 2  # so the scale is the same for every rank
LORA_PARTS = ("lora_A.weight", "lora_B.weight")


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

    scale: float = 1.0

    @abstractmethod
    def factors(self) -> tuple[Tensor, Tensor]:
        """Return A `[R, I]` and B `[O, R]` in float32."""

    def saved_for_backward(self, tokens: int) -> int:
        """The low-rank activations, and both factors in the dtype of the weights."""
        return low_rank_saved(self.base, tokens, len(self.factors()[0]))

    def forward_adapted(self, input: Tensor) -> Tensor:
        """Return the output with the low-rank change."""
        return low_rank_forward(input, self.frozen_weight, self.base.bias, self.scale, *self.factors())

    def delta(self) -> Tensor:
        """Return the change of the weight, `[O, I]`, in float32."""
        a_RI, b_OR = self.factors()
        return (b_OR.detach() @ a_RI.detach()) * self.scale

    def merged_weight(self) -> tuple[Tensor, Tensor | None]:
        """Return the weight with its low-rank change, and the unchanged bias."""
        return self.frozen_weight().float() + self.delta(), frozen_bias(self.base)


def low_rank_saved(base: nn.Linear, tokens: int, rank: int) -> int:
    """Return how many numbers `low_rank_forward` saves for backward."""
    return (tokens + base.in_features + base.out_features) * rank


def low_rank_forward(
    input: Tensor, weight: Callable[[], Tensor], bias_O: Tensor | None, scale: float, a_RI: Tensor, b_OR: Tensor
) -> Tensor:
    """Return `[..., O]`, the frozen weight plus `scale * B A` times the input `[..., I]`, plus the bias if there is
    one.
    """
    return _lora_forward(input, [_FrozenLinear(weight, bias_O, scale)], [a_RI, b_OR])[0]


def shared_input_forward(layers: Sequence[nn.Module], input: Tensor) -> list[Tensor]:
    """Return the outputs of layers with the same input; their low-rank factors A are applied in one product."""
    low = [one for one in layers if isinstance(one, LowRankLayer)]
    if len(low) < len(layers) or any(one.is_merged for one in low):
        return [one(input) for one in layers]
    frozen = [_FrozenLinear(one.frozen_weight, one.base.bias, one.scale) for one in low]
    return _lora_forward(input, frozen, [factor for one in low for factor in one.factors()])


def _lora_forward(input: Tensor, frozen: Sequence[_FrozenLinear], factors: Sequence[Tensor]) -> list[Tensor]:
    flat_NI = input.reshape(-1, input.shape[-1])
    outs = apply_function(_LoraLinearFunction, flat_NI, frozen, *factors)
    return [out_NO.view(*input.shape[:-1], -1) for out_NO in outs]


def new_factors(base: nn.Linear, rank: int, generator: torch.Generator | None) -> tuple[nn.Parameter, nn.Parameter]:
    """Return A `[R, I]` with Kaiming initialisation and B `[O, R]`, zeros, in float32."""
    device = base.weight.device
    a_RI = torch.empty(rank, base.in_features)
    nn.init.kaiming_uniform_(a_RI, a=math.sqrt(5), generator=generator)
    return nn.Parameter(a_RI.to(device)), nn.Parameter(torch.zeros(base.out_features, rank, device=device))


def lora_config(rank: int, alpha: float, flags: Iterable[str] = ()) -> dict[str, Any]:
    """Return PEFT's options of a LoRA; `flags`: the options of its kin that are on."""
    options = {"r": rank, "lora_alpha": alpha, "lora_dropout": 0.0, "bias": "none"}
    return {**options, **dict.fromkeys(flags, True)}


def lora_tensors(a_RI: Tensor, b_OR: Tensor) -> dict[str, Tensor]:
    """Return both factors by PEFT's names."""
    return dict(zip(LORA_PARTS, (a_RI.detach(), b_OR.detach()), strict=True))


class LoraVariant(AdapterLayer):
    """An adapter that trains LoRA's two factors, in float32, and is saved as PEFT's type LORA.

    `new_alpha`: alpha of a new adapter, None for ALPHA_PER_RANK times the rank. `root_scaled`: the scale is alpha over
    the root of the rank, not over the rank. Its own parameters come in the order of `saved_as.parts`.
    """

    new_alpha: ClassVar[float | None] = None
    root_scaled: ClassVar[bool] = False

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator | None = None) -> None:
        super().__init__(base)
        self.alpha, self.scale = alpha, alpha / (math.sqrt(rank) if self.root_scaled else rank)
        self.lora_a, self.lora_b = new_factors(base, rank, generator)

    @classmethod
    def maker(cls, init: AdapterInit) -> LayerMaker:
        """Return the maker of layers with the alpha of new ones."""
        alpha = float(ALPHA_PER_RANK * init.rank) if cls.new_alpha is None else cls.new_alpha
        return lambda _, layer: cls(layer, init.rank, alpha, init.generator)

    @classmethod
    def maker_as_saved(cls, saved: SavedAdapter) -> LayerMaker:
        """Return the maker of layers of the saved rank and alpha."""
        rank, alpha = saved.rank(".lora_A."), saved.alpha("lora_alpha")
        return lambda _, layer: cls(layer, rank, alpha)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return the trained factors."""
        return self.lora_a, self.lora_b

    def peft_config(self, names: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002
        """Return rank, alpha, and the options of this variant."""
        return lora_config(len(self.lora_a), self.alpha, self.saved_as.flags)

    def peft_tensors(self) -> dict[str, Tensor]:
        """Return the trained parameters."""
        trained = (parameter.detach() for parameter in self.parameters(recurse=False))
        return dict(zip(self.saved_as.parts, trained, strict=True))


@final
class LoraLinear(LoraVariant, LowRankLayer):
    """A layer with a trained low-rank update."""

    defaults = MethodDefaults(rank=16, learning_rate=5e-4, by_width=True)
    saved_as = PeftFormat(peft_type="LORA", parts=LORA_PARTS)
