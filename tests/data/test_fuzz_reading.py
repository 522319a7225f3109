"""The reader under fuzz: whatever the bytes are, rows come out or one clear error, soon."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from written_rows import ASK, CALL, GOOD, SAY, csv, lines, read

from trimtab.base.errors import TrimtabError
from trimtab.data.formats import ReadRows

FIELDS = [
    *("messages", "role", "content", "tool_calls", "function", "name", "arguments", "from", "value", "conversations"),
    *("question", "answer", "text", "label", "prompt", "completion", "weight", "id", "group", "passage", "a\nb"),
]
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=20,
)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": st.text(max_size=5) | VALUE},
    optional={"tool_calls": st.just([CALL]) | VALUE, "tool_call_id": st.just("c1") | VALUE},
)
ROW = (
    VALUE
    | st.fixed_dictionaries(
        {"question": st.text(min_size=1) | VALUE, "answer": st.text(min_size=1) | VALUE},
        optional={"weight": st.integers(0, 3) | VALUE, "id": VALUE, "passage": VALUE, "group": VALUE},
    )
    | st.fixed_dictionaries({"messages": st.lists(TURN, max_size=5) | st.just([ASK, SAY]) | VALUE})
)
SQUAD = st.fixed_dictionaries(
    {
        "data": st.lists(
            st.fixed_dictionaries(
                {
                    "paragraphs": st.lists(
                        st.fixed_dictionaries({"context": st.text() | VALUE, "qas": st.lists(ROW) | VALUE})
                    )
                }
            )
            | VALUE
        )
        | VALUE
    }
)
NAMES = st.sampled_from(["f.jsonl", "f.json", "f.csv", "f.tsv", "f.jsonl.gz"])
KINDS = st.sampled_from(["classify", "answer", "generate"])
FUZZ = settings(deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])


def outcome(path: Path, kind: str) -> ReadRows | None:
    """What was read, None for an error meant for the user, on one line; any other error goes through."""
    message = ""
    try:
        return read(path, kind)
    except TrimtabError as error:
        message = str(error)
    assert message.isprintable()
    return None


@FUZZ
@given(data=st.binary(max_size=400), name=NAMES, kind=KINDS)
def test_random_bytes_give_rows_or_one_clear_error(tmp_path: Path, data: bytes, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(data)
    outcome(tmp_path / name, kind)


@FUZZ
@given(rows=st.lists(ROW, min_size=1, max_size=6), name=NAMES, kind=KINDS)
def test_random_json_gives_rows_or_one_clear_error(tmp_path: Path, rows: list[Any], name: str, kind: str) -> None:
    data = json.dumps(rows).encode() if name == "f.json" else "\n".join(json.dumps(row) for row in rows).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    found = outcome(tmp_path / name, kind)
    if found is not None and name != "f.csv":
        assert len({example.id for example in found.examples}) == len(found.examples) >= 2


@FUZZ
@given(value=SQUAD, kind=KINDS)
def test_random_squad_gives_rows_or_one_clear_error(tmp_path: Path, value: Any, kind: str) -> None:
    (tmp_path / "f.json").write_text(json.dumps(value))
    outcome(tmp_path / "f.json", kind)


@FUZZ
@given(
    cut=st.integers(0, 2000),
    flip=st.integers(0, 2000),
    byte=st.integers(0, 255),
    name=st.sampled_from(["f.jsonl", "f.csv"]),
)
def test_a_damaged_good_file_never_gives_more_rows(tmp_path: Path, cut: int, flip: int, byte: int, name: str) -> None:
    whole = lines(*GOOD) if name == "f.jsonl" else csv(*(f"{row['question']},{row['answer']}" for row in GOOD))
    data = bytearray(whole[: len(whole) - cut])
    if flip < len(data):
        data[flip] = byte
    (tmp_path / name).write_bytes(bytes(data))
    found = outcome(tmp_path / name, "answer")
    assert found is None or len(found.examples) <= 41


@FUZZ
@given(flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4), kind=KINDS)
def test_damaged_parquet_gives_rows_or_one_clear_error(tmp_path: Path, flips: list[tuple[int, int]], kind: str) -> None:
    path = tmp_path / "f.parquet"
    sound = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(GOOD), sound)
    data = bytearray(sound.getvalue())
    for place, byte in flips:
        data[place % len(data)] = byte
    path.write_bytes(bytes(data))
    outcome(path, kind)
