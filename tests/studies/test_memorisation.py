"""Memorisation canaries: what is remembered word for word is told, what was never trained on is not, and
without any nothing changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from study_tasks import CLASSIFY, LABELLED, Killed, arm_of, folder_of, rows_of, write_task

from trimtab import study, train
from trimtab.arms.fingerprint import task_settings
from trimtab.arms.memorisation import (
    CONTROLS,
    exposure,
    memorisation_canaries,
    memorisation_canary_rows,
    memorisation_controls,
)
from trimtab.arms.session import open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.codec import to_plain
from trimtab.base.errors import InputError
from trimtab.base.progress import Progress
from trimtab.base.results import Exposure, StudyResult
from trimtab.base.task import load_task
from trimtab.measurement.evaluate import load_answers
from trimtab.training.loop import evaluate_objective
from trimtab.training.sft import SupervisedObjective, row_losses

OWN = '[arm.own]\nweights = "full"\nlearning_rate = 5e-3\nepochs = {epochs}\n'


def a_task(folder: Path, model: Path, count: int | None, epochs: float = 40, **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    data = "" if count is None else f"canaries = {count}"
    return write_task(folder, model, ["prompt", "own"], data=data, more=OWN.format(epochs=epochs), **more)


def test_memorisation_canaries_and_controls_are_unlike_each_other_and_the_same_each_time():
    rows = [*memorisation_canaries(1000, 0), *memorisation_controls(0)]
    assert len({row.references[0] for row in rows}) == len(rows) == 1000 + CONTROLS
    assert len({row.input for row in rows}) > 0.9 * len(rows)
    assert memorisation_canaries(7, 0) == memorisation_canaries(1000, 0)[:7]
    first, second = ({row.references for row in memorisation_canaries(7, seed)} for seed in (0, 1))
    assert not first & second


def test_losses_of_rows_are_those_of_each_row_alone(tmp_path: Path, tiny_model_folder: Path) -> None:
    session = open_session(open_workspace(load_task(a_task(tmp_path, tiny_model_folder, 12))))
    rows = memorisation_canary_rows(session)
    alone = [
        evaluate_objective(session.base, SupervisedObjective([row], batch=1, seed=0)).dev_loss * row.trained_tokens  # type: ignore[operator]
        for row in rows
    ]
    assert row_losses(session.base, rows) == pytest.approx(alone, rel=1e-4)


def test_a_model_that_was_not_trained_remembers_nothing(tmp_path: Path, tiny_model_folder: Path) -> None:
    session = open_session(open_workspace(load_task(a_task(tmp_path, tiny_model_folder, 400))))
    found = exposure(session, Progress())
    assert found is not None
    assert (found.canaries, found.controls, found.possible) == (400, 255, 8.0)
    assert found.mean == pytest.approx(1.44, abs=0.35)  # its standard error is 0.07, of the controls another 0.09


@pytest.fixture(scope="module")
def remembering(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> tuple[Path, StudyResult]:
    task = a_task(tmp_path_factory.mktemp("memorisation"), tiny_model_folder, 3)
    return task, study(task, listeners=[])


def test_what_was_read_many_times_has_the_highest_exposure_and_it_is_told(
    remembering: tuple[Path, StudyResult],
) -> None:
    task, result = remembering
    found = arm_of(result, "own").exposure
    assert found == Exposure(canaries=3, controls=CONTROLS, mean=8.0, highest=8.0, possible=8.0)
    assert arm_of(result, "prompt").exposure is None
    folder = folder_of(task, result)
    for file in (folder / "study.json", folder / "arms" / "own" / "arm.json"):
        plain = json.loads(file.read_text())
        arm = plain["result"] if "result" in plain else next(arm for arm in plain["arms"] if arm["arm"] == "own")
        assert arm["exposure"] == {"canaries": 3, "controls": 255, "mean": 8.0, "highest": 8.0, "possible": 8.0}
    for report in ("report.html", "report.md"):
        assert "What is remembered word for word?" in (folder / report).read_text()


def test_no_split_holds_one_and_none_is_asked(remembering: tuple[Path, StudyResult]) -> None:
    task, result = remembering
    splits = open_workspace(load_task(task)).splits
    assert sum(map(len, splits.values())) == len(rows_of())
    answers = load_answers(folder_of(task, result) / "arms" / "own" / "answers.parquet")
    assert {answer.item_id for answer in answers} == {row.id for row in splits["test"]}


def test_a_run_tells_it_too_and_a_killed_one_ends_alike(
    remembering: tuple[Path, StudyResult], tmp_path: Path, tiny_model_folder: Path
) -> None:
    def kill(event: dict[str, Any]) -> None:
        if event["stage"] == "train" and event["step"] == 9:
            raise Killed

    task = a_task(tmp_path / "killed", tiny_model_folder, 3, epochs=2)
    whole = train(task, "own", listeners=[])
    with pytest.raises(Killed):
        train(task, "own", listeners=[kill])
    again = train(task, "own", resume="latest", listeners=[])
    assert again.id != whole.id
    weights = [run.folder / "adapter" / "moved.safetensors" for run in (whole, again)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert again.exposure == whole.exposure
    assert to_plain(whole)["exposure"]["controls"] == CONTROLS
    assert whole.exposure is not None
    assert 0 < whole.exposure.mean < 8


def test_without_memorisation_canaries_nothing_changes(tmp_path: Path, tiny_model_folder: Path) -> None:
    tasks = [a_task(tmp_path / name, tiny_model_folder, count, epochs=1) for name, count in (("a", None), ("b", 0))]
    assert not any("canaries" in key for task in tasks for key in task_settings(load_task(task)))
    files = []
    for task in tasks:
        result = study(task, listeners=[])
        folder = folder_of(task, result)
        assert "exposure" not in (folder / "study.json").read_text()
        answers = load_answers(folder / "arms" / "own" / "answers.parquet")
        files.append(
            (
                (folder / "arms" / "own" / "run-0" / "adapter" / "moved.safetensors").read_bytes(),
                [answer.answer for answer in answers],
            )
        )
    assert files[0] == files[1]


def test_going_on_with_others_is_refused(tmp_path: Path, tiny_model_folder: Path) -> None:
    def kill(event: dict[str, Any]) -> None:
        if event["stage"] == "train" and event["step"] == 2:
            raise Killed

    task = a_task(tmp_path, tiny_model_folder, 3, epochs=1)
    with pytest.raises(Killed):
        train(task, "own", listeners=[kill])
    task.write_text(task.read_text().replace("canaries = 3", "canaries = 4"))
    with pytest.raises(InputError, match=r"data\.canaries \(was 3, is 4\)"):
        train(task, "own", resume="latest", listeners=[])


def test_where_answers_are_labels_they_are_refused(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["lora"], task=CLASSIFY, data=f"{LABELLED}\ncanaries = 3")
    with pytest.raises(InputError, match=r"data\.canaries: .*labels; take it out"):
        load_task(task)
