"""Small tasks of every kind on disk, for studies with a tiny random model, and what a study leaves there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from trimtab import study
from trimtab.base.results import ArmResult, StudyResult

CITIES = ["Aalen", "Bonn", "Celle", "Dachau", "Emden", "Fulda", "Gera", "Hamm", "Ilmenau", "Jena"]
THINGS = ["bridge", "library", "market", "station", "harbour", "museum", "theatre", "stadium", "garden", "tower"]
UNKNOWN = "unknown"
QUICK = """
[arm.quick]
weights = "lora"
epochs = 1
"""
CLASSIFY = 'kind = "classify"'
LABELLED = 'columns = { input = "question", label = "answer" }'


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
    effort: str = "none",
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
effort = "{effort}"
{study}
{more}
"""
    )
    return folder / "trimtab.toml"


def write_passages_task(folder: Path, model: Path, embedding: Path) -> Path:
    """Write a task whose one arm, `quick`, retrieves passages while it trains: fewer than usual are enough."""
    (folder / "documents").mkdir(parents=True)
    rows = rows_of()
    for row in rows:
        text = f"# {row['id']}\n{row['question']} {row['answer']}.\n"
        (folder / "documents" / f"{row['id']}.md").write_text(text)
    return write_task(
        folder,
        model,
        ["quick"],
        rows=rows,
        data='documents = ["documents/"]',
        base=f'embedding = "{embedding}"',
        effort="standard",
        more=f'{QUICK}context = "rag"\n[target]\nmargin = 0.5\n',
    )


def folder_of(task: Path, result: StudyResult | None = None) -> Path:
    studies = task.parent / ".trimtab" / "studies"
    return studies / (result.study if result else next(studies.glob("2*")).name)


class Killed(BaseException):
    """What a killed process comes to in a test: nothing catches it."""


def begin_with_time(task: Path, **given: Any) -> None:
    """Begin a study and give its search all the time that it wants: what is found then hangs on no clock."""

    def kill(event: dict[str, Any]) -> None:
        if event["stage"] == "begin":
            raise Killed

    with pytest.raises(Killed):
        study(task, listeners=[kill], **given)
    file = folder_of(task) / "plan.json"
    plan = json.loads(file.read_text())
    plan["allowance"]["search_seconds"] = 1e9
    file.write_text(json.dumps(plan))


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def arm_of(result: StudyResult, name: str) -> ArmResult:
    return next(arm for arm in result.arms if arm.arm == name)


NUMBER = (int, float)
ARM_FIELDS: dict[str, Any] = {
    "arm": str,
    "status": str,
    "score": NUMBER,
    "low": NUMBER,
    "high": NUMBER,
    "n": int,
    "seeds": int,
    "passes": (bool, type(None)),
    "p_target": (int, float, type(None)),
    "format_ok": NUMBER,
    "slices": dict,
    "train_seconds": NUMBER,
    "peak_memory_mb": NUMBER,
    "latency_p50_ms": NUMBER,
    "latency_p95_ms": (int, float, type(None)),
    "cost": (dict, type(None)),
}


def require_fields(value: dict[str, Any], fields: dict[str, Any]) -> None:
    for name, kind in fields.items():
        assert name in value, name
        assert isinstance(value[name], kind), (name, value[name])


def require_study_json(plain: dict[str, Any]) -> None:
    """The object of the formats: every field named there, with its type."""
    require_fields(
        plain,
        {
            "study": str,
            "task": str,
            "metric": str,
            "target": (int, float, type(None)),
            "verdict": dict,
            "arms": list,
            "comparisons": list,
            "report": str,
        },
    )
    known = {"status", "arm", "sentence", "flips", "needs", "picked", "robustness", "before_relying", "details"}
    assert set(plain["verdict"]) - {"today"} == known
    assert plain["verdict"]["status"] in ("shown", "not_shown")
    assert (plain["verdict"]["arm"] is None) == (plain["verdict"]["status"] == "not_shown")
    for flip in plain["verdict"]["flips"]:
        assert {"what", "then"} < set(flip) <= {"what", "then", "below", "above"}
    for arm in plain["arms"]:
        if arm["status"] == "done":
            require_fields(arm, ARM_FIELDS)
            assert arm["low"] <= arm["score"] <= arm["high"]
            for part in arm["slices"].values():
                assert set(part) == {"score", "low", "high", "n"}
            if arm["cost"]:
                assert set(arm["cost"]) == {"total", "up_front", "monthly", "currency", "low", "high"}
        else:
            assert arm["status"] in ("failed", "not_run")
            assert set(arm) == {"arm", "status", "why"}
            assert arm["why"]
    for comparison in plain["comparisons"]:
        assert set(comparison) == {"a", "b", "difference", "low", "high", "p", "p_holm"}
        assert comparison["p_holm"] >= comparison["p"]
