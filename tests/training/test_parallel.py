"""Passes side by side: in order, with all threads where one is left over, and nothing but rounding changes; a
resumed run is the same to the bit."""

from __future__ import annotations

import random
import threading
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from partly_frozen import OBJECTIVES, assert_alike, deep, some_rows
from tiny_models import random_rows

from trimtab.base.records import Encoded
from trimtab.model.adapters.apply import trainable_parameters
from trimtab.model.fast.partial_forward import first_trainable_layer
from trimtab.training import batch as batches_of
from trimtab.training.batch import TrainingRow, micro_batches
from trimtab.training.estimates import measure_rate
from trimtab.training.loop import LoopSettings, TrainingJob, evaluate_objective, train_model
from trimtab.training.optim import Optimizer
from trimtab.training.parallel import map_microbatches, parallel_lanes
from trimtab.training.sft import SupervisedObjective

pytestmark = pytest.mark.no_kernels


def test_one_thread_is_one_lane_in_the_calling_thread(threads):
    threads(1)
    assert parallel_lanes() == 1
    assert set(map_microbatches(lambda _: threading.current_thread(), range(3))) == {threading.current_thread()}


def test_results_come_in_order_and_the_one_left_over_has_all_threads(threads):
    threads(2)
    main = threading.current_thread()

    def work(number):
        time.sleep(0.05 / (number + 1))  # later ones are done first
        return number, torch.get_num_threads(), threading.current_thread() is main

    expected = [(0, 1, False), (1, 1, False), (2, 2, True)]
    assert list(map_microbatches(work, range(3))) == expected
    assert list(map_microbatches(work, range(2))) == expected[:2]
    assert list(map_microbatches(work, range(1))) == [(0, 2, True)]
    assert list(map_microbatches(work, [])) == []
    assert torch.get_num_threads() == 2


def test_as_many_run_at_once_as_there_are_lanes(threads):
    threads(2)
    meeting = threading.Barrier(2, timeout=30)  # breaks where one waits for the other in vain
    assert len(list(map_microbatches(lambda _: meeting.wait(), range(4)))) == 4


def test_a_lane_knows_how_many_there_are_and_opens_no_others(threads):
    """What a step's rows are divided into must not hang on which thread asks: what is kept of frozen layers is read
    in the same parts."""
    threads(2)

    def work(_):
        here = threading.current_thread()
        return parallel_lanes(), list(map_microbatches(lambda _: threading.current_thread() is here, range(2)))

    assert list(map_microbatches(work, range(2))) == [(2, [True, True])] * 2


@pytest.mark.parametrize("graded", [True, False])
def test_gradients_are_made_inside_where_they_are_outside(threads, graded):
    threads(2)
    with torch.set_grad_enabled(graded):
        assert list(map_microbatches(lambda _: torch.is_grad_enabled(), range(3))) == [graded] * 3


def test_one_that_fails_is_raised_when_those_under_way_have_ended(threads):
    threads(2)
    ended = []

    def work(number):
        if not number:
            raise ValueError("the first")
        time.sleep(0.1)
        ended.append(number)

    with pytest.raises(ValueError, match="the first"):
        list(map_microbatches(work, range(6)))
    so_far = list(ended)
    time.sleep(0.25)
    assert ended == so_far
    assert torch.get_num_threads() == 2


@given(st.lists(st.integers(1, 200), min_size=1, max_size=24), st.sampled_from((2, 3, 4)), st.integers(0, 9))
def test_even_parts_hold_every_row_once_and_none_is_longer_than_it_may_be(lengths, beside, seed):
    draw = random.Random(seed)
    ids = [tuple(draw.randrange(9) for _ in range(length)) for length in lengths]
    units = [(TrainingRow(encoded=Encoded(ids=one, trained=(True,) * len(one))),) for one in ids]
    before = batches_of.parallel_lanes
    batches_of.parallel_lanes = lambda: beside  # type: ignore[assignment]
    try:
        parts = micro_batches(units, 256)
    finally:
        batches_of.parallel_lanes = before
    assert sorted(id(unit) for part in parts for unit in part) == sorted(map(id, units))
    assert all(parts)
    assert all(sum(len(unit[0].encoded.ids) for unit in part) <= 256 for part in parts)


def test_what_would_be_left_over_is_shared_among_the_others(threads):
    threads(2)
    units = [
        (TrainingRow(encoded=Encoded(ids=tuple(range(length, 2 * length)), trained=(True,) * length)),)
        for length in (140, 200, 230, 360)  # three passes of 512 where they are filled one after another
    ]
    assert len(micro_batches(units, 512)) == 2


def test_the_longest_part_begins_first(threads):
    threads(2)
    units = [
        (TrainingRow(encoded=Encoded(ids=tuple(range(length, 2 * length)), trained=(True,) * length)),)
        for length in (140, 200, 230, 270)  # the longest two begin the parts, the shortest ends the one that 270 began
    ]
    tokens = [sum(len(row.encoded.ids) for unit in part for row in unit) for part in micro_batches(units, 512)]
    assert tokens == [430, 410]


def test_rows_change_places_until_parts_are_as_long(threads):
    threads(2)
    units = [
        (
            TrainingRow(
                encoded=Encoded(ids=tuple(range(1000 * length, 1000 * length + length)), trained=(True,) * length)
            ),
        )
        for length in (80, 70, 60, 50, 40)  # by length alone 170 and 130
    ]
    parts = micro_batches(units, 512)
    assert [sum(len(unit[0].encoded.ids) for unit in part) for part in parts] == [150, 150]


def test_rows_behind_a_long_beginning_are_read_together(threads):
    threads(2)
    beginning = tuple(range(100))
    units = [(TrainingRow(encoded=Encoded(ids=(*beginning, 200 + n, 7), trained=(True,) * 102)),) for n in range(8)]
    assert len(micro_batches(units, 512)) == 1
    assert len(micro_batches(units, 512, shared=False)) == 2


def figures(base, objective, steps=6):
    """Losses and gradient norms of the loop's steps."""
    optimizer, found = Optimizer(objective.parameters(base)), []
    for step in range(steps):

        def passed(numbered):
            place, batch = numbered
            part = objective.loss(base, batch)
            optimizer.backward(part.value, place)
            return float(part.value.detach())

        loss = sum(map_microbatches(passed, list(enumerate(objective.batches(step)))))
        found.append((loss, optimizer.clip_gradients()))
        optimizer.step(3e-3)
    return found


@pytest.mark.parametrize("cache_activations", [True, False])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_in_lanes_is_training_in_one(threads, name, cache_activations):
    rows, found = some_rows(), []
    for count in (1, 2, 4):
        threads(count)
        base = deep()
        assert first_trainable_layer(base.model) == 2  # so that layers are left out, too
        objective = OBJECTIVES[name](base, rows, cache_activations=cache_activations)
        if count == 2:  # for four lanes these rows are too unequal
            assert len(objective.batches(0)) > 1
        found.append(figures(base, objective))
    assert_alike(found[1], found[0])
    assert_alike(found[2], found[0])


def test_dev_is_read_alike(threads):
    rows, base, losses = random_rows(30), deep(), []
    for count in (1, 2):
        threads(count)
        seen = evaluate_objective(base, SupervisedObjective(rows, batch=8, seed=0))
        assert len(seen.rows) == 30
        losses.append(seen.dev_loss)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_killed_and_resumed_in_lanes_is_never_killed(threads, tmp_path):
    threads(2)

    def job(folder):
        base = deep()
        objective = SupervisedObjective(some_rows(), batch=4, seed=0)
        settings = LoopSettings(learning_rate=3e-3, epochs=3.0)
        dev = SupervisedObjective(random_rows(6, seed=5), batch=4, seed=0)
        return TrainingJob(
            base=base,
            objective=objective,
            settings=settings,
            folder=folder,
            evaluate=lambda: evaluate_objective(base, dev),
        )

    whole = job(tmp_path / "whole")
    train_model(whole)
    train_model(job(tmp_path / "cut"), until=3)
    cut = job(tmp_path / "cut")
    train_model(cut)
    expected = trainable_parameters(whole.base.model)
    assert all(torch.equal(value, expected[name]) for name, value in trainable_parameters(cut.base.model).items())


def test_the_rate_counts_the_tokens_of_all_passes_under_way(threads):
    rows, held = random_rows(16), []
    for count in (1, 2):
        threads(count)
        held.append(measure_rate(deep(), rows, 8, seconds=0.01).pass_tokens)
    assert held[1] == pytest.approx(held[0], abs=8)  # the same rows, as one pass or as two side by side


def test_many_rows_are_split_in_one_walk(threads, monkeypatch):
    threads(2)
    lengths, asked = batches_of._unit_tokens, []
    monkeypatch.setattr(batches_of, "_unit_tokens", lambda unit: asked.append(unit) or lengths(unit))
    units = [(row,) for row in random_rows(400)]
    assert len(micro_batches(units, 64)) > 50
    assert len(asked) < 12 * len(units)  # all pairs of rows and parts would be more than fifty times as many
