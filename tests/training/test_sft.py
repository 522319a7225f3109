"""Rows into batches: labels, weights, refusals; documents cut without losing a token; predictions of time and
memory."""

import pytest
import torch
from tiny_models import base_of, random_rows

from trimtab.base.errors import InputError
from trimtab.base.records import Document, Encoded, Section
from trimtab.model.adapters.apply import add_lora, trainable_parameters
from trimtab.training.batch import TrainingRow, pack_rows
from trimtab.training.estimates import measure_rate, memory_mb
from trimtab.training.sft import SupervisedObjective, answer_rows, document_rows

pytestmark = pytest.mark.no_kernels


def encoded(*trained):
    return Encoded(ids=tuple(range(3, 3 + len(trained))), trained=trained)


def test_a_row_with_no_answer_token_in_the_loss_is_refused():
    good = (encoded(False, True), 1.0)
    for bad in (encoded(False, False, False), encoded(True, False), encoded(True)):
        with pytest.raises(InputError, match="row 12 has no answer token in the loss"):
            answer_rows([good] * 11 + [(bad, 1.0)])


def test_a_weight_of_zero_leaves_a_row_out():
    rows = answer_rows([(encoded(False, True), 0.0), (encoded(False, True, True), 2.0)])
    assert [row.weight for row in rows] == [2.0]
    with pytest.raises(InputError, match="weight above 0"):
        answer_rows([(encoded(False, True), 0.0)])


def test_labels_are_the_next_trained_token_and_stay_within_their_row():
    batch = pack_rows(
        [TrainingRow(encoded=encoded(False, True, True)), TrainingRow(encoded=encoded(True, True), weight=0.5)]
    )
    assert batch.ids_N.tolist() == [3, 4, 5, 3, 4]
    assert batch.scored_M.tolist() == [0, 1, 3]
    assert batch.labels_M.tolist() == [4, 5, 4]
    assert batch.weights_M.tolist() == [1.0, 1.0, 0.5]
    assert batch.trained_tokens == 3


def test_a_row_says_what_is_scored_and_one_position_may_have_several_labels():
    forked = TrainingRow(encoded=encoded(False, False), scored=((1, 7), (1, 9)), weight=2.0)
    batch = pack_rows(
        [TrainingRow(encoded=encoded(False, True)), TrainingRow(encoded=encoded(True, True), weight=0.0), forked]
    )
    assert batch.ids_N.tolist() == [3, 4] * 3
    assert batch.scored_M.tolist() == [0, 5, 5]
    assert batch.labels_M.tolist() == [4, 7, 9]
    assert batch.weights_M.tolist() == [1.0, 2.0, 2.0]


def test_two_labels_at_one_position_are_two_rows():
    """Loss and gradients of a prompt that is followed by either token, computed once and computed twice."""
    base = base_of("llama")
    add_lora(base, 2, 4.0, seed=0)
    ids = tuple(range(3, 9))
    forked = TrainingRow(encoded=Encoded(ids=ids, trained=(False,) * 6), scored=((5, 20), (5, 30)))
    apart = [TrainingRow(encoded=Encoded(ids=(*ids, token), trained=(*(False,) * 6, True))) for token in (20, 30)]

    def figures(rows):
        objective = SupervisedObjective(rows, batch=2, seed=0)
        [batch] = objective.batches(0)
        loss = objective.loss(base, batch).value
        loss.backward()
        grads = {name: value.grad for name, value in trainable_parameters(base.model).items()}
        base.model.zero_grad(set_to_none=True)
        return float(loss.detach()), grads

    (once, left), (twice, right) = figures([forked]), figures(apart)
    assert once == pytest.approx(twice, abs=1e-6)
    assert all(torch.allclose(left[name], right[name], atol=1e-6) for name in left)


def test_nothing_is_cut_from_a_long_row():
    row = TrainingRow(encoded=encoded(*[False] * 5000, True))
    [batch] = SupervisedObjective([row], batch=1, seed=0).batches(0)
    assert batch.trained_tokens == 1
    assert len(batch.ids_N) == 5001


class Characters:
    """Stands for the encoder: one id a character."""

    def document(self, document):
        ids = tuple(ord(letter) for letter in document.sections[0].text)
        return Encoded(ids=ids, trained=(True,) * len(ids))


@pytest.mark.parametrize("length", [2, 7, 8, 9, 16, 17])
def test_documents_are_cut_in_pieces_whose_every_token_counts(length):
    text = "abcdefghijklmnopqrstuvwxyz"[:length]
    document = Document(id="d", title="", source="", sections=(Section(path=(), text=text),), digest="")
    rows = document_rows([document], Characters(), tokens=8)
    assert all(1 < len(row.encoded.ids) <= 8 for row in rows)
    assert all(all(row.encoded.trained) for row in rows)
    joined = "".join(chr(token) for row in rows for token in row.encoded.ids)
    assert joined in (text, text[:-1])  # a last piece of one token predicts nothing


def test_measuring_the_rate_moves_nothing():
    base = base_of("llama")
    add_lora(base, 2, 4.0, seed=0)
    before = {name: value.detach().clone() for name, value in trainable_parameters(base.model).items()}
    rows = random_rows(8)
    rate = measure_rate(base, rows, 4, seconds=0.05)
    tokens = sum(len(row.encoded.ids) for row in rows)
    assert rate.tokens_per_second > 0
    assert rate.epoch_seconds(tokens, cached=True) == pytest.approx(tokens / rate.tokens_per_second)
    assert all(
        torch.equal(before[name], value) and value.grad is None
        for name, value in trainable_parameters(base.model).items()
    )


def test_memory_grows_with_what_moves_and_with_the_pass():
    base = base_of("llama")
    frozen = memory_mb(base)
    add_lora(base, 2, 4.0, seed=0)
    assert memory_mb(base) > frozen
    assert memory_mb(base, pass_tokens=4096) > memory_mb(base, pass_tokens=2048)
    assert memory_mb(base, answer_mb=5000.0) > memory_mb(base) + 4000  # answers that take more than a pass
    assert memory_mb(base, answer_mb=1e-9) == pytest.approx(memory_mb(base), rel=0.02)
    assert memory_mb(base, dev_eval_mb=5000.0) > memory_mb(
        base, answer_mb=5000.0
    )  # moments are gone when all is trained
    assert memory_mb(base, dev_eval_mb=1e-9) == pytest.approx(memory_mb(base), rel=0.02)
    assert memory_mb(base, rollout_mb=500.0) > memory_mb(base) + 400
