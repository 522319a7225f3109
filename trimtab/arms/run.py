"""Runs one arm: builds its artifact (context, weights, calibration), answers a split, and returns figures and costs."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.arms.answerers import ReadyArm, read_calibration, ready_arm, score_on_dev
from trimtab.arms.artifacts import (
    Allowance,
    AnsweredRun,
    ArmArtifact,
    TrainedWeights,
    combine_efforts,
    search_overhead,
)
from trimtab.arms.calibration import calibrate
from trimtab.arms.contexts import Context, PromptBuilder, context_for, has_fixed_shots
from trimtab.arms.dev_eval import DEV_QUESTIONS
from trimtab.arms.extract import choose_threshold
from trimtab.arms.learning_curve import learning_curve
from trimtab.arms.probing.forgetting import changes_the_model, general_answers
from trimtab.arms.probing.probe import run_probes
from trimtab.arms.probing.subject import Subject
from trimtab.arms.recipe import Recipe
from trimtab.arms.search.context_search import SEARCH_SPACES, choose_context
from trimtab.arms.search.passage_search import LOOKUPS, choose_passages, gold_retrieved
from trimtab.arms.search.reflection import PRACTICE, Practice
from trimtab.arms.search.trials import ContextScores
from trimtab.arms.session import BATCH_ITEMS, Session
from trimtab.arms.store import SavedArm
from trimtab.arms.trainer import TrainingSearch, train_trial, train_weights
from trimtab.base.grammar import DISTILL, JUDGED, SENTENCE, is_trained, method_of
from trimtab.base.machine import MemoryPeak, folder_bytes, release_memory
from trimtab.base.progress import Progress
from trimtab.base.records import Answer, Arm, Example, Generation, Prompt, Split
from trimtab.base.results import ArmEffort, ArmResult, Classes, Exposure, Probe, TokenFee, Usage
from trimtab.decision.cost import cost_of, costed_retrainings
from trimtab.measurement.calibration import LEAST_ROWS, mean_offsets
from trimtab.measurement.evaluate import Scorer, evaluate_prompts, score_all
from trimtab.measurement.figures import (
    alone_figures,
    class_figures,
    extra_figures,
    prefill_and_decode,
    score_estimate,
    score_floor,
    slice_estimates,
)
from trimtab.measurement.groundedness import SentenceJudge
from trimtab.measurement.judge import Judge
from trimtab.measurement.latency import PASSES, is_timed_enough, latency_bound, latency_percentiles
from trimtab.measurement.metrics import abstention
from trimtab.measurement.runs import by_seed, mean_classes, mean_figures
from trimtab.model.fast.packed_weights import packed
from trimtab.model.threads import ProcessorShare

SAMPLE = 8  # questions whose prompts show the common prefix of an arm's prompts
REPLIES = "replies.jsonl"  # an endpoint's answers for an arm that is not finished


def forget_replies(folder: Path) -> None:
    """Delete the stored answers of an endpoint, once the arm's answers are saved."""
    for file in folder.glob(f"run-*/{REPLIES}"):
        file.unlink()


@dataclass(frozen=True, kw_only=True)
class ArmMeasurement:
    """An arm's answers to a split, its figures, and its costs.

    `dev_scores`: the score of each dev question answered on the way, by id. `latencies`: seconds of questions asked
    alone, in the first pass of `passes`.
    """

    answers: tuple[Answer, ...]
    result: ArmResult
    usage: Usage
    classes: Classes | None = None
    dev_scores: Mapping[str, float] = field(default_factory=dict)
    latencies: tuple[float, ...] = ()


@dataclass(kw_only=True)
class _RunAnswers:
    """Accumulates the measurements of an arm; seconds are means over its seeds."""

    answers: list[Answer] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    processor_share: float | None = None  # during these measurements
    figures: dict[str, float] = field(default_factory=dict)
    answer_seconds: float = 0.0
    stored_bytes: int = 0
    peak_mb: float = 0.0

    def add(self, run: AnsweredRun, seeds: int) -> None:
        """Add the answers of one of so many runs."""
        self.answers += run.answers
        self.answer_seconds += run.seconds / seeds
        self.figures.update(run.figures)
        self.peak_mb = max(self.peak_mb, run.peak_mb)


def _mean_seconds(latencies: Sequence[float]) -> dict[str, Any]:
    """Return the mean seconds of a question alone, and their standard error."""
    return {
        "seconds_per_question": float(np.mean(latencies)),
        "seconds_error": float(np.std(latencies) / len(latencies) ** 0.5),
    }


def _latencies(latencies: Sequence[float], arms: int) -> dict[str, Any]:
    """Return the percentiles of the seconds of single questions, and the upper bound of the 95th, in milliseconds."""
    p50, p95 = latency_percentiles(latencies)
    return {"latency_p50_ms": p50, "latency_p95_ms": p95, "latency_p95_high_ms": latency_bound(latencies, arms)}


def _context_summary(context: Context) -> str:
    """Return a context in words, for the progress line."""
    parts = {what: f"{value} {what}" for what, value in context.chosen().items() if value}
    if context.chunk_words == SENTENCE:
        parts["chunk_words"] = "sentences as passages"
    if context.instruction:
        parts["instruction"] = "another instruction"
    return ", ".join(parts.values()) or "the instruction"


class ArmRunner:
    """Runs arms in one session. The base model's dev scores are saved in the file `searches` and shared by the arms."""

    def __init__(
        self,
        session: Session,
        scorer: Scorer | None,
        progress: Progress,
        searches: Path | None = None,
        reward_program: Scorer | None = None,
        *,
        in_turn: bool = False,
    ) -> None:
        """`in_turn`: with a latency limit, time only a first pass of the questions; the caller requests the others."""
        self.session, self.task, self.scorer, self.progress = session, session.task, scorer, progress
        self.reward_program = reward_program
        self.passes = PASSES if in_turn and session.task.target.latency_p95_ms is not None else 1
        self.scores = ContextScores(searches, self._score_on_dev)
        self._sums: dict[Context, dict[str, np.ndarray[Any, Any]]] = {}  # label scores by question
        lookups = searches.with_name(LOOKUPS) if searches else None
        self.found = ContextScores(lookups, self._score_retrieval)
        self.practice = Practice(searches.with_name(PRACTICE) if searches else None, self._practise)

    def run(
        self, arm: Arm, split: Split, folder: Path, allowance: Allowance, *, saved: SavedArm | None = None
    ) -> ArmMeasurement:
        """Build an arm below `folder`, answer the split, and measure. `saved`: an arm that was built before."""
        return self.measure(arm, self.reuse(arm, saved) if saved else self.make(arm, folder, allowance), split)

    def reuse(self, arm: Arm, saved: SavedArm) -> ArmArtifact:
        """Return the artifact of an arm that was built before."""
        self._detach_weights(arm)
        context = context_for(arm, saved.chosen)
        with MemoryPeak() as memory:
            index_seconds = self._index_seconds(context)
        return ArmArtifact(
            context=context,
            trained=(saved.trained,),
            folders=(saved.folder,),
            index_seconds=index_seconds,
            peak_mb=memory.megabytes,
            is_new=False,
        )

    def make(self, arm: Arm, folder: Path, allowance: Allowance) -> ArmArtifact:
        """Search the arm's context and training settings within its allowance, and train it below `folder`."""
        return self.with_seeds(arm, self.make_first(arm, folder, allowance), folder, allowance)

    def make_first(self, arm: Arm, folder: Path, allowance: Allowance) -> ArmArtifact:
        """Return the arm with its first run alone, whose search the later ones use."""
        self._begin_run(arm)
        with MemoryPeak() as memory, ProcessorShare() as processor:
            context, context_effort = self._choose_context(arm, allowance)
            seconds, level = allowance.search_seconds, self.task.study.effort
            menu, left = SEARCH_SPACES.get(level), seconds - (context_effort.seconds if context_effort else 0.0)
            search = TrainingSearch(menu=menu, seconds=left) if menu and seconds > 0 else None
            first = self._train(arm, context, folder / "run-0", 0, allowance.epochs, search=search)
            weighing = self._calibrate(arm, context, folder / "run-0", allowance)
            effort = combine_efforts(context_effort, first.effort)
            reflection = context_effort.reflection if context_effort else None
            artifact = ArmArtifact(
                context=context,
                trained=(first,),
                folders=(folder / "run-0",),
                effort=effort,
                choose_seconds=search_overhead(context_effort, first.effort) + weighing,
                choose_fee=first.fee + (reflection.fee if reflection else 0.0),
                index_seconds=self._index_seconds(context),
                dev_scores=self._dev_scores(arm, context, first, folder / "run-0"),
            )
        return replace(artifact, peak_mb=memory.megabytes, processor_share=processor.share)

    def _choose_context(self, arm: Arm, allowance: Allowance) -> tuple[Context, ArmEffort | None]:
        """Return the context of the arm's prompts, and the effort of its choice; None without a choice."""
        context, seconds = context_for(arm), allowance.search_seconds
        self._index_seconds(context)  # built now, so that no trial is charged for it
        if arm.weights == "extract":
            return choose_threshold(self.session, context, self.scorer)
        if seconds <= 0:
            return context, None
        effort = self.task.study.effort
        if is_trained(arm):
            return choose_passages(self.session, arm, self.found, effort, seconds)
        return choose_context(
            *(self.session, arm, self.scores, effort, seconds),
            practice=self.practice,
            tell=lambda note: self.progress.emit("choose", note=note, stays=True),
        )

    def _practise(self, context: Context, rows: Sequence[Example]) -> Sequence[Answer]:
        """Answer training rows in a context with the base model, for the model that rewrites instructions."""
        self.session.fresh_base()
        self.progress.emit("choose", note=f"{_context_summary(context)} on {len(rows)} training rows")
        builder = PromptBuilder(self.session, context)
        with packed(self.session.base):
            return evaluate_prompts(
                rows, builder.prompts(rows), builder.answer, self.task, split="train", seed=0, scorer=self.scorer
            )

    def choose_passages(self, arm: Arm, allowance: Allowance) -> None:
        """Choose the passages in a trained arm's prompts, which `train_trial` and `make_first` read from the file."""
        self._begin_run(arm)
        self._choose_context(arm, allowance)

    def train_trial(self, arm: Arm, folder: Path, allowance: Allowance, step: int) -> None:
        """Train one rate of the ladder of an arm's first stage up to the first dev evaluation, for `make_first`."""
        self._begin_run(arm)
        train_trial(
            *(self.session, arm, self._choose_context(arm, allowance)[0], folder / "run-0", self.progress, step),
            epochs=allowance.epochs,
            scorer=self.scorer,
        )

    def with_seeds(self, arm: Arm, artifact: ArmArtifact, folder: Path, allowance: Allowance) -> ArmArtifact:
        """Return the arm with as many runs as its allowance has seeds; later ones use the first one's settings."""
        seeds = range(len(artifact.trained), allowance.seeds)
        return artifact.with_runs([self.make_later(arm, artifact, folder, allowance, seed) for seed in seeds])

    def make_later(self, arm: Arm, first: ArmArtifact, folder: Path, allowance: Allowance, seed: int) -> ArmArtifact:
        """Return the run of a later seed alone, with the settings found for the first."""
        self._begin_run(arm, seed)
        run = folder / f"run-{seed}"
        with MemoryPeak() as memory:
            found, like = first.trained[0].recipe, first.folders[0]
            weights = self._train(arm, first.context, run, seed, allowance.epochs, found=found, like=like)
            self._calibrate(arm, first.context, run, allowance)
        return ArmArtifact(context=first.context, trained=(weights,), folders=(run,), peak_mb=memory.megabytes)

    def with_curve(self, arm: Arm, artifact: ArmArtifact) -> ArmArtifact:
        """Return the arm with its learning curve, if the task requests it and something is trained."""
        if not (self.task.study.learning_curve and is_trained(arm)):
            return artifact
        self.progress.arm, self.progress.seed = arm.name, 0
        first = artifact.trained[0]

        def train(run: Path, recipe: Recipe | None) -> TrainedWeights:
            self._detach_weights(arm)
            self.progress.emit("choose", note=f"learning curve, {run.name.removeprefix('rows-')} rows")
            trained = self._train(arm, artifact.context, run, 0, None, found=recipe, like=artifact.folders[0])
            if read_calibration(artifact.folders[0]):  # otherwise only the full run would be calibrated
                self._calibrate(arm, artifact.context, run, Allowance(weighs=True))
            return trained

        curve = learning_curve(
            self.session, arm, artifact.context, artifact.folders[0], first.recipe, train, self.scorer
        )
        return replace(artifact, learning=curve)

    def measure(
        self, arm: Arm, artifact: ArmArtifact, split: Split, answered: Mapping[int, AnsweredRun] | None = None
    ) -> ArmMeasurement:
        """Answer the split with every run of an arm, but those of `answered` (by seed), and return the measurement."""
        self._detach_weights(arm)
        found, given = _RunAnswers(), answered or {}
        with MemoryPeak() as memory:
            for seed, run in enumerate(artifact.folders):
                self.progress.arm, self.progress.seed = arm.name, seed
                found.stored_bytes = folder_bytes(run / "adapter")
                if seed > 0 and seed in given:
                    found.add(given[seed], len(artifact.folders))
                    continue
                with self._ready(arm, artifact, split, seed) as ready:
                    answers = given.get(seed) or self._answer_run(artifact.context, ready, split, seed)
                    found.add(answers, len(artifact.folders))
                    if seed == 0:
                        self._add_timings(found, ready, split)
        found.peak_mb = max(found.peak_mb, artifact.peak_mb, memory.megabytes)
        usage = self._usage(arm, artifact, found)
        runs, examples, judge = by_seed(found.answers), self.session.workspace.splits[split], self._sentence_judge
        found.figures.update(
            mean_figures([trained.figures for trained in artifact.trained])
            | mean_figures([extra_figures(run, examples, self.task, judge) for run in runs])
        )
        return ArmMeasurement(
            answers=tuple(found.answers),
            result=self._result(arm, artifact, found, usage),
            usage=usage,
            classes=mean_classes([class_figures(run) for run in runs]) if self.task.task.kind == "classify" else None,
            dev_scores=artifact.dev_scores,
            latencies=tuple(found.latencies),
        )

    @property
    def _sentence_judge(self) -> SentenceJudge | None:
        """What says whether passages support the sentences of an answer; None where facts and words tell."""
        judge = self.scorer
        return judge.groundedness if isinstance(judge, Judge) and judge.checks_sentences else None

    def answer(self, arm: Arm, artifact: ArmArtifact, split: Split, seed: int) -> AnsweredRun:
        """Answer the split with one run of an arm, for `measure`."""
        self._begin_run(arm, seed)
        with MemoryPeak() as memory, self._ready(arm, artifact, split, seed) as ready:
            found = self._answer_run(artifact.context, ready, split, seed)
        return replace(found, peak_mb=memory.megabytes)

    @contextmanager
    def _ready(self, arm: Arm, artifact: ArmArtifact, split: Split, seed: int) -> Iterator[ReadyArm]:
        """Context manager: yields one run of an arm, ready to answer the split."""
        run = artifact.folders[seed]
        replies = run / REPLIES if artifact.is_new else None
        sample = self.session.workspace.subset(split, SAMPLE)
        with ready_arm(self.session, arm, artifact.context, run, sample, replies=replies) as ready:
            yield ready

    def time_pass(
        self, arm: Arm, artifact: ArmArtifact, usage: Usage, result: ArmResult, latencies: Sequence[float], number: int
    ) -> tuple[Usage, ArmResult, tuple[float, ...]]:
        """Time the questions of a later pass. Return the updated usage and result, and all latencies."""
        more, share = self._timed_again(arm, artifact, number)
        latencies = (*latencies, *more)
        shares = [known for known in (usage.answering_share, share) if known is not None]
        return *self._with_latencies(usage, result, latencies, min(shares, default=None)), latencies

    def answers_to(self, arm: Arm, artifact: ArmArtifact, examples: Sequence[Example]) -> list[Answer]:
        """Answer examples with the first run of an arm, without timing."""
        self._detach_weights(arm)
        with ready_arm(self.session, arm, artifact.context, artifact.folders[0], examples[:SAMPLE]) as ready:
            return self._answers(examples, ready, "test", 0)

    def probe(
        self,
        arm: Arm,
        artifact: ArmArtifact,
        names: Collection[str],
        rows: Sequence[Example],
        answers: Mapping[str, Answer],
    ) -> tuple[Probe, ...]:
        """Probe the first run of an arm. `rows`: test questions to change. `answers`: the arm's own to them, by id."""
        self._begin_run(arm)
        forgets = "forgetting" in names and changes_the_model(arm)
        untrained = general_answers(self.session) if forgets else ()
        with ready_arm(self.session, arm, artifact.context, artifact.folders[0], rows[:SAMPLE]) as ready:
            subject = Subject(
                session=self.session,
                arm=arm,
                ready=ready,
                rows=rows,
                answers=answers,
                scorer=self.scorer,
                untrained=untrained,
                tell=lambda note, stays=False: self.progress.emit("probe", note=note, stays=stays),
            )
            return run_probes(subject, names)

    def time_alone(self, arm: Arm, artifact: ArmArtifact, most: int) -> list[float]:
        """Return the seconds of at most `most` test questions, each asked alone."""
        return self._timed_again(arm, artifact, None, most)[0]

    def _timed_again(
        self, arm: Arm, artifact: ArmArtifact, number: int | None, most: int | None = None
    ) -> tuple[list[float], float | None]:
        """Return the seconds of test questions asked alone, of one pass or all, and the free processor share."""
        self._begin_run(arm)
        sample = self.session.workspace.subset("test", SAMPLE)
        with (
            ready_arm(self.session, arm, artifact.context, artifact.folders[0], sample) as ready,
            ProcessorShare() as processor,
        ):
            seconds, _ = self._time_questions("test", ready, number, most)
        return seconds, processor.share

    def time_again(self, arm: Arm, artifact: ArmArtifact, usage: Usage, result: ArmResult) -> tuple[Usage, ArmResult]:
        """Time single test questions again; keep the old usage and result unless the processor is less busy now."""
        latencies, share = self._timed_again(arm, artifact, None)
        if share is not None and share <= (usage.answering_share or 0.0):
            return usage, result
        return self._with_latencies(usage, result, latencies, share)

    def _with_latencies(
        self, usage: Usage, result: ArmResult, latencies: Sequence[float], share: float | None
    ) -> tuple[Usage, ArmResult]:
        usage = replace(usage, **_mean_seconds(latencies), answering_share=share)
        floor = result.score_floor or 0.0
        retrainings = costed_retrainings(usage, self.task.cost, floor, self.task.target.quality)
        return usage, replace(
            result,
            **_latencies(latencies, len(self.task.arms)),
            seconds_per_question=usage.seconds_per_question,
            processor_share=usage.processor_share,
            cost=cost_of(usage, self.task.cost, retrainings=retrainings),
        )

    def _begin_run(self, arm: Arm, seed: int = 0) -> None:
        """Mark the progress events as those of a run, and remove what the previous arm left on the base model."""
        self.progress.arm, self.progress.seed = arm.name, seed
        self._detach_weights(arm)

    def _detach_weights(self, arm: Arm) -> None:
        """Remove what the previous arm left on the base model."""
        if method_of(arm).uses_base:
            self.session.fresh_base()
        else:
            release_memory()

    def _score_retrieval(self, context: Context, rows: Sequence[Example]) -> tuple[Mapping[str, float], float]:
        """Return, by question, whether a context shows a right passage (1 or 0), and the seconds it took."""
        self.progress.emit("choose", note=f"{_context_summary(context)}, looked up for {len(rows)} rows")
        return gold_retrieved(self.session, context, rows)

    def _score_on_dev(self, context: Context, rows: Sequence[Example]) -> tuple[Mapping[str, float], float]:
        """Return the base model's scores on dev questions in a context, and the seconds it took."""
        self.session.fresh_base()
        self.progress.emit("choose", note=f"{_context_summary(context)} on {len(rows)} dev questions")
        if context.passages:
            _ = self.session.retriever.index_of(context.words)  # built once, by the first that needs it
        began = time.perf_counter()
        builder = PromptBuilder(self.session, context)
        with packed(self.session.base):
            if self.task.task.kind == "classify":
                scores = self._calibrated_hits(context, builder, rows)
            else:
                _, scores = score_on_dev(self.session, rows, builder, builder.answer, self.scorer)
        return scores, time.perf_counter() - began

    def _calibrated_hits(self, context: Context, builder: PromptBuilder, rows: Sequence[Example]) -> dict[str, float]:
        """Return, by question, 1 if it gets its right label in a context, by plain or by centred label scores.

        The arm's labels will be calibrated alike once its prompts are chosen, so shots that favour a few labels are
        not rejected for it. Questions of an earlier process are answered again, as their label scores were not
        saved.
        """
        sums_of, known = self._sums.setdefault(context, {}), self.scores.known(context)
        new = {row.id for row in rows}
        asked = [row for row in self.session.workspace.splits["dev"] if row.id in known or row.id in new]
        lacking = [row for row in asked if row.id not in sums_of]
        sums_of |= zip([row.id for row in lacking], self.session.label_sums(builder.prompts(lacking)), strict=True)
        labels, sums = self.session.workspace.labels, np.stack([sums_of[row.id] for row in asked])
        ways = (sums, sums - mean_offsets(sums)) if len(asked) >= LEAST_ROWS else (sums,)
        right = [
            [labels[place] == row.references[0] for place, row in zip(scores.argmax(axis=1), asked, strict=True)]
            for scores in ways
        ]
        return {row.id: float(hit) for row, hit in zip(asked, max(right, key=sum), strict=True)}

    def _dev_scores(self, arm: Arm, context: Context, trained: TrainedWeights, run: Path) -> Mapping[str, float]:
        """Return the dev scores that the arm got while it was built; no language model is run for it."""
        if arm.weights == "linear":
            dev = self.session.workspace.subset("dev", DEV_QUESTIONS)
            with ready_arm(self.session, arm, context, run) as ready:
                return score_on_dev(self.session, dev, ready.builder, ready.answer_batch, self.scorer)[1] if dev else {}
        if is_trained(arm) or arm.endpoint:
            return trained.dev_scores
        return self.scores.known(context)

    def _index_seconds(self, context: Context) -> float:
        """Return the seconds of building a context's index, now or earlier; 0 without retrieval."""
        if not context.passages:
            return 0.0
        self.progress.emit("index")
        index = self.session.retriever.index_of(context.words)
        if index.recall is not None:
            self.progress.emit("index", note=index.recall.sentence, stays=True)
        return index.seconds

    def _calibrate(self, arm: Arm, context: Context, run: Path, allowance: Allowance) -> float:
        """Calibrate a run's labels if there is time. Return the seconds."""
        return calibrate(self.session, arm, context, run, self.progress) if allowance.may_search else 0.0

    def _train(
        self,
        arm: Arm,
        context: Context,
        run: Path,
        seed: int,
        epochs: float | None,
        *,
        search: TrainingSearch | None = None,
        found: Recipe | None = None,
        like: Path | None = None,
    ) -> TrainedWeights:
        return train_weights(
            *(self.session, arm, context, run, self.progress),
            seed=seed,
            epochs=epochs,
            scorer=self.scorer,
            reward_program=self.reward_program,
            search=search,
            found=found,
            like=like,
        )

    def _answer_run(self, context: Context, ready: ReadyArm, split: Split, seed: int) -> AnsweredRun:
        """Return the answers of one run; of the first also the score that retrieval lost."""
        examples = self.session.workspace.splits[split]
        began = time.perf_counter()
        answers = self._answers(examples, ready, split, seed)
        seconds = time.perf_counter() - began
        looked_up = seed == 0 and context.passages
        figures = self._lost_to_retrieval(examples, answers, ready, split) if looked_up else {}
        return AnsweredRun(answers=tuple(answers), seconds=seconds, figures=figures)

    def _add_timings(self, found: _RunAnswers, ready: ReadyArm, split: Split) -> None:
        """Add the questions timed alone, of the first run."""
        with ProcessorShare() as processor:
            found.latencies, alone = self._time_questions(split, ready, 0 if split == "test" else None)
        found.processor_share = processor.share
        examples = {example.id: example for example in self.session.workspace.timed_questions(split)}

        def score(answers: Sequence[Generation]) -> Sequence[float]:
            asked = [examples[answer.id] for answer in answers]
            return score_all(asked, [answer.text for answer in answers], self.task, self.scorer)

        found.figures |= prefill_and_decode(alone) | alone_figures(alone, found.answers, score)

    def _answers(self, examples: Sequence[Example], ready: ReadyArm, split: Split, seed: int) -> list[Answer]:
        done = 0

        def counted(asked: Sequence[Prompt]) -> list[Generation]:
            nonlocal done
            generations: list[Generation] = []
            for start in range(0, len(asked), BATCH_ITEMS):
                part = asked[start : start + BATCH_ITEMS]
                generations += ready.answer_batch(part)
                done += len(part)
                self.progress.emit("answer", step=done, of=len(asked))
            return generations

        prompts = ready.builder.prompts(examples)
        return list(evaluate_prompts(examples, prompts, counted, self.task, split=split, seed=seed, scorer=self.scorer))

    def _lost_to_retrieval(
        self, examples: Sequence[Example], answers: Sequence[Answer], ready: ReadyArm, split: Split
    ) -> dict[str, float]:
        """Return how much higher the mean score is with every right passage; empty if the rows name none."""
        if not any(example.passages for example in examples):
            return {}
        put_right = ready.builder.with_gold_passage(examples)
        missed, prompts = [example for example, _ in put_right], [prompt for _, prompt in put_right]
        again = evaluate_prompts(
            missed, prompts, ready.answer_batch, self.task, split=split, seed=0, scorer=self.scorer
        )
        before = {answer.item_id: answer.score for answer in answers}
        gains = sum(answer.score - before[answer.item_id] for answer in again)
        return {"lost_to_retrieval": gains / len(examples)}

    def _time_questions(
        self, split: Split, ready: ReadyArm, number: int | None, most: int | None = None
    ) -> tuple[list[float], list[Generation]]:
        """Return the seconds and answers of single questions, at most `most` of one pass or all, after two for warming
        up; without a latency limit only as many as `is_timed_enough` asks for."""
        seconds, generations = [], []
        asked = self.session.workspace.timed_questions(split)[
            slice(None if number is None else number % self.passes, None, None if number is None else self.passes)
        ][:most]
        for number, example in enumerate([*asked[:2], *asked]):
            self.session.retriever.forget_hits()
            began = time.perf_counter()
            generations.append(ready.answer_one(ready.builder.prompts([example])[0]))
            seconds.append(time.perf_counter() - began)
            self.progress.emit("latency", step=number, of=len(asked) + 2)
            if self.task.target.latency_p95_ms is None and is_timed_enough(seconds[2:]):
                break
        return seconds[2:], generations[2:]

    def _usage(self, arm: Arm, artifact: ArmArtifact, found: _RunAnswers) -> Usage:
        price = self.task.api[arm.endpoint].price_per_million if arm.endpoint else None
        return Usage(
            train_seconds=float(np.mean([trained.seconds for trained in artifact.trained])),
            evaluation_seconds=found.answer_seconds,
            index_seconds=artifact.index_seconds,
            choose_seconds=artifact.choose_seconds,
            choose_fee=artifact.choose_fee,
            **_mean_seconds(found.latencies),
            prompt_tokens=float(np.mean([answer.prompt_tokens for answer in found.answers])),
            new_tokens=float(np.mean([answer.new_tokens for answer in found.answers])),
            runs_on_own_machine=arm.endpoint is None,
            trained=is_trained(arm),
            labels=self._labels(arm, artifact.context),
            token_fee=TokenFee(input=price.input, output=price.output) if price else None,
            making_share=artifact.processor_share,
            answering_share=None if arm.endpoint else found.processor_share,
        )

    def _labels(self, arm: Arm, context: Context) -> int:
        """Return the number of labelled training rows and judged answers that the arm learns from or shows."""
        workspace, learned = self.session.workspace, set(arm.stages) - {"docs", DISTILL}
        learns = arm.weights == "linear" or learned - set(JUDGED)
        rows = len(workspace.training_rows(arm.weights)) if learns else 0
        if not rows and context.shots:
            rows = context.shots if has_fixed_shots(context) else len(workspace.splits["train"])
        return rows + (len(workspace.preferences["train"]) if learned & set(JUDGED) else 0)

    def _result(self, arm: Arm, artifact: ArmArtifact, found: _RunAnswers, usage: Usage) -> ArmResult:
        score = score_estimate(found.answers, self.task)
        floor = score_floor(found.answers, self.task)
        retrainings = costed_retrainings(usage, self.task.cost, floor, self.task.target.quality)
        runs = by_seed(found.answers)
        index_bytes = self.session.retriever.index_bytes(artifact.context.words) if arm.retrieves else 0
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
            **_latencies(found.latencies, len(self.task.arms)),
            seconds_per_question=usage.seconds_per_question,
            processor_share=usage.processor_share,
            cost=cost_of(usage, self.task.cost, retrainings=retrainings),
            chosen=artifact.chosen,
            effort=artifact.effort,
            learning=artifact.learning,
            exposure=Exposure.of_seeds([trained.exposure for trained in artifact.trained if trained.exposure]),
        )
