"""Judged answers to train on: encoded, and stored in 5 bytes a token until a step asks for them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trimtab.base.errors import InputError
from trimtab.base.records import Encoded
from trimtab.training.batch import TrainingRow
from trimtab.training.encoded_rows import DecodedSequence, EncodedRows, store_encoded_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class JudgedAnswers:
    """Two answers to one prompt, the better and the worse; or one of them, with None in place of the other."""

    chosen: Encoded | None
    rejected: Encoded | None
    weight: float = 1.0

    @property
    def answers(self) -> tuple[Encoded, ...]:
        """The answers that are present, the better first."""
        return tuple(one for one in (self.chosen, self.rejected) if one is not None)


class JudgedRows(DecodedSequence[JudgedAnswers]):
    """N judged prompts, decoded on access. Build them with `store_judged_answers`.

    `weights` [N], `has_chosen` [N] and `has_rejected` [N]: of each row, known without decoding it.
    """

    def __init__(
        self,
        answers: EncodedRows,
        first: NDArray[np.int64],
        has_chosen: NDArray[np.bool_],
        has_rejected: NDArray[np.bool_],
        weights: NDArray[np.float64],
    ) -> None:
        """`answers`: of all rows, the better of a row first. `first` [N]: the number of each row's first one."""
        self._answers, self._first = answers, first
        self.has_chosen, self.has_rejected, self.weights = has_chosen, has_rejected, weights

    def __len__(self) -> int:
        return len(self._first)

    def _decode(self, number: int) -> JudgedAnswers:
        first, has_chosen = int(self._first[number]), bool(self.has_chosen[number])
        return JudgedAnswers(
            chosen=self._answers[first].encoded if has_chosen else None,
            rejected=self._answers[first + has_chosen].encoded if self.has_rejected[number] else None,
            weight=float(self.weights[number]),
        )

    @property
    def tokens(self) -> int:
        """Return the number of tokens of all answers with their prompts."""
        ends = self._first + self.has_chosen + self.has_rejected
        tokens_before = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._answers.lengths)])
        return int((tokens_before[ends] - tokens_before[self._first]).sum())

    def usable(self, *, pairs: bool) -> JudgedRows:
        """Return the rows that have a weight and, if `pairs`, both answers."""
        wanted = (self.weights > 0) & ((self.has_chosen & self.has_rejected) | (not pairs))
        sides = self.has_chosen[wanted], self.has_rejected[wanted]
        return JudgedRows(self._answers, self._first[wanted], *sides, self.weights[wanted])


def store_judged_answers(rows: Iterable[JudgedAnswers], folder: Path | None = None) -> JudgedRows:
    """Read a stream of rows to its end and return them, equal and in their order.

    `folder`: for the temporary file of many rows, as in `store_encoded_rows`.
    """
    chosen, rejected, weights = array("b"), array("b"), array("d")

    def answers() -> Iterator[TrainingRow]:
        for row in rows:
            chosen.append(row.chosen is not None)
            rejected.append(row.rejected is not None)
            weights.append(row.weight)
            yield from (TrainingRow(encoded=one) for one in row.answers)

    stored = store_encoded_rows(answers(), folder)
    has_chosen, has_rejected = np.array(chosen, bool), np.array(rejected, bool)
    counts = has_chosen.astype(np.int64) + has_rejected
    return JudgedRows(stored, np.cumsum(counts) - counts, has_chosen, has_rejected, np.array(weights, np.float64))


def usable_rows(rows: Iterable[JudgedAnswers], *, pairs: bool) -> JudgedRows:
    """Return the rows that have a weight and, if `pairs`, both answers; a list is stored first."""
    return (rows if isinstance(rows, JudgedRows) else store_judged_answers(rows)).usable(pairs=pairs)


def fitting_rows(rows: Iterable[JudgedAnswers], max_tokens: int, folder: Path | None = None) -> tuple[JudgedRows, int]:
    """Read a stream of rows, and return those whose answers have at most `max_tokens` tokens with their prompt, and the
    number left out.

    `folder`: for the temporary file of many rows. Raises InputError for an answer without a trained token.
    """
    count = 0

    def fitting() -> Iterator[JudgedAnswers]:
        nonlocal count
        for count, row in enumerate(rows, 1):
            if not all(any(answer.trained) for answer in row.answers):
                raise InputError(f"preference {count} has an answer without a token", "give it a text or leave it out")
            if all(len(answer.ids) <= max_tokens for answer in row.answers):
                yield row

    stored = store_judged_answers(fitting(), folder)
    return stored, count - len(stored)
