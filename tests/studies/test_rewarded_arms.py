"""Arms that go on from what their own answers earn: trained, measured, resumed, searched, and refused where labels
are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from study_tasks import Killed, arm_of, begin_with_time, folder_of, rows_of, write_task

from trimtab import ask, study, train
from trimtab.arms.fingerprint import TRAINED_BY, fingerprint_of
from trimtab.arms.session import open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import ConsentError, InputError
from trimtab.base.results import StudyResult
from trimtab.base.task import load_task, parse_arm

MORE = """
[arm.own-grpo]
weights = "lora"
stages = ["sft", "grpo"]
rank = 4
batch = 8
epochs = { sft = 1, grpo = 1 }
learning_rate = { sft = 5e-3, grpo = 5e-3 }
"""
DATA = 'group = "pair"\nsplit = { dev = 0.25, test = 0.25, seed = 0 }'


def a_task(folder: Path, model: Path, **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    given = {"arms": ["own-grpo"], "more": MORE, "data": DATA, "rows": rows_of(60), **more}
    return write_task(folder, model, given.pop("arms"), **given)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> tuple[Path, StudyResult]:
    task = a_task(tmp_path_factory.mktemp("rewarded"), tiny_model_folder)
    return task, study(task, listeners=[])


def events_of(task: Path, result: StudyResult) -> list[dict[str, Any]]:
    lines = (folder_of(task, result) / "events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_both_stages_are_trained_and_the_reward_is_watched(whole: tuple[Path, StudyResult]) -> None:
    task, result = whole
    assert arm_of(result, "own-grpo").status == "done"
    steps = [event for event in events_of(task, result) if event["stage"] == "train" and "reward" in event]
    assert steps
    assert all({"reward", "kl", "length", "entropy"} <= event.keys() for event in steps)
    looks = [event for event in events_of(task, result) if event["stage"] == "dev" and "train_reward" in event]
    assert looks
    assert all(event["dev_loss"] is None and 0 <= event["dev_metric"] <= 1 for event in looks)
    page = (folder_of(task, result) / "report.html").read_text()
    assert "nats from the reference" in page
    assert ask("Which one?", task=task, arm="own-grpo", listeners=[]).arm == "own-grpo"


def test_a_study_that_was_killed_among_the_answers_ends_alike(
    whole: tuple[Path, StudyResult], tmp_path: Path, tiny_model_folder: Path
) -> None:
    def kill(event: dict[str, Any]) -> None:
        if event["stage"] == "train" and "reward" in event and event["step"] == 3:
            raise Killed

    task = a_task(tmp_path / "killed", tiny_model_folder)
    with pytest.raises(Killed):
        study(task, listeners=[kill])
    again = study(task, resume="latest", listeners=[])
    weights = [
        (folder_of(file, one) / "arms" / "own-grpo" / "run-0" / "adapter" / "adapter_model.safetensors").read_bytes()
        for file, one in (whole, (task, again))
    ]
    assert weights[0] == weights[1]


def test_with_effort_both_stages_are_searched(tmp_path: Path, tiny_model_folder: Path) -> None:
    more = '[arm.free-rloo]\nweights = "lora"\nstages = ["sft", "rloo"]\nrank = 2\nepochs = 1\n'
    task = a_task(
        tmp_path / "effort", tiny_model_folder, arms=["free-rloo"], more=more, effort="standard", rows=rows_of(24)
    )

    begin_with_time(task)
    effort = arm_of(study(task, resume="latest", listeners=[]), "free-rloo").effort
    assert effort is not None
    of_rewards = [trial for trial in effort.trials if trial.what["stage"] == "rloo"]
    assert len(of_rewards) > 1
    assert len([trial for trial in of_rewards if trial.kept]) == 1
    assert all(trial.dev_metric is not None for trial in of_rewards)


def test_a_closed_set_is_learnt_directly(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["lora-grpo"], task='kind = "classify"')
    with pytest.raises(InputError, match="arm lora-grpo draws answers, and of a closed set the right label is known"):
        load_task(task)


def test_the_reward_is_what_the_task_file_or_a_function_says(tmp_path: Path, tiny_model_folder: Path) -> None:
    brief = MORE.replace("epochs = { sft = 1, grpo = 1 }", "epochs = { sft = 0.2, grpo = 0.2 }")
    more = f"{brief}[reward]\nlength = 0.5\nprogram = {{ argv = ['false'] }}\n"
    task = a_task(tmp_path / "own", tiny_model_folder, more=more, rows=rows_of(24))
    with pytest.raises(ConsentError, match="to run the program"):
        train(task, "own-grpo", listeners=[])
    events: list[dict[str, Any]] = []
    run = train(task, "own-grpo", listeners=[events.append], reward=lambda *_: 1.0)
    earned = [event["reward"] for event in events if event["stage"] == "train" and "reward" in event]
    assert run.steps > 0
    assert earned
    assert all(1.0 <= value <= 1.5 for value in earned)


def test_what_is_wrong_with_the_reward_is_told_before_anything_is_trained(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    task = a_task(tmp_path / "odd", tiny_model_folder, more=f"{MORE}[reward]\nnumber = 1.0\n")
    events: list[dict[str, Any]] = []
    with pytest.raises(InputError, match=r"reward\.number"):
        train(task, "own-grpo", listeners=[events.append])
    assert not [event for event in events if event["stage"] == "train"]


def test_stages_may_follow_each_other_in_any_number(tmp_path: Path, tiny_model_folder: Path) -> None:
    rows = rows_of(24)
    judged = [{"prompt": row["question"], "chosen": row["answer"], "rejected": "nowhere"} for row in rows]
    more = '[arm.long]\nweights = "lora"\nstages = ["sft", "dpo", "grpo"]\nrank = 2\nepochs = 0.5\n'
    data = f'{DATA}\npreferences = ["judged.jsonl"]'
    task = a_task(tmp_path / "long", tiny_model_folder, arms=["long"], more=more, data=data, rows=rows)
    (task.parent / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in judged))
    assert arm_of(study(task, listeners=[]), "long").status == "done"


def test_weights_depend_on_the_reward_that_they_learn_from(tmp_path: Path, tiny_model_folder: Path) -> None:
    def depends(name: str, arm: str, table: str) -> dict[str, str]:
        file = a_task(tmp_path / name, tiny_model_folder, more=f"{MORE}{table}", rows=rows_of(24))
        session = open_session(open_workspace(load_task(file)))
        return fingerprint_of(session, [parse_arm(arm, session.task)], TRAINED_BY)

    table = "[reward]\nlength = 0.5\n"
    assert depends("a", "own-grpo", "") != depends("b", "own-grpo", table)
    assert depends("c", "lora", "") == depends("d", "lora", table)
