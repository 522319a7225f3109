"""Files that survive a crash: atomic writes, appends of whole lines, form numbers, hashes, and a lock that allows one
writer per folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from trimtab.base.errors import BusyError, InputError, MissingError, VersionError

FORM = 3  # of the files that Trimtab writes and reads back; increased whenever one of them changes its meaning
PARQUET_FORM = {b"trimtab_form": str(FORM).encode()}  # the same in the metadata of a Parquet schema
TIME = "%Y%m%dT%H%M%SZ"  # format of the beginning of study and run IDs
_DATASET_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def cache_root() -> Path:
    """Return the folder for models and compiled kernels: `TRIMTAB_CACHE`, or `~/.cache/trimtab`."""
    own = os.environ.get("TRIMTAB_CACHE")
    return Path(own).expanduser() if own else Path.home() / ".cache" / "trimtab"


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` atomically: a reader sees the old file or the new one. An OSError names `path`."""
    data = content.encode() if isinstance(content, str) else content
    with replacing(path) as beside, open(beside, "xb") as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Context manager: yields a path to write to; the file is then synced and replaces `path` atomically.

    The path lies in a temporary folder beside `path`, with anything that a killed writer leaves: safetensors from
    0.8 on writes to a name of its own first, with a mode for this user alone. An OSError names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # processes of several machines may write below one folder, in containers with the same number
    beside = path.with_name(f".{path.name}.{os.getpid()}-{socket.gethostname()}.part")
    written = beside / path.name
    try:
        _remove(beside)  # left by a killed process, or a symbolic link put there by somebody
        beside.mkdir()
        yield written
        written.chmod(beside.stat().st_mode & 0o666)  # the mode of any new file under the umask
        sync(written)
        os.replace(written, path)
        sync(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            _remove(beside)


def remove_partial(folder: Path, names: str = "*") -> None:
    """Delete what a killed process left beside files of these names; this process must be their only writer."""
    for path in folder.glob(f".{names}.part"):
        _remove(path)


def remove_all_partial(folder: Path) -> None:
    """Delete what killed writers left in a folder and below; this process must be the only writer there."""
    for path in list(folder.rglob(".*.[0-9]*.part")):  # the name that `replacing` uses
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file, or a folder's renames, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def matching(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield the paths that a glob matches below a folder, in every Python: `**` at the end matches files too.

    Raises ValueError for an invalid pattern such as `a**`, which Python treats as `a*` since 3.13.
    """
    parts = Path(pattern).parts
    if any("**" in part and part != "**" for part in parts):
        raise ValueError(f"{pattern!r} has ** beside other letters")
    return folder.glob(f"{pattern}/*" if parts[-1:] == ("**",) else pattern)


def split_sheet(path: Path) -> tuple[Path, str]:
    """Return the path and sheet of `book.xlsx#Sheet`; any other path with an empty sheet."""
    name, mark, sheet = path.name.rpartition("#")
    if mark and name.lower().endswith(".xlsx") and not os.path.lexists(path):
        return path.with_name(name), sheet
    return path, ""


def is_dataset_id(name: str) -> bool:
    """True if `name` has the form of a Hugging Face dataset id, `owner/name`."""
    return bool(_DATASET_ID.fullmatch(name)) and not Path(name).suffix


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN is refused."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read one JSON value. Raises InputError for anything but a regular file: a FIFO would never end."""
    if path.exists() and not path.is_file():
        raise InputError("is no regular file", "give one", file=path)
    return json.loads(path.read_text(encoding="utf-8"))


def read_object(path: Path, *keys: str) -> dict[str, Any]:
    """Read a JSON object that has `keys`. Raises InputError if it is damaged."""
    remedy = "restore it from a copy, or move its folder away"
    try:
        value = read_json(path)
    except (ValueError, RecursionError) as error:
        raise InputError(f"is damaged ({error})", remedy, file=path) from None
    if not isinstance(value, dict):
        raise InputError("is damaged (not an object)", remedy, file=path)
    lacking = [key for key in keys if key not in value]
    if lacking:
        raise InputError(f"is damaged (no {', '.join(lacking)})", remedy, file=path)
    return value


def write_own(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object that Trimtab reads back, with its form number, atomically."""
    write_json(path, {"form": FORM, **value})


def read_own(path: Path) -> dict[str, Any]:
    """Read what `write_own` wrote. Raises InputError if it is damaged, VersionError if it has another form number."""
    value = read_object(path)
    require_form(value.pop("form", None), path)
    return value


def require_form(form: object, path: Path | str, line: int | None = None) -> None:
    """Raise VersionError unless the form number of a file is the present one."""
    if form != FORM:
        raise other_form(path, form, FORM, "make it again with this version, or use the one that wrote it", line)


def require_parquet_form(metadata: Mapping[bytes, bytes] | None, path: Path) -> None:
    """Raise VersionError unless the metadata of a Parquet file have the present form number."""
    form = (metadata or {}).get(b"trimtab_form", b"").decode("utf-8", "replace")[:20]
    require_form(int(form) if form.isdecimal() else form or None, path)


def other_form(file: Path | str, form: object, own: int, remedy: str, line: int | None = None) -> VersionError:
    """Return the error for a file or database that has another form number than the one that is read, `own`."""
    if form is None:
        problem = f"is damaged or of another version (no form number; this version of Trimtab reads form {own})"
    else:
        number = form if isinstance(form, int) else f"{str(form)[:20]!r}"
        problem = f"has form {number}, and this version of Trimtab reads form {own}"
    return VersionError(problem, remedy, file=file, line=line)


def existing_folder(home: Path, name: str, what: str, listing: str) -> Path:
    """Return the folder `name` directly in `home`. Raises MissingError if it is absent or no plain name, such as `..`.

    `listing`: the command that lists the folders there.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) or not (home / name).is_dir():
        raise MissingError(f"{home}: no such {what} {name[:80]!r}; {listing} lists them")
    return home / name


def new_folder(home: Path, suffix: str) -> Path:
    """Create the folder `TIME-suffix` in `home` and return it; TIME is UTC, later if that exists already."""
    while True:
        folder = home / f"{datetime.now(UTC):{TIME}}-{suffix}"
        home.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:
            time.sleep(0.1)
        else:
            return folder


def append_line(path: Path, value: Any) -> None:
    """Append one JSON line; first remove a last line that a crash or a full disk cut off.

    An OSError names `path`, also for a symbolic link, which is not followed.
    """
    line = json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        with open(path, "ab+", opener=_no_link) as file:
            _drop_cut_line(file)
            file.write(line.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _drop_cut_line(file: IO[bytes]) -> None:
    end = file.seek(0, os.SEEK_END)
    start = end
    while start:  # stops at once unless the last line was cut off
        start = file.seek(max(0, start - 4096))
        newline = file.read(min(4096, end - start)).rfind(b"\n")
        if newline >= 0 or start == 0:
            if start + newline + 1 < end:
                file.truncate(start + newline + 1)
            return


def read_json_lines(path: Path, *keys: str) -> Iterator[Any]:
    """Yield the JSON lines of a file that `append_line` wrote, but a cut-off last one. `keys`: those that each has.

    Raises InputError for a damaged line.
    """
    if not path.is_file():
        return
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                value = json.loads(line)
                whole = not keys or (isinstance(value, dict) and value.keys() >= set(keys))
            except (ValueError, RecursionError):
                whole = False
            if not whole:
                raise InputError("is damaged", "take this line out", file=path, line=number)
            yield value


def append_own(path: Path, value: Mapping[str, Any]) -> None:
    """Append an object, with its form number, as `append_line` does, to a file that Trimtab reads back."""
    append_line(path, {**value, "form": FORM})


def read_own_lines(path: Path, *keys: str) -> Iterator[dict[str, Any]]:
    """Yield the objects that `append_own` wrote. Raises VersionError for another form number."""
    for number, value in enumerate(read_json_lines(path, *keys), 1):
        require_form(value.pop("form", None) if isinstance(value, dict) else None, path, number)
        yield value


def cut_off_line(path: Path) -> tuple[int, str] | None:
    """Return number and text of the last line of a file that `append_line` wrote if it is cut off, else None."""
    if not path.is_file():
        return None
    lines = path.read_bytes().split(b"\n")
    return (len(lines), lines[-1].decode("utf-8", "replace")) if lines[-1] else None


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_cached(path: Path) -> str:
    """Return `sha256_file`, computed once per process while the file is unchanged.

    A replaced or modified file is recognised by size, times and inode, and is hashed again.
    """
    stat = path.stat()
    return _sha256_of_state(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


@lru_cache(maxsize=1024)
def _sha256_of_state(path: Path, *_: int) -> str:
    return sha256_file(path)


def sha256_text(*parts: str) -> str:
    """Return the SHA-256 of texts, each ended by a NUL so that different lists cannot collide."""
    found = TextHash()
    for part in parts:
        found.add(part)
    return found.hexdigest()


class TextHash:
    """The SHA-256 of texts that are added one by one; equal to `sha256_text` of all of them."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, text: str) -> None:
        """Add a text."""
        self._digest.update(text.encode("utf-8", "surrogatepass") + b"\0")

    def hexdigest(self) -> str:
        """Return the hash of the texts so far."""
        return self._digest.hexdigest()


def refuse_links(folder: Path) -> None:
    """Raise InputError if one of Trimtab's folders is, or contains, a symbolic link: writes would land elsewhere."""
    inside = (Path(top) / name for top, folders, files in os.walk(folder) for name in (*folders, *files))
    link = next((path for path in (folder, *inside) if path.is_symlink()), None)
    if link is not None:
        raise InputError("is a symbolic link, and Trimtab made none", "delete it", file=link)


@contextmanager
def locked(folder: Path, seconds: float = 0.0) -> Iterator[None]:
    """Context manager: holds `folder`, and everything below, as its only writer.

    `seconds`: how long to wait for another writer. The system frees the lock of a dead process, whose unfinished files
    are deleted. Raises BusyError with the pid and host of the holder, OSError for
    a symbolic link in the lock's place.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / ".holder"  # beside the lock: waiting processes must be able to read it, never to write it
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=seconds, poll_interval=0.2)
    except Timeout:
        who = holder.read_text(encoding="utf-8", errors="replace") if holder.is_file() else "another process"
        raise BusyError(f"{folder} is being written by {who.strip()}; wait for it or stop it") from None
    try:
        remove_all_partial(folder)
        write_atomic(holder, f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        lock.release()
