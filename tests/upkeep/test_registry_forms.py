"""Forms of the registry: what a program of one form writes, those of the form before and the one after read."""

from __future__ import annotations

import io
import json
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from registered import Add

from trimtab.base.errors import VersionError
from trimtab.base.task import Task
from trimtab.serving.releases import Canary
from trimtab.upkeep.canary_records import CanaryRecord, CanaryTally
from trimtab.upkeep.registry import Registry, registry
from trimtab.upkeep.tables import CANARIES, CANARY_ENDS, CANARY_TALLIES, EVIDENCE, FORM
from trimtab.upkeep.versions import GateRecord, GateTest, Move, Version

FORMS = Path(__file__).parent / "forms"  # databases that programs of each form wrote, and the fields of records
ROOT = Path(__file__).parents[2]
FORM_2 = "ab51d70"  # a commit whose program has form 2
GATE = GateRecord(
    old_test=None,
    new_test=GateTest(
        claim="better",
        questions=40,
        candidate=0.8,
        production=0.6,
        difference=0.2,
        low=0.1,
        high=0.3,
        p=0.001,
        level=0.05,
        look=1,
        shown=True,
        shown_worse=False,
    ),
    forgetting=None,
    latency=None,
    passed=True,
)
EARLIER_PROGRAM = """
import json, sys
from trimtab.base.task import load_task
from trimtab.upkeep.registry import registry
with registry(load_task(sys.argv[1])) as own:
    moves = [[move.alias, move.version, move.kind] for move in own.history()]
    versions = [one.number for one in own.lineage().versions]
    own.promote(4, "candidate", why="by an earlier program", by="earlier")
print(json.dumps([moves, versions, own.current().number, own.canary_records()[0].outcome]))
"""


def laid_out(task: Task, form: int) -> Path:
    """The database that a program of a form wrote, in the place of this task's."""
    place = task.folder / ".trimtab" / "registry.db"
    place.parent.mkdir()
    file = sqlite3.connect(place)
    file.execute("PRAGMA journal_mode=WAL")
    file.executescript((FORMS / f"form_{form}.sql").read_text())
    file.close()
    return place


def rows(place: str | Path, wanted: str) -> list[Any]:
    file = sqlite3.connect(place)
    found = file.execute(wanted).fetchall()
    file.close()
    return found


@pytest.mark.parametrize("make", [False, True])
@pytest.mark.parametrize("form", [1, 2])
def test_what_earlier_programs_wrote_is_read_and_written_on(task: Task, form: int, make: bool) -> None:
    laid_out(task, form)
    with registry(task, make=make) as own:
        moves = own.history()
        assert [(one.alias, one.version, one.kind) for one in moves] == [
            ("production", 1, "rollback"),
            ("production", 2, "promote"),
            ("candidate", 2, "promote"),
            ("production", 1, "promote"),
        ]
        assert moves[2].evidence is not None
        assert moves[2].evidence.passed is True
        assert own.lineage().aliases == {"production": 1, "candidate": 2}
        assert own.show(2).score == own.show(1).score is not None
        assert len(own.canary_records()) == form - 1


@pytest.mark.parametrize("form", [1, 2])
def test_a_registry_of_an_earlier_form_gains_the_evidence_of_a_move(
    own: Registry, add: Add, task: Task, form: int
) -> None:
    add(own)
    own.close()
    file = sqlite3.connect(own.name)
    for name in (EVIDENCE, *((CANARY_TALLIES, CANARY_ENDS, CANARIES) if form == 1 else ())):
        file.execute(f"DROP TABLE {name}")
    file.execute(f"UPDATE trimtab_registry_form SET version_num = '{form:04}'")
    file.commit()
    file.close()
    with registry(task, make=False) as reading:
        assert reading.history() == ()
        reading.promote(1, why="better", evidence=GATE)
        assert reading.history()[0].evidence == GATE
    assert int(rows(own.name, "SELECT version_num FROM trimtab_registry_form")[0][0]) == FORM


def test_the_row_of_a_move_is_the_same_with_and_without_evidence(own: Registry, add: Add) -> None:
    add(own)
    own.promote(1, "with", why="x", evidence=GATE)
    own.promote(1, "without", why="x")
    with_it, without = (json.loads(text) for (text,) in rows(own.name, "SELECT record FROM trimtab_moves"))
    varying = {"alias", "when"}
    assert {**with_it, **dict.fromkeys(varying)} == {**without, **dict.fromkeys(varying)}
    assert [one.evidence for one in own.history()] == [None, GATE]


def shape(kind: Any) -> Any:
    """The fields of a record and of the records in it."""
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return {one.name: shape(hints[one.name]) for one in fields(kind)}
    within = [found for one in get_args(kind) if isinstance(found := shape(one), Mapping)]
    return within[0] if len(within) == 1 else within or None


def test_records_in_rows_keep_the_fields_of_their_form() -> None:
    """A program refuses a field that it does not know: what a record gains needs a table of its own, and a form."""
    kinds = (Version, Move, GateRecord, Canary, CanaryRecord, CanaryTally)
    now = {kind.__name__: shape(kind) for kind in kinds}
    del now["Move"]["evidence"]  # stands in tables of its own
    del now["Version"]["flips"]["trivial"]  # left out of a version
    assert now == json.loads((FORMS / f"form_{FORM}_fields.json").read_text())


@pytest.mark.slow
def test_a_program_of_the_form_before_reads_and_writes_what_this_one_wrote(
    task: Task, add: Add, tmp_path: Path
) -> None:
    archive = subprocess.run(["git", "archive", FORM_2, "trimtab"], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode != 0:
        pytest.skip(f"the program of form 2, {FORM_2}, is not in this checkout's history")
    earlier = tmp_path / "earlier"
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as packed:
        packed.extractall(earlier, filter="data")
    laid_out(task, 2)
    with registry(task) as own:
        for text in "cd":
            add(own, text)
        own.promote(3, why="as it was")
        own.promote(4, "candidate", why="gate", evidence=GATE)
        own.promote(4, why="better", evidence=GATE)
        own.rollback(why="worse after all")
        ours = [[one.alias, one.version, one.kind] for one in own.history()]
    done = subprocess.run(
        [sys.executable, "-c", EARLIER_PROGRAM, str(task.folder)],
        env={"PYTHONPATH": str(earlier)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [ours, [1, 2, 3, 4], 3, "promoted"]
    with registry(task) as own:
        assert [[one.alias, one.version, one.kind] for one in own.history()] == [["candidate", 4, "promote"], *ours]
        assert [one.evidence for one in own.history()[1:5]] == [None, None, GATE, GATE]


def test_a_form_beyond_the_next_is_refused(task: Task) -> None:
    place = laid_out(task, 2)
    file = sqlite3.connect(place)
    file.execute(f"UPDATE trimtab_registry_form SET version_num = '{FORM + 2:04}'")
    file.commit()
    file.close()
    with pytest.raises(VersionError, match=f"form {FORM + 2}, this one reads 1 to {FORM + 1}"):
        registry(task)
