"""GRPO on our loop and engine over the same questions, timed after warm-up; prints one JSON line. Run by
`train_vs_trl.py grpo`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from trimtab_common import timed

from trimtab.base.records import Encoded, Message
from trimtab.data.prompts import ChatEncoder
from trimtab.inference.engine import Engine, Request
from trimtab.inference.sampling import Sampling
from trimtab.model.adapters.apply import add_lora
from trimtab.model.fast.packed_weights import merged_and_packed
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import load_base
from trimtab.training.rl import PolicyGradient, Rollout


def main() -> None:
    plan = json.load(sys.stdin)
    torch.set_num_threads(plan["threads"])
    base = accelerate(load_base(Path(plan["model"]), "bf16"))
    add_lora(base, plan["rank"], 2.0 * plan["rank"], seed=0)
    encoder = ChatEncoder(base.tokenizer)
    prompts = [encoder.prompt([Message(role="user", content=row["question"])]) for row in plan["rows"]]
    group, most = plan["group"], plan["answer"]

    def roll(numbers: Sequence[int], step: int) -> list[list[Rollout]]:
        requests = [
            Request(
                id=f"{number}/{answer}",
                ids=prompts[number],
                max_new=most,
                sampling=Sampling(temperature=1.0, seed=(step * len(prompts) + number) * group + answer),
                logprobs=True,
            )
            for number in numbers
            for answer in range(group)
        ]
        with merged_and_packed(base):
            given = Engine(base, frozenset()).generate(requests)  # no end token, so that all are as long as asked for
        rollouts = []
        for request, one in zip(requests, given, strict=True):
            text = encoder.decode(one.ids)
            encoded = Encoded(
                ids=(*request.ids, *one.ids), trained=(False,) * len(request.ids) + (True,) * len(one.ids)
            )
            earned = sum(letter.isdigit() for letter in text) / max(1, len(text))
            rollouts.append(Rollout(encoded=encoded, log_p=one.log_probabilities, reward=earned))
        return [rollouts[start : start + group] for start in range(0, len(rollouts), group)]

    objective = PolicyGradient(base, len(prompts), roll, "grpo", batch=plan["batch"], seed=0)
    print(json.dumps(timed(base, objective, plan, 1e-5)))


if __name__ == "__main__":
    main()
