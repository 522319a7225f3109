"""Extracts the content of HTML, PDF, Word, Excel and PowerPoint files, in a worker process with limits."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.base.errors import InputError
from trimtab.base.sanitize import printable
from trimtab.base.worker import Worker
from trimtab.data.sources import BOMB_FLOOR, BOMB_RATIO, MB

SECONDS, MEGABYTES = 10, 512
"""Base limits of processor time (s) and memory (MB) for extracting a file."""
SECONDS_EACH: Mapping[str, int] = {"HTML": 10, "PDF": 40, "Word": 40, "Excel": 40, "PowerPoint": 40}
MEGABYTES_EACH: Mapping[str, int] = {"HTML": 64, "PDF": 16, "Word": 128, "Excel": 64, "PowerPoint": 128}
"""Additional limits per MB of a file, about four times the usual need."""
LONGEST_SECONDS, MOST_LETTERS = 600, 32 * MB
"""Upper limits of processor time (s) and characters, whatever the size."""
PACKAGES: Mapping[str, tuple[str, str]] = {
    "Word": ("docx", "python-docx"),
    "Excel": ("openpyxl", "openpyxl"),
    "PowerPoint": ("pptx", "python-pptx"),
}
"""Module and package for each kind of file of the extra `office`."""


def extract_content(
    kind: str, path: Path, data: bytes, title: str = "", *, sheet: str = "", what: str = "document"
) -> Any:
    """Extract the text or the rows of a file in the worker process, within limits that grow with its size.

    `what` is "document" (title and sections: pairs of heading path and text) or, for Excel, "rows" (sheets with their
    rows). Raises InputError for a file that is damaged, encrypted, beyond the limits, or of a kind whose package is not
    installed.
    """
    module, package = PACKAGES.get(kind, ("", ""))
    location: dict[str, Any] = {"file": path, "field": "data.documents" if what == "document" else None}
    if module and importlib.util.find_spec(module) is None:
        raise InputError(
            f"is for {kind}, and the package {package}, which reads it, is not installed",
            "install it with: pip install 'trimtab[office]'",
            **location,
        )
    size = len(data) / MB
    seconds = min(LONGEST_SECONDS, math.ceil(SECONDS + SECONDS_EACH[kind] * size))
    megabytes = math.ceil(MEGABYTES + MEGABYTES_EACH[kind] * size)
    letters = min(MOST_LETTERS, max(BOMB_FLOOR, BOMB_RATIO * len(data)))
    limits = {"seconds": seconds, "megabytes": megabytes, "letters": letters}
    request = {"kind": kind, "what": what, "title": title, "sheet": sheet, "size": len(data), **limits}
    answer = _extractor.ask(json.dumps(request), data, seconds=4 * seconds)
    if answer is None:
        answer = {"over": f"takes more than {seconds} s of processor time or {megabytes:,} MB of memory"}
    if "over" in answer:
        remedy = "save its text, or leave it out" if what == "document" else "save it as CSV"
        raise InputError(answer["over"], remedy, **location)
    if "encrypted" in answer:
        raise InputError("is encrypted", "save it without a password", **location)
    if "no_sheet" in answer:
        names = ", ".join(answer["no_sheet"])
        raise InputError(printable(f"has no sheet {sheet!r}"), printable(f"name one of: {names}", 200), **location)
    if "error" in answer:
        problem = f"not readable as {kind} ({printable(answer['error'], 120)})"
        raise InputError(problem, "save it again, or as text", **location)
    return answer


_extractor = Worker(
    Path(__file__).with_name("document_worker.py"),
    [],
    seconds=4 * LONGEST_SECONDS,
    longest=8 * MOST_LETTERS,
)
"""The process for all files."""
