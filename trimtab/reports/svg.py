"""Builds SVG elements safely: plain text and attribute values are escaped."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

from trimtab.reports.formatting import replace_unprintable


def _flatten(children: Iterable[object]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            yield child
        elif isinstance(child, str):
            yield escape(replace_unprintable(child))
        elif isinstance(child, Iterable):
            yield from _flatten(child)
        else:
            yield escape(child)


def join(*children: object) -> Markup:
    """Concatenate the children; plain text is escaped."""
    return Markup("").join(_flatten(children))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Return an element; `class_` gives `class`, other underscores become hyphens, None omits an attribute."""
    rendered = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(replace_unprintable(str(value)))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{rendered}>{join(*children)}</{tag}>")  # noqa: S704 - every part of it is escaped above
