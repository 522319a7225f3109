"""Endpoints that do harm: each ends in one line and in bounded time and memory, and what was paid for is kept."""

from __future__ import annotations

import gzip
import json
import socket
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile_server import answering, chat, reply
from openai_server import KEY

from trimtab.base.errors import InputError, RemoteError
from trimtab.base.records import Message, Prompt
from trimtab.inference import remote
from trimtab.inference.bounded_http import MAX_WAIT_SECONDS, mask_secret, retry_after_seconds
from trimtab.inference.remote import RemoteModel

pytestmark = pytest.mark.any_processor


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_KEY", KEY)
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)


def asked(*questions: str) -> list[Prompt]:
    return [Prompt(id=text, messages=(Message(role="user", content=text),)) for text in questions]


def send(data: bytes) -> Callable[[socket.socket, bytes], None]:
    return lambda connection, _: connection.sendall(data)


def refusal(answer: Callable[[socket.socket, bytes], None], **options: float) -> str:
    with answering(answer) as url, pytest.raises(RemoteError) as caught:
        RemoteModel(url, "m", "TINY_KEY", attempts=2, **options).generate(asked("a"), 5)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_reply_that_unpacks_to_a_gigabyte_is_not_unpacked() -> None:
    bomb = gzip.compress(gzip.compress(b"")[:0] + b" " * 200_000_000, 1)
    tracemalloc.start()
    try:
        assert "longer than 16 MB" in refusal(send(reply(bomb, "Content-Encoding: gzip")))
        assert tracemalloc.get_traced_memory()[1] < 80 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("packing", ["gzip", "br", "deflate"])
def test_a_packing_that_is_wrong_or_was_not_asked_for_is_refused(packing: str) -> None:
    assert "the reply is" in refusal(send(reply(b"x" * 50, f"Content-Encoding: {packing}")))


def test_a_packed_reply_is_read() -> None:
    with answering(send(reply(gzip.compress(chat("well")), "Content-Encoding: gzip"))) as url:
        assert RemoteModel(url, "m").generate(asked("a"), 5)[0].text == "well"


def endless(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b" " * 65536)


def dripping(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.1)


def dripping_headers(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X: y\r\n")
        time.sleep(0.1)


def test_a_reply_that_never_ends_is_left() -> None:
    assert "longer than 16 MB" in refusal(endless)


def test_a_reply_that_drips_has_one_time_limit_for_the_whole() -> None:
    began = time.monotonic()
    assert "no answer within 0.5 s" in refusal(dripping, timeout=0.5)
    assert time.monotonic() - began < 3


def test_headers_that_drip_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MAX_WAIT_SECONDS", 0.1)
    began = time.monotonic()
    assert "no whole answer within" in refusal(dripping_headers, timeout=0.3)
    assert time.monotonic() - began < 5


BROKEN = {
    "deep": b'{"choices": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "deep, all of it": b"[" * 100_000,
    "empty": b"",
    "not UTF-8": b'{"choices": "\xff\xfe"}',
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_parsed_is_refused(body: bytes) -> None:
    assert "the reply is not JSON, 2 times" in refusal(send(reply(body)))


@pytest.mark.parametrize("count", ["1e400", "1" + "0" * 5000, "1e30", "-1", "true", "0.5", "NaN", '"many"', "[]"])
def test_token_counts_that_no_answer_has_are_refused(count: str) -> None:
    body = chat().replace(b'"usage": {', f'"usage": {{"prompt_tokens": {count}'.encode())
    assert "not a chat completion" in refusal(send(reply(body)))


def test_half_a_surrogate_pair_becomes_a_replacement_character() -> None:
    with answering(send(reply(chat("a\ud800b \U0001f600")))) as url:
        assert RemoteModel(url, "m").generate(asked("a"), 5)[0].text == "a\ufffdb \U0001f600"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("inf", MAX_WAIT_SECONDS),
        ("1e999", MAX_WAIT_SECONDS),
        ("9" * 5000, MAX_WAIT_SECONDS),
        ("Fri, 31 Dec 9999 23:59:59 -0000", MAX_WAIT_SECONDS),  # a date without a zone
        ("Fri, 31 Dec 9999 23:59:59 -2359", MAX_WAIT_SECONDS),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("-5", 0.0),
        ("nan", None),
        ("soon", None),
        ("Fri, 99 Zzz 99999", None),
    ],
)
def test_a_wait_is_bounded_whatever_is_asked(value: str, seconds: float | None) -> None:
    assert retry_after_seconds(value) == seconds


def test_what_was_answered_is_kept_and_only_the_rest_is_asked(tmp_path: Path) -> None:
    bodies: list[str] = []
    broken = True

    def answer(connection: socket.socket, body: bytes) -> None:
        question = json.loads(body)["messages"][0]["content"]
        bodies.append(question)
        bad = broken and question == "d"
        connection.sendall(
            reply(b"no", status="400 Bad Request") if bad else reply(chat(question * 2, prompt_tokens=3))
        )

    kept = tmp_path / "run-0" / "replies.jsonl"
    with answering(answer) as url:
        model = RemoteModel(url, "m", "TINY_KEY", parallel=1, log_file=kept)
        with pytest.raises(RemoteError, match="answered 400"):
            model.generate(asked(*"abcde"), 5)
        broken = False
        bodies.clear()
        again = RemoteModel(url, "m", "TINY_KEY", parallel=1, log_file=kept).generate(asked(*"abcde"), 5)
        assert bodies[0] == "d"
        assert not set(bodies) & set("abc")
        assert [(answer.text, answer.prompt_tokens) for answer in again] == [(text * 2, 3) for text in "abcde"]
        assert all(answer.seconds > 0 for answer in again)
        RemoteModel(url, "m", "TINY_KEY", log_file=kept).generate(asked("a"), 6)  # another request: asked
        assert bodies[-1] == "a"
    assert KEY not in kept.read_text()


@pytest.mark.parametrize(
    "key", ["sk-secret-12345\n", "sk-secret\r\nX: y", " sk-secret", "sk-secr\u00e9t", "sk\x1b[2Jsecret"]
)
def test_a_key_that_no_header_can_carry_is_refused_unsent_and_unshown(monkeypatch, key: str) -> None:
    monkeypatch.setenv("TINY_KEY", key)
    with pytest.raises(InputError, match="TINY_KEY holds a line break or another character") as caught:
        RemoteModel("http://127.0.0.1:1/v1", "m", "TINY_KEY")
    assert "secr" not in str(caught.value)


@pytest.mark.parametrize("status", ["401 No", "400 Bad", "302 Found"])
def test_a_key_that_is_echoed_is_masked_whole_and_in_parts(status: str) -> None:
    body = f"your key {KEY} or {KEY[:8]}… or …{KEY[-7:]} \x1b[2J is wrong".encode()
    told = refusal(send(reply(body, status=status)))
    assert "your key *** or ***… or …*** ␛[2J is wrong" in told
    assert not any(KEY[at : at + 6] in told for at in range(len(KEY) - 5))


def test_a_key_at_the_edge_of_what_is_told_is_masked() -> None:
    told = refusal(send(reply(b"x" * 190 + KEY.encode(), status="400 Bad")))
    assert KEY[:6] not in told


def test_a_key_in_an_answer_is_masked_there() -> None:
    with answering(send(reply(chat(f"it is {KEY}.")))) as url:
        assert RemoteModel(url, "m", "TINY_KEY").generate(asked("a"), 5)[0].text == "it is ***."


def test_what_is_no_part_of_the_key_is_left() -> None:
    assert mask_secret("abcdef abcde", "abcdefgh") == "*** abcde"
    assert mask_secret("nothing here", "") == "nothing here"
