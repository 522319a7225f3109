"""Gradients of passes that run at once: added in the order of the passes, none held whole, and nothing of them left
behind."""

from __future__ import annotations

import copy
import itertools
import threading

import pytest
import torch
from torch import nn

from trimtab.model.kernels import build as compiled
from trimtab.training import optim
from trimtab.training.optim import Optimizer

PARTS = (1e8, 1.0, -1e8)  # in float32 their sum depends on the order: 0 in this one, 1 where the large ones meet first


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_sums_follow_the_places_whatever_ends_first(order):
    weight = nn.Parameter(torch.zeros(5))
    optimizer = Optimizer({"w": weight})
    for place in order:
        optimizer.backward(PARTS[place] * weight.sum(), place)
    assert weight.grad.tolist() == [0.0] * 5
    optimizer.step(0.1)
    for place in order:  # the next step begins anew, in the same memory
        optimizer.backward(PARTS[place] * weight.sum(), place)
    assert weight.grad.tolist() == [0.0] * 5


def test_passes_that_run_at_once_are_told_apart():
    """Two threads, each in the middle of its way back when the other one begins."""
    sides = {name: nn.Parameter(torch.zeros(3)) for name in ("early", "late")}
    optimizer = Optimizer(sides)
    meeting = threading.Barrier(2, timeout=30)

    def meet(_):
        meeting.wait()

    def passed(place):
        middle = PARTS[place] * sides["late"]
        middle.register_hook(meet)  # before the gradient of "late" is made
        optimizer.backward((middle + sides["early"]).sum(), place)

    threads = [threading.Thread(target=passed, args=(place,)) for place in (1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    optimizer.backward(PARTS[2] * sides["late"].sum(), 2)
    assert sides["late"].grad.tolist() == [0.0] * 3
    assert sides["early"].grad.tolist() == [2.0] * 3


def test_no_pass_holds_its_gradients(monkeypatch):
    weight = nn.Parameter(torch.ones(1000, dtype=torch.bfloat16))
    optimizer, held = Optimizer({"w": weight}), []
    grad = torch.autograd.grad

    def watched(*arguments, **named):
        found = grad(*arguments, **named)
        held.extend(one.untyped_storage().nbytes() for one in found)
        return found

    monkeypatch.setattr(torch.autograd, "grad", watched)
    optimizer.backward((weight * 2).sum(), 0)
    assert held == [2]
    assert optimizer.masters["w"].grad.tolist() == [2.0] * 1000


def test_a_parameter_without_a_gradient_does_not_move():
    sides = {name: nn.Parameter(torch.ones(3)) for name in ("used", "unused")}
    optimizer = Optimizer(sides, weight_decay=0.1)
    for _ in range(2):
        optimizer.backward(sides["used"].sum(), 0)
        optimizer.step(0.1)
    assert sides["unused"].tolist() == [1.0] * 3
    assert sides["used"][0] < 1.0


def test_what_is_let_go_of_leaves_nothing():
    weight = nn.Parameter(torch.ones(3))
    optimizer = Optimizer({"w": weight})
    optimizer.backward(weight.sum(), 1)  # its turn never comes
    optimizer.backward(weight.sum(), 0)
    optimizer.release()
    assert weight.grad is None
    assert not weight._backward_hooks
    second = Optimizer({"w": weight})
    second.backward(weight.sum(), 0)
    assert weight.grad.tolist() == [1.0] * 3


def test_a_loss_of_somebody_else_has_its_gradients():
    weight = nn.Parameter(torch.ones(3))
    optimizer = Optimizer({"w": weight})
    (given,) = torch.autograd.grad((weight * 3).sum(), [weight])
    assert given.tolist() == [3.0] * 3
    optimizer.backward(weight.sum(), 0)
    assert weight.grad.tolist() == [1.0] * 3


@pytest.mark.skipif("step_adam" not in compiled.library(), reason="no kernels here")
@pytest.mark.parametrize("size", [0.01, 10.0])  # within the bound of the norm, and beyond it
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_step_by_the_kernel_is_torchs(size, weight_decay, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    given = [torch.randn(3, 48, generator=draw).to(torch.bfloat16) for _ in range(4)]
    factors = [[(size * torch.randn(3, 48, generator=draw)).to(torch.bfloat16) for _ in range(2)] for _ in range(5)]
    ran = []
    monkeypatch.setattr(optim, "call", lambda kernel, *these: ran.append(kernel) or compiled.call(kernel, *these))

    def stepped(numbers):
        """Two passes a step over one parameter of both kinds, whose state is saved and loaded in between."""
        sides = {"narrow": nn.Parameter(given[0].clone()), "wide": nn.Parameter(given[1].float())}
        monkeypatch.setattr(optim, "KERNEL_WIDTH", numbers)
        optimizer, norms = Optimizer(sides, weight_decay=weight_decay), []
        for step, both in enumerate(factors):
            for place, by in enumerate(both):
                optimizer.backward((sides["narrow"] * by).sum() + (sides["wide"] * by).sum(), place)
            norms.append(optimizer.clip_gradients())
            optimizer.step(1e-2)
            if step == 2:
                weights, moments = copy.deepcopy((optimizer.weights(), optimizer.moments()))
                optimizer.release()
                optimizer = Optimizer(sides, weight_decay=weight_decay)
                optimizer.load_weights(weights)
                optimizer.load_moments(moments)
        return norms, optimizer.weights(), optimizer.moments(), sides

    ours = stepped(16)
    assert ran.count("step_adam") == 5
    assert ran.count("add_gradient") == 10
    theirs = stepped(10_000)
    assert len(ran) == 15
    assert ours[0] == theirs[0]
    assert torch.equal(ours[1]["wide"], theirs[1]["wide"])
    torch.testing.assert_close(ours[1]["narrow"], theirs[1]["narrow"], rtol=1e-6, atol=1e-6)  # of steps of .01
    assert torch.equal(ours[3]["narrow"], ours[1]["narrow"].to(torch.bfloat16))
    assert ours[2].keys() == theirs[2].keys()
    for name, one in ours[2].items():
        torch.testing.assert_close(one, theirs[2][name], rtol=1e-5, atol=1e-9)


def test_a_parameter_of_an_odd_size_is_torchs(monkeypatch):
    monkeypatch.setattr(optim, "call", None)  # no kernel is called
    weight = nn.Parameter(torch.ones(7, dtype=torch.bfloat16))
    optimizer = Optimizer({"w": weight})
    for _ in range(2):
        optimizer.backward((weight * 2).sum(), 0)
        optimizer.clip_gradients()
        optimizer.step(0.1)
    assert weight.tolist() == pytest.approx([0.8] * 7, abs=0.01)
