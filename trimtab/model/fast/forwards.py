"""Mixin that lets a module run a registered inference forward or a faster training forward, and the linear layer with
it.

A copy of a module has no entry, as it is another object: a model that shares weights with this one runs its own
forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from trimtab.model.kernels.matmul import matmul, use_kernel, weight_gradient
from trimtab.model.kernels.ops import PAIR, apply_function

INFERENCE_FORWARDS: WeakKeyDictionary[nn.Module, Callable[..., Any]] = WeakKeyDictionary()


class Accelerated(nn.Module):
    """Mixin before a class of transformers or torch: runs the module's forward of INFERENCE_FORWARDS if it has one."""

    def forward(self, *args: Any, **named: Any) -> Any:
        """Run the inference forward, else the forward for training, else the class's own."""
        fast = INFERENCE_FORWARDS.get(self)
        return self.train_forward(*args, **named) if fast is None else fast(*args, **named)

    def train_forward(self, *args: Any, **named: Any) -> Any:
        """Run the class's own forward, which a subclass may replace where kernels support the inputs."""
        return super().forward(*args, **named)


class KernelLinear(Accelerated):
    """A linear layer of a known family, with its weights, names and roundings; a kernel multiplies where it is
    faster."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def train_forward(self, input: Tensor) -> Tensor:
        """Return the input `[..., I]` times the weight, plus the bias, as `[..., O]`."""
        if not use_kernel(input, self.weight) or len(self.weight) % PAIR:
            plain: Tensor = super().train_forward(input)
            return plain
        flat_NI = input.reshape(-1, input.shape[-1])
        out_NO: Tensor = apply_function(_Product, flat_NI, self.weight, self.bias)
        return out_NO.view(*input.shape[:-1], -1)


_CLASSES: dict[tuple[type, type], type] = {}
_ORIGINALS: dict[type, type] = {}


def accelerated_class(kind: type, by: type[Accelerated]) -> type:
    """Return the class of modules of this kind that run the forwards of `by`: one per pair, with the kind's name."""
    if (kind, by) not in _CLASSES:
        _CLASSES[kind, by] = made = type(kind.__name__, (by, kind), {})
        _ORIGINALS[made] = kind
    return _CLASSES[kind, by]


def original_class(module: nn.Module) -> type:
    """Return the class that a module had before `accelerate` replaced it."""
    return _ORIGINALS.get(type(module), type(module))


def is_plain_linear(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Return True for a linear layer with nothing beside its weight and bias, accelerated or not."""
    return original_class(layer) is nn.Linear


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(input_NI if ctx.needs_input_grad[1] else None, weight_OI)
        return matmul(input_NI, weight_OI, bias_O=bias_O)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        input_NI, weight_OI = ctx.saved_tensors
        grad_NO = grads[0].contiguous()
        grad_NI = matmul(grad_NO, weight_OI, transposed_weight=True) if ctx.needs_input_grad[0] else None
        grad_OI = weight_gradient(grad_NO, input_NI) if input_NI is not None else None
        return grad_NI, grad_OI, grad_NO.sum(0) if ctx.needs_input_grad[2] else None
