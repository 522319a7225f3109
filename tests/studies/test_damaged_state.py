"""Damaged files in .trimtab/, and IDs that are no names, end in one line that names the file; nothing is written
elsewhere."""

import json
import os
from pathlib import Path

import pytest

from trimtab.arms.planning.plan import load_plan
from trimtab.arms.store import find_saved, latest_winner
from trimtab.arms.workspace import open_workspace
from trimtab.base.codec import read_record, write_record
from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import FORM
from trimtab.base.records import Calibration
from trimtab.base.task import load_task, parse_arm
from trimtab.studies.record import count_opening
from trimtab.studies.runs import runs
from trimtab.studies.study import study
from trimtab.studies.train import train

TASK = '[task]\nname = "t"\nkind = "answer"\n[data]\nexamples = ["rows.jsonl"]\n[base]\nmodel = "no/such"\n'
DAMAGED = {
    "cut": '{"arm": "lora", ',
    "list": "[]",
    "null": "null",
    "other": f'{{"form": {FORM}, "x": 1}}',
    "binary": b"\xff\xfe",
}
ID = "20260101T000000Z-aaaaaa"


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    rows = (f'{{"question": "what is number {n * 7919} of {n}?", "answer": "it is {n * 31}"}}\n' for n in range(40))
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    (tmp_path / "trimtab.toml").write_text(TASK)
    return tmp_path / "trimtab.toml"


def put(task_file: Path, name: str, content: str | bytes) -> Path:
    path = task_file.parent / ".trimtab" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_manifest_is_named(task_file: Path, content: str | bytes):
    path = put(task_file, f"runs/{ID}/manifest.json", content)
    task = load_task(task_file)
    arm = parse_arm("lora", task)
    for use in (lambda: runs(task), lambda: find_saved(task, arm), lambda: find_saved(task, arm, ID)):
        with pytest.raises(InputError, match="damaged") as caught:
            use()
        assert caught.value.file == str(path)
    with pytest.raises(InputError, match="damaged"):
        train(task, "lora", resume="latest", listeners=[])


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_study_is_named(task_file: Path, content: str | bytes):
    put(task_file, f"studies/{ID}/study.json", content)
    task = load_task(task_file)
    for use in (runs, latest_winner):
        with pytest.raises(InputError, match="damaged") as caught:
            use(task)
        assert str(caught.value).count(ID) == 1


@pytest.mark.parametrize(
    "content", [*DAMAGED.values(), '{"arms": [{"x": 1}], "effort": {}, "left_out": {}, "cuts": []}']
)
def test_a_damaged_plan_is_named(task_file: Path, content: str | bytes):
    path = put(task_file, f"studies/{ID}/plan.json", content)
    with pytest.raises(InputError, match="damaged"):
        load_plan(path)


@pytest.mark.parametrize("name", ["..", ".", "../x", "/etc", "a/b", "a\0b", " "])
def test_an_id_that_leads_elsewhere_is_refused(task_file: Path, name: str):
    put(task_file, f"studies/{ID}/events.jsonl", "")
    put(task_file, f"runs/{ID}/metrics.jsonl", "")
    arm = parse_arm("lora", load_task(task_file))
    before = sorted(task_file.parent.rglob("*.json*"))
    with pytest.raises(MissingError, match=r"; trimtab runs --task .* lists them"):
        study(task_file, resume=name, listeners=[])
    with pytest.raises(MissingError, match=r"; trimtab runs --task .* lists them"):
        train(task_file, "lora", resume=name, listeners=[])
    with pytest.raises(MissingError, match=r"; trimtab runs --task .* lists them"):
        find_saved(load_task(task_file), arm, name)
    after = [path for path in sorted(task_file.parent.rglob("*.json*")) if path.name != "refused.jsonl"]
    assert after == before


@pytest.mark.parametrize("pointer", [b"", b"..", b"\xff\xfe", b"gone"])
def test_a_damaged_pointer_to_the_latest_study_is_refused(task_file: Path, pointer: bytes):
    put(task_file, "studies/latest", pointer)
    with pytest.raises(MissingError, match=r"; trimtab runs --task .* lists them"):
        study(task_file, resume="latest", listeners=[])


def test_a_file_in_place_of_the_folder_is_named(task_file: Path):
    (task_file.parent / ".trimtab").write_text("x")
    with pytest.raises(InputError, match="move it away"):
        open_workspace(load_task(task_file))


def test_a_schema_that_is_no_file_is_not_waited_for(task_file: Path):
    os.mkfifo(task_file.parent / "fifo.json")
    task_file.write_text(TASK.replace("[data]", 'format = "fifo.json"\n[data]'))
    with pytest.raises(InputError, match=r"fifo\.json: is no regular file"):
        open_workspace(load_task(task_file))


@pytest.mark.parametrize("format", ["([", "gone.json"])
def test_a_format_that_cannot_be_used_is_refused_before_anything_is_read(task_file: Path, format: str):
    task_file.write_text(TASK.replace("[data]", f'format = "{format}"\n[data]'))
    with pytest.raises(InputError, match="mend"):
        open_workspace(load_task(task_file))
    assert not (task_file.parent / ".trimtab").exists()


@pytest.mark.parametrize("line", ["[]", "null", '{"test": 1}', "[" * 100_000], ids=["list", "null", "other", "deep"])
def test_a_damaged_ledger_of_openings_is_named(task_file: Path, line: str) -> None:
    put(task_file, "openings.jsonl", f"{line}\n")
    with pytest.raises(InputError, match=r"openings\.jsonl:1: is damaged; take this line out"):
        count_opening(open_workspace(load_task(task_file)), "study")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_record_with_a_figure_that_is_none_is_damaged(tmp_path: Path, value: float) -> None:
    file = tmp_path / "calibration.json"
    write_record(file, Calibration(temperature=2.0))
    file.write_text(file.read_text().replace("2.0", json.dumps(value)))
    with pytest.raises(InputError, match="is damaged"):
        read_record(file, Calibration)
