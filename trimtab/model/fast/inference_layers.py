"""Fused decoder layers for inference, in torch or C kernels; the context `inference_forwards` installs them.

Transformers' layers have some sixty operations each, most of them small. Shapes: N tokens of the flat row, I inputs, O
outputs, H query heads, K key/value heads, D head size or width of the model.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from trimtab.model.adapters.base import AdapterLayer, adapter_layers
from trimtab.model.attention import AttentionConfig, Layout
from trimtab.model.fast.forwards import INFERENCE_FORWARDS, Accelerated, is_plain_linear
from trimtab.model.kernels.build import address, call, supports
from trimtab.model.kernels.cached_attention import KernelAttention
from trimtab.model.kernels.linear import PackedLinear
from trimtab.model.kernels.ops import BLOCK, PAIR, add_rms_norm, apply_rope, gated_activation, is_silu, rms_norm


class _Linear(ctypes.Structure):
    _fields_ = (("panels", ctypes.c_void_p), ("bias", ctypes.c_void_p))


class _Layer(ctypes.Structure):
    """The struct `layer` of `kernels/decoder.c`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("norm", "between", "query_norm", "key_norm")),
        *((name, _Linear) for name in ("in", "out", "gate", "up", "down")),
        *((name, ctypes.c_int64) for name in ("width", "heads", "shared", "size", "wide")),
        *((f"{name}epsilon", ctypes.c_float) for name in ("", "between_", "query_", "key_")),
    )


class KernelDecoderLayer:
    """A decoder layer whose projections are all PackedLinear.

    `products`: queries, keys and values together, attention output, and the MLP's gate, up and down. `norms`: of the
    input, before the MLP, and of queries and keys, which may be None. `heads`: H and K.
    """

    def __init__(
        self,
        products: Sequence[PackedLinear],
        norms: Sequence[Any],
        heads: Sequence[int],
        size: int,
        config: AttentionConfig,
    ) -> None:
        self._alive = products, norms  # the struct holds their addresses
        self.heads, self.size, self.config = [*heads, heads[1]], size, config
        width, wide = products[0].panels.shape[1], products[-1].panels.shape[1]
        self.struct = _Layer(
            *(None if norm is None else address(norm.weight) for norm in norms),
            *(_Linear(address(one.panels), address(one.bias_O)) for one in products),
            *(width, *heads, size, wide),
            *(0.0 if norm is None else norm.variance_epsilon for norm in norms),
        )


class KernelDecoderStack:
    """All decoder layers of a model, run by one kernel call."""

    def __init__(self, layers: Sequence[KernelDecoderLayer]) -> None:
        self._alive, self.size = layers, layers[0].size
        self.configs = [layer.config for layer in layers]
        heads, self.shared, _ = layers[0].heads
        self.groups = heads // self.shared
        self._structs = (_Layer * len(layers))(*(layer.struct for layer in layers))

    def __call__(self, hidden_ND: Tensor, angles: Sequence[Tensor], attention: KernelAttention) -> Tensor:
        """Return the last layer's output; keys and values of the new tokens are in their slots afterwards."""
        out_ND = torch.empty_like(hidden_ND)
        layers, job = (self._structs, len(self._structs)), ctypes.addressof(attention.job)
        call("decoder_layers", *layers, hidden_ND, *angles, len(hidden_ND), job, attention.caches, out_ND)
        return out_ND


Projection = Callable[[Tensor], Tensor]
# Linear layers of one input to the projection to their outputs side by side, `[..., O]` from `[..., I]`.
MakeProjection = Callable[..., Projection]

# Families whose decoder layers FusedDecoderLayer computes.
FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3")


@contextmanager
def inference_forwards(model: nn.Module, make: MakeProjection) -> Iterator[None]:
    """Context manager: every linear layer of a model and its head run the projections that `make` makes of them.

    Adapter layers that are not merged keep their own forward, and so do the decoder layers around them. Nested use
    changes nothing more. A model without `accelerate` runs as it is.
    """
    whole = [layer for layer in model.modules() if _is_fusable(layer)]
    within = {id(inner) for layer in whole for inner in layer.modules()}
    single = [layer for layer in plain_linears(model) if id(layer) not in within]
    changed: list[nn.Module] = [*whole, *single]
    if any(one in INFERENCE_FORWARDS for one in changed):
        changed = []
    try:
        for layer in changed:
            INFERENCE_FORWARDS[layer] = make(layer) if is_plain_linear(layer) else FusedDecoderLayer(layer, make)
        inner: Any = model.base_model
        if changed and _is_fully_fused(inner):
            INFERENCE_FORWARDS[inner] = FusedDecoderStack(inner)
            changed.append(inner)
        yield
    finally:
        for layer in changed:
            INFERENCE_FORWARDS.pop(layer, None)


def plain_linears(model: nn.Module) -> list[nn.Linear]:
    """Return the accelerated linear layers of a model and its head, those inside adapter layers included."""
    return [layer for layer in model.modules() if isinstance(layer, Accelerated) and is_plain_linear(layer)]


def stacked_weight(layers: Sequence[nn.Linear]) -> Tensor:
    """Return the weights of layers with one input, stacked to `[O, I]`; a single one is not copied."""
    return torch.cat([layer.weight.detach() for layer in layers]) if len(layers) > 1 else layers[0].weight.detach()


def stacked_bias(layers: Sequence[nn.Linear]) -> Tensor | None:
    """Return the concatenated biases, `[O]`, with zeros for a layer without one; None if none has one."""
    if all(layer.bias is None for layer in layers):
        return None
    none = [layer.weight.new_zeros(layer.out_features) for layer in layers]
    biases = [zeros if layer.bias is None else layer.bias.detach() for layer, zeros in zip(layers, none, strict=True)]
    return torch.cat(biases)


class FusedDecoderLayer:
    """The forward of a decoder layer of a known family in the fewest operations that round alike."""

    def __init__(self, layer: Any, make: MakeProjection) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.queries_keys_values = make(*map(_base_linear, (attention.q_proj, attention.k_proj, attention.v_proj)))
        self.out = make(_base_linear(attention.o_proj))
        # as one product these two are no faster, and for a single row slower
        self.gate, self.up = make(_base_linear(mlp.gate_proj)), make(_base_linear(mlp.up_proj))
        self.down, self.activation = make(_base_linear(mlp.down_proj)), mlp.act_fn
        self.input_norm, self.mlp_norm = layer.input_layernorm, layer.post_attention_layernorm
        self.head_norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
        self.index, self.size = int(attention.layer_idx), int(attention.head_dim)
        self.heads = [_base_linear(part).out_features // self.size for part in (attention.q_proj, attention.k_proj)]
        self.config = attention_config(attention)
        self.kernel_layer = self._kernel_layer()  # None where kernels do not support the whole layer

    def __call__(
        self, hidden_states: Tensor, *, position_embeddings: tuple[Tensor, Tensor], layout: Layout, **_: Any
    ) -> Tensor:
        """Return the hidden states `[1, N, D]`, as transformers' module does."""
        hidden_ND = hidden_states[0]
        attended_ND = self._attention(rms_norm(hidden_ND, self.input_norm), position_embeddings, layout)
        hidden_ND, input_ND = add_rms_norm(hidden_ND, attended_ND, self.mlp_norm)
        return (hidden_ND + self.down(gated_activation(self.gate(input_ND), self.up(input_ND), self.activation)))[None]

    def _kernel_layer(self) -> KernelDecoderLayer | None:
        products = [self.queries_keys_values, self.out, self.gate, self.up, self.down]
        packed = [one for one in products if isinstance(one, PackedLinear)]
        norms = [self.input_norm, self.mlp_norm, *self.head_norms]
        fits = self.size % BLOCK == 0 and is_silu(self.activation) and len(packed) == len(products)
        fits = fits and all(part.outputs % PAIR == 0 for part in packed)
        fits = fits and supports("decoder_layers", *(norm.weight for norm in norms if norm))
        return KernelDecoderLayer(packed, norms, self.heads, self.size, self.config) if fits else None

    def _attention(self, input_ND: Tensor, angles: tuple[Tensor, Tensor], layout: Layout) -> Tensor:
        queries, keys = self.heads
        all_NHD = self.queries_keys_values(input_ND).view(len(input_ND), -1, self.size)
        rotated_NHD, value_NKD = all_NHD[:, : queries + keys], all_NHD[:, queries + keys :]
        if self.head_norms[0] is not None:
            parts = torch.split(rotated_NHD, self.heads, dim=1)
            rotated_NHD = torch.cat(
                [rms_norm(part, norm) for part, norm in zip(parts, self.head_norms, strict=True)], 1
            )
        cos_1ND, sin_1ND = angles
        rotated_HND = apply_rope(rotated_NHD, cos_1ND[0], sin_1ND[0]).transpose(0, 1)
        out_NHD = layout.attend(
            self.index, rotated_HND[:queries], rotated_HND[queries:], value_NKD.transpose(0, 1), self.config
        )
        return self.out(out_NHD.reshape(len(input_ND), -1))


class FusedDecoderStack:
    """The forward of a model whose layers are all FusedDecoderLayer, with its embeddings and last norm."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.layers: list[Any] = [INFERENCE_FORWARDS[layer] for layer in model.layers]
        kernel_layers = [layer.kernel_layer for layer in self.layers if layer.kernel_layer]
        self.kernel_stack = KernelDecoderStack(kernel_layers) if len(kernel_layers) == len(self.layers) else None

    def __call__(
        self,
        input_ids: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor,
        layout: Layout,
        **_: Any,
    ) -> BaseModelOutput:
        """Return the hidden states `[1, N, D]`, as transformers' module does."""
        hidden_1ND = self.model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        angles = self.model.rotary_emb(hidden_1ND, position_ids)
        attention = self._attention(hidden_1ND, angles, layout)
        if attention and self.kernel_stack:
            hidden_1ND = self.kernel_stack(hidden_1ND[0].contiguous(), contiguous_angles(angles), attention)[None]
        else:
            for layer in self.layers:
                hidden_1ND = layer(hidden_1ND, position_embeddings=angles, layout=layout)
        return BaseModelOutput(last_hidden_state=rms_norm(hidden_1ND, self.model.norm))

    def _attention(self, hidden_1ND: Tensor, angles: tuple[Tensor, Tensor], layout: Any) -> KernelAttention | None:
        """Return the kernel's view of a layout with a cache; None if layers are run one by one."""
        stack, view = self.kernel_stack, getattr(layout, "kernel_attention", None)
        if stack is None or view is None or not rotates_whole_heads(stack, angles):
            return None
        attention: KernelAttention | None = view(
            hidden_1ND.new_empty(stack.shared, 0, stack.size), stack.groups, stack.configs
        )
        return attention


def rotates_whole_heads(kernels: KernelDecoderStack, angles: tuple[Tensor, Tensor]) -> bool:
    """Return True if RoPE rotates whole heads, as the kernels do."""
    return angles[0].shape[-1] == kernels.size


def contiguous_angles(angles: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Return cos and sin, `[N, D]`, contiguous."""
    return [side_1ND[0].contiguous() for side_1ND in angles]


def attention_config(attention: Any) -> AttentionConfig:
    """Return scale and sliding window of an attention module of a known family."""
    says = (
        attention if hasattr(attention, "sliding_window") else attention.config
    )  # Qwen's layers differ, Mistral's do not
    return AttentionConfig(attention.scaling, getattr(says, "sliding_window", None))


def _base_linear(layer: nn.Module) -> nn.Linear:
    """Return the linear layer inside an adapter layer, or the layer itself."""
    inner: nn.Linear = layer.base if isinstance(layer, AdapterLayer) else layer  # type: ignore[assignment]
    return inner


def _is_fully_fused(model: Any) -> bool:
    """Return True if all layers run as FusedDecoderLayer."""
    layers = getattr(model, "layers", ())
    return bool(layers) and all(isinstance(INFERENCE_FORWARDS.get(layer), FusedDecoderLayer) for layer in layers)


def is_known_decoder_layer(layer: nn.Module) -> bool:
    """Return True for a decoder layer of one of FAMILIES."""
    return type(layer).__name__.removesuffix("DecoderLayer") in FAMILIES


def _is_fusable(layer: nn.Module) -> bool:
    """Return True for an accelerated decoder layer of a known family whose adapters are all merged."""
    known = isinstance(layer, Accelerated) and is_known_decoder_layer(layer)
    return known and all(part.is_merged for part in adapter_layers(layer).values())
