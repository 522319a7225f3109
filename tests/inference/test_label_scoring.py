"""Labels scored as a trie are the labels scored one by one by transformers, whatever is run together."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from answering_models import EOS, FAMILIES, pair
from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.errors import InputError
from trimtab.inference import label_scoring as room
from trimtab.inference.label_scoring import LabelRequest, choose_labels, label_probabilities, score_labels

pytestmark = pytest.mark.no_kernels

LABELS = tuple((*label, EOS) for label in [(5,), (5, 6), (5, 6, 7, 8), (9, 6), (9, 6, 6), (10, 11, 12, 13, 14), ()])


def log_probability(model: Any, prompt: tuple[int, ...], label: tuple[int, ...]) -> float:
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *label]])).logits[0].log_softmax(-1)
    return sum(float(logits[len(prompt) - 1 + place, token]) for place, token in enumerate(label))


def prompts(shared: int, count: int, seed: int = 0) -> list[LabelRequest]:
    draw = random.Random(seed)
    start = [draw.randrange(1, EOS) for _ in range(shared)]
    return [
        LabelRequest(id=str(n), ids=(*start, *(draw.randrange(1, EOS) for _ in range(draw.choice([1, 4, 17])))))
        for n in range(count)
    ]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shared", [0, 20])
def test_probabilities_are_those_of_the_labels_scored_alone(family: str, shared: int) -> None:
    base, reference = pair(family)
    requests = prompts(shared, 4)
    for request, choice in zip(requests, label_probabilities(base, requests, LABELS), strict=True):
        scores = torch.tensor([log_probability(reference, request.ids, label) for label in LABELS]).softmax(-1)
        assert choice.id == request.id
        assert choice.probabilities == pytest.approx(scores.tolist(), abs=1e-4)
        assert choice.best == int(scores.argmax())


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_longer_than_a_window_see_as_far_as_transformers_lets_them(family: str) -> None:
    base, reference = pair(family)
    draw = random.Random(1)
    long = [draw.randrange(1, EOS) for _ in range(14)]  # sliding windows are of 6 and 8 tokens
    labels = tuple((*long[:parted], *(draw.randrange(1, EOS) for _ in range(9)), EOS) for parted in (0, 3, 3, 9, 14))
    sums_NL = score_labels(base, prompts(0, 2), labels)
    for request, sums_L in zip(prompts(0, 2), sums_NL, strict=True):
        expected = [log_probability(reference, request.ids, label) for label in labels]
        assert sums_L.tolist() == pytest.approx(expected, abs=1e-3)


@given(
    family=st.sampled_from(sorted(FAMILIES)),
    shared=st.integers(0, 30),
    row=st.sampled_from([1, 40, 2048]),
    rows=st.sampled_from([1, 3, 256]),
)
def test_no_batch_changes_a_probability(family: str, shared: int, row: int, rows: int) -> None:
    base, _ = pair(family)
    requests = prompts(shared, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "ROW_TOKENS", row)
        patch.setattr(room, "HEAD_ROWS", rows)
        together = label_probabilities(base, requests, LABELS)
    for request, choice in zip(requests, together, strict=True):
        (alone,) = label_probabilities(base, [request], LABELS)
        assert choice.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
        assert sum(choice.probabilities) == pytest.approx(1.0)


def test_labels_of_one_token_need_no_trie() -> None:
    base, reference = pair("llama")
    (choice,) = label_probabilities(base, [LabelRequest(id="a", ids=(3, 4, 5))], [(7,), (8,)])
    scores = torch.tensor([log_probability(reference, (3, 4, 5), label) for label in [(7,), (8,)]]).softmax(-1)
    assert choice.probabilities == pytest.approx(scores.tolist(), abs=1e-5)


def test_the_answer_is_the_best_label() -> None:
    base, _ = pair("llama")
    request = LabelRequest(id="a", ids=(3, 4, 5))
    (choice,) = label_probabilities(base, [request], LABELS)
    names = [f"label {number}" for number in range(len(LABELS))]
    (generation,) = choose_labels(base, [request], names, LABELS)
    assert generation.text == names[choice.best]
    assert generation.probability == max(choice.probabilities) == generation.probabilities[generation.text]


def test_no_prompts_no_choices() -> None:
    assert label_probabilities(pair("llama")[0], [], LABELS) == []


@pytest.mark.parametrize("labels", [[(5, EOS), (5, EOS)], [(5, EOS), ()]])
def test_labels_that_cannot_be_told_apart_are_refused(labels: list[tuple[int, ...]]) -> None:
    with pytest.raises(InputError, match=r"task\.labels"):
        label_probabilities(pair("llama")[0], [LabelRequest(id="a", ids=(3,))], labels)


@pytest.mark.parametrize("length", [0, 125])
def test_a_prompt_that_does_not_fit_is_refused_by_name(length: int) -> None:
    with pytest.raises(InputError, match="q7"):
        label_probabilities(pair("llama")[0], [LabelRequest(id="q7", ids=(3,) * length)], LABELS)
