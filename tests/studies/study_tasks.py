"""Small tasks of every kind on disk, for studies with a tiny random model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CITIES = ["Aalen", "Bonn", "Celle", "Dachau", "Emden", "Fulda", "Gera", "Hamm", "Ilmenau", "Jena"]
THINGS = ["bridge", "library", "market", "station", "harbour", "museum", "theatre", "stadium", "garden", "tower"]
UNKNOWN = "unknown"


def rows_of(count: int = 60, *, unknown: bool = False) -> list[dict[str, Any]]:
    """Questions that are unlike each other; their topic, group of two, and a one-word answer."""
    rows = []
    for number in range(count):
        city, thing = CITIES[number % 10], THINGS[(number // 10 + number) % 10]
        missing = unknown and number % 5 == 0
        rows.append(
            {
                "id": f"row{number}",
                "question": f"{thing} {number * 7919 % 9973}{city.lower()[::-1]} of {city}?",
                "answer": UNKNOWN if missing else city,
                "topic": "rare" if number % 4 == 0 else "usual",
                "pair": f"p{number // 2}",
            }
        )
    return rows


def write_task(
    folder: Path,
    model: Path | str,
    arms: Sequence[str],
    *,
    rows: Sequence[dict[str, Any]] | None = None,
    task: str = 'kind = "answer"\nmetric = "exact_match"\nunknown = "unknown"\noutput_tokens = 6',
    data: str = "",
    base: str = "",
    study: str = "",
    more: str = "",
) -> Path:
    """Write rows and task file; the task file."""
    written = rows_of() if rows is None else rows
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    (folder / "trimtab.toml").write_text(
        f"""
[task]
name = "tiny"
instruction = "Which city?"
{task}
[data]
examples = ["rows.jsonl"]
{data}
[base]
model = "{model}"
precision = "fp32"
{base}
[study]
arms = {json.dumps(list(arms))}
{study}
{more}
"""
    )
    return folder / "trimtab.toml"
