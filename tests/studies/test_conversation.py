"""A conversation: asked like a single question, with what was said before, and by the command from a pipe."""

from __future__ import annotations

import json
import os
import pty
import sys
from pathlib import Path
from typing import Any

import pytest
from forked import run
from hostile_server import answering, chat, reply
from study_tasks import write_task

from trimtab.base.errors import InputError
from trimtab.base.task import load_task
from trimtab.studies.ask import ask, conversation


@pytest.fixture(scope="module")
def task(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task(tmp_path_factory.mktemp("task"), tiny_model_folder, ["prompt"])


def test_first_answers_are_those_of_ask_and_pieces_add_up(task: Path) -> None:
    own = load_task(task)
    questions = ["Where is the lamp?", "What does the red door cost?"]
    alone = [ask(question, task=own, arm="prompt", listeners=[]) for question in questions]
    with conversation(task=own, arm="prompt", listeners=[]) as talk:
        for question, expected in zip(questions, alone, strict=True):
            pieces: list[str] = []
            said = talk.ask(question, pieces.append)
            assert said.answer == expected.answer == "".join(pieces)
            talk.forget()


def test_later_questions_are_asked_with_what_was_said_before(task: Path) -> None:
    own = load_task(task)
    with conversation(task=own, arm="prompt", listeners=[]) as talk:
        first = talk.ask("Where is the lamp?")
        talk.ask("And the door?")
        assert [turn.content for turn in talk.turns] == [
            "Where is the lamp?",
            first.answer,
            "And the door?",
            talk.turns[3].content,
        ]
        with pytest.raises(InputError, match="do not fit"):
            talk.ask("word " * 5000)
        assert len(talk.turns) == 4  # as it was
        talk.forget()
        assert talk.ask("Where is the lamp?").answer == first.answer


@pytest.mark.parametrize("question", ["", " \n", "half \ud800"])
def test_what_is_no_question_is_refused(task: Path, question: str) -> None:
    with (
        conversation(task=load_task(task), arm="prompt", listeners=[]) as talk,
        pytest.raises(InputError, match=r"empty|UTF-8"),
    ):
        talk.ask(question)


def test_each_line_of_a_pipe_is_a_question_of_its_own(task: Path) -> None:
    command = [sys.executable, "-m", "trimtab", "ask", "--task", str(task), "--arm", "prompt", "--json"]
    said = run(command, input="Where is the lamp?\n\nWhat costs a door?\n", check=True)
    answers = [json.loads(line) for line in said.stdout.splitlines()]
    own = load_task(task)
    assert [one["answer"] for one in answers] == [
        ask(question, task=own, arm="prompt", listeners=[]).answer
        for question in ("Where is the lamp?", "What costs a door?")
    ]


def test_an_endpoint_that_fails_once_does_not_end_a_conversation(tmp_path: Path, tiny_model_folder: Path) -> None:
    asked: list[list[str]] = []

    def answer(connection: Any, body: bytes) -> None:
        asked.append([turn["content"] for turn in json.loads(body)["messages"] if turn["role"] != "system"])
        fails = asked[-1][-1] == "Two?"
        connection.sendall(reply(b"{}", status="400 No") if fails else reply(chat("fine")))

    with answering(answer) as url:
        table = f'[api.far]\nurl = "{url}"\nmodel = "x"\n'
        file = write_task(tmp_path, tiny_model_folder, ["api-far"], more=table)
        command = [sys.executable, "-m", "trimtab", "ask", "--task", str(file), "--arm", "api-far", "--allow", url]
        keyboard, terminal = pty.openpty()
        try:
            os.write(keyboard, b"One?\nTwo?\nThree?\n/end\n")
            done = run(command, stdin=terminal, timeout=120)
        finally:
            os.close(keyboard)
            os.close(terminal)
    assert done.returncode == 0
    assert "400" in done.stderr
    assert asked == [["One?"], ["One?", "fine", "Two?"], ["One?", "fine", "Three?"]]
