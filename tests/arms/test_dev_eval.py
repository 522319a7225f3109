"""Dev evaluation of weights that choose a label: by the log loss of the choice, whatever the model's own confidence."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_tasks import write_task

from trimtab.arms.contexts import context_for
from trimtab.arms.dev_eval import label_losses
from trimtab.arms.objectives import StageSetup, build_supervised
from trimtab.arms.recipe import recipe_for
from trimtab.arms.session import open_session
from trimtab.arms.trainer import prepare_base
from trimtab.arms.workspace import open_workspace
from trimtab.base.records import Generation
from trimtab.base.task import load_task, parse_arm
from trimtab.training.loop import evaluate_objective

LABELS = ("a", "b", "c")


def generations(rows: list[tuple[float, ...]], sureness: float = 1.0) -> list[Generation]:
    """Answers whose labels have these scores, times `sureness`."""
    given = []
    for number, scores in enumerate(rows):
        weights = [math.exp(sureness * score) for score in scores]
        chances = dict(zip(LABELS, [weight / sum(weights) for weight in weights], strict=True))
        given.append(Generation(id=str(number), text=max(chances, key=chances.__getitem__), probabilities=chances))
    return given


SCORES = st.lists(st.tuples(*[st.floats(-3, 3) for _ in LABELS]), min_size=24, max_size=40)


@given(SCORES, st.floats(0.5, 3), st.data())
def test_a_surer_model_with_the_same_order_is_as_good(rows, sureness, data):
    right = data.draw(st.lists(st.sampled_from(LABELS), min_size=len(rows), max_size=len(rows)))
    plain = label_losses(generations(rows), right, LABELS)
    surer = label_losses(generations(rows, sureness), right, LABELS)
    hits = sum(one.text == label for one, label in zip(generations(rows), right, strict=True))
    if (
        2 <= hits <= len(rows) - 2 and 0.02 < sum(plain) / len(plain) < math.log(3) - 0.02
    ):  # where a temperature is fitted, inside its range
        assert surer == pytest.approx(plain, rel=1e-3, abs=1e-3)


def test_it_is_the_log_loss_where_too_few_are_wrong_to_fit_by():
    rows = [(2.0, 0.0, -1.0)] * 5
    chance = generations(rows)[0].probabilities["a"]
    assert label_losses(generations(rows), ["a"] * 5, LABELS) == pytest.approx([-math.log(chance)] * 5)


def test_of_two_models_that_are_right_alike_the_overconfident_one_is_no_worse():
    rows = [(1.0, 0.0, 0.0)] * 20 + [(0.0, 1.0, 0.0)] * 10
    right = ["a"] * 20 + ["a"] * 10  # two of three are right
    calm, sure = (sum(label_losses(generations(rows, by), right, LABELS)) for by in (1.0, 8.0))
    assert sure == pytest.approx(calm, rel=1e-4)
    raw = sum(-math.log(one.probabilities[label]) for one, label in zip(generations(rows, 8.0), right, strict=True))
    assert raw > 2 * sure  # as it would be without the temperature


def test_labels_that_nobody_can_give_are_left_out():
    assert label_losses(generations([(1.0, 0.0, 0.0)] * 2), ["zebra", "a"], LABELS) == label_losses(
        generations([(1.0, 0.0, 0.0)]), ["a"], LABELS
    )
    assert label_losses([], [], LABELS) == ()


def test_dev_is_read_in_one_step(tmp_path: Path, tiny_model_folder: Path) -> None:
    losses = {}
    for precision in ("bf16", "fp32"):
        folder = tmp_path / precision
        folder.mkdir()
        task = load_task(write_task(folder, tiny_model_folder, ["lora"]))
        session = open_session(open_workspace(task), precision)
        arm = parse_arm("lora", session.task)
        made = recipe_for(session, arm, 0)
        prepare_base(session, made)
        setup = StageSetup(session=session, plan=made, stage=made.stages[0], context=context_for(arm))
        objectives = build_supervised(setup)
        objective, dev = objectives.train, objectives.dev
        rows = len(session.workspace.splits["dev"])
        assert dev is not None
        assert made.batch < rows
        assert objective.steps_per_epoch == -(-len(session.workspace.splits["train"]) // made.batch)
        assert dev.steps_per_epoch == 1
        losses[precision] = evaluate_objective(session.base, dev).dev_loss
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.01)
