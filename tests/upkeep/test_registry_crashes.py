"""The stress script on a small scale: writers of one registry that die at random moments, and lose nothing that they
were told is kept."""

import json
import os
import sys
from pathlib import Path

import pytest
from forked import run
from postgres_server import server

__all__ = ["server"]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")]

ROOT = Path(__file__).parents[2]
RUN = 'import runpy, sys\n{}\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name="__main__")'
# Registries that are wrong, and what of that the script must see.
BROKEN = {
    "a row before the files that it names": (
        "from trimtab.upkeep.artifacts import Artifacts, FolderStore\n"
        "FolderStore.put, Artifacts.lacks = lambda self, file, sha256: None, lambda self, artifact: False",
        "is not whole",
    ),
    "a move that is read and made apart": (
        "import time\n"
        "from trimtab.serving.database import Database\n"
        "from trimtab.upkeep.registry import Registry\n"
        "Database.exclusive, move = Database.begin, Registry._move\n"
        "Registry._move = lambda *given, **named: [time.sleep(0.01), move(*given, **named)][1]",
        "says it was",
    ),
    "a version that does not stay": (
        "from trimtab.upkeep.registry import Registry\n"
        "add = Registry.add\n"
        "def forgotten(self, draft, folder):\n"
        "    made = add(self, draft, folder)\n"
        "    with self._database.exclusive() as connection:\n"
        "        connection.exec_driver_sql(f'DELETE FROM trimtab_versions WHERE number = {made.number}')\n"
        "    return made\n"
        "Registry.add = forgotten",
        "is lost",
    ),
}


def crashed(out, *more, sabotage="", cycles, writers=4):
    script = [str(ROOT / "benchmarks" / "registry_crashes.py"), "--cycles", str(cycles), "--writers", str(writers)]
    command = [sys.executable, "-c", RUN.format(sabotage), *script, "--out", str(out), *more]
    done = run(command)
    return done, json.loads(out.read_text())


def test_nothing_acknowledged_is_lost_to_kills(tmp_path):
    done, found = crashed(tmp_path / "found.json", cycles=11)
    assert done.returncode == 0, done.stdout + done.stderr
    told = found["sqlite"]
    assert (told["kills"], told["faults"], told["registries"]) == (44, 0, 2)
    assert told["acknowledged"]["version"] > 0
    done, found = crashed(tmp_path / "found.json", cycles=21)  # goes on from there
    assert done.returncode == 0, done.stdout + done.stderr
    on = found["sqlite"]
    assert (on["cycles"], on["kills"], on["registries"]) == (21, 84, 3)
    assert on["acknowledged"]["version"] > told["acknowledged"]["version"]
    assert on["seconds"] > told["seconds"]
    assert told["acknowledged"]["move"] > 0


@pytest.mark.stress
def test_nor_in_postgresql(tmp_path, server):
    done, found = crashed(tmp_path / "found.json", "--postgres", server, cycles=10)
    assert done.returncode == 0, done.stdout + done.stderr
    told = found["postgresql"]
    assert (told["kills"], told["faults"]) == (40, 0)
    assert told["acknowledged"]["version"] > 0


@pytest.mark.stress
@pytest.mark.parametrize(("sabotage", "seen"), BROKEN.values(), ids=BROKEN)
def test_the_script_sees_a_registry_that_is_wrong(tmp_path, sabotage, seen):
    done, found = crashed(tmp_path / "found.json", sabotage=sabotage, cycles=10)
    assert done.returncode == 1
    assert found["sqlite"]["faults"] > 0
    assert seen in done.stdout
