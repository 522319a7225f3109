"""Retriever: the indexes over a task's documents, each opened once, and the passages found for each question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab.arms.workspace import Workspace
from trimtab.base.grammar import SENTENCE
from trimtab.base.machine import folder_bytes
from trimtab.base.records import Document, Example, Hit, Passage
from trimtab.model.catalog import resolve
from trimtab.retrieval.chunk import WORDS
from trimtab.retrieval.embed import Embedder
from trimtab.retrieval.extract import Extractor, in_context
from trimtab.retrieval.index import EmbedBatches, Index
from trimtab.retrieval.rerank import Reranker
from trimtab.retrieval.search import hybrid_search

MOST_PASSAGES = 64  # the most passages that an arm may use
MOST_CACHED = 20_000  # questions beyond which the cached retrievals, some 8 kB each, are forgotten
RECALL_QUESTIONS = 100  # dev questions on which an approximate index is compared with the exact scan
LATENCY_SHARE = 0.1  # of the limit on an answer's latency, for one search of the vectors


class Retriever:
    """Search over the documents of a workspace; models and indexes are loaded when first needed."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace, self._documents = workspace, workspace.documents
        self._task, self._folder = workspace.task, workspace.folder
        self._hits: dict[tuple[int, float, bool, str], tuple[Hit, ...]] = {}
        self._indexes: dict[int, Index] = {}
        self._extractor: Extractor | None = None
        self._vectors: dict[str, NDArray[np.float32]] = {}
        self.patience = 0.0  # seconds to wait for another process that builds the same index

    @cached_property
    def embedder(self) -> Embedder:
        """Return the embedding model."""
        return load_embedder(self._task.base.embedding, self._task.folder)

    @cached_property
    def reranker(self) -> Reranker | None:
        """Return the reranker, None if the task names none."""
        name = self._task.base.reranker
        return Reranker(resolve(name, near=self._task.folder)) if name else None

    def index_of(self, chunk_words: int = WORDS) -> Index:
        """Return the index over passages of about `chunk_words` words, built or updated at its first use."""
        if chunk_words not in self._indexes:
            index = self._opened_index(chunk_words, self.embedder)
            index.update(self._documents, seconds=self.patience)
            self._measure_recall(index)
            self._indexes[chunk_words] = index
        return self._indexes[chunk_words]

    @property
    def opened_indexes(self) -> Mapping[int, Index]:
        """Return the indexes that were used, by words of a passage."""
        return self._indexes

    def index_folder(self, chunk_words: int = WORDS) -> Path:
        """Return the folder of the index over passages of about `chunk_words` words."""
        return self._folder / ("index" if chunk_words == WORDS else f"index-{chunk_words}")

    def build_indexes(self, documents: tuple[Document, ...]) -> dict[int, Index]:
        """Return indexes over other documents, one for each in use, by words of a passage; for `set_documents`.

        Thread-safe: the indexes in use go on answering, and an embedding model of its own is used.
        """
        in_use = list(self._indexes.items())
        if not in_use:
            return {}
        found, embedder = {}, Embedder(self.embedder.folder)
        for words, index in in_use:
            index.pin_version()
            found[words] = self._opened_index(words, embedder)
            found[words].update(documents)
            self._measure_recall(found[words])
            found[words].pin_version()
            found[words].encoder = self.embedder
        return found

    def set_documents(self, documents: tuple[Document, ...], indexes: Mapping[int, Index]) -> None:
        """Switch to these documents and their indexes; cached retrievals are forgotten."""
        self._documents = documents
        for words, index in self._indexes.items():
            if words not in indexes:  # built after the others were indexed
                index.update(documents)
        self._indexes.update(indexes)
        self.forget_hits()

    def embed_ahead(self, chunk_words: int, embed: EmbedBatches, *, least: int, seconds: float) -> int:
        """Embed by `embed` the texts that an index lacks, for when it is built (`Index.embed_ahead`)."""
        index = self._opened_index(chunk_words, self.embedder)
        return index.embed_ahead(self._documents, embed, least=least, seconds=seconds)

    def _opened_index(self, chunk_words: int, embedder: Embedder) -> Index:
        folder, store = self.index_folder(chunk_words), self._task.retrieval.store
        return Index.open(folder, embedder, words=chunk_words, store=store, owner=self._task.task.name)

    def _measure_recall(self, index: Index) -> None:
        """Let dev questions choose how an approximate index is searched, once for each that is built."""
        if index.is_approximate and index.recall is None:
            limit = self._task.target.latency_p95_ms
            most_seconds = None if limit is None else limit / 1000 * LATENCY_SHARE
            questions = [row.input for row in self._workspace.subset("dev", RECALL_QUESTIONS)]
            index.measure_recall(questions, most_seconds=most_seconds)

    def index_bytes(self, chunk_words: int = WORDS) -> int:
        """Return the size of the index over passages of about `chunk_words` words, wherever it is kept."""
        table = self.index_of(chunk_words).table
        if self._task.retrieval.store:
            return table.bytes if table else 0
        return folder_bytes(self.index_folder(chunk_words))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors [N, D] of texts that are compared with each other; each text is embedded once.

        To measure the seconds of embedding, use the embedder.
        """
        new = list(dict.fromkeys(text for text in texts if text not in self._vectors))
        vectors = self.embedder.encode(new)
        self._vectors.update(zip(new, vectors, strict=True))
        return np.stack([self._vectors[text] for text in texts]) if texts else vectors

    def hits(
        self,
        examples: Sequence[Example],
        *,
        chunk_words: int = WORDS,
        vector_weight: float | None = None,
        rerank: bool = False,
    ) -> list[tuple[Hit, ...]]:
        """Return the best passages of each question, cached by text and settings.

        `chunk_words`: about the words of a passage. `vector_weight`: the weight of the vector search against the
        word search, 0 to 1; None for the task's. `rerank`: reorder the best with the task's reranker.
        """
        weight = self._task.retrieval.vector_weight if vector_weight is None else vector_weight
        asked = [(chunk_words, weight, rerank, example.input) for example in examples]
        known = {key: hits for key in asked if (hits := self._hits.get(key)) is not None}
        new = [key for key in dict.fromkeys(asked) if key not in known]
        questions, index = [question for *_, question in new], self.index_of(chunk_words)
        found = hybrid_search(index, questions, MOST_PASSAGES, vector_weight=weight)
        if rerank and self.reranker is not None:
            found = [self.reranker.rerank(question, hits) for question, hits in zip(questions, found, strict=True)]
        known.update(zip(new, found, strict=True))
        if len(self._hits) > MOST_CACHED:
            self._hits.clear()
        self._hits.update(known)
        return [known[key] for key in asked]

    def extract_sentences(self, examples: Sequence[Example], k: int) -> list[tuple[Hit, ...]]:
        """Return the `k` sentences of the documents that most likely answer each question, best first."""
        index = self.index_of(SENTENCE)
        if self._extractor is None or self._extractor.index is not index:
            self._extractor = Extractor(index)
        return self._extractor.best([example.input for example in examples], k)

    def in_context(self, sentence: Passage) -> str:
        """Return a sentence that `extract_sentences` found, with those beside it."""
        return in_context(self.index_of(SENTENCE).passages, sentence)

    def forget_hits(self) -> None:
        """Clear the cached retrievals, so that the next question pays for its own."""
        self._hits.clear()

    def texts_to_embed(self, chunk_words: int = WORDS) -> list[str]:
        """Return the texts that an update of the index would embed."""
        return self._opened_index(chunk_words, self.embedder).texts_to_embed(self._documents)


def load_embedder(name: str, folder: Path) -> Embedder:
    """Return the embedding model of this name; a path is relative to `folder`. Raises MissingError if there is none."""
    return Embedder(resolve(name, near=folder))
