"""Predicts training time from a few measured steps, and the memory of training and inference from the configuration and
those steps.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import psutil
import torch
from torch import nn

from trimtab.base.machine import MemoryPeak
from trimtab.model.adapters.apply import trainable_parameters
from trimtab.model.adapters.base import adapter_layers
from trimtab.model.fast.packed_weights import packed_bytes
from trimtab.model.fast.partial_forward import first_trainable_layer
from trimtab.model.footprint import answering_bytes
from trimtab.model.load import Base
from trimtab.training.activation_memory import activation_budget, activation_bytes
from trimtab.training.batch import MICRO_TOKENS, Batch, TrainingRow, batch_tokens
from trimtab.training.optim import Optimizer, no_retained_grad
from trimtab.training.parallel import map_microbatches, parallel_lanes
from trimtab.training.sft import SupervisedObjective

TIMED_PARAMETERS = 5_000_000  # parameters over which an optimizer step is timed


@dataclass(frozen=True, kw_only=True)
class TrainingRate:
    """Measured speed of forward and backward passes, in tokens (prompt and answer) per second.

    `frozen_seconds`: further seconds per token of the frozen layers, spent once if their outputs are cached, else in
    every epoch. `pass_tokens`: tokens of the largest passes that run in parallel, shared prefixes counted once.
    `steps_mb`: memory that the measured steps took, beyond what stays allocated.
    """

    tokens_per_second: float
    frozen_seconds: float = 0.0
    pass_tokens: int = MICRO_TOKENS
    steps_mb: float = 0.0

    def caching_seconds(self, tokens: float) -> float:
        """Predicted seconds to compute the cached activations of `tokens` tokens."""
        return tokens * self.frozen_seconds

    def epoch_seconds(self, tokens: float, *, cached: bool) -> float:
        """Predicted seconds of an epoch over `tokens` tokens; `cached`: activations are cached, so the frozen layers do
        not count.
        """
        return tokens / self.tokens_per_second + (0.0 if cached else self.caching_seconds(tokens))


def measure_rate(base: Base, rows: Sequence[TrainingRow], batch: int, seconds: float = 2.0) -> TrainingRate:
    """Measure real steps of `batch` rows for about `seconds` without changing a weight; the first, cold ones do not
    count.

    Steps follow one another as in training: fewer rows share a prefix than in a pass over all of them, and one repeated
    step would stay in cache and be too fast. If activations of frozen layers are cached, they have been computed
    before.
    """
    with MemoryPeak() as memory:
        rate = _measured_rate(base, rows, batch, seconds)
    return replace(rate, steps_mb=memory.above_present())


def _measured_rate(base: Base, rows: Sequence[TrainingRow], batch: int, seconds: float) -> TrainingRate:
    step_seconds = _optimizer_step_seconds(base)
    uncached = SupervisedObjective(rows, batch=batch, seed=0, cache_activations=False)
    if not first_trainable_layer(base.model):
        return _measured(base, uncached, step_seconds, seconds)
    with_cache = _measured(base, SupervisedObjective(rows, batch=batch, seed=0), step_seconds, seconds / 2)
    without_cache = _measured(base, uncached, step_seconds, seconds / 2)
    return replace(
        with_cache, frozen_seconds=max(0.0, 1 / without_cache.tokens_per_second - 1 / with_cache.tokens_per_second)
    )


def _measured(base: Base, objective: SupervisedObjective, step_seconds: float, seconds: float) -> TrainingRate:
    """Return the rate of an objective's steps, with `step_seconds` seconds of the optimizer each; the first epoch fills
    its cache.
    """
    warmup_steps = objective.steps_per_epoch if objective.activation_cache else 1
    trainable = list(trainable_parameters(base.model).values())
    budget = activation_budget(base, trained_bytes(base))

    def run_batch(batch: Batch) -> None:
        loss = objective.loss(budget.base_for(base, batch_tokens(batch)), batch)
        torch.autograd.grad(loss.value, trainable, allow_unused=True)

    tokens, largest, step, began = 0, 0, 0, time.perf_counter()
    with no_retained_grad(trainable):  # as in training
        while step <= warmup_steps or time.perf_counter() - began < seconds:
            if step == warmup_steps:
                tokens, began = 0, time.perf_counter()
            batches = objective.batches(step)
            for _ in map_microbatches(run_batch, batches, size=batch_tokens):
                pass
            tokens += sum(batch.row_tokens for batch in batches)
            largest = max(largest, sum(sorted(len(batch.ids_N) for batch in batches)[-parallel_lanes() :]))
            step += 1
    taken = time.perf_counter() - began + (step - warmup_steps) * step_seconds
    return TrainingRate(tokens_per_second=tokens / taken, pass_tokens=largest)


def _optimizer_step_seconds(base: Base) -> float:
    """Return the seconds of one optimizer step, extrapolated from some parameters: moments of all might not fit in
    memory here.
    """
    trainable = trainable_parameters(base.model)
    counted, sample = 0, {}
    for name, parameter in trainable.items():
        sample[name] = nn.Parameter(torch.zeros_like(parameter))
        counted += parameter.numel()
        if counted > TIMED_PARAMETERS:
            break
    optimizer = Optimizer(sample)
    for _ in range(2):  # the first allocates the moments
        total = torch.stack([parameter.sum() for parameter in sample.values()]).sum()
        began = time.perf_counter()
        optimizer.backward(total, 0)
        optimizer.clip_gradients()
        optimizer.step(0.0)
        taken = time.perf_counter() - began
    optimizer.release()
    return taken * sum(parameter.numel() for parameter in trainable.values()) / max(counted, 1)


def memory_mb(
    base: Base,
    *,
    pass_tokens: int = MICRO_TOKENS,
    measured_mb: float = 0.0,
    cached_bytes: int = 0,
    dev_eval_mb: float = 0.0,
    rollout_mb: float = 0.0,
    answer_mb: float = 0.0,
) -> float:
    """Return the predicted peak memory of a training run in MB.

    The sum of this process's memory now, trained parameters with optimizer state (16 bytes each: float32 master,
    gradient sum and two moments), and activations of `pass_tokens` tokens in all lanes (`activation_bytes`), with
    activation checkpointing if they would not fit.

    `measured_mb`: measured memory of steps, used if it is higher. `cached_bytes`: bytes of cached activations
    (`cache_bytes`). Memory of inference (`inference_mb`, with merged weights beside the frozen ones) counts if it is
    higher: of a dev evaluation (`dev_eval_mb`), and after training (`answer_mb`). Memory for sampling rollouts
    (`rollout_mb`) is not returned before their passes, which have to fit beside it.
    """
    parameter_bytes = trained_bytes(base)
    checkpointed = pass_tokens / parallel_lanes() > activation_budget(base, parameter_bytes + cached_bytes).tokens
    activations = activation_bytes(base, pass_tokens, checkpointed=checkpointed)
    merged = sum(layer.base.weight.nbytes for layer in adapter_layers(base.model).values())
    dev_eval_peak, rollout_peak, answer_peak = (
        merged + one * 1e6 if one else 0.0 for one in (dev_eval_mb, rollout_mb, answer_mb)
    )
    highest = max(
        parameter_bytes + cached_bytes + max(activations + rollout_peak, measured_mb * 1e6, dev_eval_peak), answer_peak
    )
    return float((psutil.Process().memory_info().rss + highest) / 1e6)


def trained_bytes(base: Base) -> int:
    """Return the bytes of the float32 masters, gradients and moments of all trained parameters, 16 for each."""
    return 16 * sum(one.numel() for one in trainable_parameters(base.model).values())


def inference_mb(base: Base, slots: int, tokens: int, reading: int) -> float:
    """Return the predicted memory in MB of inference beyond the model: packed weights, KV cache, and one pass.

    `slots` sequences of `tokens` tokens; the pass reads `reading` tokens. Computed from the configuration
    (`model/footprint.py`).
    """
    size = 2 if next(base.model.parameters()).dtype == torch.bfloat16 else 4
    return (packed_bytes(base) + answering_bytes(base.model.config, size, slots, tokens, reading)) / 1e6
