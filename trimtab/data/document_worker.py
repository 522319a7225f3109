"""The process that extracts text from HTML and PDF: a line of JSON and the file's bytes in, a line of JSON out.

Files come from wherever they come from: the limits of this process keep a small one that unfolds into much from taking the machine.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.base.worker import limit_memory, limit_time
from trimtab.data.markdown import parse_markdown

Extracted = tuple[str, Iterator[tuple[tuple[str, ...], str]]]


class _EncryptedError(Exception):
    """A PDF that wants a password."""


def main() -> None:
    """Extract what standard input asks for; each request names its own limits."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        limit_memory(asked["megabytes"], beyond_present=True)
        limit_time(asked["seconds"])
        data = sys.stdin.buffer.read(asked["size"])
        answer = json.dumps(_answer(asked, data), ensure_ascii=False)
        out.write(answer.encode() + b"\n")
        out.flush()


def _answer(asked: Mapping[str, Any], data: bytes) -> dict[str, Any]:
    """Title and sections, or why there are none."""
    sections, left = [], asked["letters"]
    try:
        title, found = (_html if asked["kind"] == "HTML" else _pdf)(data, asked["title"])
        for headings, text in found:
            left -= len(text)
            if left < 0:
                return {"over": f"{len(data):,} bytes give more than {asked['letters']:,} letters"}
            if text:
                sections.append((tuple(map(_whole, headings)), _whole(text)))
    except _EncryptedError:
        return {"encrypted": True}
    except MemoryError:
        return {"over": f"takes more than {asked['megabytes']:,} MB of memory"}
    except Exception as error:  # noqa: BLE001 - the libraries let many kinds through on a damaged file
        return {"error": _whole(str(error)[:500]) or type(error).__name__}
    return {"title": _whole(title), "sections": sections}


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


def _whole(text: str) -> str:
    """The two halves of a character outside the first plane joined; half a character, which no file can hold, as U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


if __name__ == "__main__":
    main()
