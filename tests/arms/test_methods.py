"""Each method as an arm: made on the one loop, saved, put on again from what was saved, asked in every way; nothing
is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from study_tasks import CLASSIFY, LABELLED, rows_of, write_task

from trimtab.arms.answerers import ready_arm
from trimtab.arms.artifacts import Allowance
from trimtab.arms.contexts import context_for
from trimtab.arms.planning.predict import predict
from trimtab.arms.recipe import recipe
from trimtab.arms.run import ArmRunner
from trimtab.arms.session import Session, open_session
from trimtab.arms.trainer import prepare_base
from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import InputError
from trimtab.base.grammar import METHODS
from trimtab.base.progress import Progress
from trimtab.base.task import load_task, parse_arm
from trimtab.model.adapters import qlora as quantized
from trimtab.model.adapters.apply import trainable_parameters

TRAINED = [name for name, method in METHODS.items() if method.staged]
VIRTUAL = ["soft-prompt", "prefix"]
LABELS = {"task": CLASSIFY, "data": LABELLED}


def opened(folder: Path, model: Path, arms: list[str], **options: str) -> Session:
    more = "".join(f'[arm.own-{name}]\nweights = "{name}"\nepochs = 1\n' for name in TRAINED)
    return open_session(
        open_workspace(load_task(write_task(folder, model, arms, rows=rows_of(36), more=more, **options)))
    )


@pytest.mark.usefixtures("all_alone")
@pytest.mark.parametrize(
    ("method", "options"),
    [
        *((name, LABELS) for name in TRAINED if name not in ("lora", "freeze", "full")),
        *((name, {}) for name in VIRTUAL),  # text: what is merged is told apart by nothing there
    ],
)
def test_what_is_measured_is_what_was_saved(
    method: str, options: dict[str, str], tmp_path: Path, tiny_model_folder: Path
) -> None:
    session = opened(tmp_path, tiny_model_folder, [f"own-{method}"], **options)
    published = {name: value.clone() for name, value in session.base.model.state_dict().items()}
    runner, arm = ArmRunner(session, None, Progress()), parse_arm(f"own-{method}", session.task)
    made = runner.run(arm, "test", tmp_path / "arm", Allowance())
    assert made.result.status == "done"
    assert made.result.extras["same_alone"] == 1.0
    assert (tmp_path / "arm" / "run-0" / "adapter" / "adapter_config.json").is_file()
    with ready_arm(session, arm, context_for(arm), tmp_path / "arm" / "run-0") as asked:
        again = asked.answer_batch(asked.builder.prompts(session.workspace.splits["test"]))
    assert [one.text for one in again] == [one.answer for one in made.answers]
    now = session.fresh_base().model.state_dict()
    assert list(now) == list(published)
    assert all(torch.equal(now[name], value) for name, value in published.items())


@pytest.mark.parametrize("method", ["dora", "vera", "bitfit", "oft", "loha", "qlora"])
def test_it_goes_with_a_head(method: str, tmp_path: Path, tiny_model_folder: Path) -> None:
    session = opened(tmp_path, tiny_model_folder, [f"{method}-head"], task=CLASSIFY, data=LABELLED)
    runner, arm = ArmRunner(session, None, Progress()), parse_arm(f"{method}-head", session.task)
    made = runner.run(arm, "test", tmp_path / "arm", Allowance(epochs=1.0))
    assert made.result.status == "done"
    with ready_arm(session, arm, context_for(arm), tmp_path / "arm" / "run-0") as asked:
        again = asked.answer_batch(asked.builder.prompts(session.workspace.splits["test"]))
    assert [one.probability for one in again] == pytest.approx([one.probability for one in made.answers])


@pytest.mark.parametrize("method", VIRTUAL)
def test_virtual_tokens_take_no_head_and_say_why(method: str, tmp_path: Path, tiny_model_folder: Path) -> None:
    with pytest.raises(InputError, match=f"{method} takes no head .*; take {method}, or lora-head"):
        load_task(write_task(tmp_path, tiny_model_folder, [f"{method}-head"], task=CLASSIFY, data=LABELLED))
    own = f'[arm.own]\nweights = "{method}"\nstages = ["head"]\n'
    with pytest.raises(InputError, match=f"{method} takes no head .*; take head out of stages"):
        load_task(write_task(tmp_path, tiny_model_folder, ["own"], task=CLASSIFY, data=LABELLED, more=own))


def test_settings_reach_what_is_made(tmp_path: Path, tiny_model_folder: Path) -> None:
    more = '[arm.short]\nweights = "prefix"\nvirtual_tokens = 3\n[arm.wide]\nweights = "vera"\nrank = 7\n'
    session = open_session(open_workspace(load_task(write_task(tmp_path, tiny_model_folder, ["short"], more=more))))
    for name, shape in (("short", (3, 2 * 2 * 2 * 8)), ("wide", (7,))):
        prepare_base(session, recipe(parse_arm(name, session.task), 60, 0))
        assert shape in {tuple(value.shape) for value in trainable_parameters(session.base.model).values()}
    assert session.context_tokens == 256
    prepare_base(session, recipe(parse_arm("short", session.task), 60, 0))
    assert session.context_tokens == 253


def test_a_setting_of_another_method_is_refused(tmp_path: Path, tiny_model_folder: Path) -> None:
    more = '[arm.own]\nweights = "ia3"\nvirtual_tokens = 3\n'
    with pytest.raises(InputError, match=r'virtual_tokens is not used where weights is .*set weights = "soft-prompt"'):
        load_task(write_task(tmp_path, tiny_model_folder, ["own"], more=more))


def test_four_bits_are_refused_in_the_plan_and_the_others_go_on(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantized, "find_spec", lambda _: None)
    session = opened(tmp_path, tiny_model_folder, ["qlora", "ia3"])
    refused, planned = predict(session, session.task.arms, seconds=0.0)
    assert "which is not installed; take lora" in str(refused.problem)
    assert planned.problem is None
    assert planned.memory_mb is not None
