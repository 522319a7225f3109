"""Resolves paths and patterns, and reads text safely: regular files only, bounded memory, one encoding, no gzip
bombs."""

from __future__ import annotations

import codecs
import errno
import io
import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from trimtab.base.errors import InputError
from trimtab.base.files import matching, split_sheet
from trimtab.base.gunzip import Gunzip
from trimtab.data import signatures

MB = 1024 * 1024
LINE_CAP = 8 * MB
"""Most characters of a line or field."""
WHOLE_CAP = 256 * MB
"""Most bytes of a file that is read as one value (.json, documents)."""
TOTAL_CAP = 16 * 1024 * MB
"""Most unpacked bytes of one compressed file."""
BOMB_FLOOR, BOMB_RATIO = 2 * MB, 100
"""A file is a decompression bomb if it unpacks to more than BOMB_FLOOR bytes and BOMB_RATIO times its size; text gives
3 to 20."""

_BLOCK = 256 * 1024
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISDIR, "a folder"),
)


def resolve_pattern(folder: Path, pattern: str, suffixes: Sequence[str], field: str) -> tuple[tuple[Path, Path], ...]:
    """Return the files that `pattern` (a file, folder or glob, relative to `folder`) stands for, sorted, each with its
    root.

    The root is the listed folder, or the parent of a single file or glob match. In folders only `suffixes` count, and
    hidden files are left out. Raises InputError if nothing is found.
    """
    path = folder / pattern
    if path.is_dir():
        found = [(item, path) for item in files_below(path) if item.name.lower().endswith(tuple(suffixes))]
        if not found:
            raise InputError(f"no file of {', '.join(suffixes)} in this folder", "add one", file=path, field=field)
        return tuple(found)
    if os.path.lexists(split_sheet(path)[0]):
        return ((path, path.parent),)
    path_given = Path(pattern)  # the folder's own name may contain glob characters, such as [2026]
    start, rest = (
        (Path(path_given.anchor), str(path_given.relative_to(path_given.anchor)))
        if path_given.is_absolute()
        else (folder, pattern)
    )
    matches = sorted(item for item in matching(start, rest) if not item.is_dir())
    if not matches:
        raise InputError(f"{pattern} does not exist", "paths are relative to the task file", file=folder, field=field)
    return tuple((item, item.parent) for item in matches)


def files_below(folder: Path) -> list[Path]:
    """Return every file below `folder`, sorted, without hidden ones; links to folders are not followed, which avoids
    loops."""
    found = sorted(Path(top) / name for top, _, names in os.walk(folder) for name in names)
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _open(path: Path) -> io.BufferedReader:
    try:
        mode = os.stat(path).st_mode
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), None)
        if kind is None:
            return open(path, "rb")
    except FileNotFoundError:
        raise InputError("does not exist", "check the name", file=path) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError("is a symbolic link that leads to itself", "give a regular file", file=path) from None
        raise InputError(f"cannot be read ({error.strerror})", "check its permissions", file=path) from None
    raise InputError(f"is {kind}, not a file", "give a regular file", file=path)


@contextmanager
def open_checked(path: Path) -> Iterator[BinaryIO]:
    """Context manager: a regular file opened for reading; gzip is recognised by its first bytes and unpacked.

    Raises InputError for a FIFO, device, folder, link to itself, unreadable or empty file.
    """
    file = _open(path)
    with file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise InputError("the file is empty", "fill it, or leave it out", file=path)
        is_gzip = file.peek(2)[:2] == b"\x1f\x8b"
        if not is_gzip and path.suffix == ".gz":
            raise InputError("is called .gz and is not gzip", "rename or compress it", file=path)
        yield io.BufferedReader(_UnpackedFile(file, path), _BLOCK) if is_gzip else file


def kind_of_file(path: Path) -> str:
    """Return the type of a file by its first bytes (`signatures.file_kind`), "" for possible text."""
    with open_checked(path) as file:
        return signatures.file_kind(file.read(signatures.HEAD), file if file.seekable() else None)


def is_bomb(unpacked: int, packed: int) -> bool:
    """True if the unpacked size is implausibly large for the packed one."""
    return unpacked > max(BOMB_FLOOR, BOMB_RATIO * packed)


class _UnpackedFile(io.RawIOBase):
    """The unpacked bytes of a gzip file; bombs and damage raise InputError."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._pieces, self._rest = self._unpacked(), memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

    def _unpacked(self) -> Iterator[bytes]:
        gunzip = Gunzip()
        try:
            while data := self._file.read(_BLOCK):
                for piece in gunzip.feed(data):
                    if gunzip.unpacked > TOTAL_CAP or is_bomb(gunzip.unpacked, gunzip.packed):
                        problem = (
                            f"{gunzip.packed:,} compressed bytes unpack to more than {gunzip.unpacked:,}: a "
                            "decompression bomb"
                        )
                        raise InputError(problem, "unpack it yourself if you trust it", file=self._path)
                    yield piece
        except zlib.error as error:
            raise InputError(f"the gzip file is damaged ({error})", "copy it again", file=self._path) from None
        if not gunzip.is_whole:
            raise InputError("the gzip file is cut off", "copy it again", file=self._path)
        if gunzip.has_trailing_data:
            raise InputError("the gzip file is damaged (other data at its end)", "copy it again", file=self._path)


def read_bytes(path: Path) -> bytes:
    """Return the whole file, up to WHOLE_CAP bytes."""
    with open_checked(path) as file:
        data = file.read(WHOLE_CAP + 1)
    if len(data) > WHOLE_CAP:
        raise InputError(f"is larger than {WHOLE_CAP // MB} MB", "split it, or write its rows as JSON lines", file=path)
    return data


def read_text(path: Path, encoding: str) -> str:
    """Return the whole file as text, up to WHOLE_CAP bytes, without a byte order mark."""
    return "".join(_blocks(io.BytesIO(read_bytes(path)), path, encoding))


def read_text_lines(path: Path, encoding: str) -> Iterator[str]:
    r"""Yield the lines of a text file, each with its "\n" (U+2028 and the like end no line).

    A line has at most LINE_CAP characters; a longer one raises InputError.
    """
    with open_checked(path) as file:
        pending: list[str] = []
        length, number = 0, 1
        for block in _blocks(file, path, encoding):
            *whole, rest = block.split("\n")
            for piece in whole:
                yield "".join((*pending, piece, "\n"))
                pending, length = [], 0
                number += 1
            pending.append(rest)
            length += len(rest)
            if length > LINE_CAP:
                raise InputError(
                    f"the line is longer than {LINE_CAP // MB} MB",
                    "is this one row a line? split the row, or leave it out",
                    file=path,
                    line=number,
                )
        if length:
            yield "".join(pending)


def _blocks(file: BinaryIO, path: Path, encoding: str) -> Iterator[str]:
    """Yield decoded text in pieces; invalid bytes and NULs are refused with line and offset."""
    decoder = _decoder(path, encoding)
    offset, line, first = 0, 1, True
    while True:
        data = file.read(_BLOCK)
        if first:
            _refuse_binary(data, path)
            _refuse_undeclared_utf16(data, path, encoding)
        undecoded = len(decoder.getstate()[0])
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeError as error:
            seen = error.object[: error.start] if isinstance(error, UnicodeDecodeError) else b""
            byte = error.object[error.start :][:1] if isinstance(error, UnicodeDecodeError) else b""
            raise _not_decodable(
                path, encoding, line + seen.count(b"\n"), offset - undecoded + len(seen), byte
            ) from None
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        if "\0" in text:
            line += text.count("\n", 0, text.index("\0"))
            raise InputError("holds a NUL byte", "is this a text file? remove the byte", file=path, line=line)
        line += text.count("\n")
        offset += len(data)
        if text:
            yield text
        if not data:
            return


def _decoder(path: Path, encoding: str) -> codecs.IncrementalDecoder:
    try:
        " ".encode(encoding)  # fails for codecs that are no text encodings, such as base64
        return codecs.getincrementaldecoder(encoding)("strict")
    except (LookupError, UnicodeError, ValueError):
        raise InputError(
            f"unknown encoding {encoding!r}", "use utf-8, cp1252, utf-16 …", file=path, field="data.encoding"
        ) from None


def _refuse_binary(data: bytes, path: Path) -> None:
    """Refuse non-text files by their first bytes."""
    kind = signatures.file_kind(data[: signatures.HEAD])
    if kind == "ZIP":
        kind = kind_of_file(path)
    if kind:
        raise InputError(*signatures.kind_refusal(kind), file=path)


def _refuse_undeclared_utf16(data: bytes, path: Path, encoding: str) -> None:
    """Refuse undeclared UTF-16 and UTF-32, recognised by the byte order mark, or by NULs in every second byte."""
    if encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32", "utf16", "utf32")):
        return
    detected = utf16_or_32(data)
    if detected:
        raise InputError(
            f"is {detected.upper()}, not {encoding.upper()}",
            f'save it as UTF-8, or set data.encoding = "{detected}"',
            file=path,
            line=1,
        )


def utf16_or_32(data: bytes) -> str | None:
    """Return UTF-16 or UTF-32 if the first bytes of a file show it, else None."""
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), None)
    head = data[:512]
    if encoding is None and len(head) >= 8:
        halves = head[0::2], head[1::2]
        zeros = [half.count(0) / len(half) for half in halves]
        if max(zeros) > 0.7 and min(zeros) < 0.3:
            encoding = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    return encoding


def _not_decodable(path: Path, encoding: str, line: int, place: int, byte: bytes) -> InputError:
    found = f"byte 0x{byte.hex().upper()} at offset {place:,}" if byte else f"something after offset {place:,}"
    if codecs.lookup(encoding).name == "utf-8":
        remedy = 'save it as UTF-8, or if all of it is Western European set data.encoding = "cp1252" (or "latin-1")'
    else:
        remedy = "save it as UTF-8, or set data.encoding to what it is"
    return InputError(f"{found} is not {encoding.upper()}", remedy, file=path, line=line)
