"""Looks at dev while an arm is trained: the loss over its rows, and the task's metric on a few of its questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from trimtab.arms.answerers import head_answerer, score_on
from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.objectives import Objective
from trimtab.arms.session import Session
from trimtab.base.machine import release_memory
from trimtab.measurement.evaluate import Scorer
from trimtab.model.adapters import merged
from trimtab.model.classifier import Head
from trimtab.training.loop import TrainResult, held_out
from trimtab.training.monitor import Evaluation

DEV_QUESTIONS = 60


def look_at_dev(
    session: Session,
    objective: Objective | None,
    context: Context,
    head: Head | None,
    scorer: Scorer | None,
    looks: list[Mapping[str, float]],
) -> Callable[[], Evaluation]:
    """The loss over dev, and the task's metric on dev questions, asked with the adapter merged; their scores are added to `looks`.

    Without an objective the metric alone says how good the weights are.
    """
    dev = session.part("dev", DEV_QUESTIONS)
    builder = PromptBuilder(session, context)
    answer = head_answerer(session, head) if head else session.answer

    def look() -> Evaluation:
        seen = held_out(session.base, objective) if objective else None
        release_memory()
        with merged(session.base.model):
            value, scores = score_on(session, dev, builder, answer, scorer)
        looks.append(scores)
        release_memory()
        return replace(seen, dev_metric=value) if seen else Evaluation(dev_metric=value, rows=tuple(scores.values()))

    return look


def scores_of(result: TrainResult, looks: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """Of the looks of this sitting, which are the last of the readings, the one at the weights that were kept."""
    steps = [reading.step for reading in result.readings]
    if result.best is None or result.best.step not in steps:
        return {}
    place = steps.index(result.best.step) - (len(steps) - len(looks))
    return looks[place] if place >= 0 else {}
