"""Which numbers may move: LoRA on every linear layer, the last layers, or all; saved so that PEFT and transformers load them."""

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
from trimtab.base.files import read_object, write_json
from trimtab.base.visible import said, visible
from trimtab.model.load import Base, linear_layers
from trimtab.model.lora import LoraLinear

ADAPTER_FILE, CONFIG_FILE, MOVED_FILE = "adapter_model.safetensors", "adapter_config.json", "moved.safetensors"
_PEFT_PREFIX = "base_model.model."
WHOLE_FILE = "model.safetensors"  # where all weights moved and a classification head stands on them
SCORE, SCORE_IN_PEFT = (
    "score.weight",
    f"{_PEFT_PREFIX}score.weight",
)  # the head, which `model/classifier.py` puts beside what moved
# Options of PEFT under which the same tensors mean another change of the weights.
_OTHER_MATHS = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "use_qalora", "lora_bias")
MOST_ALPHA = 1e6  # far beyond any in use; the scale is this over the rank
_TOGETHER = "use the adapter_config.json that was saved with it"


def add_lora(base: Base, rank: int, alpha: float, seed: int) -> None:
    """Wrap every linear layer of the decoder; only the low-rank parts are trainable."""
    generator = torch.Generator().manual_seed(seed)
    found = linear_layers(base.model)
    if not found:
        raise InputError(
            f"architecture {base.model.config.model_type!r} has no linear layers to adapt",
            "choose a Llama, Qwen, Gemma, Mistral or Phi model",
            file=base.folder,
        )
    for name, layer in found.items():
        parent, _, child = name.rpartition(".")
        setattr(base.model.get_submodule(parent), child, LoraLinear(layer, rank, alpha, generator))


def lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """The wrapped layers by the name of the layer they wrap."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def take_off(base: Base) -> None:
    """The base model as published, to the bit: wrappers off, weights that were let go of put back and frozen again."""
    for name, layer in lora_layers(base.model).items():
        layer.unmerge()
        parent, _, child = name.rpartition(".")
        setattr(base.model.get_submodule(parent), child, layer.base)
    parameters = dict(base.model.named_parameters())
    with torch.no_grad():
        for name, value in base.published.items():
            parameters[name].copy_(value)
    base.published.clear()
    base.model.requires_grad_(False)


def unfreeze(base: Base, method: str, layers: int = 4) -> None:
    """Let the numbers of `freeze` (the last `layers` blocks and the final norm) or `full` (all) move.

    They keep the base's type; the optimizer steps float32 masters of them. What they were is kept for `take_off`.
    """
    model = base.model
    blocks = model.base_model.layers
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
    _let_go(base, trainable(model))


def _let_go(base: Base, parameters: Mapping[str, nn.Parameter]) -> None:
    for name, value in parameters.items():
        base.published.setdefault(name, value.detach().clone())


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that may move, by name (a tied weight once)."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Inside, adapters are part of the weights; outside, everything is as before."""
    layers = lora_layers(model).values()
    for layer in layers:
        layer.merge()
    try:
        yield
    finally:
        for layer in layers:
            layer.unmerge()


def save_adapter(base: Base, folder: Path) -> None:
    """Write what moved: a PEFT adapter folder for LoRA, else `moved.safetensors` by parameter name."""
    folder.mkdir(parents=True, exist_ok=True)
    wrapped = lora_layers(base.model)
    if not wrapped:
        moved = {name: value.detach().contiguous() for name, value in trainable(base.model).items()}
        _save(moved, folder / MOVED_FILE)
        return
    tensors: dict[str, Tensor] = {}
    for name, layer in wrapped.items():
        tensors[f"{_PEFT_PREFIX}{name}.lora_A.weight"] = layer.lora_a.detach().contiguous()
        tensors[f"{_PEFT_PREFIX}{name}.lora_B.weight"] = layer.lora_b.detach().contiguous()
    _save(tensors, folder / ADAPTER_FILE)
    first = next(iter(wrapped.values()))
    write_json(
        folder / CONFIG_FILE,
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": str(base.folder),
            "r": first.rank,
            "lora_alpha": first.scale * first.rank,
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": sorted({name.rpartition(".")[2] for name in wrapped}),
            "inference_mode": True,
        },
    )


def load_adapter(base: Base, folder: Path) -> None:
    """Put a saved change onto a fresh base.

    Raises MissingError when the folder holds none, InputError when it is damaged or does not fit the model, which is then as before.
    """
    moved = next((folder / name for name in (MOVED_FILE, WHOLE_FILE) if (folder / name).is_file()), None)
    if moved is not None:
        tensors, parameters = _tensors(moved), dict(base.model.named_parameters())
        _let_go(base, {name: parameters[name] for name in tensors if name in parameters})
        _copy_into(base, parameters, tensors, folder)
        return
    if not (folder / ADAPTER_FILE).is_file():
        raise MissingError(f"{folder}: no adapter; train one with: trimtab train ARM")
    config = read_object(folder / CONFIG_FILE)
    changed = [key for key in _OTHER_MATHS if config.get(key)]
    if changed or config.get("peft_type") != "LORA":
        raise InputError(
            f"the adapter is not plain LoRA ({', '.join(changed) or config.get('peft_type')})",
            "use one that trimtab or PEFT trained without these options",
            file=folder / CONFIG_FILE,
        )
    tensors = _tensors(folder / ADAPTER_FILE)
    sides = [f"{_PEFT_PREFIX}{name}.lora_{side}.weight" for name in linear_layers(base.model) for side in "AB"]
    if tensors.keys() != set(sides):
        raise InputError(
            "the adapter is for other layers than this model has", "use the base model it was trained on", file=folder
        )
    rank, alpha = _rank_and_alpha(config, tensors, folder / CONFIG_FILE)
    add_lora(base, rank, alpha, seed=0)
    targets: dict[str, Any] = {}
    for name, layer in lora_layers(base.model).items():
        targets[f"{_PEFT_PREFIX}{name}.lora_A.weight"] = layer.lora_a
        targets[f"{_PEFT_PREFIX}{name}.lora_B.weight"] = layer.lora_b
    _copy_into(base, targets, tensors, folder)


def _rank_and_alpha(config: dict[str, Any], tensors: dict[str, Tensor], file: Path) -> tuple[int, float]:
    """Both as the config has them, if they are numbers that the tensors bear out: the layers are made from them."""
    rank, alpha = config.get("r"), config.get("lora_alpha")
    held = {value.shape[0] if value.dim() == 2 else 0 for name, value in tensors.items() if ".lora_A." in name}
    if type(rank) is not int or rank < 1 or held != {rank}:
        found = ", ".join(map(str, sorted(held)[:3])) or "none"
        raise InputError(f"r is {_short(rank)}, and the tensors are of rank {found}", _TOGETHER, file=file)
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not abs(alpha) <= MOST_ALPHA:  # NaN is not
        raise InputError(f"lora_alpha is {_short(alpha)}", _TOGETHER, file=file)
    return rank, float(alpha)


def _short(value: Any) -> str:
    """A value of a foreign file as a word or two; an integer may have more digits than Python prints."""
    if isinstance(value, int) and abs(value) >= 10**18:
        return "an integer of 19 digits or more"
    return visible(repr(value)[:40])


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except (SafetensorError, ValueError) as error:
        raise InputError(f"is damaged or cut off ({said(error)})", "restore it from a copy", file=file) from None
    return {name: value for name, value in tensors.items() if name not in (SCORE, SCORE_IN_PEFT)}


def _copy_into(base: Base, targets: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> None:
    for name, value in tensors.items():
        if name not in targets or targets[name].shape != value.shape:
            take_off(base)
            problem = f"{visible(name[:80])} does not fit the model"
            raise InputError(problem, "use the base model it was trained on", file=folder)
    with torch.no_grad():
        for name, value in tensors.items():
            targets[name].copy_(value)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    beside = path.with_name(f".{path.name}.part")
    save_file(tensors, beside)
    beside.replace(path)
