"""Shared code of the scripts of the peer: the clock, the settings that are best on a CPU, the adapter, and the figures
of a run."""

from __future__ import annotations

import resource
import time
from typing import Any

import peft
import torch
import transformers
import trl
from peft import LoraConfig
from transformers import AutoModelForCausalLM, TrainerCallback

STOCK: dict[str, Any] = {  # all else as the peer has it by itself
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "logging_strategy": "no",
    "disable_tqdm": True,
    "seed": 0,
}
CPU: dict[str, Any] = {**STOCK, "bf16": True, "gradient_checkpointing": False, "max_length": None}
SFT: dict[str, Any] = {
    **CPU,
    "train_sampling_strategy": "group_by_length",
    "completion_only_loss": True,
    "packing": False,
}


BEST_LOADED: dict[str, Any] = {"dtype": torch.bfloat16, "attn_implementation": "sdpa"}


class Clock(TrainerCallback):
    """Starts after the warm-up steps and stops with the last."""

    def __init__(self, warmup: int) -> None:
        self.warmup, self.began, self.seconds = warmup, 0.0, 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        now = time.perf_counter()
        if state.global_step == self.warmup:
            self.began = now
        self.seconds = now - self.began


class Counting:
    """Before a trainer's class: counts the tokens that are not padding, step by step."""

    tokens: list[int]

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        self.tokens.append(int(inputs["attention_mask"].sum()))
        return super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]


def model_of(folder: str, layers: int | None = None, *, stock: bool = False) -> Any:
    """The base model in bf16, or as it is loaded where nothing is said; with `layers` only so many of the last ones
    and the last norm move."""
    model = AutoModelForCausalLM.from_pretrained(folder, **({} if stock else BEST_LOADED))
    if layers:
        model.requires_grad_(False)
        for part in (*model.model.layers[-layers:], model.model.norm):
            part.requires_grad_(True)
    return model


def lora(rank: int, task: str = "CAUSAL_LM") -> LoraConfig:
    """The adapter that both sides train."""
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type=task)


def versions() -> dict[str, str]:
    """Return the version of each library that ran."""
    return {one.__name__: one.__version__ for one in (trl, peft, transformers, torch)}


def timed(trainer: Any, clock: Clock, model: Any) -> dict[str, Any]:
    """Train, and what is told of it."""
    trainer.tokens = []
    trainer.train()
    tokens = sum(trainer.tokens[clock.warmup :])
    return {
        "tokens": tokens,
        "seconds": clock.seconds,
        "tokens_per_second": tokens / clock.seconds,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "dtypes": sorted({str(value.dtype).removeprefix("torch.") for value in model.parameters()}),
        "gradient_checkpointing": bool(trainer.args.gradient_checkpointing),
        "trainable": sum(value.numel() for value in model.parameters() if value.requires_grad),
        "versions": versions(),
    }
