"""Worker process that extracts text from HTML, PDF and Office files: a line of JSON and the file's bytes in, JSON out.

Files are untrusted: the limits of this process stop small files that unpack to huge ones.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

from trimtab.base.worker import answer_requests
from trimtab.data.html_text import html_markdown
from trimtab.data.markdown import parse_markdown
from trimtab.data.office import (
    DecompressionBombError,
    ExtractedText,
    NoSheetError,
    read_excel_rows,
    read_excel_sections,
    read_powerpoint,
    read_word,
    refuse_bomb,
)


class _EncryptedError(Exception):
    """A PDF that needs a password."""


def _answer(request: Mapping[str, Any], data: bytes) -> dict[str, Any]:
    """Return the result of a request, or the reason why there is none."""
    try:
        if request["kind"] not in ("HTML", "PDF"):
            refuse_bomb(data)
        return (_rows if request["what"] == "rows" else _document)(request, data)
    except DecompressionBombError as error:
        return {"over": str(error)}
    except NoSheetError as error:
        return {"no_sheet": [_join_surrogates(name) for name in error.args]}
    except _EncryptedError:
        return {"encrypted": True}
    except MemoryError:
        return {"over": f"takes more than {request['megabytes']:,} MB of memory"}
    except Exception as error:  # noqa: BLE001 - the libraries let many kinds through on a damaged file
        return {"error": _join_surrogates(str(error)[:500]) or type(error).__name__}


def _document(request: Mapping[str, Any], data: bytes) -> dict[str, Any]:
    """Return title and sections of a document."""
    title, found = _READERS[request["kind"]](data, request["title"])
    sections, letters_left = [], request["letters"]
    for headings, text in found:
        letters_left -= len(text)
        if letters_left < 0:
            raise _too_long(request, data)
        if text:
            sections.append((tuple(map(_join_surrogates, headings)), _join_surrogates(text)))
    return {"title": _join_surrogates(title), "sections": sections}


def _rows(request: Mapping[str, Any], data: bytes) -> dict[str, Any]:
    """Return the sheets of a workbook: name, and number and cells of every row."""
    sheets, letters_left = [], request["letters"]
    for name, rows in read_excel_rows(data, request["sheet"]):
        kept_rows = []
        for number, cells in rows:
            letters_left -= sum(map(len, cells)) + len(cells)
            if letters_left < 0:
                raise _too_long(request, data)
            kept_rows.append((number, list(map(_join_surrogates, cells))))
        sheets.append((_join_surrogates(name), kept_rows))
    return {"sheets": sheets}


def _too_long(request: Mapping[str, Any], data: bytes) -> DecompressionBombError:
    return DecompressionBombError(f"{len(data):,} bytes give more than {request['letters']:,} letters")


def _html(data: bytes, title: str) -> ExtractedText:
    import trafilatura

    whole = data if b"<html" in data[:4096].lower() else b"<html><body>" + data + b"</body></html>"
    text = html_markdown(data)
    if not text:
        return title, iter([((), trafilatura.html2txt(whole).strip())])
    about = trafilatura.extract_metadata(whole)
    title, sections = parse_markdown(text, (about.title if about else None) or title)
    return title, ((section.path, section.text) for section in sections)


def _pdf(data: bytes, title: str) -> ExtractedText:
    import pypdf

    reader = pypdf.PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        raise _EncryptedError
    metadata_title = str(reader.metadata.title or "").strip() if reader.metadata else ""
    pages = enumerate(reader.pages, start=1)
    return metadata_title or title, (
        ((f"page {number}",), (page.extract_text() or "").strip()) for number, page in pages
    )


_READERS: Mapping[str, Callable[[bytes, str], ExtractedText]] = {
    "HTML": _html,
    "PDF": _pdf,
    "Word": read_word,
    "Excel": read_excel_sections,
    "PowerPoint": read_powerpoint,
}


def _join_surrogates(text: str) -> str:
    """Join surrogate pairs to characters; a lone surrogate, which no file can hold, becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


if __name__ == "__main__":
    answer_requests(lambda request, data: json.dumps(_answer(request, data), ensure_ascii=False))
