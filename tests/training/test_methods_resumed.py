"""Every method goes on after a stop as if there had been none, to the bit, though its frozen start is made anew; dev
keeps its best."""

import pytest
import torch
from small_training import PLENTY, free, small_job
from tiny_models import base_of

from trimtab.model.adapters.apply import attach, save_adapter, trainable_parameters
from trimtab.training.estimates import memory_mb
from trimtab.training.loop import train_model

__all__ = ["free"]

pytestmark = pytest.mark.no_kernels

METHODS = ("rslora", "dora", "pissa", "vera", "ia3", "bitfit", "oft", "loha", "soft-prompt", "prefix")
RATE = 1e-2


def prepared(method):
    base = base_of("qwen2")
    attach(base, method, seed=3, rank=4, virtual_tokens=4)
    return base


@pytest.mark.parametrize("method", METHODS)
def test_stopped_and_gone_on_with_is_never_stopped(method, tmp_path):
    whole, cut, again = (prepared(method) for _ in range(3))
    train_model(small_job(whole, tmp_path / "whole", RATE))
    train_model(small_job(cut, tmp_path / "cut", RATE), until=4)
    done = train_model(small_job(again, tmp_path / "cut", RATE))
    assert done.finished
    assert done.readings[-1].dev_loss < done.readings[0].train_loss
    ours, theirs = trainable_parameters(again.model), trainable_parameters(whole.model)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for base, name in ((whole, "one"), (again, "other")):
        save_adapter(base, tmp_path / name)
    files = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("one", "other")]
    assert files[0] == files[1]


def test_memory_counts_what_changed_layers_and_virtual_tokens_keep(free):
    """Against the same moving numbers: the outputs that DoRA keeps, and the copies behind virtual tokens."""
    tokens = 1 << 20
    free(PLENTY)
    foretold = {name: memory_mb(prepared(name), pass_tokens=tokens) for name in ("lora", *METHODS)}
    assert foretold["dora"] > 1.1 * foretold["lora"]
    assert foretold["bitfit"] < foretold["lora"] < foretold["pissa"]
    assert foretold["prefix"] > foretold["bitfit"]
