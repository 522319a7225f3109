"""Tables of records that others can add to: metrics, contexts, methods, stages, kinds of files and endpoints."""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import cache
from pkgutil import resolve_name
from typing import Any, TypeVar

from trimtab.base.errors import InputError

RowT = TypeVar("RowT")


def add_row(table: MutableMapping[str, RowT], name: str, row: RowT) -> None:
    """Add a record to a table under its name. Raises InputError for a name that is taken."""
    if name in table:
        raise InputError(f"{name[:80]!r} is there already", "give what you add another name")
    table[name] = row


def resolve(value: Any) -> Any:
    """Return what a record refers to: "package.module:name" is imported, now; anything else is returned as it is."""
    return _resolve_name(value) if isinstance(value, str) else value


@cache
def _resolve_name(name: str) -> Any:
    return resolve_name(name)
