"""Labels of answers in use: resumable, undone, from two people, drawn with known probabilities; an estimate from
them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from judged import served_answer
from typer.testing import CliRunner

from trimtab.base.errors import InputError, MissingError
from trimtab.base.task import Task, load_task
from trimtab.cli.main import app
from trimtab.serving.traffic_store import TrafficStore, traffic_of
from trimtab.upkeep.labels import Labelling, LabelSummary, label

TASK = '[task]\nname = "cities"\nkind = "answer"\n[data]\nexamples = ["rows.jsonl"]\n[base]\nmodel = "none"\n'


@pytest.fixture
def task(tmp_path: Path) -> Task:
    (tmp_path / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    (tmp_path / "trimtab.toml").write_text(TASK)
    return load_task(tmp_path / "trimtab.toml")


def add(store: TrafficStore, numbers: range, version: str = "one") -> None:
    """A third of the answers the arm is unsure of."""
    store.add(
        [
            served_answer(number, version=version, probability=0.9 if number % 3 else 0.5, share=0.5)
            for number in numbers
        ]
    )


@pytest.fixture
def filled(task: Task) -> Task:
    with traffic_of(task) as store:
        add(store, range(60))
    return task


def is_right(item_id: str) -> bool:
    return int(item_id[2:]) % 3 != 0


def labelled(task: Task, count: int, says: Callable[[str], bool | None] = is_right, **options: object) -> LabelSummary:
    with label(task=task, questions=count, **options) as session:  # type: ignore[arg-type]
        for asked in session.pending:
            session.judge(asked, says(asked.item_id))
        return session.finish()


def pending(task: Task, count: int, **options: object) -> list[str]:
    with label(task=task, questions=count, **options) as session:  # type: ignore[arg-type]
        return [asked.item_id for asked in session.pending]


def test_labelling_goes_on_where_it_ended_and_asks_nothing_twice(filled: Task) -> None:
    asked = pending(filled, 30, by="anna")
    assert len(set(asked)) == 30
    with label(task=filled, questions=30, by="anna") as session:
        for item in session.pending[:12]:
            session.judge(item, True)
    assert pending(filled, 30, by="anna") == asked[12:]
    assert pending(filled, 30, by="maria") == asked  # the second labels the same
    assert pending(filled, 40, by="anna")[:18] == asked[12:]


def test_what_is_undone_is_asked_again(filled: Task) -> None:
    with label(task=filled, questions=5, by="anna") as session:
        first, second = session.pending[:2]
        session.judge(first, True)
        session.judge(second, False)
        session.undo(second)
        assert session.finish().labels == 1
    assert pending(filled, 5, by="anna")[0] == second.item_id


def test_the_estimate_stands_beside_the_plain_one_and_by_version(filled: Task) -> None:
    with traffic_of(filled) as store:
        add(store, range(60, 120), version="two")
    found = labelled(filled, 60, drawing="uncertain", by="anna")
    assert (found.answers, found.labels, found.unsure, found.unused) == (120, 60, 0, 0)
    assert found.quality is not None
    assert found.quality.powered is not None
    assert found.quality.powered.low < 2 / 3 < found.quality.powered.high
    assert (found.quality.labels_saved or 0) > 0
    assert [(one.version, one.answers) for one in found.versions] == [("one", 60), ("two", 60)]
    assert sum(one.labels for one in found.versions) == 60


def test_two_people_agree_by_alpha_and_where_they_do_not_half_a_point_counts(filled: Task) -> None:
    labelled(filled, 30, by="anna")
    found = labelled(
        filled, 30, lambda item: not is_right(item) if item in ("q-1", "q-2") else is_right(item), by="maria"
    )
    agreement = found.agreement
    assert agreement is not None
    wrong = sum(item in ("q-1", "q-2") for item in pending(filled, 30, by="nobody"))
    assert agreement.people == ("anna", "maria")
    assert agreement.disagree == wrong
    assert agreement.alpha.low < agreement.alpha.value <= 1
    assert agreement.alpha.n == found.labels == 30
    assert found.by == {"anna": 30, "maria": 30}


def test_what_nobody_can_tell_is_counted_apart(filled: Task) -> None:
    found = labelled(filled, 40, lambda item: None if item.endswith("1") else is_right(item), by="anna")
    assert found.unsure > 0
    assert found.labels + found.unsure == 40
    assert found.quality is not None
    assert found.quality.labels == found.labels


def test_a_right_answer_says_that_the_one_given_is_wrong(filled: Task) -> None:
    with label(task=filled, questions=2, by="anna") as session:
        first, second = session.pending
        session.correct(first, " Another ")
        session.correct(second, f"{second.answer} ")
    with traffic_of(filled) as store:
        assert [(one.right, one.correction) for one in store.labels()] == [(False, "Another"), (True, None)]


def test_a_new_draw_is_of_what_came_since(filled: Task) -> None:
    labelled(filled, 20, by="anna")
    with pytest.raises(InputError, match="no answer to label came since the last draw"):
        label(task=filled, new=True)
    with traffic_of(filled) as store:
        add(store, range(60, 90))
    assert set(pending(filled, 100, by="anna")) <= {f"q-{number}" for number in range(60)}
    found = labelled(filled, 10, new=True, drawing="uncertain", by="anna")
    assert (found.answers, found.labels) == (90, 30)
    with pytest.raises(InputError, match="this draw is uncertain"):
        label(task=filled, drawing="random")


def test_a_draw_that_nobody_has_begun_may_be_drawn_in_another_way_and_of_all_that_came(filled: Task) -> None:
    assert len(pending(filled, 100)) == 60
    with traffic_of(filled) as store:
        add(store, range(60, 90))
    assert len(pending(filled, 100, drawing="uncertain")) == 90
    assert len(pending(filled, 100, new=True)) == 90
    with traffic_of(filled) as store:
        (draw,) = store.draws("traffic")
        assert (draw.drawing, draw.after_row, draw.last_row) == ("uncertain", 0, 90)
        assert store.draw("traffic", "random") == draw  # somebody who begins at the same time shares it


def test_labels_of_answers_that_were_deleted_go_with_them(filled: Task) -> None:
    labelled(filled, 20, by="anna")
    with traffic_of(filled) as store:
        store.expire(1, datetime.now(UTC) + timedelta(days=2))
        assert store.labels() == []
    with label(task=filled, by="anna") as session:
        assert session.pending == []
        assert session.finish().quality is None


def test_answers_of_a_file_are_labelled(task: Task) -> None:
    file = task.folder / "answers.jsonl"
    rows = [{"question": "How much?", "answer": f"{number} euros", "probability": 0.5} for number in (1, 2, 2)]
    file.write_text("\n".join(map(json.dumps, rows)))
    with label(file, task=task, questions=3, by="anna") as session:
        assert len({item.item_id for item in session.pending}) == 3
        session.judge(session.pending[0], True)
    with label(file, task=task, questions=3, by="anna") as session:
        assert len(session.pending) == 2
    (task.folder / "table.csv").write_text("question,answer,probability\nHow much?,3 euros,\n")
    with label(task.folder / "table.csv", task=task, by="anna") as session:
        assert session.pending[0].answer == "3 euros"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"question": "How much?"}', "has no question with its answer"),
        ('{"question": "How much?", "answer": "1", "probability": 2}', "no number from 0 to 1"),
        ('{"question": "How much?", "answer": "1", "probability": "x"}', "no number from 0 to 1"),
        ("nothing", "answers.jsonl"),
    ],
)
def test_a_file_that_holds_no_answers_is_refused_in_one_line(task: Task, line: str, problem: str) -> None:
    file = task.folder / "answers.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(InputError, match=problem):
        label(file, task=task)


def test_where_no_traffic_was_kept_that_is_said(task: Task) -> None:
    with pytest.raises(MissingError, match="no answers in use are kept there"):
        label(task=task)
    assert not (task.folder / ".trimtab").exists()


def test_the_terminal_labels_by_letters_and_prints_json(filled: Task) -> None:
    told = CliRunner().invoke(
        app,
        ["label", "--task", str(filled.file), "--n", "15", "--by", "anna", "--json"],
        input="r\nu\nw\nx\na\nThe answer\na\n\nc\n" + "r\n" * 12 + "q\n",
        catch_exceptions=False,
    )
    found = json.loads(told.stdout)
    assert (told.exit_code, found["labels"], found["unsure"]) == (0, 14, 1)
    assert "Question" in told.stderr
    assert "handbook.md#2" in told.stderr
    shown = CliRunner().invoke(app, ["label", "--task", str(filled.file), "--estimate"])
    assert shown.exit_code == 0
    assert "14 of 60 answers labelled, 1 that nobody can tell" in shown.stdout
    assert "by the labels alone" in shown.stdout


def test_a_user_is_forgotten_from_the_command_line(filled: Task) -> None:
    arguments = ["traffic", "forget", "--user", "anna", "--task", str(filled.file), "--json"]
    told = CliRunner().invoke(app, arguments)
    assert (told.exit_code, json.loads(told.stdout)) == (1, {"answers": 0, "judgements": 0})


def test_labelling_is_a_context_manager_that_closes(filled: Task) -> None:
    with label(task=filled, by="anna") as session:
        assert isinstance(session, Labelling)
        assert session.drawing == "random"
