"""Conversion between records (dataclasses) and JSON; every file that one command writes and another reads goes through
here.

A record becomes an object with its fields' names. Of a record with the class variable `WITHOUT_NONE` these fields are
left out where they are None. A record with another shape on disk (formats.md, `study.json`) converts with a method
`shaped` and back with a class method `unshaped`.
"""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path, PurePath
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

from trimtab.base.errors import InputError
from trimtab.base.files import read_own, write_own

Record = TypeVar("Record")


def to_plain(value: Any) -> Any:
    """Return `value` as JSON values: records as objects, paths and dates as text, infinite numbers as null."""
    if value is None or isinstance(value, str | bool):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes):
        return [to_plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if _is_record(type(value)):
        without_none = getattr(value, "WITHOUT_NONE", ())
        plain = {item.name: to_plain(getattr(value, item.name)) for item in fields(value)}
        plain = {name: item for name, item in plain.items() if item is not None or name not in without_none}
        return value.shaped(plain) if hasattr(value, "shaped") else plain
    raise TypeError(f"{type(value).__name__} has no JSON form")


def from_plain(kind: type[Record], plain: Any) -> Record:
    """Return the record of type `kind` that `to_plain` turned into `plain`.

    Raises ValueError, in one line, for an unknown key or a value of another type.
    """
    text = json.dumps(_unshaped(kind, plain), allow_nan=False)  # raises ValueError for NaN, which no record contains
    try:
        record: Record = _adapter(cast(Any, kind)).validate_json(text, strict=True)
        return record
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{place or kind.__name__}: {first['msg'].lower()}") from None


@lru_cache(maxsize=64)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@lru_cache(maxsize=64)
def _hints(kind: Any) -> Mapping[str, Any]:
    """Return the types of a record's fields by name."""
    hints = get_type_hints(kind)
    return {item.name: hints[item.name] for item in fields(kind)}


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and is_dataclass(kind)


def _unshaped(hint: Any, plain: Any) -> Any:
    """Return `plain` with the on-disk shapes turned back into fields. Raises ValueError for an unknown key."""
    arguments = get_args(hint)
    if _is_record(hint) and isinstance(plain, Mapping):
        plain = hint.unshaped(plain) if hasattr(hint, "unshaped") else plain
        unknown = sorted(set(plain) - set(_hints(hint)))
        if unknown:
            raise ValueError(f"{hint.__name__} has no {unknown[0]!r}")
        return {name: _unshaped(_hints(hint)[name], value) for name, value in plain.items()}
    if get_origin(hint) in (Union, UnionType):
        kinds = [kind for kind in arguments if _is_record(kind)]
        if not kinds or not isinstance(plain, Mapping):
            return plain
        # of several record types, the one with these fields
        return _unshaped(next((kind for kind in kinds if set(plain) <= set(_hints(kind))), kinds[0]), plain)
    if get_origin(hint) is tuple and isinstance(plain, list):
        return [_unshaped(arguments[0], item) for item in plain]
    if get_origin(hint) is Mapping and isinstance(plain, Mapping):
        return {key: _unshaped(arguments[1], value) for key, value in plain.items()}
    return plain


def write_record(path: Path, record: Any) -> None:
    """Write a record as a file with its form number, atomically."""
    write_own(path, to_plain(record))


def read_record_if_any(path: Path, kind: type[Record]) -> Record | None:
    """Read a record as `read_record` does; None if there is no such file."""
    return read_record(path, kind) if path.is_file() else None


def read_record(path: Path, kind: type[Record]) -> Record:
    """Read a record that `write_record` wrote.

    Raises InputError, naming what is wrong, for a damaged file, VersionError for one of another form number.
    """
    plain = read_own(path)
    try:
        return from_plain(kind, plain)
    except ValueError as error:
        raise InputError(
            f"is damaged ({error})", "restore it from a copy, or move its folder away", file=path
        ) from None
