"""Labels left out in waves change no answer, and a probability by no more than the tolerance; nothing is read twice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from answering_models import EOS, FAMILIES, pair
from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.records import Calibration
from trimtab.inference import label_scoring as room
from trimtab.inference import label_trie as wood
from trimtab.inference.label_scoring import (
    LabelRequest,
    choose_labels,
    label_probabilities,
    prefill_prefix,
    score_labels,
)
from trimtab.inference.label_trie import PLAIN, TOLERANCE, LabelBounds, LabelTrie, LabelWeighting
from trimtab.model.attention import PackedSequences
from trimtab.model.load import Base

pytestmark = pytest.mark.no_kernels

tokens = st.integers(1, EOS - 1)
# few different tokens, so that labels share beginnings; without an end token one label may begin another
label_sets = st.tuples(
    st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=9).map(tuple), min_size=2, max_size=40, unique=True),
    st.booleans(),
).map(lambda made: [(*label, EOS) if made[1] else label for label in made[0]])


@st.composite
def weightings(draw: st.DrawFn, labels: int) -> LabelWeighting:
    offset = st.floats(-30, 30, allow_nan=False)
    return LabelWeighting(
        per_token=draw(st.booleans()),
        offsets=tuple(draw(st.lists(offset, min_size=labels, max_size=labels))) if draw(st.booleans()) else (),
        temperature=draw(st.floats(0.05, 20)),
    )


def reference(labels: Sequence[tuple[int, ...]], sums_NL: torch.Tensor, weighting: LabelWeighting) -> torch.Tensor:
    """The scores of labels, written once more."""
    rows = []
    for sums_L in sums_NL.tolist():
        scores = [
            total / (len(label) if weighting.per_token else 1) for label, total in zip(labels, sums_L, strict=True)
        ]
        offsets = weighting.offsets or [0.0] * len(labels)
        rows.append([(one - off) / weighting.temperature for one, off in zip(scores, offsets, strict=True)])
    return torch.tensor(rows, dtype=torch.double)


def sharp(base: Base, by: float) -> Base:
    """The same model, `by` times as sure of each next token."""
    import copy

    model = copy.deepcopy(base.model)
    with torch.no_grad():
        model.get_output_embeddings().weight *= by
    return Base(model=model, tokenizer=None, precision="fp32", folder=base.folder)


@given(data=st.data(), family=st.sampled_from(sorted(FAMILIES)), labels=label_sets, shared=st.integers(0, 24))
def test_the_label_is_that_of_the_full_scoring(
    data: st.DataObject, family: str, labels: list[tuple[int, ...]], shared: int
) -> None:
    base, _ = pair(family)
    start = tuple(data.draw(st.lists(tokens, min_size=shared, max_size=shared)))
    ends = data.draw(st.lists(st.lists(tokens, min_size=1, max_size=12).map(tuple), min_size=1, max_size=5))
    requests = [LabelRequest(id=str(number), ids=(*start, *end)) for number, end in enumerate(ends)]
    weighting = data.draw(weightings(len(labels)))
    sums_NL = score_labels(base, requests, labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "MIN_PASS_TOKENS", data.draw(st.sampled_from([0, 6])))
        patch.setattr(room, "ROW_TOKENS", data.draw(st.sampled_from([1, 50, 2048])))
        patch.setattr(room, "CACHED_TOKENS", data.draw(st.sampled_from([1, 4096])))
        patch.setattr(room, "MAX_WAVES", data.draw(st.sampled_from([1, 99])))
        patch.setattr(wood, "NODES_PER_WAVE", data.draw(st.sampled_from([1, 2])))
        held = prefill_prefix(base, requests[0].ids[:-1]) if data.draw(st.booleans()) else None
        found = label_probabilities(base, requests, labels, pinned=held, weighting=weighting)
    for weighed, given_by in ((weighting, "probabilities"), (PLAIN, "plain")):
        scores_NL = reference(labels, sums_NL, weighed)
        for choice, scores_L in zip(found, scores_NL, strict=True):
            given_L, whole_L = torch.tensor(getattr(choice, given_by)), scores_L.softmax(-1)
            assert float((given_L - whole_L).abs().sum()) <= 2 * TOLERANCE + 1e-3
            assert math.isclose(float(given_L.sum()), 1.0, abs_tol=1e-6)
            best = int(given_L.argmax()) if given_by == "plain" else choice.best
            # float32 sums differ in the last digits by what stands in a row
            assert scores_L[best] >= scores_L.max() - 2e-4 / weighed.temperature


def counted(base: Base, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens that the model is asked to read, pass by pass."""
    passes: list[int] = []
    hidden = Base.hidden

    def count(self: Base, ids_N: torch.Tensor, positions_N: torch.Tensor, layout: Any) -> torch.Tensor:
        passes.append(len(ids_N))
        return hidden(self, ids_N, positions_N, layout)

    monkeypatch.setattr(Base, "hidden", count)
    return passes


WIDE = [(a, b, c, EOS) for a in range(10, 16) for b in range(20, 25) for c in (30, 31)]


def said_by(base: Base, ids: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The likeliest next tokens, one after the other."""
    with torch.inference_mode():
        for _ in range(count):
            layout = PackedSequences([len(ids)])
            hidden_ND = base.hidden(torch.tensor(ids), layout.positions_N, layout)
            ids = (*ids, int(base.logits(hidden_ND[-1:]).argmax()))
    return ids[-count:]


def test_a_sure_model_reads_little_and_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    base = sharp(pair("llama")[0], 12.0)
    requests = [LabelRequest(id=str(n), ids=(3, 4, 5 + n, 7)) for n in range(4)]
    labels = list(dict.fromkeys([*WIDE, *(said_by(base, request.ids, 4) for request in requests)]))
    passes = counted(base, monkeypatch)
    found = label_probabilities(base, requests, labels)
    prompts, nodes = sum(len(request.ids) for request in requests), len(LabelTrie(labels))
    assert passes[0] == prompts
    assert sum(passes[1:]) < len(requests) * 10 < len(requests) * nodes / 9
    passes.clear()
    assert [choice.best for choice in found] == score_labels(base, requests, labels).argmax(-1).tolist()
    assert passes == [prompts + len(requests) * nodes]


@pytest.mark.parametrize("by", [0.01, 1.0])
def test_no_node_is_read_twice_where_nothing_can_be_left_out(by: float, monkeypatch: pytest.MonkeyPatch) -> None:
    base, request = sharp(pair("llama")[0], by), LabelRequest(id="a", ids=(3, 4, 5))
    passes = counted(base, monkeypatch)
    label_probabilities(base, [request], WIDE)
    assert len(request.ids) < sum(passes) <= len(request.ids) + len(LabelTrie(WIDE))


def test_few_nodes_are_read_with_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    base, request = pair("llama")[0], LabelRequest(id="a", ids=(3, 4, 5))
    passes = counted(base, monkeypatch)
    label_probabilities(base, [request], [(5, 6, EOS), (9, EOS)])
    assert passes == [3 + 3]


def test_what_is_left_open_is_within_the_tolerance() -> None:
    """By the bounds alone, without a model: what `nodes_to_score` stops at leaves at most the tolerance open, and no
    label that can win."""
    torch.manual_seed(0)
    trie = LabelTrie(WIDE)
    for spread in (0.5, 3.0, 9.0):
        known = LabelBounds(trie, 20)
        logs_BE = -torch.rand(20, len(trie.tokens_E)).double() * spread
        known.scored_BR[:, 0] = True
        for _ in range(len(trie)):
            scored_BE = known.scored_BR[:, trie.parents_E]
            known.logs_BE[:, :-1] = torch.where(scored_BE, logs_BE, 0.0)
            next_BR, whole_BR = known.nodes_to_score([PLAIN])
            assert not (next_BR & ~whole_BR).any()
            assert not (next_BR & known.scored_BR).any()
            if not next_BR.any():
                break
            known.scored_BR |= next_BR
        done_BL = known.scored_BR[:, trie.nodes_LP].all(-1)
        bounds_BL = known.sums()
        open_B = (bounds_BL.exp() * ~done_BL).sum(-1)
        assert (open_B <= TOLERANCE * (bounds_BL.exp() * done_BL).sum(-1)).all()
        full = LabelBounds(trie, 20)
        full.logs_BE[:, :-1] = logs_BE
        assert bounds_BL.argmax(-1).equal(full.sums().argmax(-1))


def test_with_a_calibration_both_answers_are_told() -> None:
    base, request = pair("llama")[0], LabelRequest(id="a", ids=(3, 4, 5))
    labels, ids = ["one", "two", "three"], [(5, EOS), (6, 7, EOS), (8, EOS)]
    (plain,) = choose_labels(base, [request], labels, ids)
    assert plain.plain_text is None
    loser = min(plain.probabilities, key=plain.probabilities.__getitem__)
    shifted = Calibration(way="batch", offsets={loser: -50.0}, temperature=2.0)
    (weighed,) = choose_labels(base, [request], labels, ids, calibration=shifted)
    assert weighed.text == loser
    assert (weighed.plain_text, weighed.plain_probability) == (plain.text, plain.probability)


def test_what_is_asked_beside_a_question_changes_nothing() -> None:
    base = pair("llama")[0]
    requests = [LabelRequest(id=str(n), ids=(3, 4, 5 + n, 7)) for n in range(5)]
    for request, together in zip(requests, label_probabilities(base, requests, WIDE), strict=True):
        (alone,) = label_probabilities(base, [request], WIDE)
        assert together.probabilities == pytest.approx(alone.probabilities, abs=1e-5)


def test_scored_whole_the_choice_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    base, _ = pair("llama")
    monkeypatch.setattr(room, "MIN_PASS_TOKENS", 0)
    labels = [(1, 2, EOS), (1, 3, EOS), (2, EOS), (4, 4, 4, EOS)]
    requests = [LabelRequest(id="a", ids=(3, 5, 7)), LabelRequest(id="b", ids=(2,))]
    whole_NL = score_labels(base, requests, labels).softmax(-1)
    for waves, whole_L in zip(label_probabilities(base, requests, labels), whole_NL, strict=True):
        assert waves.best == int(whole_L.argmax())
        assert waves.probabilities == pytest.approx(whole_L.tolist(), abs=2 * TOLERANCE)
        assert sum(waves.probabilities) == pytest.approx(1.0)
