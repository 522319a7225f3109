"""`trimtab audit` on a study: answers are asked for blind, kept at once, and the study is decided anew by what
people say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from study_tasks import CLASSIFY, LABELLED, folder_of, rows_of, write_task
from typer.testing import CliRunner

import trimtab
from trimtab.base.errors import InputError
from trimtab.base.results import StudyResult
from trimtab.cli.main import app
from trimtab.measurement import audit as measured
from trimtab.studies.audit import AUDIT, audit
from trimtab.studies.open_study import open_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> tuple[Path, StudyResult]:
    """Two arms that answer from a random model: what they say is wrong."""
    task = write_task(tmp_path_factory.mktemp("audited"), tiny_model_folder, ["prompt", "few-shot"], rows=rows_of(48))
    return task, trimtab.study(task, listeners=[])


def test_a_study_says_that_nobody_has_checked_its_metric(study: tuple[Path, StudyResult]) -> None:
    _, result = study
    assert result.audit is None
    assert "Not audited: a program marked the answers (metric: exact_match)" in result.verdict.details


def test_it_goes_on_where_it_stopped_and_decides_anew_once_enough_is_judged(
    study: tuple[Path, StudyResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, before = study
    folder = folder_of(task, before)
    runner = CliRunner()
    first = runner.invoke(app, ["audit", "--task", str(task), "--json"], input="w\nno\nw\nq\n")
    assert first.exit_code == 1  # too few
    assert len((folder / AUDIT).read_text().splitlines()) == 2
    for arm in ("few-shot", "prompt"):
        assert arm not in first.stderr
    part = json.loads(first.stdout)
    assert part["audit"]["answers"] == 2
    assert "of 60" in part["audit"]["why_not"]
    assert part["arms"][0]["score"] == before.arms[0].score.value  # type: ignore[union-attr]

    session = audit(task=task)
    assert len(session.pending) == len(session.drawn) - 2
    mine = {one.answer for one in audit(task=task).answers["prompt"]}
    monkeypatch.setattr(measured, "ENOUGH", 5)
    for asked in session.pending:
        session.judge(asked, asked.answer in mine)
    result = session.finish()
    assert result.audit is not None
    assert result.audit.why_not is None
    by_arm = {arm.arm: arm for arm in result.audit.arms}
    corrected = {arm.arm: arm.score.value for arm in result.arms if arm.score}
    assert corrected["prompt"] == pytest.approx(by_arm["prompt"].corrected.value)
    assert corrected["prompt"] > 0.8 > by_arm["prompt"].metric_score.value
    assert "people" in result.verdict.details
    assert open_study(task).result == result  # in study.json
    assert "people" in (folder / "report.md").read_text()
    assert audit(task=task).pending == []

    again = trimtab.study(task, resume=before.study, listeners=[])  # a study that goes on keeps what people said
    assert again.audit == result.audit
    assert again.verdict.details == result.verdict.details


def test_labels_are_not_audited(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["prompt"], rows=rows_of(40), task=CLASSIFY, data=LABELLED)
    result = trimtab.study(task, listeners=[])
    assert "audit" not in result.verdict.details
    with pytest.raises(InputError, match="right or wrong by themselves"):
        audit(result)


def test_a_judgement_that_was_taken_back_is_asked_for_again(study: tuple[Path, StudyResult]) -> None:
    task, _ = study
    session = audit(task=task)
    asked = session.drawn[-1]
    session.judge(asked, True)
    assert asked not in audit(task=task).pending
    session.undo(asked)
    assert asked in audit(task=task).pending


def test_a_second_person_is_asked_what_is_left_and_a_share_of_what_was_judged(
    study: tuple[Path, StudyResult],
) -> None:
    task, result = study
    (folder_of(task, result) / AUDIT).unlink(missing_ok=True)
    first = audit(by="anna", task=task)
    assert list(first.notes) == ["0 questions are judged; from 60 on they count, 60 more."]
    last = first.drawn[-1]
    items = len({one.item_id for one in first.drawn})
    assert first.outlook(last) == f"from 60 on they count, {60 - items + 1} more"
    half = first.pending[: len(first.pending) // 2]
    for place, asked in enumerate(half):
        first.judge(asked, float(place % 2))
    second = audit(by="maria", task=task)
    assert second.pending == [one for one in first.pending if one not in half or one.item_id in first.shared]
    assert len(second.pending) > len(first.pending) - len(half)
    assert "anna judged before" in list(second.notes)[1]
    for asked in second.pending:
        second.judge(asked, 1.0)
    assert audit(by="maria", task=task).pending == []
    found = second.finish().audit
    assert found is not None
    assert found.by == {"anna": len(half), "maria": len(second.pending)}
    second.undo(second.pending[0])
    assert audit(by="maria", task=task).pending == second.pending[:1]


def test_scores_weighted_by_the_traffic_are_corrected_too(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = 'slice = "topic"\nmix = { rare = 0.8, usual = 0.2 }'
    task = write_task(tmp_path, tiny_model_folder, ["prompt"], rows=rows_of(60), data=mixed)
    trimtab.study(task, listeners=[])
    monkeypatch.setattr(measured, "ENOUGH", 5)
    monkeypatch.setattr(measured, "ENOUGH_WEIGHTED", 3)
    session = audit(task=task)
    topics = {one.item_id: one.slice for one in session.answers["prompt"]}
    for asked in session.pending:
        session.judge(asked, topics[asked.item_id] == "rare")
    result = session.finish()
    assert result.audit is not None
    assert result.audit.why_not is None
    assert result.audit.n_effective is not None
    assert result.audit.n_effective < result.audit.questions
    assert result.arms[0].score is not None
    assert result.arms[0].score.value == pytest.approx(0.8)
    assert f"as sure as {result.audit.n_effective:,.0f} that count alike" in result.verdict.details
    assert open_study(task).result == result
