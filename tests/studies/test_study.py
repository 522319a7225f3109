"""A whole study with a tiny random model: what is written, in which order, and what its figures rest on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from study_tasks import QUICK, UNKNOWN, events, folder_of, require_study_json, rows_of, write_task

from trimtab.arms.artifacts import Allowance, ArmArtifact
from trimtab.arms.planning import plan
from trimtab.arms.planning.plan import ArmPlan, StagePlan, load_plan
from trimtab.arms.run import ArmRunner
from trimtab.arms.search.context_search import TrialPlan
from trimtab.base.errors import InputError
from trimtab.base.records import Arm
from trimtab.base.results import StudyResult
from trimtab.measurement.evaluate import load_answers
from trimtab.studies import planning
from trimtab.studies.check import check
from trimtab.studies.runs import runs
from trimtab.studies.study import _StudyRun, study


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
            "seconds",
            "latencies",
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
    assert [one["arm"] for one in plain["trivial"]] == [
        "most-frequent",
        "always-unknown",
        "nearest-answer",
        "nearest-meaning",
    ]
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
    names = ".*".join(("prompt", "few-shot", "quick", "full", "freeze"))
    named = rf"{names}.* score no higher than a fixed rule without a model, copying [^()]*\(nearest-answer: 1\.000\)\."
    assert re.search(named, plain["verdict"]["details"])  # a question names its city
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
    assert "few-shot.choose_seconds" not in marks  # nothing is searched without effort
    assert 1 < plain["too_few_groups"] < 10  # of pairs, among the 64 rows' test share
    assert plain["smallest_difference_from"] == "test answers"  # dev has too few questions to say how far arms differ
    kept = {
        arm.arm: json.loads((folder_of(task, result) / "arms" / arm.arm / "arm.json").read_text())
        for arm in result.arms
    }
    assert [name for name, record in kept.items() if record["dev_scores"]] == ["quick", "full", "freeze"]
    report = (folder_of(task, result) / "report.html").read_text()
    assert f"only {plain['too_few_groups']} groups" in report
    assert "predicted from test answers" in report


def test_unknown_is_the_right_answer_to_what_the_data_do_not_say(whole: tuple[Path, StudyResult]) -> None:
    task, result = whole
    answers = load_answers(folder_of(task, result) / "arms" / "full" / "answers.parquet")
    due = [answer for answer in answers if answer.reference == (UNKNOWN,)]
    assert due
    assert all((answer.score == 1.0) == answer.abstained for answer in due)


def test_planning_may_take_a_tenth_of_the_budget_and_time_that_comes_back_goes_to_what_was_cut(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float | None] = []

    def predicted(
        session: object, arms: object, progress: object = None, *, seconds: float | None, **_: object
    ) -> tuple[ArmPlan, ...]:
        """`prompt` takes a moment, not nine minutes, so that there is time to search after all."""
        asked.append(seconds)
        tried = TrialPlan(what="instructions", count=5, seconds=400.0)
        few = ArmPlan(arm="few-shot", answer_seconds=1.0, trials=(tried,))
        return few, ArmPlan(arm="prompt", answer_seconds=560.0, timed=False)

    monkeypatch.setattr(planning, "predict", predicted)
    task = write_task(tmp_path, tiny_model_folder, ["few-shot", "prompt"], effort="standard")
    result = study(task, budget="10m", listeners=[])
    folder = folder_of(task, result)
    assert asked == [60.0]
    told = [event["note"] for event in events(folder) if event.get("note")]
    assert "prompt was not timed; its time is estimated from the others" in told
    assert "to fit the budget: settings are not searched, so arms run with their defaults" in told
    assert any(note.endswith("few-shot made again in that time") for note in told)
    assert [arm.status for arm in result.arms] == ["done", "done"]
    assert result.arms[0].effort is not None, "it has searched"
    assert json.loads((folder / "manifest.json").read_text())["cuts"] == []
    assert not (folder / "former").exists()


def slow(arms: Sequence[Arm], seconds: float) -> tuple[ArmPlan, ...]:
    """Each epoch of each arm foretold to take so long, which takes a moment here."""
    stage = StagePlan(epoch_seconds=seconds, epochs=2.0)
    return tuple(ArmPlan(arm=arm.name, stages=(stage,) if arm.stages else ()) for arm in arms)


TWICE = """
[arm.one]
weights = "lora"
[arm.two]
weights = "freeze"
"""


def test_what_was_cut_of_training_is_made_up_for_before_the_test_questions_are_asked(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "predict", lambda session, arms, progress=None, *, seconds, **_: slow(arms, 400.0))
    task = write_task(tmp_path, tiny_model_folder, ["one", "two", "prompt"], more=TWICE)
    result = study(task, budget="10m", listeners=[])
    found, folder = events(folder_of(task, result)), folder_of(task, result)
    order = [(event["arm"], event["stage"]) for event in found if event["stage"] in ("begin", "answer")]
    first_asked = next(number for number, (_, stage) in enumerate(order) if stage == "answer")
    made = [arm for arm, stage in order[:first_asked] if stage == "begin"]
    assert made[:4] == ["prompt", "one", "two", "one"], "what takes least first; `two` is not cut, as `one` was so fast"
    assert json.loads((folder / "manifest.json").read_text())["cuts"] == []
    plan = json.loads((folder / "plan.json").read_text())
    assert [plan["allowances"][name]["epochs"] for name in ("one", "two")] == [None, None]
    one = result.arms[0].extras
    assert (one["steps"], one["epochs"]) == (100, 20), "as many as are usual, of five steps each"
    again = study(task, resume="latest", listeners=[])
    assert [arm.score for arm in again.arms] == [arm.score for arm in result.arms]


def test_what_is_reported_of_training_is_what_was_made(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs were asked for and half of one was made, as all of them would have taken longer than the budget."""

    def predicted(
        session: object, arms: Sequence[Arm], progress: object = None, *, seconds: float, **_: object
    ) -> tuple[ArmPlan, ...]:
        return tuple(replace(one, answer_seconds=540.0) for one in slow(arms, 40.0))

    monkeypatch.setattr(planning, "predict", predicted)
    monkeypatch.setattr(_StudyRun, "_retrain_cut_arms", lambda self, plan: plan)
    task = write_task(tmp_path, tiny_model_folder, ["quick"], more=QUICK.replace("epochs = 1", "epochs = 2"))
    result = study(task, budget="10m", listeners=[])
    folder, (arm,) = folder_of(task, result), result.arms
    assert (arm.extras["steps"], arm.extras["epochs"]) == (4, pytest.approx(0.8))
    kept = json.loads((folder / "arms" / "quick" / "arm.json").read_text())
    assert kept["result"]["extras"]["epochs"] == arm.extras["epochs"]
    for file in ("report.html", "report.md"):
        text = (folder / file).read_text()
        assert "trained for 4 steps, 0.8 epoch" in text
        assert "epochs 2" not in text


def test_an_arm_that_cannot_be_made_again_stays_as_it_was(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "predict", lambda session, arms, progress=None, *, seconds, **_: slow(arms, 400.0))
    make, times = ArmRunner.make, []

    def once(self: ArmRunner, arm: Arm, folder: Path, allowance: Allowance) -> ArmArtifact:
        times.append(allowance.epochs)
        if len(times) == 2:
            (folder / "run-0").mkdir(parents=True)
            raise RuntimeError("no")
        return make(self, arm, folder, allowance)

    monkeypatch.setattr(ArmRunner, "make", once)
    task = write_task(tmp_path, tiny_model_folder, ["one"], more=TWICE)
    result = study(task, budget="10m", listeners=[])
    folder = folder_of(task, result)
    assert [epochs is None for epochs in times] == [False, True]
    assert result.arms[0].status == "done"
    assert (folder / "arms" / "one" / "run-0" / "adapter" / "adapter_model.safetensors").is_file()
    assert json.loads((folder / "manifest.json").read_text())["cuts"] == [f"at most {times[0]:g} epochs of training"]
    assert "arm one stays as it was: RuntimeError: no" in [event.get("note") for event in events(folder)]


def taking(answering: float, of_tests: float) -> Callable[..., tuple[ArmPlan, ...]]:
    """A prediction of so many seconds for each arm, `of_tests` of them for the test questions."""

    def predicted(session: object, arms: Sequence[Arm], progress: object = None, **_: object) -> tuple[ArmPlan, ...]:
        return tuple(ArmPlan(arm=arm.name, answer_seconds=answering, test_seconds=of_tests) for arm in arms)

    return predicted


def test_fewer_test_questions_are_asked_where_the_task_allows_it(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "predict", taking(300.0, 280.0))
    monkeypatch.setattr(plan, "LEAST_TESTS", 10)
    task = write_task(tmp_path, tiny_model_folder, ["few-shot", "prompt"], rows=rows_of(80), study='test_rows = "auto"')
    result = study(task, budget="10m", listeners=[])
    assert [arm.status for arm in result.arms] == ["done", "done"]
    sample = result.sample
    assert sample is not None
    assert (sample.rows, sample.used["train"]) == (None, sample.of["train"])
    assert {arm.score.n for arm in result.arms if arm.score} == {sample.used["test"]}
    assert 10 <= sample.used["test"] < sample.of["test"]
    folder = folder_of(task, result)
    cut = f"{sample.used['test']} of {sample.of['test']} test questions, which show"
    assert json.loads((folder / "manifest.json").read_text())["cuts"][-1].startswith(cut)
    assert cut in result.verdict.details
    (folder / "study.json").unlink()
    assert study(task, resume="latest", listeners=[]).sample == sample


def test_where_no_arm_fits_fewer_questions_are_asked_unless_the_task_forbids_it(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "predict", taking(700.0, 680.0))
    monkeypatch.setattr(plan, "LEAST_TESTS", 10)
    rows, whole = rows_of(80), tmp_path / "whole"
    whole.mkdir()
    with pytest.raises(InputError, match=r"leave 9\.\d min of it, and the cheapest, prompt, takes about 12 min"):
        study(
            write_task(whole, tiny_model_folder, ["prompt"], rows=rows, study='test_rows = "all"'),
            budget="10m",
            listeners=[],
        )
    task = write_task(tmp_path, tiny_model_folder, ["prompt"], rows=rows)
    seen = check(task, budget="10m", listeners=[])
    result = study(task, budget="10m", listeners=[])
    assert result.sample is not None
    assert 10 <= result.sample.used["test"] < result.sample.of["test"]
    asked = f"{result.sample.used['test']} of {result.sample.of['test']} test questions"
    assert result.spent is not None
    assert (result.spent.budget, result.spent.of) == ("10m", 600.0)
    assert result.spent.seconds > sum(arm.evaluation_seconds for arm in result.arms)
    assert f"budget 10m, took {result.spent.seconds:.0f} s" in (folder_of(task, result) / "report.html").read_text()
    kept = load_plan(folder_of(task, result) / "plan.json")
    assert [cut.split(",")[0] for cut in seen.cuts] == [asked]
    assert kept is not None
    assert seen.minutes == pytest.approx(kept.seconds / 60)


def test_where_one_arm_alone_fits_fewer_questions_are_asked_so_that_it_is_compared(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "predict", taking(300.0, 280.0))
    monkeypatch.setattr(plan, "LEAST_COMPARED", 10)
    arms = ["few-shot", "prompt"]
    whole = write_task(tmp_path, tiny_model_folder, arms, rows=rows_of(80), study='test_rows = "all"')
    assert not any("test questions" in cut for cut in check(whole, budget="10m", listeners=[]).cuts)
    task = write_task(tmp_path, tiny_model_folder, arms, rows=rows_of(80))
    result = study(task, budget="10m", listeners=[])
    assert [arm.status for arm in result.arms] == ["done", "done"]
    assert result.sample is not None
    assert 10 <= result.sample.used["test"] < result.sample.of["test"]


def test_what_was_left_out_is_made_after_all_where_the_others_leave_time_for_it(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def predicted(
        session: object, arms: Sequence[Arm], progress: object = None, *, seconds: float, **_: object
    ) -> tuple[ArmPlan, ...]:
        """Long at first, as on a machine that was busy; then `few-shot` fits, `lora` does not and `full` cannot be
        timed."""
        asked.append([arm.name for arm in arms])
        first = {"prompt": 1.0, "few-shot": 9000.0, "lora": 8000.0, "full": 7000.0}
        later = {"few-shot": 100.0, "lora": 5000.0, "full": 1.0}
        found = first if len(asked) == 1 else later
        return tuple(ArmPlan(arm=arm.name, answer_seconds=found[arm.name], timed=arm.name != "full") for arm in arms)

    monkeypatch.setattr(planning, "predict", predicted)
    task = write_task(tmp_path, tiny_model_folder, ["prompt", "few-shot", "lora", "full"])
    result = study(task, budget="10m", listeners=[])
    assert asked == [["prompt", "few-shot", "lora", "full"], ["few-shot", "lora", "full"]]
    assert [arm.status for arm in result.arms] == ["done", "done", "not_run", "not_run"]
    left_out = {arm.arm: arm.why or "" for arm in result.arms if arm.status == "not_run"}
    assert "it needs about" in left_out["lora"]
    assert "min of the budget are left" in left_out["full"]
    folder = folder_of(task, result)
    assert (folder / "arms" / "few-shot" / "answers.parquet").is_file()
    assert json.loads((folder / "manifest.json").read_text())["figures"]["few-shot.seconds"]["value"] == 100.0
    told = [
        event
        for event in events(folder)
        if "of the budget are left, so few-shot runs after all" in (event.get("note") or "")
    ]
    assert [event["arm"] for event in told] == [None]

    study(task, resume="latest", listeners=[])
    assert len(asked) == 2, "a study that is done is not planned again"
    (folder / "study.json").unlink()  # as if it had been killed at the end
    again = study(task, resume="latest", listeners=[])
    assert asked[2:] == [["lora", "full"]]
    assert [arm.status for arm in again.arms] == ["done", "done", "not_run", "not_run"]
    begun = sum(event["stage"] == "begin" and event["arm"] == "few-shot" for event in events(folder))
    assert begun == 3, "made, its curve, asked"


def test_an_arm_that_was_timed_on_a_busy_machine_is_timed_once_more(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.studies.study.is_busy", lambda share: True)
    task = write_task(tmp_path, tiny_model_folder, ["prompt"])
    folder = folder_of(task, study(task, listeners=[]))
    told = events(folder)
    again = next(at for at, event in enumerate(told) if "timing prompt once more" in (event.get("note") or ""))
    stages = [[event["stage"] for event in part] for part in (told[:again], told[again:])]
    assert [part.count("latency") for part in stages] == [6, 6]  # two before it counts, and four
    assert "answer" not in stages[1]


def test_a_budget_that_no_arm_fits_is_told_at_once_and_another_one_goes_on(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["lora", "prompt"])
    told = (
        r"study\.budget: no arm fits the budget of 0\.001s: planning and the verdict leave 0\.0 min of it, and the "
        r"cheapest, prompt, takes about 0\.1 min; "
        r"give it 1m, here"
    )
    with pytest.raises(InputError, match=told):
        study(task, budget="0.001s", listeners=[])
    folder = folder_of(task)
    assert not (folder / "study.json").exists()
    assert not (tmp_path / ".trimtab" / "openings.jsonl").exists()  # nothing was asked of the test set
    assert not {event["stage"] for event in events(folder)} & {"answer", "train"}
    assert [info.state for info in runs(task)] == ["unfinished"]
    result = study(task, resume="latest", budget="20m", listeners=[])
    assert result.study == folder.name
    assert [arm.status for arm in result.arms] == ["done", "done"]


def test_a_study_in_which_nothing_ran_is_not_done_and_plans_afresh(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.arms.run.ArmRunner.make", _fails)
    task = write_task(tmp_path, tiny_model_folder, ["prompt"])
    result = study(task, budget="20m", listeners=[])
    assert [arm.status for arm in result.arms] == ["failed"]
    assert result.trivial == ()
    assert [info.state for info in runs(task)] == ["unfinished"]
    monkeypatch.undo()
    again = study(task, resume="latest", budget="30m", listeners=[])
    assert (again.study, again.arms[0].status) == (result.study, "done")
    assert [info.state for info in runs(task)] == ["done"]
    with pytest.raises(InputError, match="a resumed study keeps its plan"):
        study(task, resume="latest", budget="40m", listeners=[])


def _fails(*_: object, **__: object) -> None:
    raise RuntimeError("no")


def test_chosen_arms_run_alone_and_again_when_the_study_goes_on(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["prompt", "quick", "full"], more=QUICK)
    with pytest.raises(InputError, match=r"unknown arm 'quik'; did you mean quick\?"):
        study(task, arms=["prompt", "quik"], listeners=[])
    with pytest.raises(InputError, match="--arms: an arm is named twice"):
        study(task, arms=["prompt", "prompt"], listeners=[])
    result = study(task, arms=["few-shot", "prompt"], listeners=[])
    folder = folder_of(task, result)
    assert json.loads((folder / "manifest.json").read_text())["arms"] == ["few-shot", "prompt"]
    again = study(task, resume="latest", listeners=[])
    assert [arm.arm for arm in again.arms] == [arm.arm for arm in result.arms] == ["few-shot", "prompt"]
    with pytest.raises(InputError, match=r"changed since this was begun: study\.arms"):
        study(task, resume="latest", arms=["prompt"], listeners=[])


def test_a_scorer_that_fails_on_trivial_answers_takes_no_study_with_it(tmp_path: Path, tiny_model_folder: Path) -> None:
    def scorer(question: str, reference: str, answer: str) -> float:
        if answer in {row["answer"] for row in rows_of()}:  # what the random model never says
            raise ValueError("no such city")
        return 0.5

    kind = 'kind = "generate"\nmetric = "scorer"\nscorer = ["unused"]\noutput_tokens = 4'
    result = study(write_task(tmp_path, tiny_model_folder, ["prompt"], task=kind), scorer=scorer, listeners=[])
    assert [arm.status for arm in result.arms] == ["done"]
    assert result.trivial == ()
    folder = folder_of(tmp_path / "trimtab.toml", result)
    told = [event["note"] for event in events(folder) if event.get("note")]
    assert any("trivial arms were not scored" in note and "no such city" in note for note in told)
