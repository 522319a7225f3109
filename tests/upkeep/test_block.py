"""The commands of the README's block *Keep it true* on an open verdict: each works, or names the command that does."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from patience import no_patience, timed_once
from study_tasks import CLASSIFY, LABELLED, rows_of, write_task
from typer.testing import CliRunner

from trimtab import study
from trimtab.cli.main import app

__all__ = ["no_patience", "timed_once"]

pytestmark = pytest.mark.slow

Run = Callable[[str], tuple[int, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, tiny_embedding_folder: Path) -> Path:
    """A study without a choice: no question tells its label, and the usual label scores as much as its one arm."""
    rows = [row | {"answer": "no" if row["topic"] == "rare" else "yes"} for row in rows_of(80)]
    task = write_task(
        tmp_path_factory.mktemp("open"),
        tiny_model_folder,
        ["linear"],
        rows=rows,
        task=CLASSIFY,
        data=LABELLED,
        base=f'embedding = "{tiny_embedding_folder}"',
        more="[target]\nquality = 0.97\n[traffic]\nshare = 1.0\n",
    )
    assert study(task, listeners=[]).verdict.use is None
    return task.parent


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in the folder of the task, as a user types it."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "500")

    def ran(words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, shlex.split(words.removeprefix("trimtab ")))
        error = done.exception
        said = done.output + (f"\n{error}" if error is not None and not isinstance(error, SystemExit) else "")
        return done.exit_code, " ".join(said.split())

    return ran


def named(said: str, words: str) -> str:
    """The command that a message names, up to the end of its sentence."""
    found = re.search(rf"trimtab {words}[^;.,(]*", said)
    assert found is not None, said
    return found[0].strip().replace("…", "a reason")


def test_each_command_names_the_next_one_up_to_production_and_back(run: Run) -> None:
    for words in ("registry list", "registry history", "refresh", "canary start", "registry rollback --why x"):
        assert "trimtab registry register" in run(words)[1] or "trimtab registry promote" in run(words)[1], words
    code, said = run("registry register")
    assert code != 0
    register = named(said, "registry register")
    assert register == "trimtab registry register linear"
    code, said = run(register)
    assert code == 0, said
    code, said = run(named(said, "registry promote"))
    assert (code, named(said, "serve")) == (0, "trimtab serve --alias production")
    code, said = run("drift")
    assert code == 0, said
    assert "more answers tell whether questions drift" in said
    named(said, "serve --alias production")
    code, said = run("refresh")
    assert code == 0, said
    assert "Nothing is new" in said
    named(said, "drift")
    code, said = run("canary start")
    assert code != 0
    assert named(said, "refresh") == "trimtab refresh"
    named(said, "canary start --version")
    assert named(run("canary status")[1], "canary start") == "trimtab canary start"


def test_the_history_keeps_its_columns_in_a_pipe(run: Run) -> None:
    assert run("registry register linear")[0] == 0
    why = "for a reason that is long, and longer than a line of a terminal"
    for number in range(1, 4):
        run(f"registry promote 1 --alias try-{number} --why '{why}'")
    done = CliRunner(env={"COLUMNS": "60"}).invoke(app, ["registry", "history"])
    head, *lines = done.output.splitlines()
    assert len(lines) >= 3
    at = head.index("version") + len("version")
    assert all(line[:at].split()[-1] == "1" for line in lines)
    assert why[:30] in next(line for line in lines if "try-2" in line)
