"""The process that extracts text from HTML, PDF and Office files: a line of JSON and the file's bytes in, a line of JSON out.

Files come from wherever they come from: the limits of this process keep a small one that unfolds into much from taking the machine.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

from trimtab.base.worker import answer_requests
from trimtab.data.markdown import parse_markdown
from trimtab.data.office import (
    Extracted,
    NoSheetError,
    PackedError,
    read_excel,
    read_excel_rows,
    read_powerpoint,
    read_word,
    refuse_bomb,
)


class _EncryptedError(Exception):
    """A PDF that wants a password."""


def _answer(asked: Mapping[str, Any], data: bytes) -> dict[str, Any]:
    """What was asked for, or why there is none."""
    try:
        if asked["kind"] not in ("HTML", "PDF"):
            refuse_bomb(data)
        return (_rows if asked["what"] == "rows" else _document)(asked, data)
    except PackedError as error:
        return {"over": str(error)}
    except NoSheetError as error:
        return {"no_sheet": [_whole(name) for name in error.args]}
    except _EncryptedError:
        return {"encrypted": True}
    except MemoryError:
        return {"over": f"takes more than {asked['megabytes']:,} MB of memory"}
    except Exception as error:  # noqa: BLE001 - the libraries let many kinds through on a damaged file
        return {"error": _whole(str(error)[:500]) or type(error).__name__}


def _document(asked: Mapping[str, Any], data: bytes) -> dict[str, Any]:
    """Title and sections."""
    title, found = _READERS[asked["kind"]](data, asked["title"])
    sections, left = [], asked["letters"]
    for headings, text in found:
        left -= len(text)
        if left < 0:
            raise _too_long(asked, data)
        if text:
            sections.append((tuple(map(_whole, headings)), _whole(text)))
    return {"title": _whole(title), "sections": sections}


def _rows(asked: Mapping[str, Any], data: bytes) -> dict[str, Any]:
    """The sheets of a workbook: name, and the number and cells of every row."""
    sheets, left = [], asked["letters"]
    for name, rows in read_excel_rows(data, asked["sheet"]):
        kept = []
        for number, cells in rows:
            left -= sum(map(len, cells)) + len(cells)
            if left < 0:
                raise _too_long(asked, data)
            kept.append((number, list(map(_whole, cells))))
        sheets.append((_whole(name), kept))
    return {"sheets": sheets}


def _too_long(asked: Mapping[str, Any], data: bytes) -> PackedError:
    return PackedError(f"{len(data):,} bytes give more than {asked['letters']:,} letters")


def _html(data: bytes, title: str) -> Extracted:
    import trafilatura

    whole = data if b"<html" in data[:4096].lower() else b"<html><body>" + data + b"</body></html>"
    text = trafilatura.extract(whole, output_format="markdown", include_comments=False, favor_recall=True)
    if not text:
        return title, iter([((), trafilatura.html2txt(whole).strip())])
    about = trafilatura.extract_metadata(whole)
    title, sections = parse_markdown(text, (about.title if about else None) or title)
    return title, ((section.path, section.text) for section in sections)


def _pdf(data: bytes, title: str) -> Extracted:
    import pypdf

    reader = pypdf.PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        raise _EncryptedError
    named = str(reader.metadata.title or "").strip() if reader.metadata else ""
    pages = enumerate(reader.pages, start=1)
    return named or title, (((f"page {number}",), (page.extract_text() or "").strip()) for number, page in pages)


_READERS: Mapping[str, Callable[[bytes, str], Extracted]] = {
    "HTML": _html,
    "PDF": _pdf,
    "Word": read_word,
    "Excel": read_excel,
    "PowerPoint": read_powerpoint,
}


def _whole(text: str) -> str:
    """The two halves of a character outside the first plane joined; half a character, which no file can hold, as U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


if __name__ == "__main__":
    answer_requests(lambda asked, data: json.dumps(_answer(asked, data), ensure_ascii=False))
