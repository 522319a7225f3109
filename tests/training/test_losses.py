"""The chunked head against plain torch: log-probabilities and their gradients under any loss, in chunks and slices
of any size."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trimtab.model.kernels import build as compiled
from trimtab.training import losses
from trimtab.training.losses import token_log_probabilities

HIDDEN, VOCABULARY = 6, 11


def plain(hidden, weight, labels, bias, cap):
    logits = torch.nn.functional.linear(hidden, weight, bias)
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    return logits.log_softmax(-1).gather(1, labels[:, None])[:, 0]


def preference(log_p):
    """As DPO: a log-sigmoid of a difference of sums."""
    half = len(log_p) // 2
    return -torch.nn.functional.logsigmoid(0.3 * (log_p[:half].sum() - log_p[half:].sum()))


def clipped(log_p):
    """As PPO: a clipped ratio, whose gradient is 0 at some tokens."""
    ratio = (log_p + 2.5).exp()
    return -torch.minimum(ratio, ratio.clamp(0.8, 1.2)).sum() + log_p.square().sum()


def odds(log_p):
    """As ORPO: log odds of mean log-probabilities."""
    return (log_p.mean() - torch.log1p(-log_p.mean().exp())).square() if len(log_p) else log_p.sum()


def weighted(log_p):
    return -(log_p * torch.arange(1.0, len(log_p) + 1)).sum()


@pytest.mark.parametrize("loss", [preference, clipped, odds, weighted, torch.sum])
@pytest.mark.parametrize("frozen", ["nothing", "head", "hidden"])
@given(
    rows=st.integers(0, 9),
    chunk=st.integers(1, 10),
    piece=st.integers(1, 4),
    cap=st.none() | st.just(2.0),
    biased=st.booleans(),
    foretold=st.sampled_from(["nothing", "right", "in proportion", "wrong"]),
    seed=st.integers(0, 99),
)
def test_any_loss_has_the_value_and_gradients_of_plain_torch(
    loss, frozen, rows, chunk, piece, cap, biased, foretold, seed
):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, HIDDEN, generator=generator, requires_grad=frozen != "hidden")
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator, requires_grad=frozen != "head")
    bias = torch.randn(VOCABULARY, generator=generator, requires_grad=frozen != "head") if biased else None
    labels = torch.randint(VOCABULARY, (rows,), generator=generator)
    moving = [tensor for tensor in (hidden, weight, bias) if tensor is not None and tensor.requires_grad]

    log_p = plain(hidden, weight, labels, bias, cap)
    expected = loss(log_p)
    upstream = torch.autograd.grad(expected, log_p, retain_graph=True)[0] if rows else torch.zeros(0)
    theirs = torch.autograd.grad(expected, moving)

    guesses = {
        "nothing": None,
        "right": torch.where(upstream == 0, 1.0, upstream),
        "in proportion": torch.where(upstream == 0, 1.0, upstream) / 4,
        "wrong": 0.5 + torch.rand(rows, generator=generator),
    }
    former = losses.CHUNK_BYTES, losses.SLICE_ROWS
    losses.CHUNK_BYTES, losses.SLICE_ROWS = 4 * VOCABULARY * chunk, piece
    try:
        guess = guesses[foretold]
        ours = loss(token_log_probabilities(hidden, weight, labels, bias_V=bias, softcap=cap, upstream_grad_M=guess))
        grads = torch.autograd.grad(ours, moving)
    finally:
        losses.CHUNK_BYTES, losses.SLICE_ROWS = former
    scale = max([1.0, *(float(grad.abs().max()) for grad in theirs if grad.numel())])
    assert torch.allclose(ours, expected, rtol=1e-5, atol=1e-5)
    assert all(torch.allclose(left, right, atol=1e-5 * scale) for left, right in zip(grads, theirs, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_foretold_gradient_costs_no_second_pass_and_changes_nothing(dtype, monkeypatch):
    """For the loss that was foretold, the head is applied once; the head's gradient is that of a second pass."""
    generator = torch.Generator().manual_seed(0)
    labels, weights = torch.randint(VOCABULARY, (9,), generator=generator), torch.rand(9, generator=generator)
    applied, real = [], losses._logits
    monkeypatch.setattr(losses, "_logits", lambda *given: applied.append(1) or real(*given))
    monkeypatch.setattr(losses, "CHUNK_BYTES", dtype.itemsize * VOCABULARY * 4)  # three chunks
    grads, counts = [], []
    for foretold in (-weights, None):
        generator.manual_seed(1)
        hidden = torch.randn(9, HIDDEN, generator=generator).to(dtype).requires_grad_()
        weight = torch.randn(VOCABULARY, HIDDEN, generator=generator).to(dtype).requires_grad_()
        applied.clear()
        log_p = token_log_probabilities(hidden, weight, labels, upstream_grad_M=foretold)
        (-(log_p * weights).sum()).backward()
        counts.append(len(applied))
        grads.append((hidden.grad, weight.grad))
    # the gradient of a head is summed up from chunks as large as itself in float32: all at once, or two of them
    assert counts == ([2, 3 + 2] if dtype == torch.float32 else [1, 3 + 1])
    near = 1e-6 if dtype == torch.float32 else 2e-2
    assert all(torch.allclose(left, right, atol=near) for left, right in zip(*grads, strict=True))
    assert torch.equal(grads[0][1], grads[1][1])  # the same products in the same order


@pytest.mark.skipif(not compiled.library(), reason="no C compiler, so no kernels")
@pytest.mark.parametrize("scaled", [False, True])
def test_labels_by_the_kernel_are_as_near_to_float64_as_by_torch(scaled, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(7, 4096, generator=generator)).bfloat16()
    logits[3, 5] = 60.0  # one that is certain
    labels = torch.tensor([0, 4095, 31, 5, 5, 32, 7])
    scale = -torch.rand(7, generator=generator) if scaled else None
    exact = logits.double().log_softmax(-1)
    exact_p = exact.gather(1, labels[:, None])[:, 0]
    found = []
    for by_kernel in (True, False):
        if not by_kernel:
            monkeypatch.setattr(losses, "supports_rows", lambda *_: False)
        own = logits.clone()
        log_p = losses._label_log_probabilities(own, labels, scale, None, None)
        assert torch.allclose(log_p.double(), exact_p, atol=1e-5)
        found.append(own)
    if scale is None:
        assert all(torch.equal(own, logits) for own in found)
        return
    grad = -exact.exp()
    grad[torch.arange(7), labels] += 1.0
    grad *= scale[:, None]
    ours, theirs = ((own.double() - grad).norm() for own in found)
    assert ours <= 1.05 * theirs + 1e-6


def test_logits_are_taken_in_chunks_alike_in_size_and_never_larger_than_they_may_be(monkeypatch):
    def sizes(count, dtype, *, whole_gradient):
        head = torch.empty(VOCABULARY, HIDDEN, dtype=dtype)
        return [len(range(count)[part]) for part in losses._head_chunks(count, head, whole_gradient=whole_gradient)]

    rows = losses.CHUNK_BYTES // (2 * VOCABULARY)
    assert sizes(rows + 1, torch.bfloat16, whole_gradient=False) == [rows // 2 + 1, rows - rows // 2]
    assert sizes(rows + 1, torch.float32, whole_gradient=False) == [
        rows // 3 + 1,
        rows // 3 + 1,
        rows + 1 - 2 * (rows // 3 + 1),
    ]
    assert sizes(0, torch.bfloat16, whole_gradient=True) == []
    monkeypatch.setattr(losses, "CHUNK_BYTES", 21 * VOCABULARY)  # ten rows and a half
    assert sizes(21, torch.bfloat16, whole_gradient=False) == [7, 7, 7]


def test_of_a_head_that_moves_one_chunk_is_as_large_as_its_gradient(monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_BYTES", 2 * VOCABULARY)
    head = torch.empty(VOCABULARY, HIDDEN, dtype=torch.bfloat16)
    chunks = list(losses._head_chunks(2 * HIDDEN + 1, head, whole_gradient=True))
    assert chunks == [slice(0, HIDDEN + 1), slice(HIDDEN + 1, 2 * HIDDEN + 2)]


def test_many_small_parts_of_a_heads_gradient_lose_nothing(monkeypatch):
    """In bfloat16 a sum would stand still at 256 times a part."""
    monkeypatch.setattr(losses, "_head_chunks", lambda count, *_, **__: (slice(row, row + 1) for row in range(count)))
    rows, grads = 600, []
    for count in (1, rows):
        hidden, weight = torch.ones(count, HIDDEN).bfloat16(), torch.zeros(VOCABULARY, HIDDEN).bfloat16()
        weight.requires_grad_()
        scale = -torch.ones(count)
        log_p = token_log_probabilities(hidden, weight, torch.zeros(count, dtype=torch.long), upstream_grad_M=scale)
        grads.append(torch.autograd.grad(-log_p.sum(), weight)[0])
    assert grads[1].dtype == torch.bfloat16
    assert torch.allclose(grads[1].float(), rows * grads[0].float(), rtol=1e-2)


@pytest.mark.parametrize("spread", [1.0, 40.0])
def test_bfloat16_logits_are_scored_as_in_float32(spread):
    """Certain and all but impossible labels among them."""
    generator = torch.Generator().manual_seed(0)
    logits = (spread * torch.randn(64, VOCABULARY, generator=generator)).bfloat16()
    labels = torch.randint(VOCABULARY, (64,), generator=generator)
    wide = logits.double().requires_grad_()
    expected = wide.log_softmax(-1)[torch.arange(64), labels]
    (gradient,) = torch.autograd.grad(expected.sum(), wide)
    found = losses._label_log_probabilities(logits, labels, torch.ones(64), None, None)
    assert torch.allclose(found.double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.allclose(logits.double(), gradient, rtol=2**-8, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_slices_change_no_bit(dtype, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    labels, scale = torch.randint(VOCABULARY, (9,), generator=generator), torch.rand(9, generator=generator) + 0.1
    inputs = torch.randn(9, HIDDEN, generator=generator), torch.randn(VOCABULARY, HIDDEN, generator=generator)
    found = []
    for piece in (1, 4, 32):
        monkeypatch.setattr(losses, "SLICE_ROWS", piece)
        hidden, weight = (one.to(dtype).requires_grad_() for one in inputs)
        log_p = token_log_probabilities(hidden, weight, labels, upstream_grad_M=scale)
        found.append([log_p, *torch.autograd.grad((scale * log_p).sum(), [hidden, weight])])
    for other in found[1:]:
        assert all(torch.equal(one, same) for one, same in zip(found[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_divergence_holds_no_more_rows_in_bfloat16(dtype, monkeypatch):
    """It works in float32 whatever the head's type."""
    monkeypatch.setattr(losses, "CHUNK_BYTES", 4 * VOCABULARY * 4)
    parts, even = [], torch.full((VOCABULARY,), 1 / VOCABULARY).log()

    def teacher(part):
        parts.append(len(range(9)[part]))
        return even.repeat(parts[-1], 1)

    losses.kl_from_teacher(
        teacher, torch.ones(9, HIDDEN, dtype=dtype), torch.ones(VOCABULARY, HIDDEN, dtype=dtype), torch.ones(9)
    )
    assert parts == [4, 4, 1]


def test_gradients_can_be_taken_twice():
    hidden = torch.ones(2, HIDDEN, requires_grad=True)
    log_p = token_log_probabilities(hidden, torch.eye(VOCABULARY)[:, :HIDDEN], torch.tensor([0, 1]))
    first, second = (torch.autograd.grad(log_p.sum(), hidden, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_large_logits_do_not_overflow():
    hidden = torch.tensor([[1000.0, -1000.0]], requires_grad=True)
    log_p = token_log_probabilities(hidden, torch.eye(2), torch.tensor([1]))
    log_p.sum().backward()
    assert float(log_p.detach()) == pytest.approx(-2000.0)
    assert hidden.grad.tolist() == [[-1.0, 1.0]]


def test_a_frozen_head_gets_no_gradient():
    weight = torch.eye(2)
    hidden = torch.ones(1, 2, requires_grad=True)
    token_log_probabilities(hidden, weight, torch.tensor([0])).sum().backward()
    assert weight.grad is None


def test_a_batch_that_scores_nothing_has_a_loss_of_0_that_can_be_gone_back_through():
    hidden = torch.ones(0, 2, requires_grad=True)
    log_p = token_log_probabilities(
        hidden, torch.eye(2), torch.zeros(0, dtype=torch.long), upstream_grad_M=torch.ones(0)
    )
    loss = -(log_p * torch.ones(0)).sum()
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert hidden.grad.shape == (0, 2)
