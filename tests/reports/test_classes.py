"""The section on a classifier."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from trimtab.reports.classes import classes
from trimtab.reports.folder import read_study

HOSTILE = "<script>alert(1)</script>"


def put_classes(folder: Path, arm: str, count: int) -> None:
    file = folder / "arms" / arm / "arm.json"
    rows = [
        {"label": f"class {n}{HOSTILE}", "precision": 0.5, "recall": n / count, "f1": n / count, "support": 9}
        for n in range(count)
    ]
    selective = {"0.5": 0.95, "1.0": 0.8}
    plain = {**json.loads(file.read_text()), "classes": {"rows": rows, "selective": selective}}
    file.write_text(json.dumps(plain))


def test_weakest_classes_come_first_and_many_are_folded(make_study: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    chosen = read_study(folder).verdict.arm
    assert chosen is not None
    assert classes(read_study(folder)) is None
    put_classes(folder, chosen, 4)
    few = str(classes(read_study(folder)))
    assert few.index("class 0") < few.index("class 3")
    assert "<details" not in few
    assert "0.950" in few
    assert "50%" in few
    assert "<script" not in few
    put_classes(folder, chosen, 40)
    many = str(classes(read_study(folder)))
    assert "All 40 classes" in many


def test_what_is_mistaken_for_what_is_counted(make_study: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    chosen = read_study(folder).verdict.arm
    assert chosen is not None
    put_classes(folder, chosen, 4)
    study = read_study(folder)
    row = study.row(chosen)
    assert row is not None
    wrong = [answer for answer in row.answers if answer.score < 1.0]
    assert wrong
    page = str(classes(study))
    assert "Most frequent mistakes" in page
    assert any(answer.answer in page for answer in wrong)
