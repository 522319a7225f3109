"""A study opened in Python: its arms predict as they were measured, as estimators of scikit-learn; two studies side
by side."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from study_tasks import CLASSIFY, LABELLED, QUICK, UNKNOWN, folder_of, rows_of, write_task

import trimtab
from trimtab.arms import store
from trimtab.base.errors import InputError, MissingError
from trimtab.base.results import StudyResult
from trimtab.base.task import load_task
from trimtab.measurement.evaluate import load_answers
from trimtab.studies.decide import decide_again
from trimtab.studies.open_study import OpenedStudy, open_study


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> tuple[Path, StudyResult]:
    """A study of a closed set, on a sample of its rows."""
    task = write_task(
        tmp_path_factory.mktemp("closed"),
        tiny_model_folder,
        ["prompt", "few-shot", "quick"],
        rows=rows_of(200),
        task=CLASSIFY,
        data=LABELLED,
        more=QUICK,
    )
    return task, trimtab.study(task, rows=120, listeners=[])


@pytest.fixture(scope="module")
def opened(closed: tuple[Path, StudyResult]) -> OpenedStudy:
    return open_study(closed[1])


def test_without_a_choice_the_arm_that_scored_highest_is_the_usual_one(
    closed: tuple[Path, StudyResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, result = closed
    monkeypatch.setattr(store, "latest_winner", lambda _: None)
    pick = store.usual_arm(load_task(task))
    assert pick.arm == max(result.arms, key=lambda arm: arm.score.value if arm.score else 0.0).arm
    assert (pick.study, pick.certainty) == (result.study, store.HIGHEST)
    assert "which scored highest" in pick.note


def test_a_study_is_found_by_its_result_its_id_its_folder_and_its_task(closed: tuple[Path, StudyResult]) -> None:
    task, result = closed
    folder = folder_of(task, result)
    ways = [
        open_study(result),
        open_study(result.study, task=task),
        open_study(folder),
        open_study(task),
        open_study(task.parent),
        open_study(task=task),
    ]
    assert {one.folder for one in ways} == {folder.resolve()}
    assert {one.id for one in ways} == {result.study}
    with pytest.raises(MissingError, match="no such study"):
        open_study("20200101T000000Z-aaaaaa", task=task)
    for absent in (folder.parent / "20200101T000000Z-aaaaaa", folder.parent):
        with pytest.raises(MissingError, match=f"^{absent}: .*; .* study"):
            open_study(absent, task=task)


def test_a_study_that_is_decided_again_comes_out_as_before(closed: tuple[Path, StudyResult]) -> None:
    task, result = closed
    own = folder_of(task, result)
    again = decide_again(own, load_task(task), result)
    assert again.verdict == result.verdict
    assert again == result


@pytest.mark.parametrize("arm", ["prompt", "few-shot", "quick"])
def test_an_arm_predicts_as_it_was_measured(opened: OpenedStudy, arm: str) -> None:
    answers = [one for one in load_answers(opened.folder / "arms" / arm / "answers.parquet") if one.seed == 0]
    texts = [one.input for one in answers]
    own = opened.arm(arm)
    assert own.predict(texts).tolist() == [one.answer for one in answers]
    chances = own.predict_proba(texts)
    assert chances.shape == (len(texts), len(own.classes_))
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-6)
    place = {label: n for n, label in enumerate(own.classes_)}
    given = [row[place[one.answer]] for row, one in zip(chances, answers, strict=True)]
    np.testing.assert_allclose(given, [one.probability for one in answers], atol=1e-4)
    assert own.classes_[chances.argmax(axis=1)].tolist() == own.predict(texts).tolist()
    assert opened.arm(arm) is own
    assert own.classes_.tolist() == sorted(own.classes_)


def test_scikit_learn_takes_an_arm_for_a_fitted_classifier(opened: OpenedStudy) -> None:
    rows = rows_of(200)
    texts, labels = [row["question"] for row in rows], [row["answer"] for row in rows]
    arm = opened.arm("prompt")
    assert is_classifier(arm)
    assert clone(arm) is arm
    assert arm.fit(texts, labels) is arm
    assert cross_val_score(arm, texts, labels, cv=2).shape == (2,)
    calibrated = CalibratedClassifierCV(arm, cv=2).fit(texts, labels)
    assert calibrated.predict_proba(texts[:3]).shape == (3, len(arm.classes_))
    pipeline = make_pipeline(FunctionTransformer(list), arm).fit(texts, labels)
    assert pipeline.predict(texts[:5]).tolist() == arm.predict(np.array(texts[:5])).tolist()
    arm.close()
    assert pickle.loads(pickle.dumps(arm)).predict(texts[:2]).tolist() == arm.predict(texts[:2]).tolist()


def test_what_an_arm_cannot_do_is_said(opened: OpenedStudy) -> None:
    arm = opened.arm("prompt")
    for call, said in (
        (lambda: arm.fit(["a"], ["Nowhere"]), "label 'Nowhere' is none"),
        (lambda: arm.predict("one text"), "put it into a list"),
        (lambda: arm.predict([""]), "none of them empty"),
        (lambda: arm.predict([["a", "b"]]), "not a list of texts"),
    ):
        with pytest.raises(InputError, match=said):
            call()
    with pytest.raises(MissingError, match=r"'promt'; did you mean prompt\?"):
        opened.arm("promt")


def test_an_arm_that_writes_predicts_answers_and_no_probabilities(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["prompt"], rows=rows_of(40, unknown=True))
    found = open_study(trimtab.study(task, listeners=[]))
    answers = load_answers(found.folder / "arms" / "prompt" / "answers.parquet")
    arm = found.arm("prompt")
    assert arm.predict([one.input for one in answers]).tolist() == [one.answer for one in answers]
    assert not is_classifier(arm)
    assert UNKNOWN in {reference for one in answers for reference in one.reference}
    with pytest.raises(InputError, match="gives no probabilities"):
        arm.predict_proba(["a"])


def test_a_study_and_the_next_are_compared_question_by_question(
    closed: tuple[Path, StudyResult], opened: OpenedStudy
) -> None:
    task, _ = closed
    other = open_study(trimtab.study(task, arms=["few-shot", "prompt"], rows=60, listeners=[]))
    found = {one.arm: one for one in opened.compare(other)}
    assert found["quick"].other is None
    assert found["quick"].difference is None
    assert found["prompt"].questions == other.result.arms[1].score.n
    assert found["prompt"].difference == 0, "the same arm on the same questions"
    back = {one.arm: one for one in other.compare(opened)}
    assert back["few-shot"].difference == -found["few-shot"].difference


def test_a_repr_fits_a_screen(opened: OpenedStudy, capsys: pytest.CaptureFixture[str]) -> None:
    for shown in (opened, opened.result, trimtab.runs(opened.task), opened.compare(opened), opened.arms):
        lines = repr(shown).splitlines()
        assert len(lines) <= 30
    head, *arms = repr(opened.result).splitlines()[-4:]
    assert [line.split()[0] for line in arms] == ["prompt", "few-shot", "quick"]
    assert len(head.split("  ")) >= 4
    assert max(map(len, repr(opened.result).splitlines())) <= 100
    opened.show()
    assert str(opened.report) in capsys.readouterr().out
    frame = opened.to_frame()
    assert frame["arm"].tolist() == ["prompt", "few-shot", "quick"]
    assert frame["score"].tolist() == [one.score.value for one in opened.arms if one.score]


def test_a_sample_is_said_everywhere_and_kept(closed: tuple[Path, StudyResult], opened: OpenedStudy) -> None:
    task, result = closed
    sample = result.sample
    assert sample is not None
    assert sample.rows == 120
    assert sample.of["test"] > sample.used["test"] == result.arms[0].score.n
    assert sample.sentence in (opened.folder / "report.md").read_text()
    assert trimtab.check(task, rows=120, listeners=[]).notes[-1] == sample.sentence
    assert open_study(opened.folder).result.sample == sample
    (opened.folder / "study.json").unlink()
    again = trimtab.study(
        task, resume="latest" if (opened.folder.parent / "latest").read_text() == opened.id else opened.id, listeners=[]
    )
    assert again.sample == sample
    assert trimtab.eval(task, "few-shot", split="test", run=result.study, listeners=[]).score.n == sample.used["test"]


def test_a_comparison_names_what_changed_and_its_page_needs_nothing_else(
    closed: tuple[Path, StudyResult], opened: OpenedStudy, tmp_path: Path
) -> None:
    task, result = closed
    cheaper = task.read_text().replace("[study]", "[target]\nmargin = 0.1\n[study]", 1)
    other = tmp_path / task.name
    for file in task.parent.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    other.write_text(cheaper)
    second = trimtab.study(other, arms=["prompt"], rows=60, listeners=[])
    page = tmp_path / "changes.html"
    found = trimtab.compare(folder_of(other, second), folder_of(task, result), page=page)
    changed = {one.what: (one.first, one.second) for one in found.changes}
    assert changed["target.margin"] == ("0.1", "")
    assert changed["test rows"] == ("15", "30")
    assert "base model" not in changed
    assert {one.arm for one in found.arms if one.difference is not None} == {"prompt"}
    text = page.read_text()
    assert "target.margin" in text
    assert "<script" not in text
    assert "http:" not in text
    assert "https:" not in text
    same = trimtab.compare(folder_of(task, result), folder_of(task, result))
    assert same.changes == ()
    with pytest.raises(MissingError):
        trimtab.compare("latest", "20200101T000000Z-aaaaaa", task=task)
