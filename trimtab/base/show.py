"""Base classes of results that display themselves: as text, as tables in a notebook, and as DataFrames."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from trimtab.base.errors import PackageError
from trimtab.base.sanitize import visible

if TYPE_CHECKING:
    import pandas

ShownRow = Mapping[str, Any]
MOST_ROWS, MOST_COLUMNS, WIDEST, SCREEN = 20, 6, 48, 100  # limits of a repr; the last two in characters


class Shown:
    """Base class of public results: the plain fields are one table, and each list of records is another."""

    __slots__ = ()

    @property
    def headline(self) -> str:
        """Return the result in one sentence, if it has one."""
        return ""

    def tables(self) -> dict[str, list[ShownRow]]:
        """Return the rows of each table by field name; the fields that are no lists are the single row of `result`."""
        from trimtab.base.codec import to_plain  # with it comes pydantic

        plain = to_plain(self)
        lists = {name: value for name, value in plain.items() if _is_table(value)}
        rest = {name: value for name, value in plain.items() if name not in lists}
        return {
            "result": [dict(flattened("", rest))],
            **{name: [dict(flattened("", row)) for row in rows] for name, rows in lists.items()},
        }

    def frames(self) -> dict[str, pandas.DataFrame]:
        """Return the tables as DataFrames. Raises PackageError without pandas."""
        try:
            import pandas
        except ImportError:
            raise PackageError("pandas", "notebook", "frames()") from None
        return {name: pandas.DataFrame(rows) for name, rows in self.tables().items()}

    def screen(self) -> Sequence[ShownRow]:
        """Return the rows for a terminal, at most six columns wide; by default one plain field per row."""
        (fields,) = self.tables()["result"]
        return [{"": name, " ": value} for name, value in fields.items() if value not in ("", self.headline)][
            :MOST_ROWS
        ]

    def __repr__(self) -> str:
        return "\n".join(
            part for part in (_wrapped(self.headline or type(self).__name__), text_table(self.screen())) if part
        )

    def _repr_html_(self) -> str:
        tables = self.tables()
        (fields,) = tables.pop("result")
        parts = [f"<p><b>{_shown(self.headline)}</b></p>"] if self.headline else []
        parts += [f"<p>{_shown(name)}</p>{_table(rows)}" for name, rows in tables.items() if rows]
        pairs = [{"": name, " ": value} for name, value in fields.items()]
        parts.append(f"<details><summary>more</summary>{_table(pairs)}</details>" if parts else _table(pairs))
        return "".join(parts)


class ShownRows(tuple[Any, ...], Shown):
    """A tuple of records of one type that displays itself."""

    __slots__ = ()

    def tables(self) -> dict[str, list[ShownRow]]:
        """Return one table with a row for each record."""
        from trimtab.base.codec import to_plain

        return {"result": [{"count": len(self)}], "rows": [dict(flattened("", to_plain(row))) for row in self]}

    def screen(self) -> Sequence[ShownRow]:
        """Return the first rows with their first columns."""
        rows = self.tables()["rows"]
        names = list(dict.fromkeys(name for row in rows for name, value in row.items() if value is not None))
        names = names[:MOST_COLUMNS]
        return [{name: row.get(name) for name in names} for row in rows[:MOST_ROWS]]

    @property
    def headline(self) -> str:
        """Return the number of records."""
        return f"{len(self)} row{'s' * (len(self) != 1)}"

    __repr__ = Shown.__repr__  # a tuple has its own


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def flattened(before: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield nested values by dotted keys; None is left out, a list is one value."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flattened(f"{before}.{key}" if before else key, item)
    elif value is not None:
        yield before, ", ".join(map(str, value)) if isinstance(value, list) else value


def text_table(rows: Sequence[ShownRow]) -> str:
    """Return rows as plain text: first column left-aligned, long cells cut, empty columns left out."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    texts = [{name: _text(row.get(name)) for name in names} for row in rows]
    filled = [name for name in names if any(row[name] for row in texts)]
    widths = {name: max(len(name), *(len(row[name]) for row in texts)) for name in filled}
    lines = ({name: name for name in filled}, *texts) if any(name.strip() for name in filled) else texts

    def line(row: ShownRow) -> str:
        cells = (
            row[name].rjust(widths[name]) if place and name.strip() else row[name].ljust(widths[name])
            for place, name in enumerate(filled)
        )
        return "  ".join(cells).rstrip()

    return "\n".join(map(line, lines))


def _text(value: Any) -> str:
    text = " ".join((f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)).split())
    return visible(text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…")


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(visible(text), SCREEN))


def _table(rows: Sequence[ShownRow]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{_shown(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(row.get(name))}</td>' for name in columns)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else _shown(value)


def _shown(value: object) -> str:
    """Return foreign text for HTML: no markup, and no control characters."""
    return escape(visible(str(value)))
