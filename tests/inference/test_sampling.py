"""Draws follow the distribution, each row's by its own seed and step alone, whatever is drawn beside it."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from trimtab.base.errors import InputError
from trimtab.inference.sampling import (
    Sampling,
    _scaled,
    apply_penalties,
    log_probabilities,
    log_sum_exp_of,
    next_tokens,
    top_log_probabilities,
)

VOCABULARY = 40


def logits(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 2


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_tokens_are_drawn_as_often_as_the_distribution_says(temperature: float) -> None:
    row = logits(1)
    probabilities = (row[0].double() / temperature).softmax(-1)
    for seeds, steps in [(range(20_000), [3] * 20_000), ([7] * 20_000, range(20_000))]:
        drawn = next_tokens(
            row.expand(20_000, -1), [Sampling(temperature=temperature, seed=seed) for seed in seeds], list(steps)
        )
        expected = probabilities * len(drawn)
        seen = drawn.bincount(minlength=VOCABULARY)
        common = expected >= 5
        squares = ((seen - expected) ** 2 / expected)[common].sum()
        assert squares < 2 * int(common.sum()) + 30  # far beyond the 99.99th percentile of chi-squared
        assert abs(int(seen[~common].sum()) - float(expected[~common].sum())) < 30


def test_consecutive_steps_are_independent() -> None:
    fair = torch.zeros(1, 2).expand(10_000, -1)
    drawn = next_tokens(fair, [Sampling(temperature=1, seed=5)] * 10_000, list(range(10_000)))
    for apart in (1, 2, 7):
        assert (drawn[apart:] == drawn[:-apart]).float().mean() == pytest.approx(0.5, abs=0.02)


def nucleus(scores: list[float], top_k: int, top_p: float) -> set[int]:
    """The fewest of the `top_k` best that hold `top_p` of their probability, one by one."""
    best = sorted(range(len(scores)), key=lambda token: -scores[token])[: top_k or None]
    weights = torch.tensor([scores[token] for token in best], dtype=torch.float64).softmax(-1).tolist()
    kept, total = set(), 0.0
    for token, weight in zip(best, weights, strict=True):
        if total >= top_p:
            break
        kept.add(token)
        total += weight
    return kept


@given(
    top_k=st.integers(0, 50),
    top_p=st.sampled_from([0.05, 0.3, 0.61, 0.9, 1.0]),
    temperature=st.sampled_from([0.7, 3.0]),
)
def test_what_top_k_and_top_p_leave_is_drawn_and_nothing_else(top_k: int, top_p: float, temperature: float) -> None:
    row = logits(1, seed=top_k)
    sampling = [Sampling(temperature=temperature, top_p=top_p, top_k=top_k, seed=seed) for seed in range(2000)]
    drawn = set(next_tokens(row.expand(2000, -1), sampling, [0] * 2000).tolist())
    left = nucleus((row[0] / temperature).tolist(), top_k, top_p)
    assert drawn <= left
    weights = (row[0] / temperature).softmax(-1)
    assert {token for token in left if weights[token] > 0.01} <= drawn


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 1e-9, 0.8, 1.0, 2.0]),
    top_p=st.sampled_from([0.5, 0.99, 1.0]),
    top_k=st.sampled_from([0, 1, 5, 100]),
    min_p=st.sampled_from([0.0, 0.1, 1.0]),
    seed=st.integers(-(2**70), 2**70),
)


@given(mix=st.lists(st.tuples(samplings, st.integers(0, 10_000)), min_size=1, max_size=6), seed=st.integers(0, 9))
def test_no_other_row_changes_a_draw(mix: list[tuple[Sampling, int]], seed: int) -> None:
    scores = logits(len(mix), seed).round(decimals=1)  # with ties
    together = next_tokens(scores, [sampling for sampling, _ in mix], [step for _, step in mix])
    for row, (sampling, step) in enumerate(mix):
        assert together[row] == next_tokens(scores[row : row + 1], [sampling], [step])[0]
        if sampling.greedy or sampling.top_k == 1:
            assert scores[row, together[row]] == scores[row].max()


def test_log_probabilities_are_of_the_whole_distribution() -> None:
    scores = logits(5)
    tokens = torch.tensor([random.Random(1).randrange(VOCABULARY) for _ in range(5)])
    expected = scores.double().log_softmax(-1)[torch.arange(5), tokens]
    assert log_probabilities(scores, tokens).tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def warped(row: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """What transformers leaves of the scores."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    scores: torch.Tensor = warpers(torch.zeros(1, 1, dtype=torch.long), row[None])
    return scores[0]


@given(
    mix=st.lists(
        st.builds(
            Sampling,
            temperature=st.sampled_from([0.3, 1.0, 2.5]),
            top_p=st.sampled_from([0.2, 0.73, 1.0]),
            top_k=st.sampled_from([0, 1, 7, 100]),
            min_p=st.sampled_from([0.0, 0.02, 0.3, 0.99, 1.0]),
        ),
        min_size=1,
        max_size=6,
    ),
    seed=st.integers(0, 99),
)
def test_what_is_left_of_the_distribution_is_what_transformers_leaves(mix: list[Sampling], seed: int) -> None:
    scores = logits(len(mix), seed)
    for row, ours, sampling in zip(scores, _scaled(scores, mix), mix, strict=True):
        theirs = warped(row, sampling)
        assert ours.isfinite().tolist() == theirs.isfinite().tolist()
        assert ours.softmax(-1).tolist() == pytest.approx(theirs.softmax(-1).tolist(), abs=1e-6)


@given(
    rows=st.lists(
        st.tuples(
            st.builds(
                Sampling,
                repetition_penalty=st.sampled_from([0.5, 1.0, 1.3, 4.0]),
                frequency_penalty=st.sampled_from([-2.0, 0.0, 0.7]),
                presence_penalty=st.sampled_from([-1.0, 0.0, 1.5]),
            ),
            st.lists(st.integers(0, VOCABULARY - 1), max_size=9),  # the prompt
            st.lists(st.integers(0, VOCABULARY - 1), max_size=9),  # the answer
        ),
        min_size=1,
        max_size=5,
    ),
    seed=st.integers(0, 99),
)
def test_penalties_are_those_of_transformers_and_of_openai(
    rows: list[tuple[Sampling, list[int], list[int]]], seed: int
) -> None:
    scores = logits(len(rows), seed)
    before = scores.clone()
    counts = []
    for sampling, prompt, said in rows:
        known = dict.fromkeys(prompt, 0) if sampling.uses_prompt_counts else {}
        counts.append(known | {token: said.count(token) for token in said})
    found = apply_penalties(scores, [sampling for sampling, _, _ in rows], counts)
    assert torch.equal(scores, before)
    for ours, row, (sampling, prompt, said) in zip(found, scores, rows, strict=True):
        ids = torch.tensor([[*prompt, *said]], dtype=torch.long)
        theirs = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(ids, row[None].clone())[0]
        for token in range(VOCABULARY):
            count = said.count(token)
            theirs[token] -= count * sampling.frequency_penalty + (count > 0) * sampling.presence_penalty
        assert ours.tolist() == pytest.approx(theirs.tolist(), abs=1e-5)


# some a multiple of the blocks that are looked through, some none
@pytest.mark.parametrize("vocabulary", [96, 128, 640, 700])
def test_the_greedy_token_is_the_first_of_the_highest(vocabulary: int) -> None:
    draw = torch.Generator().manual_seed(vocabulary)
    for dtype in (torch.float32, torch.bfloat16):
        scores = torch.randn(40, vocabulary, generator=draw).to(dtype)
        scores[0] = 1.0  # all alike
        scores[1, [5, vocabulary - 1]] = 9.0
        scores[2, :-1] = float("-inf")  # as a constraint leaves it
        greedy = next_tokens(scores, [Sampling()] * 40, [0] * 40)
        assert greedy[:3].tolist() == [0, 5, vocabulary - 1]
        assert torch.equal(greedy, scores.argmax(-1))


def test_without_penalties_nothing_is_computed() -> None:
    scores = logits(2)
    assert apply_penalties(scores, [Sampling(), Sampling(temperature=1)], [{3: 2}, {}]) is scores


def test_the_likeliest_are_those_of_the_whole_distribution() -> None:
    scores = logits(4)
    tokens, logs = top_log_probabilities(scores, 5)
    best = scores.double().log_softmax(-1).topk(5)
    assert tokens.tolist() == best.indices.tolist()
    assert logs.flatten().tolist() == pytest.approx(best.values.flatten().tolist(), abs=1e-5)


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"frequency_penalty": 2.1},
        {"presence_penalty": float("nan")},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": float("inf")},
    ],
)
def test_a_sampling_that_means_nothing_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        Sampling(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("spread", [1.0, 50.0])
def test_sums_of_scores_are_those_of_float64(dtype: torch.dtype, spread: float) -> None:
    logits_BV = (spread * torch.randn(19, 300, generator=torch.Generator().manual_seed(0))).to(dtype)
    assert torch.allclose(log_sum_exp_of(logits_BV).double(), logits_BV.double().logsumexp(-1), rtol=1e-6, atol=1e-6)
    assert log_sum_exp_of(logits_BV[:0]).shape == (0,)
