"""Store of files by their SHA-256, in a folder or an object store: written whole before anything names them, checked
at every read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol
from uuid import uuid4

from trimtab.base.codec import from_plain
from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import FORM, refuse_links, replacing, require_form, sha256_file, sync
from trimtab.base.object_store import open_store_files, store_errors
from trimtab.base.sanitize import one_line

_NAME_LENGTH = 64  # of a SHA-256 in hexadecimal
_PIECE = 1 << 20  # bytes that are read at once
_CUT_SECONDS = 24 * 3600  # after which a file that was not finished is of a writer that died
# Stores without folders, where makedirs would make a bucket of any name that is mistyped.
_BUCKETS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci"}
_DAMAGED = "register the arm again, or restore the file from a copy"


@dataclass(frozen=True)
class _FileList:
    """The list of a stored folder's files: their hashes by their paths in it. `form`: of the list."""

    files: Mapping[str, str]
    form: int | None = None


class ArtifactStore(Protocol):
    """Interface of a store of files that are named by their SHA-256."""

    name: str

    def has(self, sha256: str) -> bool:
        """True if the file is there."""

    def put(self, file: Path, sha256: str) -> None:
        """Store a file: whole or not at all, and on the disk when this returns."""

    def open(self, sha256: str) -> IO[bytes]:
        """Open a file for reading; raises MissingError if it is not there."""

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every file that is there, by its SHA-256."""

    def remove(self, sha256: str) -> None:
        """Delete a file, if it is there."""

    def remove_partial(self) -> None:
        """Delete unfinished files of writers that died long ago."""


class FolderStore:
    """Store of files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, str(folder)

    def has(self, sha256: str) -> bool:
        """True if the file is in the folder."""
        return (self.folder / sha256).is_file()

    def put(self, file: Path, sha256: str) -> None:
        """Store a file, synced and whole or not at all; a damaged file of this name is written anew."""
        place = self.folder / sha256
        if place.is_file() and not place.is_symlink() and sha256_file(place) == sha256:
            return
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            sync(self.folder.parent)
        with replacing(place) as beside:
            shutil.copyfile(file, beside)
            _require_same(sha256_file(beside), sha256, file)

    def open(self, sha256: str) -> IO[bytes]:
        """Open a file for reading; raises MissingError if it is not there, InputError for a symbolic link."""
        place = self.folder / sha256
        if place.is_symlink():
            raise InputError("is a symbolic link, and Trimtab made none", "delete it", file=place)
        if not place.is_file():
            raise MissingError(f"{place}: an artifact of the registry is gone; {_DAMAGED}")
        return open(place, "rb")

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every file in the folder, by its SHA-256."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return {path.name: path.stat().st_size for path in found if _is_name(path.name)}

    def remove(self, sha256: str) -> None:
        """Delete a file, if it is there."""
        (self.folder / sha256).unlink(missing_ok=True)

    def remove_partial(self) -> None:
        """Delete unfinished files of writers that died long ago."""
        for path in self.folder.glob(".*.part"):
            if time.time() - path.lstat().st_mtime > _CUT_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


class ObjectStore:
    """Store of files at an address that fsspec opens: `s3://…`, `gs://…`, `memory://…`."""

    def __init__(self, address: str) -> None:
        self.name = address
        self._files, self._root = open_store_files(address, purpose="this store of artifacts", field="--artifacts")

    def has(self, sha256: str) -> bool:
        """True if the file is at the address."""
        with store_errors(self.name):
            return bool(self._files.exists(self._place(sha256)))

    def put(self, file: Path, sha256: str) -> None:
        """Store a file, whole or not at all; a damaged file of this name is written anew.

        It is sent under another name and then moved: some stores show a file while it comes in.
        """
        if self.has(sha256):
            with self.open(sha256) as there:
                if _digest(there) == sha256:
                    return
        _require_same(sha256_file(file), sha256, file)
        beside = self._place(f".{sha256}.{uuid4().hex}.part")
        with store_errors(self.name):
            if self.name.partition("://")[0] not in _BUCKETS:
                self._files.makedirs(self._root, exist_ok=True)
            self._files.put_file(str(file), beside)
            with self._files.open(beside, "rb") as sent:
                _require_same(_digest(sent), sha256, file)
            self._files.mv(beside, self._place(sha256))

    def open(self, sha256: str) -> IO[bytes]:
        """Open a file for reading; raises MissingError if it is not there."""
        with store_errors(self.name):
            if not self._files.exists(self._place(sha256)):
                raise MissingError(f"{self.name}/{sha256}: an artifact of the registry is gone; {_DAMAGED}")
            file: IO[bytes] = self._files.open(self._place(sha256), "rb")
            return file

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every file at the address, by its SHA-256."""
        with store_errors(self.name):
            self._files.invalidate_cache()
            found = self._files.ls(self._root, detail=True) if self._files.exists(self._root) else ()
            names = {str(one["name"]).rpartition("/")[2]: int(one["size"] or 0) for one in found}
        return {name: size for name, size in names.items() if _is_name(name)}

    def remove(self, sha256: str) -> None:
        """Delete a file, if it is there."""
        with store_errors(self.name):
            if self._files.exists(self._place(sha256)):
                self._files.rm_file(self._place(sha256))

    def remove_partial(self) -> None:
        """Do nothing: not every store tells the age of a file, and stores have rules of their own for this."""

    def _place(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


class Artifacts:
    """Registered folders in a store: each file by its SHA-256, and the list of the files, whose hash names the
    folder."""

    def __init__(self, address: str | Path) -> None:
        text = str(address).removeprefix("file://")
        self._store: ArtifactStore = ObjectStore(text) if "://" in text else FolderStore(Path(os.path.abspath(text)))
        self.name = self._store.name

    def put(self, folder: Path, scratch: Path) -> str:
        """Store every file of a folder, then the list of them, and return the hash of that list. `scratch`: a folder
        for the list."""
        refuse_links(folder)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): sha256_file(path) for path in paths}
        for name, sha256 in files.items():
            self._store.put(folder / name, sha256)
        listed = scratch / "files.json"
        listed.write_text(json.dumps({"form": FORM, "files": files}, indent=1, sort_keys=True), encoding="utf-8")
        artifact = sha256_file(listed)
        self._store.put(listed, artifact)
        return artifact

    def files(self, artifact: str) -> dict[str, str]:
        """Return the hashes of a stored folder's files by their paths in it; raises InputError for a damaged list."""
        place = f"{self.name}/{artifact}"
        with self._store.open(artifact) as file:
            text = file.read()
        if hashlib.sha256(text).hexdigest() != artifact:
            raise InputError("is damaged: its content has another hash than its name", _DAMAGED, file=place)
        try:
            listed = from_plain(_FileList, json.loads(text))
        except (ValueError, RecursionError) as error:
            raise InputError(f"is damaged: no list of files ({one_line(error)})", _DAMAGED, file=place) from None
        require_form(listed.form, place)
        files = listed.files
        for name, sha256 in files.items():
            pure = PurePosixPath(name)
            if (
                not pure.parts
                or pure.is_absolute()
                or ".." in pure.parts
                or "\\" in name
                or "\0" in name
                or not _is_name(sha256)
            ):
                raise InputError(f"names {name[:80]!r}, which lies in no folder", _DAMAGED, file=place)
        return dict(files)

    def check(self, artifact: str) -> None:
        """Read a stored folder whole; raises InputError for a damaged file, MissingError for one that is gone."""
        for sha256 in dict.fromkeys(self.files(artifact).values()):
            with self._store.open(sha256) as file:
                self._require_whole(_digest(file), sha256)

    def lacks(self, artifact: str) -> bool:
        """True if a file of a stored folder, or the list of its files, is not there."""
        return not self._store.has(artifact) or not all(map(self._store.has, set(self.files(artifact).values())))

    def get(self, artifact: str, folder: Path) -> Path:
        """Copy a stored folder to `folder` on this machine, whole or not at all, and return it; an unchanged copy is
        kept. Raises as `check`."""
        files = self.files(artifact)
        if folder.is_dir() and _is_same(folder, files):
            return folder
        beside = folder.with_name(f".{folder.name}.{uuid4().hex}.part")
        try:
            for name, sha256 in files.items():
                (beside / name).parent.mkdir(parents=True, exist_ok=True)
                with self._store.open(sha256) as file, open(beside / name, "xb") as written:
                    self._require_whole(_digest(file, written), sha256)
            if folder.is_dir():  # of a copy that was changed, or one that another process has just made
                if _is_same(folder, files):
                    return folder
                shutil.rmtree(folder)
            os.replace(beside, folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return folder

    def get_file(self, artifact: str, name: str, place: Path) -> bool:
        """Copy one file of a stored folder to `place`; return False if the folder has none of this name. Raises as
        `check`."""
        sha256 = self.files(artifact).get(name)
        if sha256 is None:
            return False
        with self._store.open(sha256) as file, open(place, "xb") as written:
            self._require_whole(_digest(file, written), sha256)
        return True

    def garbage(self, live: Collection[str]) -> dict[str, int]:
        """Return the sizes in bytes, by hash, of the files that are in none of these folders."""
        wanted = {*live, *(sha256 for artifact in live for sha256 in self.files(artifact).values())}
        return {name: size for name, size in self._store.sizes().items() if name not in wanted}

    def remove(self, names: Collection[str]) -> None:
        """Delete files, and the unfinished ones of writers that died long ago."""
        for name in names:
            self._store.remove(name)
        self._store.remove_partial()

    def _require_whole(self, found: str, sha256: str) -> None:
        if found != sha256:
            problem = "is damaged: its content has another hash than its name"
            raise InputError(problem, _DAMAGED, file=f"{self.name}/{sha256}")


def _digest(file: IO[bytes], copy: IO[bytes] | None = None) -> str:
    """Return the SHA-256 of the rest of a file, which is written to `copy` on the way."""
    digest = hashlib.sha256()
    while piece := file.read(_PIECE):
        digest.update(piece)
        if copy is not None:
            copy.write(piece)
    return digest.hexdigest()


def _is_same(folder: Path, files: dict[str, str]) -> bool:
    """True if a folder contains these files under these names, and no others."""
    there = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if not path.is_dir() or path.is_symlink()
    }
    return there.keys() == files.keys() and all(
        not path.is_symlink() and sha256_file(path) == files[name] for name, path in there.items()
    )


def _is_name(text: Any) -> bool:
    return isinstance(text, str) and len(text) == _NAME_LENGTH and not set(text) - set("0123456789abcdef")


def _require_same(found: str, sha256: str, file: Path) -> None:
    if found != sha256:
        raise InputError("changed while it was being kept", "register the arm again", file=file)
