"""Studies of every kind of task: seeds, labels, scorers, and rows that do not fit the model."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from study_tasks import CLASSIFY, LABELLED, QUICK, arm_of, folder_of, rows_of, write_task

from trimtab.base.codec import read_record
from trimtab.base.errors import ConsentError, InputError
from trimtab.base.results import ArmRecord
from trimtab.measurement.evaluate import load_answers
from trimtab.measurement.figures import class_figures
from trimtab.measurement.runs import mean_classes
from trimtab.measurement.scorer import ScorerProgram
from trimtab.studies import run_context as opening
from trimtab.studies.study import study
from trimtab.studies.train import train


def test_several_seeds_are_one_score_an_item_a_score_a_seed_and_means_of_the_rest(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    task = write_task(
        tmp_path,
        tiny_model_folder,
        ["quick"],
        rows=rows_of(60),
        task=CLASSIFY,
        data=LABELLED,
        study="seeds = 2",
        more=f"{QUICK}learning_rate = 0.01",
    )
    (arm,) = study(task, listeners=[]).arms
    place = folder_of(task) / "arms" / "quick"
    answers = load_answers(place / "answers.parquet")
    runs = [[answer for answer in answers if answer.seed == seed] for seed in (0, 1)]
    assert arm.score is not None
    assert (arm.seeds, len(arm.seed_scores), 2 * arm.score.n) == (2, 2, len(answers))
    assert (place / "run-1" / "adapter").is_dir()
    record, alone = read_record(place / "arm.json", ArmRecord), [class_figures(run) for run in runs]
    assert alone[0] != alone[1]
    assert record.classes == mean_classes(alone)
    assert arm.extras["macro_f1"] == pytest.approx(mean(mean(row.f1 for row in one.rows) for one in alone))


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_a_classification_answers_with_its_labels(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path, metric: str
) -> None:
    task = write_task(
        tmp_path,
        tiny_model_folder,
        ["linear", "prompt", "nearest-shots"],
        rows=rows_of(120),
        task=f'{CLASSIFY}\nmetric = "{metric}"',
        data=LABELLED,
        base=f'embedding = "{tiny_embedding_folder}"',
    )
    result = study(task, listeners=[])
    labels = {row["answer"] for row in rows_of()}
    for arm in result.arms:
        assert (arm.status, arm.why) == ("done", None)
        answers = load_answers(folder_of(task, result) / "arms" / arm.arm / "answers.parquet")
        assert {answer.answer for answer in answers} <= labels
        assert all(answer.probability is not None and 0 < answer.probability <= 1 for answer in answers)
        assert 0 <= arm.extras["ece"] <= 1
        assert arm.score is not None
        if metric == "accuracy":
            assert arm.score.value == pytest.approx(sum(answer.score for answer in answers) / len(answers))
    assert result.arms[0].score.value > 0.9  # the label stands in the question


SCORER = """
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    if {crash}:
        sys.exit("broken on purpose")
    print(json.dumps({{"id": row["id"], "score": 0.25}}), flush=True)
"""
GENERATE = 'kind = "generate"\nmetric = "scorer"\noutput_tokens = 6\nscorer = {argv}'


def with_scorer(folder: Path, model: Path, arms: list[str], *, crash: str = "False", more: str = "") -> Path:
    (folder / "judge.py").write_text(SCORER.format(crash=crash))
    argv = json.dumps([sys.executable, str(folder / "judge.py")])
    return write_task(folder, model, arms, task=GENERATE.format(argv=argv), more=more)


def test_a_scorer_runs_only_with_consent(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = with_scorer(tmp_path, tiny_model_folder, ["prompt", "quick"], more=QUICK)
    with pytest.raises(ConsentError, match="--allow-commands"):
        study(task, listeners=[])
    assert not (tmp_path / ".trimtab" / "studies").exists()
    result = study(task, allow_commands=True, listeners=[])
    assert [arm.score.value for arm in result.arms if arm.score] == [0.25, 0.25]


def test_a_scorer_that_crashes_fails_the_arms_and_not_the_study(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = with_scorer(tmp_path, tiny_model_folder, ["prompt", "few-shot"], crash="True")
    result = study(task, allow_commands=True, listeners=[])
    assert {arm.status for arm in result.arms} == {"failed"}
    assert (folder_of(task, result) / "report.html").is_file()


def test_a_scorer_that_says_nothing_ends_and_what_it_failed_is_tried_again(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "ScorerProgram", lambda argv, folder: ScorerProgram(argv, folder, seconds=0.5))
    task = with_scorer(tmp_path, tiny_model_folder, ["prompt"])
    speaks = (tmp_path / "judge.py").read_text()
    (tmp_path / "judge.py").write_text("import time\ntime.sleep(600)\n")
    (arm,) = study(task, allow_commands=True, listeners=[]).arms
    assert arm.status == "failed"
    assert re.search(r"judge\.py' left \d+ answers without a score after 0\.5 s", arm.why or "")
    (tmp_path / "judge.py").write_text(speaks)
    monkeypatch.setattr(opening, "ScorerProgram", ScorerProgram)
    assert [arm.status for arm in study(task, resume="latest", allow_commands=True, listeners=[]).arms] == ["done"]


def test_a_scorer_may_be_a_function(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = with_scorer(tmp_path, tiny_model_folder, ["prompt"])
    (arm,) = study(task, scorer=lambda question, reference, answer: 0.75, listeners=[]).arms
    assert arm.score is not None
    assert arm.score.value == 0.75


def test_train_keeps_the_weights_that_a_study_keeps_under_a_scorer_too(tmp_path: Path, tiny_model_folder: Path) -> None:
    """By the same rule from the same readings: byte for byte, and the scorer is asked by both."""
    task = with_scorer(
        tmp_path, tiny_model_folder, ["quick"], more=QUICK.replace("epochs = 1", "epochs = 1\nbatch = 8")
    )

    def dev(folder: Path) -> list[tuple[Any, ...]]:
        lines = (
            folder / "events.jsonl" if (folder / "events.jsonl").is_file() else folder / "metrics.jsonl"
        ).read_text()
        seen = [event for event in map(json.loads, lines.splitlines()) if event["stage"] == "dev"]
        return [tuple(event[key] for key in ("step", "dev_loss", "dev_metric", "best")) for event in seen]

    def judge(question: str, reference: str, answer: str) -> float:
        return len(answer) % 7 / 7

    study(task, scorer=judge, listeners=[])
    made = folder_of(task)
    run = train(task, "quick", scorer=judge, listeners=[])
    assert dev(run.folder) == dev(made)
    assert len(dev(made)) > 1
    assert run.dev_metric is not None
    kept, own = (place / "adapter" / "adapter_model.safetensors" for place in (made / "arms/quick/run-0", run.folder))
    assert kept.read_bytes() == own.read_bytes()


def test_rows_longer_than_the_model_reads_are_refused_in_every_split(tmp_path: Path, tiny_model_folder: Path) -> None:
    rows = rows_of(60)
    long = {3, 17, 31, 45, 59}
    for number in long:
        rows[number]["question"] += " xyz" * 100 + str(number)
    task = write_task(tmp_path, tiny_model_folder, ["prompt", "quick"], rows=rows, more=QUICK)
    result = study(task, listeners=[])
    assert {arm.status for arm in result.arms} == {"done"}
    refused = [json.loads(line) for line in (tmp_path / ".trimtab" / "refused.jsonl").read_text().splitlines()]
    assert {row["line"] for row in refused} == {number + 1 for number in long}
    assert all("256" in row["reason"] and row["remedy"] and row["file"].endswith("rows.jsonl") for row in refused)
    plain = json.loads((folder_of(task, result) / "manifest.json").read_text())
    assert (plain["refused"], sum(plain["counts"]["splits"].values())) == (5, 55)
    assert arm_of(result, "quick").extras["skipped_rows"] == 0


def test_a_study_of_nothing_but_long_rows_is_refused(tmp_path: Path, tiny_model_folder: Path) -> None:
    rows = [{**row, "question": row["question"] + " xyz" * 100} for row in rows_of(60)]
    task = write_task(tmp_path, tiny_model_folder, ["prompt"], rows=rows, data='leakage = "report"')
    with pytest.raises(InputError, match="longer than the model's 256 tokens"):
        study(task, listeners=[])


def test_how_far_arms_differ_is_read_off_dev_where_two_of_them_answered_there(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    """The smallest difference that test shows follows from how far the arms' answers to it differ."""
    task = write_task(
        tmp_path,
        tiny_model_folder,
        ["prompt", "few-shot", "quick"],
        rows=rows_of(100),
        data="split = { dev = 0.25, test = 0.25 }",
        more=QUICK,
        effort="standard",
    )
    study(task, listeners=[])
    folder = folder_of(task)
    records = {name: read_record(folder / "arms" / name / "arm.json", ArmRecord) for name in ("few-shot", "quick")}
    assert {len(record.dev_scores) for record in records.values()} == {25}
    plain = json.loads((folder / "manifest.json").read_text())
    assert plain["smallest_difference_from"] == "test answers"
    assert 0 < plain["smallest_difference"] <= 1
