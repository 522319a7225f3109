"""A version to register, and what registers it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from trimtab.base.versions import Version

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
