"""Training that cannot go on says where, what is intact and which setting helps, and leaves nothing behind that the
next run would feel."""

import pytest
import torch
from tiny_models import random_rows, with_lora

from trimtab.base.errors import DivergedError, MemoryRanOutError
from trimtab.base.progress import Progress
from trimtab.base.records import Encoded
from trimtab.model.adapters.apply import trainable_parameters
from trimtab.training import checkpoint, loop
from trimtab.training.batch import MICRO_TOKENS, TrainingRow
from trimtab.training.loop import LoopSettings, TrainingJob, train_model
from trimtab.training.losses import Loss
from trimtab.training.monitor import DevEvaluation
from trimtab.training.optim import restore, snapshot
from trimtab.training.sft import SupervisedObjective

SETTINGS = LoopSettings(learning_rate=1e-2, epochs=2, evaluations=2)


def job(base, folder, *, objective=None, settings=SETTINGS, **more):
    objective = objective or SupervisedObjective(random_rows(20), batch=4, seed=0)
    return TrainingJob(base=base, objective=objective, settings=settings, folder=folder, **more)


def weights(base):
    return snapshot(trainable_parameters(base.model))


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


class Ending:
    """Supervised, whose loss at one step (counted from 1) is put through `end` once its gradients were taken."""

    steps_per_epoch = 5

    def __init__(self, end, at=4, rows=None):
        self.inner, self.end, self.at, self.step = (
            SupervisedObjective(rows or random_rows(20), batch=4, seed=0),
            end,
            at,
            0,
        )

    def parameters(self, base):
        return self.inner.parameters(base)

    def batches(self, step):
        self.step = step + 1
        return self.inner.batches(step)

    def loss(self, base, batch):
        loss = self.inner.loss(base, batch)
        if self.step != self.at:
            return loss
        (0 * loss.value + loss.value).backward(retain_graph=True)
        return Loss(value=self.end(loss.value))


def no_memory(_):
    return torch.empty(1 << 50)


def pythons(_):
    raise MemoryError


def of_a_card(_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def of_an_apple(_):
    raise RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)")


def not_a_number(value):
    return value * float("nan")


@pytest.mark.parametrize("end", [no_memory, pythons, of_a_card, of_an_apple, not_a_number])
def test_the_checkpoint_stays_the_weights_are_the_last_good_ones_and_going_on_is_as_if_nothing_was(
    tmp_path, monkeypatch, end
):
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    whole, base = with_lora(2), with_lora(2)
    train_model(job(whole, tmp_path / "whole"))
    error = DivergedError if end is not_a_number else MemoryRanOutError
    with pytest.raises(error, match=r"step 4.*; the checkpoint of step 3 is intact: "):
        train_model(job(base, tmp_path / "cut", objective=Ending(end)))
    kept = checkpoint.load(tmp_path / "cut" / "checkpoints")
    assert kept.state["step"] == 3
    assert same(weights(base), dict(kept.weights))
    assert all(value.grad is None for value in base.model.parameters())
    train_model(job(base, tmp_path / "cut"))
    assert same(weights(base), weights(whole))


def test_after_one_that_diverged_another_run_from_the_same_start_is_as_alone(tmp_path):
    """As the ladder of learning rates has them: in one process, on one model."""
    alone, base = with_lora(2), with_lora(2)
    start = weights(base)
    train_model(job(alone, tmp_path / "alone"))
    with pytest.raises(DivergedError):
        train_model(job(base, tmp_path / "one", objective=Ending(not_a_number)))
    restore(trainable_parameters(base.model), start)
    train_model(job(base, tmp_path / "other"))
    assert same(weights(base), weights(alone))


def test_an_error_that_is_not_of_memory_stays_what_it_is(tmp_path):
    def wrong(_):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train_model(job(with_lora(2), tmp_path, objective=Ending(wrong)))


def test_memory_that_runs_out_at_a_look_at_dev_is_told(tmp_path):
    with pytest.raises(MemoryRanOutError, match="at the dev evaluation after step 5 of 10; nothing was saved yet: "):
        train_model(job(with_lora(2), tmp_path, evaluate=lambda: no_memory(None)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [100, MICRO_TOKENS + 90])
def test_it_names_what_takes_less_memory_and_nothing_that_does_not(tmp_path, dtype, length):
    row = TrainingRow(encoded=Encoded(ids=(5,) * length, trained=(False,) * 90 + (True,) * (length - 90)))
    sizes = {
        batch: max(len(part.ids_N) for part in SupervisedObjective([row] * 16, batch=batch, seed=0).batches(0))
        for batch in (1, 16)
    }
    assert sizes[16] <= max(MICRO_TOKENS, sizes[1])  # so a lower `batch` is no way
    with pytest.raises(MemoryRanOutError) as raised:
        train_model(job(with_lora(2, dtype), tmp_path, objective=Ending(pythons, at=1, rows=[row] * 4)))
    line = str(raised.value)
    assert line.startswith("out of memory at step 1 of 10, in a pass of ")
    assert "a smaller base.model" in line
    assert "a lower rank" in line
    assert "batch" not in line
    assert ('base.precision = "bf16"' in line) == (dtype == torch.float32)
    assert (f"rows of at most {MICRO_TOKENS:,} tokens" in line) == (length > MICRO_TOKENS)


@pytest.mark.parametrize(("dtype", "way"), [(torch.bfloat16, 'base.precision = "fp32"'), (torch.float32, "the rows")])
def test_what_is_no_number_before_anything_has_moved_is_not_laid_to_the_learning_rate(tmp_path, dtype, way):
    with pytest.raises(DivergedError, match=f"loss is nan at step 1, before any weight has changed: .*{way}") as raised:
        train_model(job(with_lora(2, dtype), tmp_path, objective=Ending(not_a_number, at=1)))
    assert "learning_rate" not in str(raised.value)


class Growing(Ending):
    """A loss that is three times as high with every step."""

    def loss(self, base, batch):
        return Loss(value=self.inner.loss(base, batch).value * 3.0**self.step)


def test_losses_that_grow_stop_the_run_with_its_best_weights_and_the_setting_that_helps(tmp_path):
    events: list = []
    base, seen, losses = with_lora(2), [], iter((3.0, 2.0, 5.0, 9.0))

    def evaluate():
        seen.append(weights(base))
        return DevEvaluation(dev_loss=next(losses))

    settings = LoopSettings(learning_rate=1e-2, epochs=2, evaluations=5)
    told = Progress(listeners=[events.append])
    result = train_model(
        job(base, tmp_path, objective=Growing(None), settings=settings, evaluate=evaluate, progress=told)
    )
    assert result.steps == 8
    assert same(weights(base), seen[1])
    assert events[-1]["note"] == "train loss and dev loss both rose: lower learning_rate; the best weights were kept"
