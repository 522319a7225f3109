"""Loads a model folder as a `Base`, and checks that it computes the same logits as transformers' eager attention."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
)
from transformers.utils import logging as transformers_logging

from trimtab.base.errors import InputError, MissingError, TrimtabError
from trimtab.base.files import read_object
from trimtab.base.machine import keep_freed_memory
from trimtab.base.sanitize import one_line, visible
from trimtab.model.architecture import CHOOSE_FAMILY, eager_outputs, first_layers_alone, in_float32, unsupported
from trimtab.model.attention import ATTENTION, AttentionConfig, Layout, PackedSequences
from trimtab.model.device_record import KERNELS, switched_off, usable_device
from trimtab.model.devices import choose_precision
from trimtab.model.kernels.build import allow_kernels
from trimtab.model.model_files import AGAIN, WeightFiles, find_weights, inside, require_possible, weight_files
from trimtab.model.prompt_tuning import virtual_tokens_of
from trimtab.model.threads import limit_threads_to_quota

transformers_logging.disable_progress_bar()


def _keep_to_own_kernels() -> None:
    """Let bitsandbytes fetch no kernel from the hub when it is imported, as it does where the package `kernels` is, nor
    recommend to install that."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    if not (find_spec("bitsandbytes") and find_spec("kernels")):
        return
    kernels: Any = import_module("kernels")
    fetch = kernels.get_kernel

    @wraps(fetch)
    def get_kernel(repo_id: str, *options: Any, **named: Any) -> Any:
        if "bitsandbytes" in repo_id:
            raise ImportError("no kernels of the hub are used")
        return fetch(repo_id, *options, **named)

    kernels.get_kernel = get_kernel


_keep_to_own_kernels()

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt"),
    *("spiece.model", "sentencepiece.bpe.model"),
)
GENERATION_FILE = "generation_config.json"
_CHECKED_TOKENS, _SHORT_WINDOW = 8, 32  # tokens of a sequence of the check, more to cross a short sliding window
_MOST_DIFFERENCE = 1e-3  # of float32 computations; faults of two dozen architectures were 6e-3 at the least
_MOST_ROUNDING = 1e-2  # of the head in bf16, which rounds at 4e-3
_LAYER_NUMBER = re.compile(r"layers\.(\d+)\.")


@dataclass(frozen=True, kw_only=True)
class Base:
    """A pretrained causal model in evaluation mode, all weights frozen, and its tokenizer.

    `original_weights`: pretrained values of weights that are trained since, by parameter name; `detach`
    (`model/adapters/apply.py`) restores them. `activation_checkpointing`: passes with a gradient keep only the
    inputs of the decoder layers, and the backward pass computes the rest again (`model/fast/partial_forward.py`).
    """

    model: Any
    tokenizer: Any
    precision: str
    folder: Path
    original_weights: dict[str, Tensor] = field(default_factory=dict)
    activation_checkpointing: bool = False

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def hidden(self, ids_N: Tensor, positions_N: Tensor, layout: Layout) -> Tensor:
        """Return the last hidden states `hidden_ND` of a flat row of tokens.

        Virtual tokens of the model precede each sequence of `PackedSequences`; other layouts hold what their tokens
        see.
        """
        virtual = virtual_tokens_of(self.model)
        if virtual is not None and isinstance(layout, PackedSequences):
            return virtual.hidden(self.model, ids_N, positions_N, layout)
        return hidden_states(self.model, ids_N, positions_N, layout)

    def logits(self, hidden_MD: Tensor) -> Tensor:
        """Return the logits `logits_MV` of the given hidden states."""
        return head_logits(self.model, hidden_MD)


def hidden_states(model: Any, ids_N: Tensor, positions_N: Tensor, layout: Layout) -> Tensor:
    """Return the last hidden states `hidden_ND` of one flat row; `layout` says which tokens see which."""
    out = model.base_model(
        input_ids=ids_N[None], position_ids=positions_N[None], use_cache=False, layout=layout, return_dict=True
    )
    hidden: Tensor = out.last_hidden_state[0]
    return hidden


def head_logits(model: Any, hidden_MD: Tensor) -> Tensor:
    """Return the logits of the output head, with its soft cap if the architecture has one."""
    logits: Tensor = model.get_output_embeddings()(hidden_MD)
    cap = softcap(model)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def softcap(model: Any) -> float | None:
    """Return the soft cap on logits (Gemma 2), None if there is none."""
    cap = getattr(model.config, "final_logit_softcapping", None)
    return float(cap) if cap else None


def load_base(folder: Path, precision: str = "auto", device: str | None = None) -> Base:
    """Load a model from safetensors weights in `folder`; runs no code from there and initialises no missing weight.

    What the device check (`model/device_record.py`) has switched off on this machine is not used. Raises MissingError
    if there is no model; InputError for weights that are incomplete, damaged or outside of the folder, for a device or
    precision that is switched off, and for an architecture that is not supported: any error of its first pass, and
    outputs that are not those of its eager attention.
    """
    keep_freed_memory()
    limit_threads_to_quota()
    where = device or usable_device()
    raw = raw_config(folder)
    weights = find_weights(folder)
    config = _supported_config(raw, folder, weights)
    _require_size(config, folder, weights)
    tokenizer = _tokenizer(folder)
    chosen_precision = choose_precision(precision, where)
    if where == "cpu":
        allow_kernels(KERNELS not in switched_off(where))
    model = _model(folder, config, DTYPES[chosen_precision])
    model.to(where).eval().requires_grad_(False)
    base = Base(model=model, tokenizer=tokenizer, precision=chosen_precision, folder=folder)
    _require_eager_outputs(base)
    return base


def read_config(folder: Path) -> Any:
    """Return the model's configuration, with everything that points to code removed.

    Raises MissingError without config.json, InputError if it is damaged and for an unknown or unsupported architecture.
    """
    return _supported_config(raw_config(folder), folder, WeightFiles())


def raw_config(folder: Path) -> dict[str, Any]:
    """Return `config.json` as a dict, with everything that points to code removed; raises as `read_config` does."""
    file = folder / "config.json"
    if not file.is_file():
        raise MissingError(f"{folder}: no config.json; name a model folder, a catalogue name or a Hugging Face id")
    special_file = next(
        (path for path in folder.iterdir() if path.exists() and not (path.is_file() or path.is_dir())), None
    )
    if special_file is not None:
        raise InputError("is no regular file", "take it away", file=special_file)
    if (folder / "adapter_config.json").exists():  # transformers would load the model that it names
        raise InputError("an adapter is in the model's folder", "move adapter_config.json away", file=folder)
    plain: dict[str, Any] = _without_code(read_object(inside(folder, file.name)))
    return plain


def build_config(raw: dict[str, Any], folder: Path, weights: WeightFiles) -> Any:
    """Build the configuration of an architecture of transformers, with sizes that `weights` can fill; raises InputError
    otherwise.
    """
    file = folder / "config.json"
    require_possible(raw, weights, file)
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise unsupported(kind, "unknown to transformers", file)
    with wrap_library_errors(file, "cannot be used", AGAIN):
        return AutoConfig.for_model(**raw)


def _supported_config(raw: dict[str, Any], folder: Path, weights: WeightFiles) -> Any:
    config, kind, file = build_config(raw, folder, weights), raw["model_type"], folder / "config.json"
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise unsupported(kind, "no causal language model", file)
    other_layers = {"linear_attention", "mamba", "recurrent", "conv"} & set(getattr(config, "layer_types", None) or ())
    if other_layers or not hasattr(config, "num_attention_heads"):
        layers = ", ".join(sorted(other_layers)) or "no attention"
        raise unsupported(kind, f"not plain text attention: {layers}", file)
    return config


def _require_size(config: Any, folder: Path, weights: WeightFiles) -> None:
    """Raise InputError if the configuration has more parameters than the files can hold; builds the model without
    memory.
    """
    parameters = _count_parameters(config, folder)
    if parameters > weights.most_numbers:
        problem = f"describes {parameters:,} numbers, and the weights have {weights.bytes:,} bytes"
        raise InputError(problem, AGAIN, file=folder / "config.json")


def count_parameters(folder: Path) -> int:
    """Return the number of parameters of the model in `folder`, by its configuration; raises as `read_config` does."""
    return _count_parameters(read_config(folder), folder)


def _count_parameters(config: Any, folder: Path) -> int:
    file = folder / "config.json"
    try:
        with wrap_library_errors(file, "describes no model", AGAIN):
            empty_model = _empty_model(copy.deepcopy(config))
    except InputError:
        with wrap_library_errors(file, _not_supported(config), CHOOSE_FAMILY):
            _empty_model(type(config)())  # where transformers' own settings fail, the file is not at fault
        raise
    return sum(parameter.numel() for parameter in empty_model.parameters())


def _empty_model(config: Any) -> Any:
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)
    except KeyError as error:
        if error.args == (ATTENTION,):  # a table of the family's own attention classes
            raise TypeError("it has attention classes of its own") from error
        raise


def _not_supported(config: Any) -> str:
    return f"architecture {config.model_type!r} is not supported"


def require_tokenizer(folder: Path) -> None:
    """Raise InputError if a model comes without a tokenizer: transformers would build one without a vocabulary."""
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise InputError(
            f"no tokenizer ({', '.join(_TOKENIZER_FILES)})", "save the model's tokenizer beside it", file=folder
        )


def _tokenizer(folder: Path) -> Any:
    require_tokenizer(folder)
    with wrap_library_errors(folder, "the tokenizer cannot be read", AGAIN):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer("a")  # non-numeric settings raise only here
    return tokenizer


def _model(folder: Path, config: Any, dtype: torch.dtype) -> Any:
    """Load the model with every weight from the files: transformers initialises missing ones randomly and only logs it.

    Tensors are read one by one: a memory-mapped file would stay in memory beside the weights.
    """
    with wrap_library_errors(folder, "the weights cannot be loaded", AGAIN), ExitStack() as opened:
        files = [
            opened.enter_context(safe_open(file, framework="pt", backend="pread")) for file in weight_files(folder)
        ]
        model, loading_info = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
            None,
            config=config,
            state_dict={name: file.get_slice(name) for file in files for name in file.keys()},  # noqa: SIM118
            dtype=dtype,
            attn_implementation=ATTENTION,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below
        )
    if (folder / GENERATION_FILE).is_file():
        with wrap_library_errors(folder / GENERATION_FILE, "cannot be used", AGAIN):
            model.generation_config = GenerationConfig.from_pretrained(inside(folder, GENERATION_FILE).parent)
    raise_for_tensors(folder, "lack", loading_info["missing_keys"])
    raise_for_tensors(folder, "have another shape for", (name for name, *_ in loading_info["mismatched_keys"]))
    layers = getattr(config, "num_hidden_layers", None) or 0
    unexpected = ((name, _LAYER_NUMBER.search(name)) for name in loading_info["unexpected_keys"])
    raise_for_tensors(
        folder, "have more layers than config.json:", (name for name, at in unexpected if at and int(at[1]) >= layers)
    )
    return model


def raise_for_tensors(folder: Path, what: str, names: Iterable[str]) -> None:
    """Raise InputError if `names` is not empty: `what` says what is wrong with these tensors."""
    sorted_names = sorted(names)
    if sorted_names:
        shown = ", ".join(visible(name[:80]) for name in sorted_names[:3])
        more = f" and {len(sorted_names) - 3:,} more" if len(sorted_names) > 3 else ""
        raise InputError(f"the weights {what} {shown}{more}", AGAIN, file=folder)


@contextmanager
def wrap_library_errors(file: Path, problem: str, remedy: str) -> Iterator[None]:
    """Context manager: raises any error of a library on a damaged file as a one-line InputError, and silences its
    logging.
    """
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    try:
        yield
    except (TrimtabError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise InputError(f"{problem} ({type(error).__name__}: {one_line(error)})", remedy, file=file) from error
    finally:
        transformers_logging.set_verbosity(verbosity)


def _without_code(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"__float__"} and value["__float__"] in ("Infinity", "-Infinity", "NaN"):
            return float(value["__float__"])  # as transformers writes what JSON has no number for
        return {
            key: _without_code(item)
            for key, item in value.items()
            if key not in ("auto_map", "trust_remote_code", "custom_pipelines", "transformers_weights")
        }
    return [_without_code(item) for item in value] if isinstance(value, list) else value


def _require_eager_outputs(base: Base) -> None:
    """Raise InputError if packed rows do not give what transformers' eager attention gives for each sequence alone.

    An architecture that positions, masks, weighs or scales in a way of its own would otherwise answer wrongly in
    silence. Only another draw of tokens that differs as well counts: rounding can change the choice of experts.
    """
    with wrap_library_errors(base.folder, _not_supported(base.model.config), CHOOSE_FAMILY):
        if all(_differs(base, first_id) for first_id in (1, 2)):
            raise unsupported(
                base.model.config.model_type, "its logits differ from those of eager attention", base.folder
            )


class _RecordedLayers(PackedSequences):
    """Packed sequences that record which layers attend: caches hold keys and values of each layer once."""

    def __init__(self, lengths: list[int]) -> None:
        super().__init__(lengths)
        self.layers: list[int] = []

    def attend(
        self, layer: int, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, config: AttentionConfig
    ) -> Tensor:
        """Attention of packed sequences."""
        self.layers.append(layer)
        return super().attend(layer, query_HND, key_KND, value_KND, config)


@torch.no_grad()
def _differs(base: Base, first_id: int) -> bool:
    """True if two packed sequences through the first layers differ from the reference by more than rounding."""
    config = base.model.config
    window = getattr(config, "sliding_window", None) or 0
    length = max(_CHECKED_TOKENS, window + 2 if window <= _SHORT_WINDOW else 0)
    vocabulary = base.model.get_input_embeddings().num_embeddings
    ids_N = (first_id + 7 * torch.arange(2 * length, device=base.device)) % vocabulary
    layout = _RecordedLayers([length, length])
    with first_layers_alone(base.model), in_float32(base.model):
        hidden_ND = base.hidden(ids_N, layout.positions_N.to(base.device), layout)
        logits_NV = base.logits(hidden_ND).float()
        eager_hidden_SLD, eager_logits_SLV = eager_outputs(base.model, ids_N.view(2, length))
    if layout.layers != list(range(len(layout.layers))):
        raise unsupported(config.model_type, "its layers do not attend once each", base.folder)
    eager_hidden_ND, eager_logits_NV = eager_hidden_SLD.flatten(0, 1), eager_logits_SLV.flatten(0, 1).float()
    if not eager_logits_NV.isfinite().all():
        raise InputError("the weights give logits that are not finite", AGAIN, file=base.folder)
    differences_N = (hidden_ND - eager_hidden_ND).norm(dim=1) / eager_hidden_ND.norm(dim=1)
    most = _MOST_DIFFERENCE if base.model.dtype == torch.float32 else _MOST_ROUNDING
    logits_differ = (logits_NV - eager_logits_NV).abs().max() > most * eager_logits_NV.abs().max()
    return bool(logits_differ) or not bool((differences_N <= _MOST_DIFFERENCE).all())


def decoder_layers(base: Base) -> nn.ModuleList:
    """Return the decoder layers, between which the passes of training and of features begin and end.

    Raises InputError for an architecture that keeps them elsewhere than the Llama family does.
    """
    layers = getattr(base.model.base_model, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        problem = (
            f"architecture {base.model.config.model_type!r} cannot be trained (its layers are not in base_model.layers)"
        )
        raise InputError(problem, CHOOSE_FAMILY, file=base.folder)
    return layers


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Return every linear layer of the decoder by full name: the layers that adapters attach to."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    return {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head
    }
