"""Learning curve of a trained arm: trains with the same settings on a quarter and a half of the rows, and scores on
dev.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import mean

from trimtab.arms.answerers import ready_arm, score_on_dev
from trimtab.arms.contexts import Context
from trimtab.arms.planning.plan import StagePlan
from trimtab.arms.recipe import LEAST_STEPS, Recipe
from trimtab.arms.session import Session
from trimtab.base.grammar import DISTILL, HEAD, REWARDED
from trimtab.base.records import Arm, Example
from trimtab.base.results import CurvePoint, LearningCurve
from trimtab.data.draw import sample_rows
from trimtab.measurement.clusters import group_count
from trimtab.measurement.evaluate import Scorer
from trimtab.measurement.learning_curve import gain_of_more
from trimtab.training.batch import steps_per_epoch

SHARES = (0.25, 0.5)
MORE_LABELS = 500  # number of additional labels whose gain is predicted
MOST_DEV = 300

Train = Callable[[Path, Recipe | None], object]


def learning_curve(
    session: Session,
    arm: Arm,
    context: Context,
    whole: Path,
    recipe: Recipe | None,
    train: Train,
    scorer: Scorer | None,
) -> LearningCurve | None:
    """Return the learning curve of an arm, trained on parts of the rows and scored on dev; None if dev is too small.

    `whole`: the folder of the run on all rows. `train`: trains a run in another folder. Each part is drawn from the
    next larger one.
    """
    kind = session.task.task.kind
    dev, rows = session.workspace.subset("dev", MOST_DEV), session.workspace.training_rows(arm.weights)
    sizes = curve_sizes(len(rows))
    if len(dev) < 2 or group_count([example.group for example in dev]) == 1 or not sizes:
        return None
    found: list[tuple[int, list[float]]] = []
    for size in sizes:
        run = whole.with_name(f"rows-{size}")
        with restrict_training_rows(session, sample_rows(rows, size, kind)):
            train(run, recipe and recipe_for_part(recipe, size))
            found.append((size, _on_dev(session, arm, context, run, dev, scorer)))
    found.append((len(rows), _on_dev(session, arm, context, whole, dev, scorer)))
    gain = gain_of_more(
        [size for size, _ in found], [scores for _, scores in found], MORE_LABELS, [example.group for example in dev]
    )
    points = tuple(CurvePoint(rows=size, score=mean(scores)) for size, scores in found)
    return LearningCurve(
        points=points, questions=len(dev), more=MORE_LABELS, gain=gain.value, low=gain.low, high=gain.high
    )


def recipe_for_part(recipe: Recipe, rows: int) -> Recipe:
    """Return the recipe for fewer rows: the same epochs, but the least number of steps where rows are read again."""
    least = LEAST_STEPS / steps_per_epoch(rows, recipe.batch)
    stages = (
        replace(stage, epochs=max(stage.epochs, least)) if stage.name in ("sft", DISTILL, HEAD, *REWARDED) else stage
        for stage in recipe.stages
    )
    return replace(recipe, stages=tuple(stages))


def curve_seconds(session: Session, recipe: Recipe, stages: Sequence[StagePlan], each: float) -> float:
    """Return the predicted seconds of an arm's learning curve, with `each` for a dev question; 0 if not requested."""
    splits = session.workspace.splits
    dev, rows = min(len(splits["dev"]), MOST_DEV), len(splits["train"])
    if not session.task.study.learning_curve or dev < 2:
        return 0.0
    training = 0.0
    for size in curve_sizes(rows):
        longer = recipe_for_part(recipe, size).stages
        of_part = zip(stages, longer, strict=True)
        training += sum(plan.with_rows(size / rows, stage.epochs).seconds() for plan, stage in of_part)
    return training + (len(SHARES) + 1) * dev * each


def curve_sizes(rows: int) -> list[int]:
    """Return the numbers of rows of the parts."""
    return sorted({round(share * rows) for share in SHARES} - {0, rows})


@contextmanager
def restrict_training_rows(session: Session, rows: Sequence[Example]) -> Iterator[None]:
    """Context manager: the session's training rows are only these, for weights, shots and nearest shots alike.

    The closed set of labels is unchanged, though some may have no row.
    """
    whole, table = session.workspace, session.task.task
    closed = table.model_copy(update={"labels": whole.labels}) if table.kind == "classify" else table
    task = session.task.model_copy(update={"task": closed})
    session.workspace = replace(whole.with_training_rows(rows), task=task)
    try:
        yield
    finally:
        session.workspace = whole


def _on_dev(
    session: Session, arm: Arm, context: Context, run: Path, dev: Sequence[Example], scorer: Scorer | None
) -> list[float]:
    with ready_arm(session, arm, context, run) as ready:
        scores = score_on_dev(session, dev, ready.builder, ready.answer_batch, scorer)[1]
    return [scores[example.id] for example in dev]
