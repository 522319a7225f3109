"""One arm from its weights and its context to its answers and figures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trimtab.arms.answerers import Answerer, Ready, ready
from trimtab.arms.contexts import DEV_ITEMS, Context, PromptBuilder, choose_context
from trimtab.arms.saved import SavedArm
from trimtab.arms.session import Session
from trimtab.arms.weights import DEV_QUESTIONS, recipe, train_weights
from trimtab.base.machine import MemoryPeak, folder_bytes
from trimtab.base.progress import Progress
from trimtab.base.records import Answer, Arm, ArmResult, Example, Generation, Prompt, Split
from trimtab.decision.cost import Usage, cost_of, planned_retrainings
from trimtab.measurement.evaluate import Scorer, evaluate
from trimtab.measurement.figures import (
    Classes,
    class_figures,
    extra_figures,
    prefill_and_decode,
    same_answers,
    score_estimate,
    slice_estimates,
)
from trimtab.measurement.metrics import abstention, aggregate
from trimtab.measurement.statistics import MIN_LATENCIES, latency_percentiles
from trimtab.training.linear import train_linear

BATCH_ITEMS = 64  # questions between two progress events


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What an arm may spend after the study's budget was looked at; `epochs` None leaves the default."""

    seeds: int = 1
    search: bool = True
    epochs: float | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """An arm's answers to the questions asked, its figures, and what they took."""

    answers: tuple[Answer, ...]
    result: ArmResult
    usage: Usage
    classes: Classes | None = None


@dataclass
class _Spent:
    train: float = 0.0
    answering: float = 0.0
    index: float = 0.0
    peak_mb: float = 0.0


class ArmRunner:
    """Runs arms on one session; the context of base-model arms is chosen once and shared."""

    def __init__(self, session: Session, scorer: Scorer | None, progress: Progress) -> None:
        self.session, self.task, self.scorer, self.progress = session, session.task, scorer, progress
        self._contexts: dict[tuple[str, object], Context] = {}

    def run(self, arm: Arm, split: Split, folder: Path, effort: Effort, *, kept: SavedArm | None = None) -> Outcome:
        """Choose the arm's context, make its weights under `folder`, answer the split, measure.

        `kept` are weights and a context that were made before; nothing is chosen or trained then.
        """
        examples, spent = self.session.workspace.splits[split], _Spent()
        answers: list[Answer] = []
        latencies: list[float] = []
        extras: dict[str, float] = {}
        with MemoryPeak() as memory:
            if arm.context == "rag":
                self.progress.emit("index")
                self.session.hits(examples[:1])
                spent.index = self.session.index_seconds
            if kept is None or kept.count is None:
                context = self.context(arm, effort)
            else:
                context = Context(kind=arm.context, count=kept.count)
            for seed in range(effort.seeds):
                self.progress.arm, self.progress.seed = arm.name, seed
                run = kept.folder if kept else folder / f"run-{seed}"
                if kept:
                    spent.train += kept.train_seconds / effort.seeds
                else:
                    spent.train += self.make_weights(arm, context, run, seed, effort.epochs, extras) / effort.seeds
                with ready(self.session, arm, context, run, examples[:8]) as able:
                    began = time.perf_counter()
                    answers += self._answers(examples, able, split, seed)
                    spent.answering += (time.perf_counter() - began) / effort.seeds
                    if arm.context == "rag" and seed == 0:
                        extras.update(self._lost_to_retrieval(examples, answers, able, split))
                    if not latencies:
                        latencies, alone = self._ask_alone(examples, able)
                        extras.update(prefill_and_decode(alone), same_alone=same_answers(alone, answers))
        spent.peak_mb = memory.megabytes
        usage = self._usage(arm, answers, latencies, spent)
        first = [answer for answer in answers if answer.seed == 0]
        figures = {**extras, **extra_figures(first, examples, self.task)}
        return Outcome(
            answers=tuple(answers),
            result=self._result(arm, context, answers, latencies, usage, spent, figures, run),
            usage=usage,
            classes=class_figures(first) if self.task.task.kind == "classify" else None,
        )

    def context(self, arm: Arm, effort: Effort) -> Context:
        """The arm's context; its count is chosen on dev with the base model, once for all arms that share it."""
        key = (arm.context, arm.settings.get("passages" if arm.context == "rag" else "shots"))
        if key not in self._contexts:
            search = effort.search and arm.weights != "api"
            self._contexts[key] = choose_context(self.session, arm, self._score_context, search=search)
        return self._contexts[key]

    def _score_context(self, context: Context) -> float:
        self.session.fresh_base(will_change=False)
        self.progress.emit("choose", note=f"{context.count} {'passages' if context.kind == 'rag' else 'shots'} on dev")
        dev = self.session.workspace.splits["dev"][:DEV_ITEMS]
        return self._metric(dev, PromptBuilder(self.session, context), self.session.answer)

    def _metric(self, examples: Sequence[Example], builder: PromptBuilder, answerer: Answerer) -> float:
        prompts = builder.prompts(examples)
        answers = evaluate(examples, prompts, answerer, self.task, split="dev", seed=0, scorer=self.scorer)
        return aggregate(
            self.task.metric,
            [answer.answer for answer in answers],
            [answer.reference for answer in answers],
            [answer.score for answer in answers],
        )

    def make_weights(
        self, arm: Arm, context: Context, run: Path, seed: int, epochs: float | None, extras: dict[str, float]
    ) -> float:
        """Make and keep the arm's weights under `run`; the seconds it took, 0 where there is nothing to train."""
        if arm.weights in ("base", "api"):
            return 0.0
        if arm.weights == "linear":
            return self._fit_linear(run)
        plan = recipe(arm, len(self.session.workspace.splits["train"]), seed, epochs=epochs)
        dev, builder = self.session.workspace.splits["dev"][:DEV_QUESTIONS], PromptBuilder(self.session, context)
        scored = dev and (self.scorer is not None or self.task.metric != "scorer")
        metric = (lambda: self._metric(dev, builder, self.session.answer)) if scored else None
        trained = train_weights(self.session, plan, context, run, self.progress, metric)
        extras.update(
            skipped_rows=float(trained.skipped),
            train_tokens=float(trained.tokens),
            steps=float(trained.steps),
            epochs=plan.epochs,
        )
        return trained.seconds

    def _fit_linear(self, run: Path) -> float:
        began = time.perf_counter()
        train, dev = self.session.workspace.splits["train"], self.session.workspace.splits["dev"]
        inputs, labels = [item.input for item in train], [item.references[0] for item in train]
        self.progress.emit("train")
        model = train_linear(
            inputs,
            labels,
            [item.input for item in dev],
            [item.references[0] for item in dev],
            self.session.embedder.encode,
        )
        model.save(run / "adapter")
        return time.perf_counter() - began

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

    def _ask_alone(self, examples: Sequence[Example], able: Ready) -> tuple[list[float], list[Generation]]:
        """Single questions with the seconds that each took, retrieval included; two are asked before it counts."""
        seconds, given = [], []
        for number, example in enumerate([*examples[:2], *examples[:MIN_LATENCIES]]):
            self.session.forget_hits()
            began = time.perf_counter()
            given.append(able.alone(able.builder.prompts([example])[0]))
            seconds.append(time.perf_counter() - began)
            self.progress.emit("latency", step=number, of=len(examples[:MIN_LATENCIES]) + 2)
        return seconds[2:], given[2:]

    def _usage(self, arm: Arm, answers: Sequence[Answer], latencies: Sequence[float], spent: _Spent) -> Usage:
        api = self.task.api[arm.name.removeprefix("api-")] if arm.weights == "api" else None
        return Usage(
            train_seconds=spent.train,
            evaluation_seconds=spent.answering,
            index_seconds=spent.index,
            seconds_per_question=float(np.mean(latencies)),
            prompt_tokens=float(np.mean([answer.prompt_tokens for answer in answers])),
            new_tokens=float(np.mean([answer.new_tokens for answer in answers])),
            runs_on_own_machine=api is None,
            trained=arm.weights not in ("base", "api"),
            token_price=api.price_per_million if api else None,
        )

    def _result(
        self,
        arm: Arm,
        context: Context,
        answers: Sequence[Answer],
        latencies: Sequence[float],
        usage: Usage,
        spent: _Spent,
        figures: dict[str, float],
        run: Path,
    ) -> ArmResult:
        p50, p95 = latency_percentiles(latencies)
        score = score_estimate(answers, self.task)
        retrainings = planned_retrainings(usage, self.task.cost, score.low, self.task.target.quality) or 0
        seeds = sorted({answer.seed for answer in answers})
        by_seed = [[answer for answer in answers if answer.seed == seed] for seed in seeds]
        index_bytes = folder_bytes(self.session.workspace.folder / "index") if arm.context == "rag" else 0
        return ArmResult(
            arm=arm.name,
            status="done",
            score=score,
            seeds=len(seeds),
            seed_scores=tuple(score_estimate(part, self.task).value for part in by_seed),
            format_ok=float(np.mean([answer.format_ok for answer in answers])),
            abstention=abstention(by_seed[0], self.task.task.unknown) if self.task.task.kind == "answer" else {},
            slices=slice_estimates(answers, self.task),
            extras=figures,
            train_seconds=usage.train_seconds,
            evaluation_seconds=usage.evaluation_seconds,
            peak_memory_mb=spent.peak_mb,
            stored_bytes=folder_bytes(run / "adapter") + index_bytes,
            latency_p50_ms=p50,
            latency_p95_ms=p95,
            seconds_per_question=usage.seconds_per_question,
            cost=cost_of(usage, self.task.cost, retrainings=retrainings),
            chosen=context.chosen(),
        )
