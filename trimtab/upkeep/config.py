"""Tables of the task file that keep a version in use correct."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trimtab.base.config import Settings

if TYPE_CHECKING:
    from trimtab.base.task import Task


class DriftTable(Settings):
    """`[upkeep.drift]`: how answers in use are compared with the first answers of their version."""

    window: int = Field(
        200, ge=30, le=1_000, description="Number of answers in the reference and in each later window."
    )
    alarm_free: int = Field(
        100, ge=10, le=500, description="Expected number of windows before a false alarm, at the least."
    )


class UpkeepTable(Settings):
    """`[upkeep]`: how a version in use is kept correct."""

    drift: DriftTable = Field(DriftTable(), description="What `trimtab drift` compares.")
    promote: Literal["ask", "if-better"] = Field(
        "ask",
        description="What becomes of a candidate that passed the gate of refresh, or was shown to be good in a canary: "
        "it waits for you, or goes into production.",
    )
    documents: Literal["ask", "if-not-worse"] = Field(
        "ask",
        description="What refresh does with an update of the index alone that was shown to be not worse: wait for you, "
        "or put it into production.",
    )
    registry: str = Field(
        "",
        description="Database of versions: sqlite:///FILE, below the task's folder, or "
        "postgresql://USER@HOST/DATABASE.",
    )
    artifacts: str = Field(
        "",
        description="Location of the files of versions: a folder, or s3://BUCKET/FOLDER; default: beside an SQLite "
        "registry.",
    )


def upkeep_of(task: Task) -> UpkeepTable:
    """Return the table `[upkeep]` of a task; the defaults if it has none."""
    return task.table(UpkeepTable) or UpkeepTable()
