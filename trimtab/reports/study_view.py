"""A study into everything that its report says, in the order in which it says it."""

from __future__ import annotations

from trimtab.reports.all_answers import every_answer
from trimtab.reports.classes import by_class
from trimtab.reports.components import MEASURED, PREDICTED, YOURS
from trimtab.reports.costs import costs
from trimtab.reports.details import audit, slices, training
from trimtab.reports.effects import comparisons, weights_by_context
from trimtab.reports.effort import efforts
from trimtab.reports.failures import failures, side_by_side
from trimtab.reports.folder import StudyFolder
from trimtab.reports.header import top
from trimtab.reports.learning import more_labels
from trimtab.reports.manifest import made
from trimtab.reports.memorisation import remembered
from trimtab.reports.quality import quality, tradeoffs
from trimtab.reports.view import StudyView

ABOUT = " This page is one file and loads nothing; the only script in it is the one that looks through the answers."


def view_of(study: StudyFolder) -> StudyView:
    """The view of a study from which page and Markdown are made."""
    first = top(study)
    return StudyView(
        title=f"{study.task}: {first.headline}",
        top=first,
        quality=quality(study),
        tradeoffs=tradeoffs(study),
        factorial=weights_by_context(study),
        comparisons=comparisons(study),
        costs=costs(study),
        failures=failures(study),
        classes=by_class(study),
        answers=side_by_side(study),
        every=every_answer(study),
        slices=slices(study),
        effort=efforts(study),
        learning=more_labels(study),
        remembered=remembered(study),
        training=training(study),
        data=audit(study),
        manifest=made(study),
        footer=(
            *(MEASURED, " in this study; ", PREDICTED, " from measured figures; "),
            *(YOURS, f" as you gave it in the task file.{ABOUT}"),
        ),
    )
