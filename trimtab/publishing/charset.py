"""The charset of a page: how its bytes are decoded, and what is wrong with what the page says of it."""

from __future__ import annotations

import codecs
import re

from trimtab.publishing.page_links import is_html
from trimtab.publishing.records import Fetched

_CHARSET = re.compile(rb"""charset\s*=\s*["']?\s*([\w-]+)""", re.I)
_META = re.compile(rb"""<meta[^>]*charset\s*=\s*["']?\s*([\w-]+)""", re.I)
_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
META_WITHIN = 1024  # bytes in which `meta charset` must stand (HTML standard, section 4.2.5.4)
# Bytes of UTF-8 that were read as Windows-1252 and written again: "Ã¼" for "ü", "â€™" for an apostrophe.
_TWICE = re.compile(
    "\u00c3[\u0080-\u00bf\u0152\u0153\u0192\u0160\u0161\u017d\u017e\u0178\u2013-\u2122]|\u00e2\u20ac[\u0080-\u2122]"
)


def decoded(fetched: Fetched) -> str:
    """Decode an answer by the charset of its header, its byte order mark or its `meta`, else UTF-8, else
    Windows-1252."""
    content = fetched.content
    for mark, name in _MARKS:
        if content.startswith(mark):
            return content.decode(name, "replace")
    charset = _of_header(fetched) or _of_meta(content[:2048])
    for name in (charset or "utf-8", "utf-8"):
        try:
            return content.decode(name)
        except (LookupError, UnicodeDecodeError):
            continue
    return content.decode("utf-8", "replace") if fetched.cut else content.decode("cp1252", "replace")


def charset_problem(fetched: Fetched) -> str | None:
    """Say what is wrong with the charset of an HTML page with letters beyond ASCII; None where nothing is."""
    content = fetched.content
    if not is_html(fetched) or content.isascii() or content.startswith(tuple(mark for mark, _ in _MARKS)):
        return None
    header, meta = _of_header(fetched), _of_meta(content)
    charset = header or meta
    if charset is None:
        return "no charset in the header or in meta, and letters beyond ASCII"
    if header and meta and _name(header) != _name(meta):
        return f"charset {header} in the header, and {meta} in meta"
    if not header and not _META.search(content[:META_WITHIN]):
        return f"meta charset={meta} stands behind the first {META_WITHIN:,} bytes"
    try:
        text = content.decode(charset, "ignore" if fetched.cut else "strict")
    except LookupError:
        return f"the charset {charset} is none"
    except UnicodeDecodeError as error:
        return f"the charset is {charset}, and byte {error.start:,} is none of it"
    if twice := _TWICE.search(text):
        around = " ".join(text[max(0, twice.start() - 12) : twice.end() + 12].split())
        return f"letters that were encoded twice: {around}"
    lost = text.find("\ufffd")
    return (
        None
        if lost < 0
        else f"letters that were lost (U+FFFD): {' '.join(text[max(0, lost - 12) : lost + 12].split())}"
    )


def _of_header(fetched: Fetched) -> str | None:
    found = _CHARSET.search(fetched.headers.get("content-type", "").encode("latin-1", "replace"))
    return found[1].decode("ascii", "replace") if found else None


def _of_meta(content: bytes) -> str | None:
    found = _META.search(content) or _CHARSET.search(content[:2048])
    return found[1].decode("ascii", "replace") if found else None


def _name(charset: str) -> str:
    """Return one name for all of a charset's; browsers read Latin-1 and ASCII as Windows-1252."""
    try:
        name = codecs.lookup(charset).name
    except LookupError:
        return charset.lower()
    return "cp1252" if name in ("iso8859-1", "ascii") else name
