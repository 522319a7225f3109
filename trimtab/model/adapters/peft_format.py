"""Converts an attached adapter to PEFT's configuration and tensors, and attaches the adapter that a saved configuration
describes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.base.errors import InputError
from trimtab.base.sanitize import visible
from trimtab.model.adapters.base import AdapterLayer, adapter_layers, wrap
from trimtab.model.adapters.registry import layer_methods, virtual_token_methods
from trimtab.model.adapters.saved_adapter import CONFIG_FILE, PREFIX, SavedAdapter, abbreviated
from trimtab.model.load import Base, linear_layers
from trimtab.model.prompt_tuning import VirtualTokens, attach_virtual_tokens, virtual_tokens_of

_SHARED_PREFIX, _VIRTUAL = "base_model.", "prompt_embeddings"
# Options of PEFT that change what the same tensors mean, whatever the method.
_UNSUPPORTED_OPTIONS = (
    *("rank_pattern", "alpha_pattern", "fan_in_fan_out", "use_qalora", "lora_bias"),
    *("prefix_projection", "layers_to_transform", "modules_to_save"),
)


def peft_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the attached adapter's tensors by PEFT's names; writing into them changes it, except for PiSSA's."""
    virtual = virtual_tokens_of(model)
    if virtual is not None:
        return {_VIRTUAL: virtual.values.detach()}
    layers = adapter_layers(model)
    tensors = {
        f"{PREFIX}{name}.{part}": value
        for name, layer in layers.items()
        for part, value in layer.peft_tensors().items()
    }
    shared = next(iter(layers.values())).shared_tensors if layers else {}
    return {**tensors, **{f"{_SHARED_PREFIX}{name}": value for name, value in shared.items()}}


def peft_config(base: Base) -> dict[str, Any]:
    """Return the attached adapter's configuration as PEFT reads it."""
    common = {"task_type": "CAUSAL_LM", "base_model_name_or_path": str(base.folder), "inference_mode": True}
    virtual = virtual_tokens_of(base.model)
    if virtual is not None:
        return {"peft_type": virtual.PEFT_TYPE, **common, **virtual.peft_config(base.model.config)}
    layers = adapter_layers(base.model)
    names, first = sorted({name.rpartition(".")[2] for name in layers}), next(iter(layers.values()))
    return {"peft_type": first.saved_as.peft_type, **common, "target_modules": names, **first.peft_config(names)}


def extra_files(base: Base) -> Mapping[str, Mapping[str, Any]]:
    """Return the further files that the attached adapter's folder needs, with their content."""
    first = next(iter(adapter_layers(base.model).values()), None)
    return first.saved_as.files if first is not None else {}


def all_extra_files() -> list[str]:
    """Return the files that any method puts into a folder beside PEFT's own."""
    return sorted({name for method in layer_methods().values() for name in method.saved_as.files})


def attach_as_saved(base: Base, config: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Attach the adapter that a configuration describes, if the tensors have its sizes; their values are not loaded
    yet.

    Raises InputError for an unknown type or option, and for tensors that do not belong to this model.
    """
    saved = SavedAdapter(config=config, tensors=tensors, folder=folder, device=base.device)
    kind = config.get("peft_type")
    methods = [method for method in layer_methods().values() if method.saved_as.peft_type == kind]
    virtual = next((method for method in virtual_token_methods().values() if kind == method.PEFT_TYPE), None)
    _refuse_unsupported(saved, methods, known=bool(methods) or virtual is not None)
    if virtual is not None:
        _attach_virtual_tokens(base, virtual, saved)
        return
    method = _method_of(saved, methods)
    layers, format = method.layers_of(linear_layers(base.model)), method.saved_as
    expected = {f"{PREFIX}{name}.{part}" for name in layers for part in format.parts}
    if tensors.keys() != expected | {f"{_SHARED_PREFIX}{name}" for name in format.shared}:
        raise InputError(
            "the adapter's layers are not those of this model", "use the base model it was trained on", file=folder
        )
    wrap(base.model, layers, method.maker_as_saved(saved))


def _refuse_unsupported(saved: SavedAdapter, methods: list[type[AdapterLayer]], *, known: bool) -> None:
    has_head = saved.config.get("modules_to_save") == ["score"]  # a classifier's head, read by `model/classifier.py`
    refused = [*_UNSUPPORTED_OPTIONS, *(option for method in methods for option in method.saved_as.refused)]
    on = [key for key in refused if saved.config.get(key) and not (has_head and key == "modules_to_save")]
    if on or not known:
        kind = repr(saved.config.get("peft_type"))[:40]
        raise InputError(
            f"the adapter's type or options are not supported ({visible(', '.join(on) or kind)})",
            "use one that trimtab or PEFT trained without these options",
            file=saved.folder / CONFIG_FILE,
        )


def _method_of(saved: SavedAdapter, methods: list[type[AdapterLayer]]) -> type[AdapterLayer]:
    """Return the method of a saved adapter among those of its type; raises InputError for marks that no method has
    together.
    """
    marks = {mark for method in methods for mark in _marks(method)}
    found = {mark for mark in marks if saved.config.get(mark) or (saved.folder / mark).is_file()}
    for method in methods:
        if set(_marks(method)) == found:
            return method
    raise saved.error(f"{' and '.join(sorted(found))} together are not supported")


def _marks(method: type[AdapterLayer]) -> Iterator[str]:
    """Yield the options and files that set a method apart from its kin."""
    yield from method.saved_as.flags
    yield from method.saved_as.files


def _attach_virtual_tokens(base: Base, kind: type[VirtualTokens], saved: SavedAdapter) -> None:
    count, width, tensors = saved.config.get("num_virtual_tokens"), kind.width(base.model.config), saved.tensors
    if tensors.keys() != {_VIRTUAL} or tensors[_VIRTUAL].dim() != 2 or tensors[_VIRTUAL].shape[1] != width:
        raise InputError(
            "the virtual tokens do not have this model's size",
            "use the base model they were trained on",
            file=saved.folder,
        )
    stored = tensors[_VIRTUAL].shape[0]
    if type(count) is not int or count < 1 or count != stored:
        raise saved.error(f"num_virtual_tokens is {abbreviated(count)}, and the tensors hold {stored}")
    attach_virtual_tokens(base.model, kind(torch.zeros(stored, width, device=base.device)))
