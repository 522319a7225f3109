"""Behind virtual tokens answers are those of PEFT's own model, whatever is batched, shared or held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from answering_models import EOS, FAMILIES, pair
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel

from trimtab.base.errors import InputError
from trimtab.inference.engine import Engine, Request
from trimtab.inference.kv_cache import virtual_prefix_of
from trimtab.inference.label_scoring import LabelRequest, label_probabilities, prefill_prefix
from trimtab.model.adapters.apply import attach, detach, save_adapter
from trimtab.model.load import Base
from trimtab.model.prompt_tuning import virtual_tokens_of

pytestmark = [
    pytest.mark.no_kernels,
    pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
]
STOP = frozenset({EOS})
LABELS = tuple((*label, EOS) for label in [(5,), (5, 6), (9, 6, 6), ()])
PROMPTS = tuple(
    (*([7, 9, 11] * (shared // 3)), *(3 + (17 * number + place) % 80 for place in range(length)))
    for shared in (0, 24)
    for number, length in enumerate((1, 4, 11))
)


def twins(family: str, method: str, count: int, folder: Path) -> tuple[Base, Any]:
    """Ours and PEFT's, with virtual tokens that change what is said."""
    ours, plain = anew(family)
    attach(ours, method, seed=3, virtual_tokens=count)
    virtual = virtual_tokens_of(ours.model)
    assert virtual is not None
    with torch.no_grad():
        virtual.values += torch.randn(virtual.values.shape, generator=torch.Generator().manual_seed(0))
    save_adapter(ours, folder)
    return ours, PeftModel.from_pretrained(plain, str(folder)).eval()


def anew(family: str) -> tuple[Base, Any]:
    """A pair of its own: the cached one is for all tests."""
    made: tuple[Base, Any] = pair.__wrapped__(family)
    return made


def their_logits(model: Any, ids: tuple[int, ...]) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -len(ids) :]


def their_answer(model: Any, ids: tuple[int, ...], count: int) -> tuple[int, ...]:
    said: list[int] = []
    while len(said) < count:
        token = int(their_logits(model, (*ids, *said))[-1].argmax())
        if token == EOS:
            break
        said.append(token)
    return tuple(said)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("method", "count"), [("soft-prompt", 5), ("prefix", 5), ("soft-prompt", 20), ("prefix", 20)])
def test_greedy_answers_are_those_of_peft(family: str, method: str, count: int, tmp_path: Path) -> None:
    ours, theirs = twins(family, method, count, tmp_path)
    expected = [their_answer(theirs, ids, 6) for ids in PROMPTS]
    plain = [their_answer(theirs.get_base_model(), ids, 6) for ids in PROMPTS]
    assert expected != plain
    requests = [Request(id=str(number), ids=ids, max_new=6) for number, ids in enumerate(PROMPTS)]
    for hold, min_shared_tokens in (((), 16), (PROMPTS[-1][:24], 16), (PROMPTS[-1][:9], 1), ((), 999)):
        engine = Engine(ours, STOP, slots=3, min_shared_tokens=min_shared_tokens, prefill_tokens=40)
        engine.pin(hold)
        assert [one.ids for one in engine.generate(requests)] == expected
        assert [one.ids for request in requests for one in engine.generate([request])] == expected


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("method", "count"), [("soft-prompt", 5), ("prefix", 20)])
def test_labels_are_scored_as_by_peft(family: str, method: str, count: int, tmp_path: Path) -> None:
    ours, theirs = twins(family, method, count, tmp_path)
    requests = [LabelRequest(id=str(number), ids=ids) for number, ids in enumerate(PROMPTS)]
    expected = []
    for ids in PROMPTS:
        scores = []
        for label in LABELS:
            logs = their_logits(theirs, (*ids, *label)).log_softmax(-1)
            scores.append(sum(float(logs[len(ids) - 1 + place, token]) for place, token in enumerate(label)))
        expected.append(torch.tensor(scores).softmax(-1).tolist())
    for held in (None, prefill_prefix(ours, ()), prefill_prefix(ours, PROMPTS[-1][:24])):
        together = label_probabilities(ours, requests, LABELS, pinned=held)
        alone = [label_probabilities(ours, [request], LABELS, pinned=held)[0] for request in requests]
        for one, other, right in zip(together, alone, expected, strict=True):
            assert one.probabilities == pytest.approx(right, abs=1e-4)
            assert other.probabilities == pytest.approx(right, abs=1e-4)


def test_a_prompt_counts_its_virtual_tokens_against_the_context(tmp_path: Path) -> None:
    ours, _ = twins("llama", "prefix", 20, tmp_path)
    engine = Engine(ours, STOP)
    engine.generate([Request(id="a", ids=(5,) * 104, max_new=4)])
    with pytest.raises(InputError, match="125 prompt tokens"):
        engine.generate([Request(id="a", ids=(5,) * 105, max_new=4)])
    with pytest.raises(InputError, match="0 prompt tokens"):
        engine.generate([Request(id="a", ids=(), max_new=4)])


def test_once_taken_off_answers_are_those_of_the_base(tmp_path: Path) -> None:
    ours, theirs = twins("qwen3", "soft-prompt", 5, tmp_path)
    requests = [Request(id=str(number), ids=ids, max_new=6) for number, ids in enumerate(PROMPTS)]
    engine = Engine(ours, STOP)
    engine.pin(PROMPTS[-1][:24])
    before = [one.ids for one in engine.generate(requests)]
    detach(ours)
    engine.reset_prefix_cache()
    assert virtual_prefix_of(ours) is None
    after = [one.ids for one in engine.generate(requests)]
    assert after == [their_answer(theirs.get_base_model(), ids, 6) for ids in PROMPTS]
    assert after != before


@given(
    method=st.sampled_from(["soft-prompt", "prefix"]),
    count=st.sampled_from([1, 15, 16, 17, 33]),
    min_shared_tokens=st.sampled_from([1, 16, 999]),
    held=st.integers(0, 30),
    slots=st.integers(1, 4),
)
def test_no_batch_and_nothing_held_changes_an_answer(
    method: str, count: int, min_shared_tokens: int, held: int, slots: int
) -> None:
    ours, _ = anew("grouped llama")
    attach(ours, method, seed=count, virtual_tokens=count)
    requests = [Request(id=str(number), ids=ids, max_new=4) for number, ids in enumerate(PROMPTS)]
    engine = Engine(ours, STOP, slots=slots, min_shared_tokens=min_shared_tokens, prefill_tokens=50)
    alone = [Engine(ours, STOP).generate([request])[0].ids for request in requests]
    engine.pin(PROMPTS[-1][:held])
    assert [one.ids for one in engine.generate(requests)] == alone
