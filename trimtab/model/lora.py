"""LoRA as one fused function: the large product in the weights' type, the two skinny ones beside it, gradients in one pass.

Source: Hu et al. 2021 (arXiv 2106.09685), y = W x + (alpha / r) B A x, with B = 0 at the start.
Shapes: N tokens, I inputs, O outputs, R rank.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class _LoraProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, a_RI: Tensor, b_OR: Tensor, scale: float
    ) -> Tensor:
        a_RI, b_OR = a_RI.to(input_NI.dtype), (b_OR * scale).to(input_NI.dtype)
        low_NR = input_NI @ a_RI.T
        # The small product first: added to a sum already rounded to bfloat16, a small change would be rounded away.
        out_NO = low_NR @ b_OR.T
        out_NO.addmm_(input_NI, weight_OI.T)
        if bias_O is not None:
            out_NO += bias_O
        ctx.save_for_backward(input_NI, low_NR, weight_OI, a_RI, b_OR)
        ctx.scale = scale
        return out_NO

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_NO = grads[0]
        input_NI, low_NR, weight_OI, a_RI, b_OR = ctx.saved_tensors
        grad_low_NR = grad_NO @ b_OR
        grad_a_RI = (grad_low_NR.T @ input_NI).float()
        grad_b_OR = (grad_NO.T @ low_NR).float() * ctx.scale
        grad_input_NI = None
        if ctx.needs_input_grad[0]:
            grad_input_NI = grad_low_NR @ a_RI
            grad_input_NI.addmm_(grad_NO, weight_OI)
        return grad_input_NI, None, None, grad_a_RI, grad_b_OR, None


class LoraLinear(nn.Module):
    """A frozen linear layer with a trainable low-rank change in float32."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.base, self.rank, self.scale = base, rank, alpha / rank
        device = base.weight.device
        a_RI = torch.empty(rank, base.in_features)
        nn.init.kaiming_uniform_(a_RI, a=math.sqrt(5), generator=generator)
        self.lora_a = nn.Parameter(a_RI.to(device))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank, device=device))
        self._original: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        """`input` is `[..., I]`, the result `[..., O]`, both in the type of the frozen weight."""
        if self._original is not None:
            out: Tensor = self.base(input)
            return out
        flat_NI = input.reshape(-1, input.shape[-1])
        flat_NO: Tensor = _LoraProduct.apply(
            flat_NI, self.base.weight, self.base.bias, self.lora_a, self.lora_b, self.scale
        )  # type: ignore[no-untyped-call]
        return flat_NO.view(*input.shape[:-1], -1)

    def delta(self) -> Tensor:
        """The change of the weight, `[O, I]`, in float32."""
        return (self.lora_b.detach() @ self.lora_a.detach()) * self.scale

    def merge(self) -> None:
        """Add the change into the weight, added in float32 and rounded once; answering is then as fast as without."""
        if self._original is None:
            self._original = self.base.weight.data
            self.base.weight.data = (self._original.float() + self.delta()).to(self._original.dtype)

    def unmerge(self) -> None:
        """Put the frozen weight back, to the bit."""
        if self._original is not None:
            self.base.weight.data, self._original = self._original, None
