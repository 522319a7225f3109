"""An arm whose labels come from a head on the last token: trained on the one loop, saved, put on again, answered in
one pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_tasks import CLASSIFY, LABELLED, write_task

from trimtab.arms.artifacts import NOTHING, Allowance
from trimtab.arms.run import ArmRunner
from trimtab.arms.session import Session, open_session
from trimtab.arms.store import SavedArm
from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import InputError, MissingError
from trimtab.base.progress import Progress
from trimtab.base.task import load_task, parse_arm
from trimtab.measurement.figures import scores_of

FAST = '[arm.fast]\nweights = "full"\nstages = ["head"]\nlearning_rate = 0.01\nepochs = 8\n'
OWN = '[arm.own]\nweights = "lora"\nstages = ["head"]\ncontext = "few-shot"\nshots = 2\nepochs = 1\n'


@pytest.fixture
def session(tmp_path: Path, tiny_model_folder: Path) -> Session:
    rows = [
        {"question": f"{word} {number * 7919 % 9973}", "answer": label}
        for number in range(40)
        for word, label in (("aaaa", "first"), ("zzzz", "second"))
    ]
    task = write_task(
        tmp_path, tiny_model_folder, ["fast", "own"], rows=rows, task=CLASSIFY, data=LABELLED, more=FAST + OWN
    )
    return open_session(open_workspace(load_task(task)))


@pytest.mark.usefixtures("all_alone")
def test_it_learns_and_answers_as_it_was_measured(session: Session, tmp_path: Path) -> None:
    runner, arm = ArmRunner(session, None, Progress()), parse_arm("fast", session.task)
    outcome = runner.run(arm, "test", tmp_path / "head", Allowance())
    assert outcome.result.score is not None
    assert scores_of(outcome.answers).values_N.mean() > 0.9  # the first letter tells the label
    assert all(0.5 <= (answer.probability or 0) <= 1 for answer in outcome.answers)
    run = tmp_path / "head" / "run-0"
    assert {path.name for path in (run / "adapter").iterdir()} == {"model.safetensors", "config.json"}
    saved = SavedArm(id="r", folder=run, chosen={}, trained=NOTHING)
    again = runner.run(arm, "test", tmp_path / "unused", Allowance(), saved=saved)
    assert [one.answer for one in again.answers] == [one.answer for one in outcome.answers]
    assert [one.probability for one in again.answers] == pytest.approx([one.probability for one in outcome.answers])
    assert again.result.extras["same_alone"] == 1.0
    (run / "adapter" / "config.json").unlink()
    with pytest.raises(MissingError, match="no classification head"):
        runner.run(arm, "test", tmp_path / "unused", Allowance(), saved=saved)


def test_it_takes_a_context_and_leaves_the_base_as_it_was(session: Session, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in session.base.model.named_parameters()}
    arm = parse_arm("own", session.task)
    outcome = ArmRunner(session, None, Progress()).run(arm, "test", tmp_path / "own", Allowance())
    assert outcome.result.chosen == {"shots": 2}
    session.fresh_base()
    assert all(value.equal(before[name]) for name, value in session.base.model.named_parameters())


def test_a_head_is_for_closed_sets(tmp_path: Path, tiny_model_folder: Path) -> None:
    with pytest.raises(InputError, match="lora-head is for tasks of kind classify"):
        load_task(write_task(tmp_path, tiny_model_folder, ["lora-head"]))
