"""Parses strict JSON: no duplicate keys, no NaN, bounded depth and digits, one-line errors."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trimtab.base.errors import InputError
from trimtab.base.sanitize import printable

DEPTH_CAP = 64
DIGITS_CAP = 400
"""Most digits of an integer."""


class _StrictError(ValueError):
    """JSON that Python accepts and we refuse; `remedy` says what to do."""

    def __init__(self, problem: str, remedy: str, field: str | None = None) -> None:
        super().__init__(problem)
        self.remedy, self.field = remedy, field


def first_duplicate(names: Iterable[str]) -> str | None:
    """Return the first name that occurs a second time, None if there is none."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    duplicate = first_duplicate(key for key, _ in pairs) if len(value) < len(pairs) else None
    if duplicate is not None:
        raise _StrictError(f"the key {duplicate[:80]!r} stands twice in one object", "keep one of them", duplicate)
    return value


def _integer(digits: str) -> int:
    if len(digits) > DIGITS_CAP:
        raise _StrictError(f"an integer of {len(digits):,} digits", "write it as text, in quotes")
    return int(digits)


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _StrictError(f"the number {text[:20]} is too large", "write it as text, in quotes")
    return value


def _constant(text: str) -> float:
    raise _StrictError(f"{text} is not JSON", "write null, or leave the field out")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_int=_integer, parse_float=_float, parse_constant=_constant)


def parse_json(text: str, file: Path | str, line: int, start: int = 0) -> tuple[Any, int]:
    """Return the strict JSON value that begins at `start` of `text`, and its end.

    Raises InputError for NaN, numbers beyond a double, integers over DIGITS_CAP, duplicate keys, and nesting beyond
    DEPTH_CAP.
    """
    try:
        value, end = _DECODER.raw_decode(text, start)
    except _StrictError as error:
        raise InputError(
            str(error), error.remedy, file=file, line=line, field=error.field and printable(error.field, 80)
        ) from None
    except json.JSONDecodeError as error:
        comma = _trailing_comma(text, start, error.pos)
        if comma is not None:
            raise trailing_comma(text, comma, file, line + text.count("\n", start, comma)) from None
        at = line + text.count("\n", start, error.pos)
        raise InputError(
            f"not valid JSON ({error.msg} at column {error.colno})", "mend the line", file=file, line=at
        ) from None
    except RecursionError:
        raise _too_deep(file, line) from None
    if text.count("{", start, end) + text.count("[", start, end) > DEPTH_CAP and _depth(value) > DEPTH_CAP:
        raise _too_deep(file, line)
    return value, end


def trailing_comma(text: str, at: int, file: Path | str, line: int) -> InputError:
    """Return the error for a comma at `at`, on `line`, before a closing bracket."""
    column = at - text.rfind("\n", 0, at)
    problem = f"a comma at column {column} with nothing behind it but the closing bracket"
    return InputError(problem, "take the comma out", file=file, line=line)


def _trailing_comma(text: str, start: int, at: int) -> int | None:
    """Return the position of a comma before a closing bracket, if parsing stopped at `at` because of it."""
    before = len(text[start:at].rstrip(" \t\r\n")) + start - 1
    comma = at if text[at : at + 1] == "," else before
    next_character = text[comma + 1 :].lstrip(" \t\r\n")[:1] if text[comma : comma + 1] == "," else ""
    return comma if next_character in ("}", "]") and next_character else None


def _too_deep(file: Path | str, line: int) -> InputError:
    return InputError(f"nested deeper than {DEPTH_CAP} levels", "flatten the row", file=file, line=line)


def _depth(value: Any) -> int:
    """Return the levels of nesting, counted level by level so that depth needs no stack."""
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
        if depth > DEPTH_CAP:
            break
    return depth


LONE_SURROGATE = "holds half a surrogate pair", "remove or complete the \\ud… escape"


def has_lone_surrogate(value: Any) -> bool:
    """True if a string in a JSON value has a lone surrogate, which no text file can hold."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def type_name(value: Any) -> str:
    """Return the JSON name of a value's type, with its article."""
    names = {bool: "true or false", str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), f"of type {type(value).__name__}")
