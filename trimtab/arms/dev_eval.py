"""Looks at dev while an arm is trained: how good its weights are, and the task's metric on a few questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from trimtab.arms.answerers import head_answerer, score_on
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
CHOSEN_QUESTIONS = 100  # where answers are labels: their probabilities are all that is looked at
CHOOSING = ("sft", HEAD)


def imitates_labels(session: Session, stage: str) -> bool:
    """Whether a stage imitates labels of a closed set, whose probabilities say how good its weights are."""
    return session.task.task.kind == "classify" and stage in CHOOSING


def questions_asked(session: Session, stage: str) -> int:
    """How many questions of dev a look asks at most in a stage."""
    return CHOSEN_QUESTIONS if imitates_labels(session, stage) else DEV_QUESTIONS


def evaluate_on_dev(
    session: Session,
    stage: str,
    objective: Objective | None,
    context: Context,
    head: ClassificationHead | None,
    scorer: Scorer | None,
    looks: list[Mapping[str, float]],
) -> Callable[[], DevEvaluation]:
    """What a look at dev finds in a stage, with the adapter merged where questions are asked; their scores are added to `looks`.

    The task's metric on dev questions stands in every look. How good weights are is said by the objective's loss over dev; for labels
    of a closed set by the log loss of the choice (`choice_losses`), which is what will be served; without an objective, and where pairs
    are learnt from, by the metric: pairs are told apart ever better by weights that answer ever worse.
    """
    dev = session.part("dev", questions_asked(session, stage))
    builder = PromptBuilder(session, context)
    answer = head_answerer(session, head) if head else builder.answer
    by_choice = imitates_labels(session, stage)
    labels = session.workspace.labels
    given: list[Generation] = []

    def noted(prompts: Sequence[Prompt]) -> Sequence[Generation]:
        given[:] = answer(prompts)
        return given

    def look() -> DevEvaluation:
        value: float | None = None
        scores: dict[str, float] = {}
        seen = evaluate_objective(session.base, objective) if objective and not by_choice else None
        release_memory()
        if dev:  # all of it may have been too long, where judged answers were not
            with merged_and_packed(session.base):
                value, scores = score_on(session, dev, builder, noted, scorer)
        looks.append(scores)
        release_memory()
        if by_choice:
            losses = choice_losses(given, [one.references[0] for one in dev], labels)
            return DevEvaluation(dev_loss=fmean(losses) if losses else None, dev_metric=value, rows=losses)
        if seen and (stage not in PREFERENCES or not dev):
            return replace(seen, dev_metric=value)
        figures = {**seen.figures, "pair_loss": seen.dev_loss or 0.0} if seen else {}
        return DevEvaluation(dev_metric=value, figures=figures, rows=tuple(scores.values()))

    return look


def choice_losses(given: Sequence[Generation], right: Sequence[str], labels: Sequence[str]) -> tuple[float, ...]:
    """The negative log-probability of each right label in nats, at the temperature that suits all of them, as the arm's will be.

    So weights that are too sure of themselves are not taken for worse than they will be when they are calibrated. Questions whose
    label is none of the closed set are left out: nobody can give it.
    """
    known = [(one, label) for one, label in zip(given, right, strict=True) if label in labels]
    if not known:
        return ()
    scores_NL = logarithms(np.array([[one.probabilities[label] for label in labels] for one, _ in known]))
    right_N = np.array([labels.index(label) for _, label in known])
    return tuple(log_losses(scores_NL, right_N, suiting_temperature(scores_NL, right_N)).tolist())


def scores_of(result: TrainResult, looks: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """Of the looks of this sitting, which are the last of the readings, the one at the weights that were kept."""
    steps = [reading.step for reading in result.readings]
    if result.best is None or result.best.step not in steps:
        return {}
    place = steps.index(result.best.step) - (len(steps) - len(looks))
    return looks[place] if place >= 0 else {}
