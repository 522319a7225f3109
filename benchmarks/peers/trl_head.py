"""transformers' sequence classification with PEFT at its best CPU settings or as it is, timed after warm-up; prints
one JSON line. Run by `train_vs_trl.py head`."""

from __future__ import annotations

import json
import sys

import torch
from datasets import Dataset
from peft import get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)
from trl_common import BEST_LOADED, CPU, STOCK, Clock, Counting, lora, timed

BEST = {name: value for name, value in CPU.items() if name != "max_length"}  # that one is TRL's
BEST["train_sampling_strategy"] = "group_by_length"


class ClassificationHead(Counting, Trainer):
    """Counts tokens."""


def main() -> None:
    plan = json.load(sys.stdin)
    torch.set_num_threads(plan["threads"])
    tokenizer, clock = AutoTokenizer.from_pretrained(plan["model"]), Clock(plan["warmup"])
    names = sorted({row["label"] for row in plan["rows"]})
    loaded = {} if plan["stock"] else BEST_LOADED
    model = AutoModelForSequenceClassification.from_pretrained(plan["model"], num_labels=len(names), **loaded)
    model.config.pad_token_id = tokenizer.pad_token_id
    model = get_peft_model(model, lora(plan["rank"], "SEQ_CLS"))

    def encoded(row: dict[str, str]) -> dict[str, object]:
        turns = [{"role": "system", "content": plan["instruction"]}, {"role": "user", "content": row["text"]}]
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": names.index(row["label"])}

    trainer = ClassificationHead(
        model=model,
        args=TrainingArguments(
            output_dir=plan["scratch"],
            per_device_train_batch_size=plan["batch"],
            max_steps=plan["warmup"] + plan["steps"],
            learning_rate=1e-4,
            **(STOCK if plan["stock"] else BEST),
        ),
        train_dataset=Dataset.from_list([encoded(row) for row in plan["rows"]]),
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[clock],
    )
    print(json.dumps(timed(trainer, clock, model)))


if __name__ == "__main__":
    main()
