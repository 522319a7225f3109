"""Computes what a study computes, on tiny random models: on a device, and by plain eager float32 on the processor.

Each part returns how far the two are apart: the largest difference, as a share of the largest value. The weights are
numbers that bfloat16 holds exactly, so that both sides have the same. Nothing is downloaded. Shapes: N tokens of a flat
row, V vocabulary, T tokens of one sequence.
"""

from __future__ import annotations

import copy
import math
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from trimtab.base.records import Encoded
from trimtab.base.sanitize import one_line
from trimtab.inference.engine import Engine, Request
from trimtab.inference.label_scoring import LabelRequest, label_probabilities, score_labels
from trimtab.inference.label_trie import TOLERANCE as SKIPPED
from trimtab.model.adapters.apply import add_lora, trainable_parameters, unfreeze
from trimtab.model.attention import ATTENTION, PackedSequences
from trimtab.model.device_record import CheckRow
from trimtab.model.fast.packed_weights import packed
from trimtab.model.fast.patch import accelerate
from trimtab.model.kernels.build import kernels_off, library
from trimtab.model.load import DTYPES, Base, linear_layers
from trimtab.training.batch import TrainingRow
from trimtab.training.loop import LoopSettings, TrainingJob, train_model
from trimtab.training.optim import BETAS, EPSILON, Optimizer
from trimtab.training.sft import SupervisedObjective

VOCABULARY = 192
# A family whose layers are a kernel each; one with norms over heads and windows, where kernels are parts of layers; and
# one with soft caps. Widths and head size are multiples of 64, which kernels take.
_WINDOWS = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "qwen3": {**_WINDOWS, "use_sliding_window": True},
    "gemma2": {
        **_WINDOWS,
        **{"query_pre_attn_scalar": 64, "attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0},
    },
}
_SIZES = {
    **{"vocab_size": VOCABULARY, "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 512},
    **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": False},
}
RANK, ALPHA, LEARNING_RATE = 32, 32.0, 1e-3  # the kernels of layers take ranks that are multiples of 32
PROMPT_TOKENS = (7, 170, 33, 150, 3, 158)
SHARED_TOKENS = 136  # that the longer prompts begin with: more than two blocks of a cache
NEW_TOKENS = 12
LABELS = tuple((first, second, last, 2) for first in (5, 6, 7) for second in (8, 9) for last in (10, 11, 12))
# Shares of the largest value, about three times what processors were seen to differ by: bfloat16 keeps eight bits, and
# the roundings of a model add up.
TOLERANCES = {"fp32": 1e-4, "bf16": 0.1}
MOST_OF_CHANCE = 4.0  # times the difference of two runs that a third may differ by, where sums have no fixed order
OPTIMIZER_TOLERANCE = 2e-3  # in every precision, as masters and moments are float32; the weight is rounded to bfloat16


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A way to compute: the device, the precision of the weights, and whether the C kernels take part."""

    device: str
    precision: str
    kernels: bool


class Reference:
    """A family's tiny model by plain eager float32 on the processor, and the results that every variant must give."""

    def __init__(self, family: str) -> None:
        self.config = AutoConfig.for_model(family, **_SIZES, **FAMILIES[family])
        self.model = _model(self.config, torch.float32, "eager")
        generator = torch.Generator().manual_seed(0)
        for name, value in self.model.named_parameters():
            mean = float("norm" in name and family != "gemma2")  # Gemma adds one itself
            noise = torch.randn(value.shape, generator=generator)
            value.data = (mean + (0.2 if value.dim() == 1 else 0.1) * noise).bfloat16().float()
        draw = random.Random(0)
        shared = [draw.randrange(3, VOCABULARY) for _ in range(SHARED_TOKENS)]
        lines = [[draw.randrange(3, VOCABULARY) for _ in range(length)] for length in PROMPT_TOKENS]
        self.prompts = [tuple(shared + line[SHARED_TOKENS:] if len(line) > SHARED_TOKENS else line) for line in lines]
        self.rows = [
            TrainingRow(encoded=Encoded(ids=(*ids, *answer), trained=(False,) * len(ids) + (True,) * len(answer)))
            for ids in self.prompts
            for answer in [[draw.randrange(3, VOCABULARY) for _ in range(6)]]
        ]

    def base(self, variant: Variant) -> Base:
        """Return the model as a session has it, on the variant's device."""
        model = _model(self.config, DTYPES[variant.precision], ATTENTION)
        model.load_state_dict(self.model.state_dict())
        model.to(variant.device).eval().requires_grad_(False)
        return accelerate(Base(model=model, tokenizer=None, precision=variant.precision, folder=Path()))

    def tuned_base(self, variant: Variant) -> Base:
        """Return the model with LoRA on every linear layer, both factors away from zero."""
        base = self.base(variant)
        add_lora(base, RANK, ALPHA, seed=0)
        with torch.no_grad():
            for name, value in trainable_parameters(base.model).items():
                value.copy_(self.factors[name])
        return base

    @cached_property
    def factors(self) -> dict[str, Tensor]:
        """LoRA's factors by name."""
        base = self.base(Variant(device="cpu", precision="fp32", kernels=False))
        add_lora(base, RANK, ALPHA, seed=0)
        generator = torch.Generator().manual_seed(1)
        return {
            name: (0.05 * torch.randn(value.shape, generator=generator)).bfloat16().float()
            for name, value in trainable_parameters(base.model).items()
        }

    @torch.no_grad()
    def logits_of(self, *sequences: Sequence[int]) -> Tensor:
        """Return the logits `[sequences, T, V]` of sequences of one length."""
        logits: Tensor = self.model(input_ids=torch.tensor(sequences), use_cache=False).logits
        return logits

    @cached_property
    def prompt_logits(self) -> list[Tensor]:
        """The logits `[T, V]` of each prompt."""
        return [self.logits_of(ids)[0] for ids in self.prompts]

    @cached_property
    def label_sums(self) -> Tensor:
        """The summed log-probability of every label after every prompt, `[prompts, labels]`."""
        labels_LT1 = torch.tensor(LABELS)[:, :, None]
        return torch.stack(
            [
                self.logits_of(*((*ids, *label) for label in LABELS))[:, len(ids) - 1 : -1]
                .log_softmax(-1)
                .gather(2, labels_LT1)
                .sum((1, 2))
                for ids in self.prompts
            ]
        )

    @cached_property
    def full_step(self) -> tuple[float, dict[str, Tensor]]:
        """The mean loss of all rows, and its gradient with respect to each weight."""
        weights = {name: value.detach().clone().requires_grad_() for name, value in self.model.named_parameters()}
        return self._step(weights, weights)

    @cached_property
    def lora_step(self) -> tuple[float, dict[str, Tensor]]:
        """The mean loss of all rows, and its gradient with respect to each of LoRA's factors."""
        factors = {name: value.clone().requires_grad_() for name, value in self.factors.items()}
        weights = dict(self.model.named_parameters())
        for layer in linear_layers(self.model):
            a_RI, b_OR = (factors[f"{layer}.lora_{side}"] for side in "ab")
            weights[f"{layer}.weight"] = weights[f"{layer}.weight"].detach() + ALPHA / RANK * b_OR @ a_RI
        return self._step(weights, factors)

    def _step(self, weights: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
        """Return the mean loss of all rows with these weights, and its gradient with respect to what is trained."""
        losses = []
        for row in self.rows:
            named = {"input_ids": torch.tensor([row.encoded.ids]), "use_cache": False}
            logits_TV = torch.func.functional_call(self.model, dict(weights), kwargs=named).logits[0]
            at, labels = zip(*row.targets, strict=True)
            losses.append(nn.functional.cross_entropy(logits_TV[list(at)], torch.tensor(labels), reduction="sum"))
        loss = torch.stack(losses).sum() / sum(row.trained_tokens for row in self.rows)
        gradients = torch.autograd.grad(loss, list(trained.values()))
        return float(loss.detach()), dict(zip(trained, gradients, strict=True))


def _model(config: Any, dtype: torch.dtype, attention: str) -> Any:
    with torch.random.fork_rng(devices=[]):
        model: Any = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype, attn_implementation=attention)
    return model.eval()


def difference(ours: Tensor, reference: Tensor) -> float:
    """Return the largest difference as a share of the reference's largest value; infinity for another form or NaN."""
    ours, reference = ours.detach().float().cpu(), reference.detach().float().cpu()
    if ours.shape != reference.shape or not bool(torch.isfinite(ours).all()):
        return math.inf
    return float((ours - reference).abs().max() / reference.abs().max())


def _logits(reference: Reference, variant: Variant) -> float:
    base = reference.base(variant)
    return max(
        difference(_flat_logits(base, [ids]), logits)
        for ids, logits in zip(reference.prompts, reference.prompt_logits, strict=True)
    )


def _packed_rows(reference: Reference, variant: Variant) -> float:
    return difference(
        _flat_logits(reference.base(variant), reference.prompts), torch.cat(list(reference.prompt_logits))
    )


@torch.no_grad()
def _flat_logits(base: Base, sequences: Sequence[Sequence[int]]) -> Tensor:
    """Return the logits `[N, V]` of sequences that lie in one flat row."""
    layout = PackedSequences([len(ids) for ids in sequences])
    ids_N = torch.tensor([token for ids in sequences for token in ids], device=base.device)
    return base.logits(base.hidden(ids_N, layout.positions_N.to(base.device), layout))


def _lora_step(reference: Reference, variant: Variant) -> float:
    return _step_difference(reference.tuned_base(variant), reference.rows, *reference.lora_step)


def _full_step(reference: Reference, variant: Variant) -> float:
    base = reference.base(variant)
    unfreeze(base, "full")
    return _step_difference(base, reference.rows, *reference.full_step)


def _step_difference(base: Base, rows: Sequence[TrainingRow], loss: float, gradients: Mapping[str, Tensor]) -> float:
    """Return how far the loss of one step over all rows and its gradients are from these."""
    objective = SupervisedObjective(rows, batch=len(rows), seed=0, cache_activations=False)
    optimizer, total = Optimizer(objective.parameters(base)), 0.0
    try:
        for number, batch in enumerate(objective.batches(0)):
            part = objective.loss(base, batch)
            optimizer.backward(part.value, number)
            total += float(part.value.detach())
        ours = {
            name: torch.zeros(()) if value.grad is None else value.grad for name, value in optimizer.masters.items()
        }
        return max(abs(total - loss) / loss, *(difference(ours[name], value) for name, value in gradients.items()))
    finally:
        optimizer.release()


def _optimizer_steps(_: Reference, variant: Variant) -> float:
    """Two steps of AdamW over one weight with a given gradient; both updates, and the weight in its precision."""
    generator = torch.Generator().manual_seed(2)
    begin, gradient = (torch.randn(96, 64, generator=generator).bfloat16().float() for _ in range(2))
    expected = nn.Parameter(begin.clone())
    weight = nn.Parameter(begin.to(variant.device, DTYPES[variant.precision], copy=True))
    adam = torch.optim.AdamW([expected], lr=LEARNING_RATE, betas=BETAS, eps=EPSILON, weight_decay=0.0, foreach=False)
    optimizer = Optimizer({"weight": weight}, clip=math.inf)
    try:
        for number in range(2):
            expected.grad = gradient / (1 + number)
            optimizer.backward((weight * expected.grad.to(weight.device, weight.dtype)).sum(), 0)
            optimizer.clip_gradients()
            optimizer.step(LEARNING_RATE)
            adam.step()
        return max(
            difference(optimizer.weights()["weight"].cpu() - begin, expected.detach() - begin),
            difference(weight, expected),
        )
    finally:
        optimizer.release()


def _greedy_answers(reference: Reference, variant: Variant) -> float:
    """Log-probabilities of the engine's answers, and how far its tokens are from being the likeliest."""
    base = reference.base(variant)
    requests = [
        Request(id=str(number), ids=ids, max_new=NEW_TOKENS, logprobs=True)
        for number, ids in enumerate(reference.prompts)
    ]
    with packed(base):
        engine = Engine(base, frozenset(), slots=3)  # so few that requests join a batch that runs
        engine.pin(max(reference.prompts, key=len)[:SHARED_TOKENS])
        answers = engine.generate(requests)
    apart = 0.0
    for prompt, answer in zip(reference.prompts, answers, strict=True):
        if len(answer.ids) != NEW_TOKENS:
            return math.inf
        logits_TV = reference.logits_of((*prompt, *answer.ids))[0, len(prompt) - 1 : -1]
        logs_TV, chosen_T1 = logits_TV.log_softmax(-1), torch.tensor([answer.ids]).T
        logs_T, likeliest_T = logs_TV.gather(1, chosen_T1)[:, 0], logits_TV.max(-1).values
        apart = max(apart, difference(torch.tensor(answer.log_probabilities), logs_T))
        apart = max(apart, difference(logits_TV.gather(1, chosen_T1)[:, 0], likeliest_T))
    return apart


def _label_scores(reference: Reference, variant: Variant) -> float:
    """Sums of labels' log-probabilities, and their probabilities as `classify` computes them, in waves."""
    base = reference.base(variant)
    requests = [LabelRequest(id=str(number), ids=ids) for number, ids in enumerate(reference.prompts)]
    with packed(base):
        sums_NL = score_labels(base, requests, LABELS)
        in_waves = label_probabilities(base, requests, LABELS)
    probabilities_NL = torch.tensor([one.probabilities for one in in_waves])
    return max(
        difference(sums_NL, reference.label_sums),
        # of labels that are skipped only bounds are known
        max(0.0, difference(probabilities_NL, reference.label_sums.softmax(-1)) - SKIPPED),
    )


def _resumed_step(reference: Reference, variant: Variant) -> float:
    """Weights after two steps, with a checkpoint read between them or not; 0 where equal runs differ as much."""
    with tempfile.TemporaryDirectory(prefix="trimtab-device-") as folder:
        whole, again = (_weights_after(reference, variant, Path(folder) / name, 2) for name in ("whole", "again"))
        _weights_after(reference, variant, Path(folder) / "resumed", 1)
        resumed = _weights_after(reference, variant, Path(folder) / "resumed", 2)
    apart = difference(resumed, whole)
    return apart if apart > MOST_OF_CHANCE * difference(again, whole) else 0.0


def _weights_after(reference: Reference, variant: Variant, folder: Path, steps: int) -> Tensor:
    """Train LoRA up to a step of two, from the checkpoint in the folder if there is one, and return its factors."""
    base = reference.tuned_base(variant)
    objective = SupervisedObjective(reference.rows, batch=len(reference.rows), seed=0)
    settings = LoopSettings(learning_rate=LEARNING_RATE, epochs=2)
    train_model(TrainingJob(base=base, objective=objective, settings=settings, folder=folder), until=steps)
    return torch.cat([value.detach().flatten() for value in trainable_parameters(base.model).values()])


Part = Callable[[Reference, Variant], float]
PARTS: Mapping[str, Part] = {
    "logits": _logits,
    "packed rows": _packed_rows,
    "LoRA step": _lora_step,
    "step of all weights": _full_step,
    "optimizer": _optimizer_steps,
    "resumed step": _resumed_step,
    "greedy answers": _greedy_answers,
    "label scores": _label_scores,
}


FAMILY_FREE = ("optimizer", "resumed step")  # parts that one family shows as well as another


def tolerance(what: str, precision: str) -> float:
    """Return the largest difference of a part that rounding explains: none in a resumed run."""
    return {"resumed step": 0.0, "optimizer": OPTIMIZER_TOLERANCE}.get(what, TOLERANCES[precision])


def check_parts(device: str, *, kernels: bool = True) -> Iterator[CheckRow]:
    """Yield a row for every part in every variant that a device has. `kernels`: False leaves out the C kernels.

    Raises MemoryError where memory ran out: that says nothing of the device.
    """
    variants = [Variant(device=device, precision=precision, kernels=False) for precision in ("fp32", "bf16")]
    if kernels and device == "cpu" and library():
        variants += [Variant(device=device, precision=precision, kernels=True) for precision in ("fp32", "bf16")]
    references = [Reference(family) for family in FAMILIES]
    for variant in variants:
        yield from (check_part(what, variant, references) for what in PARTS)


def check_part(what: str, variant: Variant, references: Sequence[Reference]) -> CheckRow:
    """Return the row of one part in one variant; raises as `check_parts` does."""
    began, apart, error = time.perf_counter(), math.inf, ""
    try:
        with nullcontext() if variant.kernels else kernels_off():
            families = references[:1] if what in FAMILY_FREE else references
            apart = max(PARTS[what](reference, variant) for reference in families)
    except torch.OutOfMemoryError as failure:
        raise MemoryError(one_line(failure)) from failure
    except MemoryError:
        raise
    except Exception as failure:  # noqa: BLE001 - whatever a machine that nobody has seen raises is a result
        error = f"{type(failure).__name__}: {one_line(failure)}"[:200]
    most = tolerance(what, variant.precision)
    return CheckRow(
        what=what,
        precision=variant.precision,
        kernels=variant.kernels,
        difference=apart if math.isfinite(apart) else None,
        tolerance=most,
        equal=apart <= most,
        seconds=round(time.perf_counter() - began, 3),
        error=error,
    )
