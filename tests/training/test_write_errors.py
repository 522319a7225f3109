"""A disk that is full or broken from any write of a run on: one clear line, a state that loads, and in the end the
same weights."""

import errno
import itertools
import os
import re
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from trimtab.base import files
from trimtab.base.errors import TrimtabError, os_error_message
from trimtab.base.progress import Progress
from trimtab.model.adapters import apply as adapters
from trimtab.model.adapters.apply import write_tensors
from trimtab.training import checkpoint, loop
from trimtab.training.loop import LoopSettings, TrainingJob, train_model
from trimtab.training.losses import Loss
from trimtab.training.monitor import DevEvaluation

pytestmark = pytest.mark.any_processor

GROWING, SHRINKING = ("mkdir", "rename", "replace", "fsync"), ("unlink", "rmdir")
SETTINGS = LoopSettings(learning_rate=0.1, epochs=4, evaluations=2)
# Of a kind whose passes never recompute their layers: there are none.
CONFIG = SimpleNamespace(num_kv_shared_layers=1)
BASE = SimpleNamespace(precision="fp32", device=torch.device("cpu"), model=SimpleNamespace(config=CONFIG))


class Pulled:
    """Numbers that each step pulls another way: no model, so that hundreds of runs take seconds."""

    steps_per_epoch = 1

    def __init__(self):
        self.numbers = nn.Parameter(torch.arange(6.0))

    def parameters(self, base):
        return {"numbers": self.numbers}

    def batches(self, step):
        return [SimpleNamespace(ids_N=torch.zeros(3), row_tokens=3, way=part + step) for part in range(2)]

    def loss(self, base, batch):
        return Loss(value=(self.numbers - batch.way).square().sum())


def trained(folder, listener=lambda numbers, event: None):
    """Four steps, each saved, two looks at dev of which the first is the best, and the file of the weights that come
    out."""
    objective = Pulled()
    dev_losses = {2: 1.0, 4: 2.0}
    newest = []

    def listen(event):
        newest[:] = [event["step"]]
        listener(objective.numbers, event)

    train_model(
        TrainingJob(
            base=BASE,
            objective=objective,
            settings=SETTINGS,
            folder=folder,
            evaluate=lambda: DevEvaluation(dev_loss=dev_losses[newest[0]]),
            progress=Progress(path=folder / "metrics.jsonl", listeners=[listen]),
        )
    )
    write_tensors({"numbers": objective.numbers.detach()}, folder / "adapter" / "weights.safetensors")


class Broken:
    """From the `at`-th write on, counted from 0, every one fails with `code`; a full disk still lets go of files."""

    def __init__(self, patch, at, code):
        self.left, self.code = at, code
        for name in GROWING + (SHRINKING if code == errno.EIO else ()):
            patch.setattr(os, name, self.failing(getattr(os, name)))
        patch.setattr(os, "open", self.failing(os.open, only=self.writes))
        opened = self.failing(open, only=lambda path, mode: mode != "rb")
        patch.setattr(files, "open", lambda path, mode, **named: Torn(opened(path, mode, **named), self), raising=False)
        for room in (checkpoint, adapters):
            patch.setattr(room, "save_file", self.torn(room.save_file))

    @property
    def came(self):
        return self.left < 0

    def due(self):
        self.left -= 1
        return self.came

    @staticmethod
    def writes(_, flags, *more):
        return flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)

    def error(self, path=None):
        return OSError(self.code, os.strerror(self.code), *([path] if isinstance(path, str) else []))

    def failing(self, real, only=lambda *given: True):
        def call(*given, **named):
            if only(*given) and self.due():
                path = given[0] if isinstance(given[0], int) else os.fspath(given[0])
                raise self.error(path)
            return real(*given, **named)

        return call

    def torn(self, real):
        """As safetensors says it, with half a file written."""

        def call(tensors, path):
            if self.due():
                path.write_bytes(b"half")
                raise SafetensorError(
                    f"Error while serializing: I/O error: {os.strerror(self.code)} (os error {self.code})"
                )
            real(tensors, path)

        return call


class Torn:
    """An open file of which the disk takes half of what is written when it is due."""

    def __init__(self, file, broken):
        self.file, self.broken = file, broken

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        if self.broken.due():
            self.file.write(data[: len(data) // 2])
            raise self.broken.error()
        self.file.write(data)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_anywhere_loses_nothing(tmp_path, monkeypatch, code):
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # thousands of them; each is counted and fails in its turn
    states = {}
    trained(tmp_path / "whole", lambda numbers, event: states.setdefault(event["step"], numbers.detach().clone()))
    assert len(states) == 4
    for at in itertools.count():
        folder, line = tmp_path / str(at), None
        with monkeypatch.context() as patch:
            broken = Broken(patch, at, code)
            try:
                trained(folder)
            except (TrimtabError, OSError) as error:
                line = str(error) if isinstance(error, TrimtabError) else os_error_message(error)
        if not broken.came:
            break
        if line is not None:  # what is only tidied up may fail without a word
            assert re.search(rf"^{folder}[^;\n]*: [^\n]+; [^\n]*(free disk space|the disk)[^\n]*$", line), (at, line)
        kept = checkpoint.load(folder / "checkpoints")
        assert kept is None or torch.equal(kept.weights["numbers"], states[kept.state["step"]]), at
        left = list((folder / "adapter").glob(".*.part"))  # could not be tidied away; goes with the next save
        if line is None:
            assert not [file for one in left for file in one.iterdir()], at
        if line is not None or left:
            trained(folder)
        assert torch.equal(load_file(folder / "adapter" / "weights.safetensors")["numbers"], states[2]), at
        assert [path.name for path in (folder / "adapter").iterdir()] == ["weights.safetensors"]
    assert at > 4 * 20  # writes of four saves, and those of the events and of the last file
