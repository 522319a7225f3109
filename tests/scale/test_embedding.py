"""Passages embedded by processes of a Ray cluster: the index of one process, and no text twice, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from ray_nodes import SMALL
from study_tasks import CITIES, events, folder_of, rows_of, write_task

from trimtab.arms.retriever import load_embedder
from trimtab.base.errors import TrimtabError
from trimtab.base.files import sha256_text
from trimtab.base.records import Document, Section
from trimtab.retrieval import index as index_module
from trimtab.retrieval.embed import Encoder
from trimtab.retrieval.index import EmbedBatches, Index, SaveVectors
from trimtab.scale.cluster import Cluster
from trimtab.studies.study import study

pytest.importorskip("ray", reason="Ray is not installed: pip install 'trimtab[ray]'")
pytestmark = pytest.mark.cluster


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "BATCH", 128)
    monkeypatch.setattr(index_module, "PART", 32)


def documents_of(count: int) -> list[Document]:
    found = []
    for n in range(count):
        text = f"{CITIES[n % 10]} has {n} bridges over river {n * 7919 % 997}. {'Boats pass. ' * (n % 9)}"
        part = Section(path=(), text=text)
        found.append(Document(id=f"{n}.md", title="t", source=f"{n}.md", sections=(part,), digest=sha256_text(text)))
    return found


def logging_encoder(log: Path, seconds: float = 0.0) -> Callable[[], Encoder]:
    """A function that returns an encoder on any machine, which notes what it begins and ends.

    All of it is inside this function: processes of the cluster cannot import this file.
    """

    def load() -> Encoder:
        import hashlib
        import time

        class LoggingEncoder:
            digest = "logging"

            def encode(self, texts: Sequence[str]) -> Any:
                self._note("begin", texts)
                time.sleep(seconds if texts else 0.0)
                seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in texts]
                drawn = [np.random.default_rng(seed).normal(size=8) for seed in seeds]
                self._note("end", texts)
                return np.array(drawn, dtype=np.float32).reshape(-1, 8)

            def encode_questions(self, texts: Sequence[str]) -> Any:
                return self.encode(texts)

            def _note(self, what: str, texts: Sequence[str]) -> None:
                with log.open("a") as file:  # lines this short are appended whole
                    file.writelines(json.dumps([what, os.getpid(), text]) + "\n" for text in texts)

        return LoggingEncoder()

    return load


def lines_of(log: Path, what: str) -> list[tuple[int, str]]:
    read = [json.loads(line) for line in log.read_text().splitlines()]
    return [(pid, text) for kind, pid, text in read if kind == what]


def embedding_by(
    machines: Cluster, load: Callable[[], Encoder], digest: str, each: Callable[[int], None] = lambda _: None
) -> EmbedBatches:
    def embed(batches: Iterator[list[str]], _: int, keep: SaveVectors) -> None:
        assert machines.embed(load, digest, batches, keep, each) > 0

    return embed


def test_the_index_is_that_of_one_process(tmp_path: Path, tiny_embedding_folder: Path, machines: Cluster) -> None:
    from functools import partial

    documents, load = documents_of(300), partial(load_embedder, str(tiny_embedding_folder), tmp_path)
    right, own = (Index.open(tmp_path / name, load()) for name in ("plain", "cluster"))
    right.update(documents)
    told: list[int] = []
    assert own.embed_ahead(documents, embedding_by(machines, load, load().digest, told.append)) == 300
    assert told[-1] == 300
    own.update(documents)
    assert list(own.passages) == list(right.passages)
    names = list(right.passages)
    found, expected = own.vectors(names), right.vectors(names)
    assert np.abs(np.stack([found[one] - expected[one] for one in names])).max() < 1e-6


def test_only_machines_with_the_labels_embed(tmp_path: Path, nodes: Any, machines: Cluster) -> None:
    labelled, parents, log = nodes.add_node(**SMALL, labels={"zone": "eu"}), set[int](), tmp_path / "log"
    load = logging_encoder(log, 0.1)

    def look(_: int) -> None:
        parents.update(psutil.Process(pid).ppid() for pid, _ in lines_of(log, "begin"))

    chosen = Cluster(machines.ray, "auto", node_labels={"zone": "eu"})
    index = Index.open(tmp_path / "index", load())
    assert index.embed_ahead(documents_of(100), embedding_by(chosen, load, "logging", look)) == 100
    assert parents == {labelled.all_processes["raylet"][0].process.pid}
    nodes.remove_node(labelled)


def test_a_killed_process_costs_the_batch_that_it_was_at(tmp_path: Path, machines: Cluster) -> None:
    documents, log = documents_of(600), tmp_path / "log"
    load, killed = logging_encoder(log, 0.3), list[int]()

    def kill_one(done: int) -> None:
        for pid in {pid for pid, _ in lines_of(log, "begin")} if done >= 150 and not killed else ():
            os.kill(pid, signal.SIGSTOP)  # it begins and ends nothing while the log is read
            begun, ended = ([one for one, _ in lines_of(log, what)].count(pid) for what in ("begin", "end"))
            if begun > ended:
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)
                return
            os.kill(pid, signal.SIGCONT)

    index = Index.open(tmp_path / "index", load())
    index.embed_ahead(documents, embedding_by(machines, load, "logging", kill_one))
    assert killed
    begun = Counter(text for _, text in lines_of(log, "begin"))
    ended = Counter(text for _, text in lines_of(log, "end"))
    lost = {text for pid, text in lines_of(log, "begin") if pid == killed[0]} - {
        text for pid, text in lines_of(log, "end") if pid == killed[0]
    }
    assert 0 < len(lost) <= 32
    assert set(ended) == set(begun)
    assert len(ended) == 600
    assert set(ended.values()) == {1}
    assert {text for text, times in begun.items() if times > 1} == lost
    assert len({pid for pid, _ in lines_of(log, "begin")}) == 3  # two, and one in place of the lost


def test_what_was_cut_off_goes_on_with_what_lacks(tmp_path: Path, machines: Cluster) -> None:
    documents, log = documents_of(600), tmp_path / "log"
    load = logging_encoder(log, 0.1)

    def stop(done: int) -> None:
        if done >= 200:
            raise KeyboardInterrupt

    index = Index.open(tmp_path / "index", load())
    with pytest.raises(KeyboardInterrupt):
        index.embed_ahead(documents, embedding_by(machines, load, "logging", stop))
    lacking = set(index.texts_to_embed(documents))
    assert len(lacking) <= 400
    log.unlink()
    assert index.embed_ahead(documents, embedding_by(machines, load, "logging")) == len(lacking)
    assert {text for _, text in lines_of(log, "end")} == lacking
    log.unlink()
    index.update(documents)
    assert not log.read_text()


def test_a_model_that_is_missing_or_another_is_told(tmp_path: Path, machines: Cluster) -> None:
    from functools import partial

    index = Index.open(tmp_path / "index", logging_encoder(tmp_path / "log")())
    documents = documents_of(40)
    for load, digest, words in (
        (partial(load_embedder, "./gone", tmp_path), "any", r"machine \S+: .*gone"),
        (logging_encoder(tmp_path / "log"), "another", r"machine \S+: .*is not the one of the machine where"),
    ):
        with pytest.raises(TrimtabError, match=words) as caught:
            index.embed_ahead(documents, embedding_by(machines, load, digest))
        assert "\n" not in str(caught.value)


def test_a_study_embeds_its_documents_on_all_machines_first(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path, machines: Cluster, monkeypatch: Any
) -> None:
    monkeypatch.setattr("trimtab.studies.study.MANY_PASSAGES", 2)
    tasks = []
    for name in ("plain", "cluster"):
        folder = tmp_path / name
        (folder / "documents").mkdir(parents=True)
        for number, city in enumerate(CITIES * 8):
            text = f"# {city} {number}\nThe bridge of {city} has the number {number * 7919 % 9973}.\n"
            (folder / "documents" / f"{number}.md").write_text(text)
        base, data = f'embedding = "{tiny_embedding_folder}"', 'documents = ["documents/"]'
        tasks.append(write_task(folder, tiny_model_folder, ["rag"], rows=rows_of(40), data=data, base=base))
    plain, own = study(tasks[0], listeners=[]), study(tasks[1], machines=machines, listeners=[])
    assert [(arm.status, arm.score) for arm in own.arms] == [(arm.status, arm.score) for arm in plain.arms]
    found = events(folder_of(tasks[1]))
    assert [event["note"] for event in found if "embedding" in event.get("note", "")] == ["embedding 80 passages first"]
    steps = [event["step"] for event in found if event["stage"] == "index" and event["of"] == 80]
    assert steps == sorted(steps)
    assert steps[-1] == 80
    folder = tasks[1].parent / ".trimtab" / "index"
    assert not list(folder.glob("embedded*"))
    assert len(list(folder.glob("*.lance"))) == 1
