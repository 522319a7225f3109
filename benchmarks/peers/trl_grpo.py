"""TRL's GRPOTrainer at its best CPU settings or as it is, timed after warm-up; prints one JSON line. Run by
`train_vs_trl.py grpo`."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer
from trl_common import CPU, STOCK, Clock, lora, model_of, timed

BEST = {name: value for name, value in CPU.items() if name != "max_length"}


class Grpo(GRPOTrainer):  # type: ignore[misc]
    """Counts the tokens of prompts and answers, step by step."""

    tokens: list[int]

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        found = super()._generate_and_score_completions(inputs)
        self.tokens.append(int(found["prompt_mask"].sum() + found["completion_mask"].sum()))
        return found


def earned(completions: list[Any], **_: Any) -> list[float]:
    """Return the reward of an answer: the share of its letters that are digits."""
    texts = [one[0]["content"] for one in completions]
    return [sum(letter.isdigit() for letter in text) / max(1, len(text)) for text in texts]


def main() -> None:
    plan = json.load(sys.stdin)
    torch.set_num_threads(plan["threads"])
    model, clock = model_of(plan["model"], stock=plan["stock"]), Clock(plan["warmup"])
    trainer = Grpo(
        model=model,
        reward_funcs=earned,
        args=GRPOConfig(
            output_dir=plan["scratch"],
            per_device_train_batch_size=plan["batch"] * plan["group"],
            num_generations=plan["group"],
            steps_per_generation=1,
            max_completion_length=plan["answer"],
            generation_kwargs={"min_new_tokens": plan["answer"]},
            beta=0.04,
            max_steps=plan["warmup"] + plan["steps"],
            learning_rate=1e-5,
            **(STOCK if plan["stock"] else BEST),
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": [{"role": "user", "content": row["question"]}]} for row in plan["rows"]]
        ),
        processing_class=AutoTokenizer.from_pretrained(plan["model"]),
        peft_config=lora(plan["rank"]),
        callbacks=[clock],
    )
    print(json.dumps(timed(trainer, clock, model)))


if __name__ == "__main__":
    main()
