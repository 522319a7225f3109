"""What rows begin with in common is read once: the tree holds every row, and nothing but rounding changes."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import FAMILIES, VOCABULARY, base_of, padded_loss, plain_model

from trimtab.base.common_prefix import common_prefix_length
from trimtab.base.records import Encoded
from trimtab.model.adapters.apply import add_lora, attach, trainable_parameters, unfreeze
from trimtab.training import batch as batches_of
from trimtab.training.batch import (
    MIN_SHARED_TOKENS,
    TrainingRow,
    micro_batches,
    pack_rows,
    prefix_tree,
    without_sharing,
)
from trimtab.training.sft import SupervisedObjective

pytestmark = pytest.mark.no_kernels


def row(prompt, answer, weight=1.0):
    ids = (*prompt, *answer)
    return TrainingRow(encoded=Encoded(ids=ids, trained=(False,) * len(prompt) + (True,) * len(answer)), weight=weight)


def family_tree(seed=0, count=12):
    """Rows behind one instruction; some share a question too, one is another's beginning, two are the same."""
    draw = random.Random(seed)

    def some(most):
        return tuple(draw.randrange(3, VOCABULARY) for _ in range(draw.randint(1, most)))

    instruction = tuple(draw.randrange(3, VOCABULARY) for _ in range(20))
    rows: list[TrainingRow] = []
    while len(rows) < count:
        question = (*instruction, *(draw.randrange(3, VOCABULARY) for _ in range(draw.randint(2, 24))))
        rows += [row(question, some(9), draw.choice([0.5, 1.0, 3.0])) for _ in range(draw.randint(1, 3))]
    first = rows[0].encoded
    begins = first.trained.index(True)
    rows.append(row(first.ids[:begins], (*first.ids[begins:], 5, 6, 7)))
    rows.append(row(first.ids[:begins], first.ids[begins:]))
    rows.append(row(some(12), some(6)))  # shares nothing
    return rows


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=60).map(tuple), min_size=1, max_size=12))
def test_every_row_is_its_path(rows):
    tree = prefix_tree(rows)
    for ids, path in zip(rows, tree.paths, strict=True):
        assert tuple(token for run in path for token in tree.runs[run]) == ids
        assert [tree.parents[run] for run in path] == [None, *path[:-1]]
    assert tree.tokens <= sum(map(len, rows))
    assert all(parent is None or parent < number for number, parent in enumerate(tree.parents))
    assert all(len(tree.runs[parent]) >= MIN_SHARED_TOKENS for parent in tree.parents if parent is not None)


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), max_size=40), st.integers(0, 40))
def test_what_two_rows_share_is_counted_right(left, right, common):
    right = [*left[:common], *right]
    expected = next((at for at, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]), None)
    assert common_prefix_length(tuple(left), tuple(right)) == (
        min(len(left), len(right)) if expected is None else expected
    )


def test_instruction_and_prompts_are_read_once():
    instruction, asked = tuple(range(100, 120)), tuple(range(200, 230))
    rows = [(*instruction, *asked, 1), (*instruction, *asked, 2, 3), (*instruction, 4), (*instruction, *asked, 1)]
    tree = prefix_tree(rows)
    assert sorted(tree.runs) == sorted([instruction, asked, (1,), (1,), (2, 3), (4,)])
    assert tree.tokens == 55
    assert sum(map(len, rows)) == 175


def test_rows_that_share_little_are_laid_as_they_come():
    rows = [tuple(range(start, start + 50)) for start in (300, 100, 200)]
    assert prefix_tree(rows) == without_sharing(rows)
    alike = [(*range(MIN_SHARED_TOKENS), *range(start, start + 400)) for start in (300, 100)]
    assert prefix_tree(alike) == without_sharing(alike)


def test_a_pass_holds_more_rows_where_they_share():
    instruction = tuple(range(3, 43))
    rows = [row(instruction, (50 + number,) * 10) for number in range(30)]
    parts = micro_batches([(one,) for one in rows], 100)
    assert [len(part) for part in parts] == [6] * 5
    assert all(pack_rows([one for unit in part for one in unit]).ids_N.shape[0] == 100 for part in parts)
    assert len(micro_batches([(one,) for one in rows], 100, shared=False)) == 15


@pytest.mark.parametrize("tokens", [60, 4096])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_the_padded_batch(family, tokens, monkeypatch):
    monkeypatch.setattr(batches_of, "MICRO_TOKENS", tokens)
    base, twin, rows = base_of(family), plain_model(family), family_tree()
    unfreeze(base, "full")
    objective = SupervisedObjective(rows, batch=len(rows), seed=0)
    batches = objective.batches(0)
    assert sum(batch.ids_N.shape[0] for batch in batches) < sum(batch.row_tokens for batch in batches)
    assert sum(batch.row_tokens for batch in batches) == sum(len(one.encoded.ids) for one in rows)
    value = sum(objective.loss(base, batch).value for batch in batches)
    value.backward()
    expected = padded_loss(twin, rows)
    expected.backward()
    assert float(value.detach()) == pytest.approx(float(expected.detach()), abs=1e-4)
    ours = trainable_parameters(base.model)
    for name, parameter in twin.named_parameters():
        assert parameter.grad is None or torch.allclose(ours[name].grad, parameter.grad, atol=1e-3), name


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "bitfit", "soft-prompt", "prefix"])
def test_every_method_trains_on_a_tree_as_on_rows_laid_end_to_end(method, monkeypatch):
    def gradients(least):
        monkeypatch.setattr(batches_of, "MIN_SHARED_TOKENS", least)
        base, rows = base_of("llama"), family_tree(1)
        attach(base, method, 0, rank=4, virtual_tokens=5)
        objective = SupervisedObjective(rows, batch=len(rows), seed=0)
        batches = objective.batches(0)
        value = sum(objective.loss(base, batch).value for batch in batches)
        value.backward()
        grads = {name: one.grad.clone() for name, one in trainable_parameters(base.model).items()}
        return sum(batch.ids_N.shape[0] for batch in batches), float(value.detach()), grads

    (few, shared, own), (many, apart, other) = gradients(MIN_SHARED_TOKENS), gradients(10_000)
    assert few < many
    assert shared == pytest.approx(apart, abs=1e-5)
    for name, grad in own.items():
        assert torch.allclose(grad, other[name], atol=1e-4), name


def test_each_row_tells_its_own_part_of_the_loss():
    base, rows = base_of("llama"), family_tree(2)
    add_lora(base, 4, 8.0, seed=0)
    objective = SupervisedObjective(rows, batch=len(rows), seed=0)
    found: dict[tuple[int, ...], float] = {}
    for part in micro_batches([(one,) for one in rows], 4096):
        flat = [one for unit in part for one in unit]
        batch = pack_rows(flat)
        sums = torch.zeros(batch.rows).index_add(0, batch.row_M, objective.loss(base, batch).parts_M)
        found |= {one.encoded.ids: float(value) for one, value in zip(flat, sums, strict=True)}
    for one in rows:
        alone = objective.loss(base, pack_rows([one])).parts_M.sum()
        if [other.encoded.ids for other in rows].count(one.encoded.ids) == 1:
            assert found[one.encoded.ids] == pytest.approx(float(alone), abs=1e-4)
