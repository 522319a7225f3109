"""An arm whose lower layers are frozen: they are read once for all its trials and looks at dev, and its plan knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from study_tasks import write_task

from trimtab.arms.contexts import context_for
from trimtab.arms.objectives import StageSetup, build_supervised
from trimtab.arms.planning import predict as timing
from trimtab.arms.planning.plan import StagePlan
from trimtab.arms.planning.predict import predict
from trimtab.arms.recipe import Stage, recipe_for
from trimtab.arms.search.context_search import SEARCH_SPACES
from trimtab.arms.session import Session, open_session
from trimtab.arms.trainer import TrainingSearch, prepare_base, train_weights
from trimtab.arms.workspace import open_workspace
from trimtab.base.progress import Progress
from trimtab.base.task import load_task, parse_arm
from trimtab.training import activation_cache as frozen
from trimtab.training.estimates import TrainingRate

TOP = '[arm.top]\nweights = "freeze"\nlayers = 1\nepochs = 2\n'


@pytest.fixture
def session(tmp_path: Path, tiny_model_folder: Path) -> Session:
    return open_session(
        open_workspace(load_task(write_task(tmp_path, tiny_model_folder, ["top"], more=TOP, effort="standard")))
    )


def test_a_search_over_rates_reads_the_frozen_layers_once(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, ...]] = []
    layer_input = frozen.layer_input

    def watched(base: object, layer: int, ids_N: torch.Tensor, *rest: object) -> object:
        read.append(tuple(ids_N.tolist()))
        return layer_input(base, layer, ids_N, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(frozen, "layer_input", watched)
    arm = parse_arm("top", session.task)
    search = TrainingSearch(menu=SEARCH_SPACES["standard"], seconds=1e9)
    made = train_weights(session, arm, context_for(arm), tmp_path / "run", Progress(), search=search)
    assert made.effort is not None
    assert len({trial.what["learning_rate"] for trial in made.effort.trials}) > 2
    assert len(read) > 1
    assert len(read) == len(set(read))


def test_what_is_read_once_is_not_kept(session: Session) -> None:
    arm = parse_arm("top", session.task)
    made = recipe_for(session, arm, 0)
    prepare_base(session, made)

    def kept(stage: Stage) -> list[bool]:
        setup = StageSetup(session=session, plan=made, stage=stage, context=context_for(arm))
        objectives = build_supervised(setup)
        return [one is not None and one.activation_cache is not None for one in (objectives.train, objectives.dev)]

    assert kept(Stage(name="sft", learning_rate=1e-3, epochs=1.0)) == [False, True]
    assert kept(Stage(name="sft", learning_rate=1e-3, epochs=1.5)) == [True, True]
    assert kept(Stage(name="sft", learning_rate=1e-3, epochs=0.5, schedule="constant")) == [True, True]


def test_the_plan_counts_the_frozen_layers_once(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    rate = TrainingRate(tokens_per_second=100.0, frozen_seconds=0.02)
    monkeypatch.setattr(timing, "measure_rate", lambda *_: rate)
    [plan] = predict(session, session.task.arms)
    stage = replace(plan.stages[0], look_seconds=0.0)
    tokens = stage.epoch_seconds * 100
    assert stage == StagePlan(epoch_seconds=tokens / 100, once_seconds=pytest.approx(0.02 * tokens), epochs=2.0)
    assert [stage.seconds(most) for most in (9.0, 1.0, 0.5)] == pytest.approx(
        [2 * tokens / 100 + 0.02 * tokens, tokens * 0.03, tokens * 0.015]
    )
    monkeypatch.setattr(frozen, "MAX_BYTES", 10)
    [beyond] = predict(session, session.task.arms)
    stage = replace(beyond.stages[0], look_seconds=0.0)
    assert stage == StagePlan(epoch_seconds=pytest.approx(tokens * 0.03), epochs=2.0)
