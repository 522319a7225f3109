"""Prediction of an arm's peak memory from sizes: while answering, in a dev evaluation, and in training."""

from __future__ import annotations

from trimtab.arms.dev_eval import dev_question_limit
from trimtab.arms.planning.answering_rate import AnsweringRate, answer_tokens
from trimtab.arms.recipe import IMITATING, Recipe, Stage
from trimtab.arms.search.context_search import SEARCH_SPACES
from trimtab.arms.session import BATCH_ITEMS, Session
from trimtab.base.grammar import REWARDED
from trimtab.inference.engine import Engine
from trimtab.inference.kv_cache import slots_for
from trimtab.model.footprint import GAPS
from trimtab.training.activation_cache import cache_bytes
from trimtab.training.activation_memory import activation_budget
from trimtab.training.batch import MICRO_TOKENS
from trimtab.training.estimates import TrainingRate, inference_mb, memory_mb, trained_bytes
from trimtab.training.parallel import parallel_lanes
from trimtab.training.rl import GROUP


def answering_memory(session: Session, own: int, questions: int) -> float:
    """Return the megabytes of answering in batches. `own`: tokens of the longest prompt after the shared prefix."""
    if session.task.task.kind == "classify":
        reading = Engine(session.base, frozenset()).prefill_tokens
        return GAPS * inference_mb(session.base, 1, session.kv_cache_tokens, reading)
    engine, each = Engine(session.base, session.encoder.stop_ids), own + session.output_tokens
    slots = max(1, min(engine.slots, BATCH_ITEMS, questions, engine.cache_tokens // each))
    return GAPS * inference_mb(session.base, slots_for(slots), each, min(engine.prefill_tokens, slots * own))


def training_memory(
    session: Session, recipe: Recipe, speed: TrainingRate, rate: AnsweringRate, each: float, kept: int
) -> float:
    """Return the peak megabytes while an arm is trained on rows of `each` tokens and then answers the test.

    `kept`: bytes that stay allocated during training.
    """
    names, dev = [stage.name for stage in recipe.stages], len(session.workspace.splits["dev"])
    questions = min(dev, max(dev_question_limit(session, name) for name in names))
    draws = bool(REWARDED.keys() & set(names))
    return memory_mb(
        session.base,
        pass_tokens=_pass_tokens(session, recipe, speed, each),
        measured_mb=speed.steps_mb,
        cached_bytes=kept,
        dev_eval_mb=answering_memory(session, rate.own, questions) if questions else 0.0,
        rollout_mb=answering_memory(session, rate.own, GROUP * recipe.batch) if draws else 0.0,
        answer_mb=rate.memory_mb,
    )


def checkpointing_note(session: Session, recipe: Recipe, speed: TrainingRate, each: float, kept: int) -> str | None:
    """Return a line that says that training uses activation checkpointing; None if it fits into memory without."""
    tokens = round(_pass_tokens(session, recipe, speed, each) / parallel_lanes())
    return activation_budget(session.base, trained_bytes(session.base) + kept).note(tokens)


def kept_bytes(session: Session, stage: Stage, tokens: int) -> int:
    """Return the bytes of frozen layers' outputs that a stage over `tokens` tokens caches."""
    if stage.name in REWARDED:  # reinforcement learning has other rows at every step
        return 0
    searched = session.task.study.effort in SEARCH_SPACES and stage.name != "docs"
    return cache_bytes(session.base, tokens) if stage.rereads or searched else 0


def _pass_tokens(session: Session, recipe: Recipe, speed: TrainingRate, each: float) -> int:
    """Return the tokens of the passes that run side by side, in steps of rows of `each` tokens."""
    names = {stage.name for stage in recipe.stages}
    if names <= set(IMITATING):
        return speed.pass_tokens
    most = float(MICRO_TOKENS * parallel_lanes())
    if "docs" not in names:
        # a prompt is read once for all its answers, which are as long as the references once those were imitated
        new = answer_tokens(session) if names & set(IMITATING) else session.output_tokens
        most = min(most, recipe.batch * (each + new * (GROUP if REWARDED.keys() & names else 1)))
    return max(round(most), speed.pass_tokens)
