"""Sections behind the scores: slices, training curves, what was memorised, and the audit of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from trimtab.measurement.exposure import highest_by_chance
from trimtab.reports.components import (
    MEASURED,
    ArmLabel,
    Cell,
    Column,
    Curves,
    Grid,
    Heading,
    Listing,
    Series,
    StyledText,
    TableSection,
    arm_label,
    estimate_cell,
)
from trimtab.reports.events import TrainingCurve
from trimtab.reports.folder import ArmEntry, StudyFolder
from trimtab.reports.formatting import DASH, as_sentence, plural, shorten
from trimtab.reports.labels import PRIVATE, Family, arm_family

MOST_SLICES, MOST_REMARKS, MOST_SOURCES = 40, 100, 20
FEW = 10  # a slice of fewer questions shows next to nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRemark:
    """A remark of the data audit: `level` is stop, warn or note, `word` its written form."""

    level: str
    word: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataAudit:
    """Splits, refused rows, overlaps, remarks, sources and licences, and inferences made while reading."""

    heading: Heading
    facts: str
    remarks: tuple[DataRemark, ...]
    counted: tuple[tuple[str, str], ...]
    notes: Listing[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """Scores per slice, those of `few` questions apart; `more` tells how many slices are left out."""

    heading: Heading
    grid: Grid | None
    few: Grid | None
    more: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """The training curves of one stage of an arm, and the loop's notes."""

    arm: ArmLabel
    stage: str
    notes: tuple[str, ...]
    charts: tuple[Curves, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCurves:
    """Every training run; the legend explains the lines and dots: train, dev, kept."""

    heading: Heading
    legend: Mapping[Literal["train", "dev", "kept"], str]
    runs: tuple[TrainingRun, ...]


def slices_section(study: StudyFolder) -> Slices | None:
    """Return the scores per slice, the largest slice first; slices of few questions stand apart."""
    entries = [entry for entry in study.done if entry.result.slices]
    names = list(dict.fromkeys(name for entry in entries for name in entry.result.slices))
    if not names:
        return None
    sizes = {
        name: max(entry.result.slices[name].n for entry in entries if name in entry.result.slices) for name in names
    }
    names.sort(key=lambda name: (-sizes[name], name))
    left = len(names) - MOST_SLICES
    shown = {name: sizes[name] for name in names[:MOST_SLICES]}
    many = {name: size for name, size in shown.items() if size >= FEW}
    few = {name: size for name, size in shown.items() if size < FEW}
    lead = (
        "Scores per slice with unadjusted 95% intervals, largest slice first. "
        "Small slices have wide intervals; they describe, they do not decide."
    )
    return Slices(
        heading=Heading(id="slices", link="Slices", title="Slices", lead=lead),
        grid=_slice_grid(study, entries, many, "Scores per slice") if many else None,
        few=_slice_grid(study, entries, few, f"{plural(len(few), 'slice')} of fewer than {FEW} questions")
        if few
        else None,
        more=f"{left} smaller slices are in study.json." if left > 0 else None,
    )


def _slice_grid(study: StudyFolder, entries: Sequence[ArmEntry], sizes: Mapping[str, int], title: str) -> Grid:
    """Return a table with a row per slice and a column per arm, transposed if there are more arms than slices."""
    arms = [arm_label(entry.arm, study.result.verdict.use) for entry in entries]
    titles = [
        StyledText(text=shorten(name, 80), soft=f"n\u00a0=\u00a0{size:,}" if size else "")
        for name, size in sizes.items()
    ]
    cells: list[list[Cell]] = [
        [estimate_cell(entry.result.slices[name]) if name in entry.result.slices else DASH for entry in entries]
        for name in sizes
    ]
    if len(entries) > len(sizes):
        columns = (Column(title="Arm"), *(Column(title=title) for title in titles))
        transposed = zip(arms, zip(*cells, strict=True), strict=True)
        return Grid(label=title, columns=columns, rows=tuple((arm, *line) for arm, line in transposed))
    columns = (Column(title="Slice"), *(Column(title=arm) for arm in arms))
    by_slice = zip(titles, cells, strict=True)
    return Grid(label=title, columns=columns, rows=tuple((name, *line) for name, line in by_slice))


# ---- training


def training_section(study: StudyFolder) -> TrainingCurves | None:
    """Return loss, dev loss and dev metric for each arm and stage."""
    runs = []
    for entry in study.arms:
        curves = sorted(entry.curves, key=lambda curve: curve.phase)
        for _, curves_of_phase in groupby(curves, key=lambda curve: curve.phase):
            run = _run(study, entry, list(curves_of_phase))
            runs += [run] if run.charts else []
    if not runs:
        return None
    lead = "Dev decides when to stop; where dev loss rises while training loss falls, the model has begun to memorise."
    return TrainingCurves(
        heading=Heading(id="training", link="Training", title="Training", lead=lead),
        legend={"train": "training loss", "dev": "dev, in the arm’s colour", "kept": "weights that were kept"},
        runs=tuple(runs),
    )


def _run(study: StudyFolder, entry: ArmEntry, runs: Sequence[TrainingCurve]) -> TrainingRun:
    """Return the curves of one stage of an arm, all seeds; the training loop's remarks stand with the last stage."""
    colour = arm_family(entry.arm)
    metric = f"dev {study.metric.label}"
    named = (
        ((*_series(runs, "loss", "train"), *_series(runs, "dev_loss", colour)), "loss"),
        (_series(runs, "dev_metric", colour), metric),
        (_series(runs, "reward", "train"), "reward"),
        (_series(runs, "kl", "train"), "nats from the reference"),
    )
    phase, phases = runs[0].phase, max(curve.phase for curve in entry.curves) + 1
    stage = ""
    if phases > 1:
        stage = entry.arm.stages[phase] if phases == len(entry.arm.stages) else f"stage {phase + 1}"
    return TrainingRun(
        arm=arm_label(entry.arm),
        stage=stage,
        notes=tuple(map(as_sentence, entry.health)) if phase == phases - 1 else (),
        charts=tuple(
            Curves(title=f"{entry.name}: {name}", y_title=name, series=series) for series, name in named if series
        ),
    )


def _series(runs: Sequence[TrainingCurve], field: str, style: Family | Literal["train"]) -> tuple[Series, ...]:
    """Return one line per seed with the values of `field`."""
    series = []
    for run in runs:
        points = tuple((point.step, value) for point in run.points if (value := getattr(point, field)) is not None)
        if points:
            name = f"{field.replace('_', ' ')}, seed {run.seed}"
            series.append(Series(name=name, style=style, points=points, kept_step=run.kept_step))
    return tuple(series)


# ---- data


def data_section(study: StudyFolder) -> DataAudit | None:
    """Return splits, refused rows, overlaps, remarks, sources and licences."""
    counts = study.manifest.get("counts") or {}
    facts = data_facts(study.manifest)
    remarks = [_remark(remark) for remark in (study.manifest.get("remarks") or ())[:MOST_REMARKS]]
    counted = [(f"Rows by {name}", text) for name in ("source", "licence") if (text := _counted(counts.get(name)))]
    notes = [shorten(str(note)) for note in (study.manifest.get("notes") or ())[:MOST_REMARKS]]
    if not facts and not remarks and not notes and not counted:
        return None
    return DataAudit(
        heading=Heading(id="data", link="Data", title="The data"),
        facts=f"{'; '.join(facts)}." if facts else "",
        remarks=tuple(remarks),
        counted=tuple(counted),
        notes=Listing(title="What was inferred while reading", entries=tuple(notes)),
    )


def data_facts(manifest: Mapping[str, Any]) -> list[str]:
    """Return the counts of the manifest: splits, documents, refused rows, overlaps and private data."""
    counts = manifest.get("counts") or {}
    facts = [f"{number:,} in {name}" for name, number in (counts.get("splits") or {}).items() if number is not None]
    facts = [f"Rows: {', '.join(facts)}"] if facts else []
    documents, refused, overlaps = (
        _number(value) for value in (counts.get("documents"), manifest.get("refused"), manifest.get("overlaps"))
    )
    if documents:
        facts.append(plural(documents, "document"))
    if refused is not None:
        facts.append(f"{plural(refused, 'row')} refused (refused.jsonl says why)" if refused else "no row refused")
    if overlaps is not None:
        some = plural(overlaps, "overlap between splits", "overlaps between splits")
        facts.append(some if overlaps else "no overlap between splits")
    private = manifest.get("private") or {}
    if private:
        found = [plural(number, PRIVATE.get(kind, kind)) for kind, number in private.items()]
        facts.append(f"private data in the rows: {', '.join(found)}")
    return facts


def _remark(remark: Mapping[str, Any]) -> DataRemark:
    level = remark.get("level")
    level = level if level in ("stop", "warn", "note") else "note"
    word = "warning" if level == "warn" else level
    return DataRemark(level=level, word=word, text=shorten(str(remark.get("text", ""))))


def _number(value: Any) -> int | None:
    """Return a count that is stored as a number or as the list itself."""
    return len(value) if isinstance(value, list) else int(value) if isinstance(value, int | float) else None


def _counted(counts: Any) -> str:
    """Return the number of rows by key, the most frequent first; empty if no row has one."""
    if not isinstance(counts, dict) or not set(counts) - {"not given", ""}:
        return ""
    most = sorted(counts.items(), key=lambda pair: -pair[1])
    return shorten("; ".join(f"{key or 'not given'} {number:,}" for key, number in most[:MOST_SOURCES]), 800)


def memorisation_section(study: StudyFolder) -> TableSection | None:
    """Return the exposure of every arm that was trained on memorisation canaries."""
    entries = [(entry, entry.result.exposure) for entry in study.done if entry.result.exposure is not None]
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
            arm_label(entry.arm, study.result.verdict.use),
            f"{exposure.mean:.2f}",
            f"{exposure.highest:.2f}",
            by_chance,
            f"{exposure.possible:g}",
        )
        for entry, exposure in entries
    ]
    grid = Grid(label="Exposure of memorisation canaries", columns=columns, rows=tuple(rows))
    heading = Heading(id="remembered", link="Remembered", title="What is remembered word for word?", lead=lead)
    return TableSection(heading=heading, grid=grid)
