"""Builds the view of a study: everything that its report says, section by section."""

from __future__ import annotations

from trimtab.reports.all_answers import all_answers_section
from trimtab.reports.classes import classes_section
from trimtab.reports.components import MEASURED, PREDICTED, YOURS
from trimtab.reports.costs import costs_section
from trimtab.reports.details import data_section, slices_section, training_section
from trimtab.reports.effects import comparisons_section, factorial_section
from trimtab.reports.effort import effort_section
from trimtab.reports.failures import failures_section, side_by_side_section
from trimtab.reports.folder import StudyFolder
from trimtab.reports.header import header_section
from trimtab.reports.learning import learning_section
from trimtab.reports.manifest import manifest_section
from trimtab.reports.memorisation import memorisation_section
from trimtab.reports.quality import quality_section, tradeoffs_section
from trimtab.reports.view import StudyView

ABOUT = " This page is one file and loads nothing; the only script in it is the one that looks through the answers."


def build_view(study: StudyFolder) -> StudyView:
    """Return the view from which the page and the Markdown are rendered."""
    header = header_section(study)
    return StudyView(
        title=f"{study.result.task}: {header.headline}",
        header=header,
        quality=quality_section(study),
        tradeoffs=tradeoffs_section(study),
        factorial=factorial_section(study),
        comparisons=comparisons_section(study),
        costs=costs_section(study),
        failures=failures_section(study),
        classes=classes_section(study),
        answers=side_by_side_section(study),
        all_answers=all_answers_section(study),
        slices=slices_section(study),
        effort=effort_section(study),
        learning=learning_section(study),
        memorisation=memorisation_section(study),
        training=training_section(study),
        data=data_section(study),
        manifest=manifest_section(study),
        footer=(
            *(MEASURED, " in this study; ", PREDICTED, " from measured figures; "),
            *(YOURS, f" as you gave it in the task file.{ABOUT}"),
        ),
    )
