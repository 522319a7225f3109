"""Probe `other-words`: questions keep their meaning, by rules and by an endpoint; and `other-language`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from openai_server import listening
from probed import probed_task, question, subject_of

from trimtab.arms.probing.other_words import in_other_words
from trimtab.arms.probing.probe import adjusted, run_probes
from trimtab.base.errors import InputError

ROWS = [question(n, f"How do I buy ticket {n}?", f"{n}") for n in range(30)]
ENDPOINT = """rewords = "helper"
language = "German"
probes = ["other-words", "other-language"]
[api.helper]
url = "{url}"
model = "any"
"""


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("How do I buy a card?", "hat do I have to do to purchase a card?"),
        ("How many employees are allowed in?", "hat number of staff are permitted in?"),
        ("HOW OFTEN?", "HOW FREQUENTLY?"),
        ("How many times did it ring?", "How many times did it ring?"),
        ("The price is 3.5 EUR.", "The price is 3.5 EUR."),
        ("Wie oft?", "Wie oft?"),
    ],
)
def test_a_question_gets_other_words(text: str, part: str) -> None:
    assert part in in_other_words(text, "1")


def test_an_arm_that_hangs_on_the_words_is_found_and_one_that_does_not_is_not(tmp_path: Path) -> None:
    task = probed_task(tmp_path)
    brittle = subject_of(task, ROWS, lambda one: one.id[3:] if "How do I" in one.messages[-1].content else "no")
    (found,) = adjusted(run_probes(brittle, ["other-words"]), 0.02)
    assert (found.found, found.n, found.after) == (True, 30, 0)
    (clean,) = adjusted(run_probes(subject_of(task, ROWS, lambda one: one.id[3:]), ["other-words"]), 0.02)
    assert (clean.found, clean.difference) == (False, 0)


@pytest.fixture
def rewording() -> Iterator[tuple[str, list[str]]]:
    """An endpoint that rewords: it loses the number of ticket 1, and says that ticket 2 asks for something else."""
    app, requests = FastAPI(), list[str]()

    @app.post("/v1/chat/completions")
    def chat(body: dict[str, Any]) -> dict[str, Any]:
        asked = body["messages"][-1]["content"]
        requests.append(asked)
        if "First:" in asked:
            says = "No." if "ticket 2?" in asked else "Yes."
        else:
            number = asked.partition("ticket ")[2].partition("?")[0]
            ticket = "die Karte" if "German" in asked else "ticket"
            says = f'"Wo ist {ticket} {"" if number == "1" else number} zu haben?"'
        message = {"role": "assistant", "content": says}
        usage = {"prompt_tokens": 1, "completion_tokens": 1}
        return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}

    with listening(app) as url:
        yield url, requests


def test_an_endpoint_rewords_and_translates_what_keeps_its_meaning(
    tmp_path: Path, rewording: tuple[str, list[str]]
) -> None:
    url, requests = rewording
    task = probed_task(tmp_path, ENDPOINT.format(url=url))
    subject = subject_of(task, ROWS, lambda one: "no" if "Karte" in one.messages[-1].content else one.id[3:])
    words, language = adjusted(run_probes(subject, task.study.probes), 0.02)
    assert (words.change, words.n, words.found, words.after) == ("in other words", 28, False, 1)
    assert (language.change, language.n, language.found, language.after) == ("in German", 28, True, 0)
    assert language.examples[0].asked == "Wo ist die Karte 0 zu haben?"
    assert len(requests) == 4 * len(ROWS)


def test_an_endpoint_that_is_not_there_leaves_the_probe_out_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.inference.remote.FIRST_WAIT", 0)
    task = probed_task(tmp_path, ENDPOINT.format(url="http://127.0.0.1:9/v1"))
    told: list[str] = []
    subject = subject_of(task, ROWS, lambda one: one.id, tell=lambda note, stays=False: told.append(note))
    assert len(run_probes(subject, ["typing", "other-language"])) == 2
    assert told[-1].startswith("the probe other-language was left out: http://127.0.0.1:9/v1")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('probes = ["other-language"]', "set study.rewords and study.language"),
        ('rewords = "nobody"', "there is no [api.nobody] table"),
    ],
)
def test_a_task_file_without_its_endpoint_is_refused(tmp_path: Path, more: str, says: str) -> None:
    with pytest.raises(InputError, match=says.replace("[", r"\[")):
        probed_task(tmp_path, more)
