"""Judgements that a team has already: columns guessed and told, matched by text, and not used as if drawn at random."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_answers import made_answer
from study_tasks import rows_of, write_task
from typer.testing import CliRunner

import trimtab
from trimtab.base.errors import InputError
from trimtab.base.records import Answer
from trimtab.base.task import Task
from trimtab.cli.main import app
from trimtab.measurement.audit import Audited, draw_audit
from trimtab.measurement.raters import Sources, judgement_sources
from trimtab.studies.audit import audit
from trimtab.studies.audit_import import read_judgements, scale_from_text

ANSWERS = {
    arm: [made_answer(f"{item}", 0.0, answer=f"{arm} says {item}", input=f"How much is {item}?") for item in range(4)]
    for arm in ("prompt", "lora")
}
CRITERIA = ("faithful: Says nothing new.", "complete: Names all.")


def written(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    if file.suffix == ".csv":
        with open(file, "w", newline="") as opened:
            table = csv.DictWriter(opened, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_columns_are_guessed_and_told_and_rows_matched_by_text(tmp_path: Path) -> None:
    rows = [
        {"Question": " How much  is 1?", "Response": "prompt says 1", "Correct": "Yes", "Rater": "anna"},
        {"Question": "How much is 2?", "Response": "lora says 2 ", "Correct": "0", "Rater": "ben"},
        {"Question": "How much is 2?", "Response": "something else", "Correct": "0", "Rater": "ben"},
        {"Question": "How much is 9?", "Response": "lora says 9", "Correct": "", "Rater": ""},
    ]
    for name in ("grades.csv", "grades.jsonl"):
        found = read_judgements(written(tmp_path / name, rows), ANSWERS, [""], None)
        assert [(one.item, one.answer, one.value, one.by) for one in found.judgements] == [
            ("1", "prompt says 1", 1.0, "anna"),
            ("2", "lora says 2", 0.0, "ben"),
        ]
        notes = "\n".join(found.notes)
        assert "question from 'Question', answer from 'Response', grade from 'Correct', judge from 'Rater'" in notes
        assert "2 judgements: anna 1, ben 1" in notes
        assert "2 rows are about no answer of this study: line" in notes


def test_ids_and_arms_stand_for_texts_and_a_file_without_names_is_one_judge(tmp_path: Path) -> None:
    rows = [{"id": 3, "arm": "lora", "score": 4}, {"id": 0, "arm": "prompt", "score": 1}]
    file = written(tmp_path / "scores.jsonl", rows)
    found = read_judgements(file, ANSWERS, [""], (1.0, 5.0))
    assert [(one.answer, one.value, one.by) for one in found.judgements] == [
        ("lora says 3", 0.75, "scores.jsonl"),
        ("prompt says 0", 0.0, "scores.jsonl"),
    ]
    assert "1 counts 0, 5 counts 1" in "\n".join(found.notes)
    assert [one.value for one in read_judgements(file, ANSWERS, [""], (5.0, 1.0)).judgements] == [0.25, 1.0]


def test_each_criterion_has_a_column_or_is_named_by_the_row(tmp_path: Path) -> None:
    wide = [{"id": "1", "answer": "lora says 1", "faithful": "yes", "complete": "partly"}]
    narrow = [
        {"id": "1", "answer": "lora says 1", "criterion": "Faithful", "grade": "yes"},
        {"id": "1", "answer": "lora says 1", "criterion": "complete", "grade": "partly"},
    ]
    read = [
        read_judgements(written(tmp_path / f"{place}.csv", rows), ANSWERS, CRITERIA, None)
        for place, rows in enumerate((wide, narrow))
    ]
    for found in read:
        assert {one.criterion: one.value for one in found.judgements} == dict(zip(CRITERIA, (1.0, 0.5), strict=True))
    assert "grade of faithful from 'faithful'" in "\n".join(read[0].notes)


@pytest.mark.parametrize(
    ("rows", "criteria", "problem"),
    [
        ([{"id": "1", "answer": "lora says 1"}], [""], "no column holds the grades"),
        ([{"answer": "lora says 1", "grade": "yes"}], [""], "no column holds the question"),
        ([{"id": "1", "grade": "yes"}], [""], "no column holds the answer"),
        ([{"id": "1", "answer": "lora says 1", "grade": "4"}], [""], "'4' is no grade that is known.*--scale"),
        ([{"id": "1", "answer": "lora says 1", "grade": "yes"}], CRITERIA, "no column says by which criterion"),
        (
            [{"id": "1", "answer": "lora says 1", "grade": "yes", "criterion": "style"}],
            CRITERIA,
            "'style' is no criterion of this study; write one of: faithful, complete",
        ),
        ([{"id": "1", "answer": "nobody said it", "grade": "yes"}], [""], "none of the 1 rows is about an answer"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, rows: list[dict[str, Any]], criteria: Sequence[str], problem: str
) -> None:
    with pytest.raises(InputError, match=problem) as raised:
        read_judgements(written(tmp_path / "grades.csv", rows), ANSWERS, criteria, None)
    assert "\n" not in str(raised.value)


def test_grades_off_the_scale_and_scales_that_are_none_are_refused(tmp_path: Path) -> None:
    for grade, problem in (("6", "not on the scale"), ("good", "no number")):
        file = written(tmp_path / "grades.csv", [{"id": "1", "answer": "lora says 1", "grade": grade}])
        with pytest.raises(InputError, match=problem):
            read_judgements(file, ANSWERS, [""], (1.0, 5.0))
    assert scale_from_text("1, 5") == (1.0, 5.0)
    for text in ("5", "1,1", "a,b", "1,2,3"):
        with pytest.raises(InputError, match="no scale"):
            scale_from_text(text)


@pytest.mark.parametrize("option", [["--scale", "1,5"], ["--drawn-at-random"]])
def test_what_says_how_a_file_is_read_needs_the_file(option: list[str]) -> None:
    ran = CliRunner().invoke(app, ["audit", *option])
    assert ran.exit_code != 0
    assert f"{option[0]}: says how judgements of a file are read; name the file: --import FILE" in (
        ran.stderr + str(ran.exception)
    )


TASK = Task.model_validate(
    {"task": {"name": "t", "kind": "answer"}, "data": {"examples": ["rows.jsonl"]}, "base": {"model": "m"}}
)


def test_a_team_that_judged_the_failures_first_does_not_bias_the_score() -> None:
    """Two thirds of the wrong answers were judged before; of those only they count whose turn came in the draw."""
    naive, mended = [], []
    for seed in range(60):
        draw = np.random.default_rng(seed)
        right = {f"{item:04}": float(draw.random() < 0.7) for item in range(400)}
        answers: dict[str, list[Answer]] = {
            "prompt": [
                made_answer(item, value if draw.random() < 0.8 else 1 - value, answer="a")
                for item, value in right.items()
            ]
        }
        chosen = {item for item, value in right.items() if not value and draw.random() < 0.67}
        asked = {one.item_id for one in draw_audit(answers, 100)}
        judged = {(item, "a"): right[item] for item in chosen | asked}
        true = float(np.mean(list(right.values())))
        sources = Sources(frozenset(asked - chosen), frozenset(chosen))
        found = Audited(answers, judged, TASK, 1, sources)
        assert 90 <= found.count <= 100
        assert found.unused == len(chosen | asked) - found.count
        mended.append(found.score("prompt").value - true)
        naive.append(Audited(answers, judged, TASK).score("prompt").value - true)
    assert np.mean(naive) < -0.05
    assert abs(np.mean(mended)) < 3 * np.std(mended) / np.sqrt(len(mended))


def test_how_questions_came_to_be_judged() -> None:
    rows = [
        {"item": "asked"},
        {"item": "asked", "drawn": False},
        {"item": "chosen", "drawn": False},
        {"item": "at random", "drawn": True},
    ]
    assert judgement_sources(rows) == Sources(frozenset({"asked"}), frozenset({"chosen"}))


def test_imported_judgements_of_a_study_are_told_kept_and_not_asked_again(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["prompt"], rows=rows_of(48))
    trimtab.study(task, listeners=[])
    session = audit(task=task)
    some = session.drawn[: len(session.drawn) // 2]
    rows = [{"id": one.item_id, "answer": one.answer, "grade": "wrong", "judge": "anna"} for one in some]
    file = written(tmp_path / "grades.csv", [*rows, {"id": "no such", "answer": "x", "grade": "wrong", "judge": ""}])
    ran = CliRunner().invoke(app, ["audit", "--task", str(task), "--import", str(file), "--json"])
    assert ran.exit_code == 1  # too few for a correction
    assert f"{len(some)} judgements: anna {len(some)}" in ran.stderr
    assert "1 rows are about no answer of this study" in ran.stderr
    result = json.loads(ran.stdout)
    assert result["audit"]["questions"] == 0
    assert result["audit"]["unused"] == len(some)
    assert "do not count, since nobody says that these were drawn at random" in result["verdict"]["details"]
    again = audit(task=task)
    assert {one.item_id for one in again.pending} == {
        one.item_id for one in session.drawn if one not in some or one.item_id in again.shared
    }
    ran = CliRunner().invoke(app, ["audit", "--task", str(task), "--import", str(file), "--drawn-at-random", "--json"])
    assert json.loads(ran.stdout)["audit"]["questions"] == len(some)
