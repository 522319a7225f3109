"""`test`: reports how often the test questions were opened, and draws new ones."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import InputError
from trimtab.base.files import locked
from trimtab.base.show import Shown
from trimtab.base.task import Task, as_task
from trimtab.data.ledger import LedgerRow, read_ledger, write_ledger
from trimtab.measurement.statistics import look_level
from trimtab.studies.record import opened_items, retire, studies_that_opened

LEDGER = "splits.parquet"


@dataclass(frozen=True, kw_only=True)
class HeldOut(Shown):
    """The test questions, the studies that opened them, and the significance level of the next study's claims."""

    questions: int
    looks: int
    next_level: float


def held_out(task: str | Path | Task = "trimtab.toml", *, fresh: bool = False) -> HeldOut:
    """Return how often a task's test questions were opened. `fresh`: first draw new ones, from rows that no study has
    tested on.

    The old test rows become training rows; a study in progress cannot continue. Raises InputError if the test set is
    files of its own, or no rows are left.
    """
    task = as_task(task)
    workspace = open_workspace(task)
    if fresh:
        with locked(workspace.folder / "studies"):
            ledger = workspace.folder / LEDGER
            known = read_ledger(ledger)
            drawn = _drawn_anew(task, known, opened_items(workspace))
            retire(workspace, [row.id for row in known.values() if row.split == "test"])
            write_ledger(ledger, drawn)
        workspace = open_workspace(task)
    looks = len(studies_that_opened(workspace))
    return HeldOut(questions=len(workspace.splits["test"]), looks=looks, next_level=look_level(looks + 1))


def _drawn_anew(task: Task, known: dict[str, LedgerRow], opened: set[str]) -> list[LedgerRow]:
    """Return the ledger with as many train rows moved to test, whole groups drawn by stratum, and the old test rows in
    train.
    """
    if task.data.test:
        raise InputError(
            "the test set is files of its own", "put new questions there", file=task.file, field="data.test"
        )
    if "time" in task.data.columns:
        problem = "the test set is the newest rows, and older ones would take their place"
        remedy = "add newer rows to data.examples: they become test questions"
        raise InputError(problem, remedy, file=task.file, field="data.columns.time")
    groups: dict[str, list[LedgerRow]] = defaultdict(list)
    for row in known.values():
        groups[row.group].append(row)
    strata: dict[str, list[list[LedgerRow]]] = defaultdict(list)
    wanted: dict[str, int] = defaultdict(int)
    for rows in groups.values():
        stratum = rows[0].stratum
        wanted[stratum] += sum(row.split == "test" for row in rows)
        if all(row.split == "train" and row.id not in opened for row in rows):
            strata[stratum].append(rows)
    draw, test = random.Random(f"{task.data.split.seed} {len(opened)}"), set()
    for stratum, left in strata.items():
        draw.shuffle(left)
        while left and wanted[stratum] > 0:
            rows = left.pop()
            wanted[stratum] -= len(rows)
            test |= {row.id for row in rows}
    lacking = sum(max(0, number) for number in wanted.values())
    if lacking:
        raise InputError(
            f"{lacking} more rows would have to be left that no study has tested on",
            "add rows to data.examples, or questions of their own as data.test",
            file=task.file,
            field="data.examples",
        )
    old = {row.id for row in known.values() if row.split == "test"}
    return [
        replace(row, split="test" if row.id in test else "train" if row.id in old else row.split)
        for row in known.values()
    ]
