"""Endpoints that decide: what goes out, whose probabilities come back, and replies that are refused in one line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from decision_server import KEY, DecisionServer, chances, deciding
from hostile_server import answering, reply

from trimtab.base.config import ENDPOINT_KINDS
from trimtab.base.errors import RemoteError
from trimtab.base.records import Message, Prompt
from trimtab.base.tables import resolve
from trimtab.inference import remote
from trimtab.inference.protocols import EARLIER_TURNS_NOTE, INSTRUCTION
from trimtab.inference.remote import RemoteModel

pytestmark = pytest.mark.any_processor

LABELS = ("card arrival", "Card-arrival", "refund")  # two that are the same words
APIS = ("systemone", "decisions")


@pytest.fixture(scope="module")
def running() -> Iterator[DecisionServer]:
    with deciding() as server:
        yield server


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_KEY", KEY)
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)


@pytest.fixture
def server(running: DecisionServer) -> DecisionServer:
    running.faults.clear()
    running.bodies.clear()
    return running


def prompt(*turns: str, system: str = "Which topic?") -> Prompt:
    """A prompt of turns that alternate, the user's last."""
    roles = ["user" if number % 2 == 0 else "assistant" for number in range(len(turns))]
    said = [Message(role=role, content=text) for role, text in zip(roles, turns, strict=True)]  # type: ignore[arg-type]
    return Prompt(id=turns[-1], messages=(*([Message(role="system", content=system)] if system else []), *said))


def model(url: str, api: str, attempts: int = 2, **options: Any) -> RemoteModel:
    return RemoteModel(url, "tiny", "TINY_KEY", api=api, attempts=attempts, **options)


@pytest.mark.parametrize("faults", [[], ["busy"], ["overloaded", "garbage"]])
@pytest.mark.parametrize("api", APIS)
def test_answers_are_the_servers_with_the_probability_of_every_label(
    server: DecisionServer, api: str, faults: list[str]
) -> None:
    server.faults += faults
    asked = [prompt("a refund please"), prompt("my Card-arrival"), prompt("my card arrival"), prompt("nothing")]
    answers = model(server.url, api, attempts=3).generate(asked, 5, LABELS)  # both faults may meet one question
    assert [answer.text for answer in answers] == ["refund", "Card-arrival", "card arrival", "card arrival"]
    for one, answer in zip(asked, answers, strict=True):
        assert answer.id == one.id
        assert answer.probabilities == pytest.approx(chances(one.id, list(LABELS)))
        assert answer.probability == max(answer.probabilities.values())
        assert answer.prompt_tokens > 0
        assert answer.seconds > 0
    assert len(server.bodies) == len(asked) + len(faults)


def test_the_requests_are_those_of_the_public_formats(server: DecisionServer) -> None:
    shown = prompt("what of my money", "refund", "where is it")
    for api in APIS:
        model(server.url, api).generate([prompt("hello")], 5, LABELS)
        model(server.url, api).generate([shown], 5, LABELS)
        model(server.url, api).generate([prompt("hello", system="")], 5, LABELS)
    turns = [
        {"role": "user", "content": "what of my money"},
        {"role": "assistant", "content": "refund"},
        {"role": "user", "content": "where is it"},
    ]
    states: list[tuple[str, Any]] = [
        ("Which topic?", "hello"),
        (f"Which topic?\n\n{EARLIER_TURNS_NOTE}", turns),
        (INSTRUCTION, "hello"),
    ]
    criteria = {"card arrival": None, "Card-arrival": None, "refund": None}
    choices = [{"value": "card arrival"}, {"value": "Card-arrival"}, {"value": "refund"}]
    assert server.bodies == [
        *(
            (
                "systemone",
                {
                    "model": "tiny",
                    "state": state,
                    "questions": {"label": {"type": "choice", "instructions": said, "criteria": criteria}},
                },
            )
            for said, state in states
        ),
        *(
            (
                "decisions",
                {
                    "model": "tiny",
                    "input": state if isinstance(state, str) else json.dumps(state),
                    "questions": [{"type": "choice", "name": "label", "instructions": said, "choices": choices}],
                },
            )
            for said, state in states
        ),
    ]


@pytest.mark.parametrize("api", APIS)
def test_what_was_decided_is_kept_and_not_asked_again(server: DecisionServer, api: str, tmp_path: Path) -> None:
    kept = tmp_path / "replies.jsonl"
    asked = [prompt("a refund please"), prompt("Card-arrival")]
    first = model(server.url, api, log_file=kept).generate(asked, 5, LABELS)
    again = model(server.url, api, log_file=kept).generate(asked, 5, LABELS)
    assert again == first
    assert len(server.bodies) == 2
    model(server.url, api, log_file=kept).generate(asked[:1], 5, LABELS[:2])  # other labels: another question
    assert len(server.bodies) == 3
    assert KEY not in kept.read_text()


def test_what_the_server_refuses_is_told(server: DecisionServer) -> None:
    server.faults.append("too many")
    with pytest.raises(RemoteError, match=r"/systemone: answered 422 .*at most 255 options"):
        model(server.url, "systemone").generate([prompt("hello")], 5, LABELS)


def written(api: str, pairs: Any, **answer: Any) -> bytes:
    """A reply with these probabilities, pairs of label and number, or whatever stands in their place."""
    own: dict[str, Any] = {"type": "choice", "choice": "refund", **answer}
    if api == "systemone":
        chances = dict(pairs) if isinstance(pairs, list) else pairs
        return json.dumps({"answers": {"label": {**own, "probabilities": chances}}}).encode()
    chances = [{"value": value, "probability": chance} for value, chance in pairs] if isinstance(pairs, list) else pairs
    return json.dumps({"answers": [{"name": "label", **own, "probabilities": chances}]}).encode()


def decided(api: str, body: bytes, labels: tuple[str, ...] = LABELS) -> Any:
    with answering(lambda connection, _: connection.sendall(reply(body))) as url:
        return model(url, api).generate([prompt("hello")], 5, labels)[0]


GOOD = [("card arrival", 0.2), ("Card-arrival", 0.3), ("refund", 0.5)]
BAD: dict[str, tuple[Any, str]] = {
    "missing": (GOOD[:2], "lack the label 'refund'"),
    "another": ([*GOOD, ("other", 0.0)], "name a label that was not requested"),
    "NaN": ([*GOOD[:2], ("refund", math.nan)], "the probability of 'refund' is no number from 0 to 1"),
    "infinite": ([*GOOD[:2], ("refund", math.inf)], "is no number from 0 to 1"),
    "negative": ([*GOOD[:2], ("refund", -0.5)], "is no number from 0 to 1"),
    "above 1": ([("card arrival", 0.0), ("Card-arrival", 0.0), ("refund", 1.5)], "is no number from 0 to 1"),
    "text": ([*GOOD[:2], ("refund", "0.5")], "is no number from 0 to 1"),
    "true": ([*GOOD[:2], ("refund", True)], "is no number from 0 to 1"),
    "many digits": ([*GOOD[:2], ("refund", 10**400)], "is no number from 0 to 1"),
    "too little": ([(label, chance / 2) for label, chance in GOOD], "add up to 0.5, not 1"),
    "nothing": ([(label, 0.0) for label, _ in GOOD], "add up to 0, not 1"),
    "no probabilities": (None, "the reply is not"),
    "a list of numbers": (7, "the reply is not"),
}


@pytest.mark.parametrize(("pairs", "told"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("api", APIS)
def test_probabilities_that_are_none_are_refused_in_one_line(api: str, pairs: Any, told: str) -> None:
    with pytest.raises(RemoteError, match=rf"/v1/{api}: .*{told}") as caught:
        decided(api, written(api, pairs))
    assert "\n" not in str(caught.value)


OTHER = {
    "an array": b"[]",
    "a number": b"7",
    "no answers": b'{"answers": {}}',
    "empty": b'{"answers": []}',
    "of another type": b'{"answers": {"label": {"type": "noul", "noul": 0.5}}}',
    "of another type, listed": b'{"answers": [{"type": "predicate", "name": "label", "probability": 0.5}]}',
    "a completion": b'{"choices": [{"message": {"content": "refund"}}]}',
    "impossible tokens": written("systemone", GOOD)[:-1] + b', "usage": {"input_tokens": 1e30}}',
}


@pytest.mark.parametrize("body", OTHER.values(), ids=OTHER)
@pytest.mark.parametrize("api", APIS)
def test_replies_of_another_kind_are_refused(api: str, body: bytes) -> None:
    with pytest.raises(
        RemoteError, match=f"the reply is not {resolve(ENDPOINT_KINDS[api].protocol).expected}; check the url"
    ):
        decided(api, body)


@pytest.mark.parametrize("api", APIS)
def test_a_reply_beyond_all_bounds_is_left(api: str) -> None:
    with pytest.raises(RemoteError, match="longer than 16 MB"):
        decided(api, written(api, [*GOOD, ("x" * 17_000_000, 0.0)]))
    with pytest.raises(RemoteError, match="not JSON"):
        decided(api, b'{"answers": ' + b"[" * 100_000)


def test_a_label_that_is_named_twice_is_refused() -> None:
    with pytest.raises(RemoteError, match="name a label twice"):
        decided("decisions", written("decisions", [*GOOD, ("refund", 0.0)]))


def test_a_question_that_is_declined_is_an_answer_without_a_label() -> None:
    answer = decided("decisions", b'{"answers": [{"type": "refusal", "name": "label"}]}', ("+", "-"))
    assert (answer.text, answer.probability, dict(answer.probabilities)) == ("", None, {})


@pytest.mark.parametrize("api", APIS)
def test_rounded_probabilities_add_up_to_one_again_and_of_equals_the_chosen_one_is_it(api: str) -> None:
    labels = tuple(f"label {number}" for number in range(77))
    flat = [(label, 0.01) for label in labels]  # of 1/77 each, two decimals are left
    answer = decided(api, written(api, flat, choice="label 40"), labels)
    assert answer.text == "label 40"
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert decided(api, written(api, GOOD, choice="card arrival")).text == "refund"
