"""One arm from its weights and its context to its answers and figures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trimtab.arms.answerers import Ready, ready, score_on
from trimtab.arms.calibration import calibrate
from trimtab.arms.contexts import DEV_ITEMS, Context, PromptBuilder, choose_context, context_for, context_key, tries
from trimtab.arms.saved import SavedArm
from trimtab.arms.session import Session
from trimtab.arms.weights import Trained, train_weights
from trimtab.base.grammar import is_trained, method_of
from trimtab.base.machine import MemoryPeak, folder_bytes, release_memory
from trimtab.base.progress import Progress
from trimtab.base.records import Answer, Arm, Example, Generation, Prompt, Split
from trimtab.base.results import ArmResult, Classes, TokenFee, Usage
from trimtab.decision.cost import cost_of, planned_retrainings
from trimtab.measurement.evaluate import Scorer, evaluate
from trimtab.measurement.figures import (
    class_figures,
    extra_figures,
    prefill_and_decode,
    same_answers,
    score_estimate,
    score_floor,
    slice_estimates,
)
from trimtab.measurement.latency import MIN_LATENCIES, latency_bound, latency_percentiles
from trimtab.measurement.metrics import abstention
from trimtab.measurement.seeds import by_seed, mean_classes, mean_figures

SAMPLE = 8  # questions whose prompts show what all of an arm begin with
BATCH_ITEMS = 64  # questions between two progress events
REPLIES = "replies.jsonl"  # what an endpoint has answered of an arm that is not done yet


def forget_replies(folder: Path) -> None:
    """Take away what an endpoint's answers were kept in, once the arm's answers are."""
    for file in folder.glob(f"run-*/{REPLIES}"):
        file.unlink()


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What an arm may spend after the study's budget was looked at; `epochs` None leaves the default."""

    seeds: int = 1
    search: bool = True
    epochs: float | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """An arm's answers to the questions asked, its figures, and what they took; `dev_scores`: of dev questions that it answered on the way."""

    answers: tuple[Answer, ...]
    result: ArmResult
    usage: Usage
    classes: Classes | None = None
    dev_scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(kw_only=True)
class _Measured:
    """What comes together while an arm is measured; seconds are means over its seeds."""

    context: Context
    answers: list[Answer] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    train_seconds: float = 0.0
    answer_seconds: float = 0.0
    index_seconds: float = 0.0
    choose_seconds: float = 0.0
    stored_bytes: int = 0
    peak_mb: float = 0.0


class ArmRunner:
    """Runs arms in one session; the context of base-model arms is chosen once and shared."""

    def __init__(self, session: Session, scorer: Scorer | None, progress: Progress) -> None:
        self.session, self.task, self.scorer, self.progress = session, session.task, scorer, progress
        self._contexts: dict[tuple[object, ...], tuple[Context, float]] = {}
        self._on_dev: dict[Context, dict[str, float]] = {}  # of the base model

    def run(self, arm: Arm, split: Split, folder: Path, effort: Effort, *, saved: SavedArm | None = None) -> Outcome:
        """Choose the arm's context, make its weights under `folder`, answer the split, measure.

        `saved` are weights and a context that were made before; nothing is chosen or trained then.
        """
        examples = self.session.workspace.splits[split]
        if method_of(arm).uses_base:  # what the arm before it left is not this one's
            self.session.fresh_base()
        else:
            release_memory()
        with MemoryPeak() as memory:
            index_seconds = self._index_seconds(examples) if arm.retrieves else 0.0
            context, choosing = (context_for(arm, saved.chosen), 0.0) if saved else self.context(arm, effort)
            found = _Measured(context=context, index_seconds=index_seconds, choose_seconds=choosing)
            on_dev = {} if is_trained(arm) or arm.endpoint else self._on_dev.get(context, {})
            made: list[dict[str, float]] = []
            for seed in range(effort.seeds):
                self.progress.arm, self.progress.seed = arm.name, seed
                run = saved.folder if saved else folder / f"run-{seed}"
                trained = saved.trained if saved else self._train(arm, context, run, seed, effort.epochs)
                found.train_seconds += trained.seconds / effort.seeds
                if saved is None and effort.search:
                    found.choose_seconds += calibrate(self.session, arm, context, run, self.progress) / effort.seeds
                made.append(trained.figures)
                on_dev = on_dev or dict(trained.dev_scores)
                found.stored_bytes = folder_bytes(run / "adapter")
                replies = None if saved else run / REPLIES
                sample = self.session.part(split, SAMPLE)
                with ready(self.session, arm, context, run, sample, replies=replies) as able:
                    self._measure(found, able, examples, split, seed, effort.seeds)
        found.peak_mb = memory.megabytes
        usage = self._usage(arm, found)
        runs = by_seed(found.answers)
        found.figures.update(
            mean_figures(made) | mean_figures([extra_figures(run, examples, self.task) for run in runs])
        )
        return Outcome(
            answers=tuple(found.answers),
            result=self._result(arm, found, usage),
            usage=usage,
            classes=mean_classes([class_figures(run) for run in runs]) if self.task.task.kind == "classify" else None,
            dev_scores=on_dev,
        )

    def context(self, arm: Arm, effort: Effort) -> tuple[Context, float]:
        """The arm's context, and the seconds of choosing it on dev with the base model: done once, and paid by each arm that shares it."""
        key = context_key(arm)
        if key in self._contexts:
            return self._contexts[key]
        if not (effort.search and tries(arm)):
            return context_for(arm), 0.0
        began = time.perf_counter()
        context = choose_context(self.session, arm, self._score_context)
        self._contexts[key] = context, time.perf_counter() - began
        return self._contexts[key]

    def _score_context(self, context: Context) -> float:
        self.session.fresh_base()
        named = ", ".join(f"{count} {what}" for what, count in context.chosen().items())
        self.progress.emit("choose", note=f"{named} on dev")
        dev = self.session.part("dev", DEV_ITEMS)
        builder = PromptBuilder(self.session, context)
        value, self._on_dev[context] = score_on(self.session, dev, builder, self.session.answer, self.scorer)
        return value

    def _index_seconds(self, examples: Sequence[Example]) -> float:
        self.progress.emit("index")
        self.session.hits(examples[:1])  # loads the embedding model
        return self.session.index.seconds

    def _train(self, arm: Arm, context: Context, run: Path, seed: int, epochs: float | None) -> Trained:
        return train_weights(
            self.session, arm, context, run, self.progress, seed=seed, epochs=epochs, scorer=self.scorer
        )

    def _measure(
        self, found: _Measured, able: Ready, examples: Sequence[Example], split: Split, seed: int, seeds: int
    ) -> None:
        """The answers of one seed; with the first one also what is asked once: questions alone, and with the right passage."""
        began = time.perf_counter()
        found.answers += self._answers(examples, able, split, seed)
        found.answer_seconds += (time.perf_counter() - began) / seeds
        if seed > 0:
            return
        if found.context.passages:
            found.figures.update(self._lost_to_retrieval(examples, found.answers, able, split))
        found.latencies, alone = self._ask_alone(split, able)
        found.figures.update(prefill_and_decode(alone), same_alone=same_answers(alone, found.answers))

    def _answers(self, examples: Sequence[Example], able: Ready, split: Split, seed: int) -> list[Answer]:
        done = 0

        def counted(asked: Sequence[Prompt]) -> list[Generation]:
            nonlocal done
            given: list[Generation] = []
            for start in range(0, len(asked), BATCH_ITEMS):
                part = asked[start : start + BATCH_ITEMS]
                given += able.many(part)
                done += len(part)
                self.progress.emit("answer", step=done, of=len(asked))
            return given

        prompts = able.builder.prompts(examples)
        return list(evaluate(examples, prompts, counted, self.task, split=split, seed=seed, scorer=self.scorer))

    def _lost_to_retrieval(
        self, examples: Sequence[Example], answers: Sequence[Answer], able: Ready, split: Split
    ) -> dict[str, float]:
        """How much higher the mean score is where every right passage is there; nothing where the rows name none."""
        if not any(example.passages for example in examples):
            return {}
        put_right = able.builder.with_right_passage(examples)
        missed, prompts = [example for example, _ in put_right], [prompt for _, prompt in put_right]
        again = evaluate(missed, prompts, able.many, self.task, split=split, seed=0, scorer=self.scorer)
        before = {answer.item_id: answer.score for answer in answers}
        gains = sum(answer.score - before[answer.item_id] for answer in again)
        return {"lost_to_retrieval": gains / len(examples)}

    def _ask_alone(self, split: Split, able: Ready) -> tuple[list[float], list[Generation]]:
        """Single questions with the seconds that each took, retrieval included; two are asked before it counts."""
        seconds, given = [], []
        asked = self.session.part(split, MIN_LATENCIES)
        for number, example in enumerate([*asked[:2], *asked]):
            self.session.forget_hits()
            began = time.perf_counter()
            given.append(able.alone(able.builder.prompts([example])[0]))
            seconds.append(time.perf_counter() - began)
            self.progress.emit("latency", step=number, of=len(asked) + 2)
        return seconds[2:], given[2:]

    def _usage(self, arm: Arm, found: _Measured) -> Usage:
        price = self.task.api[arm.endpoint].price_per_million if arm.endpoint else None
        return Usage(
            train_seconds=found.train_seconds,
            evaluation_seconds=found.answer_seconds,
            index_seconds=found.index_seconds,
            choose_seconds=found.choose_seconds,
            seconds_per_question=float(np.mean(found.latencies)),
            seconds_error=float(np.std(found.latencies) / len(found.latencies) ** 0.5),
            prompt_tokens=float(np.mean([answer.prompt_tokens for answer in found.answers])),
            new_tokens=float(np.mean([answer.new_tokens for answer in found.answers])),
            runs_on_own_machine=arm.endpoint is None,
            trained=is_trained(arm),
            token_fee=TokenFee(input=price.input, output=price.output) if price else None,
        )

    def _result(self, arm: Arm, found: _Measured, usage: Usage) -> ArmResult:
        p50, p95 = latency_percentiles(found.latencies)
        score = score_estimate(found.answers, self.task)
        floor = score_floor(found.answers, self.task)
        retrainings = planned_retrainings(usage, self.task.cost, floor, self.task.target.quality) or 0
        runs = by_seed(found.answers)
        index_bytes = folder_bytes(self.session.workspace.folder / "index") if arm.retrieves else 0
        return ArmResult(
            arm=arm.name,
            status="done",
            score=score,
            score_floor=floor,
            seeds=len(runs),
            seed_scores=tuple(score_estimate(run, self.task).value for run in runs),
            format_ok=float(np.mean([answer.format_ok for answer in found.answers])),
            abstention=abstention(found.answers, self.task.task.unknown) if self.task.task.kind == "answer" else {},
            slices=slice_estimates(found.answers, self.task),
            extras=found.figures,
            train_seconds=usage.train_seconds,
            evaluation_seconds=usage.evaluation_seconds,
            peak_memory_mb=found.peak_mb,
            stored_bytes=found.stored_bytes + index_bytes,
            latency_p50_ms=p50,
            latency_p95_ms=p95,
            latency_p95_high_ms=latency_bound(found.latencies),
            seconds_per_question=usage.seconds_per_question,
            cost=cost_of(usage, self.task.cost, retrainings=retrainings),
            chosen=found.context.chosen(),
        )
