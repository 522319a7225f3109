"""Recognises file types by their first bytes, whatever their names."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import BinaryIO

HEAD = 264
"""Bytes needed to recognise a file type."""

_FIRST: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", "PDF"),
    (b"PAR1\x15", "Parquet"),
    (b"PK\x03\x04", "ZIP"),
    (b"PK\x05\x06", "ZIP"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "OLE2"),
    *((b"BZh%d1AY&SY" % level, "bzip2") for level in range(1, 10)),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"SQLite format 3\0", "SQLite"),
    (b"\x89PNG\r\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"\x7fELF", "program"),
    (b"{\\rtf", "RTF"),
)
_OFFICE = (("xl/", "Excel"), ("word/", "Word"), ("ppt/", "PowerPoint"))
_SUFFIX = {"PDF": ".pdf", "Parquet": ".parquet", "Excel": ".xlsx", "Word": ".docx", "PowerPoint": ".pptx"}
_ARCHIVES = frozenset(("ZIP", "bzip2", "xz", "Zstandard", "7-Zip", "RAR", "tar"))
_WORDS: Mapping[str, tuple[str, str]] = {
    "OLE2": ("is an encrypted or an old Office file", "save it as .docx, .xlsx or .pptx, without a password"),
    "SQLite": ("is an SQLite database", "write its rows as CSV"),
    "RTF": ("is an RTF file", "save it as .docx or as text"),
    "program": ("is a program", "leave it out"),
}


def file_kind(head: bytes, whole: BinaryIO | None = None) -> str:
    """Return the type of a file from its first HEAD bytes, "" for possible text; `whole` distinguishes Office files
    from archives."""
    kind = next((name for first, name in _FIRST if head.startswith(first)), "")
    if head[257:262] == b"ustar":
        return "tar"
    if kind == "ZIP" and whole is not None:
        try:
            with zipfile.ZipFile(whole) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            return kind
        return next((office for folder, office in _OFFICE if any(name.startswith(folder) for name in names)), kind)
    return kind


def file_kind_of_bytes(data: bytes) -> str:
    """Return the type of a file from all of its bytes."""
    return file_kind(data[:HEAD], io.BytesIO(data))


def kind_refusal(kind: str) -> tuple[str, str]:
    """Return what is wrong with a file of this type in place of text, and what to do."""
    if kind in _WORDS:
        return _WORDS[kind]
    if kind in _ARCHIVES:
        return f"is {'an' if kind in ('xz', 'RAR') else 'a'} {kind} archive, not text", "unpack it"
    if kind in _SUFFIX:
        return f"is {'an' if kind == 'Excel' else 'a'} {kind} file, not text", f"let its name end in {_SUFFIX[kind]}"
    return f"is a {kind} image, not text", "leave it out"
