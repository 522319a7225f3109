"""From judgements to trained weights: files of rows, the lines that name them, and what must not be touched on the
way."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from judged import judgement
from patience import no_patience, timed_once
from study_tasks import rows_of, write_task
from typer.testing import CliRunner

from trimtab import check, feedback_export, train
from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import ConsentError, InputError, MissingError
from trimtab.base.task import load_task
from trimtab.cli.main import app
from trimtab.data.ledger import read_ledger
from trimtab.data.preferences import read_preferences
from trimtab.serving.feedback import FeedbackStore, open_feedback_store
from trimtab.serving.feedback_schema import Judgement

__all__ = ["no_patience", "timed_once"]  # little is spent on timing the tiny model

SPLIT = 'group = "pair"\nsplit = { dev = 0.25, test = 0.25, seed = 0 }'
NEW = [
    "Where do ferries leave for the islands?",
    "Whose gulls steal the most chips?",
    "At which hour does the tide turn today?",
    "May dogs walk along our dyke in spring?",
    "Who repairs nets after a storm?",
    "Is mudflat hiking safe without any guide?",
    "Which lighthouse keeper wrote poems?",
    "How are brown shrimps peeled by hand?",
]
OWN = """
[arm.own-dpo]
weights = "lora"
stages = ["sft", "dpo"]
rank = 2
epochs = 1
"""


def a_task(folder: Path, model: Path | str = "nowhere", *, data: str = SPLIT, **more: Any) -> Path:
    return write_task(folder, model, ["prompt"], data=data, rows=rows_of(120), **more)


def keep(task: Path, *judgements: Judgement) -> None:
    with open_feedback_store(load_task(task)) as store:
        for one in judgements:
            store.add(one)


def some(task: Path) -> list[Judgement]:
    """Of every third row a preference, of the next a dislike, of the one after a correction; and new questions
    corrected."""
    kept = []
    for number, row in enumerate(rows_of(120)):
        kind = ("prefer", "dislike", "correct")[number % 3]
        more: dict[str, Any] = {"asked": row["question"], "id": f"j{number}", "at": number}
        if kind == "prefer":
            kept.append(judgement(kind, "nowhere", row["answer"], chosen=1, **more))
        else:
            kept.append(
                judgement(kind, "nowhere", **more, **({"correction": row["answer"]} if kind == "correct" else {}))
            )
    for number, asked in enumerate(NEW):
        kept.append(judgement("correct", "nowhere", asked=asked, correction="Husum", id=f"new{number}", at=999))
    return kept


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def with_lines(task: Path, lines: tuple[str, ...]) -> None:
    """Put the lines that were printed into the task file, in place of those of the same key."""
    text = task.read_text()
    for line in lines:
        key = line.partition(" = ")[0]
        text = re.sub(rf"^{key} = .*\n", "", text, flags=re.MULTILINE).replace("[data]\n", f"[data]\n{line}\n")
    task.write_text(text)


def test_judgements_become_an_arm(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = a_task(tmp_path, tiny_model_folder, more=OWN.replace('"sft", "dpo"', '"sft"'))
    places = {row.id: name for name, part in open_workspace(load_task(task)).splits.items() for row in part}
    keep(task, *some(task))
    done = feedback_export(task)
    assert done.judgements == 128
    corrections = [number for number in range(120) if number % 3 == 2]
    held = [number for number in corrections if places[f"row{number}"] != "train"]
    assert done.files == {"preferences.jsonl": 88, "judged.jsonl": 40, "examples.jsonl": 48 - len(held)}
    assert list(done.left_out.values()) == [len(held)]
    assert 10 <= len(held) <= 30
    with_lines(task, done.lines)
    task.write_text(task.read_text().replace('stages = ["sft"]', 'stages = ["sft", "dpo"]'))
    workspace = open_workspace(load_task(task))
    now = {row.id: name for name, part in workspace.splits.items() for row in part}
    assert {id: now[id] for id in places} == places
    assert {now[row["id"]] for row in read(tmp_path / "feedback" / "examples.jsonl")} == {"train"}
    for name, part in workspace.preferences.items():  # each stands where its question stands
        assert part
        assert {places.get(f"row{one.id.split('-')[1][1:]}", "train") for one in part} == {name}
    seen = check(task, listeners=[])
    assert [remark.text for remark in seen.remarks if remark.level == "stop"] == []
    assert not seen.overlaps
    assert sum(seen.judged.values()) == 128
    assert train(task, "own-dpo", listeners=[]).steps > 0
    again = feedback_export(task)
    assert (again.files, again.lines) == (done.files, ())  # what the task file names already is written alike


def test_an_export_replaces_its_own_and_nothing_else(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    keep(task, judgement("like", id="a"), judgement("correct", "x", correction="y", asked="What is new?", id="b"))
    folder = feedback_export(task).folder
    assert sorted(path.name for path in folder.iterdir()) == [
        "examples.jsonl",
        "export.json",
        "judged.jsonl",
        "preferences.jsonl",
    ]
    keep(task, judgement("dislike", id="c"))
    assert feedback_export(task).files["judged.jsonl"] == 2
    (folder / "judged.jsonl").write_text("mine\n")
    with pytest.raises(InputError, match=r"judged\.jsonl: is no export of judgements, or was changed since; move it"):
        feedback_export(task)
    assert (folder / "judged.jsonl").read_text() == "mine\n"
    other = tmp_path / "other"
    other.mkdir()
    (other / "examples.jsonl").write_text("mine\n")
    with pytest.raises(InputError, match="is no export of judgements"):
        feedback_export(task, out=other)
    assert [path.name for path in other.iterdir()] == ["examples.jsonl"]


def test_what_has_no_rows_any_more_is_taken_away(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    keep(task, judgement("like", given=["q-1"]))
    assert feedback_export(task).files == {"judged.jsonl": 1}
    keep(task, judgement("correct", correction="y", given=["q-1"], at=5))
    assert set(feedback_export(task).files) == {"preferences.jsonl", "examples.jsonl"}
    assert not (tmp_path / "feedback" / "judged.jsonl").exists()


def test_an_export_that_was_stopped_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trimtab.serving import feedback_export as module

    task = a_task(tmp_path)
    keep(task, judgement("like"), judgement("prefer", "a", "b", chosen=0))
    feedback_export(task)
    keep(task, judgement("like", at=5), judgement("prefer", "a", "c", chosen=0))
    write, written = module.write_atomic, []

    def stop(path: Path, content: bytes) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomic", stop)
        with pytest.raises(KeyboardInterrupt):
            feedback_export(task)
    assert written == ["preferences.jsonl"]
    assert feedback_export(task).files == {"preferences.jsonl": 2, "judged.jsonl": 2}


def test_files_are_written_in_the_encoding_of_the_task(tmp_path: Path) -> None:
    task = a_task(tmp_path, data='encoding = "utf-16"')
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows.read_text(), encoding="utf-16")
    keep(task, judgement("prefer", "Zürich 🙂", "Oslo", chosen=0))
    with_lines(task, feedback_export(task).lines)
    assert [one.chosen for one in read_preferences(load_task(task)).preferences] == ["Zürich 🙂"]


def test_without_other_examples_corrections_are_split_like_any(tmp_path: Path) -> None:
    (tmp_path / "handbook.md").write_text("# Leave\n\nTwenty days.\n")
    task = tmp_path / "trimtab.toml"
    task.write_text('[task]\nkind = "answer"\n[data]\ndocuments = ["handbook.md"]\n[base]\nmodel = "nowhere"\n')
    keep(task, *(row for row in some(task) if row.kind == "correct"))
    assert feedback_export(task).files["examples.jsonl"] == 48
    assert not read_ledger(tmp_path / ".trimtab" / "splits.parquet")


def test_nobody_has_judged_yet(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    done = CliRunner().invoke(app, ["feedback", "export", "--task", str(task)])
    assert done.exit_code == 1
    assert done.stdout == f"no judgements yet; collect some on the page of: trimtab serve --task {task}\n"
    assert not (tmp_path / ".trimtab").exists()
    FeedbackStore(tmp_path / "empty.db").close()
    done = CliRunner().invoke(
        app, ["feedback", "export", "--task", str(task), "--store", str(tmp_path / "empty.db"), "--json"]
    )
    assert done.exit_code == 1
    assert json.loads(done.stdout)["judgements"] == 0
    with pytest.raises(MissingError, match="no judgements are kept there"):
        feedback_export(task, store=str(tmp_path / "typo.db"))


def test_the_command_says_what_to_add_and_why_some_gave_nothing(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    keep(task, judgement("like"), judgement("prefer", "a", "b", session="\x1b[31m"))
    done = CliRunner().invoke(app, ["feedback", "export", "--task", str(task)])
    assert done.exit_code == 0
    assert "1 row " in done.stdout
    assert "1 left out: the answers are equally good" in done.stdout
    assert '  preferences = ["feedback/judged.jsonl"]' in done.stdout


def test_links_and_files_of_others_are_not_followed(tmp_path: Path) -> None:
    home, out = tmp_path / "home", tmp_path / "home" / "feedback"
    home.mkdir()
    task = a_task(home)
    keep(task, judgement())
    out.mkdir()
    (out / "judged.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a symbolic link"):
        feedback_export(task)
    assert not (tmp_path / "elsewhere").exists()
    (tmp_path / "private.jsonl").write_text("{}\n")
    task.write_text(task.read_text().replace('["rows.jsonl"]', '["rows.jsonl", "../private.jsonl"]'))
    with pytest.raises(ConsentError, match="to read"):
        feedback_export(task, out=tmp_path / "out")
