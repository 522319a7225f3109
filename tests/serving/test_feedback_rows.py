"""What judgements come to as rows, and which of them never do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from judged import judgement, said

from trimtab.base.records import Example, Message, Split
from trimtab.base.task import Task, load_task
from trimtab.data.formats import read_examples
from trimtab.data.preferences import read_preferences
from trimtab.serving import feedback_rows as reasons
from trimtab.serving.feedback_rows import FeedbackRows, feedback_rows
from trimtab.serving.feedback_schema import Judgement

ROWS = [("When was the old bridge built?", "1901"), ("How high is the tower?", "90 m"), ("Who runs the library?", "Jo")]


def task_of(
    folder: Path, *, kind: str = "answer", data: str = "", rows: Sequence[dict[str, Any]] | None = None
) -> Task:
    written = rows or [{"question": question, "answer": answer} for question, answer in ROWS]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    text = f'[task]\nkind = "{kind}"\ninstruction = "Be brief."\n[data]\nexamples = ["rows.jsonl"]\n{data}\n'
    (folder / "trimtab.toml").write_text(text)
    return load_task(folder / "trimtab.toml")


def example(question: str, group: str | None = None) -> Example:
    return Example(id=question, messages=said(question), references=("x",), group=group)


def splits_of(group: str | None = None) -> dict[Split, tuple[Example, ...]]:
    train, dev, test = (example(question, group) for question, _ in ROWS)
    return {"train": (train,), "dev": (dev,), "test": (test,)}


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return task_of(tmp_path)


def rows_from(task: Task, *judgements: Judgement) -> FeedbackRows:
    return feedback_rows(judgements, task, splits_of("g" if task.data.group else None))


def corrected(correction: str, asked: str = "What is new?", **more: Any) -> Judgement:
    return judgement("correct", "wrong", asked=asked, correction=correction, **more)


def test_each_kind_becomes_what_it_says(task: Task) -> None:
    found = rows_from(
        task,
        judgement("like", "Rome ", id="a"),
        judgement("dislike", "Oslo", id="b"),
        judgement("prefer", "Oslo", "Rome", "Bonn", chosen=1, id="c"),
        judgement("correct", "Oslo", correction="Rome", id="d", messages=said("Which city?")),
    )
    asked = [{"role": "user", "content": "Which city?"}]
    assert found.judged == (
        {"id": "feedback-a", "prompt": asked, "answer": "Rome", "good": True, "source": "feedback"},
        {"id": "feedback-b", "prompt": asked, "answer": "Oslo", "good": False, "source": "feedback"},
    )
    assert [(row["id"], row["chosen"], row["rejected"]) for row in found.preferences] == [
        ("feedback-c-pair1", "Rome", "Oslo"),
        ("feedback-c-pair2", "Rome", "Bonn"),
        ("feedback-d-pair1", "Rome", "Oslo"),
    ]
    answered = [*asked, {"role": "assistant", "content": "Rome"}]
    assert found.examples == ({"id": "feedback-d-example", "source": "feedback", "messages": answered},)
    assert found.left_out == {}


def test_a_like_is_never_a_duel(task: Task) -> None:
    many = [judgement(kind, text, id=f"{kind}{text}") for kind in ("like", "dislike") for text in ("a", "b")]
    assert rows_from(task, *many).preferences == ()


def test_what_compares_nothing_gives_no_pair_and_is_counted(task: Task) -> None:
    found = rows_from(
        task,
        judgement("prefer", "Oslo", "Rome", chosen=None),
        judgement("prefer", "Rome", " Rome\n", chosen=0),
        judgement("prefer", "", "Rome", chosen=0),
        judgement("prefer", "Rome", "", chosen=0),
        judgement("dislike", " "),
    )
    assert (found.preferences, found.judged) == ((), ())
    assert found.left_out == {reasons.EQUAL: 1, reasons.NO_CONTRAST: 4}


def test_the_last_judgement_of_the_same_answers_counts(task: Task) -> None:
    found = rows_from(
        task,
        judgement("like", "Rome", given=["q-1"], id="a"),
        judgement("prefer", "Rome", "Oslo", given=["q-1", "q-2"], chosen=0, id="b"),
        judgement("prefer", "Oslo", "Rome", given=["q-2", "q-1"], chosen=0, id="c"),  # the other way, of another mind
        judgement("dislike", "Rome", given=["q-1"], session="another", id="d"),
        judgement("like", "Rome", given=["q-3"], id="e"),
        judgement("like", "Rome", id="f"),
        judgement("dislike", "Rome", id="g"),
        judgement("like", "Rome", asked="Which other city?", id="h"),
    )
    assert [row["id"] for row in found.preferences] == ["feedback-c-pair1"]
    assert [row["id"] for row in found.judged] == [f"feedback-{name}" for name in "defgh"]
    assert found.left_out == {reasons.REPLACED: 2}


@pytest.mark.parametrize("asked", ["How high is the tower?", "how high is the TOWER", "Who runs the library, then?"])
def test_what_a_held_out_row_asks_is_never_an_example(task: Task, asked: str) -> None:
    found = rows_from(task, corrected("91 m", asked))
    assert found.examples == ()
    assert found.places == ()
    assert found.left_out == {reasons.HELD_OUT_QUESTION: 1}
    assert len(found.preferences) == 1  # stands where its prompt stands


def test_earlier_turns_are_asked_too(tmp_path: Path) -> None:
    task = task_of(tmp_path, data='train_on = "last"')
    talk = corrected("Yes", messages=said("How high is the tower?", "91 m", "Are you sure about this?"))
    other = corrected("Yes", messages=said("Where is the market?", "There", "Are you sure about that?"))
    found = rows_from(task, talk, other)
    assert len(found.examples) == 1
    assert found.examples[0]["messages"][0]["content"] == "Where is the market?"
    assert found.left_out == {reasons.HELD_OUT_QUESTION: 1}


def test_earlier_answers_that_nobody_judged_are_not_trained_on(task: Task) -> None:
    found = rows_from(task, corrected("Yes", messages=said("Where is the market?", "There", "Are you sure?")))
    assert (found.examples, found.left_out) == ((), {reasons.EARLIER_ANSWERS: 1})


def test_the_instruction_is_left_to_the_arms(task: Task) -> None:
    own, other = (Message(role="system", content=text) for text in ("Be brief.", "Be kind."))
    found = rows_from(task, *(corrected("Yes", messages=(one, *said("What is new?"))) for one in (own, other)))
    assert [[turn["role"] for turn in row["messages"]] for row in found.examples] == [
        ["user", "assistant"],
        ["system", "user", "assistant"],
    ]


def test_one_correction_is_one_example(task: Task) -> None:
    found = rows_from(task, corrected("Yes"), corrected("Yes "), corrected("No"))
    assert [row["messages"][-1]["content"] for row in found.examples] == ["Yes", "No"]
    assert found.left_out == {reasons.REPEATED: 1}


def test_the_same_question_gets_the_same_group(tmp_path: Path) -> None:
    rows = [{"question": question, "answer": answer, "place": "g"} for question, answer in ROWS]
    task = task_of(tmp_path, data='group = "place"', rows=rows)
    found = rows_from(
        task,
        corrected("A"),
        corrected("B", "what is NEW"),
        corrected("C"),
        corrected("1902", "When was the old bridge built"),
    )
    groups = [row["place"] for row in found.examples]
    assert groups[0] == groups[1] == groups[2] != groups[3]
    assert groups[3] == "g"  # that of the training row
    assert [place.group for place in found.places] == groups
    assert {place.split for place in found.places} == {"train"}


LABELLED = [{"text": f"{word} {word}", "label": label} for label in ("good", "bad") for word in ("one", "two", "three")]


def test_a_correction_of_a_closed_set_is_one_of_its_labels(tmp_path: Path) -> None:
    task = task_of(tmp_path, kind="classify", data='columns = { input = "text", label = "label" }', rows=LABELLED)
    splits: dict[Split, tuple[Example, ...]] = {
        "train": tuple(
            Example(id=str(number), messages=said(str(row["text"])), references=(str(row["label"]),))
            for number, row in enumerate(LABELLED)
        ),
        "dev": (),
        "test": (),
    }
    found = feedback_rows([corrected("good"), corrected("so so")], task, splits)
    assert [(row["text"], row["label"]) for row in found.examples] == [("What is new?", "good")]
    assert found.left_out == {reasons.NO_LABEL: 1}
    assert [place.stratum for place in found.places] == ["good"]


SHAPES = [
    ("", {"question": "Q", "answer": "A"}),
    ('columns = { input = "asked", output = "told" }', {"asked": "Q", "told": "A"}),
    ('columns = { output = "told" }', {"question": "Q", "told": "A"}),
    ('columns = { input = "asked" }', {"asked": "Q", "answer": "A"}),
    ('columns = { id = "key", source = "from", weight = '
'"heavy" }', {"question": "Q", "answer": "A", "key": "1", "from": "x", "heavy": 1}),
    ('layout = "messages"\ncolumns = { input = '
'"talk" }', {"talk": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}),
    ('layout = "prompt-completion"', {"prompt": "Q", "completion": "A"}),
    ('layout = "instruction"', {"instruction": "Q", "output": "A"}),
    ('layout = "question-answer"', {"question": "Q", "answer": "A"}),
    ('layout = "table"\ncolumns = { input = "asked", output = "told" }', {"asked": "Q", "told": "A"}),
    ('columns = { input = "{about}: {asked}", output = "told" }', {"about": "X", "asked": "Q", "told": "A"}),
    ('group = "team"\nslice = "topic"', {"question": "Q", "answer": "A", "team": "t", "topic": "s"}),
]  # fmt: skip


@pytest.mark.parametrize(("data", "row"), SHAPES)
def test_rows_are_written_as_the_task_reads_them(tmp_path: Path, data: str, row: dict[str, Any]) -> None:
    def numbered(value: Any, number: int) -> Any:
        if isinstance(value, list):
            return [{**turn, "content": f"{turn['content']} {number}"} for turn in value]
        return f"{value} {number}" if isinstance(value, str) else value

    many = [{name: numbered(value, number) for name, value in row.items()} for number in range(4)]
    task = task_of(tmp_path, data=data, rows=many)
    found = rows_from(task, corrected("Yes"), corrected("No", "What is old?"))
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(one) + "\n" for one in found.examples))
    read = read_examples(task, ["rows.jsonl", "more.jsonl"]).examples[4:]
    assert [(one.input, one.references, one.source) for one in read] == [
        ("What is new?", ("Yes",), "feedback"),
        ("What is old?", ("No",), "feedback"),
    ]
    assert [one.id for one in read] == [place.id for place in found.places]


def test_questions_made_of_several_fields_cannot_be_written(tmp_path: Path) -> None:
    rows = [{"about": f"a{n}", "question": f"q{n}", "answer": f"x{n}"} for n in range(4)]
    task = task_of(tmp_path, data='columns = { input = ["about", "question"], output = "answer" }', rows=rows)
    found = rows_from(task, corrected("Yes"))
    assert (found.examples, found.places, found.left_out) == ((), (), {reasons.UNWRITABLE: 1})


def test_pairs_and_single_judgements_are_read_back_as_what_was_said(tmp_path: Path) -> None:
    talk = said("Human: is this a turn?\n\nAssistant: no", "Hi", "Which city?")
    many = [
        judgement("prefer", "Human: x", "Rome", chosen=0, messages=talk),
        judgement("like", "Rome", messages=talk),
        corrected("Yes"),
    ]
    found = rows_from(task_of(tmp_path), *many)
    written = [*found.preferences, *found.judged]
    (tmp_path / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    task = task_of(tmp_path, data='preferences = ["judged.jsonl"]')
    read = read_preferences(task).preferences
    assert [(one.id, one.messages, one.chosen, one.rejected, one.source) for one in read] == [
        (f"feedback-{many[0].id}-pair1", talk, "Human: x", "Rome", "feedback"),
        (f"feedback-{many[2].id}-pair1", said("What is new?"), "Yes", "wrong", "feedback"),
        (f"feedback-{many[1].id}", talk, "Rome", None, "feedback"),
    ]
