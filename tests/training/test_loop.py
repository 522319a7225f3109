"""The loop: schedule, order of rows, early stop, divergence, signals, and resuming as if nothing had happened."""

import json
import math
import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import base_of, random_rows

from trimtab.base.errors import BusyError, DivergedError, InputError, StoppedError
from trimtab.base.files import locked
from trimtab.base.progress import Progress
from trimtab.model.adapters import add_lora, trainable
from trimtab.training import checkpoint, loop
from trimtab.training.batch import micro_batches, step_rows, steps_per_epoch
from trimtab.training.loop import LoopSettings, train
from trimtab.training.optim import learning_rate_at
from trimtab.training.sft import Supervised

SETTINGS = LoopSettings(learning_rate=1e-2, epochs=2, evaluations=3)


def fresh():
    base = base_of("llama")
    add_lora(base, 2, 4.0, seed=0)
    return base


def objective():
    return Supervised(random_rows(20), batch=4, seed=0)


def dev():
    return Supervised(random_rows(5, seed=9), batch=5, seed=0)


def weights(base):
    return {name: value.detach().clone() for name, value in trainable(base.model).items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


class Bad:
    """Training data whose loss is `value` from step `after` on."""

    steps_per_epoch = 5

    def __init__(self, value=math.nan, after=3, through=lambda loss, value: loss * value):
        self.inner, self.value, self.after, self.through, self.step = objective(), value, after, through, 0

    def batches(self, step):
        self.step = step
        return self.inner.batches(step)

    def loss(self, base, batch):
        loss = self.inner.loss(base, batch)
        return self.through(loss, self.value) if self.step >= self.after else loss


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 3), st.integers(0, 5))
def test_an_epoch_takes_each_row_once_in_its_own_order(count, batch, epoch, seed):
    per_epoch = steps_per_epoch(count, batch)
    steps = [step_rows(count, batch, epoch * per_epoch + place, seed) for place in range(per_epoch)]
    assert sorted(row for rows in steps for row in rows) == list(range(count))
    assert all(len(rows) == batch for rows in steps[:-1])


def test_orders_differ_between_epochs_and_seeds():
    orders = [tuple(step_rows(50, 50, epoch, seed)) for epoch in range(3) for seed in range(3)]
    assert len(set(orders)) == 9


@given(st.integers(1, 30), st.integers(1, 80), st.integers(0, 10))
def test_micro_batches_hold_each_row_once_within_the_limit(count, tokens, seed):
    rows = random_rows(count, seed)
    parts = micro_batches(rows, tokens)
    assert sorted(map(id, (row for part in parts for row in part))) == sorted(map(id, rows))
    assert all(len(part) == 1 or sum(len(row.encoded.ids) for row in part) <= tokens for part in parts)


@given(st.integers(1, 500))
def test_the_learning_rate_rises_to_the_peak_and_falls_to_a_tenth(steps):
    rates = [learning_rate_at(step, steps, 2.0) for step in range(steps)]
    top = rates.index(max(rates))
    assert rates[top] == pytest.approx(2.0)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates[top:]) >= 0.2
    assert top <= max(1, 0.05 * steps + 1)
    if steps > 100:
        assert rates[-1] == pytest.approx(0.2, abs=0.01)


def test_the_best_weights_are_on_at_the_end(tmp_path):
    """The metric falls after the first evaluation: the weights of that step come back."""
    seen, scores, base = [], iter([0.9, 0.2, 0.1]), fresh()

    def metric():
        seen.append(weights(base))
        return next(scores)

    events: list = []
    told = Progress(listeners=[events.append])
    result = train(base, objective(), SETTINGS, tmp_path, dev=dev(), metric=metric, progress=told)
    assert result.best == result.readings[0]
    assert [event["best"] for event in events if event["stage"] == "dev"] == [True, False, False]
    assert same(weights(base), seen[0])
    assert not same(seen[0], seen[-1])


def test_it_stops_early_when_dev_loss_rises(tmp_path):
    settings = LoopSettings(learning_rate=5e-2, epochs=40, evaluations=40, patience=2)
    train_rows = Supervised(random_rows(4), batch=4, seed=0)
    result = train(fresh(), train_rows, settings, tmp_path, dev=dev())
    assert result.steps < 40
    assert result.best.dev_loss == min(reading.dev_loss for reading in result.readings)


@pytest.mark.parametrize(
    "through", [lambda loss, value: loss * value, lambda loss, value: (loss - loss.detach()) * value]
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_or_gradient_that_is_no_number_stops_with_the_checkpoint_intact(tmp_path, monkeypatch, through, value):
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    base = fresh()
    with pytest.raises(DivergedError, match="step 4; the last checkpoint is intact: lower learning_rate"):
        train(base, Bad(value, 3, through), SETTINGS, tmp_path)
    kept = checkpoint.load(tmp_path / "checkpoints")
    assert kept.state["step"] == 3
    assert all(torch.isfinite(value).all() for value in kept.weights.values())
    assert same(weights(base), dict(kept.weights))


def test_a_dev_loss_that_is_no_number_stops(tmp_path):
    with pytest.raises(DivergedError, match="dev loss is nan"):
        train(fresh(), objective(), SETTINGS, tmp_path, dev=Bad(math.nan, 0))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_the_rest_is_as_if_never_stopped(tmp_path, number):
    whole = fresh()
    expected = train(whole, objective(), SETTINGS, tmp_path / "whole", dev=dev())

    def interrupt(event):
        if event["stage"] == "train" and event["step"] == 4:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(StoppedError, match="stopped at step 4 of 10, all saved; go on with --resume") as stopped:
        train(fresh(), objective(), SETTINGS, tmp_path / "cut", dev=dev(), progress=Progress(listeners=[interrupt]))
    assert stopped.value.exit_code == 3
    assert signal.getsignal(number) is before
    steps = []
    resumed = fresh()
    result = train(
        resumed,
        objective(),
        SETTINGS,
        tmp_path / "cut",
        dev=dev(),
        progress=Progress(listeners=[lambda event: steps.append(event["step"])]),
    )
    assert steps[0] == 5
    assert same(weights(whole), weights(resumed))
    assert result.readings == expected.readings
    assert result.tokens == expected.tokens


def test_a_signal_in_the_last_step_is_not_swallowed(tmp_path):
    def interrupt(event):
        if event["stage"] == "train" and event["step"] == 10:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(StoppedError):
        train(fresh(), objective(), SETTINGS, tmp_path, progress=Progress(listeners=[interrupt]))
    assert train(fresh(), objective(), SETTINGS, tmp_path).steps == 10


def test_a_run_is_not_resumed_on_other_data_or_in_another_precision(tmp_path):
    train(fresh(), objective(), SETTINGS, tmp_path, fingerprint="a")
    with pytest.raises(InputError, match="another data or settings"):
        train(fresh(), objective(), SETTINGS, tmp_path, fingerprint="b")
    other = base_of("llama", torch.bfloat16)
    add_lora(other, 2, 4.0, seed=0)
    with pytest.raises(InputError, match="another precision"):
        train(other, objective(), SETTINGS, tmp_path, fingerprint="a")


def test_a_folder_has_one_writer(tmp_path):
    with locked(tmp_path), pytest.raises(BusyError):
        train(fresh(), objective(), SETTINGS, tmp_path)


def test_events_tell_the_curves(tmp_path):
    events = []
    train(
        fresh(),
        objective(),
        SETTINGS,
        tmp_path,
        dev=dev(),
        metric=lambda: 0.5,
        progress=Progress(listeners=[events.append]),
    )
    steps = [event for event in events if event["stage"] == "train" and "loss" in event]
    readings = [event for event in events if event["stage"] == "dev"]
    assert [event["step"] for event in steps] == list(range(1, 11))
    assert [event["step"] for event in readings] == [3, 7, 10]
    assert {"loss", "gradient_norm", "learning_rate", "tokens_per_second"} <= steps[-1].keys()
    assert readings[-1]["train_loss"] == pytest.approx(sum(event["loss"] for event in steps[7:]) / 3)
    json.dumps(events, allow_nan=False)
    assert Path(tmp_path / "checkpoints" / "latest").read_text() == "step-0000010"
