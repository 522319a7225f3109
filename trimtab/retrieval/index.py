"""The on-disk index of a task's documents: a LanceDB table with vectors and full-text search, updated by document
digests."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.base.errors import InputError
from trimtab.base.files import locked, read_json, sha256_file, sha256_text, write_json
from trimtab.base.records import Document, Passage
from trimtab.retrieval.chunk import WORDS, chunk_document, default_overlap
from trimtab.retrieval.embed import Encoder, embedded_text

os.environ.setdefault("LANCEDB_LOG", "error")  # lancedb reads it once, when it is imported
LAYOUT_VERSION = 3  # raised when columns, chunking or embedding change; older tables are then ignored
_PASSAGE_COLUMNS = ("id", "document", "title", "path", "text", "source")  # the fields of a Passage
OLD_VERSIONS = timedelta(hours=1)
QUOTE = "'"  # doubled, it stands for itself in a condition


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
    stay, and going back costs nothing. A JSON file beside a table names the complete version and the hashes of its
    files; it is replaced last, so readers see the old state or the new one. A damaged table counts as missing, and the
    next `update` rebuilds it.

    `seconds`: the time for building the whole table, measured when its texts were embedded and its rows written; 0
    before that.
    """

    def __init__(self, folder: Path, encoder: Encoder, *, words: int, overlap: int) -> None:
        self.folder, self.encoder, self.words, self.overlap = folder, encoder, words, overlap
        settings = sha256_text(str(LAYOUT_VERSION), encoder.digest, str(words), str(overlap))
        self._name = f"passages_{settings[:16]}"
        self._table_path, self._pointer_path = folder / f"{self._name}.lance", folder / f"{self._name}.json"
        self._version = 0
        self._is_pinned = False
        self._digests: dict[str, str] = {}
        self._embedding_seconds = self.seconds = 0.0
        self.table: Any = None
        self.passages: Mapping[str, Passage] = {}
        self.refresh()

    @classmethod
    def open(cls, folder: Path, embedder: Encoder, *, words: int = WORDS, overlap: int | None = None) -> Index:
        """Open the index in `folder`; it is empty if none was built with this embedding and these settings of
        `chunk_document`."""
        return cls(folder, embedder, words=words, overlap=default_overlap(words) if overlap is None else overlap)

    def update(self, documents: Sequence[Document], *, seconds: float = 0.0) -> Changes:
        """Make the index hold exactly `documents`; only changed digests cause work, and only new texts are embedded.
        `seconds`: how long to wait for another process that updates it.

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
                self._write(documents)
                self.refresh()
        return changes

    def copy_to(self, folder: Path) -> None:
        """Copy this table and its pointer into `folder`, where the same settings open it."""
        shutil.copytree(self._table_path, folder / self._table_path.name)
        shutil.copyfile(self._pointer_path, folder / self._pointer_path.name)

    def texts_to_embed(self, documents: Sequence[Document]) -> list[str]:
        """Return the texts that an update to `documents` would embed."""
        if not _diff_digests(self._digests, {document.id: document.digest for document in documents}):
            return []
        held = {embedded_text(passage) for passage in self.passages.values()}
        return list(dict.fromkeys(text for _, text in self._chunk_documents(documents) if text not in held))

    def _chunk_documents(self, documents: Sequence[Document]) -> list[tuple[Passage, str]]:
        """Return the passages of the documents, each with the text that is embedded."""
        cut = (
            item for document in documents for item in chunk_document(document, words=self.words, overlap=self.overlap)
        )
        return [(passage, embedded_text(passage)) for passage in cut]

    def vectors(self, names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the vectors [D] of the passages with these ids, in the open version."""
        if not names:
            return {}
        id_list = ", ".join(f"'{name.replace(QUOTE, 2 * QUOTE)}'" for name in names)
        rows = self.table.search().where(f"id IN ({id_list})").select(["id", "vector"]).limit(len(names)).to_arrow()
        values = rows["vector"].combine_chunks().flatten().to_numpy().reshape(rows.num_rows, -1)
        return dict(zip(rows["id"].to_pylist(), values, strict=True))

    def pin_version(self) -> None:
        """Stay on the present version: `refresh` does nothing from now on. The next `update`, by another Index, keeps
        its files."""
        self._is_pinned = True

    def refresh(self) -> None:
        """Open the newest complete version; cheap if there is none newer."""
        if self._is_pinned:
            return
        state = self._read_pointer()
        if state is None or state["version"] == self._version:
            return
        if not self._is_intact(state["files"]):
            self.table, self.passages, self._version, self._digests = None, {}, 0, {}
            self._embedding_seconds = self.seconds = 0.0
            return
        table = self._database().open_table(self._name)
        table.checkout(state["version"])
        rows = table.search().select(list(_PASSAGE_COLUMNS)).limit(max(1, table.count_rows())).to_arrow().to_pylist()
        self.passages = {row["id"]: Passage(**{**row, "path": tuple(row["path"])}) for row in rows}
        self.table, self._version, self._digests = table, state["version"], state["digests"]
        self._embedding_seconds, self.seconds = state["embedding_seconds"], state["seconds"]

    def _read_pointer(self) -> dict[str, Any] | None:
        """Return the contents of the pointer file, None if it is missing or invalid."""
        try:
            state = read_json(self._pointer_path)
        except (OSError, ValueError, RecursionError):
            return None
        kinds = {"version": int, "digests": dict, "files": dict, "embedding_seconds": float, "seconds": float}
        known = isinstance(state, dict) and all(isinstance(state.get(name), kind) for name, kind in kinds.items())
        return state if known else None

    def _is_intact(self, files: Mapping[str, str]) -> bool:
        places = {name: self._table_path / name for name in files}
        return bool(files) and all(
            place.is_file() and sha256_file(place) == files[name] for name, place in places.items()
        )

    def _files(self) -> set[Path]:
        """Return the files of a version, each of which is written once."""
        return {
            path for path in self._table_path.rglob("*") if path.suffix in (".lance", ".manifest") and path.is_file()
        }

    def _database(self) -> Any:
        import lancedb

        return lancedb.connect(str(self.folder))

    def _write(self, documents: Sequence[Document]) -> None:
        """Rebuild the table, so that it does not depend on its history, and point to it once it is complete."""
        import pyarrow as pa
        from lancedb.index import FTS

        start = time.perf_counter()
        cut = self._chunk_documents(documents)
        passages, texts = [passage for passage, _ in cut], [text for _, text in cut]
        chunk_seconds = time.perf_counter() - start
        vectors, embed_seconds = self._embed(texts)
        start = time.perf_counter()
        digests = {document.id: document.digest for document in documents}
        columns: dict[str, Any] = {name: [getattr(item, name) for item in passages] for name in _PASSAGE_COLUMNS}
        columns |= {"digest": [digests[item.document] for item in passages], "searched": texts}
        flat = pa.array(vectors.reshape(-1), pa.float32())
        data = pa.table(
            {
                **{name: pa.array(values, pa.string()) for name, values in columns.items() if name != "path"},
                "path": pa.array([list(item.path) for item in passages], pa.list_(pa.string())),
                "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
            }
        )
        if self.table is None and self._table_path.exists():  # left by a crash, or damaged
            shutil.rmtree(self._table_path)
        if self.table is not None:  # before the new version exists, so that the one readers have open now is kept
            self._database().open_table(self._name).optimize(cleanup_older_than=OLD_VERSIONS)
        before = self._files()
        table = self._database().create_table(self._name, data, mode="overwrite")
        if passages:
            table.create_index("searched", config=FTS(with_position=False), replace=True)
        seconds = chunk_seconds + embed_seconds + time.perf_counter() - start
        files = {str(path.relative_to(self._table_path)): sha256_file(path) for path in sorted(self._files() - before)}
        state = {"version": table.version, "digests": digests, "files": files}
        write_json(self._pointer_path, {**state, "embedding_seconds": embed_seconds, "seconds": seconds})

    def _embed(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], float]:
        """Return vectors [N, D], reusing those in the table by text, and the seconds for embedding all.

        Reused texts count their share, by characters, of the time that they took when they were embedded.
        """
        known_vectors: dict[str, NDArray[np.float32]] = {}
        if self.table is not None and self.passages:
            rows = self.table.search().select(["searched", "vector"]).limit(len(self.passages)).to_arrow()
            values = rows["vector"].combine_chunks().flatten().to_numpy().reshape(rows.num_rows, -1)
            known_vectors = dict(zip(rows["searched"].to_pylist(), values, strict=True))
        distinct = list(dict.fromkeys(texts))
        new_texts = [text for text in distinct if text not in known_vectors]
        reused = [text for text in distinct if text in known_vectors]
        seconds = self._embedding_seconds * sum(map(len, reused)) / max(1, sum(map(len, known_vectors)))
        self.encoder.encode([])  # loads the model, which does not count as embedding
        start = time.perf_counter()
        new = self.encoder.encode(new_texts)
        seconds += time.perf_counter() - start
        known_vectors.update(zip(new_texts, new, strict=True))
        return np.stack([known_vectors[text] for text in texts]) if texts else new, seconds


def _diff_digests(held: Mapping[str, str], wanted: Mapping[str, str]) -> Changes:
    return Changes(
        added=len(wanted.keys() - held.keys()),
        changed=sum(held[name] != wanted[name] for name in held.keys() & wanted.keys()),
        removed=len(held.keys() - wanted.keys()),
    )
