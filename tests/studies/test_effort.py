"""A whole study with effort: what each arm tried, that a kill in a trial costs that trial at most, and what the
report says of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from study_tasks import CLASSIFY, LABELLED, Killed, arm_of, begin_with_time, events, folder_of, rows_of, write_task

from trimtab import ask, study
from trimtab.arms.artifacts import Allowance, ArmArtifact
from trimtab.arms.planning.plan import load_plan
from trimtab.arms.run import ArmRunner
from trimtab.arms.store import read_arm
from trimtab.base.errors import DivergedError
from trimtab.base.records import Arm
from trimtab.base.results import ArmResult, StudyResult
from trimtab.measurement.evaluate import load_answers

ARMS = ["linear", "few-shot", "own", "headed"]
MORE = """
[arm.own]
weights = "lora"
rank = 2
epochs = 1
[arm.headed]
weights = "freeze"
stages = ["head"]
layers = 1
epochs = 1
"""


def a_task(folder: Path, model: Path, embedding: Path, arms: Sequence[str] = ARMS) -> Path:
    folder.mkdir(exist_ok=True)
    data = f"{LABELLED}\nsplit = {{ dev = 0.3, test = 0.3, seed = 0 }}"
    base = f'embedding = "{embedding}"'
    return write_task(
        folder,
        model,
        arms,
        rows=rows_of(120),
        task=CLASSIFY,
        data=data,
        base=base,
        effort="standard",
        more=MORE,
    )


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, tiny_embedding_folder: Path
) -> tuple[Path, StudyResult]:
    task = a_task(tmp_path_factory.mktemp("effort"), tiny_model_folder, tiny_embedding_folder)
    begin_with_time(task)
    return task, study(task, resume="latest", listeners=[])


def searched(result: ArmResult) -> list[tuple[dict[str, Any], float | None, float | None, int, bool]]:
    assert result.effort is not None
    return [(dict(one.what), one.dev_loss, one.dev_metric, one.rows, one.kept) for one in result.effort.trials]


def test_every_arm_says_what_it_tried_and_keeps_one_of_it(whole: tuple[Path, StudyResult]) -> None:
    task, result = whole
    assert [(arm.arm, arm.why) for arm in result.arms if arm.status != "done"] == []
    for name in ("few-shot", "own", "headed"):
        trials = searched(arm_of(result, name))
        assert len(trials) > 2
        assert sum(kept for *_, kept in trials) == 1
        assert all(rows > 0 for *_, rows, _ in trials)
    rates = {what["learning_rate"] for what, *_ in searched(arm_of(result, "own"))}
    assert len(rates) >= 3
    assert arm_of(result, "own").chosen["learning_rate"] in rates
    assert arm_of(result, "own").chosen["epochs"] == 1  # the task file's own
    assert {what["rank"] for what, *_ in searched(arm_of(result, "own"))} == {2}
    figures = json.loads((folder_of(task, result) / "manifest.json").read_text())["figures"]
    assert figures["few-shot.choose_seconds"]["provenance"] == "measured"
    assert figures["few-shot.choose_seconds"]["value"] > 0
    tests = {row.item_id for row in load_answers(folder_of(task, result) / "arms" / "few-shot" / "answers.parquet")}
    kept = (folder_of(task, result) / "search.jsonl").read_text()
    assert not any(f'"{item}"' in kept for item in tests)  # dev alone


def test_arms_in_the_running_are_trained_three_times_before_a_test_question_is_asked(
    whole: tuple[Path, StudyResult],
) -> None:
    task, result = whole
    several = [arm.arm for arm in result.arms if arm.seeds > 1]
    assert set(several) <= {"own", "headed"}
    assert all(arm_of(result, name).seeds == 3 for name in several)
    kept = load_plan(folder_of(task, result) / "plan.json")  # what a study that goes on decides alike by
    assert kept is not None
    assert kept.more_seeds == dict.fromkeys(several, 3)
    stages = [event["stage"] for event in events(folder_of(task, result))]
    assert max(place for place, stage in enumerate(stages) if stage in ("train", "choose")) < stages.index("answer")


def test_a_run_more_that_fails_leaves_those_that_there_are(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ArmRunner.with_seeds

    def failing(self: ArmRunner, arm: Arm, made: ArmArtifact, folder: Path, allowance: Allowance) -> ArmArtifact:
        if allowance.seeds > 1:
            raise DivergedError("loss is nan")
        return real(self, arm, made, folder, allowance)

    monkeypatch.setattr(ArmRunner, "with_seeds", failing)
    monkeypatch.setattr("trimtab.studies.planning.contenders", lambda *_: ["own", "headed"])
    task = a_task(tmp_path / "more", tiny_model_folder, tiny_embedding_folder, arms=["own", "headed"])
    begin_with_time(task)
    result = study(task, resume="latest", listeners=[])
    assert {(arm.status, arm.seeds) for arm in result.arms} == {("done", 1)}
    notes = [event.get("note", "") for event in events(folder_of(task, result))]
    assert "arm own goes on without more seeds: loss is nan" in notes


def test_the_report_shows_what_was_tried(whole: tuple[Path, StudyResult]) -> None:
    task, result = whole
    page = (folder_of(task, result) / "report.html").read_text()
    text = (folder_of(task, result) / "report.md").read_text()
    assert "Effort: what was tried" in page
    assert "Effort: what was tried" in text
    assert "learning rate" in page
    assert page.count("<summary>") >= 3


def dies_at(stage: str, number: int) -> Callable[[dict[str, Any]], None]:
    """A listener that kills the study at the event of a stage with this number, counted from 1."""
    seen = 0

    def kill(event: dict[str, Any]) -> None:
        nonlocal seen
        seen += event["stage"] == stage
        if event["stage"] == stage and seen == number:
            raise Killed

    return kill


@pytest.mark.parametrize("kills", [[("choose", 3), ("dev", 2)], [("dev", 5), ("answer", 2)]])
def test_a_study_killed_in_its_trials_goes_on_with_them(
    kills: list[tuple[str, int]],
    whole: tuple[Path, StudyResult],
    tmp_path: Path,
    tiny_model_folder: Path,
    tiny_embedding_folder: Path,
) -> None:
    """Each is killed twice, once of it in training."""
    task = a_task(tmp_path, tiny_model_folder, tiny_embedding_folder)
    begin_with_time(task)
    for stage, number in kills:
        with pytest.raises(Killed):
            study(task, resume="latest", listeners=[dies_at(stage, number)])
    result = study(task, resume="latest", listeners=[])
    for name in ARMS:
        once, again = arm_of(whole[1], name), arm_of(result, name)
        assert again.chosen == once.chosen
        assert (again.score, again.seeds) == (once.score, once.seeds), name
        if once.effort is not None:
            assert searched(again) == searched(once)
    trained = [sum("loss" in event for event in events(place)) for place in (folder_of(task), folder_of(*whole))]
    assert trained[0] - trained[1] <= 3  # what lay behind the last checkpoint, a quarter of a run, is done again
    assert read_arm(folder_of(task, result) / "arms" / "own") is not None


def test_a_learning_curve_is_told_where_it_is_asked_for(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.arms.learning_curve.LEAST_STEPS", 8)  # how well the parts learn does not matter here
    data = f"{LABELLED}\nsplit = {{ dev = 0.3, test = 0.3, seed = 0 }}"
    task = write_task(
        tmp_path,
        tiny_model_folder,
        ["linear", "prompt", "own"],
        rows=rows_of(120),
        task=CLASSIFY,
        data=data,
        base=f'embedding = "{tiny_embedding_folder}"',
        study="learning_curve = true",
        more=MORE,
    )
    result = study(task, listeners=[])
    train = 120 - 2 * 36
    for name in ("linear", "own"):
        curve = arm_of(result, name).learning
        assert curve is not None
        assert [point.rows for point in curve.points] == [train // 4, train // 2, train]
        assert curve.questions == 36
        assert curve.low <= curve.gain <= curve.high
    assert arm_of(result, "prompt").learning is None
    parts = [folder_of(task, result) / "arms" / "own" / f"rows-{train // part}" for part in (4, 2)]
    weights = {(part / "adapter" / "adapter_model.safetensors").read_bytes() for part in parts}
    assert len(weights) == 2
    assert not list(parts[0].rglob("checkpoints"))
    page = (folder_of(task, result) / "report.md").read_text()
    assert "Would more labels help?" in page


def test_a_question_is_asked_in_the_passages_that_the_study_chose(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path
) -> None:
    (tmp_path / "towns.md").write_text("# Towns\n" + "Aalen has a bridge and a tower. " * 60)
    base = f'embedding = "{tiny_embedding_folder}"'
    file = write_task(tmp_path, tiny_model_folder, ["rag"], data='documents = ["towns.md"]', base=base)
    result = study(file, listeners=[])
    record = folder_of(file, result) / "arms" / "rag" / "arm.json"
    kept = json.loads(record.read_text())
    kept["result"]["chosen"] |= {"chunk_words": 30, "passages": 1}
    record.write_text(json.dumps(kept))
    shutil.rmtree(tmp_path / ".trimtab" / "index")
    found = ask("Where is the bridge?", task=file, arm="rag", listeners=[])
    assert len(found.hits[0].passage.text.split()) <= 40
    assert (tmp_path / ".trimtab" / "index-30").is_dir()
    assert not (tmp_path / ".trimtab" / "index").exists()  # the one of the usual size is not made for it
