"""Attaches, detaches, saves and loads adapters, virtual tokens or trained weights, and merges adapters.

Folders are in PEFT's format if PEFT has the method (`model/adapters/peft_format.py`), else they hold the trained
weights by parameter name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import read_object, remove_partial, replacing, write_json
from trimtab.base.sanitize import one_line, visible
from trimtab.model import process_group
from trimtab.model.adapters.base import AdapterInit, AdapterLayer, adapter_layers, unwrap, wrap
from trimtab.model.adapters.lora import LoraLinear
from trimtab.model.adapters.peft_format import all_extra_files, attach_as_saved, extra_files, peft_config, peft_tensors
from trimtab.model.adapters.registry import WEIGHT_METHODS, layer_methods, virtual_token_methods
from trimtab.model.adapters.saved_adapter import CONFIG_FILE
from trimtab.model.architecture import CHOOSE_FAMILY, first_layers_alone
from trimtab.model.attention import PackedSequences
from trimtab.model.load import Base, decoder_layers, linear_layers, wrap_library_errors
from trimtab.model.prompt_tuning import add_virtual_tokens, detach_virtual_tokens, virtual_tokens_of
from trimtab.model.sharded_parameters import gathered_value

ADAPTER_FILE, TRAINED_FILE = "adapter_model.safetensors", "moved.safetensors"
FULL_MODEL_FILE = "model.safetensors"  # fully trained weights with a classification head
HEAD_KEY = "score.weight"  # the head, which `model/classifier.py` adds
PEFT_HEAD_KEY = f"base_model.model.{HEAD_KEY}"


def attach(
    base: Base, method: str, seed: int, *, rank: int | None = None, layers: int = 4, virtual_tokens: int | None = None
) -> None:
    """Make the parameters of a method trainable, by its name in the grammar; `layers` is for `freeze`.

    Raises InputError if the model has no parameters for the method or no pass can train it, or the machine lacks what
    it needs.
    """
    decoder_layers(base)
    virtual = virtual_token_methods().get(method)
    if virtual is not None:
        add_virtual_tokens(base.model, virtual, virtual_tokens or 1, seed)
    elif method in WEIGHT_METHODS:
        unfreeze(base, method, layers)
    else:
        layer = layer_methods()[method]
        targets = _layers(base, layer)
        init = AdapterInit(rank=rank or 1, generator=torch.Generator().manual_seed(seed), layers=targets)
        wrap(base.model, targets, layer.maker(init))
        _require_pass(base)


@torch.no_grad()
def _require_pass(base: Base) -> None:
    """Pass two tokens through the first layers; raises InputError, and detaches, if the model does not run with
    adapters: some routers read the weight of a linear layer and do not call it.
    """
    layout = PackedSequences([2])
    positions_N = layout.positions_N.to(base.device)
    problem = f"architecture {base.model.config.model_type!r} cannot be trained by adapters"
    try:
        with wrap_library_errors(base.folder, problem, CHOOSE_FAMILY), first_layers_alone(base.model):
            base.hidden(positions_N, positions_N, layout)
    except InputError:
        detach(base)
        raise


def add_lora(base: Base, rank: int, alpha: float, seed: int) -> None:
    """Wrap every linear layer of the decoder with LoRA; only the low-rank factors are trainable."""
    generator = torch.Generator().manual_seed(seed)
    wrap(base.model, _layers(base, LoraLinear), lambda _, layer: LoraLinear(layer, rank, alpha, generator))


def _layers(base: Base, method: type[AdapterLayer]) -> dict[str, nn.Linear]:
    """Return the linear layers of the decoder that a method changes; raises InputError if there are none."""
    targets = method.layers_of(linear_layers(base.model))
    if not targets:
        problem = f"architecture {base.model.config.model_type!r} cannot be trained by adapters (no linear layers)"
        raise InputError(problem, CHOOSE_FAMILY, file=base.folder)
    return targets


def detach(base: Base) -> None:
    """Restore the pretrained model to the bit: removes adapters, restores original weights, and freezes them."""
    unwrap(base.model)
    detach_virtual_tokens(base.model)
    parameters = dict(base.model.named_parameters())
    for name, value in base.original_weights.items():
        parameters[name].data = value
    base.original_weights.clear()
    base.model.requires_grad_(False)


def unfreeze(base: Base, method: str, layers: int = 4) -> None:
    """Make the weights of `freeze` (the last `layers` blocks and the final norm) or `full` (all) trainable.

    They keep the base's dtype; the optimizer steps float32 masters. They are trained as copies, since another model may
    share the original weights (`share_weights`), which `detach` restores.
    """
    model = base.model
    blocks = decoder_layers(base)
    if method == "freeze" and layers > len(blocks):
        raise InputError(f"layers = {layers}, but the model has {len(blocks)}", "lower it", field="arm.layers")
    if method == "full":
        model.requires_grad_(True)
    else:
        norms = (
            part for name, part in model.base_model.named_children() if name.endswith("norm")
        )  # Phi: final_layernorm
        for module in (*blocks[len(blocks) - layers :], *norms):
            module.requires_grad_(True)
    _keep_original(base, trainable_parameters(model))


def _keep_original(base: Base, parameters: Mapping[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        if name not in base.original_weights:
            base.original_weights[name] = parameter.data
            parameter.data = parameter.data.clone()


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable parameters by name (a tied weight once)."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Context manager: merges adapters into the weights; afterwards everything is as before."""
    layers = adapter_layers(model).values()
    for layer in layers:
        layer.merge()
    try:
        yield
    finally:
        for layer in layers:
            layer.unmerge()


def save_adapter(base: Base, folder: Path) -> None:
    """Save what is trained: a PEFT adapter folder, or `moved.safetensors` by parameter name.

    For a base quantised to 4 bits the adapter comes with its quantisation settings (`quantization.json`). In a group of
    processes all must call it, and the first one writes.
    """
    has_adapter = bool(adapter_layers(base.model)) or virtual_tokens_of(base.model) is not None
    trained: dict[str, Tensor] = {}
    for name, parameter in () if has_adapter else trainable_parameters(base.model).items():
        value = gathered_value(base, parameter)
        if process_group.is_main_process():  # the others keep no copy
            trained[name] = value
    if not process_group.is_main_process():
        return
    for name in (TRAINED_FILE, ADAPTER_FILE, CONFIG_FILE, *all_extra_files()):
        remove_partial(folder, f"{name}.*")
    if not has_adapter:
        write_tensors(trained, folder / TRAINED_FILE)
        return
    write_tensors({name: value.contiguous() for name, value in peft_tensors(base.model).items()}, folder / ADAPTER_FILE)
    write_json(folder / CONFIG_FILE, peft_config(base))
    for name, content in extra_files(base).items():
        write_json(folder / name, content)


def load_adapter(base: Base, folder: Path) -> None:
    """Load a saved adapter onto a base without one.

    Raises MissingError if the folder holds none, InputError if it is damaged or does not fit the model, which is then
    unchanged.
    """
    trained_file = next((folder / name for name in (TRAINED_FILE, FULL_MODEL_FILE) if (folder / name).is_file()), None)
    if trained_file is not None:
        tensors, parameters = _load_tensors(trained_file), dict(base.model.named_parameters())
        _keep_original(base, {name: parameters[name] for name in tensors if name in parameters})
        _copy_values(base, parameters, tensors, folder)
        return
    if not (folder / ADAPTER_FILE).is_file():
        raise MissingError(f"{folder}: no adapter; train one with: trimtab train ARM")
    config = read_object(folder / CONFIG_FILE)
    tensors = _load_tensors(folder / ADAPTER_FILE)
    attach_as_saved(base, config, tensors, folder)
    _copy_values(base, peft_tensors(base.model), tensors, folder)


def _load_tensors(file: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except (SafetensorError, ValueError) as error:
        raise InputError(f"is damaged or cut off ({one_line(error)})", "restore it from a copy", file=file) from None
    return {name: value for name, value in tensors.items() if name not in (HEAD_KEY, PEFT_HEAD_KEY)}


def _copy_values(base: Base, targets: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> None:
    for name, value in tensors.items():
        if name not in targets or targets[name].shape != value.shape:
            detach(base)
            problem = f"{visible(name[:80])} does not fit the model"
            raise InputError(problem, "use the base model it was trained on", file=folder)
    with torch.no_grad():
        for name, value in tensors.items():
            targets[name].copy_(value)


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors to a safetensors file atomically; raises InputError if it cannot be written."""
    try:
        with replacing(path) as beside:
            save_file(tensors, beside)
    except SafetensorError as error:
        remedy = "free disk space or repair the disk, then run the same command with --resume"
        raise InputError(f"could not be written ({one_line(error)})", remedy, file=path) from error
