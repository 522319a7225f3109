"""Whole decoder layers in training with one forward and one backward C kernel, where these support the trainable
parameters.

Supported: all projections have LoRA and nothing else is trainable, or there are no adapters and weights and norms are.
Shapes: N tokens of the flat row, W width of the model, H query heads, K key/value heads, D head size, R rank.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.model.adapters.lora import LoraLinear
from trimtab.model.adapters.rslora import RsloraLinear
from trimtab.model.attention import PackedSequences
from trimtab.model.fast.forwards import Accelerated, is_plain_linear
from trimtab.model.fast.inference_layers import attention_config
from trimtab.model.kernels.build import address, call, supports
from trimtab.model.kernels.ops import BLOCK, PAIR, apply_function, is_silu
from trimtab.model.kernels.varlen_attention import VarlenAttention

_LINEARS = 7
_LORA = (LoraLinear, RsloraLinear)  # adapters whose trained parameters are A and B themselves


class _LinearStruct(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_void_p) for name in ("weight", "bias", "a", "b", "grad"))


class _LayerStruct(ctypes.Structure):
    """The struct `train_layer` of `kernels/train_layer.c`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("norm", "between", "grad_norm", "grad_between")),
        ("linears", _LinearStruct * _LINEARS),
        *((name, ctypes.c_int64) for name in ("width", "heads", "shared", "size", "wide", "rank")),
        *((name, ctypes.c_float) for name in ("epsilon", "between_epsilon", "attention_scale", "change_scale")),
    )


class FusedTrainLayer(Accelerated):
    """A decoder layer of a known family that trains by two kernels where they support all its trainable parts."""

    def train_forward(self, hidden_states: Tensor, *others: Any, **named: Any) -> Tensor:
        """Run one flat row, `[1, N, W]`."""
        fused = self.fused_forward(hidden_states, None, **named)
        if fused is None:
            plain: Tensor = super().train_forward(hidden_states, *others, **named)
            return plain
        return fused

    def fused_forward(
        self,
        hidden_1NW: Tensor,
        wanted_M: Tensor | None,
        *,
        layout: Any = None,
        position_embeddings: Any = None,
        **_: Any,
    ) -> Tensor | None:
        """Return the kernels' output at all positions, or at `wanted_M`, `[1, M, W]`; None if they do not support the
        layer."""
        linears = _linears(self)
        if not _fits(self, linears, hidden_1NW, layout, position_embeddings):
            return None
        args = _KernelArgs(self, linears, position_embeddings, layout.varlen, wanted_M)
        out_NW: Tensor = apply_function(_LayerFunction, hidden_1NW.squeeze(0).contiguous(), args, *args.parameters)
        return out_NW[None]


def _linears(layer: Any) -> list[Any]:
    """Return the linear layers in the order of the kernels."""
    attention, mlp = layer.self_attn, layer.mlp
    read = attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj
    return [*read, mlp.gate_proj, mlp.up_proj, mlp.down_proj]


def trains_by_kernels(model: Any) -> bool:
    """Return True if kernels support all layers of a model."""
    layers = getattr(model.base_model, "layers", ())
    return bool(layers) and all(
        isinstance(one, FusedTrainLayer) and _is_supported(one, _linears(one)) for one in layers
    )


def _is_supported(layer: Any, linears: list[Any]) -> bool:
    """Return True if kernels support the modules of a layer and all that is trainable in it."""
    if hasattr(layer.self_attn, "q_norm") or not is_silu(layer.mlp.act_fn):
        return False
    lora = [one for one in linears if isinstance(one, _LORA) and not one.is_merged]
    plain = [one.base for one in lora] or linears
    if len(lora) not in (0, _LINEARS) or not all(map(is_plain_linear, plain)):
        return False
    weights = [*(norm.weight for norm in _norms(layer)), *(one.weight for one in plain)]
    biases = [one.bias for one in plain if one.bias is not None]
    sides = [side for one in lora for side in one.factors()]
    if any(one.requires_grad for one in ([*weights, *biases] if lora else biases)):
        return False
    if len({(len(one.lora_a), one.scale) for one in lora}) > 1 or any(one.dtype != torch.float32 for one in sides):
        return False
    sizes = plain[0].in_features % PAIR, plain[-1].in_features % PAIR, layer.self_attn.head_dim % BLOCK
    return (
        not any(sizes)
        and supports("layer_forward", *weights, *biases)
        and all(one.is_contiguous() for one in (*weights, *biases, *sides))
    )


def _norms(layer: Any) -> tuple[Any, Any]:
    return layer.input_layernorm, layer.post_attention_layernorm


def _fits(layer: Any, linears: list[Any], hidden_1NW: Tensor, layout: Any, angles: Any) -> bool:
    """Return True if kernels support the inputs of a pass."""
    supported = isinstance(layout, PackedSequences) and supports("layer_forward", hidden_1NW, *angles)
    if not supported or not _is_supported(layer, linears) or angles[0].shape[-1] != layer.self_attn.head_dim:
        return False
    return attention_config(layer.self_attn).sees_all(layout.longest)


class _KernelArgs:
    """The arguments of one pass through a layer, beside its input.

    `parameters`: all A and all B, or the two norms and all weights, trainable or not. `wanted_M`: the positions to put
    out, None for all.
    """

    def __init__(
        self,
        layer: Any,
        linears: list[Any],
        angles: tuple[Tensor, Tensor],
        varlen: VarlenAttention,
        wanted_M: Tensor | None,
    ) -> None:
        lora = [one for one in linears if isinstance(one, _LORA)]
        plain = [one.base for one in lora] or linears
        norms, attention, config = _norms(layer), layer.self_attn, attention_config(layer.self_attn)
        self.angles, self.varlen = [side_1ND[0].contiguous() for side_1ND in angles], varlen
        self.wanted_M = None if wanted_M is None else wanted_M.contiguous()
        self.shapes = [tuple(one.weight.shape) for one in plain]
        (attended, width), (shared, _), (_, wide) = self.shapes[0], self.shapes[1], self.shapes[-1]
        self.heads, self.rank = attended // attention.head_dim, len(lora[0].lora_a) if lora else 0
        pairs: list[Any] = [one.factors() for one in lora]
        self.parameters = [side for sides in zip(*pairs, strict=True) for side in sides]
        self.parameters = self.parameters or [*(one.weight for one in norms), *(one.weight for one in plain)]
        # queries, keys, values, attention output, the sum after it, gate and up, and the outputs of A
        self.saved_widths = [
            attended,
            shared,
            shared,
            attended,
            width,
            wide,
            wide,
            *(self.rank * n for n in (3, 1, 2, 1)),
        ]
        self.struct = _LayerStruct(
            *(address(one.weight) for one in norms),
            *(None, None),
            (_LinearStruct * _LINEARS)(*map(_linear_struct, plain, pairs or [(None, None)] * _LINEARS)),
            *(width, self.heads, shared // attention.head_dim, attention.head_dim, wide, self.rank),
            *(one.variance_epsilon for one in norms),
            config.scale,
            lora[0].scale if lora else 0.0,
        )

    def call_args(self, hidden_NW: Tensor) -> tuple[Any, ...]:
        """Return the arguments that both kernels take."""
        counted = len(hidden_NW), self.wanted_M, self.output_count(hidden_NW)
        return ctypes.addressof(self.struct), hidden_NW, *self.angles, *self.varlen.kernel_args, *counted

    def output_count(self, hidden_NW: Tensor) -> int:
        """Return the number of output positions."""
        return len(hidden_NW if self.wanted_M is None else self.wanted_M)

    def saved_size(self, tokens: int) -> int:
        """Return how many numbers a pass saves for backward, each part aligned to 64 bytes."""
        return sum(-(-tokens * width // PAIR) * PAIR for width in self.saved_widths)

    @property
    def factor_size(self) -> int:
        """Return how many numbers all LoRA factors have."""
        return self.rank * sum(sum(shape) for shape in self.shapes)

    def allocate_grads(self, wanted: Sequence[bool]) -> list[Tensor | None]:
        """Allocate the gradients of norms (float32) and weights that are wanted, and pass their addresses to the
        kernel."""
        kinds = [torch.float32] * 2 + [self.parameters[0].dtype] * _LINEARS
        found = [
            torch.empty(one.shape, dtype=kind) if want else None
            for one, kind, want in zip(self.parameters, kinds, wanted, strict=True)
        ]
        self.struct.grad_norm, self.struct.grad_between = map(address, found[:2])
        for linear, grad in zip(self.struct.linears, found[2:], strict=True):
            linear.grad = address(grad)
        return found


def _linear_struct(linear: nn.Linear, sides: Sequence[Tensor | None]) -> _LinearStruct:
    return _LinearStruct(address(linear.weight), address(linear.bias), *map(address, sides))


class _LayerFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_NW: Tensor, args: _KernelArgs, *parameters: Tensor) -> Tensor:  # noqa: ARG004
        tokens, out_NW = len(hidden_NW), hidden_NW.new_empty(args.output_count(hidden_NW), hidden_NW.shape[1])
        saved, log_sum_NH = hidden_NW.new_empty(args.saved_size(tokens)), torch.empty(tokens, args.heads)
        call("layer_forward", *args.call_args(hidden_NW), saved, log_sum_NH, out_NW)
        ctx.save_for_backward(hidden_NW, saved, log_sum_NH)
        ctx.args = args
        return out_NW

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        hidden_NW, *saved = ctx.saved_tensors
        args: _KernelArgs = ctx.args
        grad_NW = torch.empty_like(hidden_NW) if ctx.needs_input_grad[0] else None
        sides, weights = (
            torch.empty(args.factor_size),
            [] if args.rank else args.allocate_grads(ctx.needs_input_grad[2:]),
        )
        call("layer_backward", *args.call_args(hidden_NW), *saved, grads[0].contiguous(), sides, grad_NW)
        if not args.rank:
            return grad_NW, None, *(one if one is None else one.to(hidden_NW.dtype) for one in weights)
        shapes = [one.shape for one in args.parameters]
        parts = torch.split(sides, [rows * columns for rows, columns in shapes])
        return grad_NW, None, *(part.view(shape) for part, shape in zip(parts, shapes, strict=True))
