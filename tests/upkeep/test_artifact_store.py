"""Artifacts of the registry in object stores, against real servers on this machine; skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
from registered import Add, collect_one_of_three
from s3_server import WRONG, bucket, go_wrong, s3

from trimtab.base.errors import InputError, MissingError, TrimtabError
from trimtab.base.task import Task
from trimtab.upkeep.registry import registry

__all__ = ["bucket", "s3"]

pytestmark = pytest.mark.slow


def test_versions_go_to_a_store_and_come_back(task: Task, add: Add, bucket: str, tmp_path: Path) -> None:
    with registry(task, artifacts=bucket) as one:
        wanted = collect_one_of_three(one, add)
        files, root = fsspec.core.url_to_fs(bucket, skip_instance_cache=True)
        assert {path.rpartition("/")[2] for path in files.ls(root, detail=False)} == wanted


def test_a_damaged_and_a_missing_artifact_are_one_line_each(task: Task, add: Add, bucket: str) -> None:
    with registry(task, artifacts=bucket) as one:
        for text in "ab":
            add(one, text)
        first, second = (
            one.artifacts.files(one.show(number).artifact_sha256 or "")["run/adapter"] for number in (1, 2)
        )
        files, _ = fsspec.core.url_to_fs(bucket, skip_instance_cache=True)
        files.pipe_file(f"{bucket}/{first}", b"x")
        files.rm_file(f"{bucket}/{second}")
        with pytest.raises(InputError, match=rf"{bucket}/{first}: is damaged: its content has another hash") as damaged:
            one.promote(1, why="first")
        with pytest.raises(
            MissingError, match=rf"^{bucket}/{second}: an artifact of the registry is gone; [^;]*$"
        ) as gone:
            one.promote(2, why="second")
        assert "\n" not in str(damaged.value) + str(gone.value)
        assert one.history() == ()
        add(one, "b")
        one.promote(2, why="mended")


@pytest.mark.parametrize(("bucket", "wrong"), WRONG, indirect=["bucket"])
def test_what_is_wrong_with_a_store_is_one_clear_line(
    task: Task, add: Add, bucket: str, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    address, words = go_wrong(wrong, bucket, monkeypatch)
    with registry(task, artifacts=address) as one:
        with pytest.raises((TrimtabError, OSError)) as told:
            add(one, "a")
        assert one.list() == ()
    said = str(told.value)
    assert "\n" not in said
    assert words in said.lower()
    assert address in said
