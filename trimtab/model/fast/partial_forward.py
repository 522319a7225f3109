"""Partial forward passes: start after the frozen layers, stop after a given layer, finish the last layer only at
chosen tokens; and activation checkpointing, which keeps only the layers' inputs for the backward pass.

Shapes: N tokens of the flat row, M of them wanted, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trimtab.model import process_group
from trimtab.model.attention import Layout
from trimtab.model.fast.forwards import INFERENCE_FORWARDS
from trimtab.model.fast.inference_layers import is_known_decoder_layer
from trimtab.model.fast.train_layers import FusedTrainLayer
from trimtab.model.load import Base, decoder_layers
from trimtab.model.prompt_tuning import virtual_tokens_of


def first_trainable_layer(model: Any) -> int:
    """Return the index of the first layer with a trainable parameter, from 0.

    Also 0 where no pass may begin later: nothing is trainable, something before the layers is, virtual tokens are
    attached, upper layers read keys of lower ones, or the layers are divided among processes, which pass through all of
    them together.
    """
    if (
        process_group.size() > 1
        or virtual_tokens_of(model) is not None
        or getattr(model.config, "num_kv_shared_layers", None)
    ):
        return 0
    found: list[int] = []
    for name, parameter in model.base_model.named_parameters():  # in the order of a pass
        part, _, rest = name.partition(".")
        if not parameter.requires_grad or (found and part.endswith("norm")):  # behind the layers
            continue
        found.append(int(rest.partition(".")[0]) if part == "layers" else 0)
        if not found[-1]:
            break
    return min(found, default=0)


@torch.no_grad()
def layer_output(base: Base, layer: int, ids_N: Tensor, positions_N: Tensor, layout: Layout) -> Any:
    """Return the output of a layer, by index (of most architectures `hidden_1ND`); later layers are not run."""

    def reached(*args: Any, **kwargs: Any) -> Any:
        raise _ReachedError(last(*args, **kwargs))

    last = base.model.base_model.layers[layer]
    try:
        _with_forwards(base, {layer: reached}).hidden(ids_N, positions_N, layout)
    except _ReachedError as end:
        out = end.args[0]
    return out


def layer_input(base: Base, layer: int, ids_N: Tensor, positions_N: Tensor, layout: Layout) -> Tensor | None:
    """Return the input of a layer that is not the first, `hidden_ND` on the model's device.

    None for an architecture whose layers pass on more than hidden states.
    """
    out = layer_output(base, layer - 1, ids_N, positions_N, layout)
    shape = (1, len(ids_N), base.model.config.hidden_size)
    return out[0] if isinstance(out, Tensor) and out.shape == shape else None


def hidden_at(
    base: Base,
    wanted_M: Tensor,
    ids_N: Tensor,
    positions_N: Tensor,
    layout: Layout,
    *,
    above: tuple[int, Tensor] | None = None,
) -> Tensor:
    """Return the last hidden states `hidden_MD` at positions `wanted_M` of a flat row.

    `above`: a layer to begin at, with its inputs `inputs_ND` from `layer_input` for these tokens.
    """
    forwards: dict[int, Callable[..., Any]] = {}
    if above is not None:
        forwards |= dict.fromkeys(range(above[0]), partial(_given, above[1][None]))
    ends = _may_end(base, len(wanted_M), len(ids_N))
    if ends:
        number = len(base.model.base_model.layers) - 1
        forwards[number] = partial(_ended, base.model.base_model.layers[number], wanted_M)
    if base.activation_checkpointing and torch.is_grad_enabled():
        for number in range(above[0] if above else 0, len(base.model.base_model.layers)):
            own = forwards.get(number, base.model.base_model.layers[number].forward)
            forwards[number] = partial(run_checkpointed, own)
    hidden_XD = (_with_forwards(base, forwards) if forwards else base).hidden(ids_N, positions_N, layout)
    return hidden_XD if ends else hidden_XD.index_select(0, wanted_M)


def run_checkpointed(forward: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """Run a layer's forward and keep only its inputs; the backward pass runs it again (activation checkpointing).

    The state of random generators is not saved: the model is in evaluation mode, and no adapter uses dropout.
    """
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **named)


def _may_end(base: Base, wanted: int, tokens: int) -> bool:
    """Return True if the last layer can skip work at tokens that are not wanted, as `_ended` does."""
    last = decoder_layers(base)[-1]
    known = is_known_decoder_layer(last) and last not in INFERENCE_FORWARDS
    return known and wanted < tokens and virtual_tokens_of(base.model) is None


def _ended(layer: Any, wanted_M: Tensor, hidden_1ND: Tensor, **attends: Any) -> Tensor:
    """Return the output of a known decoder layer at wanted positions, `[1, M, D]`; the others are only attended to."""
    fused = layer.fused_forward(hidden_1ND, wanted_M, **attends) if isinstance(layer, FusedTrainLayer) else None
    if fused is not None:
        return fused
    mixed_1ND, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_1ND), **attends)
    # index_select, as its gradient adds up a place that is wanted several times in a fixed order on CPU
    hidden_1MD = (hidden_1ND + mixed_1ND).index_select(1, wanted_M)
    out: Tensor = hidden_1MD + layer.mlp(layer.post_attention_layernorm(hidden_1MD))
    return out


class _ReachedError(Exception):
    """Raised to end a pass at a layer, with its output."""


def _given(out: Tensor, *_: Any, **__: Any) -> Tensor:
    return out


def _with_forwards(base: Base, forwards: Mapping[int, Callable[..., Any]]) -> Base:
    """Return a base over the same modules in which some layers, by index, run another forward; others do not see it."""
    layers = list(base.model.base_model.layers)
    for number, forward in forwards.items():
        layers[number] = _shallow_copy(layers[number])
        layers[number].forward = forward
    model = _beside(base.model)
    inner = _beside(model.base_model)
    inner._modules["layers"] = nn.ModuleList(layers)
    model._modules[model.base_model_prefix] = inner
    return replace(base, model=model)


def _shallow_copy(module: Any) -> Any:
    """Return a shallow copy of a module, with its hooks. `copy.copy` fails on FSDP's classes, which make
    instances of the class that they replaced.
    """
    twin = object.__new__(type(module))
    twin.__dict__ = dict(module.__dict__)
    return twin


def _beside(module: Any) -> Any:
    """Return a shallow copy of a module whose submodules can be replaced."""
    twin = _shallow_copy(module)
    twin._modules = dict(module._modules)
    return twin
