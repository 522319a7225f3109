"""The chunked head against torch's cross entropy: values, gradients, any chunk size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.training import losses
from trimtab.training.losses import cross_entropy_sum


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(0, 9),
    chunk=st.integers(1, 10),
    cap=st.none() | st.just(2.0),
    biased=st.booleans(),
    seed=st.integers(0, 99),
)
def test_it_is_cross_entropy_with_its_gradients(rows, chunk, cap, biased, seed):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, 6, generator=generator, requires_grad=True)
    weight = torch.randn(11, 6, generator=generator, requires_grad=True)
    bias = torch.randn(11, generator=generator, requires_grad=True) if biased else None
    labels = torch.randint(11, (rows,), generator=generator)
    weights = torch.rand(rows, generator=generator)
    former, losses.CHUNK_BYTES = losses.CHUNK_BYTES, 4 * 11 * chunk
    try:
        ours = cross_entropy_sum(hidden, weight, labels, weights, bias_V=bias, softcap=cap)
        (3.0 * ours).backward()
        moving = [tensor for tensor in (hidden, weight, bias) if tensor is not None]
        grads = [tensor.grad.clone() for tensor in moving]
    finally:
        losses.CHUNK_BYTES = former
    for tensor in moving:
        tensor.grad = None
    logits = torch.nn.functional.linear(hidden, weight, bias)
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    theirs = (torch.nn.functional.cross_entropy(logits, labels, reduction="none") * weights).sum()
    (3.0 * theirs).backward()
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert all(torch.allclose(grad, tensor.grad, atol=1e-5) for grad, tensor in zip(grads, moving, strict=True))


def test_large_logits_do_not_overflow():
    hidden = torch.tensor([[1000.0, -1000.0]], requires_grad=True)
    loss = cross_entropy_sum(hidden, torch.eye(2), torch.tensor([1]), torch.ones(1))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(2000.0)
    assert hidden.grad.tolist() == [[1.0, -1.0]]


def test_a_frozen_head_gets_no_gradient():
    weight = torch.eye(2)
    hidden = torch.ones(1, 2, requires_grad=True)
    cross_entropy_sum(hidden, weight, torch.tensor([0]), torch.ones(1)).backward()
    assert weight.grad is None
