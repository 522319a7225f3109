"""Compares studies of the same rows, one of them of several machines; tasks that take a while, or wait."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from study_tasks import folder_of, write_task

from trimtab.base.results import StudyResult
from trimtab.measurement.evaluate import load_answers

# Figures of a clock or of a process, and the study's own name.
OF_THE_RUN = {
    "today",  # costs, which a clock decides, have a part in it
    "before_relying",
    "details",
    *("train_seconds", "evaluation_seconds", "seconds_per_question", "processor_share", "peak_memory_mb", "cost"),
    *("latency_p50_ms", "latency_p95_ms", "latency_p95_high_ms", "prefill_seconds", "decode_seconds"),
    *("seconds", "study", "report", "sentence", "stored_bytes", "busy_machine", "flips"),
}
FREE = """
[cost]
machine_hour = { price = 0.0, as_of = 2026-01-01, source = "x" }
"""
SLOW = """
[arm.slow]
weights = "full"
epochs = 60
"""
# It waits as long as there is a file named hold.
SCORER = """
import json, pathlib, sys, time
for line in sys.stdin:
    row = json.loads(line)
    while pathlib.Path("hold").exists():
        time.sleep(0.02)
    right = row["reference"] if isinstance(row["reference"], str) else row["reference"][0]
    print(json.dumps({"id": row["id"], "score": float(row["answer"][:1] == right[:1])}), flush=True)
"""
SCORED = f'''kind = "generate"
output_tokens = 6
metric = "scorer"
scorer = ["{sys.executable}", "scorer.py"]'''


def without_times(value: Any, figure: Callable[[float], Any] = float) -> Any:
    """A result without what a clock decides."""
    if isinstance(value, dict):
        return {name: without_times(one, figure) for name, one in value.items() if name not in OF_THE_RUN}
    if isinstance(value, list):
        return [without_times(one, figure) for one in value]
    return figure(value) if isinstance(value, float) else value


def what_was_found(value: Any) -> Any:
    """The same, to compare with: its figures to float32's rounding, which depends on the threads."""
    return without_times(value, lambda figure: pytest.approx(figure, rel=1e-5, abs=1e-6))


def compared(plain: dict[str, Any]) -> dict[frozenset[str], Any]:
    """The comparisons by their two arms, which of two equal ones is the first is decided by their costs."""
    found = plain.pop("comparisons")
    return {frozenset((one["a"], one["b"])): [abs(one["difference"]), one["p"], one["p_holm"]] for one in found}


def files_of(folder: Path, but: tuple[str, ...]) -> list[str]:
    found = (path for path in folder.rglob("*") if "__" not in path.name and path.name not in but)
    return sorted(str(path.relative_to(folder)) for path in found)


def require_same(task: Path, result: StudyResult, other: Path, expected: StudyResult, *, apart: bool = False) -> None:
    """Verdict, figures, answers and files are those of another study of the same rows. `apart`: machines share no
    folder, so that locks stay where the work was done.
    """
    own, plain = folder_of(task, result), folder_of(other, expected)
    assert [(arm.status, arm.why) for arm in result.arms] == [("done", None)] * len(result.arms)
    found, right = (json.loads((folder / "study.json").read_text()) for folder in (own, plain))
    assert compared(found) == what_was_found(compared(right))
    assert without_times(found) == what_was_found(right)
    for arm in result.arms:
        answers, others = (load_answers(folder / "arms" / arm.arm / "answers.parquet") for folder in (own, plain))
        assert [(one.item_id, one.seed, one.answer, one.score) for one in answers] == [
            (one.item_id, one.seed, one.answer, one.score) for one in others
        ]
        assert [one.probability for one in answers] == what_was_found([one.probability for one in others])
    locks = (".lock", ".holder") if apart else ()
    assert files_of(own, locks) == files_of(plain, locks)


def beside(folder: Path, name: str) -> Path:
    (folder / name).mkdir(parents=True)
    return folder / name


def in_folders(home: Path, model: Path, arms: list[str], *, more: str = "", **parts: Any) -> tuple[Path, Path]:
    """The same task twice. Machines are free, so that no seconds that were measured decide the verdict."""
    plain, own = (beside(home, name) for name in ("plain", "cluster"))
    for folder in (plain, own):
        (folder / "scorer.py").write_text(SCORER)
    first, second = (write_task(folder, model, arms, more=FREE + more, **parts) for folder in (plain, own))
    return first, second
