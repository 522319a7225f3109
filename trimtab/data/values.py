"""Statistics of a column's values, so that no empty column or row id is mistaken for the question or the answer."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Sequence
from typing import Any

from trimtab.data.raw_rows import RawRow

NEARLY_UNIQUE = 0.9
"""Share of distinct values from which a column counts as nearly unique."""
FEW_VALUES = 5  # fewer values show nothing about a column

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_ID_NAMES = frozenset(("id", "ids", "uuid", "guid", "key", "index", "nr", "number"))
_CODE_PATTERN = re.compile(r"[\w.:/-]*\d[\w.:/-]*")
"""One word with a digit: a code, a date, a path."""


_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([T ].*)?|\d{1,2}[./-]\d{1,2}[./-](\d{4}|\d\d)( .*)?")


class ColumnValues:
    """The values of one column in some rows, and their properties."""

    def __init__(self, rows: Sequence[RawRow], name: str) -> None:
        self._name, self._rows = name, len(rows)
        self._values = [row.fields.get(name) for row in rows]
        self._hashable = [value for value in self._values if isinstance(value, Hashable) and value is not None]
        filled = [str(value).strip() for value in self._hashable]
        self._filled = [text for text in filled if text]
        self.distinct = len(set(self._hashable)) + (None in self._values)

    @property
    def filled(self) -> bool:
        """True if any row has a value."""
        return bool(self._filled) or any(self._values)

    @property
    def example(self) -> str:
        """The first value that is not empty, as one line of text."""
        value = next((value for value in self._values if value not in (None, "", [], {})), "")
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        return " ".join(text.split())

    @property
    def is_nested(self) -> bool:
        """True if any value is an object, or a list of other things than texts."""
        return any(map(is_nested, self._values))

    @property
    def is_complete(self) -> bool:
        """True if every row has a value."""
        return len(self._filled) == self._rows

    @property
    def is_text(self) -> bool:
        """True if every value is text or None."""
        return all(isinstance(value, str | None) for value in self._values)

    @property
    def mean_length(self) -> float:
        """Mean characters of a value, over all rows."""
        return sum(len(str(value or "")) for value in self._values) / self._rows

    @property
    def repeats(self) -> bool:
        """True if the values are few, short and repeated, as labels are."""
        plain = all(isinstance(value, Hashable) for value in self._values)
        return plain and self.distinct <= max(2, self._rows // 2) and self.mean_length < 60

    @property
    def groups(self) -> bool:
        """True if the values group the rows: at least two values, each in two rows or more on average."""
        return self.repeats and self.distinct > 1

    @property
    def constant(self) -> bool:
        """True if all rows have the same value, and there are several rows."""
        return self.distinct == 1 and self._rows >= FEW_VALUES

    @property
    def nearly_unique(self) -> bool:
        """True if almost every row has a value of its own."""
        texts = self._filled
        return len(texts) >= FEW_VALUES and len(set(texts)) >= NEARLY_UNIQUE * len(texts)

    @property
    def is_date(self) -> bool:
        """True if every value is a date, or a date with a time."""
        return bool(self._filled) and all(map(_DATE.fullmatch, self._filled))

    @property
    def is_id(self) -> bool:
        """True if the values identify rows: nearly unique, and called so, ascending, or codes and dates only."""
        if not self.nearly_unique:
            return False
        if last_word(self._name) in _ID_NAMES:
            return True
        try:
            numbers = [float(text) for text in self._filled]
        except ValueError:
            return all(_CODE_PATTERN.fullmatch(text) for text in self._filled)
        return numbers == sorted(numbers)


def is_nested(value: Any) -> bool:
    """True for an object or a list of other things than texts, unless it holds answers as SQuAD writes them."""
    is_object = isinstance(value, dict) or (
        isinstance(value, list) and not all(isinstance(item, str) for item in value)
    )
    return is_object and squad_answers(value) is None


def squad_answers(value: Any) -> list[str] | None:
    """Return the texts of answers with their positions, in one object or in a list of them; None for anything else."""
    parts = value if isinstance(value, list) else [value]
    if not parts or not all(isinstance(part, dict) and {"text", "answer_start"} <= part.keys() for part in parts):
        return None
    texts = [text for part in parts for text in (part["text"] if isinstance(part["text"], list) else [part["text"]])]
    return texts if all(isinstance(text, str) for text in texts) else None


def last_word(name: str) -> str:
    """Return the last word of a column's name in lower case: `decision` of `final_decision`, `answer` of
    `longAnswer`."""
    words = _WORD.findall(name)
    return words[-1].lower() if words else name.lower()
