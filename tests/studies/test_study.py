"""Whole studies with a tiny random model: what is written, what fails alone, what a stop leaves, every kind of task."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from study_tasks import UNKNOWN, rows_of, write_task

from trimtab.base.errors import ConsentError, InputError, MissingError, StoppedError
from trimtab.base.records import ArmResult, StudyResult
from trimtab.measurement.evaluate import load_answers
from trimtab.studies.study import study

QUICK = """
[arm.quick]
weights = "lora"
epochs = 1
"""
CLASSIFY = 'kind = "classify"'
LABELLED = 'columns = { input = "question", label = "answer" }'


def folder_of(task: Path, result: StudyResult | None = None) -> Path:
    studies = task.parent / ".trimtab" / "studies"
    return studies / (result.study if result else next(studies.glob("2*")).name)


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def arm_of(result: StudyResult, name: str) -> ArmResult:
    return next(arm for arm in result.arms if arm.arm == name)


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


# ---- what is written

NUMBER = (int, float)
ARM_FIELDS: dict[str, Any] = {
    "arm": str,
    "status": str,
    "score": NUMBER,
    "low": NUMBER,
    "high": NUMBER,
    "n": int,
    "seeds": int,
    "passes": (bool, type(None)),
    "p_target": (int, float, type(None)),
    "format_ok": NUMBER,
    "slices": dict,
    "train_seconds": NUMBER,
    "peak_memory_mb": NUMBER,
    "latency_p50_ms": NUMBER,
    "latency_p95_ms": (int, float, type(None)),
    "cost": (dict, type(None)),
}


def require_fields(value: dict[str, Any], fields: dict[str, Any]) -> None:
    for name, kind in fields.items():
        assert name in value, name
        assert isinstance(value[name], kind), (name, value[name])


def require_study_json(plain: dict[str, Any]) -> None:
    """The object of the formats: every field named there, with its type."""
    require_fields(
        plain,
        {
            "study": str,
            "task": str,
            "metric": str,
            "target": (int, float, type(None)),
            "verdict": dict,
            "arms": list,
            "comparisons": list,
            "report": str,
        },
    )
    assert set(plain["verdict"]) == {"status", "arm", "sentence", "flips", "needs"}
    assert plain["verdict"]["status"] in ("shown", "not_shown")
    assert (plain["verdict"]["arm"] is None) == (plain["verdict"]["status"] == "not_shown")
    for flip in plain["verdict"]["flips"]:
        assert {"what", "then"} < set(flip) <= {"what", "then", "below", "above"}
    for arm in plain["arms"]:
        if arm["status"] == "done":
            require_fields(arm, ARM_FIELDS)
            assert arm["low"] <= arm["score"] <= arm["high"]
            for part in arm["slices"].values():
                assert set(part) == {"score", "low", "high", "n"}
            if arm["cost"]:
                assert set(arm["cost"]) == {"total", "up_front", "monthly", "currency"}
        else:
            assert arm["status"] in ("failed", "not_run")
            assert set(arm) == {"arm", "status", "why"}
            assert arm["why"]
    for comparison in plain["comparisons"]:
        assert set(comparison) == {"a", "b", "difference", "low", "high", "p", "p_holm"}
        assert comparison["p_holm"] >= comparison["p"]


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
        assert {"weights", "stages", "context", "settings", "digest", "usage", "result"} == set(kept)
        assert (arm.train_seconds > 0) == (kept["weights"] != "base")
        assert arm.cost is not None
        assert arm.cost.currency == "USD"


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
    assert {figure["provenance"] for figure in plain["figures"].values()} == {"measured", "predicted", "yours"}
    assert "full.memory_mb" in plain["figures"]


# ---- arms that fail, arms that do not fit


def test_an_arm_that_cannot_run_fails_alone(tmp_path: Path, tiny_model_folder: Path) -> None:
    more = """
[arm.deep]
weights = "freeze"
layers = 3
[arm.wild]
weights = "full"
learning_rate = 0.9
epochs = 40
[api.gone]
url = "http://127.0.0.1:9/v1"
model = "tiny"
"""
    task = write_task(tmp_path, tiny_model_folder, ["api-gone", "deep", "prompt"], more=more)
    result = study(task, listeners=[])
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
        "api-gone",
        "deep",
    ]


def test_with_every_arm_failed_there_is_a_report_and_no_winner(tmp_path: Path, tiny_model_folder: Path) -> None:
    more = '[api.gone]\nurl = "http://127.0.0.1:9/v1"\nmodel = "tiny"\n'
    task = write_task(tmp_path, tiny_model_folder, ["api-gone"], more=more)
    result = study(task, listeners=[])
    assert (result.verdict.status, result.verdict.arm, result.comparisons) == ("not_shown", None, ())
    assert (folder_of(task, result) / "report.html").is_file()


def test_what_does_not_fit_the_budget_is_cut_in_order_and_told(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(
        tmp_path, tiny_model_folder, ["few-shot", "lora"], study="seeds = 3", data="split = { dev = 0.2, test = 0.3 }"
    )
    result = study(task, budget="0.001s", listeners=[])
    folder = folder_of(task, result)
    cuts = json.loads((folder / "manifest.json").read_text())["cuts"]
    assert [cut.split()[-2] for cut in cuts] == ["on", "of", "3"]  # chosen on dev, epochs of training, of 3 seeds
    assert {arm.status for arm in result.arms} == {"not_run"}
    assert all(re.search(r"lacks about .* min", arm.why or "") for arm in result.arms)
    require_study_json(json.loads((folder / "study.json").read_text()))
    assert not {event["stage"] for event in events(folder)} & {"answer", "train"}


# ---- kinds


def test_several_seeds_are_one_score_an_item_and_a_score_a_seed(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["quick"], study="seeds = 2", more=QUICK)
    (arm,) = study(task, listeners=[]).arms
    answers = load_answers(folder_of(task) / "arms" / "quick" / "answers.parquet")
    assert {answer.seed for answer in answers} == {0, 1}
    assert arm.score is not None
    assert (arm.seeds, len(arm.seed_scores), 2 * arm.score.n) == (2, 2, len(answers))
    assert (folder_of(task) / "arms" / "quick" / "run-1" / "adapter").is_dir()


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


def test_a_scorer_may_be_a_function(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = with_scorer(tmp_path, tiny_model_folder, ["prompt"])
    (arm,) = study(task, scorer=lambda question, reference, answer: 0.75, listeners=[]).arms
    assert arm.score is not None
    assert arm.score.value == 0.75


# ---- rows that do not fit the model


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


# ---- stops


class Killed(BaseException):
    """What takes the process down at an event; nothing in the code under test knows it."""


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
def unharmed(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> tuple[list[Any], Any, int]:
    task = write_task(tmp_path_factory.mktemp("unharmed"), tiny_model_folder, STOP_ARMS, more=QUICK)
    result = study(task, listeners=[])
    return figures(result), texts(task), len(events(folder_of(task)))


@pytest.mark.parametrize("share", [0.02, 0.2, 0.4, 0.55, 0.7, 0.8, 0.999])
def test_killed_and_resumed_is_the_same_as_never_killed(tmp_path, tiny_model_folder, unharmed, share) -> None:
    expected, answers, length = unharmed
    task = write_task(tmp_path, tiny_model_folder, STOP_ARMS, more=QUICK)
    with pytest.raises(Killed):
        study(task, listeners=[stop_at(max(1, round(length * share)), Killed)])
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


def test_an_interrupt_is_told_with_what_goes_on(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["prompt"])
    with pytest.raises(StoppedError, match=r"--resume .*2\d{7}T"):
        study(task, listeners=[stop_at(5, KeyboardInterrupt)])
    with pytest.raises(StoppedError):
        study(task, resume=folder_of(task).name, listeners=[stop_at(1, StoppedError)])
    assert study(task, resume=folder_of(task).name, listeners=[]).arms[0].status == "done"


def test_a_changed_task_does_not_take_over_old_results(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["prompt"])
    study(task, listeners=[])
    task.write_text(task.read_text().replace("Which city?", "Name the city."))
    before = len(events(folder_of(task)))
    study(task, resume="latest", listeners=[])
    assert "answer" in {event["stage"] for event in events(folder_of(task))[before:]}


@pytest.mark.parametrize("resume", ["latest", "20260101T000000Z-aaaaaa", "..", "../.."])
def test_there_is_nothing_to_go_on_with(tmp_path: Path, tiny_model_folder: Path, resume: str) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["prompt"])
    with pytest.raises(MissingError, match=r"no (such )?study"):
        study(task, resume=resume, listeners=[])


def test_unknown_is_the_right_answer_to_what_the_data_do_not_say(whole: tuple[Path, StudyResult]) -> None:
    task, result = whole
    answers = load_answers(folder_of(task, result) / "arms" / "full" / "answers.parquet")
    due = [answer for answer in answers if answer.reference == (UNKNOWN,)]
    assert due
    assert all((answer.score == 1.0) == answer.abstained for answer in due)
