"""Losses over judged answers: as plain torch on one padded batch, as TRL has them, whatever the batch, and through a
kill."""

import json
import math
import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_models import answered, base_of, plain_model, stirred, two_answers, with_lora

from trimtab.base.errors import InputError
from trimtab.base.progress import Progress
from trimtab.base.records import Encoded
from trimtab.model.adapters.apply import trainable_parameters, unfreeze
from trimtab.training import batch as batches_of
from trimtab.training import loop
from trimtab.training import preference as preferences
from trimtab.training.judged_answers import JudgedAnswers, fitting_rows
from trimtab.training.loop import LoopSettings, TrainingJob, evaluate_objective, train_model
from trimtab.training.preference import (
    BETA,
    PAIR_LOSSES,
    SIMPO_BETA,
    SIMPO_MARGIN,
    WITHOUT_REFERENCE,
    PairLogProbabilities,
    PreferenceObjective,
    answer_log_probabilities,
    kto,
    mismatched_answer,
)

LOSSES = (*PAIR_LOSSES, "kto")
GOOD, BAD = 7, 8  # the token that the better and the worse answer begin with


def judged(count, seed=0, weights=False, alone=False):
    """Judgements over prompts of random tokens: better answers hold one token, worse ones another."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        sides = two_answers(draw, GOOD, BAD)
        if alone:
            sides[draw.randrange(2)] = None
        weight = draw.choice([0.5, 1.0, 3.0]) if weights else 1.0
        rows.append(JudgedAnswers(chosen=sides[0], rejected=sides[1], weight=weight))
    return rows


def mismatched(objective):
    """Return the answers that KTO reads after other prompts."""
    return [mismatched_answer(objective.rows, objective._partners, number) for number in range(len(objective.rows))]


def padded_sums(model, answers):
    """The reference way: one batch padded to the right, log-softmax over the whole vocabulary, answer tokens picked
    out."""
    longest = max(len(one.ids) for one in answers)
    ids, seen = (torch.zeros(len(answers), longest, dtype=torch.long) for _ in range(2))
    marked = torch.zeros(len(answers), longest, dtype=torch.bool)
    for at, one in enumerate(answers):
        ids[at, : len(one.ids)], seen[at, : len(one.ids)] = torch.tensor(one.ids), 1
        marked[at, : len(one.ids)] = torch.tensor(one.trained)
    logits = model(input_ids=ids, attention_mask=seen, use_cache=False).logits
    log_p = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return (log_p * marked[:, 1:]).sum(-1), marked[:, 1:].sum(-1)


def expected_loss(name, policy, reference, rows):
    """Each loss written out again, from its paper, over padded batches of two plain models."""
    weights = torch.tensor([row.weight for row in rows])
    chosen, chosen_tokens = padded_sums(policy, [row.chosen for row in rows])
    rejected, rejected_tokens = padded_sums(policy, [row.rejected for row in rows])
    with torch.no_grad():
        chosen_before, _ = padded_sums(reference, [row.chosen for row in rows])
        rejected_before, _ = padded_sums(reference, [row.rejected for row in rows])
    gained, lost = chosen - chosen_before, rejected - rejected_before
    if name == "dpo":
        values = torch.log1p(torch.exp(-BETA * (gained - lost)))
    elif name == "ipo":
        values = (gained / chosen_tokens - lost / rejected_tokens - 0.5 / BETA) ** 2
    elif name == "simpo":
        gap = SIMPO_BETA * (chosen / chosen_tokens - rejected / rejected_tokens) - SIMPO_MARGIN
        values = torch.log1p(torch.exp(-gap))
    elif name == "orpo":
        right, wrong = (chosen / chosen_tokens).exp(), (rejected / rejected_tokens).exp()
        odds = (right / (1 - right)) / (wrong / (1 - wrong))
        values = -right.log() - BETA * torch.sigmoid(odds.log()).log()
    else:
        raise AssertionError(name)
    return (values * weights).sum() / weights.sum()


@pytest.mark.parametrize("tokens", [30, 512])
@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_loss_and_gradients_are_those_of_plain_torch_on_one_padded_batch(name, tokens, monkeypatch):
    monkeypatch.setattr(batches_of, "MICRO_TOKENS", tokens)
    base, policy, reference = base_of("llama"), plain_model("llama"), plain_model("llama")
    rows = judged(10, weights=True)
    unfreeze(base, "full")
    objective = PreferenceObjective(base, rows, name, batch=10, seed=0)
    stirred(base)
    policy.load_state_dict(base.model.state_dict())
    parts = [objective.loss(base, batch) for batch in objective.batches(0)]
    assert (len(parts) > 1) == (tokens == 30)
    value = sum(part.value for part in parts)
    value.backward()
    expected = expected_loss(name, policy, reference, rows)
    expected.backward()
    assert float(value.detach()) == pytest.approx(float(expected.detach()), abs=1e-4)
    for key, grad in ((key, one.grad) for key, one in policy.named_parameters()):
        assert torch.allclose(trainable_parameters(base.model)[key].grad, grad, atol=1e-3), key


@pytest.mark.parametrize("kind", ["good", "bad"])
def test_kto_over_one_kind_of_judgement_is_the_mean_over_it(kind):
    """No kind is the rarer one: nothing is divided by how many there are of the only one, on dev neither."""
    base = base_of("llama")
    rows = [
        JudgedAnswers(chosen=one.chosen if kind == "good" else None, rejected=one.rejected if kind == "bad" else None)
        for one in judged(6)
    ]
    objective = PreferenceObjective(base, rows, "kto", batch=6, seed=0)
    value = sum(float(objective.loss(base, batch).value) for batch in objective.batches(0))
    assert value == pytest.approx(0.5, abs=1e-3)  # 1 - sigma(0): the reference itself
    assert evaluate_objective(base, objective).dev_loss == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("tokens", [30, 512])
def test_kto_is_its_formula_over_answers_of_which_some_are_put_to_other_prompts(tokens, monkeypatch):
    monkeypatch.setattr(batches_of, "MICRO_TOKENS", tokens)
    base, policy, reference = base_of("llama"), plain_model("llama"), plain_model("llama")
    rows = judged(11, alone=True)
    unfreeze(base, "full")
    objective = PreferenceObjective(base, rows, "kto", batch=11, seed=0)
    stirred(base)
    policy.load_state_dict(base.model.state_dict())
    value = sum(objective.loss(base, batch).value for batch in objective.batches(0))
    value.backward()
    apart_answers = mismatched(objective)
    with torch.no_grad():
        apart = padded_sums(policy, apart_answers)[0] - padded_sums(reference, apart_answers)[0]
        z = max(0.0, float(apart.mean()))
        before = padded_sums(reference, [row.answers[0] for row in rows])[0]
    ratios = padded_sums(policy, [row.answers[0] for row in rows])[0] - before
    good = torch.tensor([row.chosen is not None for row in rows])
    few = min(int(good.sum()), int((~good).sum()))
    weight = torch.where(good, few / good.sum(), few / (~good).sum())
    each = torch.where(good, 1 - torch.sigmoid(BETA * (ratios - z)), 1 - torch.sigmoid(BETA * (z - ratios)))
    expected = (weight * each).mean()
    expected.backward()
    assert float(value.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    for key, one in policy.named_parameters():
        assert torch.allclose(trainable_parameters(base.model)[key].grad, one.grad, atol=1e-3), key
    prompts = [row.answers[0].ids[: row.answers[0].trained.index(True)] for row in rows]
    for number, one in enumerate(apart_answers):
        begins = one.trained.index(True)
        assert one.ids[:begins] in prompts[:number] + prompts[number + 1 :]
        assert one.ids[begins:] == rows[number].answers[0].ids[len(prompts[number]) :]


def test_losses_are_those_of_trl_on_the_same_log_probabilities():
    """Figures that TRL's own trainers gave for tiny models: see `benchmarks/peers/trl_losses.py`."""
    kept = json.loads((Path(__file__).parent / "trl_losses.json").read_text())
    for case in kept["paired"]:
        sides = PairLogProbabilities(
            *(torch.tensor(case[name], dtype=torch.float64) for name in PairLogProbabilities._fields)
        )
        ours = PAIR_LOSSES[case["loss"]](sides)
        torch.testing.assert_close(ours, torch.tensor(case["values"], dtype=torch.float64), atol=1e-5, rtol=0)
    assert {case["loss"] for case in kept["paired"]} == set(kept["covers"]) - {"kto", "grpo", "rloo"}
    for case in kept["kto"]:
        good, ratios = torch.tensor(case["good"]), torch.tensor(case["log_ratios"], dtype=torch.float64)
        ours = kto(good, ratios, case["divergence"], (1.0, 1.0))
        torch.testing.assert_close(ours, torch.tensor(case["values"], dtype=torch.float64), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_learns_which_answer_is_better_and_held_out_pairs_follow(name, dtype, tmp_path):
    base = with_lora(dtype=dtype)
    objective = PreferenceObjective(base, judged(60), name, batch=10, seed=0)
    unseen = PreferenceObjective(base, judged(20, seed=5), name, batch=20, seed=0)
    before = evaluate_objective(base, unseen)
    events: list = []
    train_model(
        TrainingJob(
            base=base,
            objective=objective,
            settings=LoopSettings(learning_rate=2e-2, epochs=8, evaluations=2, patience=99),
            folder=tmp_path,
            evaluate=lambda: evaluate_objective(base, unseen),
            progress=Progress(listeners=[events.append]),
        )
    )
    after = evaluate_objective(base, unseen)
    assert after.dev_loss < before.dev_loss
    assert after.figures["pair_accuracy"] > before.figures["pair_accuracy"] + 0.3
    assert after.figures["margin"] > before.figures["margin"]
    assert sum(after.rows) / len(after.rows) == pytest.approx(after.dev_loss, rel=1e-3)
    steps = [event for event in events if event["stage"] == "train" and "loss" in event]
    assert {"pair_accuracy", "margin"} <= steps[0].keys()
    if name == "dpo":
        assert steps[0]["loss"] == pytest.approx(math.log(2), abs=0.02)  # the policy is the reference still
    assert all(bool(value.isfinite().all()) for value in trainable_parameters(base.model).values())


def test_a_step_is_the_same_however_it_is_split(monkeypatch):
    def gradients(tokens):
        monkeypatch.setattr(batches_of, "MICRO_TOKENS", tokens)
        base = with_lora()
        stirred(base)
        objective = PreferenceObjective(base, judged(12, weights=True), "dpo", batch=12, seed=0)
        stirred(base, 2)
        parts = [objective.loss(base, batch) for batch in objective.batches(0)]
        sum(part.value for part in parts).backward()
        return len(parts), {name: value.grad.clone() for name, value in trainable_parameters(base.model).items()}

    (few, whole), (many, split) = gradients(4096), gradients(40)
    assert few == 1 < many
    for name, grad in whole.items():
        assert torch.allclose(grad, split[name], atol=1e-5), name


@pytest.mark.parametrize("name", LOSSES)
def test_killed_and_resumed_is_never_killed(name, tmp_path, monkeypatch):
    def job(base, folder, **more):
        objective = PreferenceObjective(base, judged(18), name, batch=6, seed=0)
        settings = LoopSettings(learning_rate=1e-2, epochs=4, evaluations=2, patience=99)
        unseen = PreferenceObjective(base, judged(8, seed=5), name, batch=8, seed=0)
        return TrainingJob(
            base=base,
            objective=objective,
            settings=settings,
            folder=folder,
            evaluate=lambda: evaluate_objective(base, unseen),
            **more,
        )

    class KilledError(Exception):
        pass

    def die(event):
        if event["step"] == 5:
            raise KilledError

    whole = with_lora()
    expected = train_model(job(whole, tmp_path / "whole"))
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    with pytest.raises(KilledError):
        train_model(job(with_lora(), tmp_path / "cut", progress=Progress(listeners=[die])))
    again = with_lora()
    result = train_model(job(again, tmp_path / "cut"))
    assert result.readings == expected.readings
    for key, value in trainable_parameters(whole.model).items():
        assert torch.equal(value, trainable_parameters(again.model)[key]), key


def test_sums_are_those_of_plain_torch_whatever_stands_beside():
    base, plain = base_of("llama"), plain_model("llama")
    answers = [side for row in judged(15) for side in row.answers]
    with torch.no_grad():
        expected = padded_sums(plain, answers)[0].tolist()
    found = answer_log_probabilities(base, [row.answers for row in judged(15)])
    assert [one for both in found for one in both] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_rows_that_a_loss_cannot_use_are_left_out_or_refused(name):
    base, alone = with_lora(), judged(6, alone=True)
    if name == "kto":
        assert len(PreferenceObjective(base, alone, name, batch=4, seed=0).rows) == 6
    else:
        assert len(PreferenceObjective(base, [*alone, *judged(3)], name, batch=4, seed=0).rows) == 3
        with pytest.raises(InputError, match="no pairs of a better and a worse answer"):
            PreferenceObjective(base, alone, name, batch=4, seed=0)
    with pytest.raises(InputError, match="to train on"):
        PreferenceObjective(base, [], name, batch=4, seed=0)


def test_the_reference_is_asked_only_where_the_loss_needs_it(monkeypatch):
    base = with_lora()
    asked: list[int] = []
    plain = preferences.answer_log_probabilities

    def counted(base, answers, frozen):
        both = list(answers)
        asked.append(sum(map(len, both)))
        return plain(base, both, frozen)

    monkeypatch.setattr(preferences, "answer_log_probabilities", counted)
    for name in LOSSES:
        asked.clear()
        PreferenceObjective(base, judged(4), name, batch=4, seed=0)
        wanted = 0 if name in WITHOUT_REFERENCE else 8
        assert sum(asked) == wanted + (4 if name == "kto" else 0)


def test_long_and_empty_answers_are_left_out_and_refused():
    rows = [*judged(3), JudgedAnswers(chosen=answered([10] * 40, [GOOD]), rejected=answered([10] * 40, [BAD]))]
    fitting, gone = fitting_rows(rows, 20)
    assert (len(fitting), gone) == (3, 1)
    nothing, gone = fitting_rows(rows, 1)
    assert (len(nothing), gone) == (0, 4)
    empty = JudgedAnswers(chosen=Encoded(ids=(10, 11), trained=(False, False)), rejected=None)
    with pytest.raises(InputError, match="preference 1 has an answer without a token"):
        fitting_rows([empty], 20)


def test_odds_stay_finite_where_an_answer_is_certain():
    zero = torch.zeros(1)
    sides = PairLogProbabilities(zero, zero - 5, zero, zero, zero + 2, zero + 2)
    assert bool(PAIR_LOSSES["orpo"](sides).isfinite().all())
    assert float(F.relu(PAIR_LOSSES["orpo"](sides))) < 1.0
