"""Parts of the rows for a learning curve: the closed set of labels stays whole, and every part is weighed as the
whole is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from study_tasks import CLASSIFY, LABELLED, arm_of, events, folder_of, rows_of, write_task

from trimtab import study
from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.learning_curve import (
    curve_seconds,
    curve_sizes,
    learning_curve,
    recipe_for_part,
    restrict_training_rows,
)
from trimtab.arms.planning.plan import StagePlan
from trimtab.arms.recipe import LEAST_STEPS, Recipe, Stage, recipe_for
from trimtab.arms.session import open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.task import load_task

MORE = '[arm.own]\nweights = "lora"\nrank = 2\nepochs = 1\nlearning_rate = 1e-3\n'


def test_labels_without_a_row_in_the_part_are_still_labels(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["own"], task=CLASSIFY, data=LABELLED, more=MORE)
    session = open_session(open_workspace(load_task(task)))
    labels, train = session.workspace.labels, session.workspace.splits["train"]
    one = [row for row in train if row.references[0] == labels[-1]]
    prompts = PromptBuilder(session, Context()).prompts(session.workspace.subset("dev", 4))
    before = session.answer(prompts)
    for known in (False, True):
        fresh = session if known else open_session(open_workspace(load_task(task)))
        with restrict_training_rows(fresh, one):
            assert fresh.workspace.labels == labels
            assert [given.text for given in fresh.answer(prompts)] == [given.text for given in before]
        assert fresh.workspace.splits["train"] == train


def test_every_part_is_weighed_where_the_whole_is(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.arms.learning_curve.LEAST_STEPS", 8)  # how well the parts learn does not matter here
    data = f"{LABELLED}\nsplit = {{ dev = 0.3, test = 0.3, seed = 0 }}"
    settings = {"task": CLASSIFY, "data": data, "study": "learning_curve = true\nseeds = 1", "more": MORE}
    for effort, weighed in (("none", False), ("standard", True)):
        folder = tmp_path / effort
        folder.mkdir()
        task = write_task(folder, tiny_model_folder, ["own"], rows=rows_of(120), effort=effort, **settings)
        result = study(task, listeners=[])
        assert arm_of(result, "own").learning is not None
        runs = sorted((folder_of(task, result) / "arms" / "own").glob("r*-*"))
        assert len(runs) == 3
        assert {(run / "calibration.json").is_file() for run in runs} == {weighed}


def test_dev_in_one_group_has_no_curve(tmp_path: Path, tiny_model_folder: Path) -> None:
    """Of one group nothing says how far its questions speak for others."""
    task = write_task(tmp_path, tiny_model_folder, ["own"], task=CLASSIFY, data=LABELLED, more=MORE)
    session = open_session(open_workspace(load_task(task)))
    splits = session.workspace.splits
    one = tuple(replace(row, group="a") for row in splits["dev"])
    session.workspace = replace(session.workspace, splits={**splits, "dev": one})
    arm = session.task.arms[0]
    assert learning_curve(session, arm, Context(), tmp_path / "run-0", None, pytest.fail, None) is None


def test_a_curve_that_cannot_be_made_leaves_its_arm(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_one_class(*_: object) -> None:
        raise ValueError("the data contains only one class")

    monkeypatch.setattr("trimtab.arms.run.learning_curve", of_one_class)
    settings = {"task": CLASSIFY, "data": LABELLED, "study": "learning_curve = true\nseeds = 1", "more": MORE}
    task = write_task(tmp_path, tiny_model_folder, ["own"], **settings)
    result = study(task, listeners=[])
    own = arm_of(result, "own")
    assert (own.status, own.learning) == ("done", None)
    assert own.score is not None
    notes = [event.get("note", "") for event in events(folder_of(task, result))]
    assert any(
        "own goes on without its learning curve: ValueError: the data contains only one" in note for note in notes
    )


def test_a_curve_is_foretold_by_the_steps_of_its_parts(tmp_path: Path, tiny_model_folder: Path) -> None:
    foretold = []
    for name, asked in (("asked", "learning_curve = true"), ("not", "seeds = 1")):
        (tmp_path / name).mkdir()
        settings = {"rows": rows_of(120), "task": CLASSIFY, "data": LABELLED, "study": asked, "more": MORE}
        session = open_session(
            open_workspace(load_task(write_task(tmp_path / name, tiny_model_folder, ["own"], **settings)))
        )
        recipe = recipe_for(session, session.task.arms[0], 0)
        stage = StagePlan(epoch_seconds=100.0, epochs=recipe.stages[0].epochs, look_seconds=5.0)
        foretold.append(curve_seconds(session, recipe, [stage], 2.0))
    rows, dev = len(session.workspace.splits["train"]), len(session.workspace.splits["dev"])
    parts = {size: recipe_for_part(recipe, size).stages[0].epochs for size in curve_sizes(rows)}
    assert min(parts.values()) > recipe.stages[0].epochs, "of few rows, to as many steps as any training has"
    training = sum(100.0 * epochs * size / rows + 4 * 5.0 for size, epochs in parts.items())  # all look four times
    assert foretold == [pytest.approx(training + 3 * dev * 2.0), 0.0]
    assert curve_sizes(1200) == [300, 600]
    assert curve_sizes(1) == []


def test_fewer_rows_make_longer_the_stages_that_read_them() -> None:
    stages = tuple(Stage(name=name, learning_rate=1e-3, epochs=1.0) for name in ("docs", "sft", "dpo", "grpo"))
    whole = Recipe(method="lora", stages=stages, rank=2, layers=None, virtual_tokens=None, batch=8, seed=0)
    part = recipe_for_part(whole, 80)
    assert [stage.epochs for stage in part.stages] == [1.0, LEAST_STEPS / 10, 1.0, LEAST_STEPS / 10]
