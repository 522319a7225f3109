"""Text that streams is the text of the whole answer up to its first stop, and no piece is ever taken back."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
from answering_models import EOS, pair
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel

from trimtab.base.records import Generation
from trimtab.inference.detokenize import TextStream, cut_at_stop, token_bytes
from trimtab.inference.engine import Completion, Engine, GeneratedToken, Request, generate_texts
from trimtab.inference.sampling import Sampling

pytestmark = pytest.mark.no_kernels


def as_bytes(ids: list[int]) -> str:
    return bytes(ids).decode("utf-8", errors="replace")


@given(text=st.text("abä∑🙂", max_size=20), stops=st.lists(st.text("abä🙂", min_size=1, max_size=4), max_size=3))
@example(text="aabaac", stops=["aac"])
@example(text="ab", stops=["b", "ab"])
@example(text="aä", stops=["aä"])
def test_pieces_add_up_to_the_text_before_the_first_stop(text: str, stops: list[str]) -> None:
    stream, ids, pieces = TextStream(as_bytes, stops), list(text.encode()), []
    for end in range(1, len(ids) + 1):
        pieces.append(stream.add(ids[:end], last=end == len(ids)))
        if stream.stopped:
            break
    wanted = text
    for end in range(len(text) + 1):  # the first prefix of the text that holds a stop
        if any(stop in text[:end] for stop in stops):
            wanted = cut_at_stop(text[:end], stops)
            break
    assert "".join(pieces) == wanted
    assert stream.stopped == any(stop in text for stop in stops)


def test_a_part_of_a_letter_is_told_by_its_bytes() -> None:
    for byte in range(256):
        assert token_bytes("\ufffd", f"<0x{byte:02X}>") == bytes([byte])
    text = "".join(map(chr, range(0x100))) + "∑🙂 \n"
    ((written, _),) = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    assert token_bytes("\ufffd", written) == text.encode()
    assert token_bytes("ä∑", "whatever it is written as") == "ä∑".encode()
    assert token_bytes("\ufffd", "▁unknown") is None


def test_what_cannot_begin_a_stop_is_told_at_once() -> None:
    stream = TextStream(as_bytes, ["\n\n"])
    said = [stream.add(list(b"ab\nc\n\nd"[:end]), last=False) for end in range(1, 7)]
    assert said == ["a", "b", "", "\nc", "", ""]
    assert stream.stopped


class Letters:
    """A tokenizer of the tiny models: one letter a token, stop tokens left out."""

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(chr(97 + token % 7) for token in ids if not (skip_special_tokens and token == EOS))


def engine() -> Engine:
    return Engine(replace(pair("llama")[0], tokenizer=Letters()), frozenset({EOS}), slots=3)


def requests(stops: list[tuple[str, ...]]) -> list[Request]:
    return [
        Request(
            id=str(number),
            ids=(3, 4, 5, 1 + number // 2),
            max_new=30,
            stops=own,
            sampling=Sampling(temperature=1.0, seed=number),
            stream=number % 2 == 0,
        )
        for number, own in enumerate(stops)
    ]


@functools.cache
def unstopped_texts(count: int) -> list[Generation]:
    return generate_texts(engine(), Letters(), requests([()] * count))


@given(st.lists(st.lists(st.text("abcdefg", min_size=1, max_size=2), max_size=2).map(tuple), min_size=1, max_size=6))
def test_each_request_ends_before_its_own_stops(stops: list[tuple[str, ...]]) -> None:
    asked = requests(stops)
    whole = unstopped_texts(len(asked))
    texts = generate_texts(engine(), Letters(), asked)
    running = engine()
    for request in asked:
        running.submit(request)
    events = []
    while running.in_flight:
        events += running.step()
    for request, unstopped, given_here in zip(asked, whole, texts, strict=True):
        hit = any(stop in unstopped.text for stop in request.stops)
        assert unstopped.text.startswith(given_here.text)
        assert not any(stop in given_here.text for stop in request.stops)
        assert given_here.finished == (unstopped.finished or hit)
        # no token is spent behind the one that completes a stop
        extra = unstopped.text[len(given_here.text) : given_here.new_tokens]
        assert extra in (*request.stops, "") or any(extra.endswith(stop) for stop in request.stops)
        assert bool(extra) == hit
        pieces = [event.text for event in events if isinstance(event, GeneratedToken) and event.id == request.id]
        assert "".join(pieces) == (given_here.text if request.stream or request.stops else "")
        (completion,) = (event for event in events if isinstance(event, Completion) and event.id == request.id)
        assert len(completion.ids) == given_here.new_tokens


@pytest.mark.parametrize(
    ("text", "stops", "left"), [("abc", (), "abc"), ("abc", ("c", "b"), "a"), ("abc", ("abc",), "")]
)
def test_before_stop(text: str, stops: tuple[str, ...], left: str) -> None:
    assert cut_at_stop(text, stops) == left
