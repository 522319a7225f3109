"""An index in PostgreSQL with pgvector, against a real server on this machine; skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from interrupted import interrupted, interrupted_before_record
from postgres_server import execute, server_of

from trimtab.base.errors import RemoteError
from trimtab.retrieval import index as index_module
from trimtab.retrieval.index import Changes, Index
from trimtab.retrieval.search import hybrid_search

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    yield from server_of("vector")


@pytest.fixture
def store(server: str, tmp_path) -> str:
    name = f"passages_{abs(hash(str(tmp_path)))}"
    execute(f"{server}/postgres", f"CREATE DATABASE {name}", autocommit=True)
    return f"{server}/{name}"


@pytest.fixture
def documents(make_document):
    return [make_document(f"{n}.md", f"word{n} of group{n % 7}, as number{n % 50} says") for n in range(400)]


def names(index: Index, question: str, k: int = 10, weight: float = 0.5) -> list[str]:
    return [hit.passage.id for hit in hybrid_search(index, [question], k, vector_weight=weight)[0]]


def test_vectors_find_what_they_find_in_a_folder(store, tmp_path, encoder, documents) -> None:
    here = Index.open(tmp_path / "here", encoder)
    here.update(documents[:60])
    one, other = (Index.open(tmp_path / name, encoder, store=store, owner="task") for name in ("one", "other"))
    assert one.update(documents[:60]) == Changes(added=60)
    assert not other.update(documents[:60])
    for question in ("word7", "group3 number20"):
        wanted = {hit.passage.id: hit.similarity for hit in hybrid_search(here, [question], 60, vector_weight=1)[0]}
        found = {hit.passage.id: hit.similarity for hit in hybrid_search(other, [question], 60, vector_weight=1)[0]}
        assert found == pytest.approx(wanted, abs=1e-6)
    assert names(other, "word7", 1, 0) == ["7.md#0"]
    assert dict(other.passages) == dict(here.passages)
    assert other.update(documents[1:60]) == Changes(removed=1)
    assert "0.md#0" not in names(one, "word0", 60)
    assert other.table.bytes > 0


def test_no_character_of_a_question_is_syntax(store, tmp_path, encoder, documents) -> None:
    index = Index.open(tmp_path, encoder, store=store)
    index.update(documents[:20])
    for question in ("'word7' & !(x | \\", "word7:*", "%s word7 {table}", 'wo"rd7\0 word7', "", "the of"):
        assert ("7.md#0" in names(index, question, 3, 0)) == ("word7" in question)


def test_a_large_index_changes_within_its_table_and_is_measured(
    store, tmp_path, encoder, documents, make_document, monkeypatch
) -> None:
    monkeypatch.setattr(index_module, "APPROXIMATE_FROM", 300)
    monkeypatch.setattr(index_module, "BATCH", 150)
    index = Index.open(tmp_path / "one", encoder, store=store)
    index.update(documents)
    table = index.table.name
    told = index.measure_recall(["word7", "word8 of group1"])
    assert told.recall >= 0.95
    assert index.update([*documents[3:], make_document("new.md", "zebra")]) == Changes(added=1, removed=3)
    assert (index.table.name, index.recall, len(list(index.passages))) == (table, told, 398)
    assert names(index, "zebra", 1, 0) == ["new.md#0"]
    assert index.passages["new.md#0"].text == "zebra"
    (tmp_path / "copy").mkdir()
    index.copy_to(tmp_path / "copy")
    assert dict(Index.open(tmp_path / "copy", encoder).passages.items()) == dict(index.passages.items())


def test_a_writer_that_died_changed_nothing_and_leaves_its_batches(
    store, tmp_path, encoder, documents, make_document, monkeypatch
) -> None:
    monkeypatch.setattr(index_module, "APPROXIMATE_FROM", 300)
    monkeypatch.setattr(index_module, "BATCH", 100)
    with interrupted(encoder, monkeypatch, after=200):
        Index.open(tmp_path / "one", encoder, store=store).update(documents)
    index = Index.open(tmp_path / "other", encoder, store=store)
    index.update(documents)
    assert len(encoder.encoded) == len(set(encoder.encoded)) == 400

    changed = [*documents[1:], make_document("new.md", "zebra")]
    writer = Index.open(tmp_path / "one", encoder, store=store)
    with interrupted_before_record(type(writer._store), monkeypatch):
        writer.update(changed)
    writer._store._connection.close()  # as when its process ends
    assert "0.md#0" in names(index, "word0", 1, 0)
    assert index.update(changed) == Changes(added=1, removed=1)
    assert len(list(index.passages)) == 400


def test_a_server_that_cannot_be_used_is_one_line(store, tmp_path, encoder) -> None:
    nowhere = "postgresql://keeper:secret@127.0.0.1:9/x"
    for place, words in ((nowhere, "check the server"), (f"{store}x", "check the server")):
        with pytest.raises(RemoteError, match=words) as caught:
            Index.open(tmp_path, encoder, store=place)
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_server_without_pgvector_is_one_line(tmp_path, encoder) -> None:
    servers = server_of("", without="vector")
    server = next(servers)
    try:
        with pytest.raises(RemoteError, match="no pgvector; install it"):
            Index.open(tmp_path, encoder, store=f"{server}/postgres")
        with psycopg.connect(f"{server}/postgres") as connection:
            assert not connection.execute("SELECT 1 FROM pg_tables WHERE tablename LIKE 'trimtab%'").fetchall()
    finally:
        servers.close()
