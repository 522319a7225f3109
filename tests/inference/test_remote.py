"""Answers over HTTP are the server's answers, in order, through every fault that passes; others end in an error that
helps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai_server import KEY, Server, completion, decode, serving

from trimtab.base.errors import InputError, RemoteError
from trimtab.base.records import Message, Prompt
from trimtab.inference import remote
from trimtab.inference.bounded_http import retry_after_seconds
from trimtab.inference.remote import RemoteModel, match_label

pytestmark = pytest.mark.any_processor


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("TINY_KEY", KEY)
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)
    for record in (running.faults, running.bodies, running.times):
        record.clear()
    return running


def prompts(count: int) -> list[Prompt]:
    return [
        Prompt(id=str(n), messages=(Message(role="system", content="Be brief."), Message(role="user", content="?" * n)))
        for n in range(1, count + 1)
    ]


def model(server: Server, **options: float) -> RemoteModel:
    return RemoteModel(server.url, "tiny", "TINY_KEY", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("faults", [[], ["busy 0"], ["broken", "garbage"], ["slow"], ["busy soon", "broken", "broken"]])
def test_answers_are_the_servers_in_the_order_asked(server: Server, faults: list[str]) -> None:
    server.faults += faults
    asked = prompts(6)
    answers = model(server, timeout=1 if "slow" in faults else 20).generate(asked, max_new=7)
    assert len(server.bodies) >= len(asked) + len(faults)
    for prompt, answer in zip(asked, answers, strict=True):
        expected = completion([{"role": m.role, "content": m.content} for m in prompt.messages], 7)
        assert answer.id == prompt.id
        assert answer.text == decode(expected.ids)
        assert (answer.prompt_tokens, answer.new_tokens) == (expected.prompt_tokens, len(expected.ids))
        assert answer.finished == expected.finished
        assert answer.seconds > 0


def test_the_request_is_what_the_prompt_says(server: Server) -> None:
    model(server).generate(prompts(1), max_new=7)
    assert server.bodies == [
        {
            "model": "tiny",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "?"}],
            "max_tokens": 7,
            "temperature": 0,
        }
    ]


def test_the_wait_that_the_server_asks_for_is_kept(server: Server) -> None:
    server.faults.append("busy 0.3")
    model(server).generate(prompts(1), max_new=2)
    first, second = server.times
    assert second - first >= 0.3


@pytest.mark.parametrize(
    ("fault", "said"), [("broken", "answered 500"), ("garbage", "not JSON"), ("slow", "within 1 s")]
)
def test_patience_ends(server: Server, fault: str, said: str) -> None:
    server.faults += [fault] * 2
    with pytest.raises(RemoteError, match=said) as caught:
        model(server, attempts=2, timeout=1).generate(prompts(1), max_new=2)
    assert server.url in str(caught.value)
    assert len(server.bodies) == 2


def test_a_reply_of_another_kind_is_an_error(server: Server) -> None:
    server.faults.append("other")
    with pytest.raises(RemoteError, match="not a chat completion"):
        model(server).generate(prompts(1), max_new=2)


def test_a_wrong_key_is_named_by_its_variable_and_never_shown(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_KEY", "sk-wrong-secret")
    with pytest.raises(RemoteError, match="TINY_KEY") as caught:
        model(server).generate(prompts(1), max_new=2)
    assert "sk-wrong-secret" not in str(caught.value)
    assert len(server.bodies) == 1


def test_a_wrong_model_is_named(server: Server) -> None:
    with pytest.raises(RemoteError, match="'huge'"):
        RemoteModel(server.url, "huge", "TINY_KEY").generate(prompts(1), max_new=2)


def test_a_key_that_is_not_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINY_KEY", raising=False)
    with pytest.raises(InputError, match="TINY_KEY"):
        RemoteModel("http://127.0.0.1:1/v1", "tiny", "TINY_KEY")


def test_nobody_listening_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.0)
    with pytest.raises(RemoteError, match="server is up"):
        RemoteModel("http://127.0.0.1:1/v1", "tiny", attempts=2).generate(prompts(3), max_new=2)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("card_arrival", "card_arrival"),
        (" Card arrival.\n", "card_arrival"),
        ("It is about card_arrival_late, I think", "card_arrival_late"),
        ("Refund", "refund"),
        ("refunds", "refunds"),
        ("no idea", "no idea"),
    ],
)
def test_an_answer_is_matched_to_a_label(text: str, label: str) -> None:
    assert match_label(text, ["card_arrival", "card_arrival_late", "refund"]) == label


def test_the_wait_may_be_a_date() -> None:
    from datetime import UTC, datetime, timedelta
    from email.utils import format_datetime

    wait = retry_after_seconds(format_datetime(datetime.now(UTC) + timedelta(seconds=30)))
    assert wait is not None
    assert 25 < wait <= 30
