"""The first argument of every verb: a task file, a folder, a data file; arms and questions behind it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from trimtab.base.errors import InputError
from trimtab.cli.main import app
from trimtab.cli.options import optional_arm, required_arm, split_source, task_from_options


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with folders called `tickets` and `lora` and a file `tickets.csv`."""
    monkeypatch.chdir(tmp_path)
    for name in ("tickets", "lora"):
        (tmp_path / name).mkdir()
    rows = [f"Message number {n} of {n * 7919 % 9973},{'abc'[n % 3]}" for n in range(60)]
    (tmp_path / "tickets.csv").write_text("\n".join(["text,label", *rows, ""]))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], (None, [])),
        (["lora"], (None, ["lora"])),
        (["./lora"], ("./lora", [])),
        (["tickets"], ("tickets", [])),
        (["tickets", "lora+rag"], ("tickets", ["lora+rag"])),
        (["tickets.csv", "lora", "rag"], ("tickets.csv", ["lora", "rag"])),
        (["nothing/", "rag"], ("nothing/", ["rag"])),
        (["wide-lora"], (None, ["wide-lora"])),
    ],
)
def test_arms_behind_a_folder_or_a_file(place: Path, words: list[str], expected: tuple[str | None, list[str]]) -> None:
    assert split_source(words) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], (None, [])),
        (["Where is a/b. and c?"], (None, ["Where is a/b. and c?"])),
        (["tickets"], ("tickets", [])),
        (["tickets/", "Where?"], ("tickets/", ["Where?"])),
        (["tikets/", "Where?"], ("tikets/", ["Where?"])),
    ],
)
def test_a_question_behind_a_folder_or_a_file(
    place: Path, words: list[str], expected: tuple[str | None, list[str]]
) -> None:
    assert split_source(words, arms=False) == expected


def test_verbs_of_one_arm_take_one(place: Path) -> None:
    assert required_arm(["tickets", "rag"]) == ("tickets", "rag")
    assert optional_arm(["tickets"]) == ("tickets", None)
    for words in (["lora", "rag"], ["tickets", "lora", "rag"]):
        with pytest.raises(typer.BadParameter, match="several arms"):
            required_arm(words)
    with pytest.raises(typer.BadParameter, match="no arm is named"):
        required_arm(["tickets"])


def test_a_task_is_named_once(place: Path) -> None:
    with pytest.raises(InputError, match="named twice"):
        task_from_options(Path("other.toml"), "tickets.csv")


def test_what_only_reads_writes_no_task_file(place: Path) -> None:
    done = CliRunner().invoke(app, ["runs", "tickets.csv"])
    assert done.exit_code == 2
    assert not (place / "trimtab.toml").exists()
    assert "init" in done.output


def test_a_guess_is_settled_by_options_where_there_is_no_terminal(place: Path) -> None:
    lines = (place / "tickets.csv").read_text().splitlines()
    lines = ["body,queue,prio", *(f"{line},{n % 2}" for n, line in enumerate(lines[1:]))]
    (place / "tickets.csv").write_text("\n".join(lines))
    done = CliRunner().invoke(app, ["check", "tickets.csv", "--json"])
    assert done.exit_code == 2
    said = json.loads(done.stdout)["error"]
    assert "--input body --label" in said
    assert "\n" not in said
    own = task_from_options(Path("trimtab.toml"), "tickets.csv", input="body", label="queue", output=None)
    assert own.data.columns == {"input": "body", "label": "queue"}
