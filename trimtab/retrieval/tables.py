"""Interfaces of the tables of passages that an index is kept in, and the records beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trimtab.base.codec import from_plain

if TYPE_CHECKING:
    import pyarrow as pa

PASSAGE_COLUMNS = ("id", "document", "title", "path", "text", "source")  # the fields of a Passage
COLUMNS = (*PASSAGE_COLUMNS, "digest", "searched", "vector", "seconds")  # of a table; see `Index`

Found = list[tuple[float, str]]  # distances or scores of passages, with their ids


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchParams:
    """How thoroughly an approximate vector index is searched for one question.

    In LanceDB `nprobes`: the partitions that are read, and `refine_factor`: for each wanted passage, the number of
    candidates whose exact distance is computed. In PostgreSQL `ef`: the candidates that the search of the graph keeps.
    """

    nprobes: int = 0
    refine_factor: int = 1
    ef: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """The recall of the approximate index against the exact scan, measured on questions of the task.

    `recall`: the share of the exact scan's best `k` passages that are among its own best `k`, 0 to 1. Seconds are
    those of one vector search: the median and the 95th percentile, and the median of the exact scan. `params`: the
    selected ones; None if the exact scan was selected.
    """

    params: SearchParams | None
    recall: float
    k: int
    questions: int
    seconds_p50: float
    seconds_p95: float
    exact_seconds_p50: float

    @property
    def sentence(self) -> str:
        """Return the figures in one line for users."""
        how = "the approximate index" if self.params else "the exact scan, since no approximate search finds enough,"
        return (
            f"{how} finds {self.recall:.1%} of the {self.k} nearest passages, in {1000 * self.seconds_p50:.0f} ms "
            f"(an exact scan takes {1000 * self.exact_seconds_p50:.0f} ms; medians of {self.questions} questions)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One complete version of an index, as stored beside its tables.

    `digests`: of the documents, by id. `files`: hashes of the table's files by path; empty in an object store, which
    checks its own. `superseded`: tables before this one, with the Unix time of their replacement. `drifted`: the rows
    that were added or removed since the indexes were built.
    """

    table: str
    version: int
    digests: Mapping[str, str]
    files: Mapping[str, str]
    embedding_seconds: float
    seconds: float
    superseded: Mapping[str, float] = field(default_factory=dict)
    drifted: int = 0
    recall: Recall | None = None

    @classmethod
    def parse(cls, value: Any) -> State | None:
        """Return the state in a JSON value; None if it is none."""
        try:
            return from_plain(cls, value)
        except ValueError:
            return None


class PassageTable(Protocol):
    """One table of passages. Distances are cosine distances, 0 to 2."""

    name: str
    ladder: tuple[SearchParams, ...]  # parameters to choose from, the fastest first
    default: SearchParams  # before any are chosen

    @property
    def version(self) -> int:
        """The version that is read."""
        ...

    @property
    def count(self) -> int:
        """The number of passages."""
        ...

    @property
    def bytes(self) -> int:
        """The size of the rows and indexes."""
        ...

    def add(self, rows: pa.Table) -> None:
        """Append rows, all or none."""

    def delete(self, documents: Sequence[str]) -> None:
        """Delete the rows of these documents."""

    def restore(self, version: int) -> None:
        """Make an earlier version the newest, if it is not."""

    def finish(self, *, approximate: bool) -> None:
        """Build the indexes of a table whose rows are complete. `approximate`: also one over the vectors."""

    def select(self, columns: Sequence[str], by: str = "", values: Sequence[str] = ()) -> pa.Table:
        """Return columns of all rows, or of those whose column `by` is one of `values`."""
        ...

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield columns of all rows, some thousand rows at a time."""
        ...

    def nearest(self, vectors: NDArray[np.float32], depth: int, params: SearchParams | None) -> list[Found]:
        """Return, for each vector, the nearest passages with their distances. `params`: None for the exact scan."""
        ...

    def matching(self, question: str, depth: int) -> Found:
        """Return the passages that match the words of a question best, with their scores; no character is syntax."""
        ...


class PassageStore(Protocol):
    """Where tables of passages and the record of the complete version are kept."""

    def stamp(self) -> object:
        """Return a value that changes with the state; None without one. Cheap."""

    def read(self) -> State | None:
        """Return the state; None if there is none, or it is damaged."""

    def write(self, state: State) -> None:
        """Replace the state, atomically."""

    def unfinished(self) -> PassageTable | None:
        """Return the table whose rows were not complete when its writer stopped, None without a whole one."""

    def note_unfinished(self, name: str | None) -> None:
        """Record the table that is being written, as it is now; None: there is none."""

    def open(self, state: State) -> PassageTable | None:
        """Open the table of a state at its version, to read; None if it is damaged or gone."""

    def latest(self, name: str) -> PassageTable:
        """Open the newest version of a table, to write."""
        ...

    def create(self, name: str, rows: pa.Table) -> PassageTable:
        """Create a table with its first rows, in place of one of this name."""
        ...

    def files(self, name: str, /) -> dict[str, str]:
        """Return hashes of a table's files by path; empty where the store checks its own."""
        ...

    def names(self) -> dict[str, float]:
        """Return the tables with the Unix time of their last change."""
        ...

    def copy(self, state: State, folder: Path, name: str, /) -> bool:
        """Copy the files of a state's table to another name in a folder; False if this store has none to copy."""
        ...

    def drop(self, name: str) -> None:
        """Delete a table, if it is there."""
