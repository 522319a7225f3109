"""A registry of a small task, and folders to register in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from postgres_server import execute, server
from registered import DRAFT, Add

from trimtab.base.task import Task, load_task
from trimtab.upkeep import gate
from trimtab.upkeep.registry import Registry, registry
from trimtab.upkeep.versions import Version

__all__ = ["server"]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    (tmp_path / "rows.jsonl").write_text('{"input": "a", "output": "b"}\n')
    (tmp_path / "trimtab.toml").write_text(
        '[task]\nname = "small"\nkind = "answer"\n[data]\nexamples = ["rows.jsonl"]\n[base]\n'
        'model = "smollm2-135m-q4"\n'
    )
    return load_task(tmp_path)


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No gate finds a candidate slower: what else runs on this machine decides the latency of tiny models."""
    monkeypatch.setattr(gate, "BARELY", 60_000.0)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a registry is: a file, or a database of its own on a server."""
    if request.param == "sqlite":
        yield str(tmp_path / ".trimtab" / "registry.db")
        return
    address = request.getfixturevalue("server")
    execute(f"{address}/postgres", "CREATE DATABASE versions", autocommit=True)
    yield f"{address}/versions"
    execute(f"{address}/postgres", "DROP DATABASE versions WITH (FORCE)", autocommit=True)


@pytest.fixture
def opened(task: Task, place: str, tmp_path: Path) -> Iterator[Registry]:
    with registry(task, place, artifacts=tmp_path / ".trimtab" / "artifacts") as one:
        yield one


@pytest.fixture
def own(task: Task) -> Iterator[Registry]:
    """The registry beside the task file."""
    with registry(task) as one:
        yield one


@pytest.fixture
def add(tmp_path: Path) -> Add:
    """Registers a folder with this text in it."""

    def registered(where: Registry, text: str = "weights", arm: str = "lora") -> Version:
        folder = tmp_path / "made"
        (folder / "run").mkdir(parents=True, exist_ok=True)
        (folder / "run" / "adapter").write_text(text)
        (folder / "bundle.json").write_text("{}")
        return where.add(replace(DRAFT, arm=arm), folder)

    return registered
