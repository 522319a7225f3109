"""Loss on general text of two saved changes of one base: equal for the same, higher for a spoilt one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from study_tasks import write_task

from trimtab.arms.session import Session, open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.task import load_task
from trimtab.model.adapters.apply import attach, save_adapter
from trimtab.model.adapters.peft_format import peft_tensors
from trimtab.upkeep.forgetting import forgetting, general_passages


def test_the_passages_are_short_whole_and_unlike_each_other() -> None:
    passages = general_passages()
    assert len(passages) == len(set(passages)) == 60
    assert all(15 <= len(one) <= 250 for one in passages)


@pytest.fixture
def session(tmp_path: Path, tiny_model_folder: Path) -> Session:
    return open_session(open_workspace(load_task(write_task(tmp_path, tiny_model_folder, ["prompt"]))))


def test_the_same_weights_forget_nothing_and_spoilt_ones_do(session: Session, tmp_path: Path) -> None:
    for name, scale in (("kept", 0.0), ("spoilt", 3.0)):
        base = session.fresh_base()
        attach(base, "lora", 0, rank=4)
        generator = torch.Generator().manual_seed(0)
        for tensor in peft_tensors(base.model).values():
            with torch.no_grad():
                tensor += scale * torch.randn(tensor.shape, generator=generator)
        (tmp_path / name).mkdir()
        save_adapter(base, tmp_path / name)
    same = forgetting(session, tmp_path / "kept", tmp_path / "kept")
    assert same.difference == same.low == same.high == 0.0
    assert same.candidate == same.production
    worse = forgetting(session, tmp_path / "spoilt", tmp_path / "kept")
    assert worse.low > 0  # a random model has little to lose
    assert worse.passages == 60
    assert worse.difference == pytest.approx(worse.candidate - worse.production)
    assert forgetting(session, tmp_path / "kept", tmp_path / "spoilt").high < 0
