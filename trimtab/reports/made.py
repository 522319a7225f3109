"""The last section of the report: what the study was made of, and how well its plan held."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trimtab.reports.folder import Study
from trimtab.reports.markup import Html, count, el, join, mark, plain, seconds, shorten
from trimtab.reports.parts import arm_label, section, table

MOST_FIGURES, MOST_MANIFEST = 80, 60_000


def manifest(study: Study) -> Html | None:
    """What the study was made of, folded; the figures with their provenance first."""
    if not study.manifest:
        return None
    figures = study.manifest.get("figures")
    figures = figures if isinstance(figures, dict) else {}
    body = [
        [name.replace("_", " "), _value(entry.get("value")), _provenance(entry)]
        for name, entry in list(figures.items())[:MOST_FIGURES]
        if isinstance(entry, dict)
    ]
    rest = {key: value for key, value in study.manifest.items() if key not in ("figures", "remarks")}
    text = shorten(json.dumps(rest, indent=2, ensure_ascii=False, default=str), MOST_MANIFEST)
    summary = el(
        "summary", el("b", "Manifest"), el("span", " hashes, versions, machine, precision, seeds", class_="soft")
    )
    every = el(
        "summary",
        el("b", "Every figure and where it comes from"),
        el("span", f" {count(len(figures), 'figure')}", class_="soft"),
    )
    return section(
        "manifest",
        "What it was made of",
        _plan(study),
        el("details", every, table("Figures", ["Figure", "Value", "From"], body, texts=(2,))) if body else None,
        el("details", summary, el("pre", text, tabindex=0)),
    )


def _plan(study: Study) -> Html | None:
    lines = plan_lines(study)
    if not lines:
        return None
    body = [[arm_label(row), *line[1:]] for line in lines if (row := study.row(line[0]))]
    predicted, measured = mark("predicted"), mark("measured")
    head = ["Arm", join("Time ", predicted), join("Time ", measured), "Off by"]
    head += [join("Memory ", predicted), join("Memory ", measured), "Off by"]
    return join(el("h3", "The plan, and what came of it"), table("The plan, and what came of it", head, body))


def plan_lines(study: Study) -> list[list[str]]:
    """For each arm that was planned: its name; time predicted, measured and the error; memory likewise."""
    figures, lines = study.manifest.get("figures") or {}, []
    for row in study.rows:
        time, memory = _figure(figures, f"{row.name}.seconds"), _figure(figures, f"{row.name}.memory_mb")
        took = _figure(figures, f"{row.name}.measured_seconds").get("value")
        if "value" in time:
            peak = row.peak_memory_mb if "value" in memory else None
            lines.append(
                [
                    row.name,
                    seconds(time["value"]),
                    seconds(took) if took else "–",
                    _off_by(time),
                    f"{memory['value']:,.0f} MB" if "value" in memory else "–",
                    f"{peak:,.0f} MB" if peak else "–",
                    _off_by(memory),
                ]
            )
    return lines


def origins(manifest: Mapping[str, Any]) -> list[str]:
    """Machine, precision, versions and hashes, a line each."""
    named = {"machine": "Machine", "precision": "Precision", "versions": "Versions", "hashes": "SHA-256"}
    lines = []
    for key, name in named.items():
        value = manifest.get(key)
        if value:
            pairs = [f"{part} {one}" for part, one in value.items()] if isinstance(value, dict) else [str(value)]
            lines.append(f"{name}: {', '.join(pairs)}")
    return lines


def _figure(figures: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A figure of the manifest; without `value` where it holds no number."""
    found = figures.get(name)
    return found if isinstance(found, dict) and isinstance(found.get("value"), int | float) else {}


def _off_by(figure: Mapping[str, Any]) -> str:
    """How far a prediction was from what was measured: `−15%` was too low."""
    error = figure.get("error")
    return f"{error:+.0%}".replace("-", "−") if isinstance(error, int | float) else "–"


def _provenance(entry: Mapping[str, Any]) -> Html:
    """The mark of a figure, with the error of a prediction where it is known."""
    error = entry.get("error")
    off = f" came out {abs(error):.0%} too {'high' if error > 0 else 'low'}" if isinstance(error, int | float) else None
    return join(mark(str(entry.get("provenance", "not stated"))), off)


def _value(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return shorten(str(value), 120)
    return plain(value)
