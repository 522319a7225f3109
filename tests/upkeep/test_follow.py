"""A server that follows an alias: another version takes over without a restart, and a rollback brings back the same
bytes."""

from __future__ import annotations

import gc
import io
import json
import shutil
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import pytest
from followed import registered, served, version
from patience import no_patience, timed_once
from serving_tasks import Here, serving_here, wait_until

from trimtab import registry
from trimtab.base.errors import InputError, MissingError
from trimtab.cli.main import run
from trimtab.serving import follow as following
from trimtab.upkeep.artifacts import Artifacts
from trimtab.upkeep.registry import Registry

__all__ = ["no_patience", "registered", "timed_once"]

pytestmark = pytest.mark.slow


@pytest.fixture
def task(registered: Path, tmp_path: Path) -> Path:
    """The same in a folder of its own, with the first version in production."""
    copy = shutil.copytree(registered.parent, tmp_path / "task") / registered.name
    with registry(copy) as own:
        own.promote(1, why="the first")
    return copy


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.05)


@contextmanager
def followed(task: Path, alias: str = "production") -> Iterator[tuple[Here, Registry]]:
    with registry(task) as own, serving_here(task, follow=own.follow(alias)) as here:
        yield here, own


def test_what_is_served_after_a_rollback_is_what_was_served_before(task: Path) -> None:
    with followed(task) as (here, own):
        assert version(here) == 1
        before = served(here)
        assert before["model"] == "tiny:quick"
        assert "run/adapter/adapter_model.safetensors" in before["files"]
        own.promote(2, why="documents")
        wait_until(lambda: version(here) == 2, 60)
        between = served(here)
        assert between["model"] == "tiny:rag"
        assert between["answers"] != before["answers"]
        own.rollback(why="worse")
        wait_until(lambda: version(here) == 1, 60)
        assert served(here) == before
        wait_until(lambda: len(here.parts.dispatcher._requests_of) == 1, 60)  # the versions before are let go


def test_a_request_under_way_ends_with_the_version_that_it_began_with(task: Path) -> None:
    with followed(task) as (here, own):
        (old,) = here.parts.dispatcher.models.values()
        token = object()
        here.parts.dispatcher._requests_of[old.worker][token] = None  # type: ignore[assignment]  # a request that is inside
        own.promote(2, why="documents")
        wait_until(lambda: version(here) == 2, 60)
        threading.Event().wait(0.3)  # several looks
        assert old.worker.is_alive
        del here.parts.dispatcher._requests_of[old.worker][token]
        worker = weakref.ref(old.worker)
        del old
        wait_until(lambda: gc.collect() >= 0 and worker() is None, 60)  # with it goes the memory of its models


FAULTS = {
    "artifact": "is gone",
    "answers": "rag: 0 of 15 stored answers equal, 15 different",
    "base": "was made with another config.json of the base model",
}


@pytest.mark.parametrize("damage", FAULTS)
def test_where_a_version_cannot_take_over_the_old_one_stays_and_it_is_said(
    task: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redirect_stderr(io.StringIO()) as stderr, followed(task) as (here, own):
        before = served(here)
        bad = own.show(2)
        files = own.artifacts.files(bad.artifact_sha256 or "")
        if damage == "artifact":  # lost after it was read through, and before it is loaded
            monkeypatch.setattr(Artifacts, "check", lambda self, artifact: None)
            (task.parent / ".trimtab" / "artifacts" / files["bundle.json"]).unlink()
        else:
            folder = own.artifacts.get(bad.artifact_sha256 or "", task.parent / "odd")
            file = folder / ("questions.json" if damage == "answers" else "bundle.json")
            plain = json.loads(file.read_text())
            if damage == "answers":
                plain["questions"] = [{**one, "answer": "another"} for one in plain["questions"]]
            else:
                plain["files"]["base"]["config.json"] = "0" * 64
            file.write_text(json.dumps(plain))
            bad = own.add(bad, folder)
        own.promote(bad.number or 0, why="nobody knows yet")
        wait_until(lambda: "release_failed" in stderr.getvalue(), 60)
        (line,) = [json.loads(one) for one in stderr.getvalue().splitlines() if '"release_failed"' in one]
        assert FAULTS[damage] in line["why"]
        assert version(here) == 1
        assert served(here) == before
        own.promote(3, why="another one")
        wait_until(lambda: version(here) == 3, 60)


def test_an_alias_that_moves_while_a_version_is_loaded_is_followed_to_its_end(
    task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with followed(task) as (here, own):
        moved = threading.Event()
        taken = following.Follower._switch_to

        def moves_meanwhile(self: Any, release: Any, *more: Any) -> None:
            if not moved.is_set():
                moved.set()
                own.promote(3, why="while 2 is being loaded")
            taken(self, release, *more)

        monkeypatch.setattr(following.Follower, "_switch_to", moves_meanwhile)
        own.promote(2, why="documents")
        wait_until(lambda: version(here) == 3, 60)
        assert served(here)["model"] == "tiny:prompt"


def test_the_alias_is_a_name_of_the_model_and_versions_stand_in_the_log(task: Path) -> None:
    with redirect_stderr(io.StringIO()) as stderr, followed(task) as (here, own), here.client() as client:
        for name in ("production", "tiny:production", "tiny", "quick", "tiny:quick"):
            assert client.get(f"/v1/models/{name}").json()["id"] == "tiny:quick"
        assert client.get("/v1/models/candidate").status_code == 404
        own.promote(3, why="next")
        wait_until(lambda: version(here) == 3, 60)
        assert client.get("/v1/models/production").json()["id"] == "tiny:prompt"
    lines = [json.loads(line) for line in stderr.getvalue().splitlines() if line.startswith("{")]
    assert [(one["alias"], one["version"]) for one in lines if one["what"] == "release"] == [
        ("production", 1),
        ("production", 3),
    ]


def test_a_registry_that_is_away_for_a_while_changes_nothing(task: Path) -> None:
    with redirect_stderr(io.StringIO()) as stderr, followed(task) as (here, own):
        before = served(here)
        file = Path(own.name)
        away = file.rename(file.with_suffix(".away"))
        file.write_bytes(b"no database at all")
        own.close()  # its connections, so that the next look opens the file
        wait_until(lambda: "release_failed" in stderr.getvalue(), 60)
        assert served(here) == before
        file.unlink()
        away.rename(file)
        own.promote(3, why="back again")
        wait_until(lambda: version(here) == 3, 60)


def test_what_does_not_fit_is_refused(task: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with registry(task) as own:
        for options in ({"run": "x"}, {"bundle": task.parent}, {"eight_bit": True}):
            with (
                pytest.raises(InputError, match="--alias: an alias names one version as it was registered"),
                serving_here(task, follow=own.follow(), **options),
            ):
                raise AssertionError
        with (
            pytest.raises(MissingError, match="no alias candidate of tiny"),
            serving_here(task, follow=own.follow("candidate")),
        ):
            raise AssertionError
    with pytest.raises(SystemExit, match="2"):
        run(["serve", "--task", str(task), "--registry", "x.db"])
    assert "--alias: a registry, and no alias of it" in capsys.readouterr().err
