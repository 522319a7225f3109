"""Conversion of pydantic's validation errors of a settings file into one-line InputErrors."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError

from trimtab.base.errors import InputError


def _nearest(name: str, known: list[str], otherwise: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else otherwise


def as_input_error(error: ValidationError, settings: type[BaseModel], file: Path) -> InputError:
    """Return the first problem of a ValidationError as one line: unknown keys first, then missing ones.

    `settings`: the model that was validated, for its known keys.
    """
    problems = error.errors()
    first = next((item for item in problems if item["type"] == "extra_forbidden"), problems[0])
    lacking = [".".join(str(part) for part in item["loc"]) for item in problems if item["type"] == "missing"]
    if lacking and first["type"] != "extra_forbidden":
        return _lacking(lacking, file)
    place = ".".join(str(part) for part in first["loc"] if not _CHOICE.fullmatch(str(part)))
    if first["type"] == "extra_forbidden":
        *tables, key = [str(part) for part in first["loc"]]
        known = sorted(_known_keys(settings, tables))
        remedy = _nearest(key, known, f"known keys: {', '.join(known)}")
        return InputError("unknown key", remedy, file=file, field=place)
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if first["type"] == "value_error":  # Trimtab's own message, which contains the remedy
        problem, _, remedy = message.partition("; ")
        return InputError(problem, remedy or "correct it", file=file, field=place)
    found = repr(first["input"])
    found = found if len(found) <= 80 else f"{found[:80]}…"
    message = _WRITTEN.get(str(first["loc"][-1]), message) if first["type"] in _FORMS else message
    return InputError(
        f"{_PLAIN.get(first['type'], message)} (found {found})", "correct the value", file=file, field=place
    )


def _lacking(keys: list[str], file: Path) -> InputError:
    """Return one error for all missing keys; of a missing table [task], its required key."""
    if len(keys) == 1 and "." in keys[0]:
        return InputError("required key is missing", "set it", file=file, field=keys[0])
    named = ["[task] with its kind" if key == "task" else key if "." in key else f"[{key}]" for key in keys]
    remedy = "add it" if len(keys) == 1 else "add them"
    return InputError(f"missing: {', '.join(named)}", f"{remedy} as trimtab init writes a task file", file=file)


_CHOICE = re.compile(r"constrained-\w+|\w+\[.*\]")  # the alternatives of a union type: not keys of the file
_PLAIN = {
    "tuple_type": 'should be a list, as in ["one", "two"]',
    "model_type": "should be a table of its own, [section] or { key = value }",
    "model_attributes_type": "should be a table of its own, [section] or { key = value }",
    "dict_type": "should be a table, as in [arm.name]",
    "mapping_type": "should be a table, as in [arm.name]",
    "string_type": "should be text in quotes",
    "string_too_short": "should not be empty",
    "float_type": "should be a number without quotes",
    "int_type": "should be a whole number without quotes",
    "finite_number": "should be a finite number",
}

_FORMS = ("string_pattern_mismatch", "date_from_datetime_parsing", "date_from_datetime_inexact", "date_type")
_WRITTEN = {
    "name": "should be one word of letters, digits, dots, - and _",
    "budget": "should be a time such as 90s, 30m or 2h, or an amount such as 20 USD",
    "url": "should begin with http:// or https://",
    "as_of": "should be a date, as in 2026-11-01",
}


def _known_keys(model: type[BaseModel], tables: list[str]) -> set[str]:
    for name in tables:
        if name not in model.model_fields:
            continue  # the NAME of [arm.NAME]
        candidates = [model.model_fields[name].annotation, *get_args(model.model_fields[name].annotation)]
        for candidate in candidates:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
    return set(model.model_fields) - {"file", "rows"}
