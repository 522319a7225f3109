"""Evaluation on dev during training: the loss that selects the weights, and the task's metric on a few questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from trimtab.arms.answerers import head_answerer, score_on_dev
from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.objectives import Objective
from trimtab.arms.session import Session
from trimtab.base.grammar import HEAD, PREFERENCES
from trimtab.base.machine import release_memory
from trimtab.base.records import Generation, Prompt
from trimtab.measurement.calibration import log_losses, logarithms, suiting_temperature
from trimtab.measurement.evaluate import Scorer
from trimtab.model.classifier import ClassificationHead
from trimtab.model.fast.packed_weights import merged_and_packed
from trimtab.training.loop import TrainResult, evaluate_objective
from trimtab.training.monitor import DevEvaluation

DEV_QUESTIONS = 60
CHOSEN_QUESTIONS = 100  # for label answers, of which only the probabilities count
CHOOSING = ("sft", HEAD)


def imitates_labels(session: Session, stage: str) -> bool:
    """True if a stage imitates labels of a closed set, whose log loss measures its weights."""
    return session.task.task.kind == "classify" and stage in CHOOSING


def dev_question_limit(session: Session, stage: str) -> int:
    """Return the largest number of dev questions that one evaluation answers in a stage."""
    return CHOSEN_QUESTIONS if imitates_labels(session, stage) else DEV_QUESTIONS


def evaluate_on_dev(
    session: Session,
    stage: str,
    objective: Objective | None,
    context: Context,
    head: ClassificationHead | None,
    scorer: Scorer | None,
    dev_scores: list[Mapping[str, float]],
) -> Callable[[], DevEvaluation]:
    """Return a function that evaluates a stage on dev and appends the questions' scores to `dev_scores`.

    Every evaluation has the task's metric on dev questions. The selecting loss is the objective's loss over dev; for
    labels of a closed set the log loss of the choice (`label_losses`), as it will be served; without an objective,
    and for preferences, the metric: weights that rank pairs ever better may answer ever worse.
    """
    dev = session.workspace.subset("dev", dev_question_limit(session, stage))
    builder = PromptBuilder(session, context)
    answer = head_answerer(session, head) if head else builder.answer
    by_choice = imitates_labels(session, stage)
    labels = session.workspace.labels
    generations: list[Generation] = []

    def generate(prompts: Sequence[Prompt]) -> Sequence[Generation]:
        generations[:] = answer(prompts)
        return generations

    def evaluate_now() -> DevEvaluation:
        value: float | None = None
        scores: dict[str, float] = {}
        seen = evaluate_objective(session.base, objective) if objective and not by_choice else None
        release_memory()
        if dev:  # all dev rows may have been too long while preferences were not
            with merged_and_packed(session.base):
                value, scores = score_on_dev(session, dev, builder, generate, scorer)
        dev_scores.append(scores)
        release_memory()
        if by_choice:
            losses = label_losses(generations, [example.references[0] for example in dev], labels)
            return DevEvaluation(dev_loss=fmean(losses) if losses else None, dev_metric=value, rows=losses)
        if seen and (stage not in PREFERENCES or not dev):
            return replace(seen, dev_metric=value)
        figures = {**seen.figures, "pair_loss": seen.dev_loss or 0.0} if seen else {}
        return DevEvaluation(dev_metric=value, figures=figures, rows=tuple(scores.values()))

    return evaluate_now


def label_losses(generations: Sequence[Generation], right: Sequence[str], labels: Sequence[str]) -> tuple[float, ...]:
    """Return the negative log-probability (nats) of each right label, at the temperature that fits all of them.

    So overconfident weights are not rated worse than they will be once calibrated. Questions whose label is outside
    the closed set are left out: no arm can predict it.
    """
    known = [(generation, label) for generation, label in zip(generations, right, strict=True) if label in labels]
    if not known:
        return ()
    scores_NL = logarithms(np.array([[generation.probabilities[label] for label in labels] for generation, _ in known]))
    right_N = np.array([labels.index(label) for _, label in known])
    return tuple(log_losses(scores_NL, right_N, suiting_temperature(scores_NL, right_N)).tolist())


def scores_at_best(result: TrainResult, dev_scores: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """Return the dev scores at the evaluation whose weights were kept; `dev_scores` are of the last evaluations."""
    steps = [reading.step for reading in result.readings]
    if result.best is None or result.best.step not in steps:
        return {}
    place = steps.index(result.best.step) - (len(steps) - len(dev_scores))
    return dev_scores[place] if place >= 0 else {}
