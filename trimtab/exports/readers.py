"""Load exported models with their consumers (PEFT, transformers; `llama_cpp` has llama.cpp) to verify an export.

They generate greedily, one question at a time. None of our own attention or engine is used here: it would verify
itself. Shapes: T tokens, V vocabulary, L labels.
"""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    DynamicCache,
)

from trimtab.base.common_prefix import common_prefix_length
from trimtab.base.files import read_object
from trimtab.model.adapters.qlora import QUANTIZED_FILE
from trimtab.model.load import DTYPES, wrap_library_errors

Turns = Sequence[Mapping[str, str]]
# Keys of a classifier's configuration that PEFT does not load: the base model's own lacks labels and may pad with the
# scored token.
CLASSIFIER_KEYS = ("id2label", "label2id", "pad_token_id")
AGAIN = "export it again; if the problem remains, report it"
LIKELIEST = 50  # tokens whose log-probabilities are kept at each step


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAnswer:
    """A greedy answer: its text, its tokens, and the log-probabilities of the likeliest tokens at each step.

    A chosen label is an answer of one step, whose tokens are the numbers of the labels.
    """

    text: str
    ids: tuple[int, ...]
    log_probabilities: tuple[Mapping[int, float], ...] = ()

    def gap(self, other: Sequence[int]) -> float:
        """Return by how many nats this answer's token beat `other`'s where they first differ; at least so many if
        that one is not among the likeliest; infinite if unknown, as where one answer ends.
        """
        place = common_prefix_length(self.ids, tuple(other))
        step = self.log_probabilities[place] if place < len(self.log_probabilities) else {}
        if not step or place >= len(other):
            return float("inf")
        return step[self.ids[place]] - step.get(other[place], min(step.values()))


class ExportReader(ABC):
    """A program that has loaded an exported model: its name and version, prompt encoding and greedy answers."""

    name: str

    @abstractmethod
    def prompt(self, turns: Turns) -> tuple[int, ...]:
        """Return token ids of turns by the exported tokenizer and chat template."""

    @abstractmethod
    def generate(self, ids: Sequence[int], most: int, stops: Sequence[int]) -> ReadAnswer:
        """Return a greedy answer of at most `most` tokens."""

    @abstractmethod
    def label_log_probabilities(self, ids: Sequence[int], labels: Sequence[Sequence[int]]) -> list[float]:
        """Return the summed log-probability of each label's tokens after a prompt."""


class TransformersReader(ExportReader):
    """transformers, with PEFT if there is an adapter."""

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        self.virtual = getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False)

    def prompt(self, turns: Turns) -> tuple[int, ...]:
        """Encode turns by `apply_chat_template`."""
        encoded = self.tokenizer.apply_chat_template(list(turns), add_generation_prompt=True, return_dict=True)
        return tuple(encoded["input_ids"])

    @torch.inference_mode()
    def generate(self, ids: Sequence[int], most: int, stops: Sequence[int]) -> ReadAnswer:
        """Answer by `generate`; with virtual tokens, token by token without a cache.

        PEFT's own `generate` loses count of the virtual tokens in its cache (seen with peft 0.21.2 on transformers
        5.24.0).
        """
        if self.virtual:
            return self._stepwise(ids, most, stops)
        input_ids = self._tensor(ids)
        with _silence_libraries():
            out = self.model.generate(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                repetition_penalty=1.0,
                max_new_tokens=most,
                eos_token_id=sorted(stops),
                pad_token_id=min(stops),
                output_logits=True,
                return_dict_in_generate=True,
            )
        sequence = out.sequences[0].tolist()
        new = tuple(sequence[len(sequence) - len(out.logits) :])
        logits_TV = torch.stack([step[0] for step in out.logits]).float().log_softmax(-1)
        return self._answer(new, logits_TV)

    def _stepwise(self, ids: Sequence[int], most: int, stops: Sequence[int]) -> ReadAnswer:
        new: list[int] = []
        steps: list[Tensor] = []
        while len(new) < most and (not new or new[-1] not in stops):
            steps.append(self._logits([*ids, *new])[-1])
            new.append(int(steps[-1].argmax()))
        return self._answer(tuple(new), torch.stack(steps).float().log_softmax(-1))

    def _logits(self, ids: Sequence[int]) -> Tensor:
        """Return the logits of all tokens `[T, V]`, without a cache."""
        with _silence_libraries():
            logits_TV: Tensor = self.model(input_ids=self._tensor(ids), use_cache=False).logits[0]
        return logits_TV

    def _answer(self, new: tuple[int, ...], logits_TV: Tensor) -> ReadAnswer:
        text = self.tokenizer.decode(new, skip_special_tokens=True).strip()
        values, tokens = logits_TV.topk(min(LIKELIEST, logits_TV.shape[-1]))
        steps = zip(tokens.tolist(), values.tolist(), strict=True)
        return ReadAnswer(text=text, ids=new, log_probabilities=tuple(dict(zip(*step, strict=True)) for step in steps))

    @torch.inference_mode()
    def label_log_probabilities(self, ids: Sequence[int], labels: Sequence[Sequence[int]]) -> list[float]:
        """Return each label's sum; the prompt is computed once, with virtual tokens once per label."""
        longest = max(map(len, labels))
        if self.virtual:
            rows = (self._logits([*ids, *label]) for label in labels)
            logits = [row[-len(label) - 1 : -1] for row, label in zip(rows, labels, strict=True)]
            return [
                float(row.float().log_softmax(-1)[range(len(label)), list(label)].sum())
                for row, label in zip(logits, labels, strict=True)
            ]
        plain = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        named = "cache" if "cache" in inspect.signature(plain.forward).parameters else "past_key_values"
        cache = DynamicCache(config=plain.config)
        first_V = (
            plain(input_ids=self._tensor(ids), use_cache=True, **{named: cache}).logits[0, -1].float().log_softmax(-1)
        )
        cache.batch_repeat_interleave(len(labels))
        labels_LT = self._tensor([[*label, *[0] * (longest - len(label))] for label in labels])
        later_LTV = plain(input_ids=labels_LT, use_cache=True, **{named: cache}).logits.float().log_softmax(-1)
        return [
            float(first_V[label[0]] + sum(later_LTV[row, at, token] for at, token in enumerate(label[1:])))
            for row, label in enumerate(labels)
        ]

    @torch.inference_mode()
    def class_logits(self, ids: Sequence[int]) -> dict[str, float]:
        """Return the score of each label by a sequence classifier."""
        input_ids = self._tensor(ids)
        logits = self.model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids)).logits[0].float()
        names = self.model.config.id2label
        return {names[number]: float(value) for number, value in enumerate(logits)}

    def _tensor(self, ids: Any) -> Tensor:
        rows = ids if ids and isinstance(ids[0], list) else [list(ids)]
        return torch.tensor(rows, device=self.model.device)


@contextmanager
def _silence_libraries() -> Iterator[None]:
    """Context manager: hides warnings and progress bars of libraries; errors are raised."""
    with warnings.catch_warnings(), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        yield


def has_peft() -> bool:
    """True if PEFT is installed."""
    return importlib.util.find_spec("peft") is not None


def load_back(
    folder: Path,
    format: Literal["peft", "merged", "gguf"],
    *,
    precision: str,
    head: bool = False,
    gguf_file: str | None = None,
) -> TransformersReader:
    """Load the export in `folder` by transformers in this precision; an adapter by PEFT, which finds the base model
    itself.

    Raises InputError if the consumer cannot read it.
    """
    common: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    kind = AutoModelForSequenceClassification if head else AutoModelForCausalLM
    name = f"transformers {version('transformers')}"
    with wrap_library_errors(folder, f"{name} cannot load it", AGAIN), _silence_libraries():
        if format == "gguf":
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf_file, **common)
            model = kind.from_pretrained(folder, gguf_file=gguf_file, dtype=DTYPES[precision], **common)
            return TransformersReader(model, tokenizer, f"{name} in {precision}")
        tokenizer = AutoTokenizer.from_pretrained(folder, **common)
        if format == "merged":
            model = kind.from_pretrained(folder, dtype=DTYPES[precision], use_safetensors=True, **common)
            return TransformersReader(model, tokenizer, name)
        from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification

        own = AutoPeftModelForSequenceClassification if head else AutoPeftModelForCausalLM
        if head:
            config = AutoConfig.from_pretrained(folder, **common)
            common |= {name: getattr(config, name) for name in CLASSIFIER_KEYS}
        if (folder / QUANTIZED_FILE).is_file():
            common["quantization_config"] = BitsAndBytesConfig(**read_object(folder / QUANTIZED_FILE))
        model = own.from_pretrained(folder, dtype=DTYPES[precision], use_safetensors=True, **common)
        return TransformersReader(model, tokenizer, f"peft {version('peft')} on {name}")
