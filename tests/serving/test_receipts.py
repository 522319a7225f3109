"""Receipts: an answer that was given can be judged by whoever asked for it, as it was, and nothing else can."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import said
from serving_tasks import Here

from trimtab.base.task import load_task
from trimtab.serving.feedback import FeedbackStore, open_feedback_store
from trimtab.serving.receipts import GivenAnswer, Receipts

GIVEN = GivenAnswer(id="q-1", arm="rag", version="2")
TEXTS = st.text(max_size=20)
ASKED = [{"role": "user", "content": "Bonn?"}]


@given(voter=st.none() | TEXTS, asked=TEXTS, text=TEXTS, other=TEXTS, secret=st.binary(min_size=32, max_size=32))
def test_a_receipt_is_of_one_voter_one_question_and_one_text(voter, asked, text, other, secret):
    receipts = Receipts(b"0" * 32)
    receipt = receipts.write(GIVEN, voter, said(asked), text)
    assert receipts.read(receipt, voter, said(asked), text) == GIVEN
    for wrong in ((other, said(asked), text), (voter, said(other), text), (voter, said(asked), other)):
        assert receipts.read(receipt, *wrong) in ({None, GIVEN} if wrong == (voter, said(asked), text) else {None})
    if secret != b"0" * 32:
        assert Receipts(secret).read(receipt, voter, said(asked), text) is None


@given(st.text(max_size=60) | st.from_regex(r"[\w-]{0,30}(\.[\w-]{0,50}){0,2}", fullmatch=True))
def test_what_is_no_receipt_is_none(text):
    assert Receipts(b"0" * 32).read(text, None, said("a"), "b") is None


def test_turns_that_are_not_the_users_are_not_signed() -> None:
    """Instructions, calls and what they returned are no part of a judgement."""
    receipts = Receipts(b"0" * 32)
    receipt = receipts.write(GIVEN, "anna", said("one", "two", "three"), "text")
    assert receipts.read(receipt, "anna", said("one", "edited", "three"), "text") == GIVEN
    assert receipts.read(receipt, "anna", said("one", "two", "edited"), "text") is None


def test_servers_of_one_store_have_one_secret_that_lasts(tmp_path: Path) -> None:
    with FeedbackStore(tmp_path / "a.db") as one, FeedbackStore(tmp_path / "a.db") as other:
        secret = one.receipt_secret()
        assert len(secret) == 32
        assert other.receipt_secret() == secret
    with FeedbackStore(tmp_path / "a.db") as again, FeedbackStore(tmp_path / "b.db") as elsewhere:
        assert again.receipt_secret() == secret
        assert elsewhere.receipt_secret() != secret


def posted(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    reply = client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def answers_of(client: httpx.Client) -> list[tuple[str, dict[str, str]]]:
    """By route, an answer to `Bonn?` as a client would judge it."""
    asking = {"model": "rag", "max_tokens": 2}
    chat = posted(client, "/v1/chat/completions", {**asking, "messages": ASKED, "n": 2, "temperature": 1})
    plain = posted(client, "/v1/completions", {**asking, "prompt": ["Bonn?", "Celle?"]})
    response = posted(client, "/v1/responses", {"model": "rag", "input": "Bonn?", "max_output_tokens": 2})
    with client.stream("POST", "/v1/chat/completions", json={**asking, "messages": ASKED, "stream": True}) as stream:
        lines = [line[6:] for line in stream.iter_lines() if line.startswith("data: {")]
    chunks = [json.loads(line) for line in lines]
    streamed = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
    (last,) = [chunk for chunk in chunks if "trimtab" in chunk]
    texts = {
        "chat": (chat, [choice["message"]["content"] for choice in chat["choices"]]),
        "plain": (plain, [choice["text"] for choice in plain["choices"]][:1]),
        "response": (response, [response["output"][0]["content"][0]["text"]]),
        "stream": (last, [streamed]),
    }
    return [
        (route, {"receipt": receipt, "text": text})
        for route, (reply, given) in texts.items()
        for receipt, text in zip(reply["trimtab"]["receipts"], given, strict=False)
    ]


@pytest.mark.slow
def test_answers_of_every_route_can_be_judged_as_they_were_given_and_without_traffic(writing: Here) -> None:
    assert writing.parts.traffic is None
    with writing.client() as client:
        given = answers_of(client)
        for route, answer in given:
            body = {"kind": "like", "messages": ASKED, "answers": [answer]}
            assert client.post("/feedback", json=body).status_code == 200, route
            changes = [
                {"answers": [{**answer, "text": answer["text"] + "!"}]},
                {"answers": [{**answer, "receipt": answer["receipt"][:-2]}]},
                {"messages": [{"role": "user", "content": "Celle?"}]},
                {"user": "somebody-else"},
            ]
            for change in changes:
                refused = client.post("/feedback", json={**body, **change})
                assert (refused.status_code, refused.json()["error"]["code"]) == (404, "answer_not_found"), change
        both = {"kind": "prefer", "messages": ASKED, "answers": [given[0][1], given[1][1]], "chosen": 0}
        assert client.post("/feedback", json=both).status_code == 200
        raw = posted(client, "/v1/raw/completions", {"model": "prompt", "prompt": "Bonn?", "max_tokens": 1})
        assert "receipts" not in raw["trimtab"]


@pytest.mark.slow
def test_an_answer_that_is_judged_again_counts_once_with_the_last_judgement(writing: Here) -> None:
    with writing.client() as client, open_feedback_store(load_task(writing.folder / "trimtab.toml")) as store:
        before = len([*store.of_single_answers()])
        answer = answers_of(client)[0][1]
        for number, kind in enumerate(["like", "dislike", "like", "like", "dislike"]):
            body = {"kind": kind, "messages": ASKED, "answers": [answer], "session": f"s{number}"}
            assert client.post("/feedback", json=body).status_code == 200
        latest = [*store.of_single_answers()]
        assert len(latest) == before + 1
        assert latest[-1].kind == "dislike"
        assert (latest[-1].answers[0].arm, latest[-1].answers[0].id[:2]) == ("rag", "q-")


@pytest.mark.slow
@pytest.mark.parametrize("route", ["/v1/decisions", "/v1/systemone"])
def test_decisions_among_some_labels_can_be_judged(deciding: Here, route: str) -> None:
    questions: Any = [{"type": "choice", "name": "city"}]
    body = {"model": "linear", "input": "Bonn?", "questions": questions}
    if route == "/v1/systemone":
        body = {"model": "linear", "state": "Bonn?", "questions": {"city": {"type": "choice"}}}
    with deciding.client() as client:
        reply = posted(client, route, body)
        answer = reply["answers"]["city" if route == "/v1/systemone" else 0]
        judged = {"receipt": reply["trimtab"]["receipts"][0], "text": answer["choice"]}
        posted(client, "/feedback", {"kind": "dislike", "messages": ASKED, "answers": [judged]})
