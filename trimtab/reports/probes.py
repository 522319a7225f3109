"""Section of the report on the probes: what becomes of an arm's score where things are not as in the test set."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.base.results import BrokenAnswer, Probe
from trimtab.reports.components import (
    MEASURED,
    ArmLabel,
    Cell,
    Column,
    Grid,
    Heading,
    Scored,
    StyledText,
    arm_label,
)
from trimtab.reports.folder import StudyFolder
from trimtab.reports.formatting import format_difference_interval, format_score, format_signed


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenBy:
    """An arm, a change that it does not stand, and answers that the change turned wrong."""

    arm: ArmLabel
    change: str
    examples: tuple[BrokenAnswer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """The findings of all probed arms; those that are shown with examples."""

    heading: Heading
    grid: Grid
    broken: tuple[BrokenBy, ...]


def probes_section(study: StudyFolder) -> Probes | None:
    """Return what the probes found, a row each; None where none ran."""
    chosen = study.result.verdict.use
    probed = [(arm_label(entry.arm, chosen), one) for entry in study.done for one in entry.result.probes]
    if not probed:
        return None
    lead = (
        "The test questions asked again with one change to the question or its passages, and general questions "
        "before and after training. Each row compares the arm's answers to the same questions with and without the "
        "change. An arm breaks where the loss is shown (p < .05 after Holm over its probes) and larger than the "
        "margin. Where no loss is shown, there may still be one as large as the interval allows."
    )
    columns = (
        Column(title="Arm"),
        Column(title="Change", text=True),
        Column(title="Without it", mark=MEASURED),
        Column(title="With it"),
        Column(title="Difference", interval="95%"),
        Column(title="Questions"),
        Column(title="Finding", text=True),
    )
    rows = tuple((arm, *_row(one)) for arm, one in probed)
    return Probes(
        heading=Heading(id="probes", link="Probes", title="What the test set does not ask", lead=lead),
        grid=Grid(label="Probes", columns=columns, rows=rows),
        broken=tuple(BrokenBy(arm=arm, change=one.change, examples=one.examples) for arm, one in probed if one.found),
    )


def _row(one: Probe) -> tuple[Cell, ...]:
    return (
        one.change,
        format_score(one.before),
        format_score(one.after),
        Scored(value=format_signed(one.difference), interval=format_difference_interval(one.low, one.high)),
        f"{one.n:,}",
        StyledText(text="breaks", tone="no") if one.found else "no loss shown",
    )
