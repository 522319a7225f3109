"""Activation checkpointing: passes whose activations do not fit compute their layers again, with the same losses and
weights to the bit, and keep less; it is said once, in the run's events and in the plan."""

import os

import pytest
import torch
from sharded_worker import Group, launched, result_of
from small_training import PLENTY, free, small_job
from tiny_models import base_of, random_rows, stirred

from trimtab.model.adapters.apply import attach, trainable_parameters
from trimtab.model.load import Base
from trimtab.training.activation_memory import activation_budget, activation_bytes
from trimtab.training.batch import Batch, batch_tokens, pack_rows
from trimtab.training.estimates import measure_rate, memory_mb
from trimtab.training.loop import train_model
from trimtab.training.sft import SupervisedObjective

__all__ = ["free"]

pytestmark = pytest.mark.no_kernels

METHODS = (
    *("lora:llama", "full:tied llama", "freeze:qwen2", "dora:qwen3", "vera:llama", "bitfit:qwen2", "oft:phi3"),
    *("soft-prompt:llama", "prefix:gemma3", "lora:gemma2"),
)
RATE = 3e-3


@pytest.fixture
def checkpointed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each pass of an objective was checkpointed."""
    found: list[bool] = []
    loss = SupervisedObjective.loss

    def noted(self: SupervisedObjective, base: Base, batch: Batch):  # type: ignore[no-untyped-def]
        found.append(base.activation_checkpointing)
        return loss(self, base, batch)

    monkeypatch.setattr(SupervisedObjective, "loss", noted)
    return found


def prepared(case: str, dtype: torch.dtype = torch.float32, pairs_of_layers: int = 1) -> Base:
    method, _, family = case.partition(":")
    base = base_of(family, dtype, pairs_of_layers=pairs_of_layers)
    attach(base, method, seed=3, rank=4, layers=1, virtual_tokens=4)
    stirred(base)  # LoRA's B is 0 at first, and then A learns nothing
    return base


def assert_same_weights(one: Base, other: Base) -> None:
    ours, theirs = trainable_parameters(one.model), trainable_parameters(other.model)
    assert ours
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        *((case, torch.float32) for case in METHODS),
        *((case, torch.float64) for case in ("lora:llama", "full:tied llama")),
    ],
)
def test_checkpointed_training_is_training_to_the_bit(case, dtype, free, checkpointed, tmp_path):
    kept: dict[int, Base] = {}
    losses: dict[int, list[float]] = {}
    for size in (PLENTY, 0):
        free(size)
        kept[size], events = prepared(case, dtype), []
        checkpointed.clear()
        train_model(small_job(kept[size], tmp_path / str(size), RATE, events))
        assert any(checkpointed) is (size == 0)
        losses[size] = [event["loss"] for event in events if "loss" in event]
    assert losses[0] == losses[PLENTY]
    assert len(losses[0]) == 10
    assert_same_weights(kept[0], kept[PLENTY])


def test_a_run_goes_on_with_another_amount_of_memory_as_if_it_had_not_changed(free, checkpointed, tmp_path):
    whole, cut, again = (prepared("lora:llama") for _ in range(3))
    free(PLENTY)
    train_model(small_job(whole, tmp_path / "whole", RATE))
    free(0)
    train_model(small_job(cut, tmp_path / "cut", RATE), until=4)
    assert any(checkpointed)
    free(PLENTY)
    train_model(small_job(again, tmp_path / "cut", RATE))
    assert_same_weights(again, whole)


def kept_bytes(base: Base, batch: Batch) -> int:
    """Bytes that autograd keeps from a pass until its backward pass, weights aside."""
    weights = {one.untyped_storage().data_ptr() for one in base.model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one):
        loss = SupervisedObjective([], batch=1, seed=0, cache_activations=False).loss(base, batch).value
    found = sum(kept.values())
    loss.backward()
    return found


@pytest.mark.parametrize("case", ["lora:llama", "full:llama"])
def test_a_checkpointed_pass_keeps_the_inputs_of_layers_alone(case, free):
    base, batch = prepared(case, pairs_of_layers=6), pack_rows(random_rows(8), shared=False)
    tokens = batch_tokens(batch)
    free(0)
    plain, less = (kept_bytes(one, batch) for one in (base, activation_budget(base, 0).base_for(base, tokens)))
    inputs = 12 * tokens * base.model.config.hidden_size * 4
    assert inputs <= less < 1.6 * inputs
    assert less < plain / 5
    assert activation_bytes(base, tokens, checkpointed=True) < activation_bytes(base, tokens) / 4
    assert activation_bytes(base, tokens, checkpointed=True) > inputs


def test_the_longest_pass_that_fits_is_not_checkpointed(free, threads):
    threads(1)
    base = prepared("lora:llama")
    free(10_000_000)
    room = activation_budget(base, 2_000_000)
    assert activation_bytes(base, room.tokens) <= room.bytes == 6_400_000 < activation_bytes(base, room.tokens + 2)
    assert not room.base_for(base, room.tokens).activation_checkpointing
    assert room.base_for(base, room.tokens + 1).activation_checkpointing
    assert room.note(room.tokens) is None
    threads(2)  # as many passes side by side
    assert activation_budget(base, 2_000_000).bytes == 3_200_000


def test_it_is_said_once_in_a_run(free, tmp_path):
    base, events = prepared("lora:llama"), []
    free(0)
    train_model(small_job(base, tmp_path, RATE, events))
    (said,) = [event for event in events if "note" in event]
    assert said["note"] == (
        "activations of more than 0 tokens do not fit into the 0.0 GB free for a pass: longer passes compute their "
        "layers again (activation checkpointing)"
    )
    assert said["stays"]


def test_the_plan_foretells_less_memory_and_times_the_same_passes(free, checkpointed):
    base, rows, tokens = prepared("lora:llama", pairs_of_layers=6), random_rows(8), 200_000
    foretold = []
    for size in (PLENTY, 0):
        free(size)
        foretold.append(memory_mb(base, pass_tokens=tokens))
    saved = activation_bytes(base, tokens) - activation_bytes(base, tokens, checkpointed=True)
    assert foretold[0] - foretold[1] == pytest.approx(saved / 1e6, rel=0.1)
    measure_rate(base, rows, 4, seconds=0.01)
    assert all(checkpointed)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked")
def test_two_processes_checkpoint_and_train_as_one_that_does_not(tmp_path):
    cases = ("lora:sft:llama", "full:sft:qwen2", "lora:dpo:llama", "full:head:llama")
    alone, plain, less = (
        Group(folder=str(tmp_path / name), size=size, cases=cases, free_bytes=free_bytes)
        for name, size, free_bytes in (("1", 1, 0), ("2", 2, PLENTY), ("less", 2, 0))
    )
    for group, codes in zip((alone, plain, less), launched(alone, plain, less), strict=True):
        assert codes == {str(rank): [0, "done"] for rank in range(group.size)}
    for case in cases:
        together, found = result_of(plain, case), result_of(less, case)
        assert found["weights"] == result_of(less, case, 1)["weights"] == together["weights"]  # to the bit
        assert found["losses"] == together["losses"]
        assert (found["notes"], together["notes"]) == (1, 0)
        ours = [value for part in found["weights"].values() for value in part]
        theirs = [value for part in result_of(alone, case)["weights"].values() for value in part]
        assert torch.allclose(torch.tensor(ours), torch.tensor(theirs), rtol=1e-5, atol=1e-5)
