"""Imitating a teacher: as plain torch on one padded batch, with heads of other sizes, learning, and through a kill."""

import gc
import random
import weakref
from typing import NamedTuple

import pytest
import torch
from tiny_models import FAMILIES, VOCABULARY, answered, base_of, plain_model, stirred, with_lora
from transformers import AutoModelForCausalLM, LlamaConfig

from trimtab.base.records import Encoded
from trimtab.model.adapters.apply import trainable_parameters, unfreeze
from trimtab.model.attention import ATTENTION
from trimtab.model.load import Base
from trimtab.training import batch as batches
from trimtab.training import distill, encoded_rows, loop
from trimtab.training.batch import TrainingRow
from trimtab.training.distill import Distillation
from trimtab.training.encoded_rows import store_encoded_rows
from trimtab.training.loop import LoopSettings, TrainingJob, evaluate_objective, train_model


class Lesson(NamedTuple):
    """A teacher's answer after its prompt, encoded for the student and for the teacher."""

    student: TrainingRow
    teacher: Encoded


def distillation(lessons, teacher, **settings):
    read = [TrainingRow(encoded=lesson.teacher) for lesson in lessons]
    return Distillation([lesson.student for lesson in lessons], read, teacher, **settings)


def lessons_of(count, seed=0, begins=(), vocabulary=VOCABULARY, *, template=True):
    """Answers with weights, behind prompts that begin alike and differ between student and teacher, as chat
    templates (`template`) do."""
    draw = random.Random(seed)

    def tokens(most):
        return [draw.randrange(3, vocabulary) for _ in range(draw.randint(1, most))]

    found = []
    for _ in range(count):
        prompt, answer, before = [*begins, *tokens(9)], tokens(7), tokens(4) if template else []
        row = TrainingRow(encoded=answered(prompt, answer), weight=draw.choice([0.5, 1.0, 3.0]))
        found.append(Lesson(student=row, teacher=answered([*before, *prompt], answer)))
    return found


def answer_logits(model, encoded):
    """The logits of one padded batch at the answer's tokens, row by row."""
    longest = max(len(one.ids) for one in encoded)
    ids, seen = (torch.zeros(len(encoded), longest, dtype=torch.long) for _ in range(2))
    for at, one in enumerate(encoded):
        ids[at, : len(one.ids)], seen[at, : len(one.ids)] = torch.tensor(one.ids), 1
    logits = model(input_ids=ids, attention_mask=seen, use_cache=False).logits.float()
    return [
        logits[at, :-1][torch.tensor(one.trained[1:] + (False,) * (longest - len(one.ids)))]
        for at, one in enumerate(encoded)
    ]


def expected_loss(student, teacher, lessons):
    """The divergence written out again over one padded batch."""
    ours = answer_logits(student, [lesson.student.encoded for lesson in lessons])
    with torch.no_grad():
        theirs = answer_logits(teacher, [lesson.teacher for lesson in lessons])
    total, count = torch.zeros(()), 0.0
    for lesson, one, other in zip(lessons, ours, theirs, strict=True):
        common = min(one.shape[1], other.shape[1])
        log_q = other[:, :common].log_softmax(-1)
        nats = (log_q.exp() * (log_q - one.log_softmax(-1)[:, :common])).sum()
        total, count = total + lesson.student.weight * nats, count + lesson.student.weight * len(one)
    return total / count


def llama_with(vocabulary, attention):
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval().requires_grad_(False)


def as_base(model):
    return Base(model=model, tokenizer=None, precision="fp32", folder=None)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("tokens", [40, 512])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_plain_torch_on_one_padded_batch(family, tokens, kept, monkeypatch):
    monkeypatch.setattr(batches, "MICRO_TOKENS", tokens)
    if not kept:
        monkeypatch.setattr(distill, "MAX_BYTES", 0)
    base, plain, lessons = base_of(family), plain_model(family), lessons_of(6, begins=range(3, 21))
    unfreeze(base, "full")
    teacher, other = base_of(family, pairs_of_layers=2), plain_model(family, pairs_of_layers=2)
    objective = distillation(lessons, teacher, batch=6, seed=0)
    parts = objective.batches(0)
    assert (len(parts) > 1) == (tokens == 40)
    losses = [objective.loss(base, part) for part in parts]
    value = sum(loss.value for loss in losses)
    value.backward()
    expected = expected_loss(plain, other, lessons)
    expected.backward()
    assert float(value.detach()) == pytest.approx(float(expected.detach()), abs=1e-4)
    assert sum(float(loss.parts_M.sum()) for loss in losses) == pytest.approx(float(expected.detach()), abs=1e-4)
    for name, parameter in plain.named_parameters():
        assert torch.allclose(trainable_parameters(base.model)[name].grad, parameter.grad, atol=1e-3), name


@pytest.mark.parametrize("vocabulary", [VOCABULARY - 16, VOCABULARY + 16])
def test_heads_of_other_sizes_are_compared_over_the_tokens_that_both_have(vocabulary):
    base, plain = base_of("llama"), plain_model("llama")
    lessons = lessons_of(4, vocabulary=VOCABULARY - 16)
    unfreeze(base, "full")
    objective = distillation(lessons, as_base(llama_with(vocabulary, ATTENTION)), batch=4, seed=0)
    value = sum(objective.loss(base, part).value for part in objective.batches(0))
    value.backward()
    expected = expected_loss(plain, llama_with(vocabulary, "eager"), lessons)
    expected.backward()
    assert float(value.detach()) == pytest.approx(float(expected.detach()), abs=1e-4)
    for name, parameter in plain.named_parameters():
        assert torch.allclose(trainable_parameters(base.model)[name].grad, parameter.grad, atol=1e-3), name


def test_the_head_in_chunks_is_the_head_at_once(monkeypatch):
    def figures():
        base = base_of("phi")
        unfreeze(base, "full")
        objective = distillation(lessons_of(6), base_of("phi", pairs_of_layers=2), batch=6, seed=0)
        value = sum(objective.loss(base, part).value for part in objective.batches(0))
        (3 * value).backward()
        return float(value.detach()), {name: one.grad for name, one in trainable_parameters(base.model).items()}

    whole, grads = figures()
    monkeypatch.setattr("trimtab.training.losses.CHUNK_BYTES", 4 * VOCABULARY * 2)
    value, again = figures()
    assert value == pytest.approx(whole, abs=1e-5)
    for name, grad in grads.items():
        assert torch.allclose(grad, again[name], atol=1e-5), name


@pytest.mark.parametrize("kept", [True, False])
def test_losses_and_gradients_over_stored_answers_are_those_over_a_list(kept, monkeypatch):
    monkeypatch.setattr(encoded_rows, "MOST_BYTES_HELD", 0)
    if not kept:
        monkeypatch.setattr(distill, "MAX_BYTES", 0)
    lessons, (base, other) = lessons_of(9), (with_lora() for _ in range(2))
    rows, read = [one.student for one in lessons], [TrainingRow(encoded=one.teacher) for one in lessons]
    teacher = base_of("llama", pairs_of_layers=2)
    ours = Distillation(rows, read, teacher, batch=4, seed=0)
    theirs = Distillation(store_encoded_rows(rows), store_encoded_rows(read), teacher, batch=4, seed=0)
    for step in range(2 * ours.steps_per_epoch):
        losses = []
        for model, objective in ((base, ours), (other, theirs)):
            value = sum(objective.loss(model, part).value for part in objective.batches(step))
            value.backward()
            losses.append(float(value.detach()))
        assert losses[0] == losses[1] > 0
    for one, two in zip(
        trainable_parameters(base.model).values(), trainable_parameters(other.model).values(), strict=True
    ):
        assert torch.equal(one.grad, two.grad)


def test_the_teacher_reads_a_stream_of_answers_block_by_block(monkeypatch):
    teacher, rows = base_of("llama"), [lesson.student for lesson in lessons_of(10)]
    whole = distill.answer_states(teacher, rows)
    monkeypatch.setattr(distill, "BLOCK", 4)
    for one, two in zip(distill.answer_states(teacher, iter(rows)), whole, strict=True):
        assert torch.allclose(one, two, atol=1e-4)


def test_a_teacher_that_has_read_its_answers_is_let_go_of_but_for_its_head():
    base, teacher = with_lora(), base_of("llama", pairs_of_layers=2)
    layers = weakref.ref(teacher.model.model.layers[0])
    objective = distillation(lessons_of(4), teacher, batch=4, seed=0)
    del teacher
    gc.collect()
    assert layers() is None
    assert evaluate_objective(base, objective).dev_loss > 0


def test_of_a_teacher_that_is_the_student_nothing_is_learnt():
    base = with_lora()
    objective = distillation(lessons_of(6, template=False), base_of("llama"), batch=3, seed=0)
    assert evaluate_objective(base, objective).dev_loss == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_student_comes_near_its_teacher_on_answers_that_it_never_saw(dtype, tmp_path):
    teacher = with_lora(dtype=dtype)
    for seed in range(4):  # what it says differs by something that can be learnt
        stirred(teacher, seed)
    base = with_lora(dtype=dtype)
    unseen = distillation(lessons_of(12, seed=1, template=False), teacher, batch=12, seed=0)
    before = evaluate_objective(base, unseen).dev_loss
    objective = distillation(lessons_of(48, template=False), teacher, batch=8, seed=0)
    train_model(
        TrainingJob(
            base=base, objective=objective, settings=LoopSettings(learning_rate=1e-2, epochs=8), folder=tmp_path
        )
    )
    assert evaluate_objective(base, unseen).dev_loss < 0.6 * before


def test_killed_and_resumed_is_never_killed(tmp_path, monkeypatch):
    class KilledError(Exception):
        pass

    def job(base, folder, dies_at=None):
        teacher = base_of("llama", pairs_of_layers=2)
        dev = distillation(lessons_of(4, seed=1), teacher, batch=4, seed=0)

        def look():
            found = evaluate_objective(base, dev)
            looks.append(found)
            if dies_at is not None and len(looks) == dies_at:
                raise KilledError
            return found

        looks = []
        return TrainingJob(
            base=base,
            objective=distillation(lessons_of(9), teacher, batch=3, seed=0),
            settings=LoopSettings(learning_rate=1e-2, epochs=3, evaluations=4, patience=99),
            folder=folder,
            evaluate=look,
        )

    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    whole, again = with_lora(), with_lora()
    expected = train_model(job(whole, tmp_path / "whole"))
    with pytest.raises(KilledError):
        train_model(job(with_lora(), tmp_path / "cut", dies_at=3))
    assert train_model(job(again, tmp_path / "cut")).readings == expected.readings
    for key, value in trainable_parameters(whole.model).items():
        assert torch.equal(value, trainable_parameters(again.model)[key]), key
