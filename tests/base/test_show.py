"""Results in a notebook: every figure stands in a table, nothing in them is markup, and a table is a DataFrame."""

from __future__ import annotations

import re
from html import unescape

from trimtab.base.results import ArmResult, Estimate, StudyResult, Verdict
from trimtab.base.show import ShownRows

DONE = ArmResult(
    arm="lora+rag",
    status="done",
    score=Estimate(value=0.8, low=0.7, high=0.9, n=30),
    extras={"<img src=x>\u202e": 1.0},
)
STUDY = StudyResult(
    study="S",
    task="<script>t</script>",
    metric="accuracy",
    target=None,
    verdict=Verdict(status="shown", arm="lora+rag", sentence="lora+rag <b>wins</b>."),
    arms=(DONE, ArmResult(arm="rag", status="failed", why="w & v")),
    comparisons=(),
    report="r.html",
)


def test_a_study_shows_its_verdict_and_its_arms() -> None:
    page = STUDY._repr_html_()
    assert "lora+rag &lt;b&gt;wins&lt;/b&gt;." in page
    assert "w &amp; v" in page
    assert "\u202e" not in page
    assert set(re.findall(r"<(\w+)", page)) == {
        "p",
        "b",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "details",
        "summary",
    }
    assert "<script>t</script>" in unescape(page)


def test_its_tables_are_data_frames() -> None:
    frames = STUDY.frames()
    arms = frames["arms"]
    assert list(arms["arm"]) == ["lora+rag", "rag"]
    assert (arms["score"][0], arms["low"][0], arms["why"][1]) == (0.8, 0.7, "w & v")
    assert frames["result"]["verdict.arm"][0] == "lora+rag"
    assert DONE.frames()["result"]["score"][0] == 0.8


def test_rows_show_themselves_and_stay_a_tuple() -> None:
    rows = ShownRows((DONE, DONE))
    assert rows == (DONE, DONE)
    assert list(rows.frames()["rows"]["n"]) == [30, 30]
    assert rows._repr_html_().count("lora+rag") == 2
