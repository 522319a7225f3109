"""Export to Hugging Face formats: a PEFT adapter, or a merged transformers model in sharded safetensors.

The exported weights are the measured ones: adapters are merged as for inference, rounded once to the base's dtype.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file
from torch import Tensor

from trimtab.base.errors import InputError
from trimtab.base.files import read_object, write_json
from trimtab.model.adapters.apply import ADAPTER_FILE, HEAD_KEY
from trimtab.model.adapters.base import adapter_layers
from trimtab.model.adapters.qlora import QUANTIZED_FILE
from trimtab.model.adapters.saved_adapter import CONFIG_FILE
from trimtab.model.classifier import LABELS_FILE, ClassificationHead
from trimtab.model.load import GENERATION_FILE, Base
from trimtab.model.prompt_tuning import virtual_tokens_of

SHARD = "5GB"
CONFIG = "config.json"


def merged_weights(base: Base) -> dict[str, Tensor]:
    """Return the merged weights by transformers' names, each tied one once; for use inside `merged`.

    Raises InputError for virtual tokens: no weight of the model holds them.
    """
    model = base.model
    if virtual_tokens_of(model) is not None:
        raise InputError(
            "virtual tokens precede the prompt and cannot be merged into the weights",
            "export it as peft",
            field="format",
        )
    adapted = tuple(f"{name}." for name in adapter_layers(model))
    weights = {}
    for name, value in _saved_tensors(model):
        owner = next((prefix for prefix in adapted if name.startswith(prefix)), None)
        own = name if owner is None else owner + name.removeprefix(owner).removeprefix("base.")
        if owner is None or name.startswith(f"{owner}base."):
            weights[own] = value.detach()
    return weights


def _saved_tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield what a checkpoint of the model holds by name: its parameters, and buffers such as the bias of a router."""
    yield from model.named_parameters()
    saved = model.state_dict().keys()
    yield from ((name, value) for name, value in model.named_buffers() if name in saved)


def merged_config(base: Base, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return `config.json` of the merged model.

    Raises InputError if the weights hold biases that the architecture has no name for: loading would silently drop
    them.
    """
    config = base.model.config
    settings = {
        **config.to_diff_dict(),
        "architectures": [type(base.model).__name__],
        "dtype": str(base.model.dtype).removeprefix("torch."),
    }
    settings.pop("_name_or_path", None)
    settings.pop("_model_name_or_path", None)
    settings |= _biased(config, weights)
    _require_same_names(type(config), settings, type(base.model), weights)
    return settings


def _biased(config: Any, weights: Mapping[str, Tensor]) -> dict[str, bool]:
    """Return Llama's configuration switches for the biases that were trained."""
    found = {
        "attention_bias": any(".self_attn." in name and name.endswith(".bias") for name in weights),
        "mlp_bias": any(".mlp." in name and name.endswith(".bias") for name in weights),
    }
    return {name: True for name, on in found.items() if on and hasattr(config, name)}


def _require_same_names(
    kind: Any, settings: Mapping[str, Any], model_class: Any, weights: Mapping[str, Tensor]
) -> None:
    with torch.device("meta"):
        described = model_class._from_config(kind.from_dict(dict(settings)))
    wanted = {name for name, _ in _saved_tensors(described)}
    odd = sorted(wanted ^ weights.keys())
    if odd:
        raise InputError(
            f"architecture {settings.get('model_type')!r} of transformers has no parameter for what was trained "
            f"({odd[0]})",
            "export it as peft",
            field="format",
        )


def write_merged(
    base: Base, folder: Path, *, stops: Sequence[int], template: str, head: ClassificationHead | None = None
) -> None:
    """Write the merged model, for use inside `merged`, with its tokenizer and `template`; greedy answers end at
    `stops`.

    With a head it is written as a sequence classifier; `write_classifier_config` completes its configuration.
    """
    weights = merged_weights(base)
    settings = merged_config(base, weights)
    if head is not None:
        body = f"{base.model.base_model_prefix}."
        weights = {name: value for name, value in weights.items() if name.startswith(body)}
        weights[HEAD_KEY] = head.weight.detach()
    folder.mkdir(parents=True, exist_ok=True)
    save_torch_state_dict(
        {name: value.cpu().contiguous() for name, value in weights.items()}, folder, max_shard_size=SHARD
    )
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)  # safetensors writes files that only their owner can read
    write_json(folder / CONFIG, settings)
    if head is None:
        begin = base.model.config.bos_token_id
        greedy = {"do_sample": False, "eos_token_id": sorted(stops), "pad_token_id": _padding(base, stops)}
        write_json(folder / GENERATION_FILE, {**greedy, **({} if begin is None else {"bos_token_id": begin})})
    write_tokenizer(base, folder, template)


def write_classifier_config(run: Path, folder: Path) -> None:
    """Copy labels, padding token and class of the run's classifier into the configuration in `folder`."""
    own = read_object(run / LABELS_FILE, "id2label")
    kept = {name: own[name] for name in ("architectures", "id2label", "label2id", "pad_token_id") if name in own}
    write_json(folder / CONFIG, {**read_object(folder / CONFIG), **kept})


def write_adapter(run: Path, folder: Path, *, base: Base, name: str, revision: str | None, template: str) -> None:
    """Write the adapter of a run as PEFT and vLLM load it, with the base model's public name and its tokenizer.

    Raises InputError if the run holds full weights and no adapter.
    """
    if not (run / ADAPTER_FILE).is_file():
        raise InputError(
            "its training changed the model's own weights, so there is no adapter",
            "export it as merged",
            field="format",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for file in (ADAPTER_FILE, QUANTIZED_FILE, LABELS_FILE):
        if (run / file).is_file():
            shutil.copyfile(run / file, folder / file)
    shutil.copyfile(run / CONFIG_FILE, folder / CONFIG_FILE)
    set_base_name(folder, name, revision)
    write_tokenizer(base, folder, template)


def set_base_name(folder: Path, name: str, revision: str | None) -> None:
    """Set the base model's public name in an adapter's configuration, if there is one; as saved it names a local
    folder.
    """
    if (folder / CONFIG_FILE).is_file():
        settings = read_object(folder / CONFIG_FILE)
        write_json(folder / CONFIG_FILE, {**settings, "base_model_name_or_path": name, "revision": revision})


def write_tokenizer(base: Base, folder: Path, template: str) -> None:
    """Write the tokenizer with the chat template that prompts were built with."""
    tokenizer = base.tokenizer
    before = tokenizer.chat_template
    try:
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)
    finally:
        tokenizer.chat_template = before


def adapter_kind(run: Path) -> str:
    """Return PEFT's type of a saved adapter; empty if the run holds full weights, or nothing."""
    file = run / CONFIG_FILE
    return str(read_object(file).get("peft_type", "")) if file.is_file() else ""


def adapter_rank(run: Path) -> int | None:
    """Return the rank of a saved adapter, None if it has none."""
    rank = max(
        (value.shape[0] for name, value in load_file(run / ADAPTER_FILE).items() if ".lora_A." in name), default=0
    )
    return rank or None


def _padding(base: Base, stops: Sequence[int]) -> int:
    padding = base.tokenizer.pad_token_id
    return int(min(stops) if padding is None else padding)
