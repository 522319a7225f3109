"""The section on a classifier."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from arm_files import put_probabilities, write_arm_file
from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.codec import write_record
from trimtab.base.records import Calibration
from trimtab.base.results import Classes, ClassRow
from trimtab.reports.charts import reliability_diagram
from trimtab.reports.classes import WAYS, classes_section
from trimtab.reports.components import ArmLabel, ReliabilityDiagram
from trimtab.reports.folder import read_study
from trimtab.reports.formatting import DASH
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
    chosen = read_study(folder).result.verdict.arm
    assert chosen is not None
    assert classes_section(read_study(folder)) is None
    put_classes(folder, chosen, 4)
    few = classes_section(read_study(folder))
    assert few is not None
    assert [row[0] for row in few.grid.rows] == [f"class {n}{HOSTILE}" for n in range(4)]
    assert few.title == "Every class, weakest first"
    assert not few.folded
    assert few.surest is not None
    assert [column.title for column in few.surest.columns] == ["Arm", "50%", "100%"]
    assert few.surest.rows[0][1:] == ("0.950", "0.800")
    assert write_report(folder).read_text().count("<script") == 2, "our own, and its data"
    put_classes(folder, chosen, 40)
    many = classes_section(read_study(folder))
    assert many is not None
    assert many.folded
    assert many.title == "All 40 classes, weakest first"
    assert "<summary><b>All 40 classes, weakest first</b></summary>" in write_report(folder).read_text()


def test_what_is_mistaken_for_what_is_counted(make_study: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    chosen = read_study(folder).result.verdict.arm
    assert chosen is not None
    put_classes(folder, chosen, 4)
    study = read_study(folder)
    entry, found = study.arm(chosen), classes_section(study)
    assert entry is not None
    assert found is not None
    assert found.mistakes is not None
    wrong = {(answer.reference[0], answer.answer) for answer in entry.answers if answer.score < 1.0}
    assert wrong
    assert all(row[:2] in wrong for row in found.mistakes.rows)
    assert [int(str(row[2])) for row in found.mistakes.rows] == sorted(
        (int(str(row[2])) for row in found.mistakes.rows), reverse=True
    )


def test_probabilities_stand_before_and_after_with_a_chart_for_each_arm(
    make_study: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_study(tmp_path)
    study = read_study(folder)
    chosen = study.result.verdict.arm
    assert chosen is not None
    for arm in (chosen, "prompt"):
        put_classes(folder, arm, 4)
        put_probabilities(folder / "arms" / arm, 0.75)
    for seed, temperature in enumerate((1.5, 2.25)):
        run = folder / "arms" / chosen / f"run-{seed}"
        run.mkdir()
        write_record(run / "calibration.json", Calibration(way="batch", offsets={"a": -1.0}, temperature=temperature))
    file = folder / "study.json"
    plain = json.loads(file.read_text())
    for one in plain["arms"]:
        one["extras"] = {"ece": 0.031, "ece_before": 0.417}
    file.write_text(json.dumps(plain))
    study = read_study(folder)
    found = classes_section(study)
    assert found is not None
    assert found.calibration is not None
    rows = {row[0].name: row[1:] for row in found.calibration.grid.rows if isinstance(row[0], ArmLabel)}
    assert rows[chosen] == (WAYS["batch"], "1.50 to 2.25", "0.417", "0.031", DASH, DASH)
    assert rows["prompt"][:2] == (WAYS["raw"], DASH), "an arm without a calibration"
    assert len(rows) == len(found.calibration.charts) == 2, "the other arms give no probabilities"
    entry = study.arm(chosen)
    assert entry is not None
    right = sum(answer.score == 1.0 for answer in entry.answers) / len(entry.answers)
    chart = next(one for one in found.calibration.charts if one.title.startswith(f"{chosen}:"))
    assert chart.bins == ((len(entry.answers), pytest.approx(0.75), pytest.approx(right)),)
    page = write_report(folder).read_text()
    assert found.calibration.title in page
    assert "0.417" in (folder / "report.md").read_text()


@given(
    bins=st.lists(st.tuples(st.integers(1, 99_999), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=10).map(
        tuple
    ),
    width=st.sampled_from([350, 505]),
)
def test_a_reliability_chart_stays_inside_and_tells_every_count(
    bins: tuple[tuple[int, float, float], ...], width: int
) -> None:
    chart = ReliabilityDiagram(title="<t>", y_title="y & z", family="base", bins=bins)
    svg = ElementTree.fromstring(reliability_diagram(chart, width).replace(" xmlns=", " x="))
    height = float(svg.get("height", "0"))
    circles = list(svg.iter("circle"))
    assert len(circles) == len(bins)
    assert all(
        0 <= float(one.get("cx", "-1")) <= width and 0 <= float(one.get("cy", "-1")) <= height for one in circles
    )
    texts = [one.text for one in svg.iter("text")]
    assert all(f"{count:,}" in texts for count, _, _ in bins)
