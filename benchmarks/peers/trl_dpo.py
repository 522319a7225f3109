"""TRL's DPOTrainer at its best CPU settings or as it is, timed after warm-up; prints one JSON line. Run by
`train_vs_trl.py dpo`."""

from __future__ import annotations

import json
import sys

import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer
from trl_common import CPU, STOCK, Clock, Counting, lora, model_of, timed

BEST = {**CPU, "precompute_ref_log_probs": True}  # before the clock starts, as ours


class Dpo(Counting, DPOTrainer):
    """Counts tokens."""


def conversation(row: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    sides = {side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
    return {"prompt": [{"role": "user", "content": row["prompt"]}], **sides}


def main() -> None:
    plan = json.load(sys.stdin)
    torch.set_num_threads(plan["threads"])
    model, clock = model_of(plan["model"], stock=plan["stock"]), Clock(plan["warmup"])
    trainer = Dpo(
        model=model,
        args=DPOConfig(
            output_dir=plan["scratch"],
            per_device_train_batch_size=plan["batch"],
            max_steps=plan["warmup"] + plan["steps"],
            learning_rate=1e-5,
            **(STOCK if plan["stock"] else BEST),
        ),
        train_dataset=Dataset.from_list([conversation(row) for row in plan["rows"]]),
        processing_class=AutoTokenizer.from_pretrained(plan["model"]),
        peft_config=lora(plan["rank"]),
        callbacks=[clock],
    )
    print(json.dumps(timed(trainer, clock, model)))


if __name__ == "__main__":
    main()
