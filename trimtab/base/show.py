"""Results that show themselves: as tables in a notebook, and as DataFrames by one call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from trimtab.base.errors import PackageError

if TYPE_CHECKING:
    import pandas

Row = Mapping[str, Any]


class Shown:
    """What a verb returns: its plain fields are one table, and each list of records in it is another."""

    __slots__ = ()

    @property
    def headline(self) -> str:
        """The result in one sentence, where it has one."""
        return ""

    def tables(self) -> dict[str, list[Row]]:
        """Rows by the name of the field that holds them; the fields that are no lists are the one row of `result`."""
        from trimtab.base.codec import to_plain  # with it comes pydantic

        plain = to_plain(self)
        lists = {name: value for name, value in plain.items() if _is_table(value)}
        rest = {name: value for name, value in plain.items() if name not in lists}
        return {
            "result": [dict(_flat("", rest))],
            **{name: [dict(_flat("", row)) for row in rows] for name, rows in lists.items()},
        }

    def frames(self) -> dict[str, pandas.DataFrame]:
        """Its tables as DataFrames; raises PackageError without pandas."""
        try:
            import pandas
        except ImportError:
            raise PackageError("pandas", "notebook", "frames()") from None
        return {name: pandas.DataFrame(rows) for name, rows in self.tables().items()}

    def _repr_html_(self) -> str:
        tables = self.tables()
        (fields,) = tables.pop("result")
        parts = [f"<p><b>{escape(self.headline)}</b></p>"] if self.headline else []
        parts += [f"<p>{escape(name)}</p>{_table(rows)}" for name, rows in tables.items() if rows]
        pairs = [{"": name, " ": value} for name, value in fields.items()]
        parts.append(f"<details><summary>more</summary>{_table(pairs)}</details>" if parts else _table(pairs))
        return "".join(parts)


class ShownRows(tuple[Any, ...], Shown):
    """Several records of one kind, as a tuple that shows itself."""

    __slots__ = ()

    def tables(self) -> dict[str, list[Row]]:
        """One table: a row for each record."""
        from trimtab.base.codec import to_plain

        return {"result": [{"count": len(self)}], "rows": [dict(_flat("", to_plain(row))) for row in self]}


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _flat(before: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Nested objects by dotted keys; what is None is left out, a list is one value."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{before}.{key}" if before else key, item)
    elif value is not None:
        yield before, ", ".join(map(str, value)) if isinstance(value, list) else value


def _table(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(row.get(name))}</td>' for name in columns)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else escape(str(value))
