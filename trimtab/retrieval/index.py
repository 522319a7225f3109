"""The index of a task's documents: passages with vectors and full-text search, updated by document digests.

Up to APPROXIMATE_FROM passages every update rewrites the table, the vector search scans it exactly, and the passages
are held in memory. From there on the vectors have an approximate index, the passages stay in the table, and an update
adds and removes rows, until DRIFT of them are not those that the index was built of; it is then built anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, ValuesView
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trimtab.base.errors import BusyError, InputError
from trimtab.base.files import locked, sha256_text
from trimtab.base.plugins import plugin, plugin_names
from trimtab.base.records import Document, Passage
from trimtab.retrieval.chunk import WORDS, chunk_document, default_overlap
from trimtab.retrieval.embed import Encoder, embedded_text
from trimtab.retrieval.lance import LanceStore
from trimtab.retrieval.recall import choose_params
from trimtab.retrieval.tables import (
    COLUMNS,
    PASSAGE_COLUMNS,
    Found,
    PassageStore,
    PassageTable,
    Recall,
    SearchParams,
    State,
)
from trimtab.retrieval.vector_parts import VectorParts

if TYPE_CHECKING:
    import pyarrow as pa

LAYOUT_VERSION = 6  # in the names of tables: increased whenever columns, chunking or embedding change
APPROXIMATE_FROM = 100_000  # passages; an exact scan of as many vectors takes about 50 ms
DRIFT = 0.05  # share of the rows that may be added or removed before the indexes are built anew; added ones are scanned
BATCH = 4096  # passages that are embedded and written at a time; a killed process loses at most one batch
PART = 256  # texts of a batch for one process, if several processes embed
OLD_VERSIONS = timedelta(hours=1)
_CACHED = 20_000  # passages of a table that are held in memory

SaveVectors = Callable[[Sequence[str], NDArray[np.float32], float], None]
EmbedBatches = Callable[[Iterator[list[str]], int, SaveVectors], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The number of documents that an update added, replaced and removed."""

    added: int = 0
    changed: int = 0
    removed: int = 0

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


class Index:
    """Passages with their vectors, as one version of a table.

    There is one table for each embedding and chunking, so other settings never meet the wrong vectors; their tables
    stay, and going back costs nothing. A record beside the tables names the complete version and the hashes of its
    files; it is replaced last, so readers see the old state or the new one. A damaged table counts as missing, and the
    next `update` rebuilds it.

    `seconds`: the time for building the whole table, measured when its texts were embedded and its rows written; 0
    before that. `recall`: what the approximate index finds, after `measure_recall`; None before, and for a smaller
    index, which is exact.
    """

    def __init__(self, folder: Path, encoder: Encoder, *, words: int, overlap: int, store: str, owner: str) -> None:
        self.folder, self.encoder, self.words, self.overlap = folder, encoder, words, overlap
        settings = sha256_text(
            str(LAYOUT_VERSION), encoder.digest, str(words), str(overlap), *([owner] if store else [])
        )
        self._name = f"passages_{settings[:16]}"
        self._store = open_store(store or str(folder), self._name)
        self._ahead = VectorParts(folder / f"embedded_{sha256_text(str(LAYOUT_VERSION), encoder.digest)[:16]}")
        self._stamp: object = None
        self._state: State | None = None
        self._is_pinned = False
        self._params: SearchParams | None = None
        self.table: PassageTable | None = None
        self.passages: Mapping[str, Passage] = {}
        self.refresh()

    @classmethod
    def open(
        cls,
        folder: Path,
        embedder: Encoder,
        *,
        words: int = WORDS,
        overlap: int | None = None,
        store: str = "",
        owner: str = "",
    ) -> Index:
        """Open the index in `folder`; it is empty if none was built with this embedding and these settings of
        `chunk_document`.

        `store`: an address that holds the tables instead, such as `s3://BUCKET/FOLDER` or
        `postgresql://USER@HOST/DATABASE`; indexes of other owners there are apart, and `folder` has only the lock of
        this machine. Raises InputError for an address of no store, RemoteError for one that cannot be reached, or used.
        """
        overlap = default_overlap(words) if overlap is None else overlap
        return cls(folder, embedder, words=words, overlap=overlap, store=store, owner=owner)

    @property
    def seconds(self) -> float:
        """Return the time for building the whole table, measured when its rows were written; 0 before that."""
        return self._state.seconds if self._state else 0.0

    @property
    def recall(self) -> Recall | None:
        """Return what the approximate index finds, after `measure_recall`; None before, and for an exact index."""
        return self._state.recall if self._state else None

    @property
    def is_approximate(self) -> bool:
        """True if the vectors have an approximate index."""
        return len(self.passages) >= APPROXIMATE_FROM

    def update(self, documents: Sequence[Document], *, seconds: float = 0.0) -> Changes:
        """Make the index hold exactly `documents`; only changed digests cause work, and only new texts are embedded,
        also after a crash. `seconds`: how long to wait for another process that updates it.

        Raises BusyError while another process updates it, InputError if two documents have one id.
        """
        wanted = {document.id: document.digest for document in documents}
        if len(wanted) < len(documents):
            raise InputError("two documents have one id", "list every document once", field="data.documents")
        self.refresh()
        if not _diff_digests(self._digests, wanted):
            return Changes()
        with locked(self.folder, seconds):
            self.refresh()  # another process may have done it meanwhile
            changes = _diff_digests(self._digests, wanted)
            if changes:
                self._remove_old_tables()
                self._write(documents, wanted)
                self.refresh()
        return changes

    def copy_to(self, folder: Path) -> None:
        """Copy this version into `folder`, where the same settings open it without a store."""
        if self.table is None or self._state is None:
            return
        copy = Index.open(folder, self.encoder, words=self.words, overlap=self.overlap)
        state = replace(self._state, table=f"{copy._name}_copy", superseded={})
        if not self._store.copy(self._state, folder, state.table):
            table: PassageTable | None = None
            for rows in self.table.batches(COLUMNS):
                table = copy._added(state.table, table, rows)
            table = table or copy._store.create(state.table, self.table.select(COLUMNS))
            table.finish(approximate=self.is_approximate)
            state = replace(state, version=table.version, drifted=0)
        copy._store.write(replace(state, files=copy._store.files(state.table)))
        copy._store.note_unfinished(None)

    def texts_to_embed(self, documents: Sequence[Document]) -> list[str]:
        """Return the texts that an update to `documents` would embed, each once."""
        return list(self._texts_to_embed(documents))

    def _texts_to_embed(self, documents: Sequence[Document]) -> Iterator[str]:
        if not _diff_digests(self._digests, {document.id: document.digest for document in documents}):
            return
        sources = [table for table in (self.table, self._store.unfinished()) if table is not None]
        held = {digest for table in sources for digest in table.select(["digest"])["digest"].to_pylist()}
        held.update(self._ahead.digests())
        for passage in self._chunk_documents(documents):
            text = embedded_text(passage)
            digest = _text_digest(text)
            if digest not in held:
                held.add(digest)
                yield text

    def embed_ahead(
        self, documents: Sequence[Document], embed: EmbedBatches, *, least: int = 1, seconds: float = 0.0
    ) -> int:
        """Embed by `embed` the texts that an update to `documents` would embed, and keep their vectors on disk for that
        update. Return the number of texts; 0, with nothing embedded, if there are fewer than `least`.

        `embed` gets batches of at most PART texts of similar length, the number of all texts, and a function that it
        calls for each batch, in any order, with the texts, their vectors [N, D] and the seconds of embedding.
        `seconds`: as in `update`. Raises BusyError while another process updates the index.
        """
        with locked(self.folder, seconds):
            self.refresh()
            count = sum(1 for _ in self._texts_to_embed(documents))
            if count < least:
                return 0
            embed(self._parts_to_embed(documents), count, self._save_vectors)
        return count

    def _parts_to_embed(self, documents: Sequence[Document]) -> Iterator[list[str]]:
        """Yield the texts to embed in batches of PART, each sorted by length among BATCH texts."""
        texts = self._texts_to_embed(documents)
        while batch := sorted(islice(texts, BATCH), key=len, reverse=True):
            for start in range(0, len(batch), PART):
                yield batch[start : start + PART]

    def _save_vectors(self, texts: Sequence[str], vectors: NDArray[np.float32], seconds: float) -> None:
        """Write the vectors of a batch; its seconds are divided among the texts by their length."""
        each = seconds / max(1, sum(map(len, texts)))
        self._ahead.write([_text_digest(text) for text in texts], vectors, [each * len(text) for text in texts])

    def vectors(self, names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the vectors [D] of the passages with these ids, in the open version."""
        if not names or self.table is None:
            return {}
        rows = self.table.select(["id", "vector"], "id", names)
        return dict(zip(rows["id"].to_pylist(), _vectors_of(rows), strict=True))

    def nearest(self, vectors: NDArray[np.float32], depth: int) -> list[Found]:
        """Return, for each vector [Q, D], about the `depth` nearest passages with their cosine distances, in no
        order."""
        return self.table.nearest(vectors, depth, self._params) if self.table else [[] for _ in vectors]

    def matching(self, question: str, depth: int) -> Found:
        """Return the `depth` passages that match a question's words best, with their scores, in no order."""
        return self.table.matching(question, depth) if self.table else []

    def load(self, names: Iterable[str]) -> None:
        """Read passages of a table that is not held in memory, so that `passages` has them at once."""
        if isinstance(self.passages, StoredPassages):
            self.passages.load(names)

    @property
    def documents(self) -> Collection[str]:
        """The ids of the documents."""
        return self._digests.keys()

    def in_documents(self, documents: Collection[str]) -> list[Passage]:
        """Return the passages of the documents with these ids."""
        if isinstance(self.passages, StoredPassages) and self.table is not None:
            return list(_passages_of(self.table.select(PASSAGE_COLUMNS, "document", list(documents))))
        wanted = set(documents)
        return [passage for passage in self.passages.values() if passage.document in wanted]

    def pin_version(self) -> None:
        """Stay on the present version: `refresh` does nothing from now on. The next `update`, by another Index, keeps
        its files."""
        self._is_pinned = True

    def refresh(self) -> None:
        """Open the newest complete version; cheap if there is none newer."""
        if self._is_pinned:
            return
        stamp = self._store.stamp()
        if stamp is not None and stamp == self._stamp:
            return
        state = self._store.read()
        if state is None:
            return
        self._stamp = stamp
        if self._state is None or (state.table, state.version) != (self._state.table, self._state.version):
            self._open_table(state)
        if self.table is not None:
            self._state = state
            self._params = self._selected_params()

    def _open_table(self, state: State) -> None:
        self.table, self.passages, self._state = self._store.open(state), {}, None
        if self.table is None:
            return
        count = self.table.count
        if count >= APPROXIMATE_FROM:
            self.passages = StoredPassages(self.table, count)
        else:
            self.passages = {passage.id: passage for passage in _passages_of(self.table.select(PASSAGE_COLUMNS))}

    def _selected_params(self) -> SearchParams | None:
        if self.table is None or not self.is_approximate:
            return None
        return self.recall.params if self.recall else self.table.default

    @property
    def _digests(self) -> Mapping[str, str]:
        return self._state.digests if self._state else {}

    def _chunk_documents(self, documents: Iterable[Document]) -> Iterator[Passage]:
        for document in documents:
            yield from chunk_document(document, words=self.words, overlap=self.overlap)

    def measure_recall(self, questions: Sequence[str], *, most_seconds: float | None = None) -> Recall | None:
        """Measure on questions what the approximate index finds of the exact scan, and use the best parameters from
        now on, also in other processes; return the figures, None for an exact index or without questions.

        `most_seconds`: see `choose_params`.
        """
        if self.table is None or self._state is None or not self.is_approximate or not questions:
            return None
        vectors = self.encoder.encode_questions(questions)
        recall = choose_params(self.table, vectors, most_seconds=most_seconds)
        self._state = replace(self._state, recall=recall)
        self._params = recall.params
        with suppress(BusyError), locked(self.folder):  # a new version that is being written is measured by its writer
            newest = self._store.read()
            if newest is not None and (newest.table, newest.version) == (self._state.table, self._state.version):
                self._store.write(self._state)
        return recall

    # ---- writing

    def _write(self, documents: Sequence[Document], wanted: Mapping[str, str]) -> None:
        """Write a new version, and record it once it is complete."""
        extended = self._extended(documents, wanted)
        state, scratch = extended or (self._rebuilt(documents, wanted), "")
        self._store.write(state)
        self._store.note_unfinished(None)
        self._ahead.remove()
        if scratch:
            self._store.drop(scratch)

    def _rebuilt(self, documents: Sequence[Document], wanted: Mapping[str, str]) -> State:
        """Write a table of its own, which does not depend on the history; return its state."""
        before, start = self._state, time.perf_counter()
        table, encoding = self._fill(documents)
        table.finish(approximate=table.count >= APPROXIMATE_FROM)
        total = _embedding_seconds(table)
        return State(
            table=table.name,
            version=table.version,
            digests=wanted,
            files=self._store.files(table.name),
            superseded={**self._superseded(), before.table: time.time()} if before else {},
            embedding_seconds=total,
            seconds=total + time.perf_counter() - start - encoding,
        )

    def _extended(self, documents: Sequence[Document], wanted: Mapping[str, str]) -> tuple[State, str] | None:
        """Add and remove rows in the present table; return its new state, and the table that the new rows were first
        written to ("" without any). None if the table is to be rebuilt: it is small, or too many rows change.
        """
        state, held = self._state, self._digests
        if state is None or self.table is None or not self.is_approximate:
            return None
        changed = [document for document in documents if held.get(document.id) != document.digest]
        gone = [name for name, digest in held.items() if wanted.get(name) != digest]
        removed = self.table.select(["id"], "document", gone).num_rows
        added = sum(1 for _ in self._chunk_documents(changed))
        count, drifted = len(self.passages) - removed + added, state.drifted + removed + added
        if drifted > DRIFT * len(self.passages) or count < APPROXIMATE_FROM:
            return None
        start = time.perf_counter()
        new, encoding = self._fill(changed) if added else (None, 0.0)
        table = self._store.latest(state.table)
        table.restore(state.version)  # if a writer died after it began to change the table
        if gone:
            table.delete(gone)
        for rows in new.batches(COLUMNS) if new else ():
            table.add(rows)
        if table.count != count:
            raise BusyError(f"{state.table}: another process changed the index at the same time; try again")
        total = _embedding_seconds(table)
        writing = state.seconds - state.embedding_seconds + time.perf_counter() - start - encoding
        state = replace(state, version=table.version, digests=wanted, files=self._store.files(state.table))
        state = replace(state, drifted=drifted, embedding_seconds=total, seconds=total + writing)
        return replace(state, superseded=self._superseded()), new.name if new else ""

    def _fill(self, documents: Sequence[Document]) -> tuple[PassageTable, float]:
        """Return a table of the passages of the documents, without indexes, and the seconds of embedding now.

        Batches that a killed process wrote to it are kept, and texts that are in the present table, or in one that was
        not completed, are not embedded again.
        """
        content = sha256_text(*(part for document in documents for part in (document.id, document.digest)))
        name = f"{self._name}_{sha256_text(content, self._state.table if self._state else '')[:16]}"
        unfinished = self._store.unfinished()
        table = unfinished if unfinished is not None and unfinished.name == name else None
        written = table.select(["id", "digest"]) if table else None
        tables = [other for other in (self.table, unfinished) if other is not None and other is not table]
        ahead = [self._ahead] if self._ahead.digests() else []
        at, seconds, passages = 0, 0.0, self._chunk_documents(documents)
        while (batch := list(islice(passages, BATCH))) or table is None:
            digests = [_text_digest(embedded_text(passage)) for passage in batch]
            if written is not None and at < written.num_rows:
                if not _is_same(written.slice(at, len(batch)), batch, digests):
                    self._store.note_unfinished(None)
                    return self._fill(documents)
            else:
                rows, spent = self._embed(batch, digests, [*tables, *([table] if table else []), *ahead])
                table, seconds = self._added(name, table, rows), seconds + spent
            at += len(batch)
        return table, seconds

    def _added(self, name: str, table: PassageTable | None, rows: pa.Table) -> PassageTable:
        """Write rows to a table, which is created for the first ones; return it."""
        if table is None:
            table = self._store.create(name, rows)
        else:
            table.add(rows)
        self._store.note_unfinished(name)
        return table

    def _embed(
        self, batch: Sequence[Passage], digests: Sequence[str], sources: Sequence[PassageTable | VectorParts]
    ) -> tuple[pa.Table, float]:
        """Return the rows of passages, and the seconds of embedding those whose text is in none of the sources.

        Each row has the seconds that its text took, by characters, whenever that was.
        """
        import pyarrow as pa

        texts = [embedded_text(passage) for passage in batch]
        distinct = dict(zip(digests, texts, strict=True))
        known: dict[str, tuple[NDArray[np.float32], float]] = {}
        for source in sources:
            rows = source.select(
                ["digest", "vector", "seconds"], "digest", [digest for digest in distinct if digest not in known]
            )
            pairs = zip(_vectors_of(rows), rows["seconds"].to_pylist(), strict=True)
            known.update(zip(rows["digest"].to_pylist(), pairs, strict=True))
        new = {digest: text for digest, text in distinct.items() if digest not in known}
        size = self.encoder.encode([]).shape[1]  # loads the model, which does not count as embedding
        start = time.perf_counter()
        vectors = self.encoder.encode(list(new.values()))
        seconds = time.perf_counter() - start
        each = seconds / max(1, sum(map(len, new.values())))
        known.update({digest: (vector, each * len(new[digest])) for digest, vector in zip(new, vectors, strict=True)})
        columns: dict[str, Any] = {name: [getattr(passage, name) for passage in batch] for name in PASSAGE_COLUMNS}
        columns |= {"digest": digests, "searched": texts}
        vector_rows = (
            np.stack([known[digest][0] for digest in digests]) if digests else np.zeros((0, size), dtype=np.float32)
        )
        return pa.table(
            {
                **{name: pa.array(values, pa.string()) for name, values in columns.items() if name != "path"},
                "path": pa.array([list(passage.path) for passage in batch], pa.list_(pa.string())),
                "vector": pa.FixedSizeListArray.from_arrays(pa.array(vector_rows.reshape(-1), pa.float32()), size),
                "seconds": pa.array([known[digest][1] for digest in digests], pa.float64()),
            }
        ).select(COLUMNS), seconds

    def _superseded(self) -> dict[str, float]:
        """Return the tables before the present one that readers may still have open."""
        since = time.time() - OLD_VERSIONS.total_seconds()
        return {name: at for name, at in self._state.superseded.items() if at >= since} if self._state else {}

    def _remove_old_tables(self) -> None:
        """Delete tables that no reader has open: replaced, or left by a writer that died, an hour ago."""
        unfinished = self._store.unfinished()
        kept = {*self._superseded(), self._state and self._state.table, unfinished and unfinished.name}
        for name, changed in self._store.names().items():
            if name not in kept and changed < time.time() - OLD_VERSIONS.total_seconds():
                self._store.drop(name)


class StoredPassages(Mapping[str, Passage]):
    """The passages of a table by id, of which only those that were used last are held in memory."""

    def __init__(self, table: PassageTable, count: int) -> None:
        self._table, self._count = table, count
        self._cached: dict[str, Passage] = {}

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        for rows in self._table.batches(["id"]):
            yield from rows["id"].to_pylist()

    def __getitem__(self, name: str) -> Passage:
        passage = self._cached.get(name)
        return passage if passage is not None else self.load([name])[name]

    def load(self, names: Iterable[str]) -> dict[str, Passage]:
        """Return the passages of these ids that are there, all read at once."""
        wanted = list(dict.fromkeys(names))
        found = {name: passage for name in wanted if (passage := self._cached.get(name)) is not None}
        lacking = [name for name in wanted if name not in found]
        if lacking:
            found |= {
                passage.id: passage for passage in _passages_of(self._table.select(PASSAGE_COLUMNS, "id", lacking))
            }
        if len(self._cached) > _CACHED:
            self._cached.clear()
        self._cached.update(found)
        return found

    def values(self) -> ValuesView[Passage]:
        """Return all passages, read in batches."""
        return _StoredValues(self, self._table)


class _StoredValues(ValuesView[Passage]):
    def __init__(self, mapping: StoredPassages, table: PassageTable) -> None:
        super().__init__(mapping)
        self._table = table

    def __iter__(self) -> Iterator[Passage]:
        for rows in self._table.batches(PASSAGE_COLUMNS):
            yield from _passages_of(rows)


def open_store(place: str, name: str) -> PassageStore:
    """Open the store of tables at a folder or an address; `name`: the beginning of the tables' names."""
    scheme = place.partition("://")[0]
    if scheme in plugin_names("passage_stores"):
        store: PassageStore = plugin("passage_stores", scheme, f"retrieval.store is at {scheme}://")(place, name)
        return store
    return LanceStore(place, name)


def _passages_of(rows: pa.Table) -> Iterator[Passage]:
    for row in rows.to_pylist():
        yield Passage(**{**row, "path": tuple(row["path"])})


def _vectors_of(rows: pa.Table) -> NDArray[np.float32]:
    values: NDArray[np.float32] = rows["vector"].combine_chunks().flatten().to_numpy()
    return values.reshape(rows.num_rows, -1) if rows.num_rows else values.reshape(0, 1)


def _embedding_seconds(table: PassageTable) -> float:
    """Return the seconds that the distinct texts of a table took to embed."""
    rows = table.select(["digest", "seconds"]).group_by("digest").aggregate([("seconds", "max")])
    return float(sum(rows["seconds_max"].to_pylist()))


def _text_digest(text: str) -> str:
    return sha256_text(text)[:32]


def _is_same(written: pa.Table, batch: Sequence[Passage], digests: Sequence[str]) -> bool:
    """True if rows that were written are those of a batch."""
    return bool(
        written["id"].to_pylist() == [passage.id for passage in batch]
        and written["digest"].to_pylist() == list(digests)
    )


def _diff_digests(held: Mapping[str, str], wanted: Mapping[str, str]) -> Changes:
    return Changes(
        added=len(wanted.keys() - held.keys()),
        changed=sum(held[name] != wanted[name] for name in held.keys() & wanted.keys()),
        removed=len(held.keys() - wanted.keys()),
    )
