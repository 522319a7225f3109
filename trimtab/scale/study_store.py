"""Uploads folders of a study to an object store and downloads them, for machines that share no disk.

A stored folder is a list of its files with their SHA-256, and beside the list each file, named by its SHA-256. The list
is replaced last, so that a reader gets the folder as it was at one moment. A file is uploaded and downloaded once.
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
from trimtab.base.files import FORM, replacing, require_form, sha256_file, sync
from trimtab.base.object_store import ADDRESSES, CREDENTIALS, open_store_files, scheme_of, store_errors

LIST = "files.json"  # name of the list of a folder's files
_SMALL = 8 << 20  # most bytes of a file that is read into memory, as it may grow during an upload
_TRIES = 3  # how often a list is read, as its files may be replaced meanwhile
_FIELD = "--store"
Stamp = tuple[Path, int, int, int]  # path, modification time, size and inode: equal if a file has not changed


@dataclass(frozen=True, kw_only=True)
class StoredFolder:
    """The list of a folder's files: SHA-256 by path in the folder. `number`: how often the list was written."""

    files: Mapping[str, str]
    number: int


class ChangedError(Exception):
    """Error for a file or folder that changed during its upload."""


class StudyStore:
    """A store of folders and short texts below an address such as `s3://BUCKET/FOLDER`; each has a name there."""

    def __init__(self, address: str) -> None:
        """Raises InputError if `address` is not one of an object store, PackageError if its client is not installed."""
        self.address = address.rstrip("/")
        if scheme_of(address) not in CREDENTIALS:  # stores of these show a file only once it is complete
            raise InputError(f"{address!r} is no address of an object store", f"name one as {ADDRESSES}", field=_FIELD)
        self._client, root = open_store_files(self.address, purpose="a study's store", field=_FIELD)
        self._root = str(root).rstrip("/")
        self._hashes: dict[Stamp, str] = {}
        self._superseded: dict[str, set[str]] = {}  # by folder, the files that only its former list names

    # ---- texts

    def write_text(self, name: str, text: str) -> None:
        """Write a text, whole or not at all."""
        with store_errors(self.address):
            self._client.pipe_file(self._path(name), text.encode())

    def read_text(self, name: str) -> str:
        """Return a text. Raises MissingError if there is none."""
        with store_errors(self.address):
            return bytes(self._client.cat_file(self._path(name))).decode()

    def names(self, name: str) -> list[str]:
        """Return the names directly below a name; none if it does not exist."""
        with store_errors(self.address):
            self._client.invalidate_cache()
            try:
                found = self._client.ls(self._path(name), detail=False)
            except FileNotFoundError:
                return []
        return sorted({str(one).rstrip("/").rpartition("/")[2] for one in found})

    def remove(self, name: str) -> None:
        """Delete everything below a name."""
        with store_errors(self.address):
            self._client.invalidate_cache()
            if self._client.exists(self._path(name)):
                self._client.rm(self._path(name), recursive=True)

    # ---- folders

    def read(self, name: str) -> StoredFolder | None:
        """Return the list of a folder's files; None if there is none."""
        try:
            value = json.loads(self.read_text(f"{name}/{LIST}"))
        except MissingError:
            return None
        require_form(value.get("form"), self._address_of(name))
        for path in value["files"]:
            pure = PurePosixPath(path)
            if pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path:
                raise InputError(
                    f"names {path[:80]!r}, which lies in no folder", "delete it", file=self._address_of(name)
                )
        return StoredFolder(files=value["files"], number=value["number"])

    def push(
        self,
        name: str,
        folder: Path,
        paths: Iterable[Path],
        *,
        exclude: Mapping[str, str] | None = None,
        number: int = 0,
        is_unchanged: Callable[[], bool] = lambda: True,
    ) -> None:
        """Upload files of a folder under a name, and replace the list that is there.

        `exclude`: SHA-256 by path; files that have it are left out. `number`: the new list gets a higher one.
        `is_unchanged`: called after the upload of the files; returns False if the folder has changed since. Raises
        ChangedError if it has, FileNotFoundError for a file that vanished.
        """
        before = self.read(name)
        stored, files = set(before.files.values()) if before else set(), dict[str, str]()
        for path in paths:
            relative = path.relative_to(folder).as_posix()
            sha256, content = self._content(path)
            if (exclude or {}).get(relative) == sha256:
                continue
            files[relative] = sha256
            if sha256 not in stored:
                self._upload(f"{name}/{sha256}", path, content)
                stored.add(sha256)
        if before is not None and before.files == files:
            return
        if not is_unchanged():
            raise ChangedError(str(folder))
        number = max(number, before.number if before else 0) + 1
        self.write_text(f"{name}/{LIST}", json.dumps({"form": FORM, "files": files, "number": number}))
        # files of the former list stay until the next push: somebody may be reading them
        for sha256 in self._superseded.get(name, set()) - set(files.values()):
            self._delete(f"{name}/{sha256}")
        self._superseded[name] = stored - set(files.values())

    def pull(
        self,
        name: str,
        folder: Path,
        *,
        wanted: Callable[[str], bool] = lambda _: True,
        cache: Path | None = None,
    ) -> StoredFolder | None:
        """Download the files whose paths are `wanted` into a folder, where other files stay. Return the list of all
        stored files; None if there is no list. `cache`: a folder of this machine that keeps a copy of each file.
        """
        for attempt in range(_TRIES):
            found = self.read(name)
            if found is None:
                return None
            try:
                for path, sha256 in found.files.items():
                    if wanted(path):
                        self._fetch(f"{name}/{sha256}", sha256, folder / path, cache)
            except MissingError:
                if attempt == _TRIES - 1:
                    raise
            else:
                return found
        return None

    def _content(self, path: Path) -> tuple[str, bytes | None]:
        """Return the SHA-256 of a file and its bytes if it is small and was read for that: the file may grow later."""
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

    def _upload(self, name: str, path: Path, content: bytes | None) -> None:
        if content is not None:
            with store_errors(self.address):
                self._client.pipe_file(self._path(name), content)
            return
        before = _stamp(path)
        with store_errors(self.address):
            self._client.put_file(str(path), self._path(name))
        if _stamp(path) != before:
            self._delete(name)
            raise ChangedError(str(path))

    def _fetch(self, name: str, sha256: str, target: Path, cache: Path | None) -> None:
        """Download one file, through the cache if there is one, unless `target` has this hash already."""
        if target.is_file() and self._hash(target) == sha256:
            return
        if cache is not None:
            cached = cache / sha256
            if not cached.is_file():
                self._download(name, sha256, cached)
            with replacing(target) as temporary:
                shutil.copyfile(cached, temporary)
        else:
            self._download(name, sha256, target)

    def _download(self, name: str, sha256: str, target: Path) -> None:
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            with store_errors(self.address):
                self._client.get_file(self._path(name), str(temporary))
            if sha256_file(temporary) != sha256:
                raise RemoteError(f"{self._address_of(name)}: is damaged: its content has another hash than its name")
            sync(temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def _delete(self, name: str) -> None:
        with store_errors(self.address):
            self._client.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _address_of(self, name: str) -> str:
        return f"{self.address}/{name}"


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return path, found.st_mtime_ns, found.st_size, found.st_ino


def folder_stamps(paths: Iterable[Path]) -> dict[Path, Any]:
    """Return time, size and inode of files, which differ if a file changed; files that vanished are left out."""
    found = {}
    for path in paths:
        try:
            found[path] = _stamp(path)[1:]
        except OSError:
            continue
    return found
