"""Every kind of file and database that is read back keeps a form number, and another number is refused in one line."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from arm_files import write_arm_file

from trimtab.arms.known_rows import read_known_rows, write_known_rows
from trimtab.arms.store import read_arm
from trimtab.base.errors import InputError, VersionError
from trimtab.base.files import FORM, append_own, read_own, read_own_lines, write_own
from trimtab.base.task import load_task
from trimtab.data.ledger import read_ledger, write_ledger
from trimtab.measurement.evaluate import load_answers, save_answers
from trimtab.publishing.crawl_store import CrawlStore
from trimtab.serving import shared_limits
from trimtab.serving.database import Closing, Database
from trimtab.serving.feedback import FeedbackStore
from trimtab.serving.traffic_store import TrafficStore
from trimtab.training.checkpoint import Checkpoint
from trimtab.training.checkpoint import load as load_checkpoint
from trimtab.training.checkpoint import save as save_checkpoint
from trimtab.training.linear import LinearChoice, LinearModel, load_linear
from trimtab.upkeep.registry import registry

OTHER = 77


def write_linear(folder: Path) -> Path:
    model = LinearModel(
        labels=("a", "b"),
        choice=LinearChoice(features="embedding"),
        dev_score=1.0,
        template=(),
        terms=(),
        weights_CF=np.zeros((2, 3)),
        offsets_C=np.zeros(2),
    )
    model.save(folder)
    return folder / "linear.json"


def write_checkpoint(folder: Path) -> Path:
    save_checkpoint(folder, Checkpoint(weights={"w": torch.zeros(1)}, moments={}, state={"step": 1}))
    return next(folder.glob("*/hashes.json"))


def made(write: Callable[[Path], object], name: str) -> Callable[[Path], Path]:
    """A writer that writes `name` in a folder and returns its path."""

    def written(folder: Path) -> Path:
        write(folder / name)
        return folder / name

    return written


# What writes a file of each kind into a folder and returns its path, and what reads it from there.
FILES: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "a record": (lambda folder: write_arm_file(folder, "prompt"), lambda file: read_arm(file.parent)),
    "an object": (made(lambda file: write_own(file, {"a": 1}), "depends.json"), read_own),
    "lines": (
        made(lambda file: append_own(file, {"study": "a"}), "openings.jsonl"),
        lambda file: list(read_own_lines(file)),
    ),
    "a linear classifier": (write_linear, lambda file: load_linear(file.parent)),
    "a checkpoint": (write_checkpoint, lambda file: load_checkpoint(file.parents[1])),
    "answers": (made(lambda file: save_answers(file, ()), "answers.parquet"), load_answers),
    "the split ledger": (made(lambda file: write_ledger(file, ()), "splits.parquet"), read_ledger),
    "known rows": (
        made(lambda file: write_known_rows(file.parent, {"train": ()}), "rows.parquet"),
        lambda file: read_known_rows(file.parent),
    ),
}


def set_form(file: Path, form: int | None) -> None:
    """Give a file another form number, or none."""
    if file.suffix == ".parquet":
        table = pyarrow.parquet.read_table(file)
        pyarrow.parquet.write_table(table.replace_schema_metadata(form and {"trimtab_form": str(form)}), file)
        return
    plain: dict[str, Any] = {key: value for key, value in json.loads(file.read_text()).items() if key != "form"}
    file.write_text(json.dumps(plain if form is None else {**plain, "form": form}) + "\n")


@pytest.mark.parametrize("form", [OTHER, None])
def test_files_of_another_form_are_refused_in_one_line(tmp_path: Path, form: int | None) -> None:
    for number, (kind, (write, read)) in enumerate(FILES.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        file = write(folder)
        read(file)
        set_form(file, form)
        expected = f"has form {OTHER}, and this version of Trimtab reads form {FORM}" if form else "no form number"
        with pytest.raises(InputError, match=f"{re.escape(str(folder))}.*{expected}.*; ") as told:
            read(file)
        assert "\n" not in str(told.value), kind


@pytest.fixture
def openers(tmp_path: Path) -> dict[str, tuple[str, Callable[[], Closing]]]:
    """The table that keeps the form number of each kind of database, and what opens it at `tmp_path / "db"`."""
    (tmp_path / "rows.jsonl").write_text('{"input": "a", "output": "b"}\n')
    (tmp_path / "trimtab.toml").write_text('[task]\nkind = "answer"\n[data]\nexamples = ["rows.jsonl"]\n')
    task, file = load_task(tmp_path), tmp_path / "db"
    return {
        "judgements": ("trimtab_form", lambda: FeedbackStore(file)),
        "traffic": ("trimtab_traffic_form", lambda: TrafficStore(file)),
        "registry": ("trimtab_registry_form", lambda: registry(task, file)),
        "limits": ("trimtab_limits_form", lambda: Database(file, shared_limits._SCHEMA)),
    }


def test_databases_of_another_form_are_refused_in_one_line(
    openers: dict[str, tuple[str, Callable[[], Closing]]], tmp_path: Path
) -> None:
    file = tmp_path / "db"
    for kind, (table, opened) in openers.items():
        opened().close()
        with sqlite3.connect(file) as connection:
            connection.execute(f"UPDATE {table} SET number = {OTHER}")
        connection.close()
        with pytest.raises(
            VersionError, match=rf"{file}: has form {OTHER}, and this .* reads form \d+; .*name"
        ) as told:
            opened()
        assert "\n" not in str(told.value), kind
        for path in tmp_path.glob("db*"):
            path.unlink()


def test_a_crawl_of_another_form_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "crawl.db"
    for _ in range(2):
        with CrawlStore(file):
            pass
    with sqlite3.connect(file) as connection:
        connection.execute(f"PRAGMA user_version = {OTHER}")
    connection.close()
    with pytest.raises(VersionError, match=f"{file}: has form {OTHER}, .*; take it away") as told:
        CrawlStore(file)
    assert "\n" not in str(told.value)
