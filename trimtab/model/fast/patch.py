"""Swaps a loaded model's modules for faster subclasses (`accelerate`, called after loading) and back (`decelerate`).

Norms, MLPs and attention have kernels with a gradient; `train_layers.py` runs whole decoder layers where it can.
Weights, names and roundings are transformers'; where no kernel supports the inputs, transformers' forward runs.
Shapes: N tokens of the flat row, H heads, D head size or width of the model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trimtab.model.adapters.lora import shared_input_forward
from trimtab.model.attention import Layout
from trimtab.model.fast.forwards import (
    Accelerated,
    KernelLinear,
    accelerated_class,
    is_plain_linear,
    original_class,
)
from trimtab.model.fast.inference_layers import attention_config, is_known_decoder_layer
from trimtab.model.fast.train_layers import FusedTrainLayer
from trimtab.model.kernels.build import call, supports
from trimtab.model.kernels.ops import BLOCK, PAIR, apply_function, head_strides, is_silu, supports_rows
from trimtab.model.load import Base


def accelerate(base: Base) -> Base:
    """Put faster forwards on a model's modules, in training and for `inference_forwards`; return the same base.

    Weights, names and roundings stay those of transformers. Where no kernel supports the inputs, transformers'
    forward runs. Calling it again changes nothing; `decelerate` takes all of it off.
    """
    model: Any = base.model
    layers = [layer for layer in model.modules() if is_known_decoder_layer(layer)]
    parts: dict[nn.Module, type[Accelerated]] = {one: Accelerated for one in model.modules() if is_plain_linear(one)}
    for layer in layers:
        attention = layer.self_attn
        parts |= {one: KernelLinear for one in layer.modules() if is_plain_linear(one)}
        norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
        norms += [layer.input_layernorm, layer.post_attention_layernorm]
        parts |= dict.fromkeys((norm for norm in norms if norm is not None), _Norm)
        parts |= {layer.mlp: _Mlp, attention: _Attention, layer: FusedTrainLayer}
    if layers:
        parts |= {model.base_model: Accelerated, model.base_model.norm: _Norm}
    for part, by in parts.items():
        part.__class__ = accelerated_class(original_class(part), by)
    return base


def decelerate(base: Base) -> Base:
    """Undo `accelerate`: give every module its original class again. Return the same base."""
    for part in base.model.modules():
        part.__class__ = original_class(part)
    return base


class _Norm(Accelerated):
    weight: nn.Parameter
    variance_epsilon: float

    def train_forward(self, hidden_states: Tensor) -> Tensor:
        """RMS norm over the last dimension."""
        if not supports_rows("norm_backward", hidden_states, self.weight):
            plain: Tensor = super().train_forward(hidden_states)
            return plain
        out: Tensor = apply_function(_Normed, hidden_states.contiguous(), self.weight, self.variance_epsilon)
        return out


class _Mlp(Accelerated):
    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module
    act_fn: nn.Module

    def train_forward(self, x: Tensor) -> Tensor:
        """The gated MLP."""
        if not is_silu(self.act_fn) or not supports("gated_backward", x):
            plain: Tensor = super().train_forward(x)
            return plain
        gate, up = shared_input_forward((self.gate_proj, self.up_proj), x)
        if gate.numel() % PAIR:
            mixed = self.act_fn(gate) * up
        else:
            mixed = apply_function(_Gated, gate.contiguous(), up.contiguous())
        out: Tensor = self.down_proj(mixed)
        return out


class _Attention(Accelerated):
    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module
    o_proj: nn.Module
    head_dim: int
    layer_idx: int

    def train_forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        *,
        layout: Layout | None = None,
        **others: Any,
    ) -> tuple[Tensor, Any]:
        """Attention of one flat row, `[1, N, D]`, in its layout."""
        if layout is None or position_embeddings is None or not self._fits(hidden_states, *position_embeddings):
            plain: tuple[Tensor, Any] = super().train_forward(
                hidden_states, position_embeddings=position_embeddings, layout=layout, **others
            )
            return plain
        cos_ND, sin_ND = (side[0].contiguous() for side in position_embeddings)
        sides_1NO = shared_input_forward((self.q_proj, self.k_proj, self.v_proj), hidden_states)
        sides_NHD = [side[0].view(side.shape[1], -1, self.head_dim) for side in sides_1NO]
        for place, name in enumerate(("q_norm", "k_norm")):
            if hasattr(self, name):
                sides_NHD[place] = getattr(self, name)(sides_NHD[place])
        query_HND, key_KND = (apply_function(_Turned, side, cos_ND, sin_ND) for side in sides_NHD[:2])
        value_KND = sides_NHD[2].transpose(0, 1)
        out_NHD = layout.attend(self.layer_idx, query_HND, key_KND, value_KND, attention_config(self))
        return self.o_proj(out_NHD.flatten(1)[None]), None

    def _fits(self, hidden_states: Tensor, cos: Tensor, sin: Tensor) -> bool:
        return (
            self.head_dim % BLOCK == 0
            and cos.shape[-1] == self.head_dim
            and supports("rotate", hidden_states, cos, sin)
        )


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        out = torch.empty_like(input)
        width = input.shape[-1]
        call("add_and_norm", input, None, weight, None, out, input.numel() // width, width, epsilon)
        ctx.save_for_backward(input, weight)
        ctx.epsilon = epsilon
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        grad, width = grads[0].contiguous(), input.shape[-1]
        grad_input = torch.empty_like(input)
        grad_weight = torch.empty(width) if ctx.needs_input_grad[1] else None
        rows = input.numel() // width
        call("norm_backward", input, weight, grad, grad_input, grad_weight, rows, width, ctx.epsilon)
        return grad_input, None if grad_weight is None else grad_weight.to(weight.dtype), None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        out = torch.empty_like(gate)
        call("gated", gate, up, out, gate.numel())
        ctx.save_for_backward(gate, up)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        grad_gate, grad_up = torch.empty_like(gate), torch.empty_like(up)
        call("gated_backward", gate, up, grads[0].contiguous(), grad_gate, grad_up, None, gate.numel())
        return grad_gate, grad_up


class _Turned(torch.autograd.Function):
    """From heads `[N, H, D]` to the same at their positions, `[H, N, D]`."""

    @staticmethod
    def forward(ctx: Any, side_NHD: Tensor, cos_ND: Tensor, sin_ND: Tensor) -> Tensor:
        tokens, heads, size = side_NHD.shape
        out_HND = side_NHD.new_empty(heads, tokens, size)
        call("rotate", *head_strides(side_NHD.transpose(0, 1), out_HND), cos_ND, sin_ND, tokens, heads, size, 1.0)
        ctx.save_for_backward(cos_ND, sin_ND)
        return out_HND

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos_ND, sin_ND = ctx.saved_tensors
        heads, tokens, size = grads[0].shape
        back_NHD = grads[0].new_empty(tokens, heads, size)
        call("rotate", *head_strides(grads[0], back_NHD.transpose(0, 1)), cos_ND, sin_ND, tokens, heads, size, -1.0)
        return back_NHD, None, None
