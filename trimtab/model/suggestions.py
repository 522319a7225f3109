"""Dated list of openly licensed instruct models from 0.1B to 32B, and which of them fit this machine's free memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.base.config import BASE_MODEL
from trimtab.base.machine import cores, memory_use
from trimtab.model.adapters.lora import LoraLinear
from trimtab.model.footprint import GAPS, activation_width, answering_bytes

LISTED = "2025-08"
"""Year and month of the list: later models are not in it, and licences are those of that month."""

# The use of the bundled base model.
BUNDLED_FOR = (
    "first runs and for what you train it on (classes, short answers, a style); it knows few facts and does not reason"
)

# The lines of a task file that take a fetched model.
USE = 'model = "its id" and precision = "bf16" under [base]'

_BF16 = 2
_BATCH, _PROMPT, _READ, _PASS = 16, 1024, 2048, 1024
"""Assumed: questions answered together, tokens of each, tokens read in one pass, tokens of a training pass."""
_LIBRARIES = 500_000_000
"""Bytes of a process with torch and transformers before it holds a model."""
FAST_CORES = 8  # a guess, not measured: from so many on larger models are listed without being asked for
_GPUS = (Path("/dev/nvidiactl"), Path("/dev/kfd"))
"""Files that a GPU driver makes: without one, torch is not imported to ask for a GPU."""


@dataclass(frozen=True, slots=True)
class InstructModel:
    """One model of the list: its Hugging Face id, its licence, the month it was published in, and its shape, in the
    words of transformers."""

    name: str
    licence: str
    published: str
    context: int
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    tie_word_embeddings: bool = True

    @property
    def parameters(self) -> int:
        """Numbers of the matrices; biases and norms are less than a thousandth beside them."""
        heads = 1 if self.tie_word_embeddings else 2
        return self._layers + heads * self.vocab_size * self.hidden_size

    @property
    def answering_gb(self) -> float:
        """Predicted memory of answering a batch in bf16: the libraries, the weights, keys and values, and one pass."""
        asked = answering_bytes(self, _BF16, _BATCH, _PROMPT, _READ)
        return (_LIBRARIES + _BF16 * self.parameters + GAPS * asked) / 1e9

    def training_gb(self, passes: int) -> float:
        """Predicted memory of training with LoRA in bf16: libraries, weights, and what is more of so many passes and
        of a look at dev by merged weights.

        The adapter counts 16 bytes a number: a float32 master, the sum of its gradients and two moments.
        """
        adapter = 16 * (LoraLinear.defaults.rank or 1) * self.num_hidden_layers * sum(map(sum, self._matrices))
        kept = passes * _PASS * self.num_hidden_layers * activation_width(self, fused=False) * _BF16
        look = _BF16 * self._layers + GAPS * answering_bytes(self, _BF16, _BATCH, _PROMPT, _READ)
        return (_LIBRARIES + _BF16 * self.parameters + adapter + max(kept, look)) / 1e9

    @property
    def _matrices(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of the linear layers of one decoder layer."""
        hidden, wide = self.hidden_size, self.intermediate_size
        query, shared = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        return (
            (hidden, query),
            (hidden, shared),
            (hidden, shared),
            (query, hidden),
            (hidden, wide),
            (hidden, wide),
            (wide, hidden),
        )

    @property
    def _layers(self) -> int:
        return self.num_hidden_layers * sum(rows * columns for rows, columns in self._matrices)


_ROWS = (
    # id, licence, published, context, hidden, layers, intermediate, heads, key/value heads, head size, vocabulary, tied
    ("HuggingFaceTB/SmolLM2-135M-Instruct", "Apache-2.0", "2024-11", 8192, 576, 30, 1536, 9, 3, 64, 49152, True),
    ("HuggingFaceTB/SmolLM2-360M-Instruct", "Apache-2.0", "2024-11", 8192, 960, 32, 2560, 15, 5, 64, 49152, True),
    ("Qwen/Qwen2.5-0.5B-Instruct", "Apache-2.0", "2024-09", 32768, 896, 24, 4864, 14, 2, 64, 151936, True),
    ("Qwen/Qwen2.5-1.5B-Instruct", "Apache-2.0", "2024-09", 32768, 1536, 28, 8960, 12, 2, 128, 151936, True),
    ("HuggingFaceTB/SmolLM2-1.7B-Instruct", "Apache-2.0", "2024-11", 8192, 2048, 24, 8192, 32, 32, 64, 49152, True),
    ("microsoft/Phi-4-mini-instruct", "MIT", "2025-02", 131072, 3072, 32, 8192, 24, 8, 128, 200064, True),
    ("Qwen/Qwen3-4B-Instruct-2507", "Apache-2.0", "2025-08", 262144, 2560, 36, 9728, 32, 8, 128, 151936, True),
    ("Qwen/Qwen2.5-7B-Instruct", "Apache-2.0", "2024-09", 32768, 3584, 28, 18944, 28, 4, 128, 152064, False),
    ("microsoft/phi-4", "MIT", "2025-01", 16384, 5120, 40, 17920, 40, 10, 128, 100352, False),
    ("Qwen/Qwen2.5-14B-Instruct", "Apache-2.0", "2024-09", 32768, 5120, 48, 13824, 40, 8, 128, 152064, False),
    ("Qwen/Qwen2.5-32B-Instruct", "Apache-2.0", "2024-09", 32768, 5120, 64, 27648, 40, 8, 128, 152064, False),
)
INSTRUCT = tuple(InstructModel(*row) for row in _ROWS)
"""The list, the smallest first; every model is one that `load_base` takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeMemory:
    """Free bytes where a model would lie, on a GPU or in memory, and how many training passes run there side by
    side."""

    bytes: float
    passes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FittingModel:
    """A model that fits: predicted gigabytes to answer and to train with LoRA, whether there is room to train, and
    the command that fetches it."""

    name: str
    licence: str
    published: str
    parameters: int
    context: int
    answering_gb: float
    training_gb: float
    trains: bool
    command: str


def _has_gpu() -> bool:
    """True where torch finds a GPU; torch is not imported where the machine has no device of one."""
    if not any(path.exists() for path in _GPUS):
        return False
    import torch

    return torch.cuda.is_available()


def is_fast() -> bool:
    """True if a model of a billion parameters or more answers in reasonable time: with a GPU, or FAST_CORES cores."""
    return cores() >= FAST_CORES or _has_gpu()


def free_memory() -> FreeMemory:
    """The free memory of the GPU that torch finds, else of this machine or container."""
    if _has_gpu():
        import torch

        return FreeMemory(bytes=float(torch.cuda.mem_get_info()[0]), passes=1)
    return FreeMemory(bytes=float(memory_use().available), passes=min(4, cores()))


def models_that_fit(free: FreeMemory) -> tuple[FittingModel, ...]:
    """The two largest models of the list that answer in this memory, and the largest that can be trained there; the
    largest first."""
    fits = [_larger(model, free) for model in INSTRUCT if model.answering_gb * 1e9 <= free.bytes]
    fits.sort(key=lambda one: one.parameters, reverse=True)
    named = fits[:2]
    return (*named, *[one for one in fits if one.trains and not any(other.trains for other in named)][:1])


def _larger(model: InstructModel, free: FreeMemory) -> FittingModel:
    training = model.training_gb(free.passes)
    return FittingModel(
        name=model.name,
        licence=model.licence,
        published=model.published,
        parameters=model.parameters,
        context=model.context,
        answering_gb=round(model.answering_gb, 1),
        training_gb=round(training, 1),
        trains=training * 1e9 <= free.bytes,
        command=f"trimtab pull {model.name}",
    )


def size_of(parameters: int) -> str:
    """A number of parameters as models' names have it: 135M, 7.6B."""
    return f"{parameters / 1e6:.0f}M" if parameters < 1e9 else f"{parameters / 1e9:.1f}B"


def advice(larger: Sequence[FittingModel], free_gb: float) -> list[str]:
    """Return what the bundled base model is for, and a line for each larger one that fits: the command that fetches
    it, and what it takes.
    """
    lines = [f"{BASE_MODEL} is for {BUNDLED_FOR}."]
    if larger:
        lines.append(
            f"Larger instruct models that fit {free_gb:.1f} GB free (list of {LISTED}, memory computed for bf16). "
            f"Fetch one; then write {USE} in trimtab.toml:"
        )
    for one in larger:
        trains = "" if one.trains else " (too much here)"
        lines.append(
            f"  {one.command}   {size_of(one.parameters)} parameters, {one.licence}, {one.published}; "
            f"{_BF16 * one.parameters / 1e9:.1f} GB to fetch, {one.answering_gb:.1f} GB to answer, "
            f"{one.training_gb:.1f} GB to train LoRA{trains}"
        )
    return lines
