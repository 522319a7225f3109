"""Stores the encoded rows of a training in 5 bytes a token: in memory, or in a temporary file if they are many.

A row is decoded each time it is asked for, which takes microseconds, so that a training over many rows holds those of
one step only.
"""

from __future__ import annotations

import mmap
import tempfile
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from trimtab.base.errors import InputError
from trimtab.base.records import Encoded
from trimtab.training.batch import TrainingRow

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_BYTES_HELD = 2**26
"""The most bytes of encoded rows that are kept in memory, about 13 million tokens; more are written to a file."""

_ALL_TARGETS = -1  # in place of the number of scored pairs: the row has none of its own


Item = TypeVar("Item")


class DecodedSequence(Sequence[Item]):
    """A sequence of stored items, each decoded when it is asked for by `_decode`."""

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> list[Item]: ...
    def __getitem__(self, at: int | slice) -> Item | list[Item]:
        numbers = range(len(self))[at]
        return self._decode(numbers) if isinstance(numbers, int) else [self._decode(number) for number in numbers]

    @abstractmethod
    def _decode(self, number: int) -> Item:
        """Return the item with this number."""


class EncodedRows(DecodedSequence[TrainingRow]):
    """N rows to train on, decoded on access. Build them with `store_encoded_rows`.

    `lengths` [N]: the tokens of each row. Besides its tokens a row takes 24 bytes of memory.
    """

    def __init__(
        self,
        records: bytearray | mmap.mmap,
        lengths: NDArray[np.int32],
        scored: NDArray[np.int32],
        weights: Sequence[float],
    ) -> None:
        """`records`: for each row its ids and its scored pairs as int32, then a byte for each token that is 1 if it is
        trained on. `scored` [N]: the number of pairs, or -1. `weights` [N]: of the rows.
        """
        self._records, self.lengths, self._scored, self._weights = records, lengths, scored, weights
        sizes = 5 * lengths.astype(np.int64) + 8 * np.maximum(scored, 0)
        self._starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])

    def __len__(self) -> int:
        return len(self.lengths)

    def _decode(self, number: int) -> TrainingRow:
        record = self._records[self._starts[number] : self._starts[number + 1]]
        length, pairs = int(self.lengths[number]), int(self._scored[number])
        values = np.frombuffer(record, np.int32, length + 2 * max(pairs, 0)).tolist()
        trained = np.frombuffer(record, np.bool_, length, 4 * len(values)).tolist()
        places = iter(values[length:])
        return TrainingRow(
            encoded=Encoded(ids=tuple(values[:length]), trained=tuple(trained)),
            weight=self._weights[number],
            scored=None if pairs == _ALL_TARGETS else tuple(zip(places, places, strict=True)),
        )


def store_encoded_rows(rows: Iterable[TrainingRow], folder: Path | None = None) -> EncodedRows:
    """Read a stream of rows to its end and return them, equal and in their order.

    `folder`: for the temporary file, which has no name and vanishes with the rows; the system's if None. Raises
    InputError if the file cannot be written.
    """
    lengths, scored, weights = array("i"), array("i"), array("d")
    with _Spool(folder) as spool:
        for row in rows:
            ids, pairs = row.encoded.ids, row.scored
            values = array("i", ids)
            for pair in pairs or ():
                values.extend(pair)
            spool.write(values.tobytes() + bytes(row.encoded.trained))
            lengths.append(len(ids))
            scored.append(_ALL_TARGETS if pairs is None else len(pairs))
            weights.append(row.weight)
        records = spool.finish()
    return EncodedRows(records, np.array(lengths, np.int32), np.array(scored, np.int32), weights)


class _Spool:
    """A growing run of bytes that goes to a temporary file beyond `MOST_BYTES_HELD`; closes it at its exit."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder or Path(tempfile.gettempdir())
        self._held = bytearray()
        self._file: IO[Any] | None = None

    def __enter__(self) -> _Spool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > MOST_BYTES_HELD:
            self._flush()

    def finish(self) -> bytearray | mmap.mmap:
        """Return the bytes; no more can be written."""
        if self._file is None:
            return self._held
        self._flush()
        return mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)

    def _flush(self) -> None:
        try:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 -- `__exit__` closes it
            self._file.write(self._held)
            self._file.flush()
        except OSError as error:
            problem = f"many training rows are kept in a file here, which cannot be written ({error.strerror})"
            raise InputError(problem, "make room there, or let this user write there", file=self._folder) from error
        self._held.clear()
