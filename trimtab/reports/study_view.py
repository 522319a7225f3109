"""The view of a study: everything that its report says, section by section, without markup."""

from __future__ import annotations

from dataclasses import dataclass, fields

from trimtab.reports.all_answers import AllAnswers, all_answers_section
from trimtab.reports.classes import ByClass, classes_section
from trimtab.reports.components import MEASURED, PREDICTED, YOURS, Phrase, TableSection
from trimtab.reports.costs import Costs, costs_section
from trimtab.reports.details import (
    DataAudit,
    Slices,
    TrainingCurves,
    data_section,
    memorisation_section,
    slices_section,
    training_section,
)
from trimtab.reports.effects import WeightsByContext, comparisons_section, factorial_section
from trimtab.reports.effort import EffortView, effort_section, learning_section
from trimtab.reports.failures import Failures, SideBySide, failures_section, side_by_side_section
from trimtab.reports.folder import StudyFolder
from trimtab.reports.header import HeaderView, header_section
from trimtab.reports.manifest import ManifestView, manifest_section
from trimtab.reports.probes import Probes, probes_section
from trimtab.reports.quality import Quality, Tradeoffs, quality_section, tradeoffs_section

ABOUT = " This page is one file and loads nothing; the only script in it is the one that looks through the answers."


AnySection = (
    Quality
    | Tradeoffs
    | WeightsByContext
    | Costs
    | Failures
    | ByClass
    | SideBySide
    | AllAnswers
    | Probes
    | Slices
    | EffortView
    | TrainingCurves
    | DataAudit
    | ManifestView
    | TableSection
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyView:
    """Everything that a report says; an empty section is None."""

    title: str
    header: HeaderView
    tradeoffs: Tradeoffs | None
    quality: Quality
    factorial: WeightsByContext | None
    comparisons: TableSection | None
    costs: Costs | None
    failures: Failures | None
    classes: ByClass | None
    answers: SideBySide | None
    all_answers: AllAnswers | None
    probes: Probes | None
    slices: Slices | None
    effort: EffortView | None
    learning: TableSection | None
    memorisation: TableSection | None
    training: TrainingCurves | None
    data: DataAudit | None
    manifest: ManifestView | None
    footer: Phrase

    @property
    def sections(self) -> tuple[AnySection, ...]:
        """The sections that are not empty, in the order of the page, which is that of the fields."""
        values = (getattr(self, field.name) for field in fields(self))
        return tuple(value for value in values if isinstance(value, AnySection))


def build_view(study: StudyFolder) -> StudyView:
    """Return the view from which the page and the Markdown are rendered."""
    header = header_section(study)
    return StudyView(
        title=f"{study.result.task}: {header.headline}",
        header=header,
        tradeoffs=tradeoffs_section(study),
        quality=quality_section(study),
        factorial=factorial_section(study),
        comparisons=comparisons_section(study),
        costs=costs_section(study),
        failures=failures_section(study),
        classes=classes_section(study),
        answers=side_by_side_section(study),
        all_answers=all_answers_section(study),
        probes=probes_section(study),
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
