"""An index whose tables are in object stores, by LanceDB against real servers on this machine; skipped where there is
none."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from forked import run
from interrupted import interrupted
from s3_server import KEYS, S3, STORES, below, s3_server, set_s3_variables

from trimtab.base.errors import InputError, RemoteError
from trimtab.retrieval import index as index_module
from trimtab.retrieval.index import Changes, Index
from trimtab.retrieval.search import hybrid_search

pytestmark = pytest.mark.slow

OPENS = "import sys; from trimtab.retrieval.lance import LanceStore; LanceStore(sys.argv[1], 'x').stamp()"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an S3 server that has the bucket `passages`."""
    with s3_server("passages") as address:
        yield address


@pytest.fixture
def s3_variables(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The surroundings that a user of S3 sets."""
    set_s3_variables(monkeypatch, server, tmp_path)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An address below the bucket, with what a user of S3 sets; an address below a named store."""
    if request.param != S3:
        return below(request.param)
    request.getfixturevalue("s3_variables")
    return f"s3://passages/{tmp_path.name}"


@pytest.fixture
def documents(make_document):
    return [make_document(f"{n}.md", f"word{n} of group{n % 7}, as number{n % 50} says") for n in range(400)]


def test_an_index_in_a_store_is_the_one_in_a_folder_for_every_machine_that_sees_it(
    store, tmp_path, encoder, documents
) -> None:
    documents = documents[:60]
    here = Index.open(tmp_path / "here", encoder)
    here.update(documents)
    one, other = (Index.open(tmp_path / name, encoder, store=store, owner="task") for name in ("one", "other"))
    assert one.update(documents) == Changes(added=60)
    assert not list((tmp_path / "one").glob("*.lance"))
    encoder.encoded.clear()
    assert not other.update(documents)
    questions = ["word7", "group3 number20", "nothing"]
    assert hybrid_search(other, questions, 9) == hybrid_search(here, questions, 9)
    assert other.update(documents[1:]) == Changes(removed=1)
    assert hybrid_search(one, ["word0"], 60) == hybrid_search(other, ["word0"], 60)
    assert "0.md#0" not in one.passages
    assert set(encoder.encoded) <= {*questions, "word0"}
    assert other.table.bytes > 0


def test_indexes_of_two_tasks_in_one_store_are_apart(store, tmp_path, encoder, documents) -> None:
    one, other = (Index.open(tmp_path / name, encoder, store=store, owner=name) for name in ("one", "other"))
    one.update(documents[:9])
    other.update(documents[20:25])
    one.refresh()
    assert (len(one.passages), len(other.passages)) == (9, 5)


def test_a_large_index_in_a_store_changes_and_is_copied(store, tmp_path, encoder, documents, monkeypatch) -> None:
    monkeypatch.setattr(index_module, "APPROXIMATE_FROM", 300)
    monkeypatch.setattr(index_module, "BATCH", 150)
    index = Index.open(tmp_path / "one", encoder, store=store, owner="task")
    index.update(documents)
    table = index.table.name
    assert index.measure_recall(["word7", "word8 of group1"]).recall >= 0.95
    assert index.update(documents[3:]) == Changes(removed=3)
    assert index.table.name == table
    assert len(list(index.passages)) == 397
    (tmp_path / "copy").mkdir()
    index.copy_to(tmp_path / "copy")
    copy = Index.open(tmp_path / "copy", encoder)
    encoder.encoded.clear()
    assert not copy.update(documents[3:])
    questions = ["word7 of group0", "number12"]
    assert hybrid_search(copy, questions, 5, vector_weight=0) == hybrid_search(index, questions, 5, vector_weight=0)


def test_a_writer_that_died_leaves_its_batches_to_the_next(store, tmp_path, encoder, documents, monkeypatch) -> None:
    monkeypatch.setattr(index_module, "BATCH", 100)
    with interrupted(encoder, monkeypatch, after=200):
        Index.open(tmp_path / "one", encoder, store=store).update(documents)
    Index.open(tmp_path / "other", encoder, store=store).update(documents)
    assert len(encoder.encoded) == len(set(encoder.encoded)) == 400


@pytest.mark.parametrize(
    ("place", "without", "endpoint", "words"),
    [
        ("s3://absent/folder", (), None, "there is no such bucket; create it"),
        ("s3://passages/x", KEYS, None, "no valid credentials are found; set AWS_ACCESS_KEY_ID"),
        ("s3://passages/x", (), "http://127.0.0.1:9", "cannot be reached; check the network"),
        ("ftp://passages/x", (), None, "is no address of an object store; name one as s3://"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_line(
    s3_variables, tmp_path, encoder, documents, monkeypatch, place, without, endpoint, words
) -> None:
    for name in without:
        monkeypatch.delenv(name)
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises((RemoteError, InputError)) as caught:
        Index.open(tmp_path, encoder, store=place).update(documents)
    assert str(caught.value).startswith(f"{place}: {words}")
    assert "\n" not in str(caught.value)


class _Forbids(BaseHTTPRequestHandler):
    """A store that refuses everything."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def forbidding() -> Iterator[str]:
    """Context manager: yields the address of such a store."""
    with HTTPServer(("127.0.0.1", 0), _Forbids) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_store_that_denies_access_is_told_as_such(s3_variables, tmp_path, encoder, monkeypatch) -> None:
    with forbidding() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(RemoteError, match="access is denied; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
            Index.open(tmp_path / "one", encoder, store="s3://passages/x")


def test_so_are_denied_access_and_a_lack_of_credentials_at_azure() -> None:
    """Each in a process of its own: LanceDB reads the variables of Azure once."""
    keys = "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"
    with forbidding() as address:
        given = {"AZURE_STORAGE_ACCOUNT_NAME": "anyone", "AZURE_STORAGE_ACCOUNT_KEY": "a2V5"}
        denied = told_at_azure(**given, AZURE_STORAGE_ENDPOINT=address)
    assert denied == f"access is denied; check {keys}, and that they may read and write there"
    assert told_at_azure() == f"no valid credentials are found; set {keys}"


def told_at_azure(**variables: str) -> str:
    """What a process with these variables of Azure alone is told."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AZURE")}
    words = [sys.executable, "-c", OPENS, "az://passages/x"]
    done = run(words, env={**environment, **variables})
    return done.stderr.splitlines()[-1].removeprefix("trimtab.base.errors.RemoteError: az://passages/x: ")
