"""A version to register, and steps that tests of several stores take with it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from trimtab.upkeep.registry import Registry
from trimtab.upkeep.versions import Version

DRAFT = Version(
    number=None,
    task="small",
    arm="lora",
    parent=None,
    created=datetime(2026, 1, 1, tzinfo=UTC),
    by="jo",
    source="made",
    artifact_sha256=None,
    weights_sha256=None,
    index_sha256=None,
    base=None,
    settings={"rank": 8},
)
Add = Callable[..., Version]


def collect_one_of_three(own: Registry, add: Add) -> set[str]:
    """Register three versions, follow the first and collect the second; return the names of the files that stay."""
    for text in "abc":
        add(own, text)
    own.promote(1, why="first")
    release = own.follow()(())
    assert release is not None
    assert (release.folder / "run" / "adapter").read_text() == "a"
    assert own.gc(1).versions == (2,)
    whole = [own.show(number).artifact_sha256 or "" for number in (1, 3)]
    return {name for artifact in whole for name in (artifact, *own.artifacts.files(artifact).values())}
