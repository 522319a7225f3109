"""The section on a classifier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from arm_files import write_arm_file

from trimtab.base.results import Classes, ClassRow
from trimtab.reports.classes import by_class
from trimtab.reports.folder import read_study
from trimtab.reports.page import write_report

HOSTILE = "<script>alert(1)</script>"


def put_classes(folder: Path, arm: str, count: int) -> None:
    rows = tuple(
        ClassRow(label=f"class {n}{HOSTILE}", precision=0.5, recall=n / count, f1=n / count, support=9)
        for n in range(count)
    )
    write_arm_file(folder / "arms" / arm, arm, classes=Classes(rows=rows, selective={0.5: 0.95, 1.0: 0.8}))


def test_weakest_classes_come_first_and_many_are_folded(make_study: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    chosen = read_study(folder).verdict.arm
    assert chosen is not None
    assert by_class(read_study(folder)) is None
    put_classes(folder, chosen, 4)
    few = by_class(read_study(folder))
    assert few is not None
    assert [row[0] for row in few.grid.rows] == [f"class {n}{HOSTILE}" for n in range(4)]
    assert few.title == "Every class, weakest first"
    assert not few.folded
    assert few.surest is not None
    assert [column.title for column in few.surest.columns] == ["Arm", "50%", "100%"]
    assert few.surest.rows[0][1:] == ("0.950", "0.800")
    assert write_report(folder).read_text().count("<script") == 2, "our own, and its data"
    put_classes(folder, chosen, 40)
    many = by_class(read_study(folder))
    assert many is not None
    assert many.folded
    assert many.title == "All 40 classes, weakest first"
    assert "<summary><b>All 40 classes, weakest first</b></summary>" in write_report(folder).read_text()


def test_what_is_mistaken_for_what_is_counted(make_study: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    chosen = read_study(folder).verdict.arm
    assert chosen is not None
    put_classes(folder, chosen, 4)
    study = read_study(folder)
    entry, found = study.arm(chosen), by_class(study)
    assert entry is not None
    assert found is not None
    assert found.mistakes is not None
    wrong = {(answer.reference[0], answer.answer) for answer in entry.answers if answer.score < 1.0}
    assert wrong
    assert all(row[:2] in wrong for row in found.mistakes.rows)
    assert [int(str(row[2])) for row in found.mistakes.rows] == sorted(
        (int(str(row[2])) for row in found.mistakes.rows), reverse=True
    )
