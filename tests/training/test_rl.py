"""Losses over rewards of the model's own answers: as plain torch on one padded batch, as TRL has them, learning, and
through a kill."""

import json
import random
from pathlib import Path

import pytest
import torch
from tiny_models import VOCABULARY, answered, base_of, plain_model, stirred, with_lora

from trimtab.base.errors import InputError
from trimtab.base.progress import Progress
from trimtab.inference.engine import Engine, Request
from trimtab.inference.sampling import Sampling
from trimtab.model.adapters.apply import trainable_parameters, unfreeze
from trimtab.training import batch as batches_of
from trimtab.training import loop
from trimtab.training.loop import LoopSettings, TrainingJob, train_model
from trimtab.training.monitor import DevEvaluation
from trimtab.training.rl import (
    CLIP,
    GRPO_KL,
    PPO_KL,
    RLOO_KL,
    VALUE_SHARE,
    PolicyGradient,
    Rollout,
    clipped_objective,
    gae,
    grpo_advantages,
    kl_estimate,
    rloo_advantages,
)

LOSSES = ("grpo", "rloo", "ppo")
GOOD, END, GROUP = 48, 2, 6


def prompts(count, seed=0):
    draw = random.Random(seed)
    return [tuple(draw.randrange(10, VOCABULARY) for _ in range(draw.randint(2, 9))) for _ in range(count)]


def kept_rollouts(count, seed=0):
    """Answers that were drawn from some other policy, with rewards: groups of unequal lengths."""
    draw = random.Random(seed)
    groups = []
    for prompt in prompts(count, seed):
        group = []
        for _ in range(GROUP):
            answer = tuple(draw.randrange(10, VOCABULARY) for _ in range(draw.randint(1, 6)))
            encoded = answered(prompt, answer)
            log_p = tuple(-6 * draw.random() for _ in answer)
            group.append(Rollout(encoded=encoded, log_p=log_p, reward=draw.random()))
        groups.append(group)
    return groups


def rolling(base, asked, most=5):
    """Answers that the engine draws from the weights of the moment; a token earns by being below GOOD."""

    def roll(numbers, step):
        groups = []
        for number in numbers:
            last = {}
            requests = [
                Request(
                    id=str(answer),
                    ids=asked[number],
                    max_new=most,
                    sampling=Sampling(temperature=1.0, seed=1000 * step + 10 * number + answer),
                    logprobs=True,
                )
                for answer in range(GROUP)
            ]
            given = Engine(base, frozenset({END})).generate(requests, on_token=last.__setitem__)
            group = []
            for one in given:
                answer = (*one.ids, last[one.id]) if one.finished else one.ids
                encoded = answered(asked[number], answer)
                reward = sum(token < GOOD for token in answer) / len(answer)
                group.append(Rollout(encoded=encoded, log_p=one.log_probabilities, reward=reward))
            groups.append(group)
        return groups

    return roll


def padded_log_p(model, rollouts):
    """One batch padded to the right; rows of the answers' log-probabilities."""
    longest = max(len(one.encoded.ids) for one in rollouts)
    ids, seen = (torch.zeros(len(rollouts), longest, dtype=torch.long) for _ in range(2))
    for at, one in enumerate(rollouts):
        ids[at, : len(one.encoded.ids)], seen[at, : len(one.encoded.ids)] = torch.tensor(one.encoded.ids), 1
    out = model(input_ids=ids, attention_mask=seen, use_cache=False, output_hidden_states=True)
    log_p = out.logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    places = [torch.tensor(one.encoded.trained[1:]).nonzero()[:, 0] for one in rollouts]
    hidden = out.hidden_states[-1]
    return [log_p[at, place] for at, place in enumerate(places)], [hidden[at, place] for at, place in enumerate(places)]


def expected_loss(name, groups, policy, reference, value):
    """Each loss written out again over one padded batch, answer by answer."""
    flat = [one for group in groups for one in group]
    log_p, hidden = padded_log_p(policy, flat)
    with torch.no_grad():
        before, _ = padded_log_p(reference, flat)
    drawn = [torch.tensor(one.log_p) for one in flat]
    rewards = [one.reward for one in flat]
    tokens = sum(map(len, log_p))

    def surrogate(ratio, advantage):
        return -torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)

    def group_of(at):
        return range(at - at % GROUP, at - at % GROUP + GROUP)

    total = torch.zeros(())
    if name == "grpo":
        for at, one in enumerate(log_p):
            among = torch.tensor([rewards[other] for other in group_of(at)])
            advantage = (rewards[at] - among.mean()) / (among.std() + 1e-4)
            gap = before[at] - one
            total = total + (surrogate((one - drawn[at]).exp(), advantage) + GRPO_KL * (gap.exp() - gap - 1)).sum()
        return total / tokens
    if name == "rloo":
        earned = [rewards[at] - RLOO_KL * float((drawn[at] - before[at]).sum()) for at in range(len(flat))]
        for at, one in enumerate(log_p):
            advantage = earned[at] - sum(earned[other] for other in group_of(at) if other != at) / (GROUP - 1)
            total = total + surrogate((one.sum() - drawn[at].sum()).exp(), advantage)
        return total / len(flat)
    # The value head begins at zero: what is to come is what comes, looking ahead by lambda.
    advantages = []
    for at, one in enumerate(drawn):
        gains = -PPO_KL * (one - before[at])
        gains[-1] += rewards[at]
        advantages.append(
            [
                sum(0.95 ** (later - place) * float(gains[later]) for later in range(place, len(one)))
                for place in range(len(one))
            ]
        )
    every = torch.tensor([value for row in advantages for value in row])
    for at, one in enumerate(log_p):
        worth = (torch.tensor(advantages[at]) - every.mean()) / (every.var() + 1e-8).sqrt()
        total = total + surrogate((one - drawn[at]).exp(), worth).sum()
        total = total + VALUE_SHARE * 0.5 * ((value(hidden[at])[:, 0] - torch.tensor(advantages[at])) ** 2).sum()
    return total / tokens


@pytest.mark.parametrize("tokens", [30, 512])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradients_are_those_of_plain_torch_on_one_padded_batch(name, tokens, monkeypatch):
    monkeypatch.setattr(batches_of, "MICRO_TOKENS", tokens)
    base, policy, reference = base_of("llama"), plain_model("llama"), plain_model("llama")
    groups = kept_rollouts(3)
    unfreeze(base, "full")
    objective = PolicyGradient(
        base, 3, lambda numbers, _: [groups[number] for number in numbers], name, batch=3, seed=0
    )
    stirred(base)
    policy.load_state_dict(base.model.state_dict())
    batches = objective.batches(0)
    assert (len(batches) > 1) == (tokens == 30)
    for key, value in policy.state_dict().items():  # the reference was on for a moment
        assert torch.equal(base.model.state_dict()[key], value), key
    value = sum(objective.loss(base, batch).value for batch in batches)
    value.backward()
    head = torch.nn.Linear(32, 1)
    for parameter in head.parameters():
        torch.nn.init.zeros_(parameter)
    expected = expected_loss(name, groups, policy, reference, head)
    expected.backward()
    if name == "ppo":
        moving = objective.parameters(base)
        assert torch.allclose(moving["value.weight"].grad, head.weight.grad, atol=1e-4)
        assert torch.allclose(moving["value.bias"].grad, head.bias.grad, atol=1e-4)
        assert float(head.weight.grad.abs().max()) > 1e-3
    assert float(value.detach()) == pytest.approx(float(expected.detach()), abs=1e-4)
    for key, grad in ((key, one.grad) for key, one in policy.named_parameters()):
        assert torch.allclose(trainable_parameters(base.model)[key].grad, grad, atol=1e-3), key


def test_losses_are_those_of_trl_on_the_same_log_probabilities():
    """Figures that TRL's own trainers gave: see `benchmarks/peers/trl_losses.py`."""
    cases = json.loads((Path(__file__).parent / "trl_losses.json").read_text())["rewarded"]
    assert len(cases) == 4
    for case in cases:
        log_p, drawn, before = (
            [torch.tensor(row, dtype=torch.float64) for row in case[name]] for name in ("log_p", "drawn", "reference")
        )
        worth = torch.tensor(case["advantages"], dtype=torch.float64)
        by_token = [
            clipped_objective(one - then, value) + GRPO_KL * kl_estimate(one, base)
            for one, then, base, value in zip(log_p, drawn, before, worth, strict=True)
        ]
        assert float(torch.cat(by_token).mean()) == pytest.approx(case["grpo"], abs=1e-5)
        sums = torch.stack([(one - then).sum() for one, then in zip(log_p, drawn, strict=True)])
        assert float(clipped_objective(sums, worth).mean()) == pytest.approx(case["rloo"], abs=1e-5)


def test_advantages_are_their_formulas():
    rewards = torch.tensor([[1.0, 0.0, 0.5], [2.0, 2.0, 2.0]])
    assert torch.allclose(rloo_advantages(rewards), torch.tensor([[0.75, -0.75, 0.0], [0.0, 0.0, 0.0]]))
    assert torch.allclose(grpo_advantages(rewards), torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]]), atol=1e-3)
    assert torch.allclose(gae(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.25])), torch.tensor([0.4625, 0.75]))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_earns_is_said_more_often(name, dtype, tmp_path):
    base, asked, events = with_lora(dtype=dtype), prompts(8), []
    objective = PolicyGradient(base, 8, rolling(base, asked), name, batch=8, seed=0)
    settings = LoopSettings(learning_rate=4e-2, epochs=24, evaluations=1)
    progress = Progress(listeners=[events.append])
    train_model(TrainingJob(base=base, objective=objective, settings=settings, folder=tmp_path, progress=progress))
    steps = [event for event in events if event["stage"] == "train" and "loss" in event]
    first, last = (sum(event["reward"] for event in part) / 4 for part in (steps[:4], steps[-4:]))
    assert last > first + 0.2
    assert {"kl", "length", "entropy"} <= steps[0].keys()
    assert steps[-1]["kl"] > steps[0]["kl"]
    assert steps[0]["kl"] == pytest.approx(0.0, abs=1e-4)  # the policy is the reference still, but for rounding


def test_in_float32_answers_were_drawn_as_likely_as_they_are():
    base, asked = with_lora(), prompts(6)
    stirred(base)
    objective = PolicyGradient(base, 6, rolling(base, asked), "grpo", batch=6, seed=0)
    for batch in objective.batches(3):
        assert torch.allclose(objective._log_p(batch), batch.drawn_M, atol=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_killed_between_answers_and_step_and_resumed_is_never_killed(name, tmp_path, monkeypatch):
    class KilledError(Exception):
        pass

    def job(base, folder, dies_at=None):
        roll = rolling(base, asked)

        def rolled(numbers, step):
            groups = roll(numbers, step)
            if step == dies_at:
                raise KilledError
            return groups

        return TrainingJob(
            base=base,
            objective=PolicyGradient(base, len(asked), rolled, name, batch=3, seed=0),
            settings=LoopSettings(learning_rate=1e-2, epochs=3, evaluations=2, patience=99),
            folder=folder,
            evaluate=lambda: DevEvaluation(dev_metric=0.5, rows=(0.0, 1.0)),
        )

    asked, whole, again = prompts(6), with_lora(), with_lora()
    expected = train_model(job(whole, tmp_path / "whole"))
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    with pytest.raises(KilledError):
        train_model(job(with_lora(), tmp_path / "cut", dies_at=4))
    result = train_model(job(again, tmp_path / "cut"))
    assert result.readings == expected.readings
    assert {"train_reward", "train_kl", "train_length", "train_entropy"} <= result.readings[0].figures.keys()
    for key, value in trainable_parameters(whole.model).items():
        assert torch.equal(value, trainable_parameters(again.model)[key]), key


def test_nothing_to_ask_is_refused():
    with pytest.raises(InputError, match="no prompt to answer"):
        PolicyGradient(with_lora(), 0, lambda *_: [], "grpo", batch=4, seed=0)
