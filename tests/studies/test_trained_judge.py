"""A judge that people taught: their grades become rows, an arm learns from them, and it judges the answers of the task;
it is pinned by its files."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from study_tasks import rows_of, write_task
from typer.testing import CliRunner

import trimtab
from trimtab.arms.fingerprint import judge_version
from trimtab.arms.judges import judging_prompt, open_judge
from trimtab.arms.store import ANSWERS
from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import InputError
from trimtab.base.task import Task, load_task
from trimtab.cli.main import app
from trimtab.measurement.evaluate import load_answers, save_answers
from trimtab.measurement.judge import DEGREES, nearest_degree
from trimtab.studies.audit import audit
from trimtab.studies.graded_rows import graded_rows, write_graded_rows

JUDGED = 'kind = "generate"\nmetric = "judged"\noutput_tokens = 6'
TABLE = '[judge]\ncriteria = { city = "Names a city." }\nby = "judging/trimtab.toml"\n'


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A task whose answers people have graded, and beside it the judging task that an arm has learnt."""
    folder = tmp_path_factory.mktemp("taught")
    task = write_task(folder, tiny_model_folder, ["prompt", "few-shot"], rows=rows_of(200))
    trimtab.study(task, listeners=[])
    session = audit(task=task)
    for asked in session.pending:
        session.judge(asked, "bridge" in asked.question or "market" in asked.question)
    done = CliRunner().invoke(app, ["audit", "--task", str(task), "--rows", str(folder / "judging" / "graded.jsonl")])
    assert done.exit_code == 0, done.stderr
    assert "trimtab study --task" in done.stdout.replace("\n", " ")
    judging = folder / "judging" / "trimtab.toml"
    trimtab.study(judging, arms=["linear"], listeners=[])
    return task


def judged_task(taught: Path, model: Path, arm: str = "") -> Path:
    """Return a task whose answers the arm of the judging task grades."""
    folder = taught.parent / "judged"
    folder.mkdir(exist_ok=True)
    more = TABLE.replace("judging/trimtab.toml", f"../judging/trimtab.toml{arm}")
    return write_task(folder, model, ["prompt"], rows=rows_of(48), task=JUDGED, more=more)


def test_what_people_graded_is_what_the_judge_reads(taught: Path) -> None:
    judging = load_task(taught.parent / "judging")
    rows = graded_rows(audit(task=taught))
    learnt = {(row.input, row.references) for own in open_workspace(judging).all_splits.values() for row in own}
    assert rows
    assert len(rows) == len((taught.parent / "judging" / "graded.jsonl").read_text().splitlines())
    for row in rows:
        read = judging_prompt(judging, row["criterion"], ("q", row["question"], (row["reference"],), row["answer"]))
        assert (read.messages[-1].content, (row["label"],)) in learnt


def test_it_judges_the_answers_of_a_study_and_says_how_often_people_agree(
    taught: Path, tiny_model_folder: Path
) -> None:
    task = judged_task(taught, tiny_model_folder)
    result = trimtab.study(task, listeners=[])
    kept = [json.loads(line) for line in (task.parent / ".trimtab" / "judgements.jsonl").read_text().splitlines()]
    assert {line["version"] for line in kept} == {judge_version(load_task(task))}
    assert {line["degree"] for line in kept} <= {"yes", "no"}
    assert result.arms[0].score is not None
    judging = trimtab.open_study(task=taught.parent / "judging" / "trimtab.toml").result
    score = judging.arms[0].score
    assert score is not None
    assert f"agrees with people on {round(score.value * score.n)} of {score.n} of its own" in result.verdict.details
    assert "uncalibrated" in result.verdict.sentence  # its own study does not calibrate it


def test_other_weights_are_another_judge(taught: Path, tiny_model_folder: Path) -> None:
    task = load_task(judged_task(taught, tiny_model_folder))
    before = judge_version(task)
    weights = next((taught.parent / "judging" / ".trimtab").rglob("linear.safetensors"))
    content = weights.read_bytes()
    weights.write_bytes(content + b"\0")
    assert judge_version(task) != before
    weights.write_bytes(content)
    assert judge_version(task) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nowhere": "graded"}, "there is no task file"),
        ({"[data]": 'labels = ["yes", "good"]\n[data]'}, "'good' is no degree"),
        ({"{reference}": "{other}"}, "its input is of criterion, question, other and answer"),
        ({'"classify"': '"generate"'}, "of kind generate"),
    ],
)
def test_a_task_that_teaches_no_judging_is_refused_in_one_line(
    change: dict[str, str], message: str, taught: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    text = (taught.parent / "judging" / "trimtab.toml").read_text()
    for before, after in change.items():
        text = text.replace(before, after)
    if "nowhere" not in change:
        (tmp_path / "judging").mkdir()
        (tmp_path / "judging" / "trimtab.toml").write_text(text)
        (tmp_path / "judging" / "graded.jsonl").write_text('{"label": "yes"}\n')
    task = write_task(tmp_path, tiny_model_folder, ["prompt"], task=JUDGED, more=TABLE)
    with pytest.raises(InputError, match=message) as refused:
        open_judge(load_task(task))
    assert "\n" not in str(refused.value)


def test_a_judging_task_without_a_study_and_an_unmeasured_arm_are_refused(
    taught: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "judging").mkdir()
    for name in ("trimtab.toml", "graded.jsonl"):
        (tmp_path / "judging" / name).write_text((taught.parent / "judging" / name).read_text())
    task = write_task(tmp_path, tiny_model_folder, ["prompt"], task=JUDGED, more=TABLE)
    with pytest.raises(InputError, match=r"no study of judging/trimtab\.toml has measured an arm"):
        open_judge(load_task(task))
    named = judged_task(taught, tiny_model_folder, arm="#lora")
    with pytest.raises(InputError, match="has measured the arm lora"):
        open_judge(load_task(named))


def test_labels_of_the_data_that_are_no_degrees_are_refused_before_anything_is_judged(
    taught: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(taught.parent / "judging", tmp_path / "judging")
    for file in (tmp_path / "judging").rglob(ANSWERS):
        save_answers(file, [replace(one, reference=("good",)) for one in load_answers(file)])
    task = write_task(tmp_path, tiny_model_folder, ["prompt"], task=JUDGED, more=TABLE)
    with pytest.raises(InputError, match="label 'good' is no degree"):
        open_judge(load_task(task))


def test_comparisons_with_references_teach_no_judge(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Task, "judges_pairs", True)
    with pytest.raises(InputError, match=r"compared its answers with references.*without judge\.against"):
        write_graded_rows("latest", tmp_path / "graded.jsonl", task=taught)
    assert not (tmp_path / "graded.jsonl").exists()


def test_a_file_of_other_rows_is_not_overwritten(taught: Path) -> None:
    write_graded_rows("latest", taught.parent / "judging" / "graded.jsonl", task=taught)
    with pytest.raises(InputError, match="holds other rows"):
        write_graded_rows("latest", taught.parent / "rows.jsonl", task=taught)


@pytest.mark.parametrize(("value", "degree"), [(0.0, "no"), (0.2, "no"), (0.25, "no"), (0.4, "partly"), (0.9, "yes")])
def test_the_mean_of_several_people_becomes_the_nearest_degree(value: float, degree: str) -> None:
    assert nearest_degree(value) == degree
    assert all(nearest_degree(number) == name for name, number in DEGREES.items())
