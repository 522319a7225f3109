"""Computes the losses of TRL's own trainers for given log-probabilities, for `tests/training/trl_losses.json`; needs
TRL in its environment.

Run: python benchmarks/peers/trl_losses.py tests/training/trl_losses.json Each loss is the trainer's method, called
on one judgement at a time with log-probabilities, or a reward model's scores, in place of a model's.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch
import trl
from trl import DPOTrainer, GRPOTrainer, RewardTrainer, RLOOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.trainer.kto_trainer import KTOTrainer

BETA, SIMPO_BETA, SIMPO_MARGIN = 0.1, 2.0, 1.0
CLIP, GRPO_KL = 0.2, 0.04


def trainer(**settings: Any) -> MagicMock:
    """Whatever a loss asks of its trainer."""
    fake = MagicMock()
    fake.accelerator.device = "cpu"
    fake.accelerator.gather_for_metrics = fake.accelerator.gather = lambda value: value
    fake.model.training = False
    fake._metrics = defaultdict(lambda: defaultdict(list))
    fake._total_train_tokens = 0
    for name, value in settings.items():
        setattr(fake, name, value)
    return fake


def outputs(log_p: torch.Tensor) -> Any:
    """A model's outputs that hold these log-probabilities of the tokens after the first."""
    filler = torch.zeros_like(log_p)
    return lambda **_: SimpleNamespace(log_probs=log_p, entropy=filler, mean_logits=filler, is_top1=filler.bool())


def tokens_of(total: float, count: int, width: int) -> torch.Tensor:
    """A row of token log-probabilities that sum to a total, the rest of it masked."""
    row = torch.zeros(width, dtype=torch.float64)
    row[:count] = total / count
    return row


def by_dpo(case: dict[str, float], loss: str) -> float:
    counts = [int(case["chosen_tokens_P"]), int(case["rejected_tokens_P"])]
    width = max(counts)
    log_p = torch.stack(
        [tokens_of(case[f"{side}_P"], count, width) for side, count in zip(("chosen", "rejected"), counts, strict=True)]
    )
    mask = torch.tensor([[0] + [1] * count + [0] * (width - count) for count in counts])
    fake = trainer(
        **{"aux_loss_enabled": False, "ld_alpha": None, "precompute_ref_logps": True, "use_weighting": False},
        **{"f_divergence_type": "reverse_kl", "loss_types": [loss], "loss_weights": [1.0], "beta": BETA},
    )
    inputs = {
        "input_ids": torch.ones_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "ref_chosen_logps": torch.tensor([case["chosen_reference_P"]], dtype=torch.float64),
        "ref_rejected_logps": torch.tensor([case["rejected_reference_P"]], dtype=torch.float64),
    }
    return float(DPOTrainer._compute_loss(fake, outputs(log_p), inputs, False))


def means(case: dict[str, float]) -> list[torch.Tensor]:
    return [
        torch.tensor([case[f"{side}_P"] / case[f"{side}_tokens_P"]], dtype=torch.float64)
        for side in ("chosen", "rejected")
    ]


def by_simpo(case: dict[str, float]) -> float:
    fake = trainer(alpha=0.0, loss_type="simpo", simpo_gamma=SIMPO_MARGIN, beta=SIMPO_BETA, label_smoothing=0.0)
    return float(CPOTrainer.cpo_loss(fake, *means(case))[0])


def by_orpo(case: dict[str, float]) -> float:
    chosen, rejected = means(case)
    return float(-chosen - ORPOTrainer.odds_ratio_loss(trainer(beta=BETA), chosen, rejected)[0])


def by_kto(good: bool, log_ratio: float, divergence: float) -> float:
    one = torch.ones(1, 2, dtype=torch.long)
    fake = trainer(
        **{"aux_loss_enabled": False, "precompute_ref_logps": True, "calculate_KL": True, "loss_type": "kto"},
        **{"beta": BETA, "desirable_weight": 1.0, "undesirable_weight": 1.0},
    )
    fake._compute_kl_logps = lambda *_: torch.tensor([divergence], dtype=torch.float64)
    batch = {
        "label": torch.tensor([good]),
        "input_ids": one,
        "attention_mask": one,
        "completion_mask": torch.tensor([[0, 1]]),
        "ref_logps": torch.zeros(1, dtype=torch.float64),
        "ref_KL_logps": torch.zeros(1, dtype=torch.float64),
    }
    found = KTOTrainer._compute_loss(fake, outputs(torch.tensor([[log_ratio]], dtype=torch.float64)), batch, False)
    return float(found)


def rewarded(case: dict[str, Any], name: str) -> float:
    """GRPO with the tokens of the whole step as its count (as DAPO has it), or RLOO, over answers of several
    lengths."""
    log_p, drawn, reference, mask = (
        torch.nn.utils.rnn.pad_sequence([torch.tensor(one, dtype=torch.float64) for one in rows], batch_first=True)
        for rows in (
            *(case[field] for field in ("log_p", "drawn", "reference")),
            [[1.0] * len(one) for one in case["log_p"]],
        )
    )
    fake = trainer(
        **{
            "aux_loss_enabled": False,
            "top_entropy_quantile": 1.0,
            "off_policy_mask_threshold": None,
            "use_vllm": False,
        },
        **{
            "importance_sampling_level": "token",
            "loss_type": "dapo",
            "beta": GRPO_KL,
            "epsilon_low": CLIP,
            "epsilon_high": CLIP,
        },
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
    )
    fake.accelerator.num_processes = 1
    fake.accelerator.reduce = lambda value, **_: value
    fake._get_per_token_logps_and_entropies = lambda *_, **__: (log_p, torch.zeros_like(log_p), None)
    ids = torch.ones_like(log_p, dtype=torch.long)
    inputs = {
        **{"prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1], "completion_ids": ids, "completion_mask": mask},
        **{"old_per_token_logps": drawn, "old_logps": (drawn * mask).sum(1), "ref_per_token_logps": reference},
        "advantages": torch.tensor(case["advantages"], dtype=torch.float64),
        "num_items_in_batch": mask.sum(),
    }
    return float({"grpo": GRPOTrainer, "rloo": RLOOTrainer}[name]._compute_loss(fake, fake.model, inputs))


def answers(draw: torch.Generator) -> dict[str, Any]:
    """Tokens of some answers: by the policy, as they were drawn, by the reference; and what each answer is worth."""
    lengths = torch.randint(1, 9, (6,), generator=draw).tolist()
    log_p = [(-3 * torch.rand(length, generator=draw)).tolist() for length in lengths]
    near = lambda row, by: [value + by * float(torch.randn(1, generator=draw)) for value in row]  # noqa: E731
    return {
        "log_p": log_p,
        "drawn": [near(row, 0.2) for row in log_p],
        "reference": [near(row, 0.5) for row in log_p],
        "advantages": torch.randn(6, generator=draw).tolist(),
    }


def by_reward(chosen: float, rejected: float) -> float:
    fake = trainer(args=SimpleNamespace(center_rewards_coefficient=None))
    scores = torch.tensor([[chosen], [rejected]], dtype=torch.float64)
    return float(RewardTrainer.compute_loss(fake, lambda **_: SimpleNamespace(logits=scores), {}))


def main() -> None:
    draw = torch.Generator().manual_seed(0)
    fields = (
        "chosen_P",
        "rejected_P",
        "chosen_reference_P",
        "rejected_reference_P",
        "chosen_tokens_P",
        "rejected_tokens_P",
    )
    cases = []
    for _ in range(12):
        sums = (-60 * torch.rand(4, generator=draw)).tolist()
        counts = torch.randint(1, 30, (2,), generator=draw).tolist()
        cases.append(dict(zip(fields, [*sums, *map(float, counts)], strict=True)))
    ways = {
        "dpo": lambda case: by_dpo(case, "sigmoid"),
        "ipo": lambda case: by_dpo(case, "ipo"),
        "simpo": by_simpo,
        "orpo": by_orpo,
    }
    paired = [
        {
            "loss": name,
            **{field: [case[field] for case in cases] for field in fields},
            "values": [way(case) for case in cases],
        }
        for name, way in ways.items()
    ]
    ratios = (20 * torch.randn(8, generator=draw)).tolist()
    kto = [
        {
            "divergence": z,
            "good": good,
            "log_ratios": ratios,
            "values": [by_kto(*one, z) for one in zip(good, ratios, strict=True)],
        }
        for z in (0.0, 3.5)
        for good in ([number % 2 == 0 for number in range(8)],)
    ]
    scores = (3 * torch.randn(2, 12, generator=draw)).tolist()
    reward = {
        "chosen": scores[0],
        "rejected": scores[1],
        "values": [by_reward(*one) for one in zip(*scores, strict=True)],
    }
    of_rewards = [
        case | {name: rewarded(case, name) for name in ("grpo", "rloo")} for case in (answers(draw) for _ in range(4))
    ]
    covers = [*ways, "kto", "grpo", "rloo"]
    kept = {
        "what": f"TRL {trl.__version__}",
        "covers": covers,
        "paired": paired,
        "kto": kto,
        "reward": reward,
        "rewarded": of_rewards,
    }
    Path(sys.argv[1]).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
