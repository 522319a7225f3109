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
from trimtab.model.adapters.apply import add_lora, trainable_parameters, unfreeze
from trimtab.training import batch as batches_of
from trimtab.training import checkpoint, loop
from trimtab.training.batch import micro_batches, step_rows, steps_per_epoch
from trimtab.training.loop import LoopSettings, TrainingJob, evaluate_objective, train_model
from trimtab.training.losses import Loss
from trimtab.training.monitor import DevEvaluation, paired_error
from trimtab.training.optim import learning_rate_at
from trimtab.training.sft import SupervisedObjective

SETTINGS = LoopSettings(learning_rate=1e-2, epochs=2, evaluations=3)


def fresh():
    base = base_of("llama")
    add_lora(base, 2, 4.0, seed=0)
    return base


def objective():
    return SupervisedObjective(random_rows(20), batch=4, seed=0)


def dev():
    return SupervisedObjective(random_rows(5, seed=9), batch=5, seed=0)


def job(base, folder, *, objective=None, settings=SETTINGS, dev=None, **more):
    if dev is not None:
        more["evaluate"] = lambda: evaluate_objective(base, dev)
    objective = SupervisedObjective(random_rows(20), batch=4, seed=0) if objective is None else objective
    return TrainingJob(base=base, objective=objective, settings=settings, folder=folder, **more)


def weights(base):
    return {name: value.detach().clone() for name, value in trainable_parameters(base.model).items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


class Bad:
    """Training data whose loss is `value` from step `after` on."""

    steps_per_epoch = 5

    def __init__(self, value=math.nan, after=3, through=lambda loss, value: loss * value):
        self.inner, self.value, self.after, self.through, self.step = objective(), value, after, through, 0

    def parameters(self, base):
        return self.inner.parameters(base)

    def batches(self, step):
        self.step = step
        return self.inner.batches(step)

    def loss(self, base, batch):
        loss = self.inner.loss(base, batch)
        return Loss(value=self.through(loss.value, self.value)) if self.step >= self.after else loss


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
def test_micro_batches_hold_each_unit_once_and_whole_within_the_limit(count, tokens, seed):
    rows = random_rows(count, seed)
    units = [tuple(rows[place : place + 2]) for place in range(0, count, 2)]  # pairs, and the odd one alone
    parts = micro_batches(units, tokens)
    assert sorted(map(id, (unit for part in parts for unit in part))) == sorted(map(id, units))
    lengths = [sum(len(row.encoded.ids) for row in unit) for unit in units]
    limit = max(tokens, *lengths, 0)  # a unit that exceeds the limit is memory that others may take, too
    assert all(sum(len(row.encoded.ids) for unit in part for row in unit) <= limit for part in parts)


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


@given(st.integers(1, 500))
def test_the_constant_rate_rises_stays_and_falls_at_the_end(steps):
    rates = [learning_rate_at(step, steps, 2.0, "constant") for step in range(steps)]
    fall = round(0.2 * steps)
    rise = rates.index(2.0)
    assert rise <= min(10, max(1, steps // 4))
    assert rates[: rise + 1] == sorted(rates[: rise + 1])
    assert set(rates[rise : steps - fall]) == {2.0}
    assert rates[steps - fall :] == pytest.approx([2.0 * (left + 1) / (fall + 1) for left in reversed(range(fall))])
    assert min(rates) > 0


@given(st.integers(1, 300), st.integers(0, 500))
def test_a_longer_run_has_the_same_constant_rates_once_both_are_warm(steps, more):
    """So a run may turn out to be longer than was thought."""
    longest = steps + more
    for step in range(10, steps - round(0.2 * steps)):
        assert learning_rate_at(step, steps, 2.0, "constant") == learning_rate_at(step, longest, 2.0, "constant")


def test_the_best_weights_are_on_at_the_end(tmp_path):
    """The loss rises after the first evaluation: the weights of that step come back, whatever the metric says."""
    seen, losses, base = [], iter([(0.2, 0.1), (0.9, 0.8), (0.8, 0.9)]), fresh()

    def evaluate():
        seen.append(weights(base))
        loss, metric = next(losses)
        return DevEvaluation(dev_loss=loss, dev_metric=metric)

    events: list = []
    told = Progress(listeners=[events.append])
    result = train_model(job(base, tmp_path, evaluate=evaluate, progress=told))
    assert result.best == result.readings[0]
    assert [event["best"] for event in events if event["stage"] == "dev"] == [True, False, False]
    assert same(weights(base), seen[0])
    assert not same(seen[0], seen[-1])


def test_it_stops_early_when_dev_loss_rises(tmp_path):
    settings = LoopSettings(learning_rate=5e-2, epochs=40, evaluations=40, patience=2)
    train_rows = SupervisedObjective(random_rows(4), batch=4, seed=0)
    result = train_model(job(fresh(), tmp_path, objective=train_rows, settings=settings, dev=dev()))
    assert result.steps < 40
    assert result.finished
    lowest = min(result.readings, key=lambda reading: reading.dev_loss)
    assert result.best.dev_loss - lowest.dev_loss <= paired_error(result.best, lowest)
    assert result.best in result.readings[:-2]


@pytest.mark.parametrize(
    "through", [lambda loss, value: loss * value, lambda loss, value: (loss - loss.detach()) * value]
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_or_gradient_that_is_no_number_stops_with_the_checkpoint_intact(tmp_path, monkeypatch, through, value):
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    base = fresh()
    with pytest.raises(
        DivergedError, match="step 4; the checkpoint of step 3 is intact: start again with a lower learning_rate"
    ):
        train_model(job(base, tmp_path, objective=Bad(value, 3, through)))
    kept = checkpoint.load(tmp_path / "checkpoints")
    assert kept.state["step"] == 3
    assert all(torch.isfinite(value).all() for value in kept.weights.values())
    assert same(weights(base), dict(kept.weights))


def test_a_dev_loss_that_is_no_number_stops(tmp_path):
    with pytest.raises(DivergedError, match="dev loss is nan at step 3"):
        train_model(job(fresh(), tmp_path, dev=Bad(math.nan, 0)))


class Counted:
    """Supervised, telling two figures: the rows of the step, added up, and its mean weight, divided by the step's
    count."""

    steps_per_epoch = 5

    def __init__(self, figure=1.0):
        self.inner, self.figure = objective(), figure

    def parameters(self, base):
        return self.inner.parameters(base)

    def batches(self, step):
        return self.inner.batches(step)

    def loss(self, base, batch):
        figures = {"rows": float(len(batch.layout.lengths)), "share": self.figure * batch.weights_M.sum()}
        return Loss(value=self.inner.loss(base, batch).value, figures=figures)


def test_figures_are_added_up_over_the_micro_batches_of_a_step(tmp_path, monkeypatch):
    monkeypatch.setattr(batches_of, "MICRO_TOKENS", 30)
    events = []
    told = Progress(listeners=[events.append])
    result = train_model(job(fresh(), tmp_path, objective=Counted(), dev=Counted(), progress=told))
    steps = [event for event in events if event["stage"] == "train" and "loss" in event]
    assert [event["rows"] for event in steps] == [4.0] * 10
    assert [event["share"] for event in steps] == pytest.approx([1.0] * 10)
    seen = [event for event in events if event["stage"] == "dev"]
    assert [event["rows"] for event in seen] == pytest.approx([4.0] * 3)
    assert result.readings[0].figures == {
        name: seen[0][name] for name in ("rows", "share", "train_rows", "train_share")
    }
    json.dumps(events, allow_nan=False)


def test_a_figure_that_is_no_number_stops(tmp_path):
    with pytest.raises(DivergedError, match="share is nan at step 1"):
        train_model(job(fresh(), tmp_path, objective=Counted(math.nan)))


def test_a_metric_alone_chooses_the_best_and_stops_early(tmp_path):
    scores = iter([0.3, 0.9, 0.8, 0.7, 0.6])
    settings = LoopSettings(learning_rate=1e-2, epochs=2, evaluations=5)
    events: list = []
    told = Progress(listeners=[events.append])

    def evaluate():
        return DevEvaluation(dev_metric=next(scores), figures={"asked": 60.0})

    result = train_model(job(fresh(), tmp_path, settings=settings, evaluate=evaluate, progress=told))
    assert result.steps == 8  # two evaluations after the best
    assert result.best.dev_metric == 0.9
    assert result.best.dev_loss is None
    seen = [event for event in events if event["stage"] == "dev"]
    assert [(event["dev_metric"], event["dev_loss"], event["asked"]) for event in seen] == [
        (score, None, 60.0) for score in (0.3, 0.9, 0.8, 0.7)
    ]
    assert seen[0].keys() >= {"step", "of", "train_loss", "dev_loss", "dev_metric", "best"}
    with pytest.raises(ValueError, match="a dev loss, a dev metric or both"):
        DevEvaluation()


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@pytest.mark.parametrize("rungs", [[4], [3, 7], [1, 2, 5, 5, 2], [4, 99]])
def test_a_run_stopped_at_rungs_is_one_that_never_was(tmp_path, schedule, rungs):
    settings = LoopSettings(learning_rate=1e-2, epochs=2, evaluations=3, patience=99, schedule=schedule)
    whole, cut = fresh(), fresh()
    expected = train_model(job(whole, tmp_path / "whole", settings=settings, dev=dev()))
    reached = 0
    for rung in rungs:
        cut = fresh() if rung == 7 else cut  # in the same process and as if in another
        part = train_model(job(cut, tmp_path / "cut", settings=settings, dev=dev()), until=rung)
        reached = max(reached, min(rung, 10))
        assert part.steps == reached
        assert part.finished == (reached == 10)
        if not part.finished:
            assert same(weights(cut), dict(checkpoint.load(tmp_path / "cut" / "checkpoints").weights))
    result = train_model(job(cut, tmp_path / "cut", settings=settings, dev=dev()))
    assert result.finished
    assert same(weights(whole), weights(cut))
    assert (result.readings, result.tokens, result.steps) == (expected.readings, expected.tokens, 10)
    left, right = (checkpoint.load(tmp_path / name / "checkpoints") for name in ("whole", "cut"))
    assert same(left.weights, right.weights)
    assert same(left.moments, right.moments)


def test_the_weights_of_a_rung_are_its_last_not_the_best(tmp_path):
    scores = iter([0.9, 0.2, 0.1])
    base = fresh()
    asked = job(base, tmp_path, evaluate=lambda: DevEvaluation(dev_metric=next(scores)))
    part = train_model(asked, until=7)
    assert part.best.step == 3
    assert same(weights(base), dict(checkpoint.load(asked.checkpoints).weights))
    assert train_model(asked).best.step == 3
    assert same(weights(base), dict(checkpoint.load_step(asked.checkpoints, 3).weights))


def test_killed_before_the_first_checkpoint_counts_the_best_weights_still_come_out(tmp_path, monkeypatch):
    """Nothing but a pointer is lacking: the state is found all the same, and its reading is the best of the run."""

    def run(base, folder, *losses):
        seen = iter(losses)
        return train_model(job(base, tmp_path / folder, evaluate=lambda: DevEvaluation(dev_loss=next(seen))))

    def die(*_):
        raise KeyboardInterrupt

    whole, again = fresh(), fresh()
    run(whole, "whole", 1.0, 2.0, 3.0)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomic", die)
        with pytest.raises(KeyboardInterrupt):
            run(fresh(), "cut", 1.0)
    assert run(again, "cut", 2.0, 3.0).best.step == 3
    assert same(weights(again), weights(whole))


@pytest.mark.usefixtures("default_hangup")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_finishes_the_step_saves_and_the_rest_is_as_if_never_stopped(tmp_path, number):
    whole = fresh()
    expected = train_model(job(whole, tmp_path / "whole", dev=dev()))

    def interrupt(event):
        if event["stage"] == "train" and event["step"] == 4:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(StoppedError, match="stopped at step 4 of 10, all saved; go on with --resume") as stopped:
        train_model(job(fresh(), tmp_path / "cut", dev=dev(), progress=Progress(listeners=[interrupt])))
    assert stopped.value.exit_code == 3
    assert signal.getsignal(number) is before
    steps = []
    resumed = fresh()
    told = Progress(listeners=[lambda event: steps.append(event["step"])])
    result = train_model(job(resumed, tmp_path / "cut", dev=dev(), progress=told))
    assert steps[0] == 5
    assert same(weights(whole), weights(resumed))
    assert result.readings == expected.readings
    assert result.tokens == expected.tokens


@pytest.mark.usefixtures("default_hangup")
def test_an_ignored_signal_stops_no_training(tmp_path):
    """As SIGHUP under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def interrupt(event):
        if event["stage"] == "train":
            os.kill(os.getpid(), signal.SIGHUP)

    steps = []
    listeners = [interrupt, lambda event: steps.append(event["step"])]
    train_model(job(fresh(), tmp_path / "whole", dev=dev(), progress=Progress(listeners=listeners)))
    assert max(steps) == 10
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_flipped_bit_in_a_checkpoint_is_said_and_changes_no_weights(tmp_path):
    whole, resumed = fresh(), fresh()
    expected = train_model(job(whole, tmp_path / "whole", dev=dev()))
    train_model(job(fresh(), tmp_path / "cut", dev=dev()), until=6)
    newest = (tmp_path / "cut/checkpoints/latest").read_text()
    file = tmp_path / "cut/checkpoints" / newest / "weights.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-2] ^= 0x40
    file.write_bytes(bytes(raw))
    heard = []
    result = train_model(job(resumed, tmp_path / "cut", dev=dev(), progress=Progress(listeners=[heard.append])))
    assert (
        f"{newest}: the checkpoint is damaged (weights.safetensors has changed since it was written)"
        in heard[0]["note"]
    )
    assert heard[0]["stays"]
    assert same(weights(whole), weights(resumed))
    assert result.readings == expected.readings


def test_a_signal_in_the_last_step_is_not_swallowed(tmp_path):
    def interrupt(event):
        if event["stage"] == "train" and event["step"] == 10:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(StoppedError):
        train_model(job(fresh(), tmp_path, progress=Progress(listeners=[interrupt])))
    assert train_model(job(fresh(), tmp_path)).steps == 10


def test_a_run_is_not_resumed_on_other_data_or_in_another_precision(tmp_path):
    train_model(job(fresh(), tmp_path, fingerprint="a"))
    with pytest.raises(InputError, match="other data or settings"):
        train_model(job(fresh(), tmp_path, fingerprint="b"))
    other = base_of("llama", torch.bfloat16)
    add_lora(other, 2, 4.0, seed=0)
    with pytest.raises(InputError, match="another precision"):
        train_model(job(other, tmp_path, fingerprint="a"))
    last_layers = base_of("llama")
    unfreeze(last_layers, "freeze", 1)
    with pytest.raises(InputError, match="other trainable weights"):
        train_model(job(last_layers, tmp_path, fingerprint="a"))


@pytest.mark.parametrize("version", [2, 4])
def test_a_checkpoint_of_another_version_is_refused_by_name(tmp_path, version):
    """The one before marked its best weights by another rule: going on would name one reading and keep another's
    weights."""
    train_model(job(fresh(), tmp_path, dev=dev()), until=4)
    for file in tmp_path.glob("checkpoints/*/state.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "version": version}))
    with pytest.raises(InputError, match=f"version {version} of Trimtab's checkpoints; this Trimtab reads 3"):
        train_model(job(fresh(), tmp_path, dev=dev()))


def test_whether_to_stop_is_told_alike_after_a_resume(tmp_path):
    """The rows that its standard error needs stand in the checkpoint."""

    def looks(seen):
        losses = iter([(1.0, 2.0, 3.0), (0.9, 2.0, 3.9), (1.5, 2.5, 3.2), (1.5, 2.4, 3.5), (9.0, 9.0, 9.0)][seen:])

        def evaluate():
            rows = next(losses)
            return DevEvaluation(dev_loss=sum(rows) / 3, rows=rows)

        return evaluate

    settings = LoopSettings(learning_rate=1e-2, epochs=2, evaluations=5)
    whole, cut = fresh(), fresh()
    expected = train_model(job(whole, tmp_path / "whole", settings=settings, evaluate=looks(0)))
    assert expected.steps == 8  # the second rises by less than one standard error, the third and fourth by more
    for number, rung in enumerate((2, 4, 6)):
        train_model(job(cut, tmp_path / "cut", settings=settings, evaluate=looks(number)), until=rung)
    result = train_model(job(cut, tmp_path / "cut", settings=settings, evaluate=looks(3)))
    assert (result.steps, result.readings, result.best) == (8, expected.readings, expected.readings[1])
    assert same(weights(whole), weights(cut))


def test_a_folder_has_one_writer(tmp_path):
    with locked(tmp_path), pytest.raises(BusyError):
        train_model(job(fresh(), tmp_path))


def test_events_tell_the_curves(tmp_path):
    events = []
    train_model(job(fresh(), tmp_path, dev=dev(), progress=Progress(listeners=[events.append])))
    steps = [event for event in events if event["stage"] == "train" and "loss" in event]
    readings = [event for event in events if event["stage"] == "dev"]
    assert [event["step"] for event in steps] == list(range(1, 11))
    assert [event["step"] for event in readings] == [3, 7, 10]
    assert {"loss", "gradient_norm", "learning_rate", "tokens_per_second"} <= steps[-1].keys()
    assert readings[-1]["train_loss"] == pytest.approx(sum(event["loss"] for event in steps[7:]) / 3)
    json.dumps(events, allow_nan=False)
    assert Path(tmp_path / "checkpoints" / "latest").read_text() == "step-0000010"
