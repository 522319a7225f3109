"""Small files that unpack to much: refused before they are unpacked, whatever kind they are."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from written_rows import GOOD, lines, read

from trimtab.base.errors import InputError
from trimtab.base.task import Task
from trimtab.data import documents, readers, sources
from trimtab.data.readers import read_raw_rows

MB = 1024 * 1024


ONE_TEXT = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 400, pyarrow.int32()), ["x" * MB])
TABLES = {
    "a long text that all rows repeat": pyarrow.table({"question": ONE_TEXT, "answer": ["y"] * 400}),
    "a long text in every list": pyarrow.table(
        {"question": ["q"] * 400, "answer": pyarrow.ListArray.from_arrays(list(range(401)), ONE_TEXT)}
    ),
    "a long text of an extension type": pyarrow.table(
        {
            "question": ["q"] * 400,
            "answer": pyarrow.ExtensionArray.from_storage(pyarrow.json_(), ONE_TEXT.cast("string")),
        }
    ),
    "a list of millions": pyarrow.table({"question": ["q"], "answer": [["y"] * 3_000_000]}),
    "rows without anything": pyarrow.table(dict.fromkeys(("question", "answer"), pyarrow.nulls(3_000_000))),
    "a long text once": pyarrow.table({"question": ["x" * 5 * MB], "answer": ["y"]}),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_parquet(tmp_path: Path, table: Any) -> None:
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 32_000
    before = pyarrow.default_memory_pool().max_memory()
    with pytest.raises(InputError, match=r"a\.parquet: .* a decompression bomb; write its rows as JSON lines"):
        read(tmp_path / "a.parquet")
    assert pyarrow.default_memory_pool().max_memory() < before + 96 * MB


def test_parquet_with_values_of_a_great_width(tmp_path: Path) -> None:
    wide = pyarrow.array([b"x" * 2000] * 2, pyarrow.binary(2000))
    pyarrow.parquet.write_table(pyarrow.table({"question": wide}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has a column of 2,000 bytes a value"):
        read(tmp_path / "a.parquet")


def test_parquet_of_every_shape_is_read_as_it_was_written(tmp_path: Path) -> None:
    texts = pyarrow.array(["a", "b", None])
    table = pyarrow.table(
        {
            "text": texts,
            "bytes": [b"z", b"", None],
            "long": texts.cast(pyarrow.large_string()),
            "number": [1, 2, None],
            "nothing": pyarrow.nulls(3),
            "coded": texts.dictionary_encode(),
            "coded numbers": pyarrow.array([7, 8, 7]).dictionary_encode(),
            "list": [["x", "y"], [], None],
            "pair": pyarrow.array([[1, 2], [3, 4], None], pyarrow.list_(pyarrow.int64(), 2)),
            "turns": [[{"role": "user", "content": "c"}], None, []],
            "deep": [{"a": "t", "l": [{"z": ["q"]}]}, None, {"a": None, "l": []}],
            "map": pyarrow.array([[("k", "v")], [], None], pyarrow.map_(pyarrow.string(), pyarrow.string())),
            "fixed": pyarrow.array([b"1" * 16] * 3, pyarrow.binary(16)),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert [row.fields for row in read_raw_rows(tmp_path / "a.parquet")] == table.to_pylist()


def test_gzip_is_judged_by_what_was_read_of_it(tmp_path: Path) -> None:
    """The random end would make the whole look harmless; the bomb in front of it is never unpacked."""
    (tmp_path / "a.jsonl.gz").write_bytes(
        gzip.compress(lines({"question": "q", "answer": "y" * 5000}) * 2000) + gzip.compress(os.urandom(MB))
    )
    with pytest.raises(InputError, match="bomb") as caught:
        read(tmp_path / "a.jsonl.gz")
    assert int(caught.value.problem.split()[0].replace(",", "")) < 64 * 1024


@pytest.mark.parametrize("name", ["page.html", "page.md", "page.txt"])
def test_documents(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"<html><body>" + b"<p>Some words of a page.</p>\n" * 200_000))
    with pytest.raises(InputError, match="bomb"):
        documents.read_documents(_with_document(tmp_path, name))


def test_a_page_that_is_too_large_to_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "PAGE_CAP", 100)
    (tmp_path / "page.html").write_text("<html><body>" + "<p>Some words.</p>" * 20)
    with pytest.raises(InputError, match=r"page\.html:data\.documents: is a page of more than 0 MB; split it"):
        documents.read_documents(_with_document(tmp_path, "page.html"))


@pytest.mark.parametrize("text", ["[" + "[]," * 200 + "[]]", '{"data": [' + "7," * 200 + "7]}"])
def test_a_json_file_of_too_many_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(readers, "VALUES_CAP", 150)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json: holds more than 150 values; write its rows as JSON lines"):
        read(tmp_path / "a.json")


def test_what_is_alike_and_short_is_no_bomb(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines(*GOOD) * 100))
    assert len(read(tmp_path / "a.jsonl.gz").examples) == 4000
    assert sources.is_bomb(2 * MB + 1, 0)
    assert not sources.is_bomb(2 * MB, 0)
    assert not sources.is_bomb(300 * MB, 3 * MB)


def _with_document(folder: Path, name: str) -> Task:
    file = folder / "trimtab.toml"
    return Task(task={"name": "t", "kind": "answer"}, data={"documents": [name]}, base={"model": "m"}, file=file)
