"""Keeps folders of a study in an object store, for machines that share no disk.

A folder is a list of its files with their SHA-256, and each file under its SHA-256 beside the list. The list is
replaced last, so that a reader gets the folder as it was at one moment. A file that is there is not sent again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from trimtab.base.errors import InputError, MissingError, RemoteError
from trimtab.base.files import replacing, sha256_file, sync
from trimtab.base.object_store import open_store_files, store_errors

LIST = "files.json"
SCHEMES = ("s3", "gs", "az")  # which show a file when it is whole
_SMALL = 8 << 20  # bytes of a file that is read at once, as it may be appended to
_TRIES = 3  # a list is read again if a file of it was replaced meanwhile
_FIELD = "--store"
Stamp = tuple[Path, int, int, int]  # of a file: path, time, size and number; another one is another content


@dataclass(frozen=True, kw_only=True)
class StoredFolder:
    """The SHA-256 of a folder's files by their paths in it. `number`: how often it was written."""

    files: Mapping[str, str]
    number: int


class ChangedError(Exception):
    """A file changed while it was sent."""


class StudyStore:
    """Folders below an address such as `s3://BUCKET/FOLDER`."""

    def __init__(self, address: str) -> None:
        """Raises InputError for what is no address of an object store, PackageError without its client."""
        self.address = address.rstrip("/")
        if address.partition("://")[0] not in SCHEMES:
            remedy = "name one as s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or az://CONTAINER/FOLDER"
            raise InputError(f"{address!r} is no address of an object store", remedy, field=_FIELD)
        self._client, root = open_store_files(self.address, purpose="a study's store", field=_FIELD)
        self._root = str(root).rstrip("/")
        self._hashes: dict[Stamp, str] = {}
        self._superseded: dict[str, set[str]] = {}  # by name, the files that its list does not need any more

    # ---- single values

    def write_text(self, name: str, text: str) -> None:
        """Write a value, whole or not at all."""
        with store_errors(self.address):
            self._client.pipe_file(self._place(name), text.encode())

    def read_text(self, name: str) -> str:
        """Return a value. Raises MissingError without one."""
        with store_errors(self.address):
            return bytes(self._client.cat_file(self._place(name))).decode()

    def names(self, name: str) -> list[str]:
        """Return the names that lie directly below one; none if it does not exist."""
        with store_errors(self.address):
            self._client.invalidate_cache()
            try:
                found = self._client.ls(self._place(name), detail=False)
            except FileNotFoundError:
                return []
        return sorted({str(one).rstrip("/").rpartition("/")[2] for one in found})

    def remove(self, name: str) -> None:
        """Delete everything below a name."""
        with store_errors(self.address):
            self._client.invalidate_cache()
            if self._client.exists(self._place(name)):
                self._client.rm(self._place(name), recursive=True)

    # ---- folders

    def read(self, name: str) -> StoredFolder | None:
        """Return the list of a folder's files; None if there is none."""
        try:
            value = json.loads(self.read_text(f"{name}/{LIST}"))
        except MissingError:
            return None
        for path in value["files"]:
            pure = PurePosixPath(path)
            if pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path:
                raise InputError(f"names {path[:80]!r}, which lies in no folder", "delete it", file=self._told(name))
        return StoredFolder(files=value["files"], number=value["number"])

    def push(
        self,
        name: str,
        folder: Path,
        paths: Iterable[Path],
        *,
        but: Mapping[str, str] | None = None,
        number: int = 0,
        still: Callable[[], bool] = lambda: True,
    ) -> None:
        """Keep these files of a folder under a name, in place of what was kept there.

        `but`: SHA-256 of files by their paths, which are left out if they are the same. `number`: the least one.
        `still`: True if the folder has not changed, when all is sent. Raises ChangedError if it has, FileNotFoundError
        for a file that vanished.
        """
        before = self.read(name)
        held, files = set(before.files.values()) if before else set(), dict[str, str]()
        for path in paths:
            relative = path.relative_to(folder).as_posix()
            sha256, content = self._content(path)
            if (but or {}).get(relative) == sha256:
                continue
            files[relative] = sha256
            if sha256 not in held:
                self._send(f"{name}/{sha256}", path, content)
                held.add(sha256)
        if before is not None and before.files == files:
            return
        if not still():
            raise ChangedError(str(folder))
        number = max(number, before.number if before else 0) + 1
        self.write_text(f"{name}/{LIST}", json.dumps({"files": files, "number": number}))
        # those that the list before needed stay for who reads it now
        for sha256 in self._superseded.get(name, set()) - set(files.values()):
            self._forget(f"{name}/{sha256}")
        self._superseded[name] = held - set(files.values())

    def pull(
        self,
        name: str,
        folder: Path,
        *,
        wanted: Callable[[str], bool] = lambda _: True,
        cache: Path | None = None,
    ) -> StoredFolder | None:
        """Bring the files of a name whose paths are `wanted` into a folder; others there stay. Return the list of all,
        None if there is none. `cache`: a folder of this machine that keeps a copy of each file.
        """
        for attempt in range(_TRIES):
            found = self.read(name)
            if found is None:
                return None
            try:
                for path, sha256 in found.files.items():
                    if wanted(path):
                        self._get(f"{name}/{sha256}", sha256, folder / path, cache)
            except MissingError:
                if attempt == _TRIES - 1:
                    raise
            else:
                return found
        return None

    def _content(self, path: Path) -> tuple[str, bytes | None]:
        """Return the SHA-256 of a file and, if it was read now and is small, what it holds: it may grow meanwhile."""
        stamp = _stamp(path)
        if stamp in self._hashes or stamp[2] > _SMALL:
            return self._hash(path), None
        content = path.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        if _stamp(path) == stamp:
            self._hashes[stamp] = sha256
        return sha256, content

    def _hash(self, path: Path) -> str:
        key = _stamp(path)
        if key not in self._hashes:
            self._hashes[key] = sha256_file(path)
        return self._hashes[key]

    def _send(self, name: str, path: Path, content: bytes | None) -> None:
        if content is not None:
            with store_errors(self.address):
                self._client.pipe_file(self._place(name), content)
            return
        before = _stamp(path)
        with store_errors(self.address):
            self._client.put_file(str(path), self._place(name))
        if _stamp(path) != before:
            self._forget(name)
            raise ChangedError(str(path))

    def _get(self, name: str, sha256: str, place: Path, cache: Path | None) -> None:
        """Bring one file to its place, unless it is there."""
        if place.is_file() and self._hash(place) == sha256:
            return
        if cache is not None:
            kept = cache / sha256
            if not kept.is_file():
                self._download(name, sha256, kept)
            with replacing(place) as beside:
                shutil.copyfile(kept, beside)
        else:
            self._download(name, sha256, place)

    def _download(self, name: str, sha256: str, place: Path) -> None:
        beside = place.with_name(f".{place.name}.{uuid.uuid4().hex}.part")
        beside.parent.mkdir(parents=True, exist_ok=True)
        try:
            with store_errors(self.address):
                self._client.get_file(self._place(name), str(beside))
            if sha256_file(beside) != sha256:
                raise RemoteError(f"{self._told(name)}: is damaged: its content has another hash than its name")
            sync(beside)
            os.replace(beside, place)
        finally:
            beside.unlink(missing_ok=True)

    def _forget(self, name: str) -> None:
        with store_errors(self.address):
            self._client.rm_file(self._place(name))

    def _place(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _told(self, name: str) -> str:
        return f"{self.address}/{name}"


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return path, found.st_mtime_ns, found.st_size, found.st_ino


def folder_stamps(paths: Iterable[Path]) -> dict[Path, Any]:
    """Return the time, size and number of files, to see whether they changed; those that vanished are left out."""
    found = {}
    for path in paths:
        try:
            found[path] = _stamp(path)[1:]
        except OSError:
            continue
    return found
