"""Questions drafted from documents: what a person approves counts, is marked for ever, and nothing else does."""

from __future__ import annotations

import json
import os
import pty
import shutil
import socket
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hostile_server import answering, reply
from typer.testing import CliRunner

from trimtab.arms import drafting
from trimtab.base.errors import EXIT_NO, ConsentError, InputError
from trimtab.base.task import DRAFTED, DRAFTED_QUESTIONS, load_task
from trimtab.cli.main import app
from trimtab.data.drafted_questions import read_drafts
from trimtab.data.formats import read_examples
from trimtab.retrieval.drafting import Draft
from trimtab.studies.check import check
from trimtab.studies.questions import QuestionReview, questions

PAGES = ("annual-leave.md", "brannock-headquarters.md", "chemicals-and-waste.md", "complaints-and-returns.md")
TASK = """[task]
name = "pages"
kind = "answer"
instruction = "Answer from the documents."
[data]
documents = ["docs/"]
[base]
model = "smollm2-135m-q4"
embedding = "minilm-l6"
{more}"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    for page in PAGES:
        shutil.copy(str(files("trimtab.demos") / "handbook" / "documents" / page), tmp_path / "docs")
    (tmp_path / "trimtab.toml").write_text(TASK.format(more=""))
    return tmp_path


def begin(folder: Path, **more: object) -> QuestionReview:
    return questions(load_task(folder), listeners=(), **more)  # type: ignore[arg-type]


def test_only_what_somebody_approves_is_a_row_and_it_is_marked(folder: Path) -> None:
    review = begin(folder, count=12)
    assert len(review.pending) == 12
    topics = [item.passages[0] for item in review.pending]
    firsts = list(dict.fromkeys(topics))
    assert topics[: len(firsts)] == firsts  # every topic once before any twice
    assert load_task(folder).data.examples == ()
    approved, mended, reworded, refused, undone = review.pending[:5]
    review.judge(approved, 1.0)
    review.correct(mended, "another answer")
    review.correct(reworded, "Is this a better question?\nit is")
    review.judge(refused, 0.0)
    review.correct(undone, "a mistake")
    review.undo(undone)
    result = review.finish()
    assert (result.approved, result.mended, result.refused, result.waiting) == (1, 2, 1, 8)
    task = load_task(folder)
    assert task.data.examples == (DRAFTED_QUESTIONS,)
    read = read_examples(task, task.data.examples)
    assert [row.slice for row in read.examples] == [DRAFTED] * 3
    assert f"{DRAFTED_QUESTIONS}: 8 drafts that nobody approved are left out" in read.notes
    kept = {one.id: one for one in read_drafts(folder)}
    assert (kept[mended.item_id].answer, kept[mended.item_id].state) == ("another answer", "mended")
    assert (kept[reworded.item_id].question, kept[reworded.item_id].answer) == ("Is this a better question?", "it is")
    assert (kept[undone.item_id].answer, kept[undone.item_id].state) == (undone.answer, "drafted")


def test_words_that_nobody_changed_are_approved_not_mended(folder: Path) -> None:
    review = begin(folder, count=3)
    first, second, third = review.pending
    review.correct(first, first.answer)
    review.correct(second, f"{second.question}\n{second.answer}")
    review.correct(third, f"{third.question} another answer")
    result = review.finish()
    assert (result.approved, result.mended) == (2, 1)


@pytest.mark.parametrize(
    ("pages", "asked", "told"),
    [
        (["The office in Lyon opens at 9:00 on weekdays."], "At what time does the office in Lyon open", ""),
        (
            ["# Sizes\n\n| Plan | Storage |\n| --- | --- |\n| Small | 10 GB |\n| Large | 50 GB |"],
            "What is the storage for Small?",
            "",
        ),
        (
            ["The office in Lyon opens at 9:00 on weekdays.", "Das Büro in Bonn öffnet um 9:00 Uhr am Montag."],
            "At what time does the office in Lyon open",
            "No question from 1 of 2 documents: without a model, only facts stated in English are asked for.",
        ),
    ],
    ids=["one document", "a table only", "two languages"],
)
def test_few_documents_give_what_they_state_and_those_that_give_none_are_told(
    tmp_path: Path, pages: list[str], asked: str, told: str
) -> None:
    for number, page in enumerate(pages):
        (tmp_path / f"{number}.md").write_text(page, encoding="utf-8")
    review = questions(tmp_path, listeners=())
    assert any(one.question.startswith(asked) for one in review.pending)
    notes = [note for note in review.notes if "without a model" in note]
    assert len(notes) == bool(told)
    assert all(note.startswith(told) for note in notes)


def test_drafts_are_asked_back_only_until_there_are_enough(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand documents give many times as many drafts as a person reads."""
    asked: list[int] = []
    answered = drafting._answered

    def counted(drafts: list[Draft], *others: Any) -> list[Draft]:
        asked.append(len(drafts))
        return list(answered(drafts, *others))

    monkeypatch.setattr(drafting, "_answered", counted)
    monkeypatch.setattr(drafting, "BATCH", 4)
    everything = len(begin(folder, count=1000).pending)
    (folder / DRAFTED_QUESTIONS).unlink()
    asked.clear()
    assert len(begin(folder, count=5).pending) == 5
    assert 5 <= sum(asked) < everything


def test_the_next_call_drafts_no_question_twice_and_goes_on_from_there(folder: Path) -> None:
    first = begin(folder, count=10)
    first.judge(first.pending[0], 0.0)
    again = begin(folder, count=10)
    assert len(again.pending) == 10
    assert first.pending[0].item_id not in {item.item_id for item in again.pending}
    everything = read_drafts(folder)
    assert len({one.id for one in everything}) == len(everything) == 11


def test_questions_that_people_asked_get_the_sentence_that_answers_them(folder: Path) -> None:
    asked = folder / "asked.txt"
    asked.write_text("who collects complaints?\n\nwhen does the gate close?\n")
    begin(folder, count=1, asked=asked)
    own = {one.question: one for one in read_drafts(folder) if one.kind == "own question"}
    assert "Fergus Adeyemi" in own["who collects complaints?"].answer
    assert own["when does the gate close?"].passage == ("brannock-headquarters.md",)


def test_the_verb_asks_on_the_terminal_and_exits_1_until_one_is_approved(folder: Path) -> None:
    run = CliRunner()
    none = run.invoke(app, ["questions", str(folder), "--n", "5"], input="q\n")
    assert none.exit_code == 1
    assert "The document says:" in none.stderr
    some = run.invoke(app, ["questions", str(folder), "--n", "5", "--json"], input="a\nm\nnine days\nq\n")
    assert some.exit_code == 0
    result = json.loads(some.stdout)
    assert (result["approved"], result["mended"], result["waiting"]) == (1, 1, 3)


class Drafter:
    """An endpoint that drafts two questions of every passage, one of them about what the passage does not say."""

    def answer(self, connection: socket.socket, body: bytes) -> None:
        text = json.loads(body)["messages"][-1]["content"]
        if text.startswith("Answer the question"):
            said = "Fergus Adeyemi" if "Fergus Adeyemi" in text else "I don't know"
        elif "Fergus Adeyemi" in text:
            said = (
                '{"question": "Which colleague gathers what customers dislike?", "answer": "Fergus Adeyemi"}\n'
                '{"question": "What is his salary?", "answer": "4,000 euros"}'
            )
        else:
            said = "I cannot."
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
        usage = {"prompt_tokens": 10, "completion_tokens": 10}
        connection.sendall(reply(json.dumps({"choices": [choice], "usage": usage}).encode()))


def test_an_endpoint_drafts_with_consent_and_what_the_passage_does_not_say_goes_out(folder: Path) -> None:
    with answering(Drafter().answer) as url:
        (folder / "trimtab.toml").write_text(TASK.format(more=f'[api.big]\nurl = "{url}"\nmodel = "m"\n'))
        with pytest.raises(ConsentError, match="to send passages of the documents to"):
            begin(folder, by="api-big")
        review = begin(folder, by="api-big", allow=[url])
    (draft,) = read_drafts(folder)
    assert (draft.question, draft.by) == ("Which colleague gathers what customers dislike?", "api-big")
    notes = " ".join(review.notes)
    assert "the passage does not answer it 1" in notes
    assert "no question could be read from the reply" in notes


def test_what_gives_no_question_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# A\n\nEin Text, der hier nichts fragt.\n")
    (tmp_path / "trimtab.toml").write_text(TASK.format(more=""))
    with pytest.raises(InputError, match=r"nothing to draft from 1 document: .*English alone; name a model") as caught:
        begin(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="'x' drafts no questions; use one of: facts, base"):
        begin(tmp_path, by="x")
    with pytest.raises(InputError, match="there is no such file"):
        begin(tmp_path, asked=tmp_path / "none.txt")


def test_a_study_without_labels_names_the_verb(folder: Path) -> None:
    (remark,) = check(load_task(folder)).remarks
    assert "trimtab questions" in remark.text


def study_on_a_terminal(folder: Path, typed: bytes) -> tuple[int, str]:
    """Run `trimtab study` with a keyboard that types all at once, and return its exit code and what it showed."""
    keyboard, terminal = pty.openpty()
    command = [sys.executable, "-m", "trimtab", "study", str(folder)]
    done = subprocess.Popen(command, stdin=terminal, stderr=terminal, stdout=terminal)
    os.close(terminal)
    os.write(keyboard, typed)
    shown = b""
    try:
        while part := os.read(keyboard, 4096):
            shown += part
    except OSError:  # the terminal is gone with the process
        pass
    finally:
        os.close(keyboard)
    return done.wait(60), shown.decode(errors="replace")


def test_a_study_of_documents_alone_offers_drafts_on_a_terminal(folder: Path) -> None:
    code, shown = study_on_a_terminal(folder, b"n\n")
    assert "Draft some from the documents now" in shown
    assert "no labelled examples" in shown
    assert code == EXIT_NO
    assert read_drafts(folder) == []
    code, shown = study_on_a_terminal(folder, b"y\na\nq\n")
    assert "1 drafted question approved" in " ".join(shown.split())
    assert code == EXIT_NO
    assert [one.counts for one in read_drafts(folder)].count(True) == 1


def test_a_damaged_line_is_named(folder: Path) -> None:
    (folder / DRAFTED_QUESTIONS).write_text('{"id": "1"}\n')
    with pytest.raises(InputError, match=rf"{DRAFTED_QUESTIONS}:1.*is damaged"):
        begin(folder)
