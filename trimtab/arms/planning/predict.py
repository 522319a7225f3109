"""Prediction of every arm's time and memory from a few timed training steps and answers on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from statistics import fmean
from typing import Any

import psutil

from trimtab.arms.calibration import plan_calibration
from trimtab.arms.contexts import Context, PromptBuilder, context_for, has_fixed_shots
from trimtab.arms.dev_eval import dev_question_limit, imitates_labels
from trimtab.arms.extract import planned_extract
from trimtab.arms.learning_curve import curve_seconds
from trimtab.arms.objectives import DEV_ROWS, judged_answers, training_rows
from trimtab.arms.planning.answering_rate import (
    AnsweringRate,
    answer_tokens,
    decoding_share,
    mean_tokens,
    prompt_tokens,
    shared_seconds,
    shot_tokens,
)
from trimtab.arms.planning.linear import plan_linear
from trimtab.arms.planning.memory import answering_memory, checkpointing_note, kept_bytes, training_memory
from trimtab.arms.planning.plan import ArmPlan, JudgingCost, StagePlan
from trimtab.arms.recipe import Recipe, Stage, recipe_for
from trimtab.arms.search.context_search import SEARCH_SPACES, TrialPlan, plan_context_search
from trimtab.arms.search.lr_search import open_settings, planned_training
from trimtab.arms.search.passage_search import plan_passage_search
from trimtab.arms.session import BATCH_ITEMS, Session
from trimtab.arms.teacher import TeacherCost, predict_teacher_cost
from trimtab.arms.trainer import prepare_base
from trimtab.base.errors import MissingError, TrimtabError
from trimtab.base.grammar import DISTILL, HEAD, PARTS, PREFERENCES, REWARD, REWARDED, imitates_teacher, is_trained
from trimtab.base.machine import MemoryPeak, release_memory
from trimtab.base.progress import Progress
from trimtab.base.records import Arm, Example, Generation, Prompt
from trimtab.inference.engine import Engine
from trimtab.inference.kv_cache import reads_prefixes_in_place, shared_length
from trimtab.model.fast.packed_weights import merged_and_packed, packed
from trimtab.model.fast.partial_forward import first_trainable_layer
from trimtab.training.activation_cache import cache_bytes
from trimtab.training.batch import MICRO_TOKENS
from trimtab.training.estimates import TrainingRate, measure_rate
from trimtab.training.parallel import parallel_lanes
from trimtab.training.rl import GROUP
from trimtab.training.sft import document_rows

SAMPLE = 16  # questions timed in one batch
WHOLE_SECONDS = 15.0  # at most, for a full batch: 16 answers do not show the answer length
TIMED_SECONDS = 2.0  # seconds of training steps for the rate of an arm
TIMED_TOKENS = 32  # tokens per answer if whole answers would take too long
API_SECONDS = 5.0  # seconds of the budget for an endpoint, which is not timed
ALONE = 3  # smallest number of questions timed alone; more if these take less than twice TIMED_SECONDS
FEWER = 4  # share of the questions timed again without the others, where shared work weighs more
STEP_PASSES = 3  # a training step costs as much as three forward passes


def predict(
    session: Session,
    arms: Sequence[Arm],
    progress: Progress | None = None,
    *,
    seconds: float | None = None,
    judging: JudgingCost | None = None,
) -> tuple[ArmPlan, ...]:
    """Predict every arm from timed steps and answers on this machine.

    `seconds`: time limit, None for none. After it, the remaining arms are predicted from earlier timings by token
    counts; one answer is timed in any case. `judging`: what judging an answer takes, where a judge does.
    """
    judging_seconds = judging.budget_seconds(session.task) if judging else 0.0
    checking = judging.sentences.budget_seconds(session.task) if judging and judging.sentences else 0.0
    checking_seconds = checking * len(session.workspace.splits["test"])
    progress, timing = progress or Progress(), _Profiler(session, seconds, judging_seconds)
    plans: list[ArmPlan] = []
    for number, arm in enumerate(arms, 1):
        progress.for_run(arm.name, 0).emit("plan", step=number, of=len(arms), note="timing a few steps")
        try:
            plan = timing.arm(arm)
            plans.append(plan.with_judging(checking_seconds) if arm.retrieves else plan)
        except MissingError:
            raise
        except (TrimtabError, RuntimeError, ValueError, MemoryError) as error:
            # an arm that cannot begin takes no time; the study still tries it
            problem = " ".join(str(error).split()) or type(error).__name__
            plans.append(ArmPlan(arm=arm.name, problem=problem))
    return timing.with_process_memory(plans)


def _stage_plan(stage: Stage, tokens: float, rate: TrainingRate, work: TeacherCost, *, kept: bool) -> StagePlan:
    """Return the predicted seconds of a stage over `tokens` tokens. `kept`: outputs of frozen layers are cached."""
    return StagePlan(
        epoch_seconds=rate.epoch_seconds(tokens, cached=kept),
        epochs=stage.epochs,
        once_seconds=rate.caching_seconds(tokens) if kept else 0.0,
        teacher_seconds=work.seconds if stage.name == DISTILL else 0.0,
    )


class _Profiler:
    """Times contexts and training methods while there is time, and extrapolates from earlier timings afterwards."""

    def __init__(self, session: Session, seconds: float | None, judging_seconds: float = 0.0) -> None:
        self.session, self._end = session, math.inf if seconds is None else time.perf_counter() + seconds
        self._judging_seconds = judging_seconds  # of the budget, for an answer that is scored
        self._rates: dict[Context, AnsweringRate] = {}  # answering costs the same for all weights
        self._training: dict[str, TrainingRate] = {}  # by weights
        self._embedded: float | None = None  # seconds a character
        self._token_seconds: float | None = None
        self._index_is_charged = False  # charged to the first arm that needs it, if there was no time to build it now

    @property
    def left(self) -> float:
        """Return the remaining seconds."""
        return self._end - time.perf_counter()

    def arm(self, arm: Arm) -> ArmPlan:
        """Return the plan of one arm."""
        session, splits = self.session, self.session.workspace.splits
        if arm.endpoint:
            plan = ArmPlan(arm=arm.name, answer_seconds=API_SECONDS + self._fee_seconds(arm))
            return plan.with_judging(self._judging_seconds * len(splits["test"]))
        if arm.weights == "linear":
            return plan_linear(session, arm, self._embedding, is_timed=self.left > 0)
        context = context_for(arm)
        if arm.weights == "extract":
            plan = planned_extract(
                session, arm, self._embedding, self._indexing_seconds(context), SAMPLE if self.left > 0 else 1
            )
            return plan.with_judging(self._judging_seconds * len(splits["test"]))
        rate = untrained = self._rate(context)
        if is_trained(arm):
            rate = rate.of_head() if HEAD in arm.stages else rate.with_new_tokens(answer_tokens(self.session))
        scored = rate.with_judging(self._judging_seconds)
        tests, effort = len(splits["test"]), session.task.study.effort
        tried = plan_passage_search if is_trained(arm) else plan_context_search
        setup = 0.0 if context.passages and self._index_is_charged else self._indexing_seconds(context)
        self._index_is_charged |= context.passages > 0
        plan = ArmPlan(
            arm=arm.name,
            answer_seconds=setup
            + self._switching_seconds
            + scored.seconds(tests)
            + session.workspace.timing_seconds(rate.alone),
            test_seconds=scored.seconds(tests) - scored.seconds(0),
            trials=(
                *tried(session, arm, effort, scored.batch_mean_seconds),
                *plan_calibration(session, arm, effort, scored.batch_mean_seconds),
            ),
            memory_mb=rate.memory_mb,
            timed=rate.timed,
        )
        if not is_trained(arm):
            return plan
        recipe = recipe_for(session, arm, 0, by_need=session.task.study.effort in SEARCH_SPACES)
        prepare_base(session, recipe)
        each, speed, timed = self._training_rate(recipe, context, rate)
        memorisation_canaries = session.task.data.canaries
        tokens = dict.fromkeys(arm.stages, each * len(splits["train"])) | {
            "sft": each * (len(splits["train"]) + memorisation_canaries)
        }
        if any(stage.name == "docs" for stage in recipe.stages):
            rows = document_rows(session.workspace.documents, session.encoder, folder=session.workspace.folder)
            tokens["docs"] = int(rows.lengths.sum())
        for name in PREFERENCES.keys() & set(arm.stages):
            judged, _ = judged_answers(session, context, "train")
            tokens[name] = judged.tokens
        for name in REWARDED.keys() & set(arm.stages):
            tokens[name] = self._rollout_tokens(each, speed, rate)
        work = self._teacher_cost(each, untrained) if imitates_teacher(arm) else TeacherCost()
        tokens[DISTILL] = work.tokens
        asked = round(each * len(session.workspace.subset("dev", DEV_ROWS)))
        kept = {stage.name: kept_bytes(session, stage, round(tokens[stage.name])) for stage in recipe.stages}
        cached = max(kept.values()) + cache_bytes(session.base, asked) + work.bytes
        stages = [
            replace(
                _stage_plan(stage, tokens[stage.name], speed, work, kept=bool(kept[stage.name])),
                look_seconds=self._dev_evaluation_seconds(stage, asked, speed, scored),
            )
            for stage in recipe.stages
        ]
        return replace(
            plan,
            stages=tuple(stages),
            trials=(*plan.trials, *self._training_trials(arm, recipe, context, stages)),
            curve_seconds=curve_seconds(session, recipe, stages, scored.batch_mean_seconds),
            memory_mb=training_memory(session, recipe, speed, rate, each, cached),
            timed=rate.timed and timed,
            note=checkpointing_note(session, recipe, speed, each, cached),
        )

    def _fee_seconds(self, arm: Arm) -> float:
        """Return the seconds of a budget in money that an endpoint's fees use up, by token counts."""
        session, tests = self.session, len(self.session.workspace.splits["test"])
        price = session.task.api[arm.endpoint or ""].price_per_million
        if price is None or not session.task.seconds_of(1.0):
            return 0.0
        fee = price.fee(prompt_tokens(session, context_for(arm)), answer_tokens(session))
        return session.task.seconds_of(fee * (tests + len(session.workspace.timed_questions("test")) + 2))

    def _dev_evaluation_seconds(self, stage: Stage, dev_tokens: int, speed: TrainingRate, rate: AnsweringRate) -> float:
        """Return the seconds of a dev evaluation in a stage: its loss, if any, and the answers."""
        dev = len(self.session.workspace.splits["dev"])
        if stage.name == "docs" or not dev:
            return 0.0
        without = imitates_labels(self.session, stage.name) or stage.name in REWARDED
        loss = 0.0 if without else speed.epoch_seconds(dev_tokens, cached=True) / STEP_PASSES
        if stage.name == REWARD:
            return loss
        return loss + rate.seconds(min(dev, dev_question_limit(self.session, stage.name))) + self._switching_seconds

    @cached_property
    def _switching_seconds(self) -> float:
        """Return the seconds of preparing weights for answering, and of releasing memory before and after."""
        if self.left <= 0:
            return 0.0
        began = time.perf_counter()
        with merged_and_packed(self.session.base):
            pass
        for _ in range(2):
            release_memory()
        return time.perf_counter() - began

    def _training_trials(
        self, arm: Arm, recipe: Recipe, context: Context, plans: Sequence[StagePlan]
    ) -> tuple[TrialPlan, ...]:
        """Return the possible trials of every stage that dev can evaluate."""
        menu = SEARCH_SPACES.get(self.session.task.study.effort)
        if menu is None or not self.session.workspace.splits["dev"]:
            return ()
        trials: list[TrialPlan] = []
        for number, (stage, plan) in enumerate(zip(recipe.stages, plans, strict=True)):
            if stage.name != "docs":
                free, whole = open_settings(arm, recipe, number, context), plan.epoch_seconds * plan.epochs
                trials += planned_training(stage.name, free, menu, whole, plan.look_seconds)
        return tuple(trials)

    def with_process_memory(self, plans: Sequence[ArmPlan]) -> tuple[ArmPlan, ...]:
        """Return the plans with the process's present memory added: models, index and imported libraries."""
        if self._rates:
            self.session.fresh_base()
        held = psutil.Process().memory_info().rss / 1e6
        return tuple(
            replace(plan, memory_mb=plan.memory_mb + held) if plan.memory_mb is not None and not plan.stages else plan
            for plan in plans
        )

    # ---- answering

    def _rate(self, context: Context) -> AnsweringRate:
        """Return the answering rate of a context: timed if there is time, else extrapolated from a timed one."""
        if context in self._rates:
            return self._rates[context]
        setup = self._indexing_seconds(context)
        if not self._rates and setup and setup > self.left:
            self._rates[Context()] = self._measured_rate(Context())  # needs no embedding
        known = max(self._rates.values(), key=lambda rate: rate.tokens, default=None)
        if known is None:
            found = self._measured_rate(context)
        else:
            found = self._extrapolated_rate(context, known)
            if setup + 2 * found.alone + SAMPLE * found.batch_mean_seconds <= self.left:
                found = self._measured_rate(context)
        self._rates[context] = found
        return found

    def _measured_rate(self, context: Context) -> AnsweringRate:
        """Return speed and memory of the base model on a few questions, or on a batch if there is time."""
        session, splits = self.session, self.session.workspace.splits
        session.fresh_base()
        with MemoryPeak() as memory, packed(session.base):
            builder, questions = PromptBuilder(session, context), self._questions()
            prompts = builder.prompts(questions[:SAMPLE])
            most = None if math.isinf(self._end) else TIMED_TOKENS
            closed = session.task.task.kind == "classify"
            quotes = {"quote": context.quote}  # as in answering: a quote ends elsewhere than free text
            first = {"held": session.shared_prefix(prompts)} if closed else {"engine": session.engine(prompts)}
            held: dict[str, Any] = {**quotes, **first}
            alone, generations = self._time_batch(prompts[:1], most, **held)  # as in serving
            may_end = most is not None and 5 * alone <= self.left / 2
            if may_end:
                most = None
            if may_end or self._was_cold(alone):  # some take far longer than others, so a few questions are no measure
                alone, generations = self._time_alone(prompts[::-1], most, held)
            several, answers = (
                self._time_batch(prompts, most, **quotes) if self.left > 0 else (alone * len(prompts), generations)
            )
            if self._was_cold(several):
                several, answers = self._time_batch(prompts, most, **quotes)
            whole = several * len(questions) / len(prompts)
            if len(questions) >= 2 * SAMPLE and whole <= min(WHOLE_SECONDS, self.left / 8):
                some, few, prompts = prompts, several, builder.prompts(questions)
                several, answers = self._time_batch(prompts, most, **quotes)
            else:
                some = prompts[::FEWER]
                few = self._time_batch(some, most, **quotes)[0] if self.left > 0 else several * len(some) / len(prompts)
            ids = [session.encoder.prompt(prompt.messages) for prompt in prompts]
            token = self._prefill_token_seconds(ids[0])
        shared, count = shared_length(ids), len(prompts)
        own = max(map(len, ids)) - (shared if reads_prefixes_in_place(session.base) else 0)
        together = shared_seconds(len(some), few, count, several)
        rate = AnsweringRate(
            each=(several - together) / count,
            together=together,
            alone=alone,
            token=token,
            tokens=sum(map(len, ids)) / len(ids),
            own=own,
            memory_mb=max(memory.above_present(), answering_memory(session, own, len(splits["test"]))),
            timed=True,
            decoding=decoding_share(generations),
            new_tokens=mean_tokens(generations),
        )
        return rate.at_usual_length(mean_tokens(answers))

    def _time_alone(
        self, prompts: Sequence[Prompt], most: int | None, held: Mapping[str, Any]
    ) -> tuple[float, list[Generation]]:
        """Return the mean seconds of single questions, one after another, and their answers."""
        seconds, generations = 0.0, list[Generation]()
        for prompt in prompts:
            if len(generations) >= ALONE and not self._was_cold(seconds / 2):
                break
            taken, own = self._time_batch([prompt], most, **held)
            seconds += taken
            generations += own
        return seconds / len(generations), generations

    def _questions(self) -> list[Example]:
        """Return a batch of questions from dev and then train; the first ones represent all."""
        dev, train = (self.session.workspace.subset(name, BATCH_ITEMS) for name in ("dev", "train"))
        first = self.session.workspace.subset("dev" if dev else "train", SAMPLE)
        return list({example.id: example for example in (*first, *dev, *train)}.values())[:BATCH_ITEMS]

    def _was_cold(self, seconds: float) -> bool:
        """True if work this short must be timed again: a first run is cold, which longer work does not notice."""
        return seconds < TIMED_SECONDS and self.left > 0

    def _prefill_token_seconds(self, ids: Sequence[int]) -> float:
        """Return the seconds of prefill per token in a pass of many: a short prompt takes longer per token."""
        if self._token_seconds is None:
            most = min(MICRO_TOKENS, self.session.context_tokens)
            several = [*ids] * (most // max(1, len(ids)) + 1)
            several, taken = several[:most], []
            for _ in range(2):  # a new length is slower
                began = time.perf_counter()
                Engine(self.session.base, frozenset()).pin(several)
                taken.append(time.perf_counter() - began)
            self._token_seconds = min(taken) / max(1, len(several))
        return self._token_seconds

    def _time_batch(self, prompts: Sequence[Prompt], most: int | None, **held: Any) -> tuple[float, list[Generation]]:
        """Return the seconds of answering all prompts; answers cut at `most` tokens are extrapolated to the longest."""
        began = time.perf_counter()
        generations = self.session.answer(prompts, most=most, **held)
        taken = time.perf_counter() - began
        if most is None or self.session.task.task.kind == "classify":
            return taken, generations
        decoding = [generation.seconds - (generation.prefill_seconds or 0.0) for generation in generations]
        whole = [
            seconds * (self.session.output_tokens / generation.new_tokens if generation.new_tokens >= most else 1.0)
            for seconds, generation in zip(decoding, generations, strict=True)
        ]
        return taken + (sum(whole) - sum(decoding)), generations

    def _extrapolated_rate(self, context: Context, known: AnsweringRate) -> AnsweringRate:
        """Return a context's rate from another's, by their tokens; those of the shared prefix are read once."""
        tokens = prompt_tokens(self.session, context)
        own = tokens - (shot_tokens(self.session, context) if has_fixed_shots(context) else 0.0)
        more = max(0.0, own - known.tokens) * known.token
        memory = answering_memory(self.session, round(own), len(self.session.workspace.splits["test"]))
        return replace(
            known,
            each=known.each + more,
            alone=known.alone + more,
            tokens=tokens,
            own=round(own),
            memory_mb=memory,
            timed=False,
        )

    # ---- training

    def _training_rate(self, recipe: Recipe, context: Context, rate: AnsweringRate) -> tuple[float, TrainingRate, bool]:
        """Return the tokens of a training row, the training rate, and True if it was timed."""
        session = self.session
        rows = 2 * recipe.batch + (2 * SAMPLE if first_trainable_layer(session.base.model) else 0)  # cold ones first
        passes = rows * rate.tokens * STEP_PASSES * rate.token
        if self._indexing_seconds(context) + passes + TIMED_SECONDS <= self.left:
            sample = training_rows(session, context, session.workspace.subset("train", 2 * SAMPLE), 0)[0]
            self._training[recipe.method] = measure_rate(session.base, sample, recipe.batch, TIMED_SECONDS)
            return sum(len(row.encoded.ids) for row in sample) / len(sample), self._training[recipe.method], True
        seconds = [known.epoch_seconds(1, cached=False) for known in self._training.values()] or [
            STEP_PASSES * rate.token
        ]
        speed = self._training.get(recipe.method) or TrainingRate(tokens_per_second=1 / max(*seconds, 1e-9))
        each = prompt_tokens(self.session, context) + answer_tokens(self.session)
        tokens = round(max(MICRO_TOKENS, each)) * parallel_lanes()
        return each, replace(speed, pass_tokens=tokens), False

    def _rollout_tokens(self, each: float, speed: TrainingRate, rate: AnsweringRate) -> float:
        """Return the tokens that could be trained on in the time of an epoch of rollouts."""
        answers = GROUP * answer_tokens(self.session)
        read = (each + answers) * (1 + 2 / STEP_PASSES)
        drawn = GROUP * rate.batch_mean_seconds / speed.epoch_seconds(1, cached=False)
        return len(self.session.workspace.splits["train"]) * (drawn + read)

    def _teacher_cost(self, each: float, rate: AnsweringRate) -> TeacherCost:
        """Return the cost of a teacher with answers as long as the base model's. `each`: tokens of a row."""
        session, own = self.session, answer_tokens(self.session)
        new = own if session.task.task.kind == "classify" else rate.new_tokens
        tokens, rows = each - own + new, len(session.workspace.splits["train"])
        if session.task.teacher.api is not None:
            return TeacherCost(seconds=API_SECONDS, tokens=tokens * rows)
        questions = rows + len(session.workspace.subset("dev", DEV_ROWS))
        work = predict_teacher_cost(session, questions, rate.batch_mean_seconds + tokens * rate.token, new)
        return replace(work, tokens=tokens * rows)

    # ---- what is embedded

    def _indexing_seconds(self, context: Context) -> float:
        """Return the seconds of embedding what a context retrieves passages or shots from; 0 without a time limit."""
        if math.isinf(self._end):
            return 0.0
        session = self.session
        texts = session.retriever.texts_to_embed(context.words) if context.passages else []
        if context.shot_kind and PARTS[context.shot_kind].embeds:
            texts = [*texts, *(row.input for row in session.workspace.splits["train"])]
        if not texts:
            return 0.0
        if self._embedded is None:
            some = [row.input for row in session.workspace.subset("train", SAMPLE)]
            self._embedded = self._embedding(some) / max(1, sum(map(len, some)))
        return self._embedded * sum(map(len, texts))

    def _embedding(self, texts: Sequence[str]) -> float:
        """Return the seconds of embedding some texts, timed again while that is short."""

        def taken() -> float:
            began = time.perf_counter()
            self.session.retriever.embedder.encode(texts)
            return time.perf_counter() - began

        self.session.retriever.embedder.encode(texts[:1])  # loads it
        first = taken()
        warm: list[float] = []
        while len(warm) < SAMPLE and self._was_cold(first + sum(warm)):
            warm.append(taken())
        return fmean(warm or [first])
