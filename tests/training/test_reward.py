"""The Bradley-Terry objective: as plain torch on one padded batch, as TRL has it, whatever the batch, through a
kill."""

import json
import random
from pathlib import Path

import pytest
import torch
from tiny_models import VOCABULARY, answered, base_of, plain_model, with_lora

from trimtab.base.errors import InputError
from trimtab.base.progress import Progress
from trimtab.model.adapters.apply import trainable_parameters, unfreeze
from trimtab.model.classifier import ClassificationHead
from trimtab.training import batch as batches_of
from trimtab.training import loop
from trimtab.training.judged_answers import JudgedAnswers
from trimtab.training.loop import LoopSettings, TrainingJob, evaluate_objective, train_model
from trimtab.training.reward import SCORE_LABELS, BradleyTerry, bradley_terry

GOOD, BAD, END = 7, 8, 2


def pairs(count, seed=0, weights=False):
    """Pairs over prompts of random tokens: better answers hold one token somewhere, worse ones another; all end
    alike."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        prompt = [draw.randrange(10, VOCABULARY) for _ in range(draw.randint(2, 30))]
        sides = []
        for mark in (GOOD, BAD):
            answer = [draw.randrange(10, VOCABULARY) for _ in range(draw.randint(0, 6))]
            answer.insert(draw.randint(0, len(answer)), mark)
            sides.append(answered(prompt, [*answer, END]))
        rows.append(
            JudgedAnswers(chosen=sides[0], rejected=sides[1], weight=draw.choice([0.5, 3.0]) if weights else 1.0)
        )
    return rows


def fresh(dtype=torch.float32):
    return with_lora(dtype=dtype), ClassificationHead(SCORE_LABELS, 32, seed=3)


def padded_scores(model, head, answers):
    """The reference way: one batch padded to the right, the hidden state at each last token, the head on it."""
    longest = max(len(one.ids) for one in answers)
    ids = torch.tensor([[*one.ids, *[0] * (longest - len(one.ids))] for one in answers])
    hidden = model.base_model(input_ids=ids, attention_mask=(ids != 0).long(), use_cache=False).last_hidden_state
    last = hidden[torch.arange(len(answers)), torch.tensor([len(one.ids) - 1 for one in answers])]
    return last @ head.weight[0]


@pytest.mark.parametrize("tokens", [30, 512])
def test_loss_figures_and_gradients_are_those_of_plain_torch_on_one_padded_batch(tokens, monkeypatch):
    monkeypatch.setattr(batches_of, "MICRO_TOKENS", tokens)
    base, plain = base_of("llama"), plain_model("llama")
    unfreeze(base, "full")
    head, plain_head = ClassificationHead(SCORE_LABELS, 32, seed=3), ClassificationHead(SCORE_LABELS, 32, seed=3)
    rows = pairs(10, weights=True)
    objective = BradleyTerry(rows, head, batch=10, seed=0)
    parts = [objective.loss(base, batch) for batch in objective.batches(0)]
    assert (len(parts) > 1) == (tokens == 30)
    value = sum(part.value for part in parts)
    value.backward()
    chosen = padded_scores(plain, plain_head, [row.chosen for row in rows])
    rejected = padded_scores(plain, plain_head, [row.rejected for row in rows])
    weights = torch.tensor([row.weight for row in rows])
    gap = chosen - rejected
    told = gap.detach()
    expected = (torch.log1p(torch.exp(-gap)) * weights).sum() / weights.sum()
    expected.backward()
    assert float(value.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    accuracy, margin = (sum(float(part.figures[name]) for part in parts) for name in ("pair_accuracy", "margin"))
    assert accuracy == pytest.approx(float(((told > 0) * weights).sum() / weights.sum()), abs=1e-6)
    assert margin == pytest.approx(float((told * weights).sum() / weights.sum()), abs=1e-4)
    assert torch.allclose(head.weight.grad, plain_head.weight.grad, atol=1e-4)
    for key, one in plain.named_parameters():
        if one.grad is not None:
            assert torch.allclose(trainable_parameters(base.model)[key].grad, one.grad, atol=1e-4), key


def test_the_loss_is_that_of_trl_on_the_same_scores():
    """Figures that TRL's own trainer gave: see `benchmarks/peers/trl_losses.py`."""
    kept = json.loads((Path(__file__).parent / "trl_losses.json").read_text())["reward"]
    chosen, rejected, values = (torch.tensor(kept[name], dtype=torch.float64) for name in kept)
    torch.testing.assert_close(bradley_terry(chosen, rejected), values, atol=1e-5, rtol=0)
    assert len(values) == 12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_learns_which_answer_is_better_and_held_out_pairs_follow(dtype, tmp_path):
    base, head = fresh(dtype)
    unseen = BradleyTerry(pairs(20, seed=5), head, batch=20, seed=0)
    before, events = evaluate_objective(base, unseen), []
    train_model(
        TrainingJob(
            base=base,
            objective=BradleyTerry(pairs(40), head, batch=10, seed=0),
            settings=LoopSettings(learning_rate=2e-2, epochs=6, evaluations=2, patience=99),
            folder=tmp_path,
            evaluate=lambda: evaluate_objective(base, unseen),
            progress=Progress(listeners=[events.append]),
        )
    )
    after = evaluate_objective(base, unseen)
    assert after.dev_loss < before.dev_loss
    assert after.figures["pair_accuracy"] > max(0.8, before.figures["pair_accuracy"])
    assert sum(after.rows) / len(after.rows) == pytest.approx(after.dev_loss, rel=1e-3)
    assert {"pair_accuracy", "margin"} <= next(event for event in events if "loss" in event).keys()


def test_killed_and_resumed_is_never_killed(tmp_path, monkeypatch):
    def job(base, head, folder, **more):
        unseen = BradleyTerry(pairs(8, seed=5), head, batch=8, seed=0)
        return TrainingJob(
            base=base,
            objective=BradleyTerry(pairs(18), head, batch=6, seed=0),
            settings=LoopSettings(learning_rate=1e-2, epochs=4, evaluations=2, patience=99),
            folder=folder,
            evaluate=lambda: evaluate_objective(base, unseen),
            **more,
        )

    class KilledError(Exception):
        pass

    def die(event):
        if event["step"] == 5:
            raise KilledError

    whole, whole_head = fresh()
    expected = train_model(job(whole, whole_head, tmp_path / "whole"))
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    with pytest.raises(KilledError):
        train_model(job(*fresh(), tmp_path / "cut", progress=Progress(listeners=[die])))
    again, again_head = fresh()
    result = train_model(job(again, again_head, tmp_path / "cut"))
    assert result.readings == expected.readings
    assert torch.equal(whole_head.weight, again_head.weight)
    for key, value in trainable_parameters(whole.model).items():
        assert torch.equal(value, trainable_parameters(again.model)[key]), key


def test_pairs_without_weight_are_left_out_and_none_at_all_is_refused():
    head = ClassificationHead(SCORE_LABELS, 32)
    gone = [JudgedAnswers(chosen=row.chosen, rejected=row.rejected, weight=0.0) for row in pairs(2)]
    assert len(BradleyTerry([*gone, *pairs(3)], head, batch=4, seed=0).rows) == 3
    with pytest.raises(InputError, match=r"no pairs of a better and a worse answer to train on; reward needs them"):
        BradleyTerry(gone, head, batch=4, seed=0)
