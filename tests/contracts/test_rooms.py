"""The four rooms that stand on the core can be taken away: the core names none of them, and works without them."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from study_tasks import write_task

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "trimtab"
ROOMS = ("serving", "upkeep", "publishing", "scale")
VERBS = {
    "serving": {"serve", "feedback", "traffic"},
    "upkeep": {"label", "drift", "refresh", "registry", "canary"},
    "publishing": {"surface"},
    "scale": set[str](),
}
STANDS_ON = {"upkeep": "serving"}  # its commands read what `serve` has stored


IN_ONE_PROCESS = """
import json
from typer.testing import CliRunner
from trimtab.cli.main import app
for words in (["check"], ["study"], ["ask", "Which city?", "--arm", "prompt"]):
    done = CliRunner().invoke(app, [*words, "--json"])
    print(json.dumps({"code": done.exit_code, "output": done.stdout}))
"""


def without(rooms: Sequence[str], folder: Path) -> Path:
    """Make a copy of the package in `folder`, without these rooms; the other folders are links."""
    copy = folder / "trimtab"
    copy.mkdir(parents=True)
    for entry in PACKAGE.iterdir():
        if entry.name not in (*rooms, "__pycache__"):
            (copy / entry.name).symlink_to(entry)
    return folder


def python(package: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(package), "TERM": "dumb", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def verbs(package: Path, folder: Path) -> set[str]:
    done = python(package, "-m", "trimtab", "--help", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return set(re.findall(r"^  (\w+) ", done.stdout.partition("Commands:")[2].partition("Exit codes")[0], re.M))


@pytest.mark.parametrize("room", ROOMS)
def test_one_room_taken_away_takes_its_verbs_and_no_others(room: str, tmp_path: Path) -> None:
    package = without([room], tmp_path / "package")
    present = verbs(package, tmp_path)
    others = {verb for other in ROOMS if other != room and STANDS_ON.get(other) != room for verb in VERBS[other]}
    assert {"init", "check", "study", "ask", "train", "export", *others} <= present
    assert not present & VERBS[room]


def test_without_the_rooms_a_task_is_checked_studied_and_asked(tmp_path: Path, tiny_model_folder: Path) -> None:
    package = without(ROOMS, tmp_path / "package")
    write_task(tmp_path, tiny_model_folder, ["prompt"], study="test_rows = 4")
    done = python(package, "-c", IN_ONE_PROCESS, folder=tmp_path)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["code"] for result in results] in ([0, 0, 0], [0, 1, 0]), done.stderr  # 1: no arm is shown
    assert all(isinstance(json.loads(result["output"]), dict) for result in results)
    assert "plugin" not in done.stderr


def test_a_verb_and_a_table_of_a_room_that_is_gone_are_one_line(tmp_path: Path, tiny_model_folder: Path) -> None:
    package = without(ROOMS, tmp_path / "package")
    done = python(package, "-m", "trimtab", "serve", folder=tmp_path)
    assert done.returncode == 2
    assert "the plugin serve (trimtab.commands) does not load: ModuleNotFoundError" in done.stderr
    task = write_task(tmp_path, tiny_model_folder, ["prompt"], more="[upkeep]\n")
    done = python(package, "-m", "trimtab", "check", "--task", str(task), folder=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.search(r"trimtab.toml:upkeep: the plugin upkeep .*install it, or take the table out", line)


def test_the_core_and_its_tests_name_no_room_above() -> None:
    core = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in ROOMS]
    tests = [
        path
        for path in (ROOT / "tests").rglob("*.py")
        if path.relative_to(ROOT / "tests").parts[0] not in (*ROOMS, "helpers", "contracts")
    ]
    assert len(core) > 300
    for path in (*core, *tests):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        assert not [name for name in names if re.match(rf"trimtab\.({'|'.join(ROOMS)})\b", name)], path
