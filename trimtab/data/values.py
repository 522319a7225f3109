"""What the values of a column look like, so that no guess falls on one that is empty or numbers the rows."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

from trimtab.data.readers import RawRow

NEARLY_UNIQUE = 0.9
"""Share of the filled values that differ from all others."""
FEW_VALUES = 5  # fewer tell nothing about what a column is for

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_ID_NAMES = frozenset(("id", "ids", "uuid", "guid", "key", "index", "nr", "number"))
_CODE_PATTERN = re.compile(r"[\w.:/-]*\d[\w.:/-]*")
"""One word with a digit in it: a code, a date, a path."""


_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([T ].*)?|\d{1,2}[./-]\d{1,2}[./-](\d{4}|\d\d)( .*)?")


class ColumnValues:
    """One column of some rows: how many values it has, and what they are like."""

    def __init__(self, rows: Sequence[RawRow], name: str) -> None:
        self._name, self._rows = name, len(rows)
        self._values = [row.fields.get(name) for row in rows]
        self._hashable = [value for value in self._values if isinstance(value, Hashable) and value is not None]
        filled = [str(value).strip() for value in self._hashable]
        self._filled = [text for text in filled if text]
        self.distinct = len(set(self._hashable)) + (None in self._values)

    @property
    def filled(self) -> bool:
        """Whether any row has a value here."""
        return bool(self._filled) or any(self._values)

    @property
    def is_text(self) -> bool:
        """Whether every value is text, or none."""
        return all(isinstance(value, str | None) for value in self._values)

    @property
    def mean_length(self) -> float:
        """Characters of a value, on average over all rows."""
        return sum(len(str(value or "")) for value in self._values) / self._rows

    @property
    def repeats(self) -> bool:
        """Whether it holds few short values that come back: what a label does."""
        plain = all(isinstance(value, Hashable) for value in self._values)
        return plain and self.distinct <= max(2, self._rows // 2) and self.mean_length < 60

    @property
    def groups(self) -> bool:
        """Whether its values part the rows: at least two of them, each for two rows or more on average."""
        return self.repeats and self.distinct > 1

    @property
    def constant(self) -> bool:
        """Whether it says the same in all rows, and there are some."""
        return self.distinct == 1 and self._rows >= FEW_VALUES

    @property
    def nearly_unique(self) -> bool:
        """Whether almost every row has a value of its own."""
        texts = self._filled
        return len(texts) >= FEW_VALUES and len(set(texts)) >= NEARLY_UNIQUE * len(texts)

    @property
    def is_date(self) -> bool:
        """Whether every value is a day, or a time on one."""
        return bool(self._filled) and all(map(_DATE.fullmatch, self._filled))

    @property
    def is_id(self) -> bool:
        """Whether it numbers or names the rows: nearly unique, and called so, counting up, or of codes and dates only."""
        if not self.nearly_unique:
            return False
        if last_word(self._name) in _ID_NAMES:
            return True
        try:
            numbers = [float(text) for text in self._filled]
        except ValueError:
            return all(_CODE_PATTERN.fullmatch(text) for text in self._filled)
        return numbers == sorted(numbers)


def last_word(name: str) -> str:
    """The last word of a column's name, in small letters: `decision` of `final_decision`, `answer` of `longAnswer`."""
    words = _WORD.findall(name)
    return words[-1].lower() if words else name.lower()
