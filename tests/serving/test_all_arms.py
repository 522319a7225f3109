"""Every arm of a finished study is served, also where another task file of the folder, or a later one, lacks its table
or has another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from serving_tasks import serving_here
from study_tasks import QUICK

from trimtab.arms.store import Pick, measured_arms, picked_arm
from trimtab.base.errors import InputError
from trimtab.base.task import Task, load_task


def beside(written: Path, quick: str) -> Path:
    """A task file beside that of the study, as a demo brings two, with this table of the arm `quick`."""
    text = written.read_text()
    assert QUICK in text
    file = written.with_name("other.toml")
    text = text.replace(QUICK, quick)
    file.write_text(text if quick else text.replace(', "quick"', ""))
    return file


@pytest.fixture
def other(written: Path) -> Path:
    return beside(written, "")


@pytest.mark.parametrize("quick", ["", QUICK.replace("epochs = 1", "epochs = 2")], ids=["without", "changed"])
def test_all_arms_of_a_study_are_served_by_another_task_file(written: Path, quick: str) -> None:
    with serving_here(beside(written, quick), "all") as here:
        assert sorted(here.models) == ["tiny:prompt", "tiny:quick", "tiny:rag"]
        assert here.silent == {}


def test_an_arm_that_a_study_picked_is_that_of_its_record(other: Path, tmp_path: Path) -> None:
    shutil.copytree(other.parent, tmp_path / "copy")
    task: Task = load_task(tmp_path / "copy" / other.name)
    (pick,) = (pick for pick in measured_arms(task) if pick.arm == "quick")
    assert (picked_arm(pick, task).weights, picked_arm(pick, task).settings) == ("lora", {"epochs": 1.0})
    with pytest.raises(InputError, match="unknown arm 'quick'"):
        picked_arm(Pick("quick"), task)
    (file,) = tmp_path.glob("copy/.trimtab/studies/*/arms/quick/arm.json")
    plain = json.loads(file.read_text())
    for odd in ({"weights": "poem"}, {"settings": {"epochs": -1}}, {"context": "rag+rag"}):
        file.write_text(json.dumps({**plain, "arm": {**plain["arm"], **odd}}))
        with pytest.raises(InputError, match=r"the record of arm 'quick' is damaged .*; restore it"):
            picked_arm(pick, task)
