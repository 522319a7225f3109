"""PEFT's adapter format: configuration and tensors from the attached adapter, and adapters from a saved folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.base.errors import InputError
from trimtab.base.sanitize import visible
from trimtab.model.adapters.base import AdapterLayer, adapter_layers, wrap
from trimtab.model.adapters.dora import DoraLinear
from trimtab.model.adapters.ia3_bitfit import SCALED_INPUTS, BitFitLinear, Ia3Linear, ia3_targets
from trimtab.model.adapters.lora import LoraLinear
from trimtab.model.adapters.pissa import PissaLinear
from trimtab.model.adapters.qlora import QloraLinear, require_bitsandbytes
from trimtab.model.adapters.vera import D_INITIAL, VeraLinear
from trimtab.model.load import Base, linear_layers
from trimtab.model.prompt_tuning import (
    LearnedPrefix,
    SoftPrompt,
    VirtualTokens,
    attach_virtual_tokens,
    prefix_shape,
    virtual_tokens_of,
)

CONFIG_FILE, QUANTIZED_FILE = "adapter_config.json", "quantization.json"
MAX_ALPHA = 1e6  # far beyond any in use; the scale is alpha over the rank
_PREFIX, _VERA_A, _VERA_B, _VIRTUAL = "base_model.model.", "base_model.vera_A", "base_model.vera_B", "prompt_embeddings"
# PEFT options that change what the same tensors mean.
_UNSUPPORTED_OPTIONS = (
    *("rank_pattern", "alpha_pattern", "fan_in_fan_out", "use_qalora", "lora_bias"),
    *("prefix_projection", "layers_to_transform", "modules_to_save"),
)
_LORA_KEYS = ("lora_A.weight", "lora_B.weight")
_KEYS_BY_TYPE = {"VERA": ("vera_lambda_b", "vera_lambda_d"), "IA3": ("ia3_l",), "BEFT": ("beft_bias",)}
_USE_SAVED_CONFIG = "use the adapter_config.json that was saved with it"


def peft_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the attached adapter's tensors by PEFT's names; writing into them changes it, except for PiSSA's."""
    virtual = virtual_tokens_of(model)
    if virtual is not None:
        return {_VIRTUAL: virtual.values.detach()}
    layers = adapter_layers(model)
    tensors = {
        f"{_PREFIX}{name}.{part}": value
        for name, layer in layers.items()
        for part, value in layer.peft_tensors().items()
    }
    first = next(iter(layers.values()), None)
    return {**tensors, _VERA_A: first.vera_a, _VERA_B: first.vera_b} if isinstance(first, VeraLinear) else tensors


def peft_config(base: Base) -> dict[str, Any]:
    """Return the attached adapter's configuration as PEFT reads it."""
    common = {"task_type": "CAUSAL_LM", "base_model_name_or_path": str(base.folder), "inference_mode": True}
    virtual = virtual_tokens_of(base.model)
    if virtual is not None:
        return {"peft_type": virtual.PEFT_TYPE, **common, **_virtual_config(virtual, base.model.config)}
    layers = adapter_layers(base.model)
    names = sorted({name.rpartition(".")[2] for name in layers})
    kind, own = _kind_and_config(next(iter(layers.values())))
    if kind == "IA3":
        own = {"feedforward_modules": [name for name in names if name in SCALED_INPUTS]}
    return {"peft_type": kind, **common, "target_modules": names, **own}


def _kind_and_config(layer: AdapterLayer) -> tuple[str, dict[str, Any]]:
    if isinstance(layer, LoraLinear):
        times = 2 if isinstance(layer, PissaLinear) else 1
        options = {"use_rslora": layer.use_rslora, "use_dora": isinstance(layer, DoraLinear)}
        own = {"r": times * layer.rank, "lora_alpha": times * layer.alpha, "lora_dropout": 0.0, "bias": "none"}
        return "LORA", {**own, **{name: True for name, on in options.items() if on}}
    if isinstance(layer, VeraLinear):
        own = {"r": int(layer.vera_a.shape[0]), "vera_dropout": 0.0, "d_initial": D_INITIAL, "bias": "none"}
        return "VERA", {**own, "projection_prng_key": 0, "save_projection": True}
    return ("IA3", {}) if isinstance(layer, Ia3Linear) else ("BEFT", {})


def _virtual_config(virtual: VirtualTokens, config: Any) -> dict[str, Any]:
    layers, heads, size = prefix_shape(config)
    own = {"num_virtual_tokens": len(virtual), "num_layers": layers, "num_transformer_submodules": 1}
    if isinstance(virtual, LearnedPrefix):
        width = {"token_dim": heads * size, "num_attention_heads": heads, "encoder_hidden_size": heads * size}
        return {**own, **width, "prefix_projection": False}
    return {**own, "token_dim": config.hidden_size, "num_attention_heads": config.num_attention_heads}


def attach_as_saved(base: Base, config: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Attach the adapter that a configuration describes, if the tensors have its sizes; their values are not loaded
    yet.

    Raises InputError for an unknown type or option, and for tensors that do not belong to this model.
    """
    kind, file = config.get("peft_type"), folder / CONFIG_FILE
    has_head = config.get("modules_to_save") == ["score"]  # a classifier's head, which `model/classifier.py` reads
    unsupported = [
        key for key in _UNSUPPORTED_OPTIONS if config.get(key) and not (has_head and key == "modules_to_save")
    ]
    if unsupported or kind not in ("LORA", *_KEYS_BY_TYPE, SoftPrompt.PEFT_TYPE, LearnedPrefix.PEFT_TYPE):
        raise InputError(
            f"the adapter's type or options are not supported ({visible(', '.join(unsupported) or repr(kind)[:40])})",
            "use one that trimtab or PEFT trained without these options",
            file=file,
        )
    if kind in (SoftPrompt.PEFT_TYPE, LearnedPrefix.PEFT_TYPE):
        _attach_virtual_tokens(
            base, SoftPrompt if kind == SoftPrompt.PEFT_TYPE else LearnedPrefix, config, tensors, folder
        )
        return
    layers = linear_layers(base.model)
    if kind == "IA3":
        layers = ia3_targets(layers)
    keys = _LORA_KEYS if kind == "LORA" else _KEYS_BY_TYPE[str(kind)]
    if config.get("use_dora"):
        keys = (*keys, "lora_magnitude_vector")
    expected = {f"{_PREFIX}{name}.{part}" for name in layers for part in keys}
    expected |= {_VERA_A, _VERA_B} if kind == "VERA" else set()
    if tensors.keys() != expected:
        raise InputError(
            "the adapter's layers are not those of this model", "use the base model it was trained on", file=folder
        )
    wrap(base.model, layers, _layer_maker(base, str(kind), config, tensors, folder))


def _layer_maker(
    base: Base, kind: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path
) -> Callable[[str, nn.Linear], AdapterLayer]:
    """Return the function that builds the configured adapter layer for a layer and its name."""
    if kind == "IA3":
        return lambda name, layer: Ia3Linear(layer, scale_input=name.rpartition(".")[2] in SCALED_INPUTS)
    if kind == "BEFT":
        return lambda _, layer: BitFitLinear(layer)
    file = folder / CONFIG_FILE
    if kind == "VERA":
        _rank(config, tensors, _VERA_A, file)
        vera_a, vera_b = (torch.zeros(tensors[name].shape, device=base.device) for name in (_VERA_A, _VERA_B))
        return lambda _, layer: VeraLinear(layer, vera_a, vera_b)
    rank, alpha, use_rslora = (
        _rank(config, tensors, ".lora_A.", file),
        _alpha(config, file),
        bool(config.get("use_rslora")),
    )
    if config.get("use_dora"):
        if use_rslora:
            raise InputError("use_dora and use_rslora together are not supported", _USE_SAVED_CONFIG, file=file)
        return lambda _, layer: DoraLinear(layer, rank, alpha)
    if (folder / QUANTIZED_FILE).is_file():
        require_bitsandbytes()
        return lambda _, layer: QloraLinear(layer, rank, alpha)
    return lambda _, layer: LoraLinear(layer, rank, alpha, use_rslora=use_rslora)


def _rank(config: Mapping[str, Any], tensors: Mapping[str, Tensor], part: str, file: Path) -> int:
    """Return the configured rank if the tensors have it: the layers are built from it."""
    rank = config.get("r")
    ranks = {value.shape[0] if value.dim() == 2 else 0 for name, value in tensors.items() if part in name}
    if type(rank) is not int or rank < 1 or ranks != {rank}:
        found = ", ".join(map(str, sorted(ranks)[:3])) or "none"
        raise InputError(
            f"r is {_abbreviated(rank)}, and the tensors are of rank {found}", _USE_SAVED_CONFIG, file=file
        )
    return rank


def _alpha(config: Mapping[str, Any], file: Path) -> float:
    alpha = config.get("lora_alpha")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not abs(alpha) <= MAX_ALPHA:  # False for NaN
        raise InputError(f"lora_alpha is {_abbreviated(alpha)}", _USE_SAVED_CONFIG, file=file)
    return float(alpha)


def _abbreviated(value: Any) -> str:
    """Return a value of a foreign file as short text; Python refuses to print integers with too many digits."""
    if isinstance(value, int) and abs(value) >= 10**18:
        return "an integer of 19 digits or more"
    return visible(repr(value)[:40])


def _attach_virtual_tokens(
    base: Base, kind: type[VirtualTokens], config: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path
) -> None:
    count, (layers, heads, size) = config.get("num_virtual_tokens"), prefix_shape(base.model.config)
    width = 2 * layers * heads * size if kind is LearnedPrefix else base.model.config.hidden_size
    if tensors.keys() != {_VIRTUAL} or tensors[_VIRTUAL].dim() != 2 or tensors[_VIRTUAL].shape[1] != width:
        raise InputError(
            "the virtual tokens do not have this model's size", "use the base model they were trained on", file=folder
        )
    stored = tensors[_VIRTUAL].shape[0]
    if type(count) is not int or count < 1 or count != stored:
        problem = f"num_virtual_tokens is {_abbreviated(count)}, and the tensors hold {stored}"
        raise InputError(problem, _USE_SAVED_CONFIG, file=folder / CONFIG_FILE)
    attach_virtual_tokens(base.model, kind(torch.zeros(stored, width, device=base.device)))
