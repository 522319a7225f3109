"""A whole study with a tiny random model: what is written, in which order, and what its figures rest on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from study_tasks import QUICK, UNKNOWN, events, folder_of, require_study_json, rows_of, write_task

from trimtab.base.records import StudyResult
from trimtab.measurement.evaluate import load_answers
from trimtab.studies.study import study


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> tuple[Path, StudyResult]:
    """One study over every way of making weights, with slices, a target and prices."""
    task = write_task(
        tmp_path_factory.mktemp("whole"),
        tiny_model_folder,
        ["prompt", "few-shot", "quick", "full", "freeze"],
        rows=rows_of(64, unknown=True),
        data='group = "pair"\nslice = "topic"\ncolumns = { input = "question", output = "answer" }',
        more=QUICK
        + """
[target]
quality = 0.5
latency_p95_ms = 60000
[cost]
machine_hour = { price = 0.4, as_of = 2026-11-01, source = "ours" }
""",
    )
    return task, study(task, listeners=[])


def test_the_study_folder_holds_what_the_formats_say(whole: tuple[Path, StudyResult]) -> None:
    task, result = whole
    folder = folder_of(task, result)
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", result.study)
    assert (folder.parent / "latest").read_text() == result.study
    names = ("study.json", "task.toml", "manifest.json", "events.jsonl", "report.html", "report.md")
    assert all((folder / name).is_file() for name in names)
    assert (folder / "task.toml").read_bytes() == task.read_bytes()
    plain = json.loads((folder / "study.json").read_text())
    require_study_json(plain)
    assert [arm["arm"] for arm in plain["arms"]] == ["prompt", "few-shot", "quick", "full", "freeze"]
    assert {arm["status"] for arm in plain["arms"]} == {"done"}
    assert Path(plain["report"]) == folder / "report.html"
    assert "few-shot" in (folder / "report.html").read_text()


def test_every_arm_answers_every_test_question_once(whole: tuple[Path, StudyResult]) -> None:
    task, result = whole
    columns = ["item_id", "split", "group", "slice", "seed", "input", "reference", "answer", "score", "format_ok"]
    columns += ["abstained", "probability", "seconds", "prompt_tokens", "new_tokens", "passages", "failure"]
    items = None
    for arm in result.arms:
        folder = folder_of(task, result) / "arms" / arm.arm
        assert pq.read_schema(folder / "answers.parquet").names == columns
        answers = load_answers(folder / "answers.parquet")
        own = {answer.item_id for answer in answers}
        assert items is None or own == items
        items = own
        assert len(answers) == len(own) == (arm.score.n if arm.score else 0)
        assert {answer.split for answer in answers} == {"test"}
        assert arm.slices["rare"].n + arm.slices["usual"].n == len(own)
        assert {"recall"} <= set(arm.abstention) <= {"precision", "recall"}  # no precision where none abstained
        kept = json.loads((folder / "arm.json").read_text())
        assert set(kept) == {
            "form",
            "arm",
            "digest",
            "model",
            "revision",
            "embedding",
            "usage",
            "result",
            "classes",
            "dev_scores",
        }
        assert set(kept["arm"]) == {"name", "weights", "stages", "context", "endpoint", "settings"}
        assert (arm.train_seconds > 0) == (kept["arm"]["weights"] != "base")
        assert arm.cost is not None
        assert arm.cost.currency == "USD"


def test_trivial_arms_stand_beside_the_arms_with_their_answers_and_are_in_no_comparison(
    whole: tuple[Path, StudyResult],
) -> None:
    task, result = whole
    folder = folder_of(task, result)
    plain = json.loads((folder / "study.json").read_text())
    assert [one["arm"] for one in plain["trivial"]] == ["most-frequent", "always-unknown", "nearest-answer"]
    names, items = {arm["arm"] for arm in plain["arms"]}, plain["arms"][0]["n"]
    compared = {name for pair in plain["comparisons"] for name in (pair["a"], pair["b"])}
    for one in plain["trivial"]:
        assert set(one) == {"arm", "score", "low", "high", "n", "not_beaten_by"}
        assert set(one["not_beaten_by"]) <= names
        answers = load_answers(folder / "arms" / one["arm"] / "answers.parquet")
        assert len({answer.item_id for answer in answers}) == len(answers) == one["n"] == items
        assert sum(answer.score for answer in answers) / items == pytest.approx(one["score"])
        assert one["arm"] not in names | compared | {plain["verdict"]["arm"]}
    # a random model knows less than one that says that it does not know
    abstaining = next(one for one in plain["trivial"] if one["arm"] == "always-unknown")
    assert abstaining["score"] > 0
    assert {"prompt", "few-shot"} <= set(abstaining["not_beaten_by"])
    named = r"answering without a model: prompt, few-shot, quick, full and freeze \(nearest-answer scores 1\.000\)\.$"
    assert re.search(named, plain["verdict"]["sentence"])  # a question names its city
    for report in ("report.html", "report.md"):
        text = (folder / report).read_text()
        assert all(text.count(name) >= 2 for name in ("most-frequent", "always-unknown", "nearest-answer"))


def test_trained_weights_are_kept_and_their_checkpoints_are_not(whole: tuple[Path, StudyResult]) -> None:
    task, result = whole
    for arm, file in (
        ("quick", "adapter_model.safetensors"),
        ("full", "moved.safetensors"),
        ("freeze", "moved.safetensors"),
    ):
        run = folder_of(task, result) / "arms" / arm / "run-0"
        assert (run / "adapter" / file).is_file()
        assert not list(run.rglob("checkpoints"))


def test_events_are_in_the_order_of_the_work(whole: tuple[Path, StudyResult]) -> None:
    task, result = whole
    found = events(folder_of(task, result))
    assert all({"time", "stage", "arm", "seed", "step", "of"} <= set(event) for event in found)
    assert [event["time"] for event in found] == sorted(event["time"] for event in found)
    assert (found[0]["stage"], found[-1]["stage"]) == ("plan", "verdict")
    order = list(dict.fromkeys(event["arm"] for event in found if event["arm"]))
    assert order == ["prompt", "few-shot", "quick", "full", "freeze"]
    assert {event["arm"] for event in found if event["stage"] == "train"} == {"quick", "full", "freeze"}


def test_the_manifest_names_what_the_figures_rest_on(whole: tuple[Path, StudyResult]) -> None:
    task, result = whole
    plain = json.loads((folder_of(task, result) / "manifest.json").read_text())
    assert {"data", "documents", "base", "task"} <= set(plain["hashes"])
    assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in plain["hashes"].values())
    assert (plain["precision"], plain["seeds"], plain["test_openings"], plain["cuts"]) == ("fp32", [0], 1, [])
    assert sum(plain["counts"]["splits"].values()) == 64
    assert plain["counts"]["source"] == {"not given": 64}
    marks = {name: figure["provenance"] for name, figure in plain["figures"].items()}
    assert set(marks.values()) == {"measured", "predicted", "yours", "assumed"}
    assert marks["questions_per_month"] == "assumed"  # this task file names no volume
    assert "full.memory_mb" in plain["figures"]
    assert marks["few-shot.choose_seconds"] == "measured"
    assert plain["figures"]["few-shot.choose_seconds"]["value"] > 0
    assert "prompt.choose_seconds" not in marks
    assert 1 < plain["too_few_groups"] < 10  # of pairs, among the 64 rows' test share
    assert plain["smallest_difference_from"] == "test answers"  # dev has too few questions to say how far arms differ
    kept = {
        arm.arm: json.loads((folder_of(task, result) / "arms" / arm.arm / "arm.json").read_text())
        for arm in result.arms
    }
    assert [name for name, record in kept.items() if record["dev_scores"]] == ["few-shot", "quick", "full", "freeze"]
    report = (folder_of(task, result) / "report.html").read_text()
    assert f"only {plain['too_few_groups']} groups" in report
    assert "predicted from test answers" in report


def test_unknown_is_the_right_answer_to_what_the_data_do_not_say(whole: tuple[Path, StudyResult]) -> None:
    task, result = whole
    answers = load_answers(folder_of(task, result) / "arms" / "full" / "answers.parquet")
    due = [answer for answer in answers if answer.reference == (UNKNOWN,)]
    assert due
    assert all((answer.score == 1.0) == answer.abstained for answer in due)


def test_what_does_not_fit_the_budget_is_cut_in_order_and_told(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(
        tmp_path, tiny_model_folder, ["few-shot", "lora"], study="seeds = 3", data="split = { dev = 0.2, test = 0.3 }"
    )
    result = study(task, budget="0.001s", listeners=[])
    folder = folder_of(task, result)
    cuts = json.loads((folder / "manifest.json").read_text())["cuts"]
    assert [cut.split()[-2] for cut in cuts] == ["on", "of", "3"]  # chosen on dev, epochs of training, of 3 seeds
    assert {arm.status for arm in result.arms} == {"not_run"}
    assert all(re.search(r"lack about .* min", arm.why or "") for arm in result.arms)
    require_study_json(json.loads((folder / "study.json").read_text()))
    assert not {event["stage"] for event in events(folder)} & {"answer", "train"}
