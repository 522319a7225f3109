"""An index of more passages than are scanned one by one: with the limit lowered, the same code at a test's size."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from forked import Forked
from interrupted import interrupted_before_record

from trimtab.base.errors import BusyError
from trimtab.base.records import Document
from trimtab.retrieval import index as index_module
from trimtab.retrieval.embed import embedded_text
from trimtab.retrieval.index import Changes, Index
from trimtab.retrieval.lance import LanceStore
from trimtab.retrieval.recall import LEAST_RECALL, best_of
from trimtab.retrieval.search import candidates, hybrid_search
from trimtab.retrieval.tables import Recall, SearchParams, State

LIMIT, COUNT = 300, 600
QUESTIONS = [f"word{n} of group{n % 7} and kind{n % 11}" for n in range(40)]


@pytest.fixture
def documents(make_document: Callable[..., Document]) -> list[Document]:
    return [
        make_document(f"{n}.md", f"word{n} of group{n % 7} and kind{n % 11}, as number{n % 50} says")
        for n in range(COUNT)
    ]


@pytest.fixture(autouse=True)
def _limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "APPROXIMATE_FROM", LIMIT)
    monkeypatch.setattr(index_module, "BATCH", 100)


@pytest.fixture
def index(tmp_path: Path, encoder, documents) -> Index:
    index = Index.open(tmp_path, encoder)
    index.update(documents)
    return index


def names(index: Index, question: str, k: int = 10, weight: float = 0.5) -> list[str]:
    return [hit.passage.id for hit in hybrid_search(index, [question], k, vector_weight=weight)[0]]


def brute_force(index: Index, question: str) -> dict[str, float]:
    """The cosine distance of every passage, without LanceDB."""
    ids = list(index.passages)
    vectors = index.vectors(ids)
    (asked,) = index.encoder.encode_questions([question])
    return {name: float(1 - vectors[name] @ asked) for name in ids}


def table_of(index: Index) -> str:
    assert index.table is not None
    return index.table.name


def test_the_vectors_get_an_approximate_index_from_the_limit_on(tmp_path, encoder, documents) -> None:
    for count in (LIMIT - 1, LIMIT):
        index = Index.open(tmp_path / str(count), encoder)
        index.update(documents[:count])
        kinds = {one.index_type for one in index.table._table.list_indices()}
        assert ("FTS" in kinds, any("Ivf" in kind for kind in kinds)) == (True, count >= LIMIT)
        assert index.is_approximate == (count >= LIMIT)


def test_a_smaller_index_finds_exactly_the_nearest(tmp_path, encoder, documents) -> None:
    index = Index.open(tmp_path, encoder)
    index.update(documents[: LIMIT - 1])
    for question in QUESTIONS:
        distances = brute_force(index, question)
        (found,) = index.nearest(encoder.encode_questions([question]), 20)
        worst = max(distance for distance, _ in found)
        assert worst == pytest.approx(sorted(distances.values())[19], abs=1e-5)
    assert index.measure_recall(QUESTIONS) is None


def test_the_passages_are_those_of_an_index_in_memory(index, tmp_path, encoder, documents, monkeypatch) -> None:
    monkeypatch.setattr(index_module, "APPROXIMATE_FROM", COUNT + 1)
    plain = Index.open(tmp_path / "plain", encoder)
    plain.update(documents)
    assert dict(index.passages.items()) == plain.passages
    assert sorted(one.id for one in index.passages.values()) == sorted(plain.passages)
    assert "5.md#0" in index.passages
    assert "no such" not in index.passages
    assert index.in_documents(["5.md", "7.md"]) == plain.in_documents(["5.md", "7.md"])
    assert names(index, "word17", weight=0) == names(plain, "word17", weight=0)
    assert candidates(index, ["word17"], 5)[0].keys() & {"17.md#0"}


def test_the_recall_that_is_told_is_the_share_of_the_nearest_that_a_scan_finds(index, tmp_path, encoder) -> None:
    told = index.measure_recall(QUESTIONS)
    assert told.recall >= LEAST_RECALL
    shares = []
    for question in QUESTIONS:
        distances = brute_force(index, question)
        (found,) = index.nearest(encoder.encode_questions([question]), 50)
        tenth = sorted(distances.values())[9] + 1e-5  # several may be as far as the tenth
        shares.append(np.mean([distances[name] <= tenth for _, name in sorted(found)[:10]]))
    assert told.recall <= np.mean(shares) + 1e-9
    assert (told.k, told.questions) == (10, len(QUESTIONS))
    assert Index.open(tmp_path, encoder).recall == index.recall == told


def measured(nprobes: int, recall: float, seconds: float) -> Recall:
    params = SearchParams(nprobes=nprobes) if nprobes else None
    each = {"seconds_p50": seconds, "seconds_p95": 2 * seconds, "exact_seconds_p50": 1.0}
    return Recall(params=params, recall=recall, k=10, questions=9, **each)


def test_the_fastest_with_enough_recall_is_chosen_or_the_best_within_the_limit() -> None:
    ladder = [measured(1, 0.8, 0.01), measured(2, 0.96, 0.02), measured(3, 0.99, 0.03), measured(0, 1.0, 0.5)]
    assert best_of(ladder, None) == ladder[1]
    assert best_of([ladder[0], ladder[3]], None) == ladder[3]
    assert best_of(ladder, 0.06) == ladder[2]
    assert best_of(ladder, 0.02) == ladder[0]
    assert best_of(ladder, 0.001) == ladder[0]
    assert best_of(ladder, 9.0) == ladder[3]


def test_rows_that_the_indexes_do_not_hold_are_found(index, encoder, documents, make_document) -> None:
    before = table_of(index)
    encoder.encoded.clear()
    new = make_document("new.md", "zebra of group3 lives here")
    edited = make_document("8.md", "giraffe instead of everything")
    assert index.update([*documents[:8], edited, *documents[10:], new]) == Changes(added=1, changed=1, removed=1)
    assert table_of(index) == before
    assert len(encoder.encoded) == 2
    unheld = [one.num_unindexed_rows for one in index.table._table.list_indices() if "vector" in one.columns]
    assert unheld == [2]
    for weight in (0, 0.5, 1):
        assert names(index, embedded_text(index.passages["new.md#0"]), 1, weight) == ["new.md#0"]
        assert names(index, embedded_text(index.passages["8.md#0"]), 1, weight) == ["8.md#0"]
    assert names(index, "zebra", 1, 0) == ["new.md#0"]
    assert "9.md#0" not in names(index, "word9 of group2 and kind9", 50)
    assert len(index.passages) == COUNT
    assert len(set(index.passages)) == COUNT


def test_the_indexes_are_built_anew_when_too_many_rows_drifted(index, encoder, documents, make_document) -> None:
    tables = [table_of(index)]
    for step in range(5):
        documents = [make_document(f"{step}-{n}.md", f"fresh{step} text{n}") for n in range(5)] + documents[5:]
        index.update(documents)
        tables.append(table_of(index))
        assert names(index, f"fresh{step} text3", 1) == [f"{step}-3.md#0"]
        assert len(index.passages) == COUNT
    most = index_module.DRIFT * COUNT  # each step adds five rows and removes five
    assert [one == tables[0] for one in tables] == [10 * step <= most for step in range(6)]
    assert all(one.num_unindexed_rows < most for one in index.table._table.list_indices())


def test_a_crash_while_rows_are_changed_leaves_the_old_state(
    index, tmp_path, encoder, documents, make_document, monkeypatch
) -> None:
    changed = [*documents[1:], make_document("new.md", "zebra of group3")]

    with interrupted_before_record(LanceStore, monkeypatch):
        index.update(changed)
    again = Index.open(tmp_path, encoder)
    assert names(again, "word0 of group0 and kind0", 1) == ["0.md#0"]
    assert "zebra" not in names(again, "zebra", 1)[0]
    encoder.encoded.clear()
    assert again.update(changed) == Changes(added=1, removed=1)
    assert "zebra of group3" not in " ".join(encoder.encoded)
    assert names(again, "zebra", 1) == ["new.md#0"]
    assert len(list(again.passages)) == COUNT


def test_another_writer_at_the_same_time_is_noticed(index, encoder, documents, make_document, monkeypatch) -> None:
    latest = LanceStore.latest

    def and_another_writes(self: LanceStore, name: str):
        table = latest(self, name)
        if name == table_of(index):
            table.add(index.table.select(["id", *table._table.schema.names[1:]]).slice(5, 1))
        return table

    changed = [*documents[1:], make_document("new.md", "zebra")]
    with monkeypatch.context() as patch:
        patch.setattr(LanceStore, "latest", and_another_writes)
        patch.setattr(type(index.table), "restore", lambda *_: None)
        with pytest.raises(BusyError, match="at the same time"):
            index.update(changed)
    index.update(changed)
    assert len(list(index.passages)) == COUNT


def test_a_reader_that_stays_reads_its_version_while_rows_change(
    index, tmp_path, encoder, documents, make_document, monkeypatch
) -> None:
    monkeypatch.setattr(index_module, "OLD_VERSIONS", timedelta(milliseconds=1))
    index.pin_version()
    other = Index.open(tmp_path, encoder)
    other.update([*documents[1:], make_document("new.md", "zebra")])
    assert names(index, "word0 of group0 and kind0", 1) == ["0.md#0"]
    assert names(other, "zebra", 1) == ["new.md#0"]
    third = Index.open(tmp_path, encoder)
    third.update(documents[:LIMIT])  # a table of its own
    assert names(index, "word0 of group0 and kind0", 1) == ["0.md#0"]
    assert names(other, "word1 of group1 and kind1", 1) == ["1.md#0"]


def test_a_copy_answers_as_the_index(index, tmp_path, encoder, documents) -> None:
    index.measure_recall(QUESTIONS)
    (tmp_path / "copy").mkdir()
    index.copy_to(tmp_path / "copy")
    copy = Index.open(tmp_path / "copy", encoder)
    assert not copy.update(documents)
    assert copy.recall == index.recall
    assert hybrid_search(copy, QUESTIONS, 10) == hybrid_search(index, QUESTIONS, 10)


@pytest.mark.parametrize("value", [None, [], "x", {}, {"table": 3}, {"recall": {"params": 4}}])
def test_a_record_that_is_none_is_no_state(value: object) -> None:
    whole = {"table": "t", "version": 1, "digests": {}, "files": {}, "superseded": {}, "drifted": 0}
    whole |= {"embedding_seconds": 0.0, "seconds": 0.0, "recall": None}
    assert State.parse(whole) is not None
    assert State.parse({**whole, **value} if isinstance(value, dict) and value else value) is None


# ---- a process that is killed

EMBEDS = """
    import hashlib, sys, time
    from pathlib import Path
    import numpy as np
    from trimtab.base.files import sha256_text
    from trimtab.base.records import Document, Section
    from trimtab.retrieval import index as module
    from trimtab.retrieval.index import Index

    module.BATCH, module.APPROXIMATE_FROM = 50, 300
    log = open(sys.argv[2], "a")

    class Encoder:
        digest = "logging"
        def encode(self, texts):
            for text in texts:
                print(text.split()[-1], file=log, flush=True)
            if texts:
                time.sleep(float(sys.argv[3]))
            seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in texts]
            drawn = [np.random.default_rng(seed).normal(size=16) for seed in seeds]
            return np.array([one / np.linalg.norm(one) for one in drawn], dtype=np.float32).reshape(len(texts), 16)
        encode_questions = encode

    def document(n):
        text = f"passage number{n % 350}"  # some texts stand in several documents
        sections, digest = (Section(path=(), text=text),), sha256_text(text)
        return Document(id=f"{n}.md", title="", source="", sections=sections, digest=digest)

    index = Index.open(Path(sys.argv[1]), Encoder())
    print(index.update([document(n) for n in range(400)]), len(index.passages), len(set(index.passages)))
"""


def embeds(folder: Path, log: Path, seconds: float) -> Forked:
    words = [sys.executable, "-c", textwrap.dedent(EMBEDS), str(folder), str(log), str(seconds)]
    return Forked(words, stdout=subprocess.PIPE)


def encoded(log: Path) -> list[str]:
    return log.read_text().split() if log.is_file() else []


@pytest.mark.slow
def test_after_kill_9_only_the_batch_that_was_lost_is_embedded_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    kills = 0
    for batches in (2, 5):
        process = embeds(tmp_path / "index", log, 0.3)
        until = time.monotonic() + 120
        while len(encoded(log)) < 50 * batches and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills == 2
    output, _ = embeds(tmp_path / "index", log, 0).communicate(timeout=120)
    assert output.strip() == "Changes(added=400, changed=0, removed=0) 400 400"
    counts = [encoded(log).count(f"number{n}") for n in range(350)]
    assert min(counts) == 1
    assert sum(counts) - 350 <= 50 * kills
    assert encoded(log)[:50] == [f"number{n}" for n in range(50)]
    assert counts[:50] == [1] * 50


def test_texts_of_a_table_that_was_not_completed_are_not_embedded_again_for_other_documents(
    tmp_path, encoder, documents, monkeypatch
) -> None:
    calls: list[int] = []
    encode = encoder.encode

    def stops(texts: Sequence[str]) -> np.ndarray:
        if texts and len(calls) == 3:
            raise KeyboardInterrupt
        calls.extend([len(texts)] if texts else [])
        return encode(texts)

    with monkeypatch.context() as patch:
        patch.setattr(encoder, "encode", stops)
        with pytest.raises(KeyboardInterrupt):
            Index.open(tmp_path, encoder).update(documents)
    assert calls == [100, 100, 100]
    assert len(Index.open(tmp_path, encoder).texts_to_embed(documents)) == COUNT - 300
    encoder.encoded.clear()
    index = Index.open(tmp_path, encoder)
    index.update(documents[50:])
    assert len(encoder.encoded) == COUNT - 300
    assert len(list(index.passages)) == COUNT - 50
