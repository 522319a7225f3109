"""The manifest section: the plan compared with the outcome, the provenance of every figure, and the manifest itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trimtab.reports.components import MEASURED, PREDICTED, Cell, Column, Grid, Heading, Mark, Phrase, arm_label
from trimtab.reports.folder import StudyFolder
from trimtab.reports.formatting import DASH, format_memory, format_number, format_seconds, plural, shorten

MOST_FIGURES, MOST_MANIFEST = 80, 60_000
ORIGINS = {"machine": "Machine", "precision": "Precision", "versions": "Versions", "hashes": "SHA-256"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestView:
    """The manifest: plan and outcome, every figure with its origin, the manifest in full and in short."""

    heading: Heading
    plan: Grid | None
    figures: Grid | None
    figures_title: str
    figures_count: str
    manifest: str
    manifest_title: str
    manifest_holds: str
    origins: tuple[str, ...]


def manifest_section(study: StudyFolder) -> ManifestView | None:
    """Return the manifest in readable parts; None if the study has none."""
    if not study.manifest:
        return None
    figures = _figures(study)
    rows = [
        (name.replace("_", " "), _value(entry.get("value")), _provenance(entry))
        for name, entry in list(figures.items())[:MOST_FIGURES]
        if isinstance(entry, dict)
    ]
    columns = (Column(title="Figure"), Column(title="Value"), Column(title="From", text=True))
    rest = {key: value for key, value in study.manifest.items() if key not in ("figures", "remarks")}
    return ManifestView(
        heading=Heading(id="manifest", link="Manifest", title="What it was made of"),
        plan=_plan(study, figures),
        figures=Grid(label="Figures", columns=columns, rows=tuple(rows)) if rows else None,
        figures_title="Every figure and where it comes from",
        figures_count=plural(len(figures), "figure"),
        manifest=shorten(json.dumps(rest, indent=2, ensure_ascii=False, default=str), MOST_MANIFEST),
        manifest_title="Manifest",
        manifest_holds="hashes, versions, machine, precision, seeds",
        origins=tuple(_origins(study.manifest)),
    )


def _figures(study: StudyFolder) -> Mapping[str, Any]:
    figures = study.manifest.get("figures")
    return figures if isinstance(figures, dict) else {}


def _plan(study: StudyFolder, figures: Mapping[str, Any]) -> Grid | None:
    """Return, for each planned arm, predicted and measured time and memory, with the error."""
    rows: list[tuple[Cell, ...]] = []
    for entry in study.arms:
        time, memory_figure = _figure(figures, f"{entry.name}.seconds"), _figure(figures, f"{entry.name}.memory_mb")
        measured = _figure(figures, f"{entry.name}.measured_seconds").get("value")
        if "value" in time:
            peak = entry.result.peak_memory_mb if "value" in memory_figure else None
            time_cells = (_predicted_time(time), format_seconds(measured) if measured else DASH, _error(time))
            memory_cells = (
                format_memory(memory_figure["value"]) if "value" in memory_figure else DASH,
                format_memory(peak) if peak else DASH,
            )
            rows.append((arm_label(entry.arm), *time_cells, *memory_cells, _error(memory_figure)))
    compared = [
        Column(title=what if mark else "Off by", mark=mark)
        for what in ("Time", "Memory")
        for mark in (PREDICTED, MEASURED, None)
    ]
    columns = (Column(title="Arm"), *compared)
    return Grid(label="The plan, and what came of it", columns=columns, rows=tuple(rows)) if rows else None


def _origins(manifest: Mapping[str, Any]) -> list[str]:
    """Return machine, precision, versions and hashes, one line each."""
    lines = []
    for key, name in ORIGINS.items():
        value = manifest.get(key)
        if value:
            pairs = [f"{part} {one}" for part, one in value.items()] if isinstance(value, dict) else [str(value)]
            lines.append(f"{name}: {', '.join(pairs)}")
    return lines


def _figure(figures: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a figure of the manifest; without `value` if it is not a number."""
    found = figures.get(name)
    return found if isinstance(found, dict) and isinstance(found.get("value"), int | float) else {}


def _predicted_time(time: Mapping[str, Any]) -> str:
    """Return the predicted seconds; if dev stopped training early, also those of the full training."""
    whole = time.get("whole")
    value = format_seconds(time["value"])
    return f"{value} ({format_seconds(whole)}, had dev not ended it)" if isinstance(whole, int | float) else value


def _error(figure: Mapping[str, Any]) -> str:
    """Return the relative error of a prediction: `−15%` was too low."""
    error = figure.get("error")
    return f"{error:+.0%}".replace("-", "−") if isinstance(error, int | float) else DASH


def _provenance(entry: Mapping[str, Any]) -> Phrase:
    """Return the mark of a figure, with the error of a prediction if it is known."""
    error, mark = entry.get("error"), Mark(word=str(entry.get("provenance", "not stated")))
    if not isinstance(error, int | float):
        return (mark,)
    return (mark, f" came out {abs(error):.0%} too {'high' if error > 0 else 'low'}")


def _value(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return shorten(str(value), 120)
    return format_number(value)
