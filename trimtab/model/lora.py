"""Low-rank changes as one fused function: the large product in the weights' type, the two skinny ones beside it, gradients in one pass.

Sources: LoRA, Hu et al. 2021 (arXiv 2106.09685), y = W x + (alpha / r) B A x, with B = 0 at the start; rsLoRA, Kalajdzievski 2023
(arXiv 2312.03732), the same with alpha / sqrt(r). Shapes: N tokens, I inputs, O outputs, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.model.adapted import Adapted, frozen_bias


class _LoraProduct(torch.autograd.Function):
    """The frozen weight comes from a function, so that one that is packed is unpacked for each product and not kept between."""

    @staticmethod
    def forward(
        ctx: Any,
        input_NI: Tensor,
        frozen: Callable[[], Tensor],
        bias_O: Tensor | None,
        a_RI: Tensor,
        b_OR: Tensor,
        scale: float,
    ) -> Tensor:
        a_RI, b_OR = a_RI.to(input_NI.dtype), (b_OR * scale).to(input_NI.dtype)
        low_NR = input_NI @ a_RI.T
        # The small product first: added to a sum already rounded to bfloat16, a small change would be rounded away.
        out_NO = low_NR @ b_OR.T
        out_NO.addmm_(input_NI, frozen().T)
        if bias_O is not None:
            out_NO += bias_O
        ctx.save_for_backward(input_NI, low_NR, a_RI, b_OR)
        ctx.scale, ctx.frozen = scale, frozen
        return out_NO

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_NO = grads[0]
        input_NI, low_NR, a_RI, b_OR = ctx.saved_tensors
        grad_low_NR = grad_NO @ b_OR
        grad_a_RI = (grad_low_NR.T @ input_NI).float()
        grad_b_OR = (grad_NO.T @ low_NR).float() * ctx.scale
        grad_input_NI = None
        if ctx.needs_input_grad[0]:
            grad_input_NI = grad_low_NR @ a_RI
            grad_input_NI.addmm_(grad_NO, ctx.frozen())
        return grad_input_NI, None, None, grad_a_RI, grad_b_OR, None


class LowRank(Adapted):
    """A change `scale * B A` of the weight; a subclass says what A and B are made of."""

    scale = 1.0

    def sides(self) -> tuple[Tensor, Tensor]:
        """A `[R, I]` and B `[O, R]` in float32."""
        raise NotImplementedError

    def frozen(self) -> Tensor:
        """The frozen weight, `[O, I]`, in the type of the input."""
        return self.base.weight.detach()

    def kept(self, tokens: int) -> int:
        """What stands between the two products, and both sides in the type of the weights."""
        return (tokens + self.base.in_features + self.base.out_features) * int(self.sides()[0].shape[0])

    def product(self, input: Tensor, bias_O: Tensor | None) -> Tensor:
        """The changed weight times the input, with a bias where one is given."""
        flat_NI = input.reshape(-1, input.shape[-1])
        flat_NO: Tensor = _LoraProduct.apply(flat_NI, self.frozen, bias_O, *self.sides(), self.scale)  # type: ignore[no-untyped-call]
        return flat_NO.view(*input.shape[:-1], -1)

    def adapted(self, input: Tensor) -> Tensor:
        """The layer with its low-rank change."""
        return self.product(input, self.base.bias)

    def delta(self) -> Tensor:
        """The change of the weight, `[O, I]`, in float32."""
        a_RI, b_OR = self.sides()
        return (b_OR.detach() @ a_RI.detach()) * self.scale

    def changed(self) -> tuple[Tensor, Tensor | None]:
        """The weight with its low-rank change, and the bias as it is."""
        return self.frozen().float() + self.delta(), frozen_bias(self.base)


class LoraLinear(LowRank):
    """LoRA, the trained parts in float32; `rooted` divides by the root of the rank (rsLoRA), else by the rank."""

    def __init__(
        self,
        base: nn.Linear,
        rank: int,
        alpha: float,
        generator: torch.Generator | None = None,
        *,
        rooted: bool = False,
    ) -> None:
        super().__init__(base)
        self.rank, self.alpha, self.rooted = rank, alpha, rooted
        self.scale = alpha / (math.sqrt(rank) if rooted else rank)
        device = base.weight.device
        a_RI = torch.empty(rank, base.in_features)
        nn.init.kaiming_uniform_(a_RI, a=math.sqrt(5), generator=generator)
        self.lora_a = nn.Parameter(a_RI.to(device))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank, device=device))

    def sides(self) -> tuple[Tensor, Tensor]:
        """The trained parts themselves."""
        return self.lora_a, self.lora_b

    def saved(self) -> dict[str, Tensor]:
        """Both parts."""
        return {"lora_A.weight": self.lora_a.detach(), "lora_B.weight": self.lora_b.detach()}
