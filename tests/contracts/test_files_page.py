"""docs/reference/files.md describes what a study writes: its files, the columns of the answers, the keys of the
result."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.parquet
import pytest
from patience import no_patience, timed_once
from study_tasks import QUICK, folder_of, write_task

from trimtab import study
from trimtab.base import errors
from trimtab.base.files import FORM
from trimtab.measurement.evaluate import answers_schema

__all__ = ["no_patience", "timed_once"]
PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
SECTIONS = {title.strip("`"): text for title, _, text in (part.partition("\n") for part in PAGE.split("\n## ")[1:])}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A finished study of an arm that is trained and one that is not."""
    task = write_task(tmp_path_factory.mktemp("files"), tiny_model_folder, ["prompt", "quick"], more=QUICK)
    return folder_of(task, study(task, listeners=[]))


def keys(section: str) -> set[str]:
    """What stands in code in the first cells of a section's tables."""
    cells = re.findall(r"^\| (`.*?) \|", SECTIONS[section], re.M)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_every_file_that_a_study_writes_is_on_the_page(folder: Path) -> None:
    home = folder.parents[1]
    names = {path.name for path in home.rglob("*") if path.is_file()}
    assert {"study.json", "splits.parquet", "adapter_config.json", "latest", ".lock"} <= names
    missing = sorted(name for name in names if name not in PAGE)
    assert not missing


def test_the_columns_of_the_answers_are_those_of_the_table() -> None:
    assert keys("answers.parquet") == set(answers_schema().names)


def test_the_keys_of_the_result_are_those_of_the_tables(folder: Path) -> None:
    result = json.loads((folder / "study.json").read_text())
    written = {*result, *result["verdict"], *(key for arm in result["arms"] for key in arm)}
    listed = keys("study.json")
    assert written <= listed
    sometimes = {"busy_machine", "processor_share"}  # only where other programs took the processor, or that is known
    asked_for = {
        "exposure",
        "eight_bit",
        "sample",
        "today",
        "audit",
        "n_effective",
        "over_time",
        "spent",
        "to_judge",
    }  # only if measured, or used
    assert listed - written - sometimes == asked_for


def test_the_keys_of_manifest_and_events_are_on_the_page(folder: Path) -> None:
    assert set(json.loads((folder / "manifest.json").read_text())) == keys("manifest.json` of a study")
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    text = SECTIONS["events.jsonl"]
    assert {f"`{event['stage']}`" for event in events} <= set(re.findall(r"`\w+`", text))
    assert {f"`{key}`" for event in events for key in event} <= set(re.findall(r"`\w+`", text))


def test_the_exit_codes_are_those_of_the_table() -> None:
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert {int(code) for code in re.findall(r"^\| (\d) \|", SECTIONS["Exit codes"], re.M)} == codes


def test_every_file_that_is_read_back_has_its_form_number(folder: Path) -> None:
    """An index has it in its name, a checkpoint beside its state; an adapter's files are of other programs."""
    home, forms = folder.parents[1], dict[str, set[object]]()
    others = {"refused.jsonl", "adapter_config.json", "config.json", "state.json"}
    for file in (path for path in home.rglob("*") if path.is_file() and path.name not in others):
        if file.suffix == ".json" and "index" not in file.parent.name:
            forms[file.name] = {json.loads(file.read_text()).get("form")}
        elif file.suffix == ".jsonl":
            forms[file.name] = {json.loads(line).get("form") for line in file.read_text().splitlines()}
        elif file.suffix == ".parquet":
            forms[file.name] = {int((pyarrow.parquet.read_schema(file).metadata or {}).get(b"trimtab_form", 0))}
    assert {"study.json", "openings.jsonl", "splits.parquet"} <= forms.keys()
    assert all(numbers == {FORM} for numbers in forms.values()), forms
