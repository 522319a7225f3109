"""TRL's SFTTrainer at its best CPU settings or as it is, timed after warm-up; prints one JSON line. Run by
`train_vs_trl.py` for sft, full and last."""

from __future__ import annotations

import json
import sys

import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer
from trl_common import SFT, STOCK, Clock, Counting, lora, model_of, timed


class Sft(Counting, SFTTrainer):
    """Counts tokens."""


def conversation(row: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    return {
        "prompt": [{"role": "user", "content": row["question"]}],
        "completion": [{"role": "assistant", "content": row["answer"]}],
    }


def main() -> None:
    plan = json.load(sys.stdin)
    torch.set_num_threads(plan["threads"])
    model, clock = model_of(plan["model"], plan["layers"], stock=plan["stock"]), Clock(plan["warmup"])
    trainer = Sft(
        model=model,
        args=SFTConfig(
            output_dir=plan["scratch"],
            per_device_train_batch_size=plan["batch"],
            max_steps=plan["warmup"] + plan["steps"],
            learning_rate=1e-4,
            **(STOCK if plan["stock"] else SFT),
        ),
        train_dataset=Dataset.from_list([conversation(row) for row in plan["rows"]]),
        processing_class=AutoTokenizer.from_pretrained(plan["model"]),
        peft_config=lora(plan["rank"]) if plan["rank"] else None,
        callbacks=[clock],
    )
    print(json.dumps(timed(trainer, clock, model)))


if __name__ == "__main__":
    main()
