"""Probes within a study: what they found stands in its files, the verdict and the report, once, and may decide."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from study_tasks import CLASSIFY, LABELLED, arm_of, folder_of, rows_of, write_task

from trimtab import check, study
from trimtab.base.results import StudyResult


@pytest.fixture
def make(tmp_path: Path, tiny_embedding_folder: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Runs a study of `linear`, which tells cities by their names."""
    monkeypatch.setattr("trimtab.studies.study.LEAST_PROBED", 20)

    def run(more: str = "", **given: object) -> StudyResult:
        task = write_task(
            tmp_path,
            "nowhere",
            ["linear"],
            rows=rows_of(200),
            task=CLASSIFY,
            data=LABELLED,
            base=f'embedding = "{tiny_embedding_folder}"',
            study='probes = ["typing"]',
            more=more,
        )
        return study(task, listeners=(), **given)  # type: ignore[arg-type]

    return run


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slips that leave nothing of a question: every arm breaks under them."""
    monkeypatch.setattr("trimtab.arms.probing.typing_errors.with_slips", lambda *_: "zzz")


def test_an_arm_that_stands_its_probes_is_told_nothing(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = make()
    slips, lower = arm_of(result, "linear").probes
    assert (slips.change, lower.change) == ("with typing errors", "in lower case without punctuation")
    assert not slips.found
    assert not lower.found
    assert "breaks" not in result.verdict.sentence
    again = study(tmp_path / "trimtab.toml", listeners=(), resume=result.study)
    assert arm_of(again, "linear").probes == (slips, lower)


@pytest.mark.usefixtures("breaking")
def test_an_arm_that_breaks_is_told_so_in_the_second_sentence_and_the_report(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = make()
    probe = arm_of(result, "linear").probes[0]
    assert probe.found
    assert (
        f"But it breaks with typing errors: {probe.after:.2f} instead of {probe.before:.2f}." in result.verdict.sentence
    )
    folder = folder_of(tmp_path / "trimtab.toml", result)
    plain = json.loads((folder / "study.json").read_text())
    assert plain["arms"][0]["probes"][0]["found"] is True
    page = (folder / "report.html").read_text()
    assert "What the test set does not ask" in page
    assert "zzz" in page


@pytest.mark.usefixtures("breaking")
def test_a_probe_may_be_a_condition_of_good_enough(make) -> None:  # type: ignore[no-untyped-def]
    result = make('[target]\nquality = 0.1\nprobes = ["typing"]\n')
    assert result.verdict.status == "not_shown"
    assert result.verdict.arm is None


def test_check_names_the_endpoint_that_rewords(tmp_path: Path, tiny_model_folder: Path) -> None:
    more = '[api.helper]\nurl = "https://host.example/v1"\nmodel = "any"\n'
    keys = 'rewords = "helper"\nprobes = ["other-words"]'
    task = write_task(tmp_path, tiny_model_folder, ["prompt"], study=keys, more=more)
    assert any("to send questions to https://host.example/v1" in one.text for one in check(task).remarks)
