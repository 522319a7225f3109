"""A refresh from end to end with a real arm: what is new, the plan, the gate, the candidate, and being stopped in
between."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from interrupted import interrupted_after
from patience import no_patience, timed_once
from study_tasks import CITIES, CLASSIFY, LABELLED, QUICK, THINGS, write_task

from trimtab import ask, refresh, registry, study
from trimtab.arms.fingerprint import fingerprint_rows
from trimtab.arms.known_rows import KnownRow, digest_of_row, read_known_rows
from trimtab.arms.store import read_run
from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import BusyError, InputError, MissingError
from trimtab.base.files import locked
from trimtab.base.records import Message
from trimtab.base.task import load_task
from trimtab.cli.main import run
from trimtab.data.ledger import read_ledger, write_ledger
from trimtab.serving.traffic_store import Label, ServedAnswer, traffic_of
from trimtab.studies import train as training
from trimtab.studies.held_out import held_out
from trimtab.upkeep import refresh as module
from trimtab.upkeep.data_changes import LabelledRows, compare_data

__all__ = ["no_patience", "timed_once"]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unhurried")]

OLD, NEW = CITIES[:4], "Jena"


def rows(cities: Sequence[str], first: int, count: int) -> list[dict[str, Any]]:
    """Questions unlike each other, each with its city as label."""
    return [
        {
            "id": f"row{number}",
            "question": f"{THINGS[number % 10]} {number * 7919 % 9973} {number * 104729 % 99991} of "
            f"{cities[number % len(cities)]}?",
            "answer": cities[number % len(cities)],
            "topic": "usual",
            "pair": f"p{number}",
        }
        for number in range(first, first + count)
    ]


def add_rows(task: Path, new: Sequence[dict[str, Any]]) -> None:
    with open(task.parent / "rows.jsonl", "a") as file:
        file.write("".join(json.dumps(row) + "\n" for row in new))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, tiny_embedding_folder: Path) -> Path:
    """The task file of a study of `linear`, which is in production."""
    task = write_task(
        tmp_path_factory.mktemp("refreshed"),
        tiny_model_folder,
        ["linear"],
        rows=rows(OLD, 0, 160),
        task=CLASSIFY,
        data=LABELLED,
        base=f'embedding = "{tiny_embedding_folder}"',
        more="[target]\nmargin = 0.25\n[traffic]\nshare = 1.0\n[upkeep]\n",
    )
    study(task, listeners=[])
    with registry(task) as own:
        own.promote(own.register(listeners=[], arm="linear").number or 0, why="the first")
    return task


@pytest.fixture
def task(measured: Path, tmp_path: Path) -> Path:
    return shutil.copytree(measured.parent, tmp_path / "task") / measured.name


def test_nothing_new_is_said_and_nothing_is_made(task: Path) -> None:
    done = refresh(task, listeners=[])
    assert done.outcome == "nothing new"
    assert not list((task.parent / ".trimtab").glob("refreshes/*/"))
    assert len(list((task.parent / ".trimtab" / "studies").glob("2*"))) == 1


def test_a_new_label_comes_into_production_once_it_is_shown_to_be_better(task: Path) -> None:
    add_rows(task, rows([NEW], 200, 60))
    plan = refresh(task, dry_run=True, listeners=[])
    assert plan.outcome == "planned"
    assert plan.plan is not None
    assert plan.plan.worth_it
    assert plan.plan.production_on_new == 0.0  # it does not know the label
    assert plan.changes.new["test"] == plan.plan.new_questions > 5
    assert len(list((task.parent / ".trimtab" / "studies").glob("2*"))) == 1

    done = refresh(task, listeners=[])
    assert done.outcome == "candidate", done.sentence
    assert done.gate is not None
    assert done.gate.passed is True
    assert done.gate.old_test is not None
    assert done.gate.new_test is not None
    assert done.gate.new_test.production == 0.0
    assert done.gate.new_test.candidate > 0.7
    assert done.gate.new_test.look == 1
    assert done.gate.old_test.look == 1  # since the study that measured production
    assert done.gate.forgetting is None  # no weights of the base were changed
    with registry(task) as own:
        candidate = own.show("candidate")
        assert (candidate.number, candidate.parent, own.current().number) == (done.candidate, 1, 1)
        assert own.history("candidate")[0].evidence == done.gate
    assert refresh(task, dry_run=True, listeners=[]).outcome == "planned"  # production is as it was


def test_facts_in_weights_that_changed_are_trained_again_served_and_taken_back(task: Path) -> None:
    file = task.parent / "rows.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for row in lines:
        row["answer"] = NEW if row["answer"] == OLD[0] else row["answer"]
    question = next(row["question"] for row in lines if row["answer"] == NEW)
    assert ask(question, task=task, listeners=[]).answer == OLD[0]
    file.write_text("".join(json.dumps(row) + "\n" for row in lines))

    done = refresh(task, listeners=[])
    assert done.outcome == "candidate", done.sentence
    assert done.plan is not None
    assert done.plan.way == "weights"
    assert done.changes.changed["train"] > 0
    with registry(task) as own:
        first, second = own.show(1), own.show("candidate")
        assert second.weights_sha256 != first.weights_sha256
        assert second.score is not None
        assert second.score.value > 0.8  # on today's answers, which production gave none of
        own.promote(2, why="they were trained again")
        assert ask(question, task=task, listeners=[]).answer == NEW
        own.rollback(why="a try")
        assert ask(question, task=task, listeners=[]).answer == OLD[0]
        own.promote(2, why="after all")
    assert ask(question, task=task, listeners=[]).answer == NEW


def test_with_if_better_it_is_promoted_and_a_second_refresh_finds_nothing_new(task: Path) -> None:
    task.write_text(task.read_text().replace("[upkeep]", '[upkeep]\npromote = "if-better"'))
    add_rows(task, rows([NEW], 200, 60))
    done = refresh(task, by="cron", listeners=[])
    assert done.outcome == "promoted", done.sentence
    with registry(task) as own:
        assert own.current().number == done.candidate == 2
        assert own.history("production")[0].who == "cron"
    assert refresh(task, listeners=[]).outcome == "nothing new"


def test_no_new_test_question_means_that_nothing_could_be_shown(task: Path) -> None:
    add_rows(task, rows(OLD, 200, 1))
    done = refresh(task, listeners=[])
    assert done.outcome == "not worth it"
    assert "Not worth it" in done.sentence
    with pytest.raises(SystemExit) as ended:
        run(["refresh", "--task", str(task)])
    assert ended.value.code == 1


def test_more_of_the_same_is_made_only_anyway_and_is_not_let_through(task: Path) -> None:
    add_rows(task, rows(OLD, 200, 60))
    assert refresh(task, listeners=[]).outcome == "not worth it"
    done = refresh(task, anyway=True, listeners=[])
    assert done.outcome == "not passed"
    assert done.gate is not None
    assert done.gate.passed is None
    assert "no pass" in done.sentence
    with registry(task) as own:
        assert len(own.list()) == 1
        with pytest.raises(MissingError):
            own.show("candidate")


@pytest.mark.parametrize(
    "step", ["_study", "_chosen", "_candidate_answers", "_asked_once", "_gate", "_registered", "_promote"]
)
def test_stopped_after_any_step_it_goes_on_where_it_was(task: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    add_rows(task, rows([NEW], 200, 60))
    with interrupted_after(module._Refresh, step, monkeypatch):
        refresh(task, listeners=[])
    done = refresh(task, resume=True, listeners=[])
    assert done.outcome == "candidate", done.sentence
    assert len(list((task.parent / ".trimtab" / "studies").glob("2*"))) == 2
    with registry(task) as own:
        assert [one.version for one in own.list()] == [2, 1]
        assert len(own.history("candidate")) == 1
    with pytest.raises(MissingError, match="no refresh was stopped"):
        refresh(task, resume=True, listeners=[])


def test_labels_of_traffic_become_rows_and_contradictions_are_told(task: Path) -> None:
    own = load_task(task)
    with traffic_of(own) as store:
        asked = rows([NEW], 200, 60)
        store.add(
            [
                ServedAnswer(
                    id=f"a{number}",
                    when=datetime.now(UTC),
                    arm="linear",
                    version="1",
                    messages=(Message(role="user", content=row["question"]),),
                    passages=(),
                    answer=OLD[0],
                    abstained=False,
                    probability=0.5,
                    milliseconds=1.0,
                    user=None,
                    share=1.0,
                    masked=True,
                )
                for number, row in enumerate(asked)
            ]
        )
        for number in range(58):
            store.label(Label(item=f"a{number}", by="jo", right=False, correction=NEW, when=datetime.now(UTC)))
        store.label(Label(item="a0", by="mi", right=True, correction=None, when=datetime.now(UTC)))
        store.label(Label(item="a58", by="jo", right=False, correction=None, when=datetime.now(UTC)))
    done = refresh(task, listeners=[])
    assert done.changes.labelled.rows == 57
    assert sorted(done.changes.labelled.left_out.values()) == [1, 1]
    assert done.outcome == "candidate", done.sentence
    assert (task.parent / ".trimtab" / "labelled.jsonl").is_file()


def test_what_is_wrong_is_said_in_one_line_and_nothing_is_lost(task: Path) -> None:
    home = task.parent / ".trimtab"
    add_rows(task, rows([NEW], 200, 60))
    with locked(home / "refreshes"), pytest.raises(BusyError, match="is being written by"):
        refresh(task, listeners=[])
    ledger = read_ledger(home / "splits.parquet")
    torn = [
        type(one)(one.id, one.group, one.stratum, "train") if one.split == "test" else one for one in ledger.values()
    ]
    write_ledger(home / "splits.parquet", torn)
    with pytest.raises(InputError, match="questions of a former test set are rows to train on now"):
        refresh(task, listeners=[])
    write_ledger(home / "splits.parquet", list(ledger.values()))
    assert refresh(task, dry_run=True, listeners=[]).outcome == "planned"
    shutil.rmtree(home / "studies")
    shutil.rmtree(home / "served", ignore_errors=True)
    assert refresh(task, dry_run=True, listeners=[]).outcome == "planned"  # the version says what it was made from


def test_production_that_moves_meanwhile_is_not_replaced(task: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task.write_text(task.read_text().replace("[upkeep]", '[upkeep]\npromote = "if-better"'))
    add_rows(task, rows([NEW], 200, 60))
    whole = module._Refresh._registered

    def moved(self: module._Refresh, *given: Any) -> int:
        number = whole(self, *given)
        with registry(task) as own:
            other = own.register("linear", run=own.show(1).source, listeners=[])
            own.promote(other.number or 0, why="by hand")
        return number

    monkeypatch.setattr(module._Refresh, "_registered", moved)
    with pytest.raises(InputError, match="named version 1 when the refresh began, and names version 3 now"):
        refresh(task, listeners=[])


def test_without_anything_in_production_it_says_how_to_begin(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["prompt"])
    with pytest.raises(MissingError):
        refresh(task, listeners=[])


def test_tuned_weights_are_trained_in_two_ways_and_dev_chooses(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the base on all rows, and from production's weights on new rows with as many old ones; both are runs to
    look at."""
    task = write_task(tmp_path, tiny_model_folder, ["quick"], rows=rows(OLD, 0, 60), more=QUICK)
    study(task, listeners=[])
    with registry(task) as own:
        own.promote(own.register("quick", listeners=[]).number or 0, why="the first")
    add_rows(task, rows([NEW], 100, 30))
    replayed: list[frozenset[str]] = []
    whole = module.train

    def noted(*given: Any, **named: Any) -> Any:
        replayed.append(named["only"])
        return whole(*given, **named)

    monkeypatch.setattr(module, "train", noted)
    done = refresh(task, anyway=True, listeners=[])
    assert [one.way for one in done.trainings] == ["from the base", "from production"]
    assert sum(one.kept for one in done.trainings) == 1
    kept = next(one for one in done.trainings if one.kept)
    assert kept.dev_score == max(one.dev_score for one in done.trainings)
    base, on = (one.source for one in done.trainings)
    # The study is the newer one, so that `ask` takes weights that were measured; names tell time to the second.
    assert base.partition("-")[0] >= on.partition("-")[0]
    new = {f"row{number}" for number in range(100, 130)}
    assert replayed[0] & new
    assert 0 < len(replayed[0] - new) <= len(replayed[0] & new) + 1
    run = read_run(tmp_path / ".trimtab" / "runs" / on)
    assert run is not None
    assert run.counts["train"] == len(replayed[0])
    known = read_known_rows(tmp_path / ".trimtab" / "runs" / on)
    assert known is not None
    assert len(known) == 90  # all that there were, whichever it was trained on
    assert done.gate is not None
    assert done.gate.forgetting is not None
    assert done.gate.forgetting.passages == 60


def test_a_training_that_was_stopped_goes_on_in_its_run(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["quick"], rows=rows(OLD, 0, 60), more=QUICK)
    study(task, listeners=[])
    with registry(task) as own:
        own.promote(own.register("quick", listeners=[]).number or 0, why="the first")
    add_rows(task, rows([NEW], 100, 30))

    def stopped(*given: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    for step in ("train_weights", "calibrate"):  # before the weights are trained, and behind that
        with monkeypatch.context() as patch:
            patch.setattr(training, step, stopped)
            with pytest.raises(Exception, match=r"refresh --resume"):
                refresh(task, anyway=step == "train_weights", resume=step != "train_weights", listeners=[])
        runs = [run.name for run in (tmp_path / ".trimtab" / "runs").glob("2*")]
        assert len(runs) == 1
    done = refresh(task, resume=True, listeners=[])
    assert [one.name for one in (tmp_path / ".trimtab" / "runs").glob("2*")] == runs
    assert [one.source for one in done.trainings][1] == runs[0]


def test_rows_that_a_sample_left_out_are_not_new(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path
) -> None:
    task = write_task(
        tmp_path,
        tiny_model_folder,
        ["linear"],
        rows=rows(OLD, 0, 160),
        task=CLASSIFY,
        data=LABELLED,
        base=f'embedding = "{tiny_embedding_folder}"',
    )
    study(task, rows=80, listeners=[])
    with registry(task) as own:
        own.promote(own.register(listeners=[], arm="linear").number or 0, why="the first")
    assert refresh(task, listeners=[]).outcome == "nothing new"
    add_rows(task, rows([NEW], 200, 30))
    found = refresh(task, dry_run=True, listeners=[])
    assert sum(found.changes.new.values()) == 30
    assert found.changes.gone == sum(found.changes.changed.values()) == 0


def test_a_fresh_test_set_retires_the_old_one_and_is_no_fair_question_to_production(task: Path) -> None:
    held_out(task, fresh=True)
    add_rows(task, rows([NEW], 200, 60))
    done = refresh(task, listeners=[])
    assert done.outcome == "not passed", done.sentence
    assert done.gate is not None
    assert done.gate.passed is None
    assert done.gate.old_test is None
    assert "no old test question is left that production was not made from" in done.sentence


def test_documents_that_weights_were_trained_on_are_noticed_too(task: Path) -> None:
    workspace = open_workspace(load_task(task))
    known = {row.id: KnownRow(split, digest_of_row(row)) for split, part in workspace.splits.items() for row in part}
    now = fingerprint_rows(workspace)["documents"]
    nothing = LabelledRows(rows=0, left_out={})
    assert compare_data(workspace, known, None, nothing, learnt=now).nothing
    changes = compare_data(workspace, known, None, nothing, learnt="0" * 64)
    assert not changes.nothing
    assert changes.sentence == "New: other documents than the weights were trained on."


@pytest.mark.parametrize("name", ["airflow_refresh", "prefect_refresh"])
def test_the_examples_for_schedulers_run_as_plain_python(
    task: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_TASK", str(task))
    file = str(Path(__file__).parents[2] / "examples" / f"{name}.py")
    assert runpy.run_path(file)["outcome"] == "nothing new"
    add_rows(task, rows([NEW], 200, 60))
    assert runpy.run_path(file)["outcome"] == "candidate"
