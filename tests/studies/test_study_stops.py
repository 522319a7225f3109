"""Studies that go wrong: arms that fail alone, stops and what goes on after them, what was changed meanwhile."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from study_tasks import QUICK, Killed, arm_of, events, folder_of, require_study_json, write_task

from trimtab.base.errors import BusyError, InputError, MissingError, StoppedError
from trimtab.base.results import StudyResult
from trimtab.measurement.evaluate import load_answers
from trimtab.studies.eval import eval as score_arm
from trimtab.studies.record import seconds_in
from trimtab.studies.study import study


def test_an_arm_that_cannot_run_fails_alone(tmp_path: Path, tiny_model_folder: Path) -> None:
    more = """
[arm.deep]
weights = "freeze"
layers = 3
[api.gone]
url = "http://127.0.0.1:9/v1"
model = "tiny"
"""
    task = write_task(tmp_path, tiny_model_folder, ["api-gone", "deep", "prompt"], more=more)
    result = study(task, allow=["http://127.0.0.1:9"], listeners=[])
    assert [(arm.arm, arm.status) for arm in result.arms] == [
        ("api-gone", "failed"),
        ("deep", "failed"),
        ("prompt", "done"),
    ]
    assert "127.0.0.1:9" in (arm_of(result, "api-gone").why or "")
    assert "layers = 3, but the model has 2" in (arm_of(result, "deep").why or "")
    plain = json.loads((folder_of(task, result) / "study.json").read_text())
    require_study_json(plain)
    assert [event["arm"] for event in events(folder_of(task, result)) if event["stage"] == "failed"] == [
        "deep",  # while it was made; nothing is asked of an endpoint before
        "api-gone",
    ]


def test_with_every_arm_failed_there_is_a_report_and_no_winner(tmp_path: Path, tiny_model_folder: Path) -> None:
    more = '[api.gone]\nurl = "http://127.0.0.1:9/v1"\nmodel = "tiny"\n'
    task = write_task(tmp_path, tiny_model_folder, ["api-gone"], more=more)
    result = study(task, allow=["http://127.0.0.1:9"], listeners=[])
    assert (result.verdict.status, result.verdict.arm, result.comparisons) == ("not_shown", None, ())
    assert (folder_of(task, result) / "report.html").is_file()


@pytest.mark.parametrize("asked", [True, False])
def test_a_fault_of_ours_leaves_its_traceback_where_it_is_asked_for(
    tmp_path, tiny_model_folder, monkeypatch, capsys, asked
) -> None:
    def lost(*_: object, **__: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr("trimtab.arms.run.ArmRunner.make", lost)
    monkeypatch.setenv("TRIMTAB_DEBUG", "1" if asked else "")
    task = write_task(tmp_path, tiny_model_folder, ["prompt"])
    result = study(task, listeners=[])
    assert (result.arms[0].status, result.arms[0].why) == ("failed", "KeyError: 'lost'")
    shown = capsys.readouterr().err
    assert ("Traceback" in shown and "in lost" in shown) == asked


def stop_at(number: int, error: type[BaseException]) -> Callable[[dict[str, Any]], None]:
    seen = 0

    def listener(event: dict[str, Any]) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            raise error

    return listener


STOP_ARMS = ["prompt", "few-shot", "quick", "freeze"]


def figures(result: StudyResult) -> list[Any]:
    return [
        (arm.arm, arm.status, arm.score, arm.seed_scores, arm.format_ok, dict(arm.chosen), arm.extras.get("steps"))
        for arm in result.arms
    ]


def texts(task: Path) -> dict[str, list[tuple[str, str]]]:
    folder = folder_of(task)
    return {
        arm: [(answer.item_id, answer.answer) for answer in load_answers(folder / "arms" / arm / "answers.parquet")]
        for arm in STOP_ARMS
    }


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> tuple[list[Any], Any, list[Any]]:
    task = write_task(tmp_path_factory.mktemp("unharmed"), tiny_model_folder, STOP_ARMS, more=QUICK)
    result = study(task, listeners=[])
    return figures(result), texts(task), events(folder_of(task))


def stop_like(event: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Stop at the first event of this arm and stage: how many events a study has hangs on the machine's speed."""

    def listener(seen: dict[str, Any]) -> None:
        if (seen["arm"], seen["stage"]) == (event["arm"], event["stage"]):
            raise Killed

    return listener


@pytest.mark.parametrize("share", [0.02, 0.2, 0.4, 0.55, 0.7, 0.8, 1.0])
def test_killed_and_resumed_is_the_same_as_never_killed(tmp_path, tiny_model_folder, unharmed, share) -> None:
    expected, answers, written = unharmed
    stop = stop_like(written[-1]) if share == 1.0 else stop_at(max(1, round(len(written) * share)), Killed)
    task = write_task(tmp_path, tiny_model_folder, STOP_ARMS, more=QUICK)
    with pytest.raises(Killed):
        study(task, listeners=[stop])
    folder = folder_of(task)
    plan = (folder / "plan.json").read_bytes() if (folder / "plan.json").exists() else None
    finished = [arm for arm in STOP_ARMS if (folder / "arms" / arm / "arm.json").exists()]
    before = len(events(folder))
    result = study(task, resume=folder.name, listeners=[])
    assert figures(result) == expected
    assert texts(task) == answers
    assert plan is None or (folder / "plan.json").read_bytes() == plan
    assert not {event["arm"] for event in events(folder)[before:]} & set(finished)
    assert json.loads((folder / "manifest.json").read_text())["test_openings"] == 1


def test_seconds_are_of_all_sittings(tmp_path: Path, tiny_model_folder: Path) -> None:
    """Two sittings are stopped in the second arm, the first of them made 1,000 seconds longer; the first arm is
    kept."""
    task = write_task(tmp_path, tiny_model_folder, ["prompt", "quick"], more=QUICK)

    def stop_in_training(event: dict[str, Any]) -> None:
        if event["stage"] == "train" and event["step"] == 2:
            raise Killed

    with pytest.raises(Killed):
        study(task, listeners=[stop_in_training])
    folder = folder_of(task)
    written = events(folder)
    first = next(at for at, event in enumerate(written) if (event["arm"], event["stage"]) == ("quick", "begin"))
    for event in written[: first + 1]:
        event["time"] = (datetime.fromisoformat(event["time"]) - timedelta(seconds=1000)).isoformat()
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in written))
    alone = seconds_in(folder / "events.jsonl", "quick")
    assert 1000 <= alone < 1500
    with pytest.raises(Killed):
        study(task, resume="latest", listeners=[stop_in_training])
    assert seconds_in(folder / "events.jsonl", "quick") > alone
    study(task, resume="latest", listeners=[])
    plain = json.loads((folder / "manifest.json").read_text())["figures"]
    assert plain["quick.measured_seconds"]["value"] > seconds_in(folder / "events.jsonl", "quick") - 1 > 999
    kept = {
        name: json.loads((folder / "arms" / name / "arm.json").read_text())["seconds"] for name in ("prompt", "quick")
    }
    assert 0 < kept["prompt"] < 900 < kept["quick"]
    again = study(task, resume="latest", listeners=[])  # every arm is kept
    assert [arm.status for arm in again.arms] == ["done", "done"]
    plain = json.loads((folder / "manifest.json").read_text())["figures"]
    assert {name: plain[f"{name}.measured_seconds"]["value"] for name in kept} == kept


def test_an_interrupt_is_told_with_what_goes_on(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["prompt"])
    with pytest.raises(StoppedError, match=r"go on with --resume: trimtab study --resume 2\d{7}T\S+ --task .*\.toml$"):
        study(task, listeners=[stop_at(5, KeyboardInterrupt)])
    with pytest.raises(StoppedError):
        study(task, resume=folder_of(task).name, listeners=[stop_at(1, StoppedError)])
    assert study(task, resume=folder_of(task).name, listeners=[]).arms[0].status == "done"


@pytest.mark.parametrize(
    ("file", "before", "after", "told"),
    [
        (
            "trimtab.toml",
            "Which city?",
            "Name the city.",
            r"task\.instruction \(was .Which city\?., is .Name the city\..\)",
        ),
        ("rows.jsonl", "Fulda?", "Fulda now?", "rows"),
        ("notes.md", "old", "new", "documents"),
    ],
)
def test_a_study_does_not_go_on_with_what_was_changed(tmp_path, tiny_model_folder, file, before, after, told) -> None:
    (tmp_path / "notes.md").write_text("# Notes\nThis is old.\n")
    task = write_task(tmp_path, tiny_model_folder, ["prompt"], data='documents = ["notes.md"]')
    with pytest.raises(StoppedError):
        study(task, listeners=[stop_at(5, KeyboardInterrupt)])
    former = (tmp_path / file).read_text()
    (tmp_path / file).write_text(former.replace(before, after))
    with pytest.raises(InputError, match=f"changed since this was begun: {told}; restore"):
        study(task, resume="latest", listeners=[])
    (tmp_path / file).write_text(former)
    assert study(task, resume="latest", listeners=[]).arms[0].status == "done"


def test_other_arms_and_another_budget_leave_finished_arms_as_they_are(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["prompt"])
    study(task, budget="20m", listeners=[])
    done = (folder_of(task) / "arms" / "prompt" / "arm.json").read_bytes()
    with pytest.raises(InputError, match="--budget: a resumed study keeps its plan"):
        study(task, resume="latest", budget="30m", listeners=[])
    task.write_text(task.read_text().replace('["prompt"]', '["prompt", "few-shot"]\nbudget = "9m"'))
    result = study(task, resume="latest", listeners=[])
    assert [(arm.arm, arm.status) for arm in result.arms] == [("prompt", "done"), ("few-shot", "done")]
    assert (folder_of(task) / "arms" / "prompt" / "arm.json").read_bytes() == done


def test_beside_a_study_another_one_is_refused(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["prompt"])
    told: list[str] = []

    def begin_another(event: dict[str, Any]) -> None:
        for resume in (None, "latest"):
            with pytest.raises(BusyError, match="wait for it or stop it") as caught:
                study(task, resume=resume, listeners=[])
            told.append(str(caught.value))

    assert study(task, listeners=[begin_another]).arms[0].status == "done"
    assert told
    assert len(list((tmp_path / ".trimtab" / "studies").glob("2*"))) == 1


def test_a_full_disk_stops_the_study_and_not_one_arm_alone(tmp_path, tiny_model_folder, monkeypatch) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["quick", "prompt"], more=QUICK)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "adapter")

    with monkeypatch.context() as patch:
        patch.setattr("trimtab.arms.trainer.save_adapter", full)
        with pytest.raises(InputError, match=r"arm quick could not be kept .*; free disk space, .* --resume"):
            study(task, listeners=[])
    assert not (folder_of(task) / "study.json").exists()
    assert [arm.status for arm in study(task, resume="latest", listeners=[]).arms] == ["done", "done"]


@pytest.mark.parametrize("ends", [lambda: torch.empty(1 << 50), lambda: bytearray(1 << 60), lambda: np.empty(1 << 50)])
def test_memory_that_runs_out_ends_that_arm_in_one_line_and_resume_tries_it_again(
    tmp_path, tiny_model_folder, monkeypatch, capsys, ends
) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["quick", "prompt"], more=QUICK)
    monkeypatch.setenv("TRIMTAB_DEBUG", "1")
    with monkeypatch.context() as patch:
        patch.setattr("trimtab.arms.trainer.prepare_base", lambda *_: ends())
        first = study(task, listeners=[])
    assert [arm.status for arm in first.arms] == ["failed", "done"]
    assert arm_of(first, "quick").why == (
        'the memory ran out; close other programs, set base.precision = "bf16", or choose a smaller base.model; '
        "--resume tries this arm again"
    )
    assert "Traceback" not in capsys.readouterr().err
    assert [arm.status for arm in study(task, resume="latest", listeners=[]).arms] == ["done", "done"]


def test_a_key_that_is_not_set_is_told_before_anything_is_timed(tmp_path, tiny_model_folder, capsys) -> None:
    more = '[api.big]\nurl = "http://127.0.0.1:9/v1"\nmodel = "m"\nkey_env = "NO_SUCH_KEY"\n'
    task = write_task(tmp_path, tiny_model_folder, ["api-big"], more=more)
    study(task, allow=["NO_SUCH_KEY@http://127.0.0.1:9/v1"])
    first, *_, last = (event["note"] for event in events(folder_of(task)) if event.get("note"))
    assert first.startswith("arm api-big cannot run: the environment variable NO_SUCH_KEY is not set; set it")
    assert last.startswith("arm api-big failed: ")
    assert {first, last} <= set(capsys.readouterr().err.splitlines())


@pytest.mark.parametrize("resume", ["latest", "20260101T000000Z-aaaaaa", "..", "../.."])
def test_there_is_nothing_to_go_on_with(tmp_path: Path, tiny_model_folder: Path, resume: str) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["prompt"])
    with pytest.raises(MissingError, match=r"no (such )?study"):
        study(task, resume=resume, listeners=[])


def test_a_resumed_study_never_decides_its_precision_again(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["prompt"])
    study(task, listeners=[])
    folder = folder_of(task)
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["precision"] == "fp32"
    (folder / "plan.json").write_text(json.dumps(plan | {"precision": "bf16"}))  # as another hour's measurement
    (folder / "arms" / "prompt" / "arm.json").unlink()
    study(task, resume="latest", listeners=[])
    assert json.loads((folder / "manifest.json").read_text())["precision"] == "bf16"


def test_another_prompt_on_the_test_questions_is_another_look(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_task(tmp_path, tiny_model_folder, ["prompt"])
    for times, instruction in (("once", "Which city?"), ("once", "Which city?"), ("2 times", "Name the city.")):
        file.write_text(file.read_text().replace("Which city?", instruction))
        score_arm(file, "prompt", split="test")
        assert f"opened {times}" in capsys.readouterr().err
