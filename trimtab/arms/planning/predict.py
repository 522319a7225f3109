"""What every arm will take, foretold from a few real steps and answers of this machine before a study begins."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from statistics import fmean
from typing import Any

import psutil

from trimtab.arms.calibration import planned_weighing
from trimtab.arms.contexts import Context, PromptBuilder, context_for
from trimtab.arms.dev_eval import imitates_labels, questions_asked
from trimtab.arms.extract import planned_extract
from trimtab.arms.learning_curve import curve_seconds
from trimtab.arms.objectives import DEV_ROWS, judged_answers, training_rows
from trimtab.arms.planning.answering_rate import AnsweringRate, decoding_share, mean_tokens, shared_seconds
from trimtab.arms.planning.linear import plan_linear
from trimtab.arms.planning.memory import answering_memory, kept_bytes, training_memory
from trimtab.arms.planning.plan import ArmPlan, StagePlan
from trimtab.arms.planning.token_estimates import answer_tokens, prompt_tokens, shot_tokens
from trimtab.arms.recipe import Recipe, Stage, recipe_for
from trimtab.arms.search.context_search import SEARCH_SPACES, TrialPlan, plan_context_search
from trimtab.arms.search.lr_search import open_settings, planned_training
from trimtab.arms.search.passage_search import plan_passage_search
from trimtab.arms.session import BATCH_ITEMS, Session
from trimtab.arms.teacher import TeacherCost, predict_teacher_cost
from trimtab.arms.trainer import prepare_base
from trimtab.base.errors import MissingError, TrimtabError
from trimtab.base.grammar import DISTILL, HEAD, PREFERENCES, REWARD, REWARDED, is_taught, is_trained
from trimtab.base.machine import MemoryPeak, release_memory
from trimtab.base.progress import Progress
from trimtab.base.records import Arm, Example, Generation, Prompt
from trimtab.inference.engine import Engine
from trimtab.inference.kv_cache import copied_length, shared_length
from trimtab.model.fast.packed_weights import merged_and_packed, packed
from trimtab.model.fast.partial_forward import first_trainable_layer
from trimtab.training.activation_cache import cache_bytes
from trimtab.training.batch import default_microbatch_tokens
from trimtab.training.estimates import TrainingRate, measure_rate
from trimtab.training.parallel import parallel_lanes
from trimtab.training.rl import GROUP
from trimtab.training.sft import document_rows

SAMPLE = 16  # questions that are timed together
WHOLE_SECONDS = 15.0  # at most, for a whole batch of them: how long answers are, 16 do not tell
TIMED_SECONDS = 2.0  # of real training steps, for the rate of an arm
TIMED_TOKENS = 32  # of each answer, where whole ones would take too long
API_SECONDS = 5.0  # set aside in the budget for an endpoint, which is not timed
ALONE = 3  # questions that are timed alone at least, and more where these take less than twice TIMED_SECONDS
FEWER = 4  # the part of the questions that are timed again without the others: what all of them share weighs more there
STEP_PASSES = 3  # a step of training is as much work as three passes forward


def predict(
    session: Session, arms: Sequence[Arm], progress: Progress | None = None, *, seconds: float | None = None
) -> tuple[ArmPlan, ...]:
    """Foretell every arm from real steps and answers of this machine.

    `seconds`: how long that may take, None for as long as it needs. When they are over, the arms that are left are foretold from what
    was timed until then, by counted tokens; one answer is timed whatever it takes.
    """
    progress, timing = progress or Progress(), _Profiler(session, seconds)
    plans: list[ArmPlan] = []
    for number, arm in enumerate(arms, 1):
        progress.within(arm.name, 0).emit("plan", step=number, of=len(arms), note="timing a few steps")
        try:
            plans.append(timing.arm(arm))
        except MissingError:
            raise
        except (TrimtabError, RuntimeError, ValueError, MemoryError) as error:
            # an arm that cannot even begin takes no time; the study tries it all the same
            problem = " ".join(str(error).split()) or type(error).__name__
            plans.append(ArmPlan(arm=arm.name, problem=problem))
    return timing.with_memory_held(plans)


def _stage_plan(stage: Stage, tokens: float, rate: TrainingRate, work: TeacherCost, *, kept: bool) -> StagePlan:
    """What a stage over so many tokens takes, where what its frozen layers put out is `kept` or not, without its looks; `work` is a teacher's."""
    return StagePlan(
        epoch_seconds=rate.epoch_seconds(tokens, cached=kept),
        epochs=stage.epochs,
        once_seconds=rate.caching_seconds(tokens) if kept else 0.0,
        teacher_seconds=work.seconds if stage.name == DISTILL else 0.0,
    )


class _Profiler:
    """Times a context or a way of training while there is time, and foretells it from what was timed where there is none."""

    def __init__(self, session: Session, seconds: float | None) -> None:
        self.session, self._end = session, math.inf if seconds is None else time.perf_counter() + seconds
        self._rates: dict[Context, AnsweringRate] = {}  # answering costs alike for all weights
        self._training: dict[str, TrainingRate] = {}  # by weights
        self._embedded: float | None = None  # seconds a character
        self._token_seconds: float | None = None
        self._index_is_charged = False  # to the first arm that needs it, where there was no time to make it now

    @property
    def left(self) -> float:
        """Seconds that may still be spent."""
        return self._end - time.perf_counter()

    def arm(self, arm: Arm) -> ArmPlan:
        """The plan of one arm."""
        session, splits = self.session, self.session.workspace.splits
        if arm.endpoint:
            return ArmPlan(arm=arm.name, answer_seconds=API_SECONDS + self._fee_seconds(arm))
        if arm.weights == "linear":
            return plan_linear(session, arm, self._embedding, is_timed=self.left > 0)
        context = context_for(arm)
        if arm.weights == "extract":
            return planned_extract(session, arm, self._embedding, self._setup(context), SAMPLE if self.left > 0 else 1)
        rate = untrained = self._rate(context)
        if is_trained(arm):
            rate = rate.of_head() if HEAD in arm.stages else rate.answering(answer_tokens(self.session))
        tests, effort = len(splits["test"]), session.task.study.effort
        tried = plan_passage_search if is_trained(arm) else plan_context_search
        setup = 0.0 if context.passages and self._index_is_charged else self._setup(context)
        self._index_is_charged |= context.passages > 0
        plan = ArmPlan(
            arm=arm.name,
            answer_seconds=setup
            + self._beside_questions
            + rate.seconds(tests)
            + rate.alone * (len(session.timed_questions("test")) + 2),
            test_seconds=rate.seconds(tests) - rate.seconds(0),
            trials=(*tried(session, arm, effort, rate.many), *planned_weighing(session, arm, effort, rate.many)),
            memory_mb=rate.memory_mb,
            timed=rate.timed,
        )
        if not is_trained(arm):
            return plan
        made = recipe_for(session, arm, 0, by_need=session.task.study.effort in SEARCH_SPACES)
        prepare_base(session, made)
        each, speed, timed = self._training_rate(made, context, rate)
        canaries = session.task.data.canaries
        tokens = dict.fromkeys(arm.stages, each * len(splits["train"])) | {
            "sft": each * (len(splits["train"]) + canaries)
        }
        if any(stage.name == "docs" for stage in made.stages):
            rows = document_rows(session.workspace.documents, session.encoder)
            tokens["docs"] = sum(len(row.encoded.ids) for row in rows)
        for name in PREFERENCES.keys() & set(arm.stages):
            judged, _ = judged_answers(session, context, "train")
            tokens[name] = sum(len(answer.ids) for row in judged for answer in row.answers)
        for name in REWARDED.keys() & set(arm.stages):
            tokens[name] = self._tokens_of_rewards(each, speed, rate)
        work = self._work_of_teacher(each, untrained) if is_taught(arm) else TeacherCost()
        tokens[DISTILL] = work.tokens
        asked = round(each * len(session.part("dev", DEV_ROWS)))
        kept = {stage.name: kept_bytes(session, stage, round(tokens[stage.name])) for stage in made.stages}
        stages = [
            replace(
                _stage_plan(stage, tokens[stage.name], speed, work, kept=bool(kept[stage.name])),
                look_seconds=self._look(stage, asked, speed, rate),
            )
            for stage in made.stages
        ]
        return replace(
            plan,
            stages=tuple(stages),
            trials=(*plan.trials, *self._of_training(arm, made, context, stages)),
            curve_seconds=curve_seconds(session, made, stages, rate.many),
            memory_mb=training_memory(
                session, made, speed, rate, each, max(kept.values()) + cache_bytes(session.base, asked) + work.bytes
            ),
            timed=rate.timed and timed,
        )

    def _fee_seconds(self, arm: Arm) -> float:
        """Seconds of a budget in money that the fees of an endpoint's answers take, by counted tokens."""
        session, tests = self.session, len(self.session.workspace.splits["test"])
        price = session.task.api[arm.endpoint or ""].price_per_million
        if price is None or not session.task.seconds_of(1.0):
            return 0.0
        read, written = prompt_tokens(session, context_for(arm)), answer_tokens(session)
        fee = (read * price.input + written * price.output) / 1e6
        return session.task.seconds_of(fee * (tests + len(session.timed_questions("test")) + 2))

    def _look(self, stage: Stage, dev_tokens: int, speed: TrainingRate, rate: AnsweringRate) -> float:
        """Seconds of a look at dev in a stage: its loss over dev, where there is one, and the questions asked of what answers."""
        dev = len(self.session.workspace.splits["dev"])
        if stage.name == "docs" or not dev:
            return 0.0
        without = imitates_labels(self.session, stage.name) or stage.name in REWARDED
        loss = 0.0 if without else speed.epoch_seconds(dev_tokens, cached=True) / STEP_PASSES
        if stage.name == REWARD:
            return loss
        return loss + rate.seconds(min(dev, questions_asked(self.session, stage.name))) + self._beside_questions

    @cached_property
    def _beside_questions(self) -> float:
        """Seconds beside questions, and beside the loss of a look: weights are made ready to answer, and freed memory is given back before and behind."""
        if self.left <= 0:
            return 0.0
        began = time.perf_counter()
        with merged_and_packed(self.session.base):
            pass
        for _ in range(2):
            release_memory()
        return time.perf_counter() - began

    def _of_training(
        self, arm: Arm, made: Recipe, context: Context, plans: Sequence[StagePlan]
    ) -> tuple[TrialPlan, ...]:
        """What may be tried of every stage that dev can judge."""
        menu = SEARCH_SPACES.get(self.session.task.study.effort)
        if menu is None or not self.session.workspace.splits["dev"]:
            return ()
        trials: list[TrialPlan] = []
        for number, (stage, plan) in enumerate(zip(made.stages, plans, strict=True)):
            if stage.name != "docs":
                free, whole = open_settings(arm, made, number, context), plan.epoch_seconds * plan.epochs
                trials += planned_training(stage.name, free, menu, whole, plan.look_seconds)
        return tuple(trials)

    def with_memory_held(self, plans: Sequence[ArmPlan]) -> tuple[ArmPlan, ...]:
        """The plans with what the process holds from now on added to what answering needs: models, index and all that was imported."""
        if self._rates:
            self.session.fresh_base()
        held = psutil.Process().memory_info().rss / 1e6
        return tuple(
            replace(plan, memory_mb=plan.memory_mb + held) if plan.memory_mb is not None and not plan.stages else plan
            for plan in plans
        )

    # ---- answering

    def _rate(self, context: Context) -> AnsweringRate:
        """How fast a context is answered: timed where there is time for it, else by its tokens from one that was timed."""
        if context in self._rates:
            return self._rates[context]
        setup = self._setup(context)
        if not self._rates and setup and setup > self.left:
            self._rates[Context()] = self._timed(Context())  # needs nothing embedded
        known = max(self._rates.values(), key=lambda rate: rate.tokens, default=None)
        if known is None:
            found = self._timed(context)
        else:
            found = self._carried(context, known)
            if setup + 2 * found.alone + SAMPLE * found.many <= self.left:
                found = self._timed(context)
        self._rates[context] = found
        return found

    def _timed(self, context: Context) -> AnsweringRate:
        """Speed and memory of the base model on a few questions, a batch of them and whole answers where there is time for these."""
        session, splits = self.session, self.session.workspace.splits
        session.fresh_base()
        with MemoryPeak() as memory, packed(session.base):
            builder, questions = PromptBuilder(session, context), self._questions()
            prompts = builder.prompts(questions[:SAMPLE])
            most = None if math.isinf(self._end) else TIMED_TOKENS
            closed = session.task.task.kind == "classify"
            quotes = {"quote": context.quote}  # as it answers: a quote ends elsewhere than free text
            first = {"held": session.held(prompts)} if closed else {"engine": session.engine(prompts)}
            held: dict[str, Any] = {**quotes, **first}
            alone, given = self._answered(prompts[:1], most, **held)  # as it is served
            may_end = most is not None and 5 * alone <= self.left / 2
            if may_end:
                most = None
            if may_end or self._was_cold(alone):  # some take far longer than others, and one in a few is no measure
                alone, given = self._alone(prompts[::-1], most, held)
            several, answers = (
                self._answered(prompts, most, **quotes) if self.left > 0 else (alone * len(prompts), given)
            )
            if self._was_cold(several):
                several, answers = self._answered(prompts, most, **quotes)
            whole = several * len(questions) / len(prompts)
            if len(questions) >= 2 * SAMPLE and whole <= min(WHOLE_SECONDS, self.left / 8):
                some, few, prompts = prompts, several, builder.prompts(questions)
                several, answers = self._answered(prompts, most, **quotes)
            else:
                some = prompts[::FEWER]
                few = self._answered(some, most, **quotes)[0] if self.left > 0 else several * len(some) / len(prompts)
            ids = [session.encoder.prompt(prompt.messages) for prompt in prompts]
            token = self._token(ids[0])
        shared, count = shared_length(ids), len(prompts)
        own = max(map(len, ids)) - shared + copied_length(shared)
        together = shared_seconds(len(some), few, count, several)
        rate = AnsweringRate(
            each=(several - together) / count,
            together=together,
            alone=alone,
            token=token,
            tokens=sum(map(len, ids)) / len(ids),
            own=own,
            memory_mb=max(memory.beyond(), answering_memory(session, own, len(splits["test"]))),
            timed=True,
            decoding=decoding_share(given),
            new_tokens=mean_tokens(given),
        )
        return rate.usual(mean_tokens(answers))

    def _alone(
        self, prompts: Sequence[Prompt], most: int | None, held: Mapping[str, Any]
    ) -> tuple[float, list[Generation]]:
        """Seconds of a question alone, by some of them one after another, and their answers."""
        seconds, given = 0.0, list[Generation]()
        for prompt in prompts:
            if len(given) >= ALONE and not self._was_cold(seconds / 2):
                break
            taken, own = self._answered([prompt], most, **held)
            seconds += taken
            given += own
        return seconds / len(given), given

    def _questions(self) -> list[Example]:
        """As many as a batch has, of dev and behind it of train; the first of them stand for all."""
        dev, train = (self.session.part(name, BATCH_ITEMS) for name in ("dev", "train"))
        first = self.session.part("dev" if dev else "train", SAMPLE)
        return list({one.id: one for one in (*first, *dev, *train)}.values())[:BATCH_ITEMS]

    def _was_cold(self, seconds: float) -> bool:
        """Whether work that took so long is to be timed again: its first time is cold, which longer work does not feel."""
        return seconds < TIMED_SECONDS and self.left > 0

    def _token(self, ids: Sequence[int]) -> float:
        """Seconds of reading a token in a pass of many, timed once: a short prompt alone takes longer for each of its own."""
        if self._token_seconds is None:
            most = min(default_microbatch_tokens(self.session.base.model.dtype), self.session.context_tokens)
            several = [*ids] * (most // max(1, len(ids)) + 1)
            several, taken = several[:most], []
            for _ in range(2):  # a length that was not seen yet is slower
                began = time.perf_counter()
                Engine(self.session.base, frozenset()).pin(several)
                taken.append(time.perf_counter() - began)
            self._token_seconds = min(taken) / max(1, len(several))
        return self._token_seconds

    def _answered(self, prompts: Sequence[Prompt], most: int | None, **held: Any) -> tuple[float, list[Generation]]:
        """Seconds of answering all of them; where answers were cut at `most` tokens, as if those went on to the longest."""
        began = time.perf_counter()
        given = self.session.answer(prompts, most=most, **held)
        taken = time.perf_counter() - began
        if most is None or self.session.task.task.kind == "classify":
            return taken, given
        decoding = [one.seconds - (one.prefill_seconds or 0.0) for one in given]
        whole = [
            seconds * (self.session.output_tokens / one.new_tokens if one.new_tokens >= most else 1.0)
            for seconds, one in zip(decoding, given, strict=True)
        ]
        return taken + (sum(whole) - sum(decoding)), given

    def _carried(self, context: Context, known: AnsweringRate) -> AnsweringRate:
        """A context's rate from another one's: tokens that all prompts share are read once, the others cost what they cost there."""
        tokens = prompt_tokens(self.session, context)
        own = tokens - (shot_tokens(self.session, context) if context.shot_kind == "few-shot" else 0.0)
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

    def _training_rate(self, made: Recipe, context: Context, rate: AnsweringRate) -> tuple[float, TrainingRate, bool]:
        """Tokens of a training row, how fast steps go, and whether that was timed."""
        session = self.session
        rows = 2 * made.batch + (2 * SAMPLE if first_trainable_layer(session.base.model) else 0)  # cold ones first
        passes = rows * rate.tokens * STEP_PASSES * rate.token
        if self._setup(context) + passes + TIMED_SECONDS <= self.left:
            sample = training_rows(session, context, session.part("train", 2 * SAMPLE), 0)[0]
            self._training[made.method] = measure_rate(session.base, sample, made.batch, TIMED_SECONDS)
            return sum(len(row.encoded.ids) for row in sample) / len(sample), self._training[made.method], True
        seconds = [known.epoch_seconds(1, cached=False) for known in self._training.values()] or [
            STEP_PASSES * rate.token
        ]
        speed = self._training.get(made.method) or TrainingRate(tokens_per_second=1 / max(*seconds, 1e-9))
        each = prompt_tokens(self.session, context) + answer_tokens(self.session)
        tokens = round(max(default_microbatch_tokens(session.base.model.dtype), each)) * parallel_lanes()
        return each, replace(speed, pass_tokens=tokens), False

    def _tokens_of_rewards(self, each: float, speed: TrainingRate, rate: AnsweringRate) -> float:
        """Tokens that could be trained on in the time of an epoch of drawn answers: drawing them, reading them twice, training on them."""
        answers = GROUP * answer_tokens(self.session)
        read = (each + answers) * (1 + 2 / STEP_PASSES)
        drawn = GROUP * rate.many / speed.epoch_seconds(1, cached=False)
        return len(self.session.workspace.splits["train"]) * (drawn + read)

    def _work_of_teacher(self, each: float, rate: AnsweringRate) -> TeacherCost:
        """What a teacher takes that answers at as much length as the base; `each`: tokens of a row with its own answer."""
        session, own = self.session, answer_tokens(self.session)
        new = own if session.task.task.kind == "classify" else rate.new_tokens
        tokens, rows = each - own + new, len(session.workspace.splits["train"])
        if session.task.teacher.api is not None:
            return TeacherCost(seconds=API_SECONDS, tokens=tokens * rows)
        questions = rows + len(session.part("dev", DEV_ROWS))
        work = predict_teacher_cost(session, questions, rate.many + tokens * rate.token, new)
        return replace(work, tokens=tokens * rows)

    # ---- what is embedded

    def _setup(self, context: Context) -> float:
        """Seconds of embedding what a context looks its passages or shots up in; nothing is counted where time is not limited."""
        if math.isinf(self._end):
            return 0.0
        session = self.session
        texts = session.unindexed(context.words) if context.passages else []
        if context.shot_kind == "nearest-shots":
            texts = [*texts, *(row.input for row in session.workspace.splits["train"])]
        if not texts:
            return 0.0
        if self._embedded is None:
            some = [row.input for row in session.part("train", SAMPLE)]
            self._embedded = self._embedding(some) / max(1, sum(map(len, some)))
        return self._embedded * sum(map(len, texts))

    def _embedding(self, texts: Sequence[str]) -> float:
        """Seconds of embedding some texts, again and again for as long as that is little: a moment of a busy machine is no measure."""

        def taken() -> float:
            began = time.perf_counter()
            self.session.embedder.encode(texts)
            return time.perf_counter() - began

        self.session.embedder.encode(texts[:1])  # loads it
        first = taken()
        warm: list[float] = []
        while len(warm) < SAMPLE and self._was_cold(first + sum(warm)):
            warm.append(taken())
        return fmean(warm or [first])
