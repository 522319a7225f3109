"""The memorisation section: the exposure of memorisation canaries: whether weights remember rows word for word."""

from __future__ import annotations

from trimtab.measurement.exposure import highest_by_chance
from trimtab.reports.components import MEASURED, Cell, Column, Grid, Heading, TableSection, arm_label
from trimtab.reports.folder import StudyFolder


def memorisation_section(study: StudyFolder) -> TableSection | None:
    """Return the exposure of every arm that was trained on memorisation canaries."""
    entries = [(one, one.result.exposure) for one in study.done if one.result.exposure is not None]
    if not entries:
        return None
    first = entries[0][1]
    lead = (
        f"{first.canaries:,} made rows with random digits stood among the training rows. Exposure says in "
        "bits how far their losses stand "
        f"below those of {first.controls:,} rows like them that were never trained on: about 1.4 on average "
        "where nothing is remembered, "
        f"{first.possible:g} where a row is likelier than all of these, as one that can be got out of the weights is. "
        f"What happens to such a row can happen to any rare row; ship weights that were trained without them."
    )
    columns = (
        Column(title="Arm"),
        Column(title="Mean exposure, bits", mark=MEASURED),
        Column(title="Highest", mark=MEASURED),
        Column(title="Highest by chance"),
        Column(title="Highest possible"),
    )
    by_chance = f"{highest_by_chance(first.canaries, first.controls):.2f}"
    rows: list[tuple[Cell, ...]] = [
        (
            arm_label(one.arm, study.result.verdict.arm),
            f"{found.mean:.2f}",
            f"{found.highest:.2f}",
            by_chance,
            f"{found.possible:g}",
        )
        for one, found in entries
    ]
    grid = Grid(label="Exposure of memorisation canaries", columns=columns, rows=tuple(rows))
    heading = Heading(id="remembered", link="Remembered", title="What is remembered word for word?", lead=lead)
    return TableSection(heading=heading, grid=grid)
