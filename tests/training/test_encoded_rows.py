"""Stored training rows are the rows that went in, whether in memory or in a file, and train to the same bits."""

from __future__ import annotations

import random
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from partly_frozen import BATCH, OBJECTIVES, deep, some_rows
from small_training import small_job
from tiny_models import random_rows, with_lora

from trimtab.base.errors import InputError
from trimtab.base.records import Encoded
from trimtab.model.adapters.apply import trainable_parameters
from trimtab.training import activation_cache, encoded_rows
from trimtab.training.batch import TrainingRow, first_epoch, step_rows
from trimtab.training.encoded_rows import EncodedRows, store_encoded_rows
from trimtab.training.loop import train_model
from trimtab.training.sft import SupervisedObjective, answer_rows, row_losses

pytestmark = pytest.mark.no_kernels

token = st.integers(0, 2**31 - 1)
pairs = st.lists(st.tuples(st.integers(0, 99), token), max_size=3).map(tuple)


@st.composite
def training_row(draw: st.DrawFn) -> TrainingRow:
    ids = tuple(draw(st.lists(token, max_size=6)))
    trained = tuple(draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids))))
    weight = draw(st.floats(0, 1e9))
    return TrainingRow(encoded=Encoded(ids=ids, trained=trained), weight=weight, scored=draw(st.none() | pairs))


@pytest.fixture(params=[0, 100, 2**26], ids=["file", "blocks", "memory"])
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The bytes that stay in memory."""
    monkeypatch.setattr(encoded_rows, "MOST_BYTES_HELD", request.param)
    return int(request.param)


@pytest.mark.parametrize("most", [0, 30, 2**26])
@given(rows=st.lists(training_row(), max_size=8), data=st.data())
def test_stored_rows_are_read_as_they_were(most: int, rows: list[TrainingRow], data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoded_rows, "MOST_BYTES_HELD", most)
        stored = store_encoded_rows(iter(rows))
    assert list(stored) == rows
    assert stored.lengths.tolist() == [len(row.encoded.ids) for row in rows]
    start, stop, step = data.draw(st.slices(len(rows)).map(lambda cut: cut.indices(len(rows))))
    assert stored[start : stop if stop >= 0 else None : step] == rows[start : stop if stop >= 0 else None : step]
    for at in range(-len(rows), len(rows)):
        assert stored[at] == rows[at]
    with pytest.raises(IndexError):
        stored[len(rows)]


def test_a_file_takes_the_rows_out_of_memory_and_vanishes_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoded_rows, "MOST_BYTES_HELD", 1000)
    made: list[int] = []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = random_rows(200)
    stored = store_encoded_rows((made.append(number) or row for number, row in enumerate(rows)), tmp_path / "new")
    assert made == list(range(200))
    assert list(stored) == rows
    assert not isinstance(stored._records, bytearray)
    assert list((tmp_path / "new").iterdir()) == []  # it has no name


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded_rows, "MOST_BYTES_HELD", 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: many training rows are kept in a file here, which cannot be written"):
        store_encoded_rows(random_rows(3), tmp_path / "file")


def stored(rows: list[TrainingRow]) -> EncodedRows:
    return store_encoded_rows(rows)


def with_rows(job, rows):
    return replace(job, objective=SupervisedObjective(rows, batch=4, seed=0))


def test_a_training_on_stored_rows_is_that_on_rows_in_a_list_also_when_resumed(tmp_path: Path, held: int) -> None:
    rows, events, theirs = random_rows(20, weights=True), [], []
    base, other, cut, again = (with_lora() for _ in range(4))
    train_model(with_rows(small_job(base, tmp_path / "list", 1e-2, events), rows))
    train_model(with_rows(small_job(other, tmp_path / "stored", 1e-2, theirs), stored(rows)))
    train_model(with_rows(small_job(cut, tmp_path / "cut", 1e-2), stored(rows)), until=4)
    train_model(with_rows(small_job(again, tmp_path / "cut", 1e-2), stored(rows)))

    def losses(found):
        return [one["loss"] for one in found if "loss" in one]

    assert len(losses(events)) == 10
    assert losses(events) == losses(theirs)
    ours = trainable_parameters(base.model)
    for resumed in (other, again):
        moved = trainable_parameters(resumed.model)
        assert all(torch.equal(ours[name], moved[name]) for name in ours)


@pytest.mark.parametrize("name", ["sft", "head"])
def test_cached_activations_of_stored_rows_are_those_of_rows_in_a_list(name: str, held: int) -> None:
    rows = some_rows()
    base, other = deep(), deep()
    ours, theirs = OBJECTIVES[name](base, rows), OBJECTIVES[name](other, stored(rows))
    for step in range(ours.steps_per_epoch):
        for one, two in zip(ours.batches(step), theirs.batches(step), strict=True):
            assert float(ours.loss(base, one).value.detach()) == float(theirs.loss(other, two).value.detach())
    assert theirs.activation_cache._cached.keys() == ours.activation_cache._cached.keys() != set()


def test_losses_of_single_rows_are_those_of_rows_in_a_list(held: int) -> None:
    base, rows = with_lora(), some_rows()
    assert row_losses(base, stored(rows)) == row_losses(base, rows)


def test_rows_beyond_the_cache_are_read_no_further_than_it_takes_to_know(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, read = random_rows(400), 0

    def passes():
        nonlocal read
        for one in first_epoch(rows, batch=BATCH, seed=0):
            read += len(one)
            yield one

    base = deep()
    objective = SupervisedObjective(rows, batch=BATCH, seed=0)
    objective.activation_cache = cache = activation_cache.ActivationCache(passes)
    monkeypatch.setattr(activation_cache, "MAX_BYTES", 32 * 4 * 300)  # of 300 tokens
    [*batches] = objective.batches(0)
    uncached = SupervisedObjective(rows, batch=BATCH, seed=0, cache_activations=False)
    assert [float(objective.loss(base, one).value.detach()) for one in batches] == [
        float(uncached.loss(base, one).value.detach()) for one in batches
    ]
    assert 20 < read < 80
    assert not cache._passes


def test_the_rows_of_a_step_are_those_of_a_shuffled_list() -> None:
    for epoch, place in ((0, 0), (0, 3), (5, 1)):
        order = list(range(37))
        random.Random(f"4:{epoch}").shuffle(order)
        assert step_rows(37, 10, 4 * epoch + place, 4) == order[10 * place : 10 * place + 10]


def test_answer_rows_reads_a_stream_once_and_no_further_than_a_bad_row(held: int) -> None:
    good, bad = (row.encoded for row in random_rows(2))
    bad = replace(bad, trained=(False,) * len(bad.ids))
    read: list[int] = []

    def encoded():
        for number, one in enumerate((good, good, bad, good)):
            read.append(number)
            yield one, 1.0

    with pytest.raises(InputError, match="row 3 has no answer token"):
        answer_rows(encoded())
    assert read == [0, 1, 2]
