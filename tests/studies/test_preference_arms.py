"""Arms that go on from judged answers: trained, measured, resumed, shown by check, and refused where there are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from study_tasks import Killed, arm_of, begin_with_time, events, folder_of, rows_of, write_task

from trimtab import ask, check, study, train
from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import InputError
from trimtab.base.files import read_object
from trimtab.base.results import StudyResult
from trimtab.base.task import load_task

JUDGED = [
    {"prompt": row["question"], "chosen": row["answer"], "rejected": "nowhere", "group": row["pair"]}
    for row in rows_of(120)
]
ALONE = [
    {
        "prompt": row["question"],
        "answer": row["answer"] if number % 2 else "nowhere",
        "good": number % 2 == 1,
        "group": row["pair"],
    }
    for number, row in enumerate(rows_of(120))
]
MORE = """
[arm.own-dpo]
weights = "lora"
stages = ["sft", "dpo"]
rank = 4
epochs = { sft = 2, dpo = 2 }
learning_rate = { sft = 5e-3, dpo = 2e-2 }
[arm.own-kto]
weights = "lora"
stages = ["kto"]
rank = 4
epochs = 3
learning_rate = 2e-2
"""
DATA = 'group = "pair"\npreferences = ["judged.jsonl"]\nsplit = { dev = 0.25, test = 0.25, seed = 0 }'


def read_rows_of(task: Path) -> list[dict[str, str]]:
    """Where each row of a task stands."""
    splits = open_workspace(load_task(task)).splits
    return [{"id": row.id, "split": name} for name, part in splits.items() for row in part]


def a_task(folder: Path, model: Path, judged: list[dict[str, Any]] = JUDGED, **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in judged))
    given = {"arms": ["prompt", "own-dpo"], "more": MORE, "data": DATA, "rows": rows_of(120), **more}
    return write_task(folder, model, given.pop("arms"), **given)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> tuple[Path, StudyResult]:
    task = a_task(tmp_path_factory.mktemp("judged"), tiny_model_folder)
    return task, study(task, listeners=[])


def test_both_stages_are_trained_and_held_out_pairs_are_told(whole: tuple[Path, StudyResult]) -> None:
    task, result = whole
    arm = arm_of(result, "own-dpo")
    assert arm.status == "done"
    assert arm.extras["pair_accuracy"] > 0.9
    assert 20 <= arm.extras["judged_pairs"] <= 40
    run = folder_of(task, result) / "arms" / "own-dpo" / "run-0"
    assert (run / "adapter" / "adapter_config.json").is_file()
    assert "pair_accuracy" not in arm_of(result, "prompt").extras
    page = (folder_of(task, result) / "report.html").read_text()
    assert "Judged answers told right" in page


def test_judgements_stand_where_their_questions_stand(whole: tuple[Path, StudyResult]) -> None:
    task, result = whole
    manifest = read_object(folder_of(task, result) / "depends.json")
    assert "judged answers" in manifest


def test_a_study_that_was_killed_in_the_second_stage_ends_alike(
    whole: tuple[Path, StudyResult], tmp_path: Path, tiny_model_folder: Path
) -> None:
    def kill(event: dict[str, Any]) -> None:
        if (
            event.get("arm") == "own-dpo"
            and event["stage"] == "train"
            and "pair_accuracy" in event
            and event["step"] == 3
        ):
            raise Killed

    task = a_task(tmp_path / "killed", tiny_model_folder)
    with pytest.raises(Killed):
        study(task, listeners=[kill])
    again = study(task, resume="latest", listeners=[])
    weights = [
        (folder_of(file, one) / "arms" / "own-dpo" / "run-0" / "adapter" / "adapter_model.safetensors").read_bytes()
        for file, one in (whole, (task, again))
    ]
    assert weights[0] == weights[1]
    assert arm_of(again, "own-dpo").score == arm_of(whole[1], "own-dpo").score


def test_answers_judged_alone_train_too_and_the_run_can_be_asked(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = a_task(tmp_path / "alone", tiny_model_folder, ALONE)
    run = train(task, "own-kto", listeners=[])
    assert run.steps > 0
    assert ask("Which one?", task=task, arm="own-kto", listeners=[]).arm == "own-kto"
    with pytest.raises(InputError, match="no pairs of a better and a worse answer"):
        train(task, "own-dpo", listeners=[])


def test_judgements_that_are_all_too_long_stop_their_arm_alone(tmp_path: Path, tiny_model_folder: Path) -> None:
    long = [{**row, "prompt": f"{row['prompt']} {'which ' * 300}"} for row in JUDGED]
    task = a_task(tmp_path / "long", tiny_model_folder, long)
    assert check(task, listeners=[]).judged_example == {}
    result = study(task, listeners=[])
    assert arm_of(result, "prompt").status == "done"
    assert "every preference is longer than the model's" in (arm_of(result, "own-dpo").why or "")


def test_held_out_judgements_without_a_weight_count_for_nothing(tmp_path: Path, tiny_model_folder: Path) -> None:
    whole = a_task(tmp_path / "weighed", tiny_model_folder)
    places = {row["id"]: row["split"] for row in read_rows_of(whole)}
    light = [
        {**row, "id": f"j{number}", "weight": 0 if places[f"row{number}"] != "train" else 1}
        for number, row in enumerate(JUDGED)
    ]
    result = study(a_task(tmp_path / "weighed", tiny_model_folder, light), listeners=[])
    assert arm_of(result, "own-dpo").status == "done"
    assert "pair_accuracy" not in arm_of(result, "own-dpo").extras


def test_with_effort_both_stages_are_searched(tmp_path: Path, tiny_model_folder: Path) -> None:
    more = '[arm.free-dpo]\nweights = "lora"\nstages = ["sft", "dpo"]\nrank = 2\nepochs = 1\n'
    task = a_task(tmp_path / "effort", tiny_model_folder, arms=["free-dpo"], more=more, effort="standard")

    begin_with_time(task)
    effort = arm_of(study(task, resume="latest", listeners=[]), "free-dpo").effort
    assert effort is not None
    stages = [trial.what.get("stage") for trial in effort.trials]
    assert stages.count("sft") > 1
    assert stages.count("dpo") > 1
    for stage in ("sft", "dpo"):
        kept = [trial for trial in effort.trials if trial.what["stage"] == stage and trial.kept]
        assert len(kept) == 1


@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_with_effort_dev_judgements_of_no_use_leave_the_choice_to_the_metric(
    stage: str, tmp_path: Path, tiny_model_folder: Path
) -> None:
    """They have no weight."""
    places = {row["id"]: row["split"] for row in read_rows_of(a_task(tmp_path / "light", tiny_model_folder))}
    light = [
        {**row, "id": f"j{number}", "weight": 0 if places[f"row{number}"] == "dev" else 1}
        for number, row in enumerate(JUDGED)
    ]
    more = f'[arm.light]\nweights = "lora"\nstages = ["{stage}"]\nrank = 2\nepochs = 1\n'
    task = a_task(tmp_path / "light", tiny_model_folder, light, arms=["light"], more=more, effort="standard")
    begin_with_time(task)
    arm = arm_of(study(task, resume="latest", listeners=[]), "light")
    assert arm.status == "done", arm.why
    assert arm.effort is not None
    assert len(arm.effort.trials) > 1
    looks = [event for event in events(folder_of(task)) if event["stage"] == "dev"]
    assert looks
    assert all(look["dev_loss"] is None and look["dev_metric"] is not None for look in looks)


def test_where_all_dev_questions_are_too_long_the_loss_over_pairs_decides(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    folder = tmp_path / "pairs"
    split = {"data": 'group = "pair"\npreferences = ["judged.jsonl"]\nsplit = { dev = 0.1, test = 0.3, seed = 0 }'}
    places = {row["id"]: row["split"] for row in read_rows_of(a_task(folder, tiny_model_folder, **split))}
    rows = [{**row, "question": row["question"] + " xyz" * 100 * (places[row["id"]] == "dev")} for row in rows_of(120)]
    more = '[arm.own]\nweights = "lora"\nstages = ["dpo"]\nrank = 2\nepochs = 1\n'
    task = a_task(folder, tiny_model_folder, rows=rows, arms=["own"], more=more, **split)
    (arm,) = study(task, listeners=[]).arms
    assert arm.status == "done", arm.why
    looks = [event for event in events(folder_of(task)) if event["stage"] == "dev"]
    assert looks
    assert all(look["dev_loss"] is not None and look["dev_metric"] is None for look in looks)


def test_check_shows_both_answers_with_their_masks(tmp_path: Path, tiny_model_folder: Path) -> None:
    seen = check(a_task(tmp_path / "check", tiny_model_folder), listeners=[])
    assert sum(seen.judged.values()) == 120
    better, worse = seen.judged_example["better"], seen.judged_example["worse"]
    assert worse[-1].trained
    assert worse[-1].text.startswith("nowhere")
    assert better[:-1] == worse[:-1]
    assert not better[-1].text.startswith("nowhere")
    assert any("120 pairs of answers" in note for note in seen.notes)


def test_changed_judgements_are_named_when_a_study_is_to_go_on(tmp_path: Path, tiny_model_folder: Path) -> None:
    def kill(event: dict[str, Any]) -> None:
        if event.get("arm") == "own-dpo":
            raise KeyboardInterrupt

    task = a_task(tmp_path / "changed", tiny_model_folder)
    with pytest.raises(Exception, match="stopped"):
        study(task, listeners=[kill])
    a_task(tmp_path / "changed", tiny_model_folder, [{**row, "rejected": "elsewhere"} for row in JUDGED])
    with pytest.raises(InputError, match="changed since this was begun: judged answers"):
        study(task, resume="latest", listeners=[])


def test_an_arm_without_judgements_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    task = write_task(tmp_path, "nowhere", ["lora-dpo"])
    with pytest.raises(InputError, match="arm lora-dpo needs judged answers and there are none"):
        load_task(task)
