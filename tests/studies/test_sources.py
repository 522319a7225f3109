"""Whatever a verb is given becomes a task file and data beside it: folders, files, data in memory, settings as
keywords."""

from __future__ import annotations

import csv
import tomllib
from datetime import date
from pathlib import Path
from typing import Any, get_type_hints

import pandas
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trimtab
from trimtab.base.config import ArmTable, BaseTable, CostTable, DataTable, HourPrice, StudyTable, TargetTable, TaskTable
from trimtab.base.errors import InputError, MissingError, OptionError
from trimtab.base.plugins import plugin_names
from trimtab.base.task import Task, load_task
from trimtab.data.columns import ColumnsError
from trimtab.data.formats import read_examples
from trimtab.studies.settings import TaskKeywords, to_toml
from trimtab.studies.sources import task_at, task_for


def rows_of(count: int = 60, **more: Any) -> list[dict[str, Any]]:
    return [{"text": f"Message number {n} of {n * 7919 % 9973}", "label": "abc"[n % 3], **more} for n in range(count)]


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def inputs(task: Task) -> list[tuple[str, str]]:
    return [(row.input, row.references[0]) for row in read_examples(task, task.data.examples).examples]


EXPECTED = [(row["text"], row["label"]) for row in rows_of()]


def test_a_data_file_gets_a_task_file_beside_it_once_and_few_words(tmp_path: Path) -> None:
    file = write_table(tmp_path / "tickets.csv", rows_of())
    write_table(tmp_path / "other.csv", rows_of(90))
    (tmp_path / "notes.md").write_text("# About\nnothing")
    said: list[str] = []
    task = task_at(file, tell=said.append)
    assert (task.data.examples, task.data.documents) == (("tickets.csv",), ())
    assert inputs(task) == EXPECTED
    assert 0 < len(said) <= 5
    assert "`text` is the input, `label` the label" in said[0]
    text = task.file.read_text()
    task.file.write_text(f"{text}# mine\n")
    assert task_at(file, tell=said.append) == task
    assert len(said) == 2, "what is there already is not told again"
    assert task.file.read_text().endswith("# mine\n")
    with pytest.raises(InputError, match="reads other files"):
        task_at(tmp_path / "other.csv")


def test_a_folder_and_a_task_file_are_tasks_too(tmp_path: Path) -> None:
    write_table(tmp_path / "rows.csv", rows_of())
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# A\ntext")
    task = task_at(tmp_path)
    assert task.data.documents == ("docs/",)
    assert task_at(tmp_path / "trimtab.toml") == task
    with pytest.raises(MissingError, match="no such folder and no such file"):
        task_at(tmp_path / "nothing" / "here")


def test_a_guess_that_others_contend_for_is_refused_and_settled_by_names(tmp_path: Path) -> None:
    rows = [{"body": row["text"], "queue": row["label"], "prio": n % 2} for n, row in enumerate(rows_of())]
    file = write_table(tmp_path / "a.csv", rows)
    with pytest.raises(ColumnsError, match=r"--input body --label \w+$") as refused:
        task_at(file)
    assert set(refused.value.fields) == {"body", "queue", "prio"}
    assert not (tmp_path / "trimtab.toml").exists()
    task = task_at(file, {"input": "body", "label": "queue"})
    assert inputs(task) == EXPECTED
    assert task_at(file, {"input": "body", "label": "queue"}) == task
    with pytest.raises(InputError, match=r"trimtab\.toml:label: the task file says something else"):
        task_at(file, {"label": "prio"})


@pytest.mark.parametrize(
    "of",
    [
        pandas.DataFrame,
        pyarrow.Table.from_pylist,
        list,
        iter,
        lambda rows: pandas.DataFrame(rows[:60]).sample(frac=1, random_state=0).sort_index(),
    ],
)
def test_data_in_memory_give_the_rows_that_they_hold(tmp_path: Path, of: Any) -> None:
    task = task_for(of(rows_of()), folder=tmp_path / "new" / "place")
    assert inputs(task) == EXPECTED
    assert task.task.kind == "classify"
    assert load_task(tmp_path / "new" / "place") == task
    assert all("index" not in note for note in read_examples(task, task.data.examples).notes)


def test_a_column_of_one_value_is_no_bomb(tmp_path: Path) -> None:
    rows = [{"text": "the same few words", "label": "a" if n % 2 else "b"} for n in range(100_000)]
    task = task_for(pyarrow.Table.from_pylist(rows), folder=tmp_path)
    assert len(read_examples(task, task.data.examples).examples) == 100_000


def test_classes_of_a_dataset_are_named(tmp_path: Path) -> None:
    class Classes:
        def int2str(self, number: int) -> str:
            return "abc"[number]

    class Dataset(list[dict[str, Any]]):
        features = {"text": object(), "label": Classes()}  # noqa: RUF012

    data = Dataset({**row, "label": "abc".index(row["label"])} for row in rows_of())
    assert inputs(task_for(data, folder=tmp_path)) == EXPECTED


def test_settings_stand_in_the_task_file_and_documents_lie_beside_it(tmp_path: Path) -> None:
    (tmp_path / "handbook").mkdir()
    (tmp_path / "handbook" / "a.md").write_text("# A\ntext")
    settings: dict[str, Any] = {
        "input": "text",
        "label": "label",
        "target": 0.9,
        "base": BaseTable(model="smollm2-360m"),
        "arm": {"wide": ArmTable(weights="lora", rank=64)},
        "cost": CostTable(machine_hour=HourPrice(price=0.4, as_of=date(2026, 11, 1), source="ours")),
        "documents": tmp_path / "handbook",
        "test": pandas.DataFrame(rows_of(9)),
        "metric": "macro_f1",
        "seeds": 2,
        "instruction": 'Say "a",\nb or c\x7f',
    }
    task = task_for(rows_of(), settings, tmp_path / "work")
    assert (task.target.quality, task.target.margin) == (0.9, 0.02)
    assert (task.base.model, task.base.embedding) == ("smollm2-360m", "minilm-l6")
    assert task.arm["wide"].rank == 64
    assert task.cost.machine_hour == settings["cost"].machine_hour
    assert (task.metric, task.study.seeds, task.task.instruction) == ("macro_f1", 2, settings["instruction"])
    assert task.data.documents == ("documents/handbook",)
    assert len(read_examples(task, task.data.test).examples) == 9
    assert load_task(tmp_path / "work") == task
    again = task_for(rows_of(70), {**settings, "target": TargetTable(margin=0.1)}, tmp_path / "work")
    assert (len(inputs(again)), again.target.margin) == (70, 0.1)


def test_a_task_file_of_ones_own_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "trimtab.toml").write_text("# mine\n")
    with pytest.raises(InputError, match="choose another folder="):
        task_for(rows_of(), folder=tmp_path)
    assert (tmp_path / "trimtab.toml").read_text() == "# mine\n"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"taget": 0.9}, r"no argument 'taget'; did you mean target\?$"),
        ({"lable": "x"}, r"did you mean label\?$"),
        ({"arm_s": ["linear"]}, r"did you mean arms\?$"),
        ({"zzzzzz": 1}, r"it takes: "),
    ],
)
def test_a_wrong_keyword_gets_one_line_that_says_which_was_meant(given: dict[str, Any], said: str) -> None:
    for verb in (trimtab.study, trimtab.check):
        with pytest.raises(OptionError, match=said) as refused:
            verb(rows_of(), **given)
        assert isinstance(refused.value, TypeError | trimtab.TrimtabError)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("data", [5, None, {"text": ["a"]}, ["a", "b"], [], object()])
def test_what_is_no_data_is_said_in_one_line_and_leaves_nothing(
    data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(OptionError, match="give a path, a DataFrame") as refused:
        task_for(data)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_value_out_of_range_is_told_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^settings:target\.quality: .*found 2"):
        task_for(rows_of(), {"target": 2}, tmp_path)


def test_every_key_of_the_task_file_has_its_keyword() -> None:
    keys = {*TaskTable.model_fields, *DataTable.model_fields, *StudyTable.model_fields, *Task.model_fields}
    keys -= {*plugin_names("tables")}
    tables, explicit = {"task", "data", "study", "file", "rows"}, {"examples", "arms", "budget", "scorer", "reward"}
    assert keys - tables - explicit == get_type_hints(TaskKeywords).keys() - {"input", "label", "output"}


VALUES = st.recursive(
    st.text()
    | st.integers(-(2**60), 2**60)
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.text(min_size=1), VALUES, max_size=4))
def test_what_is_written_as_toml_is_read_as_it_was(table: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml({"x": table})) == {"x": table}


def test_rows_in_memory_with_half_a_character_are_refused_one_by_one(tmp_path: Path) -> None:
    rows = [{"text": f"a {n} word{n % 7}", "label": "xy"[n % 2], "kind": "\ud83d" if n < 3 else "é"} for n in range(90)]
    found = trimtab.check(rows, input="text", label="label", slice="kind", folder=tmp_path, timing=False, listeners=[])
    assert sum(found.splits.values()) <= 87
    assert "é" in (tmp_path / "data.jsonl").read_text(encoding="utf-8")
    refused = (tmp_path / ".trimtab" / "refused.jsonl").read_text(encoding="utf-8").splitlines()
    assert len([line for line in refused if "data.jsonl" in line]) >= 3
