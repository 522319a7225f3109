"""Training that goes on from saved weights: it begins with them and not with the base, on the rows that are named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from study_tasks import write_task

from trimtab import train
from trimtab.arms.known_rows import read_known_rows
from trimtab.arms.store import read_run
from trimtab.base.errors import InputError

ARM = '[arm.quick]\nweights = "lora"\nepochs = 1\nlearning_rate = {rate}\n'


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def test_it_begins_with_the_weights_that_are_named(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["quick"], more=ARM.format(rate=1e-2))
    first = train(task, "quick", listeners=[])
    before = weights(first.folder)
    assert max(float(value.abs().max()) for name, value in before.items() if "lora_B" in name) > 1e-4
    write_task(tmp_path, tiny_model_folder, ["quick"], more=ARM.format(rate=1e-9))
    rows = [f"row{number}" for number in range(0, 60, 3)]
    second = train(task, "quick", begin=first.folder / "adapter", only=rows, listeners=[])
    after = weights(second.folder)
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-6, rtol=0)
    record = read_run(second.folder)
    assert record is not None
    assert 0 < record.counts["train"] < 20
    known = read_known_rows(second.folder)
    assert known is not None
    assert len(known) == 60


def test_an_arm_with_a_head_is_refused(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(
        tmp_path,
        tiny_model_folder,
        ["lora-head"],
        task='kind = "classify"',
        data='columns = { input = "question", label = "answer" }',
    )
    with pytest.raises(InputError, match="has a head, which is trained from scratch; leave out begin"):
        train(task, "lora-head", begin=tmp_path, listeners=[])
