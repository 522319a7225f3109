"""New documents reach production by an update of the index alone: planned, measured on what still holds, let through,
versioned, and taken back; what was not measured is not registered, and who names no arm is answered by production."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from interrupted import interrupted_after
from patience import no_patience, timed_once
from study_tasks import CITIES, THINGS, write_task

from trimtab import ask, drift, refresh, registry, study
from trimtab.base.errors import InputError
from trimtab.upkeep import refresh as module

__all__ = ["no_patience", "timed_once"]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unhurried")]

NAMES = [f"{thing} of {city}" for city in CITIES for thing in THINGS]
CHANGED = NAMES[::4]  # whose price changes
QUESTION = f"What does the {CHANGED[1]} cost?"


def price(name: str, *, later: bool) -> int:
    return 100 + 7 * NAMES.index(name) + (1_000 if later and name in CHANGED else 0)


def write_documents(folder: Path, *, later: bool) -> None:
    """One document for each name; later some prices are others, and the rest is said in other words."""
    (folder / "documents").mkdir(exist_ok=True)
    for name in NAMES:
        cost = price(name, later=later)
        said = f"The {name} costs {cost} euros."
        if later and name not in CHANGED:
            said = f"The cost of the {name}: {cost} euros."
        (folder / "documents" / f"{name.replace(' ', '-')}.md").write_text(f"# {name}\n\n{said}\n")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, tiny_embedding_folder: Path) -> Path:
    """The task file of a study of `extract`, which is in production."""
    folder = tmp_path_factory.mktemp("prices")
    write_documents(folder, later=False)
    rows = [
        {"id": name, "question": f"What does the {name} cost?", "answer": f"{price(name, later=False)} euros"}
        for name in NAMES
    ]
    task = write_task(
        folder,
        tiny_model_folder,
        ["extract"],
        rows=rows,
        task='kind = "answer"\noutput_tokens = 12',
        data='documents = ["documents/"]\nleakage = "report"\n'
        'columns = { input = "question", output = "answer" }\nsplit = { dev = 0.2, test = 0.4, seed = 0 }',
        base=f'embedding = "{tiny_embedding_folder}"',
        more="[target]\nmargin = 0.1\n[traffic]\nshare = 1.0\n[upkeep]\n",
    )
    study(task, listeners=[])
    with registry(task) as own:
        own.promote(own.register("extract", listeners=[]).number or 0, why="the first")
    return task


@pytest.fixture
def task(measured: Path, tmp_path: Path) -> Path:
    """The same, with the documents of later."""
    copied = shutil.copytree(measured.parent, tmp_path / "task") / measured.name
    write_documents(copied.parent, later=True)
    return copied


def answer(task: Path, arm: str | None = None) -> str:
    return ask(QUESTION, task=task, arm=arm, listeners=[]).answer


def test_new_documents_come_into_production_and_are_taken_back(task: Path) -> None:
    before, after = (f"{price(CHANGED[1], later=later)} euros" for later in (False, True))
    test = {row["id"] for row in map(json.loads, (task.parent / "rows.jsonl").read_text().splitlines())}
    plan = refresh(task, dry_run=True, listeners=[])
    assert plan.plan is not None
    assert (plan.plan.way, plan.plan.facts_gone) == ("index", len(CHANGED))
    assert plan.outdated
    assert set(plan.outdated) <= set(CHANGED) & test
    assert plan.plan.old_questions == len(NAMES) - len(CHANGED)  # of dev and train, too: the arm learns from no row
    assert plan.plan.chance is not None
    assert plan.plan.chance > 0.5

    done = refresh(task, listeners=[])
    assert done.outcome == "candidate", done.sentence
    assert done.gate is not None
    assert done.gate.old_test is not None
    assert done.gate.new_test is None
    assert done.gate.old_test.questions == len(NAMES) - len(CHANGED)
    assert "answer them anew" in done.sentence
    with registry(task) as own:
        first, second = own.show(1), own.show("candidate")
        assert (second.parent, second.source, second.weights_sha256) == (1, first.source, first.weights_sha256)
        assert second.documents_sha256 != first.documents_sha256
        assert second.index_sha256 != first.index_sha256
        assert second.verdict is None
        assert second.score is not None
        assert first.score is not None
        assert second.score.n == first.score.n - len(done.outdated)
        assert before in answer(task)  # as the server that follows production answers
        assert after in answer(task, "extract")  # an arm that is named reads the documents of today
        own.promote(2, why="new documents")
        assert after in answer(task)
        assert refresh(task, listeners=[]).outcome == "nothing new"
        own.rollback(why="a try")
        assert before in answer(task)
        own.promote(2, why="after all")
    assert after in answer(task)


def test_what_was_outdated_stays_left_out_until_it_is_answered_anew(task: Path) -> None:
    left_out = refresh(task, listeners=[]).outdated
    with registry(task) as own:
        own.promote(2, why="new documents")
    (task.parent / "documents" / "new.md").write_text("# roof of Ulm\n\nThe roof of Ulm costs 3 euros.\n")
    assert refresh(task, dry_run=True, listeners=[]).outdated == left_out
    rows = [json.loads(line) for line in (task.parent / "rows.jsonl").read_text().splitlines()]
    row = next(row for row in rows if row["id"] == left_out[0])
    row["answer"] = f"{price(left_out[0], later=True)} euros"
    (task.parent / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    found = refresh(task, dry_run=True, documents=True, listeners=[])
    assert found.outdated == left_out[1:]
    assert found.plan is not None
    assert found.plan.new_questions == 1


def test_with_if_not_worse_it_is_promoted(task: Path) -> None:
    task.write_text(task.read_text().replace("[upkeep]", '[upkeep]\ndocuments = "if-not-worse"'))
    done = refresh(task, by="cron", listeners=[])
    assert done.outcome == "promoted", done.sentence
    with registry(task) as own:
        assert own.current().number == 2
        assert own.history("production")[0].who == "cron"


def test_documents_that_make_the_answers_worse_are_not_let_through(task: Path) -> None:
    for name in NAMES:  # another document says the same of everything, with another price
        copy = task.parent / "documents" / f"{name.replace(' ', '-')}-wrong.md"
        copy.write_text(f"# {name}\n\nThe {name} costs 5 euros. What does the {name} cost? The {name} costs 5 euros.\n")
    done = refresh(task, listeners=[])
    assert done.outcome == "not passed", done.sentence
    assert done.gate is not None
    assert done.gate.passed is False
    with registry(task) as own:
        assert len(own.list()) == 1


def test_what_is_not_shown_is_a_version_for_people_to_decide(task: Path) -> None:
    task.write_text(task.read_text().replace("margin = 0.1", "margin = 0.001"))
    done = refresh(task, listeners=[])
    assert (done.outcome, done.candidate) == ("not passed", 2)
    assert "registry promote 2" in done.sentence
    with registry(task) as own:
        assert [(one.version, one.aliases) for one in own.list()] == [(2, ""), (1, "production")]
    again = refresh(task, listeners=[])
    assert again.outcome == "nothing new"
    assert "Version 2 answers from today's documents already" in again.sentence


@pytest.mark.parametrize("step", ["_kept_answers", "_gate", "_registered_update", "_promote"])
def test_stopped_after_any_step_it_goes_on_where_it_was(task: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with interrupted_after(module._Refresh, step, monkeypatch):
        assert not refresh(task, listeners=[]).sentence, "it was not stopped"
    assert refresh(task, resume=True, listeners=[]).outcome == "candidate"
    with registry(task) as own:
        assert [one.version for one in own.list()] == [2, 1]


def test_only_what_was_measured_is_registered(task: Path) -> None:
    with registry(task) as own:
        with pytest.raises(InputError, match="with other documents than there are now"):
            own.register("extract", listeners=[])
        assert len(own.list()) == 1
        write_documents(task.parent, later=False)
        assert own.register("extract", listeners=[]).number == 2
    with (task.parent / "rows.jsonl").open("a") as file:
        file.write(json.dumps({"question": "And now?", "answer": "1"}) + "\n")
    with pytest.raises(InputError, match="nothing to update"):
        refresh(task, documents=True, listeners=[])


def test_drift_counts_facts_and_needs_no_answers_in_use(task: Path) -> None:
    found = drift(task=task)
    assert sum(one.facts for one in found.documents or ()) == len(CHANGED)
    assert found.action == "refresh"
    assert "refresh" in found.advice
