"""Studies as the report reads them, with fields changed."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

Record = TypeVar("Record")


def changed(record: Record, **values: Any) -> Record:
    """A record with other values of its fields, or of those of its `result`."""
    own = {item.name for item in fields(record)}  # type: ignore[arg-type]
    of_result = {name: value for name, value in values.items() if name not in own}
    if of_result:
        values = {name: value for name, value in values.items() if name in own}
        values["result"] = replace(record.result, **of_result)  # type: ignore[attr-defined]
    return replace(record, **values)  # type: ignore[type-var]
