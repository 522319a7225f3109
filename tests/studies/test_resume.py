"""Going on is refused, with what differs, whatever of that a result depends on has changed since."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from study_tasks import begin_with_time, folder_of, rows_of, write_task

from trimtab import study, train
from trimtab.arms.fingerprint import task_settings
from trimtab.base.errors import InputError
from trimtab.base.task import load_task
from trimtab.studies.runs import runs

QUICK = '[arm.quick]\nweights = "lora"\nepochs = 0.5\nlearning_rate = 1e-3\n'
COLUMNS = (
    'slice = "topic"\ngroup = "pair"\n'
    'columns = { input = "question", output = "answer", weight = "weight", passage = "passage" }'
)


def rows() -> list[dict[str, Any]]:
    return [{**row, "weight": 1.0, "passage": f"d{number}.md"} for number, row in enumerate(rows_of())]


def test_what_a_killed_study_was_writing_goes_when_it_goes_on(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["prompt"])
    begin_with_time(task)
    own, folder = tmp_path / ".trimtab", folder_of(task)
    for file in (folder.parent / "latest", folder / "study.json", folder / "arms/prompt/arm.json"):
        beside = file.with_name(f".{file.name}.4711.part")
        beside.mkdir(parents=True)
        (beside / file.name).write_text("ha")
    assert len(list(own.rglob(".*.part"))) == 3
    study(task, resume="latest", listeners=[])
    assert list(own.rglob(".*.part")) == []


def edit_task(task: Path, old: str, new: str) -> None:
    text = task.read_text()
    assert old in text
    task.write_text(text.replace(old, new))


def edit_rows(task: Path, key: str, was: Any, value: Any) -> None:
    """Put `value` in place of `was`; no row changes its split by it."""
    file = task.parent / "rows.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert any(row[key] == was for row in lines)
    changed = [{**row, key: value if row[key] == was else row[key]} for row in lines]
    file.write_text("".join(json.dumps(row) + "\n" for row in changed))


def exchange_weights(task: Path) -> None:
    """Other weights of the same model in place of the former ones, the file's size and time as before."""
    from safetensors.torch import load_file, save_file

    file = task.parent / "model" / "model.safetensors"
    was = file.stat()
    tensors = load_file(file)
    name = next(iter(tensors))
    tensors[name] = tensors[name] + 1e-3
    save_file(tensors, task.parent / "other", metadata={"format": "pt"})
    (task.parent / "other").replace(file)
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert file.stat().st_size == was.st_size


def edit_base(name: str, key: str, value: Any) -> Callable[[Path], None]:
    """Put another value into a JSON file of the base model."""

    def edit(task: Path) -> None:
        file = task.parent / "model" / name
        plain = json.loads(file.read_text()) if file.is_file() else {}
        assert plain.get(key) != value
        file.write_text(json.dumps({**plain, key: value}))

    return edit


def exchange_word_of_template(task: Path) -> None:
    file = task.parent / "model" / "chat_template.jinja"
    assert "im_start" in file.read_text()
    file.write_text(file.read_text().replace("im_start", "im_begin"))


def add_template(task: Path) -> None:
    (task.parent / "model" / "additional_chat_templates").mkdir()
    (task.parent / "model" / "additional_chat_templates" / "rag.jinja").write_text("{{ messages }}")


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "mask": (lambda task: edit_task(task, "[base]", 'train_on = "last"\n[base]'), "data.train_on"),
    "row": (lambda task: edit_rows(task, "answer", "Aalen", "Aachen"), "rows"),
    "row weight": (lambda task: edit_rows(task, "weight", 1.0, 2.0), "row weights"),
    "slice": (lambda task: edit_rows(task, "topic", "rare", "new"), "slices"),
    "group": (lambda task: edit_rows(task, "pair", "p3", "p99"), "groups"),
    "passage": (lambda task: edit_rows(task, "passage", "d7.md", "d9.md"), "right passages of rows"),
    "setting": (lambda task: edit_task(task, "Which city?", "Which town?"), "task.instruction"),
    "learning rate": (lambda task: edit_task(task, "1e-3", "2e-3"), r"arm.quick.learning_rate \(was 0.001, is 0.002\)"),
    "base weights": (exchange_weights, "weights of the base model"),
    "base config": (edit_base("config.json", "rms_norm_eps", 0.1), "config.json of the base model"),
    "base generation": (edit_base("generation_config.json", "eos_token_id", [1]), "generation_config.json of the base"),
    "base tokenizer": (edit_base("tokenizer.json", "normalizer", {"type": "Lowercase"}), "tokenizer.json of the base"),
    "base special tokens": (
        edit_base("special_tokens_map.json", "eos", "x"),
        r"special_tokens_map.json \(new\) of the",
    ),
    "base template": (exchange_word_of_template, "chat_template.jinja of the base model"),
    "base second template": (add_template, r"additional_chat_templates/rag.jinja \(new\) of the base model"),
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A task with a finished study and a finished run, in a folder that can be copied."""
    folder = tmp_path_factory.mktemp("resume")
    shutil.copytree(tiny_model_folder, folder / "model")
    rows = [{**row, "weight": 1.0, "passage": f"d{number}.md"} for number, row in enumerate(rows_of())]
    task = write_task(folder, "model", ["prompt", "quick"], rows=rows, data=COLUMNS, more=QUICK)
    study(task, listeners=[])
    train(task, "quick", listeners=[])
    return folder


@pytest.fixture
def task(begun: Path, tmp_path: Path) -> Path:
    return shutil.copytree(begun, tmp_path / "copy") / "trimtab.toml"


def test_what_has_not_changed_goes_on(task: Path) -> None:
    before = folder_of(task).joinpath("study.json").read_text()
    edit_task(task, "[task]", "# a remark\n[task]")
    result = study(task, resume="latest", listeners=[])
    assert [arm.status for arm in result.arms] == ["done", "done"]
    assert json.loads(before)["arms"] == json.loads(folder_of(task).joinpath("study.json").read_text())["arms"]
    assert train(task, "quick", resume="latest", listeners=[]).steps > 0


@pytest.mark.parametrize("change", CHANGES)
def test_going_on_is_refused_with_what_differs(task: Path, change: str) -> None:
    edit, said = CHANGES[change]
    edit(task)
    with pytest.raises(InputError, match=f"changed since this was begun: .*{said}.*; restore"):
        study(task, resume="latest", listeners=[])
    with pytest.raises(InputError, match=f"changed since this was begun: .*{said}.*; restore"):
        train(task, "quick", resume="latest", listeners=[])


def test_a_study_and_a_run_from_before_files_were_hashed_go_on(task: Path) -> None:
    """They go on as they are, no arm is run again, and from then on the files are compared, too."""
    study_depends, (run,) = folder_of(task) / "depends.json", task.parent.glob(".trimtab/runs/*/manifest.json")
    plain = json.loads(study_depends.read_text())
    kept = plain.pop("files of the base model")
    study_depends.write_text(json.dumps(plain))
    record = json.loads(run.read_text())
    assert record["depends"].pop("files of the base model") == kept
    run.write_text(json.dumps({**record, "result": None}))
    edit_base("config.json", "rms_norm_eps", 0.1)(task)  # nobody can tell that this was otherwise
    times = {file: file.stat().st_mtime_ns for file in folder_of(task).glob("arms/*/arm.json")}
    assert [info.state for info in runs(task)] == ["unfinished", "done"]
    study(task, resume="latest", listeners=[])
    assert times == {file: file.stat().st_mtime_ns for file in folder_of(task).glob("arms/*/arm.json")}
    heard: list[dict[str, Any]] = []
    assert train(task, "quick", resume="latest", listeners=[heard.append]).steps > 0
    assert [event for event in heard if event["stage"] == "train" and "loss" in event] == []  # its checkpoint counted
    edit_base("config.json", "rms_norm_eps", 0.2)(task)
    for go_on in (lambda: study(task, resume="latest", listeners=[]), lambda: train(task, "quick", resume="latest")):
        with pytest.raises(InputError, match=r"changed since this was begun: config\.json of the base model; restore"):
            go_on()


def test_costs_and_targets_are_no_part_of_weights_but_of_a_verdict(task: Path) -> None:
    task.write_text(task.read_text() + "\n[target]\nquality = 0.5\n")
    assert train(task, "quick", resume="latest", listeners=[]).steps > 0
    with pytest.raises(InputError, match=r"target\.quality"):
        study(task, resume="latest", listeners=[])


def test_what_another_version_wrote_is_refused_by_name_and_still_listed(task: Path) -> None:
    home = task.parent / ".trimtab"
    (run,), (arm, _) = home.glob("runs/*/manifest.json"), sorted(home.glob("studies/*/arms/*/arm.json"))
    for file in (run, arm):
        file.write_text(
            json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "form"})
        )
    with pytest.raises(InputError, match="is damaged or of another version"):
        train(task, "quick", resume="latest", listeners=[])
    with pytest.raises(InputError, match="is damaged or of another version"):
        study(task, resume="latest", listeners=[])
    (folder,) = home.glob("studies/2*")
    (folder / "depends.json").unlink()
    with pytest.raises(InputError, match=r"depends\.json: is gone, so nothing tells"):
        study(task, resume="latest", listeners=[])
    assert {info.kind: info.state for info in runs(task)} == {"study": "done", "run": "of another version"}


def test_what_a_task_is_called_counts_for_nothing(tmp_path: Path) -> None:
    """A task without a name bears its folder's, and a folder that was moved is to be gone on with."""
    settings = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.md").write_text("Text.")
        (tmp_path / name / "trimtab.toml").write_text('[task]\nkind = "answer"\n[data]\ndocuments = ["a.md"]\n')
        settings.append(task_settings(load_task(tmp_path / name)))
    assert settings[0] == settings[1]
    assert "base.model" in settings[0]
