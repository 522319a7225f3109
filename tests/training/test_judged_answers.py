"""Stored judgements are those that went in, whether in memory or in a file, and train to the same bits."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import stirred, two_answers, with_lora

from trimtab.base.errors import InputError
from trimtab.base.records import Encoded
from trimtab.model.adapters.apply import trainable_parameters
from trimtab.model.classifier import ClassificationHead
from trimtab.training import encoded_rows, preference
from trimtab.training.judged_answers import JudgedAnswers, fitting_rows, store_judged_answers
from trimtab.training.preference import PAIR_LOSSES, PreferenceObjective, answer_log_probabilities
from trimtab.training.reward import SCORE_LABELS, BradleyTerry

pytestmark = pytest.mark.no_kernels


@st.composite
def encoded(draw: st.DrawFn) -> Encoded:
    ids = tuple(draw(st.lists(st.integers(0, 2**31 - 1), max_size=5)))
    return Encoded(ids=ids, trained=tuple(draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))))


judgement = st.builds(
    JudgedAnswers, chosen=st.none() | encoded(), rejected=st.none() | encoded(), weight=st.sampled_from([0.0, 0.3, 2.0])
)


def judged(count: int, seed: int = 0) -> list[JudgedAnswers]:
    """Pairs, good answers and bad answers to random prompts, some without weight."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        sides = two_answers(draw, 7, 8)
        row = JudgedAnswers(chosen=sides[0], rejected=sides[1], weight=draw.choice([0.0, 0.3, 2.0]))
        rows.append(
            replace(row, chosen=None) if number % 5 == 1 else replace(row, rejected=None) if number % 5 == 2 else row
        )
    return rows


@pytest.mark.parametrize("most", [0, 30, 2**26])
@given(rows=st.lists(judgement, max_size=8))
def test_stored_judgements_are_read_as_they_were(most: int, rows: list[JudgedAnswers]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoded_rows, "MOST_BYTES_HELD", most)
        stored = store_judged_answers(iter(rows))
    assert list(stored) == rows == stored[:]
    assert stored.tokens == sum(len(answer.ids) for row in rows for answer in row.answers)
    for pairs in (True, False):
        wanted = [row for row in rows if row.weight > 0 and (len(row.answers) == 2 or not pairs)]
        usable = stored.usable(pairs=pairs)
        assert list(usable) == wanted
        assert usable.tokens == sum(len(answer.ids) for row in wanted for answer in row.answers)


def test_many_judgements_are_read_once_and_lie_in_a_file_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoded_rows, "MOST_BYTES_HELD", 1000)
    rows, read = judged(200), 0

    def stream():
        nonlocal read
        for row in rows:
            read += 1
            yield row

    stored, gone = fitting_rows(stream(), 12, tmp_path / "new")
    fitting = [row for row in rows if all(len(answer.ids) <= 12 for answer in row.answers)]
    assert (read, gone) == (200, 200 - len(fitting))
    assert 0 < gone < 200
    assert list(stored) == fitting
    assert not isinstance(stored._answers._records, bytearray)
    assert list((tmp_path / "new").iterdir()) == []  # the file has no name


def test_a_stream_is_read_no_further_than_an_answer_without_a_token() -> None:
    good, read = judged(1)[0], []

    def stream():
        for number in range(9):
            read.append(number)
            yield JudgedAnswers(chosen=Encoded(ids=(10,), trained=(False,)), rejected=None) if number == 2 else good

    with pytest.raises(InputError, match="preference 3 has an answer without a token"):
        fitting_rows(stream(), 20)
    assert read == [0, 1, 2]


def objective(name: str, base, rows):
    if name == "reward":
        return BradleyTerry(rows, ClassificationHead(SCORE_LABELS, 32, seed=3), batch=7, seed=1)
    return PreferenceObjective(base, rows, name, batch=7, seed=1)


def losses(name: str, base, rows) -> list[float]:
    """Return the loss of each step of two epochs after the reference was scored; gradients add up in the model."""
    stirred(base)
    found = objective(name, base, rows)
    stirred(base, 2)
    values = []
    for step in range(2 * found.steps_per_epoch):
        parts = [found.loss(base, batch).value for batch in found.batches(step)]
        sum(parts).backward()
        values.append(float(sum(parts).detach()))
    return values


@pytest.mark.parametrize("name", [*PAIR_LOSSES, "kto", "reward"])
def test_losses_and_gradients_over_rows_in_a_file_are_those_over_a_list(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, (base, other) = judged(40), (with_lora() for _ in range(2))
    ours = losses(name, base, rows)
    monkeypatch.setattr(encoded_rows, "MOST_BYTES_HELD", 0)
    assert losses(name, other, store_judged_answers(rows)) == ours
    assert len(set(ours)) > 4
    for one, two in zip(
        trainable_parameters(base.model).values(), trainable_parameters(other.model).values(), strict=True
    ):
        assert torch.equal(one.grad, two.grad)


def test_log_probabilities_of_a_stream_are_computed_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    base, rows = with_lora(), judged(30)
    stirred(base)
    whole = answer_log_probabilities(base, [row.answers for row in rows])
    monkeypatch.setattr(preference, "BLOCK", 4)
    filled: list[int] = []
    plain = preference.micro_batches
    monkeypatch.setattr(preference, "micro_batches", lambda units: filled.append(len(units)) or plain(units))
    found = answer_log_probabilities(base, (row.answers for row in rows))
    assert filled == [4] * 7 + [2]
    assert [len(one) for one in found] == [len(row.answers) for row in rows]
    assert [value for both in found for value in both] == pytest.approx(
        [value for both in whole for value in both], abs=1e-4
    )
