"""Measures the index from a thousand passages to a million: building, memory, disk, search and recall.

    python benchmarks/million_passages.py run [COUNT …]     # → results/million_passages.json, one size after the other
    python benchmarks/million_passages.py embedding         # the rate of the embedding model, into the same file
    python benchmarks/million_passages.py indexes [COUNT]   # the kinds of approximate index that LanceDB has

Vectors are drawn, since embedding a million passages takes hours here: clusters of about a hundred unit vectors of 384
dimensions, passages of twenty words whose frequencies follow Zipf's law. Questions are vectors of the same clusters
and eight words of the same distribution. Each measurement is a process of its own, and one runs at a time: `build`
fills the index by `Index.update`, `search` opens it anew, measures what it finds beside the exact scan, and asks
questions one at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.base.files import write_json
from trimtab.base.machine import describe_machine, folder_bytes, versions
from trimtab.base.records import Document, Section
from trimtab.retrieval.index import Index
from trimtab.retrieval.search import hybrid_search

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "million_passages.json"
SIZES = (1_000, 10_000, 100_000, 1_000_000)
DIMENSIONS, WORDS, SECTIONS, VOCABULARY, CLUSTER, SPREAD = 384, 20, 20, 20_000, 100, 0.9
QUESTIONS = {"recall": 100, "search": 200}
SEARCHES = {"vectors": 1.0, "words": 0.0, "hybrid": 0.5}
Array = NDArray[np.float32]


class DrawnEncoder:
    """Draws the vector of a text: its cluster by the text's hash, and noise around the centre."""

    def __init__(self, count: int) -> None:
        self.digest = f"drawn {count}"
        self._centres = _unit(np.random.default_rng(0).normal(size=(max(10, count // CLUSTER), DIMENSIONS)))

    def encode(self, texts: Sequence[str]) -> Array:
        """Return unit vectors [N, D]."""
        hashes = np.array([zlib.crc32(text.encode()) for text in texts], dtype=np.uint32)
        noise = np.random.default_rng(hashes[:1]).normal(size=(len(texts), DIMENSIONS)) * SPREAD / DIMENSIONS**0.5
        return _unit(self._centres[hashes % len(self._centres)] + noise)

    encode_questions = encode


def _unit(vectors: NDArray[np.float64]) -> Array:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def draw_texts(count: int, words: int, seed: int) -> list[str]:
    """Draw texts of words whose frequencies follow Zipf's law."""
    shares = 1 / np.arange(1, VOCABULARY + 1)
    drawn = np.random.default_rng(seed).choice(VOCABULARY, size=(count, words), p=shares / shares.sum())
    return [" ".join(f"word{word}" for word in row) for row in drawn]


def draw_documents(count: int) -> list[Document]:
    """Draw documents of twenty sections, each of which is one passage."""
    documents = []
    for number in range(count // SECTIONS):
        texts = draw_texts(SECTIONS, WORDS, number)
        sections = tuple(Section(path=(f"Section {at}",), text=text) for at, text in enumerate(texts))
        documents.append(Document(id=f"{number}.md", title="", source="", sections=sections, digest=str(number)))
    return documents


def build(count: int, folder: Path) -> dict[str, Any]:
    """Fill an index with drawn passages, then change one document of it."""
    documents = draw_documents(count)
    index, before = Index.open(folder, DrawnEncoder(count)), peak_mb()
    seconds, processor, _ = timed(lambda: index.update(documents))
    filled = {"seconds": seconds, "processor_seconds": processor, "documents_mb": before, "peak_mb": peak_mb()}
    disk = folder_bytes(folder)
    changed = [*documents[1:], Document(**{**fields(documents[0]), "digest": "changed"})]
    seconds, processor, _ = timed(lambda: index.update(changed))
    return {**filled, "disk_mb": disk / 1e6, "change_seconds": seconds, "change_processor_seconds": processor}


def fields(document: Document) -> dict[str, Any]:
    """Return the fields of a document, with another text in its first section."""
    first = Section(path=("Section 0",), text=draw_texts(1, WORDS, 10**9)[0])
    named = {name: getattr(document, name) for name in ("id", "title", "source")}
    return {**named, "sections": (first, *document.sections[1:])}


def search(count: int, folder: Path) -> dict[str, Any]:
    """Open an index, measure its recall, and ask it questions."""
    before = peak_mb()
    seconds, _, index = timed(lambda: Index.open(folder, DrawnEncoder(count)))
    found: dict[str, Any] = {"passages": len(index.passages), "open_seconds": seconds}
    found |= {"before_mb": before, "open_mb": peak_mb()}
    questions = draw_texts(sum(QUESTIONS.values()), 8, 10**6)
    recall = index.measure_recall(questions[: QUESTIONS["recall"]])
    if recall is not None:
        params = recall.params and {"nprobes": recall.params.nprobes, "refine_factor": recall.params.refine_factor}
        figures = ("recall", "k", "seconds_p50", "seconds_p95", "exact_seconds_p50")
        found["approximate"] = {name: getattr(recall, name) for name in figures} | {"params": params}
    for name, weight in SEARCHES.items():
        each = []
        for question in questions[QUESTIONS["recall"] :]:
            start = time.perf_counter()
            hits = hybrid_search(index, [question], 10, vector_weight=weight)[0]
            each.append(time.perf_counter() - start)
            if len(hits) < 10:
                raise SystemExit(f"only {len(hits)} passages for {question!r}")
        found[name] = {"p50_ms": 1000 * float(np.median(each)), "p95_ms": 1000 * float(np.quantile(each, 0.95))}
    return {**found, "peak_mb": peak_mb()}


def embedding(_: int, folder: Path) -> dict[str, Any]:
    """Embed drawn texts with the product's model, in the product's batches."""
    from trimtab.model.catalog import resolve
    from trimtab.retrieval.embed import Embedder

    embedder = Embedder(resolve("minilm-l6", near=folder))
    embedder.encode(["load"])
    rates = {}
    for words, count in ((WORDS, 3_000), (120, 1_000)):
        texts = draw_texts(count, words, 7)
        seconds, processor, _ = timed(lambda texts=texts: embedder.encode(texts))
        rates[str(words)] = {"texts": count, "seconds": seconds, "processor_seconds": processor}
    return {"model": "minilm-l6", "by_words": rates, "load": os.getloadavg()[0]}


def indexes(count: int, folder: Path) -> dict[str, Any]:
    """Build each kind of approximate index, and search it with several parameters; processor time, since others work on
    this machine, too."""
    import lancedb
    import pyarrow as pa
    from lancedb.index import HnswSq, IvfPq, IvfRq, IvfSq

    encoder = DrawnEncoder(count)
    vectors, asked = encoder.encode(draw_texts(count, 8, 1)), encoder.encode(draw_texts(100, 8, 2))
    names = [str(number) for number in range(count)]
    values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIMENSIONS)
    rows = pa.table({"id": names, "vector": values})
    nearest = [[names[at] for at in np.argsort(-scores)[:10]] for scores in asked @ vectors.T]
    found: dict[str, Any] = {}
    for kind in (IvfRq, IvfSq, IvfPq, HnswSq):
        table = lancedb.connect(folder).create_table(kind.__name__, rows)
        seconds, processor, _ = timed(
            lambda table=table, kind=kind: table.create_index("vector", config=kind(distance_type="cosine"))
        )
        size = table.list_indices()[0].size_bytes / 1e6
        found[kind.__name__] = {"seconds": seconds, "processor_seconds": processor, "mb": size, "searches": []}
        for nprobes in (4, 8, 16, 32):
            for refine in (1, 2, 4):

                def ask(vector: Array, table: Any = table, nprobes: int = nprobes, refine: int = refine) -> list[str]:
                    query = table.search(vector).distance_type("cosine").limit(50).select(["id", "_distance"])
                    return query.nprobes(nprobes).refine_factor(refine).to_arrow()["id"].to_pylist()[:10]

                _, processor, answers = timed(lambda ask=ask: [ask(vector) for vector in asked])
                shares = [len({*one} & {*best}) / 10 for one, best in zip(answers, nearest, strict=True)]
                figures = {"nprobes": nprobes, "refine_factor": refine, "recall": float(np.mean(shares))}
                found[kind.__name__]["searches"].append({**figures, "processor_ms": 1000 * processor / len(asked)})
    return {"passages": count, "kinds": found}


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return the seconds of some work, the processor's seconds, and what it returns."""
    began, start = os.times(), time.perf_counter()
    found = work()
    ended = os.times()
    return time.perf_counter() - start, ended.user + ended.system - began.user - began.system, found


def peak_mb() -> float:
    """Return the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


STEPS: dict[str, Callable[[int, Path], dict[str, Any]]] = {
    "build": build,
    "search": search,
    "embedding": embedding,
    "indexes": indexes,
}


def measured(step: str, count: int, folder: Path) -> dict[str, Any]:
    """Run a step in a process of its own, and return what it measured."""
    words = [sys.executable, __file__, "step", step, str(count), str(folder)]
    output = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return {**found, "load": os.getloadavg()[0]}


def main() -> None:
    """Run the steps, and keep their figures as they come."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["run", "embedding", "indexes", "step"])
    parser.add_argument("rest", nargs="*")
    parser.add_argument("--folder", type=Path, help="where the indexes are built; default: a temporary folder")
    own = parser.parse_args()
    if own.what == "step":
        step, count, folder = own.rest
        print(json.dumps(STEPS[step](int(count), Path(folder))))
        return
    result = json.loads(RESULT.read_text()) if RESULT.is_file() else {"sizes": {}}
    result |= {"machine": describe_machine(), "versions": versions()}
    counts = [int(one) for one in own.rest] or ([100_000] if own.what == "indexes" else list(SIZES))
    for count in counts if own.what != "embedding" else [0]:
        folder = Path(tempfile.mkdtemp(dir=own.folder))
        try:
            if own.what == "run":
                figures = {"build": measured("build", count, folder), "search": measured("search", count, folder)}
                result["sizes"][str(count)] = figures
            else:
                result[own.what] = measured(own.what, count, folder)
        finally:
            shutil.rmtree(folder)
        write_json(RESULT, result)
        print(json.dumps(result["sizes"].get(str(count)) or result[own.what]), flush=True)


if __name__ == "__main__":
    main()
