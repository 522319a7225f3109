"""From a folder to a model that runs flat rows, its tokenizer, and the proof that we read its logits as it does."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from trimtab.base.errors import InputError, MissingError
from trimtab.model.attention import ATTENTION, Layout, Segments
from trimtab.model.precision import choose_precision

transformers_logging.disable_progress_bar()

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class Base:
    """A pretrained causal model in evaluation mode, all weights frozen, and its tokenizer.

    `published` holds, by parameter name, the weights that were let go of since, as they were: `model/adapters.py` puts them back.
    """

    model: Any
    tokenizer: Any
    precision: str
    folder: Path
    published: dict[str, Tensor] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def hidden(self, ids_N: Tensor, positions_N: Tensor, layout: Layout) -> Tensor:
        """Last hidden states `hidden_ND` of a flat row of tokens."""
        return hidden_states(self.model, ids_N, positions_N, layout)

    def logits(self, hidden_MD: Tensor) -> Tensor:
        """Scores over the vocabulary `logits_MV` of the positions given."""
        return head_logits(self.model, hidden_MD)


def hidden_states(model: Any, ids_N: Tensor, positions_N: Tensor, layout: Layout) -> Tensor:
    """Last hidden states `hidden_ND` of one flat row; `layout` says which tokens see which."""
    out = model.base_model(
        input_ids=ids_N[None], position_ids=positions_N[None], use_cache=False, layout=layout, return_dict=True
    )
    hidden: Tensor = out.last_hidden_state[0]
    return hidden


def head_logits(model: Any, hidden_MD: Tensor) -> Tensor:
    """The output head and, where the architecture has one, its soft cap."""
    logits: Tensor = model.get_output_embeddings()(hidden_MD)
    cap = softcap(model)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def softcap(model: Any) -> float | None:
    """The soft cap on logits (Gemma 2), None where there is none."""
    cap = getattr(model.config, "final_logit_softcapping", None)
    return float(cap) if cap else None


def load_base(folder: Path, precision: str = "auto", device: str | None = None) -> Base:
    """Load safetensors weights from `folder`; no code that lies beside them is run.

    Raises MissingError where there is no model, InputError for an architecture that flat rows cannot run.
    """
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    chosen = choose_precision(precision, where)
    config = read_config(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        config=config,
        dtype=DTYPES[chosen],
        attn_implementation=ATTENTION,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    model.to(where).eval().requires_grad_(False)
    base = Base(model=model, tokenizer=tokenizer, precision=chosen, folder=folder)
    _prove(base)
    return base


def read_config(folder: Path) -> Any:
    """The model's configuration with everything that points at code taken out.

    Raises MissingError without config.json, InputError for an unknown or unfit architecture.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise MissingError(f"{folder}: no config.json; name a model folder, a catalogue name or a Hugging Face id")
    raw = _without_code(json.loads(file.read_text(encoding="utf-8")))
    kind = raw.pop("model_type", None)
    try:
        config = AutoConfig.for_model(kind, **raw)
    except ValueError:
        raise InputError(
            f"architecture {kind!r} is not one that transformers ships",
            "choose a Llama, Qwen, Gemma, Mistral or Phi model",
            file=file,
        ) from None
    unfit = {"linear_attention", "mamba", "recurrent", "conv"} & set(getattr(config, "layer_types", None) or ())
    if unfit or not hasattr(config, "num_attention_heads"):
        raise InputError(
            f"architecture {kind!r} is not plain text attention ({', '.join(sorted(unfit)) or 'no attention layers'})",
            "choose a Llama, Qwen, Gemma, Mistral or Phi model",
            file=file,
        )
    return config


def _without_code(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_code(item)
            for key, item in value.items()
            if key not in ("auto_map", "trust_remote_code", "custom_pipelines")
        }
    return [_without_code(item) for item in value] if isinstance(value, list) else value


def _prove(base: Base) -> None:
    """Compare our reading of the last hidden states with the model's own logits on a few tokens.

    An architecture that scales its logits, or does not use the attention interface, would otherwise be silently wrong.
    """
    ids_N = torch.arange(1, 7, device=base.device)
    layout = Segments([len(ids_N)])
    with torch.no_grad():
        positions_N = layout.positions_N.to(base.device)
        ours = base.logits(base.hidden(ids_N, positions_N, layout))
        theirs = base.model(
            input_ids=ids_N[None], position_ids=positions_N[None], use_cache=False, layout=layout
        ).logits[0]
    if not torch.allclose(ours.float(), theirs.float(), atol=1e-3, rtol=1e-3):
        raise InputError(
            f"architecture {base.model.config.model_type!r} computes its logits in a way that is not supported",
            "choose a Llama, Qwen, Gemma, Mistral or Phi model",
            file=base.folder,
        )


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Every linear layer inside the decoder's blocks, by full name: what adapters attach to."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    return {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head
    }
