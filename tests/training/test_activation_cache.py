"""Layers below the first trained one are read once, and nothing but rounding changes: by family, by objective,
through a kill."""

from __future__ import annotations

import pytest
import torch
from partly_frozen import BATCH, OBJECTIVES, assert_alike, deep, some_rows
from tiny_models import FAMILIES, base_of, random_rows

from trimtab.model.adapters.apply import attach, detach, trainable_parameters, unfreeze
from trimtab.model.fast.partial_forward import first_trainable_layer, layer_input
from trimtab.training import activation_cache as frozen_of
from trimtab.training import batch as batches_of
from trimtab.training import estimates as predict
from trimtab.training.activation_cache import ActivationCache, cache_bytes
from trimtab.training.batch import pack_rows
from trimtab.training.estimates import measure_rate, memory_mb
from trimtab.training.loop import LoopSettings, TrainingJob, evaluate_objective, train_model
from trimtab.training.optim import Optimizer, learning_rate_at
from trimtab.training.parallel import map_microbatches
from trimtab.training.sft import SupervisedObjective

STEPS = 20


@pytest.fixture(autouse=True)
def short_passes(monkeypatch):
    monkeypatch.setattr(batches_of, "MICRO_TOKENS", 60)  # several to a step, of unequal size


def run(base, objective, steps=STEPS):
    """Losses and gradient norms, step by step."""
    optimizer = Optimizer(objective.parameters(base))
    figures = []
    for step in range(steps):
        loss = 0.0
        for place, batch in enumerate(objective.batches(step)):
            part = objective.loss(base, batch).value
            optimizer.backward(part, place)
            loss += float(part.detach())
        figures.append((loss, optimizer.clip_gradients()))
        optimizer.step(learning_rate_at(step, steps, 3e-3))
    return figures


def counted(base):
    """Tokens that each layer has really read, by its number."""
    read = [0] * len(base.model.base_model.layers)

    def hook(number):
        def count(_, given):
            read[number] += given[0].shape[1]

        return count

    for number, layer in enumerate(base.model.base_model.layers):
        layer.input_layernorm.register_forward_pre_hook(hook(number))
    return read


@pytest.mark.parametrize("family", FAMILIES)
def test_training_is_that_of_passes_from_the_beginning(family):
    rows, base, twin = some_rows(), deep(family), deep(family)
    read = counted(base)
    ours = run(base, SupervisedObjective(rows, batch=BATCH, seed=0))
    theirs = run(twin, SupervisedObjective(rows, batch=BATCH, seed=0, cache_activations=False))
    assert_alike(ours, theirs)
    assert ours[-1][0] < ours[0][0] - 0.05
    assert 0 < read[0] == read[1] < read[2] / 5 == read[3] / 5  # 20 steps are more than six epochs


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_as_without(name):
    rows, base, twin = some_rows(), deep(), deep()
    ours, theirs = (
        run(one, OBJECTIVES[name](one, rows, cache_activations=cache_activations))
        for one, cache_activations in ((base, True), (twin, False))
    )
    assert_alike(ours, theirs)
    assert ours[-1] != pytest.approx(ours[0])


def test_gradients_are_those_of_passes_from_the_beginning():
    rows, base = some_rows(), deep()

    def gradients(objective):
        for _ in range(2):  # the second time from what is kept
            base.model.zero_grad(set_to_none=True)
            for step in (2, 1, 0):
                for batch in objective.batches(step):
                    objective.loss(base, batch).value.backward()
        return {name: one.grad.clone() for name, one in trainable_parameters(base.model).items()}

    ours = gradients(SupervisedObjective(rows, batch=BATCH, seed=0))
    theirs = gradients(SupervisedObjective(rows, batch=BATCH, seed=0, cache_activations=False))
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(grad, theirs[name], atol=1e-3) for name, grad in ours.items())


def test_every_look_at_dev_sees_the_same():
    rows, base = some_rows(40, seed=3), deep()
    dev, plain = (
        SupervisedObjective(rows, batch=16, seed=0, cache_activations=cache_activations)
        for cache_activations in (True, False)
    )
    read = counted(base)
    first, again = evaluate_objective(base, dev), evaluate_objective(base, dev)
    once = read[0]
    expected = evaluate_objective(base, plain)
    assert once == read[0] - once  # two looks read as much as one without
    assert first == again
    assert again.dev_loss == pytest.approx(expected.dev_loss, abs=1e-5)
    assert again.rows == pytest.approx(expected.rows, abs=1e-5)


def test_lanes_wait_for_no_pass_of_another_one(threads, monkeypatch):
    """What is read together is what a lane of the first epoch trains on: by other passes, one would wait while
    another reads for both."""
    threads(2)
    real, read = frozen_of.layer_input, []
    monkeypatch.setattr(frozen_of, "layer_input", lambda *given: read.append(given[2].tolist()) or real(*given))
    base, objective = deep(), SupervisedObjective(some_rows()[:-1], batch=BATCH, seed=0)
    for step in range(objective.steps_per_epoch):
        batches = objective.batches(step)
        read.clear()
        assert len(list(map_microbatches(lambda batch: objective.loss(base, batch), batches))) == len(batches)
        assert sorted(read) == sorted(batch.ids_N.tolist() for batch in batches)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stopped_and_gone_on_with_is_never_stopped(dtype, tmp_path, monkeypatch):
    """In the middle of an epoch and at its end: what is kept is read anew, to the same bits."""
    monkeypatch.setattr(batches_of, "MICRO_TOKENS", 200)  # rows that begin alike are often in one pass

    def job(base, folder):
        dev = SupervisedObjective(some_rows(9, seed=9), batch=4, seed=0)
        return TrainingJob(
            base=base,
            objective=SupervisedObjective(some_rows(), batch=4, seed=0),
            settings=LoopSettings(learning_rate=1e-2, epochs=3, evaluations=3, patience=9),
            folder=folder,
            evaluate=lambda: evaluate_objective(base, dev),
        )

    whole, *cut = (deep(dtype=dtype) for _ in range(4))
    expected = train_model(job(whole, tmp_path / "whole"))
    for base, until in zip(cut, (6, 8, None), strict=True):
        done = train_model(job(base, tmp_path / "cut"), until=until)
    assert done.finished
    assert done.readings == expected.readings
    ours, theirs = trainable_parameters(cut[-1].model), trainable_parameters(whole.model)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_is_kept_does_not_hang_on_who_asks_first():
    """A row that stands in two passes, and has other last bits in either, is always taken from the same one."""
    rows, base = some_rows(), deep()
    passes = [rows[:14], rows[13:]]  # the last is the first once more, without others that begin like it

    def states(passes, order):
        frozen = ActivationCache(lambda: passes)
        for row in order:
            frozen.hidden_at_scored(base, pack_rows([row]))
        with torch.no_grad():
            return [frozen.hidden_at_scored(base, pack_rows([row])) for row in rows]

    found = [states(passes, order) for order in (rows, rows[::-1], rows[13:] + rows[:13])]
    assert not torch.equal(found[0][0], states([passes[1], passes[0]], rows)[0])
    for other in found[1:]:
        assert all(torch.equal(one, same) for one, same in zip(found[0], other, strict=True))


def test_beyond_the_bound_nothing_is_kept(monkeypatch):
    rows = some_rows()
    tokens = sum(map(len, {row.encoded.ids for row in rows}))
    monkeypatch.setattr(frozen_of, "MAX_BYTES", tokens * 32 * 4 - 1)
    base, twin = deep(), deep()
    read = counted(base)
    ours = run(base, SupervisedObjective(rows, batch=BATCH, seed=0))
    assert read[0] == read[3] > 0
    assert cache_bytes(base, tokens) == 0
    monkeypatch.setattr(frozen_of, "MAX_BYTES", tokens * 32 * 4)
    assert cache_bytes(base, tokens) == tokens * 32 * 4
    read = counted(twin)
    assert_alike(ours, run(twin, SupervisedObjective(rows, batch=BATCH, seed=0)))
    assert 0 < read[0] < read[3] / 5


def test_what_is_kept_takes_no_more_than_was_counted():
    rows, base = some_rows(), deep(dtype=torch.bfloat16)
    objective = SupervisedObjective(rows, batch=BATCH, seed=0)
    evaluate_objective(base, objective)
    stores = {
        one.untyped_storage().data_ptr(): one.untyped_storage()
        for kept in objective.activation_cache._cached.values()
        for one in kept
    }
    held, counted_for = sum(map(len, stores.values())), cache_bytes(base, sum(len(row.encoded.ids) for row in rows))
    assert 0 < held <= counted_for
    assert memory_mb(base, cached_bytes=10**9) - memory_mb(base) == pytest.approx(1000, abs=100)


def test_rows_that_are_not_known_are_read_from_the_beginning():
    base, rows = deep(), some_rows()
    objective = SupervisedObjective(rows[:5], batch=5, seed=0)
    other = pack_rows(rows[5:9])
    read = counted(base)
    ours = float(objective.loss(base, other).value.detach())
    assert read[0] == read[3] == other.ids_N.shape[0]
    assert ours == float(
        SupervisedObjective(rows, batch=5, seed=0, cache_activations=False).loss(base, other).value.detach()
    )


def test_another_model_or_layer_begins_anew():
    rows, base, other = some_rows(), deep(), deep("llama", layers=1)
    objective, plain = (
        SupervisedObjective(rows, batch=15, seed=0, cache_activations=cache_activations)
        for cache_activations in (True, False)
    )
    for one in (base, other, base):
        assert evaluate_objective(one, objective).dev_loss == pytest.approx(
            evaluate_objective(one, plain).dev_loss, abs=1e-5
        )
    before = evaluate_objective(base, plain).dev_loss
    run(base, objective)
    detach(base)
    attach(base, "lora", 0, rank=2)
    assert evaluate_objective(base, objective).dev_loss == pytest.approx(before, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_may_begin_where_the_first_layer_moves(family):
    assert [first_trainable_layer(deep(family, layers).model) for layers in (1, 2, 3, 4)] == [3, 2, 1, 0]
    base = base_of(family)
    assert first_trainable_layer(base.model) == 0  # nothing moves
    unfreeze(base, "freeze", layers=1)
    assert first_trainable_layer(base.model) == 1
    base.model.base_model.layers.requires_grad_(False)
    assert first_trainable_layer(base.model) == 0  # the last norm alone
    unfreeze(base, "freeze", layers=1)
    base.model.get_input_embeddings().weight.requires_grad_(True)
    assert first_trainable_layer(base.model) == 0


@pytest.mark.parametrize(
    "method", ["lora", "dora", "ia3", "bitfit", "vera", "oft", "loha", "full", "soft-prompt", "prefix"]
)
def test_methods_that_change_the_first_layer_keep_nothing(method):
    base, rows = base_of("llama"), some_rows()
    attach(base, method, 0, rank=2, virtual_tokens=3)
    assert first_trainable_layer(base.model) == 0
    read = counted(base)
    run(base, SupervisedObjective(rows, batch=BATCH, seed=0), steps=6)
    assert read[0] == read[1]


def test_layers_that_hand_on_something_else_are_read_every_time():
    """An architecture whose layers put out more than a hidden state: found out when it is first read, and trained as
    ever."""
    rows, base = some_rows(), deep()
    forward = type(base.model.base_model.layers[1]).forward
    odd = base.model.base_model.layers[1]
    odd.forward = lambda *given, **named: (forward(odd, *given, **named),)
    after = base.model.base_model.layers[2]
    after.forward = lambda given, *more, **named: forward(
        after, given[0] if isinstance(given, tuple) else given, *more, **named
    )
    batch = pack_rows(rows[:3])
    assert layer_input(base, 2, batch.ids_N, batch.positions_N, batch.layout) is None
    ours = run(base, SupervisedObjective(rows, batch=BATCH, seed=0))
    assert_alike(ours, run(deep(), SupervisedObjective(rows, batch=BATCH, seed=0, cache_activations=False)))


def test_what_frozen_layers_take_is_spent_before_steps_are_timed(monkeypatch):
    base, rows = deep(layers=1), random_rows(24)
    now, lowest = [0.0], base.model.base_model.layers[0]
    usual = type(lowest).forward

    def clock():
        now[0] += 0.01
        return now[0]

    def slow(layer, *given, **options):
        now[0] += layer is lowest
        return usual(layer, *given, **options)

    monkeypatch.setattr(predict.time, "perf_counter", clock)
    monkeypatch.setattr(type(lowest), "forward", slow)
    rate = measure_rate(base, rows, 4, seconds=0.2)
    # A step takes hundredths of a second, and a pass over the frozen layers a whole one.
    assert 1 / rate.tokens_per_second < rate.frozen_seconds / 10


def test_the_rate_tells_what_frozen_layers_take_apart():
    base, rows = deep(layers=1), random_rows(60)
    rate = measure_rate(base, rows, 4, seconds=0.2)
    assert rate.epoch_seconds(100, cached=False) == pytest.approx(
        rate.epoch_seconds(100, cached=True) + rate.caching_seconds(100)
    )
    lora = base_of("llama")
    attach(lora, "lora", 0, rank=2)
    assert measure_rate(lora, rows, 4, seconds=0.05).frozen_seconds == 0
