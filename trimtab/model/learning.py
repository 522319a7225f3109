"""Decoder layers with LoRA in training, forward in one call and backward in another, where kernels take them (decision 60).

Shapes: N tokens of the flat row, W width of the model, H query heads, K key/value heads, D head size, R rank.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.model.attention import Rule, Segments
from trimtab.model.compiled import can, library, run
from trimtab.model.fused import rule_of
from trimtab.model.lora import LoraLinear
from trimtab.model.operations import BLOCK, PAIR, is_silu
from trimtab.model.products import LEAST, is_plain
from trimtab.model.trees import Trees

_LINEARS = 7


class _Changed(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_void_p) for name in ("weight", "bias", "a", "b"))


class _Learner(ctypes.Structure):
    """`learner` of `kernels/learning.c`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("norm", "between")),
        ("linears", _Changed * _LINEARS),
        *((name, ctypes.c_int64) for name in ("width", "heads", "shared", "size", "wide", "rank")),
        *((name, ctypes.c_float) for name in ("epsilon", "between_epsilon", "attention_scale", "change_scale")),
    )


class LearningLayer(nn.Module):
    """What a decoder layer of the families becomes in training (`model/lean.py`): by two kernels where its products have LoRA and all else stands still."""

    def forward(self, hidden_states: Tensor, *others: Any, **named: Any) -> Tensor:
        """One flat row, `[1, N, W]`."""
        layout: Any = named.get("layout")
        angles: Any = named.get("position_embeddings")
        linears = _linears(self)
        if not _fits(self, linears, hidden_states, layout, angles):
            plain: Tensor = super().forward(hidden_states, *others, **named)
            return plain
        pairs = [one.sides() for one in linears]
        sides = [a_RI for a_RI, _ in pairs] + [b_OR for _, b_OR in pairs]
        about = _About(self, linears, angles, layout.trees)
        out_ND: Tensor = _Layer.apply(hidden_states[0].contiguous(), about, *sides)  # type: ignore[no-untyped-call]
        return out_ND[None]


def _linears(layer: Any) -> list[Any]:
    """The linear layers in the order of the kernels."""
    attention, mlp = layer.self_attn, layer.mlp
    read = attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj
    return [*read, mlp.gate_proj, mlp.up_proj, mlp.down_proj]


def learns_by_kernels(model: Any) -> bool:
    """Whether kernels take all layers of a model, in passes of enough tokens."""
    layers = getattr(model.base_model, "layers", ())
    return bool(layers) and all(isinstance(one, LearningLayer) and _moves_by_lora(one, _linears(one)) for one in layers)


def _moves_by_lora(layer: Any, linears: list[Any]) -> bool:
    """Whether kernels know all that a layer is made of: LoRA of one rank on all its products, and nothing else that moves."""
    if "learn" not in library() or hasattr(layer.self_attn, "q_norm") or not is_silu(layer.mlp.act_fn):
        return False
    if not all(type(one) is LoraLinear and not one.is_merged and is_plain(one.base) for one in linears):
        return False
    norms = layer.input_layernorm, layer.post_attention_layernorm
    frozen = [*(one.weight for one in norms), *(value for one in linears for value in one.base.parameters())]
    sides = [side for one in linears for side in one.sides()]
    together = all(one.is_contiguous() for one in (*frozen, *sides)) and {one.dtype for one in sides} == {torch.float32}
    width, wide = linears[0].base.in_features, linears[-1].base.in_features
    fits = width % PAIR == wide % PAIR == layer.self_attn.head_dim % BLOCK == 0
    alike = len({(len(one.lora_a), one.scale) for one in linears}) == 1
    return fits and alike and together and can(*frozen) and not any(one.requires_grad for one in frozen)


def _fits(layer: Any, linears: list[Any], hidden_1NW: Tensor, layout: Any, angles: Any) -> bool:
    """Whether kernels compute all that a pass asks of a layer."""
    passes = isinstance(layout, Segments) and hidden_1NW.shape[1] >= LEAST and can(hidden_1NW, *angles)
    if not passes or not _moves_by_lora(layer, linears) or angles[0].shape[-1] != layer.self_attn.head_dim:
        return False
    return rule_of(layer.self_attn).sees_all(layout.longest)


class _About:
    """What one pass through a layer hangs on beside its input and what moves."""

    def __init__(self, layer: Any, linears: list[Any], angles: tuple[Tensor, Tensor], trees: Trees) -> None:
        norms, attention = (layer.input_layernorm, layer.post_attention_layernorm), layer.self_attn
        rule: Rule = rule_of(attention)
        self.angles, self.trees = [side_1ND[0].contiguous() for side_1ND in angles], trees
        self.heads = linears[0].base.out_features // attention.head_dim
        self.rank, self.shapes = len(linears[0].lora_a), [tuple(one.base.weight.shape) for one in linears]
        shared, width, wide = linears[1].base.out_features, linears[0].base.in_features, linears[-1].base.in_features
        attended = self.heads * attention.head_dim
        # queries, keys, values, what was attended to, the sum behind it, gate and up, and what A makes of inputs
        self.kept = [attended, shared, shared, attended, width, wide, wide, *(self.rank * n for n in (3, 1, 2, 1))]
        self.told = _Learner(
            *(one.weight.data_ptr() for one in norms),
            (_Changed * _LINEARS)(*(_told(one) for one in linears)),
            *(width, self.heads, shared // attention.head_dim, attention.head_dim, wide, self.rank),
            *(one.variance_epsilon for one in norms),
            rule.scale,
            linears[0].scale,
        )

    def given(self, hidden_NW: Tensor) -> tuple[Any, ...]:
        """What both kernels want to know of a pass."""
        trees = self.trees
        forest = trees.starts, trees.parents, trees.roots, len(trees.roots) - 1
        return ctypes.addressof(self.told), hidden_NW, *self.angles, *forest, len(hidden_NW)

    def room(self, tokens: int) -> int:
        """Numbers that are kept of a pass, each part from a multiple of 64 bytes on."""
        return sum(-(-tokens * width // PAIR) * PAIR for width in self.kept)

    @property
    def sides(self) -> int:
        """Numbers of all sides."""
        return self.rank * sum(sum(shape) for shape in self.shapes)


def _told(linear: LoraLinear) -> _Changed:
    bias = linear.base.bias
    a_RI, b_OR = linear.sides()
    weight = linear.base.weight.data_ptr()
    return _Changed(weight, None if bias is None else bias.data_ptr(), a_RI.data_ptr(), b_OR.data_ptr())


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_NW: Tensor, about: _About, *sides: Tensor) -> Tensor:  # noqa: ARG004
        tokens, out_NW = len(hidden_NW), torch.empty_like(hidden_NW)
        rounded, kept = hidden_NW.new_empty(about.sides), hidden_NW.new_empty(about.room(tokens))
        log_sum_NH = torch.empty(tokens, about.heads)
        run("learn", *about.given(hidden_NW), rounded, kept, log_sum_NH, out_NW)
        ctx.save_for_backward(hidden_NW, rounded, kept, log_sum_NH)
        ctx.about = about
        return out_NW

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        hidden_NW, *saved = ctx.saved_tensors
        about: _About = ctx.about
        grad_NW = torch.empty_like(hidden_NW) if ctx.needs_input_grad[0] else None
        found = torch.empty(about.sides)
        run("learn_backward", *about.given(hidden_NW), *saved, grads[0].contiguous(), found, grad_NW)
        rank = about.rank
        shapes = [(rank, inputs) for _, inputs in about.shapes] + [(outputs, rank) for outputs, _ in about.shapes]
        parts = torch.split(found, [rows * columns for rows, columns in shapes])
        return grad_NW, None, *(part.view(shape) for part, shape in zip(parts, shapes, strict=True))
