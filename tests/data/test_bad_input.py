"""Every numbered case of bad rows and files: refused with file, line and remedy; skipped into the ledger; warned of;
or read without loss."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from written_rows import ASK, CALLS, GOOD, SAY, after_good, chat, csv, lines, read

from trimtab.base.errors import InputError
from trimtab.data import readers, sources

RESULT = {"role": "tool", "tool_call_id": "c1", "content": "found"}


def as_json(answer: str) -> str:
    """A row whose answer is written as given, unquoted."""
    return f'{{"question": "q", "answer": {answer}}}'


def packed(data: bytes, cut: int | None = None) -> bytes:
    """Gzip of `data`, cut short when asked."""
    return gzip.compress(data)[:cut]


# number and what, file name, bytes, line (None: the whole file), a piece of the problem, a piece of the remedy
REFUSED: list[tuple[str, str, bytes, int | None, str, str]] = [
    ("2 UTF-16 with mark", "a.jsonl", lines(*GOOD).decode().encode("utf-16"), 1, "UTF-16", 'data.encoding = "utf-16"'),
    ("2 UTF-16 without mark", "a.csv", csv("a,b").decode().encode("utf-16-le"), 1, "UTF-16-LE", "data.encoding"),
    (
        "3 mixed encoding",
        "a.jsonl",
        after_good('{"question": "caf\xe9"}').decode().encode("latin-1"),
        41,
        f"byte 0xE9 at offset {len(lines(*GOOD)) + 17:,} is not UTF-8",
        "cp1252",
    ),
    ("4 NUL byte", "a.jsonl", after_good('{"question": "a\0b"}'), 41, "NUL", "remove"),
    ("8 gzip cut", "a.jsonl.gz", packed(os.urandom(4000) + lines(*GOOD), -40), None, "cut off", "copy it again"),
    ("8 damaged gzip", "a.jsonl.gz", packed(lines(*GOOD), -6) + b"wrong!", None, "damaged", "copy it again"),
    (
        "8 more behind gzip",
        "a.jsonl.gz",
        packed(lines(*GOOD)) + b"more",
        None,
        "other data at its end",
        "copy it again",
    ),
    ("8 no gzip", "a.csv.gz", csv("a,b"), None, "not gzip", "rename"),
    ("10 truncated last line", "a.jsonl", after_good(GOOD[0])[:-9], 41, "cut off", "copy the file again"),
    ("11 empty", "a.jsonl", b"", None, "empty", "leave it out"),
    ("11 empty but for space", "a.json", b" \n ", None, "nothing but space", "leave it out"),
    ("11 only a header", "a.csv", b"question,answer\n", 1, "no row", "leave it out"),
    ("12 array called jsonl", "a.jsonl", json.dumps(GOOD).encode(), 1, "JSON array", "rename it to .json"),
    ("14 unclosed quote", "a.csv", csv("a,b", 'c,"d', "e,f"), 3, "never closes", "close it"),
    ("16 too many fields", "a.csv", csv("a,b", "c,d,e"), 3, "3 fields where the header has 2", "double quotes"),
    (
        "16 too few fields",
        "a.tsv",
        b"question\tanswer\na\tb\nc\n",
        3,
        "1 field where the header has 2",
        "double quotes",
    ),
    ("17 duplicate header", "a.csv", b"question,answer,answer\na,b,c\n", 1, "two columns", "rename one"),
    ("19 NaN", "a.jsonl", after_good(as_json("NaN")), 41, "NaN is not JSON", "null"),
    ("19 Infinity", "a.jsonl", after_good(as_json("-Infinity")), 41, "-Infinity is not JSON", "null"),
    ("20 1e400", "a.jsonl", after_good(as_json("1e400")), 41, "too large", "as text"),
    (
        "21 duplicate keys",
        "a.jsonl",
        after_good('{"question": "a", "answer": "b", "answer": "c"}'),
        41,
        "twice",
        "keep one",
    ),
    ("23 depth", "a.jsonl", after_good(as_json("[" * 100_000 + "]" * 100_000)), 41, "nested deeper", "flatten"),
    (
        "23 depth under Python's own limit",
        "a.jsonl",
        after_good(as_json("[" * 80 + "]" * 80)),
        41,
        "nested deeper",
        "flatten",
    ),
    ("24 5,000 digits", "a.jsonl", after_good(as_json("7" * 5000)), 41, "5,000 digits", "as text"),
    ("25 true as weight", "a.jsonl", after_good({**GOOD[0], "weight": True}), 41, "weight is true or false", "number"),
    ("26 type changes", "a.jsonl", after_good(as_json("7")), 41, "is a number; it was text from line 1 on", "one type"),
    (
        "26 answer becomes an object",
        "a.jsonl",
        after_good(as_json('{"a": 1}')),
        41,
        "is an object, not text",
        "write text",
    ),
    ("28 two user turns", "a.jsonl", chat(ASK, ASK, SAY), 3, "a turn of user follows user", "alternate"),
    ("28 assistant first", "a.jsonl", chat(SAY, ASK, SAY), 3, "a turn of assistant comes first", "alternate"),
    ("28 system later", "a.jsonl", chat(ASK, {"role": "system", "content": "s"}, SAY), 3, "not the first", "front"),
    ("29 unknown role", "a.jsonl", chat(ASK, {"role": "bot", "content": "x"}), 3, "unknown role 'bot'", "assistant"),
    (
        "32 two system turns",
        "a.jsonl",
        chat(*[{"role": "system", "content": "s"}] * 2, ASK, SAY),
        3,
        "second system",
        "join",
    ),
    ("34 orphan tool result", "a.jsonl", chat(ASK, RESULT, SAY), 3, "no tool call before it", "remove the result"),
    (
        "34 other call's result",
        "a.jsonl",
        chat(ASK, CALLS, {**RESULT, "tool_call_id": "c9"}, SAY),
        3,
        "'c9'",
        "tool_call_id",
    ),
    (
        "35 tool arguments",
        "a.jsonl",
        chat(ASK, {**CALLS, "tool_calls": [{"function": {"name": "find", "arguments": "{q: 1"}}]}, RESULT, SAY),
        3,
        "tool arguments are not valid JSON",
        "JSON object",
    ),
    (
        "36 image",
        "a.jsonl",
        chat({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, SAY),
        3,
        "'image_url'; the model reads text only",
        "leave the row out",
    ),
    ("46 negative weight", "a.jsonl", after_good({**GOOD[0], "weight": -1}), 41, "negative", "0 or more"),
    ("46 weight no number", "a.csv", b"question,answer,weight\na,b,1\nc,d,nan\n", 3, "not finite", "0 or more"),
    (
        "46 weights sum to zero",
        "a.csv",
        b"question,answer,weight\na,b,0\nc,d,0\n",
        2,
        "all weights are 0",
        "give some row",
    ),
    ("47 duplicate ids", "a.csv", b"id,question,answer\n7,a,b\n8,c,d\n7,e,f\n", 4, "'7' stands already at", "unique"),
    ("50 one usable row", "a.jsonl", lines(GOOD[0]), 1, "1 usable row", "at least two"),
]


@pytest.mark.parametrize(
    ("name", "data", "line", "problem", "remedy"), [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_refused_with_place_and_remedy(
    tmp_path: Path, name: str, data: bytes, line: int | None, problem: str, remedy: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        read(tmp_path / name)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / name}:{line}:" if line else f"{tmp_path / name}:")
    assert caught.value.line == line
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy
    assert "\n" not in message


LOSSLESS: list[tuple[str, str, bytes, tuple[str, ...]]] = [
    ("1 BOM jsonl", "a.jsonl", b"\xef\xbb\xbf" + lines(*GOOD[:2]), ("What is 0 plus one?", "What is 1 plus one?")),
    ("1 BOM csv", "a.csv", b"\xef\xbb\xbf" + csv("a,b", "c,d"), ("a", "c")),
    (
        "5 CRLF jsonl",
        "a.jsonl",
        lines(*GOOD[:2]).replace(b"\n", b"\r\n"),
        ("What is 0 plus one?", "What is 1 plus one?"),
    ),
    ("5 CRLF csv", "a.csv", csv("a,b", "c,d").replace(b"\n", b"\r\n"), ("a", "c")),
    (
        "6 U+2028",
        "a.jsonl",
        '{"question": "a\u2028b\u2029c\x85d", "answer": "x"}\n{"question": "e", "answer": "y"}\n'.encode(),
        ("a\u2028b\u2029c\x85d", "e"),
    ),
    ("13 embedded newlines", "a.csv", csv('"a\nb ""c"", d",e', "f,g"), ('a\nb "c", d', "f")),
    ("15 long field", "a.csv", csv("x" * 200_000 + ",b", "c,d"), ("x" * 200_000, "c")),
    (
        "33 null content with tool calls",
        "a.jsonl",
        lines({"messages": [ASK, CALLS, RESULT, SAY]}, {"messages": [ASK, CALLS]}),
        ("found", "Hi"),
    ),
    ("51 right-to-left", "a.csv", csv("שלום עולם,x", "مرحبا بالعالم,y"), ("שלום עולם", "مرحبا بالعالم")),
    ("51 emoji", "a.csv", csv("👩‍👩‍👧 🏳️‍🌈,x", "🇩🇪,y"), ("👩‍👩‍👧 🏳️‍🌈", "🇩🇪")),
]


@pytest.mark.parametrize(
    ("name", "data", "inputs"), [case[1:] for case in LOSSLESS], ids=[case[0] for case in LOSSLESS]
)
def test_read_without_loss(tmp_path: Path, name: str, data: bytes, inputs: tuple[str, ...]) -> None:
    (tmp_path / name).write_bytes(data)
    found = read(tmp_path / name)
    assert tuple(example.input for example in found.examples) == inputs
    assert not found.refusals


def test_33_tool_calls_keep_name_and_arguments(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines({"messages": [ASK, CALLS, RESULT, SAY]}, {"messages": [ASK, CALLS]}))
    first, second = read(tmp_path / "a.jsonl").examples
    written = '<tool_call>\n{"name": "find", "arguments": {"q": "x"}}\n</tool_call>'
    assert [message.role for message in first.messages] == ["user", "assistant", "tool"]
    assert first.messages[1].content == written
    assert second.references == (written,)


SKIPPED: list[tuple[str, bytes, int, str]] = [
    ("22 lone surrogate", after_good(r'{"question": "a\ud800b", "answer": "c"}'), 41, "surrogate"),
    ("30 empty assistant turn", chat(ASK, {"role": "assistant", "content": " "}), 3, "assistant is empty"),
    ("30 empty assistant turn in the middle", chat(ASK, {"role": "assistant", "content": ""}, ASK, SAY), 3, "turn 2"),
    ("31 no assistant turn", chat(ASK), 3, "no turn of the assistant"),
    ("31 no assistant turn at the end", chat(ASK, SAY, ASK), 3, "last turn is not the assistant's"),
    ("no answer", after_good(as_json("null")), 41, "no answer"),
    ("no question", after_good({"question": " ", "answer": "x"}), 41, "no text in question"),
]


@pytest.mark.parametrize(("data", "line", "reason"), [case[1:] for case in SKIPPED], ids=[case[0] for case in SKIPPED])
def test_skipped_into_the_ledger(tmp_path: Path, data: bytes, line: int, reason: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(data)
    found = read(tmp_path / "a.jsonl")
    (refusal,) = found.refusals
    assert (refusal.file, refusal.line) == (str(tmp_path / "a.jsonl"), line)
    assert reason in refusal.reason
    assert refusal.remedy
    assert len(found.examples) == line - 1


@pytest.mark.parametrize(("bad", "stops"), [(20, False), (21, True)])
def test_many_refused_rows_stop_the_reading(tmp_path: Path, bad: int, stops: bool) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(*GOOD, *[as_json("null")] * bad))
    if not stops:
        assert len(read(tmp_path / "a.jsonl").refusals) == bad
        return
    with pytest.raises(InputError, match=r"a\.jsonl:41: 21 of 61 rows cannot be used"):
        read(tmp_path / "a.jsonl")


def test_a_small_share_of_refused_rows_does_not_stop(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(*GOOD * 10, *[as_json("null")] * 30))
    assert len(read(tmp_path / "a.jsonl").refusals) == 30


@pytest.mark.parametrize("text", ["say <|im_start|> now", "a\u200bb", "a\u202eb"], ids=["37", "52 width", "52 bidi"])
def test_odd_text_is_kept_as_it_is(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(after_good({"question": text, "answer": "x"}))
    assert read(tmp_path / "a.jsonl").examples[-1].input == text


def test_27_unknown_fields_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(after_good({**GOOD[0], "colour": "red"}))
    assert "a.jsonl: fields that are not used: colour" in read(tmp_path / "a.jsonl").notes
    (tmp_path / "b.jsonl").write_bytes(lines(*GOOD))
    assert not any("not used" in note for note in read(tmp_path / "b.jsonl").notes)


def test_2_utf16_is_read_when_announced(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(*GOOD).decode().encode("utf-16"))
    assert len(read(tmp_path / "a.jsonl", encoding="utf-16").examples) == 40


def test_3_cp1252_is_read_when_announced(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("question,answer\ncafé,x\nnaïve,y\n".encode("cp1252"))
    assert read(tmp_path / "a.csv", encoding="cp1252").examples[0].input == "café"
    with pytest.raises(InputError, match=r"trimtab|data\.encoding"):
        read(tmp_path / "a.csv", encoding="no-such")
    with pytest.raises(InputError, match="unknown encoding"):
        read(tmp_path / "a.csv", encoding="base64")


def test_3_the_offset_counts_over_blocks(tmp_path: Path) -> None:
    good = ("é" * 150_000 + "\n").encode()
    (tmp_path / "a.csv").write_bytes(b"question,answer\n" + good.replace(b"\n", b",b\n") + b"\xff,x\n")
    with pytest.raises(InputError) as caught:
        read(tmp_path / "a.csv")
    assert caught.value.line == 3
    assert f"byte 0xFF at offset {16 + len(good) + 2:,} " in caught.value.problem


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_7_a_long_line_is_refused_in_bounded_memory(tmp_path: Path, name: str) -> None:
    with open(tmp_path / name, "wb") as file:
        file.write(b'{"question": "' if name == "a.jsonl" else b"question,answer\n")
        for _ in range(50):
            file.write(b"x" * 1024 * 1024)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=rf"{name}:\d: the line is longer than 8 MB; .*leave it out"):
            read(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 80 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_7_a_long_json_value_is_refused_before_it_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "WHOLE_CAP", 1000)
    (tmp_path / "a.json").write_text(json.dumps(GOOD))
    with pytest.raises(InputError, match=r"a\.json: is larger than .*split it"):
        read(tmp_path / "a.json")


def test_7_a_long_row_of_an_array_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "LINE_CAP", 1000)
    (tmp_path / "a.json").write_text(json.dumps([*GOOD, {"question": "x" * 1000, "answer": "y"}], indent=1))
    with pytest.raises(InputError, match=r"a\.json:162: the row is longer than .*leave it out"):
        read(tmp_path / "a.json")


@pytest.mark.parametrize("sides", [("x" * 1_000_000, "y"), ("x", "y" * 1_000_000)])
def test_7_a_row_beyond_any_model_is_left_out(tmp_path: Path, sides: tuple[str, str]) -> None:
    (tmp_path / "a.jsonl").write_bytes(after_good({"question": sides[0], "answer": sides[1]}))
    (refusal,) = read(tmp_path / "a.jsonl").refusals
    assert (refusal.line, refusal.reason) == (41, "1,000,001 characters, and 1,000,000 are the most that is read")


def test_9_a_gzip_bomb_is_refused_early(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wb", compresslevel=9) as file:
        for _ in range(20):
            file.write(b" " * 1024 * 1024 + b"\n")
    with pytest.raises(InputError, match=r"a\.jsonl\.gz: .*decompression bomb; unpack it yourself"):
        read(tmp_path / "a.jsonl.gz")


def test_9_the_total_of_a_gzip_is_bounded_whatever_its_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "TOTAL_CAP", 1000)
    (tmp_path / "a.jsonl.gz").write_bytes(packed(lines(*GOOD)))
    with pytest.raises(InputError, match="bomb"):
        read(tmp_path / "a.jsonl.gz")


def test_12_an_array_in_a_json_file_gives_its_rows_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(GOOD, indent=1))
    examples = read(tmp_path / "a.json").examples
    text = (tmp_path / "a.json").read_text().split("\n")
    assert len(examples) == 40
    assert all(example.input in text[example.line] for example in examples)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ('[\n{"question": "a", "answer": "b"},\n{"question": "c"', 3, "not valid JSON"),
        ('[\n{"question": "a", "answer": "b"}', 2, "cut off"),
        ('[\n{"question": "a", "answer": "b"}\n{"question": "c", "answer": "d"}]', 3, "comma is missing"),
        ('[{"question": "a", "answer": "b"}]\nmore', 1, "more text"),
        ("[\n1]", 2, "is a number, not an object"),
    ],
)
def test_12_broken_arrays(tmp_path: Path, text: str, line: int, problem: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=problem) as caught:
        read(tmp_path / "a.json")
    assert caught.value.line == line


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "problem"),
    [(_fifo, "FIFO"), (_device, "device"), (_loop, "leads to itself")],
    ids=["fifo", "device", "loop"],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.json", "a.parquet"])
def test_18_only_regular_files_are_opened(
    tmp_path: Path, make: Callable[[Path], None], problem: str, name: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: is .*{problem}.*; give a regular file"):
        read(tmp_path / name)


def test_18_a_folder_with_a_loop_of_links_ends(tmp_path: Path) -> None:
    inner = tmp_path / "rows" / "inner"
    inner.mkdir(parents=True)
    (inner / "up").symlink_to(tmp_path / "rows")
    (inner / "a.jsonl").write_bytes(lines(*GOOD))
    assert len(read(tmp_path / "rows").examples) == 40


@pytest.mark.parametrize("labels", [[0, 1, "spam"], ["ham", "spam", 1], [True, False, 1]])
def test_42_labels_of_two_types(tmp_path: Path, labels: list[Any]) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(*({"text": f"t{n}", "label": label} for n, label in enumerate(labels))))
    with pytest.raises(InputError, match=r"a\.jsonl:3:label: is .*; it was .* from line 1 on; use one type"):
        read(tmp_path / "a.jsonl", "classify")


def test_every_suffix_that_is_promised_has_a_reader(tmp_path: Path) -> None:
    for suffix in readers.row_suffixes():
        path = tmp_path / f"a{suffix}"
        path.write_bytes(b"")
        with pytest.raises(InputError, match="empty"):
            list(readers.read_raw_rows(path))
