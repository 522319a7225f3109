"""Folders of a study in object stores, against real servers on this machine; skipped where there is none."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from s3_server import bucket, s3

from trimtab.base.errors import InputError, RemoteError
from trimtab.base.files import FORM
from trimtab.scale.study_store import ChangedError, StudyStore

__all__ = ["bucket", "s3"]

VERSIONS = 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files at two depths, two of which are the same."""
    (home := tmp_path / "here" / "below").mkdir(parents=True)
    for name, text in (("a.txt", "one"), ("below/b.txt", "two"), ("below/c.txt", "one")):
        (home.parent / name).write_text(text)
    return home.parent


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def texts(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files(folder)}


def sent_by(store: StudyStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The places that a store writes to from now on; it does write."""
    places: list[str] = []
    write = store._client.pipe_file

    def noting(place: str, content: bytes) -> Any:
        places.append(place.rpartition("/")[2])
        return write(place, content)

    monkeypatch.setattr(store._client, "pipe_file", noting)
    return places


def test_a_folder_comes_back_as_it_was(bucket: str, folder: Path, tmp_path: Path) -> None:
    store, there, cache = StudyStore(bucket), tmp_path / "there", tmp_path / "cache"
    assert store.pull("study/inputs", there) is None
    store.push("study/inputs", folder, files(folder))
    (there / "below").mkdir(parents=True)
    (there / "below" / "b.txt").write_text("an older one")
    (there / "own.txt").write_text("own")
    found = StudyStore(bucket).pull("study/inputs", there, cache=cache)
    assert found is not None
    assert texts(there) == {**texts(folder), "own.txt": "own"}
    assert len(files(cache)) == 2  # two of the three are the same
    part = StudyStore(bucket).pull("study/inputs", tmp_path / "part", wanted=lambda name: name == "a.txt")
    assert part == found
    assert texts(tmp_path / "part") == {"a.txt": "one"}


def test_what_is_there_is_not_sent_again(bucket: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    StudyStore(bucket).push("study/inputs", folder, files(folder))
    store = StudyStore(bucket)
    sent = sent_by(store, monkeypatch)
    store.push("study/inputs", folder, files(folder))
    assert sent == []
    (folder / "a.txt").write_text("three")
    store.push("study/inputs", folder, files(folder))
    assert len(sent) == 2  # the file, and the list last
    assert sent[-1] == "files.json"
    found = store.read("study/inputs")
    assert found is not None
    store.push("study/job", folder, files(folder), exclude={**found.files, "a.txt": "other"}, number=7)
    job = store.read("study/job")
    assert job is not None
    assert list(job.files) == ["a.txt"]
    assert job.number == 8


def test_a_reader_gets_the_files_of_one_moment(bucket: str, tmp_path: Path) -> None:
    """While versions follow each other: two files of one version always, and no older version after a newer one."""
    home, there = tmp_path / "here", tmp_path / "there"
    home.mkdir()
    writer, reader, seen = StudyStore(bucket), StudyStore(bucket), list[int]()

    def write(number: int) -> None:
        for name in ("a.txt", "b.txt"):
            (home / name).write_text(str(number))
        writer.push("study/job", home, files(home))

    write(0)
    thread = threading.Thread(target=lambda: [write(number) for number in range(1, VERSIONS)])
    thread.start()
    while thread.is_alive() or seen[-1:] != [VERSIONS - 1]:
        reader.pull("study/job", there)
        assert len(set(texts(there).values())) == 1
        seen.append(int((there / "a.txt").read_text()))
    thread.join()
    assert seen == sorted(seen)
    assert len(reader.names("study/job")) <= 3  # the list, the last version and the one before


def test_a_folder_that_changed_meanwhile_is_not_kept(bucket: str, folder: Path) -> None:
    store = StudyStore(bucket)
    store.push("study/job", folder, files(folder))
    before = store.read("study/job")
    (folder / "a.txt").write_text("three")
    with pytest.raises(ChangedError):
        store.push("study/job", folder, files(folder), is_unchanged=lambda: False)
    with pytest.raises(FileNotFoundError):
        store.push("study/job", folder, [*files(folder), folder / "gone.txt"])
    assert store.read("study/job") == before


def test_damage_and_foreign_lists_are_one_line_each(bucket: str, folder: Path, tmp_path: Path) -> None:
    store = StudyStore(bucket)
    store.push("study/job", folder, files(folder))
    found = store.read("study/job")
    assert found is not None
    store.write_text(f"study/job/{found.files['a.txt']}", "something else")
    with pytest.raises(RemoteError, match=rf"^{bucket}/study/job/\w+: is damaged: its content has another hash"):
        store.pull("study/job", tmp_path / "there")
    assert not (tmp_path / "there" / "a.txt").exists()
    store.write_text("study/job/files.json", f'{{"form": {FORM}, "files": {{"../a.txt": "0"}}, "number": 1}}')
    with pytest.raises(InputError, match=r"names '\.\./a\.txt', which lies in no folder"):
        store.pull("study/job", tmp_path / "there")
    assert store.names("study") == ["job"]
    store.remove("study")
    assert store.names("study") == []
