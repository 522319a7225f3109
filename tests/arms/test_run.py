"""Arms on one session: none starts from what another left, and what is measured is what was saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from study_tasks import CLASSIFY, LABELLED, rows_of, write_task

from trimtab.arms.artifacts import Allowance, TrainedWeights
from trimtab.arms.contexts import context_for
from trimtab.arms.recipe import recipe
from trimtab.arms.run import ArmRunner
from trimtab.arms.session import Session, open_session
from trimtab.arms.store import SavedArm
from trimtab.arms.trainer import train_weights
from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import InputError
from trimtab.base.progress import Progress
from trimtab.base.records import Arm, Generation, Prompt
from trimtab.base.task import load_task, parse_arm
from trimtab.decision.cost import cost_of
from trimtab.measurement.calibration import LEAST_ROWS
from trimtab.model.adapters.registry import defaults_of

WILD = '[arm.wild]\nweights = "full"\nlearning_rate = 0.05\nepochs = 2\n'


@pytest.fixture
def session(tmp_path: Path, tiny_model_folder: Path) -> Session:
    return open_session(
        open_workspace(load_task(write_task(tmp_path, tiny_model_folder, ["prompt", "wild"], more=WILD)))
    )


def test_an_arm_leaves_nothing_behind(session: Session, tmp_path: Path) -> None:
    runner = ArmRunner(session, None, Progress())

    def texts(name: str, folder: str) -> list[str]:
        outcome = runner.run(parse_arm(name, session.task), "test", tmp_path / folder, Allowance())
        return [answer.answer for answer in outcome.answers]

    before = texts("prompt", "first")
    wild = texts("wild", "wild")
    assert wild != before
    assert texts("prompt", "second") == before
    assert texts("wild", "again") == wild


def test_kept_weights_answer_as_when_they_were_made(session: Session, tmp_path: Path) -> None:
    runner, arm = ArmRunner(session, None, Progress()), parse_arm("wild", session.task)
    made = runner.run(arm, "test", tmp_path / "wild", Allowance())
    saved = SavedArm(id="r", folder=tmp_path / "wild" / "run-0", chosen={}, trained=TrainedWeights(seconds=7.0))
    again = runner.run(arm, "test", tmp_path / "unused", Allowance(), saved=saved)
    assert [answer.answer for answer in again.answers] == [answer.answer for answer in made.answers]
    assert again.result.score == made.result.score
    assert again.result.train_seconds == 7.0
    assert not (tmp_path / "unused").exists()


def test_no_weights_are_chosen_without_the_scorer_that_the_task_names(tmp_path: Path, tiny_model_folder: Path) -> None:
    asked = 'kind = "generate"\nmetric = "scorer"\noutput_tokens = 6\nscorer = ["judge"]'
    task = load_task(write_task(tmp_path, tiny_model_folder, ["wild"], task=asked, more=WILD))
    arm = parse_arm("wild", task)
    with pytest.raises(InputError, match="the metric is scorer and there is none"):
        train_weights(open_session(open_workspace(task)), arm, context_for(arm), tmp_path / "run", Progress())


def test_progress_counts_every_question(session: Session, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    progress = Progress(
        listeners=[lambda event: seen.append((event["step"], event["of"])) if event["stage"] == "answer" else None]
    )
    ArmRunner(session, None, progress).run(parse_arm("prompt", session.task), "test", tmp_path / "p", Allowance())
    tests = len(session.workspace.splits["test"])
    assert seen[-1] == (tests, tests)


def test_settings_stand_over_the_defaults_and_the_budget_over_both() -> None:
    plain = Arm(name="lora", weights="lora", stages=("sft",), context="prompt")
    own = Arm(name="x", weights="lora", stages=("sft",), context="prompt", settings={"epochs": 9.0, "rank": 4})

    def epochs(arm: Arm, most: float | None = None, rows: int = 400) -> list[float]:
        return [stage.epochs for stage in recipe(arm, rows, 0, epochs=most).stages]

    assert (epochs(plain), epochs(plain, 1.0)) == ([defaults_of("lora").epochs], [1.0])
    assert epochs(plain, rows=50) == [pytest.approx(100 / 7)]  # few rows are read more often: 100 steps of 8 rows
    judged = Arm(name="y", weights="lora", stages=("sft", "dpo"), context="prompt")
    for by_need in (False, True):  # which learns more from its examples than it should
        assert recipe(judged, 50, 0, by_need=by_need).stages[1].epochs == defaults_of("lora").epochs
    rewarded = Arm(name="z", weights="lora", stages=("sft", "grpo"), context="prompt")
    assert recipe(rewarded, 50, 0, by_need=True).stages[1].epochs == pytest.approx(100 / 7)
    assert (epochs(own), recipe(own, 50, 0).rank) == ([9.0], 4)
    assert epochs(own, 1.0) == [1.0]  # a cut to the budget holds for every arm
    assert epochs(own, 20.0) == [9.0]
    assert recipe(plain, 50, 0).stages[0].learning_rate == defaults_of("lora").learning_rate


def test_each_stage_has_its_own_rate_and_length() -> None:
    settings = {"learning_rate": {"docs": 1e-5}, "epochs": {"docs": 1.0, "sft": 4.0}}
    arm = Arm(name="x", weights="lora", stages=("docs", "sft"), context="prompt", settings=settings)
    docs, sft = recipe(arm, 50, 0, epochs=2.0).stages
    assert (docs.name, docs.learning_rate, docs.epochs) == ("docs", 1e-5, 1.0)
    assert (sft.name, sft.learning_rate, sft.epochs) == ("sft", defaults_of("lora").learning_rate, 2.0)


def test_arms_take_turns_on_one_loaded_base_that_stays_as_published(session: Session, tmp_path: Path) -> None:
    published = {name: value.clone() for name, value in session.base.model.named_parameters()}
    model, runner = session.base.model, ArmRunner(session, None, Progress())
    for name in ("wild", "lora", "freeze"):
        arm = parse_arm(name, session.task)
        runner.run(arm, "test", tmp_path / name, Allowance(epochs=0.5))
    session.fresh_base()
    assert session.base.model is model  # the disk was not read again
    now = dict(session.base.model.named_parameters())
    assert now.keys() == published.keys()
    assert all(torch.equal(value, published[name]) and not value.requires_grad for name, value in now.items())


def test_freezing_trains_the_last_layers_at_most_all_of_them(session: Session) -> None:
    from trimtab.arms.trainer import prepare_base

    arm = Arm(name="freeze", weights="freeze", stages=("sft",), context="prompt")
    prepare_base(session, recipe(arm, 50, 0))
    moving = {name for name, value in session.base.model.named_parameters() if value.requires_grad}
    assert defaults_of("freeze").layers > 2
    assert {name.split(".")[2] for name in moving if ".layers." in name} == {"0", "1"}
    assert not any("embed" in name for name in moving)
    assert all(torch.isfinite(value).all() for value in session.base.model.parameters())
    deep = Arm(name="deep", weights="freeze", stages=("sft",), context="prompt", settings={"layers": 3})
    with pytest.raises(InputError, match="the model has 2"):
        prepare_base(session, recipe(deep, 50, 0))


def test_choosing_on_dev_is_paid_by_every_arm_that_shares_the_choice(tmp_path: Path, tiny_model_folder: Path) -> None:
    arms = ["few-shot", "again", "quick", "fixed", "api-big+few-shot"]
    more = (
        '[arm.again]\nweights = "base"\ncontext = "few-shot"\n'
        '[arm.quick]\nweights = "lora"\ncontext = "few-shot"\nepochs = 0.25\nlearning_rate = 1e-3\nrank = 2\n'
        '[arm.fixed]\nweights = "lora"\ncontext = "few-shot"\nshots = 2\nepochs = 0.25\nlearning_rate = 1e-3\n'
        "rank = 2\n"
        '[api.big]\nurl = "http://127.0.0.1:9"\nmodel = "m"\n'
    )
    task = load_task(write_task(tmp_path, tiny_model_folder, arms, more=more, effort="standard"))
    session = open_session(open_workspace(task))
    runner, named = (
        ArmRunner(session, None, Progress(), tmp_path / "search.jsonl"),
        {arm.name: arm for arm in task.arms},
    )
    made = {name: runner.make(named[name], tmp_path / name, Allowance(search_seconds=1e6)) for name in arms}
    assert made["api-big+few-shot"].choose_seconds == made["fixed"].choose_seconds == 0.0
    assert made["quick"].choose_seconds == 0.0  # what trained weights are shown is not chosen by the base's answers
    shots = [trial for trial in made["few-shot"].effort.trials if trial.what["instruction"] == "as in the task file"]
    asked = [trial for trial in made["again"].effort.trials if "shots" in trial.what]
    assert {(str(trial.what), trial.seconds) for trial in shots} & {(str(trial.what), trial.seconds) for trial in asked}
    assert made["again"].choose_seconds > 0
    outcome = runner.measure(named["few-shot"], made["few-shot"], "test")
    cost = session.task.cost
    told, free = (cost_of(replace(outcome.usage, choose_seconds=seconds), cost) for seconds in (7.0, 0.0))
    assert told is not None
    assert free is not None
    assert told.up_front - free.up_front == pytest.approx(7.0)


def test_an_index_that_is_there_already_costs_what_it_took_to_make(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path
) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "a.md").write_text("# Aalen\nAalen has a bridge.\n")
    base, data = f'embedding = "{tiny_embedding_folder}"', 'documents = ["documents/"]'
    task = load_task(write_task(tmp_path, tiny_model_folder, ["rag"], data=data, base=base))

    def index_seconds(folder: str) -> float:
        runner = ArmRunner(open_session(open_workspace(task)), None, Progress())
        return runner.run(task.arms[0], "test", tmp_path / folder, Allowance()).usage.index_seconds

    assert index_seconds("made") == index_seconds("found") > 0


def test_an_arm_that_only_reads_the_documents_has_nothing_to_search_by(tmp_path: Path, tiny_model_folder: Path) -> None:
    (tmp_path / "a.md").write_text("# Aalen\n" + "Aalen has a bridge. " * 20)
    more = '[arm.reader]\nweights = "lora"\nstages = ["docs"]\nepochs = 1\n'
    task = load_task(
        write_task(tmp_path, tiny_model_folder, ["reader"], data='documents = ["a.md"]', more=more, effort="standard")
    )
    runner = ArmRunner(open_session(open_workspace(task)), None, Progress())
    made = runner.make(task.arms[0], tmp_path / "reader", Allowance(search_seconds=1e6))
    assert made.effort is None
    assert made.trained[0].steps > 0


@pytest.mark.parametrize("killed", [False, True])
def test_labels_are_weighed_over_all_questions_asked_so_far(
    tmp_path: Path, tiny_model_folder: Path, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of scores that like one label too much whatever is asked: each is right once their mean is taken off."""
    task = write_task(tmp_path, tiny_model_folder, ["prompt"], rows=rows_of(240), task=CLASSIFY, data=LABELLED)
    session = open_session(open_workspace(load_task(task)), "fp32")
    dev, labels = session.workspace.splits["dev"], session.workspace.labels
    right = {row.id: labels.index(row.references[0]) for row in dev}

    def liked(prompts: Sequence[Prompt]) -> np.ndarray:
        return np.array([np.eye(len(labels))[right[prompt.id]] + 5.0 * np.eye(len(labels))[0] for prompt in prompts])

    monkeypatch.setattr(session, "label_sums", liked)
    context = context_for(parse_arm("prompt", session.task))
    runner = ArmRunner(session, None, Progress(), tmp_path / "search.jsonl")
    few = runner.scores.scores_of(context, dev[: LEAST_ROWS - 1])
    assert few == [float(right[row.id] == 0) for row in dev[: LEAST_ROWS - 1]], "too few to be weighed"
    if killed:
        runner = ArmRunner(session, None, Progress(), tmp_path / "search.jsonl")
    assert len(dev) > LEAST_ROWS
    assert set(runner.scores.scores_of(context, dev)) == {1.0}, "those that were asked first, too"
    again = ArmRunner(session, None, Progress(), tmp_path / "search.jsonl")
    assert set(again.scores.scores_of(context, dev)) == {1.0}


def test_score_that_depends_on_the_batch_is_told(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every question gets its reference where it is asked alone, in place of the answer of the model."""
    references = {row.id: row.references[0] for row in session.workspace.splits["test"]}
    time_questions = ArmRunner._time_questions

    def all_right(*given: Any) -> tuple[list[float], list[Generation]]:
        seconds, generations = time_questions(*given)
        return seconds, [replace(one, text=references[one.id]) for one in generations]

    monkeypatch.setattr(ArmRunner, "_time_questions", all_right)
    made = ArmRunner(session, None, Progress()).run(
        parse_arm("prompt", session.task), "test", tmp_path / "arm", Allowance()
    )
    timed = {row.id for row in session.workspace.timed_questions("test")}
    right = np.mean([answer.answer == references[answer.item_id] for answer in made.answers if answer.item_id in timed])
    scores = [answer.score for answer in made.answers if answer.item_id in timed]
    assert made.result.extras["same_alone"] == pytest.approx(right)
    assert made.result.extras["score_alone"] == pytest.approx(1 - np.mean(scores))
