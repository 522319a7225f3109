"""docs/reference/defaults.md: every value in our column is what the code does, and no row is without a check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import answered, base_of, stirred
from transformers import AutoTokenizer

from trimtab.arms.recipe import evaluations, recipe
from trimtab.base.config import DataTable
from trimtab.base.grammar import arm_from_name
from trimtab.base.records import Arm, Message
from trimtab.data.prompts import ChatEncoder
from trimtab.model.adapters.apply import attach
from trimtab.model.adapters.base import WIDTH, adapter_layers
from trimtab.model.adapters.peft_format import peft_config
from trimtab.training.judged_answers import JudgedAnswers, fitting_rows
from trimtab.training.loop import LoopSettings
from trimtab.training.losses import kl_from_teacher
from trimtab.training.optim import BETAS, EPSILON, Optimizer, learning_rate_at
from trimtab.training.preference import (
    PAIR_LOSSES,
    PairLogProbabilities,
    PreferenceObjective,
    kto,
    mismatched_answer,
)
from trimtab.training.rl import CLIP, GROUP, GRPO_KL, RLOO_KL, PolicyGradient, Rollout

pytestmark = pytest.mark.no_kernels

DOC = Path(__file__).parents[2] / "docs" / "reference" / "defaults.md"
MANY = 10**6  # steps


def cells(heading: str) -> dict[str, str]:
    """What our column of a table says of each setting."""
    table = DOC.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines() if line[:1] == "|"]
    return {row[0]: row[1].strip("` |") for row in rows[2:]}


def number(value: float) -> str:
    return f"{value:.3g}"


def arm(name: str) -> Arm:
    found = arm_from_name(name)
    assert found is not None
    return found


def rate(name: str) -> Callable[[], str]:
    return lambda: number(recipe(arm(name), 100, 0, hidden=WIDTH).stages[-1].learning_rate)


def lora(config: str) -> Callable[[], str]:
    def value() -> str:
        base = base_of("llama")
        attach(base, "lora", 0, rank=recipe(arm("lora"), 100, 0).rank)
        return str(peft_config(base)[config])

    return value


def lora_layers() -> str:
    base = base_of("llama")
    linear = {
        name
        for name, layer in base.model.named_modules()
        if isinstance(layer, torch.nn.Linear) and not name.startswith("lm_head")
    }
    attach(base, "lora", 0, rank=2)
    assert set(adapter_layers(base.model)) == linear
    return "every linear layer of the decoder"


def sides(*pairs: Sequence[float]) -> PairLogProbabilities:
    """Pairs of: log-probability of the better and the worse answer, the reference's of both, tokens of both."""
    return PairLogProbabilities(*torch.tensor(pairs, dtype=torch.float64).T)


PAIR = (-6.0, -9.0, -7.0, -8.0, 3.0, 2.0)


def loss(name: str, pair: Sequence[float]) -> float:
    return float(PAIR_LOSSES[name](sides(pair))[0])


def beta(name: str) -> Callable[[], str]:
    """The weight that explains the value of a loss, found by solving for it."""

    def value() -> str:
        h = (PAIR[0] - PAIR[2]) - (PAIR[1] - PAIR[3])
        found = loss(name, PAIR)
        if name == "dpo":  # found = -log sigma(beta h)
            return number(-torch.log(torch.expm1(torch.tensor(found))).item() / h)
        chosen, rejected = PAIR[0] / 3, PAIR[1] / 2
        odds = chosen - rejected - torch.log1p(-torch.tensor([chosen, rejected]).exp()).diff().neg().item()
        return number((found + chosen) / torch.nn.functional.softplus(torch.tensor(-odds)).item())

    return value


def kto_beta() -> str:
    """From 1 - sigma(beta r) of a good answer whose log-ratio r is 1."""
    value = kto(torch.tensor([True]), torch.tensor([1.0], dtype=torch.float64), 0.0, (1.0, 1.0))
    return number(torch.logit(1 - value).item())


def simpo(which: str) -> Callable[[], str]:
    """beta and gamma from -log sigma(beta d - gamma) at two differences of means."""

    def value() -> str:
        points = [loss("simpo", (-3.0 + d, -3.0, 0.0, 0.0, 1.0, 1.0)) for d in (0.0, 1.0)]
        at_0, at_1 = (-torch.log(torch.expm1(torch.tensor(point))).item() for point in points)
        return number(at_1 - at_0 if which == "beta" else -at_0)

    return value


def simpo_cross_entropy() -> str:
    """Both answers become likelier by as much: only cross entropy would change the loss."""
    likelier = (PAIR[0] + 3.0, PAIR[1] + 2.0, *PAIR[2:])
    return number(loss("simpo", likelier) - loss("simpo", PAIR))


def by_mean(name: str, words: str) -> Callable[[], str]:
    """An answer of twice the tokens at the same log-probability a token is the same to the loss."""

    def value() -> str:
        assert loss(name, [2 * one for one in PAIR]) == pytest.approx(loss(name, PAIR))
        return words

    return value


def pair(prompt: int) -> JudgedAnswers:
    return JudgedAnswers(chosen=answered([prompt, 4], [5, 6, 2]), rejected=answered([prompt, 4], [7, 2]))


def orpo_answer() -> str:
    rows = [pair(prompt) for prompt in (10, 11)]
    batches = PreferenceObjective(base_of("llama"), rows, "orpo", batch=2, seed=0).batches(0)
    scored = sorted(token for batch in batches for token in batch.labels_M.tolist())
    assert scored == sorted([5, 6, 2, 7, 2] * 2)
    return "the answer"


def alone(prompt: int, good: bool) -> JudgedAnswers:
    own = pair(prompt)
    return replace(own, rejected=None) if good else replace(own, chosen=None)


def kto_weights() -> str:
    rows = [alone(10 + place, good=place < 3) for place in range(4)]
    return ", ".join(number(one) for one in PreferenceObjective(base_of("llama"), rows, "kto", batch=4, seed=0)._shares)


def kto_others() -> str:
    rows = [alone(10 + place, good=True) for place in range(20)]
    objective = PreferenceObjective(base_of("llama"), rows, "kto", batch=2, seed=0)
    first = [mismatched_answer(objective.rows, objective._partners, place).ids[0] for place in range(20)]
    steps = {(one - 10 - place) % 20 for place, one in enumerate(first)}
    assert len(steps) > 5  # a neighbour would always be one step away
    assert 0 not in steps
    return "drawn over all rows"


def rolled() -> Any:
    """A step of GRPO whose answers, of unequal lengths, all earn the same: what is left of the loss is the KL term."""
    base = base_of("llama")
    attach(base, "lora", 0, rank=2)
    group = [
        Rollout(encoded=answered([10, 11], [12] * (1 + place) + [2]), log_p=(-1.0,) * (2 + place), reward=1.0)
        for place in range(GROUP)
    ]
    objective = PolicyGradient(base, 1, lambda numbers, step: [group for _ in numbers], "grpo", batch=1, seed=0)
    return base, objective, objective.batches(0)


def grpo_ratio_on_kl() -> str:
    base, objective, batches = rolled()
    stirred(base)
    before = sum(float(objective.loss(base, batch).value.detach()) for batch in batches)
    moved = [replace(batch, drawn_M=batch.drawn_M - 1.0) for batch in batches]
    assert before > 0
    assert sum(float(objective.loss(base, batch).value.detach()) for batch in moved) == pytest.approx(before)
    return "none"


def grpo_mean() -> str:
    _, _, batches = rolled()
    weights = torch.cat([batch.weights_M for batch in batches])
    assert weights.tolist() == pytest.approx([1 / len(weights)] * len(weights))
    return "over the tokens of the step"


def left_out() -> str:
    rows, gone = fitting_rows([pair(10), pair(11)], max_tokens=4)
    assert (len(rows), gone) == (0, 2)
    return "left out and counted"


def distilled() -> str:
    generator = torch.Generator().manual_seed(0)
    hidden_MD, head_VD, other_VD = (torch.randn(count, 4, generator=generator) for count in (3, 7, 7))
    student, teacher = ((hidden_MD @ head.T).log_softmax(-1) for head in (head_VD, other_VD))
    value, _ = kl_from_teacher(lambda part: teacher[part].clone(), hidden_MD, head_VD, torch.ones(3))
    assert float(value) == pytest.approx(float((teacher.exp() * (teacher - student)).sum()), rel=1e-4)
    return "KL(teacher, student)"


def weight_decay() -> str:
    decays = {one["weight_decay"] for one in Optimizer({"a": torch.nn.Parameter(torch.ones(2))})._adam.param_groups}
    assert decays == {LoopSettings(learning_rate=1.0, epochs=1.0).weight_decay}
    return number(decays.pop())


DIFFERENT: dict[str, Callable[[], str]] = {
    "learning rate, LoRA, SFT (hidden size 2000)": rate("lora"),
    "learning rate, full tuning, SFT (hidden size 2000)": rate("full"),
    "learning rate, LoRA, GRPO, RLOO and PPO": rate("lora-grpo"),
    "learning rate, LoRA, DPO, IPO, SimPO, ORPO and KTO": rate("lora-dpo"),
    "learning rate, LoRA, reward model": rate("lora-reward"),
    "schedule ends at this share of the peak": lambda: number(learning_rate_at(MANY - 1, MANY, 1.0)),
    "warm-up, share of the steps": lambda: number(
        next(step for step in range(1000) if learning_rate_at(step, 1000, 1.0) == 1.0) / 1000 + 1 / 1000
    ),
    "fewest optimizer steps of SFT": lambda: number(recipe(arm("lora"), 8, 0).stages[0].epochs),
    "rows in a step, 1,000 rows or more": lambda: str(recipe(arm("lora"), 1000, 0).batch),
    "looks at the dev split in a run of an epoch or more": lambda: str(evaluations(1.0)),
    "looks without a gain before training stops": lambda: str(LoopSettings(learning_rate=1.0, epochs=1.0).patience),
    "LoRA dropout": lora("lora_dropout"),
    "LoRA layers": lora_layers,
    "row longer than the context": left_out,
    "SimPO, beta": simpo("beta"),
    "SimPO, gamma": simpo("gamma"),
    "SimPO, weight of cross entropy of the better answer": simpo_cross_entropy,
    "ORPO, cross entropy over": orpo_answer,
    "ORPO, mean of the cross entropy": by_mean("orpo", "over each pair, then over pairs"),
    "KTO, weights of good and bad for 3 good and 1 bad": kto_weights,
    "KTO, other prompt for the divergence": kto_others,
    "GRPO, KL penalty": lambda: number(GRPO_KL),
    "GRPO, ratio on the KL term": grpo_ratio_on_kl,
    "GRPO, RLOO, prompts in a step of fewer than 1,000": lambda: str(recipe(arm("lora-grpo"), 999, 0).batch),
    "RLOO, answers to a prompt": lambda: str(GROUP),
    "distillation, divergence": distilled,
}
OF_CHAT = ("last trained token of an answer", "trained turns of a conversation")  # these need a tokenizer
SAME: dict[str, Callable[[], str]] = {
    "epochs": lambda: number(recipe(arm("lora"), 10_000, 0).stages[0].epochs),
    "rows in a step, fewer than 1,000 rows": lambda: str(recipe(arm("lora"), 999, 0).batch),
    "LoRA rank": lora("r"),
    "LoRA alpha": lambda: number(float(lora("lora_alpha")())),
    "AdamW betas": lambda: ", ".join(map(number, BETAS)),
    "AdamW epsilon": lambda: number(EPSILON),
    "weight decay": weight_decay,
    "gradient clipping, norm": lambda: number(LoopSettings(learning_rate=1.0, epochs=1.0).clip),
    "DPO and IPO, beta": beta("dpo"),
    "KTO, beta": kto_beta,
    "ORPO, beta": beta("orpo"),
    "IPO, log-ratios": by_mean("ipo", "mean over the tokens of an answer"),
    "GRPO, answers to a prompt": lambda: str(GROUP),
    "GRPO and RLOO, clipping": lambda: number(CLIP),
    "GRPO, mean of the loss": grpo_mean,
    "RLOO, KL penalty": lambda: number(RLOO_KL),
}


def test_every_row_has_a_check():
    assert set(cells("Different")) == {*DIFFERENT, *OF_CHAT}
    assert set(cells("The same")) == set(SAME)


@pytest.mark.parametrize("setting", DIFFERENT)
def test_our_column_of_what_differs_is_what_the_code_does(setting: str) -> None:
    assert cells("Different")[setting] == DIFFERENT[setting]()


@pytest.mark.parametrize("setting", SAME)
def test_our_column_of_what_is_the_same_is_what_the_code_does(setting: str) -> None:
    assert cells("The same")[setting] == SAME[setting]()


def test_what_is_trained_on_of_a_conversation(tiny_model_folder: Path) -> None:
    encoder = ChatEncoder(AutoTokenizer.from_pretrained(tiny_model_folder))
    turns = [
        Message(role=role, content=text) for role, text in (("user", "one"), ("assistant", "two"), ("user", "six"))
    ]
    encoded = encoder.conversation(turns, "ten", train_on=DataTable().train_on)
    trained = [token for token, counts in zip(encoded.ids, encoded.trained, strict=True) if counts]
    (end,) = encoder.stop_ids
    assert encoder.tokenizer.decode(trained) == "two<|im_end|>ten<|im_end|>"
    assert trained[-1] == end
    assert cells("Different")["last trained token of an answer"] == "end token"
    assert cells("Different")["trained turns of a conversation"] == "assistant turns"
