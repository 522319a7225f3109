"""Tells supported architectures from others: runs transformers' own eager attention as the reference, and names what is
refused.

Shapes: S sequences of L tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.base.errors import InputError

CHOOSE_FAMILY = "choose a Llama, Qwen, Gemma, Mistral or Phi model"


def unsupported(kind: object, reason: str, file: Path) -> InputError:
    """Return the error for an architecture that cannot be loaded, with the reason in a few words."""
    return InputError(f"architecture {kind!r} is not supported ({reason})", CHOOSE_FAMILY, file=file)


@contextmanager
def eager_attention(model: Any) -> Iterator[None]:
    """Context manager: the model attends by transformers' own eager attention and masks, given no layout."""
    config = model.config
    ours = config._attn_implementation
    config._attn_implementation = "eager"
    try:
        yield
    finally:
        config._attn_implementation = ours


@torch.no_grad()
def eager_outputs(model: Any, ids_SL: Tensor) -> tuple[Tensor, Tensor]:
    """Return the last hidden states `hidden_SLD` and logits `logits_SLV` of sequences of equal length, computed by
    transformers alone: the reference for every other path.

    An accelerated model takes transformers' forwards here, too, since its layers are given no layout.
    """
    hidden: list[Tensor] = []
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0]), prepend=True)
    try:
        with eager_attention(model):
            logits: Tensor = model(input_ids=ids_SL, use_cache=False).logits
    finally:
        hook.remove()
    return hidden[0], logits


@contextmanager
def first_layers_alone(model: Any) -> Iterator[None]:
    """Context manager: the model consists of its first layers, two at least, up to the last one that is the first of
    its kind.

    Layers are of one kind if all their modules have the same types and settings. A model whose layers are elsewhere
    than in `base_model.layers` stays whole.
    """
    body, config = model.base_model, model.config
    layers, depth = getattr(body, "layers", None), getattr(config, "num_hidden_layers", None)
    if not isinstance(layers, nn.ModuleList) or depth != len(layers):
        yield
        return
    kinds = [_kind_of(layer) for layer in layers]
    count = max(2, 1 + max(kinds.index(kind) for kind in kinds))
    body.layers, config.num_hidden_layers = layers[:count], min(count, depth)
    try:
        yield
    finally:
        body.layers, config.num_hidden_layers = layers, depth


def _kind_of(layer: nn.Module) -> list[object]:
    return [
        (type(module), [item for item in vars(module).items() if item[0] != "layer_idx" and _is_setting(item[1])])
        for module in layer.modules()
    ]


def _is_setting(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


@contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """Context manager: all but the output head computes in float32 whatever the dtype of the weights is.

    Rounding is then far below any fault. Each module's weights are converted as it runs, so that one module at a time
    is held twice; embeddings are converted after the lookup, and the head converts its input back.
    """
    weights = _Float32Weights()
    with ExitStack() as stack:
        stack.callback(weights.restore_all)  # an error ended the pass within modules
        for module in model.modules():
            if module is model.get_output_embeddings():
                hooks = [module.register_forward_pre_hook(_with_inputs_of_weights)]
            elif isinstance(module, nn.Embedding):
                hooks = [module.register_forward_hook(_with_float32_output)]
            else:
                hooks = [
                    module.register_forward_pre_hook(weights.convert),
                    module.register_forward_hook(weights.restore),
                ]
            for hook in hooks:
                stack.callback(hook.remove)
        yield


class _Float32Weights:
    """The weights that modules hold themselves, in float32 while the module runs."""

    def __init__(self) -> None:
        self._values: dict[nn.Parameter, Tensor] = {}

    def convert(self, module: nn.Module, *_: Any) -> None:
        for parameter in module.parameters(recurse=False):
            if parameter.dtype in (torch.bfloat16, torch.float16) and parameter not in self._values:
                self._values[parameter] = parameter.data
                parameter.data = parameter.data.float()

    def restore(self, module: nn.Module, *_: Any) -> None:
        for parameter in module.parameters(recurse=False):
            if parameter in self._values:
                parameter.data = self._values.pop(parameter)

    def restore_all(self) -> None:
        for parameter, value in self._values.items():
            parameter.data = value


def _with_inputs_of_weights(head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    dtype = next(head.parameters()).dtype
    return tuple(value.to(dtype) for value in inputs)


def _with_float32_output(_: nn.Module, __: Any, output: Tensor) -> Tensor:
    return output.float()
