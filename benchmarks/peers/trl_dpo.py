"""TRL's DPOTrainer at its best CPU settings, timed after warm-up; prints one JSON line. Run by `train_vs_trl.py dpo`."""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import peft
import torch
import transformers
import trl
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer


class Clock(TrainerCallback):
    """Starts after the warm-up steps and stops with the last."""

    def __init__(self, warmup: int) -> None:
        self.warmup, self.began, self.seconds = warmup, 0.0, 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        now = time.perf_counter()
        if state.global_step == self.warmup:
            self.began = now
        self.seconds = now - self.began


class Dpo(DPOTrainer):
    """Counts the tokens that are not padding, step by step."""

    tokens: list[int]

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        self.tokens.append(int(inputs["attention_mask"].sum()))
        return super().training_step(model, inputs, *args, **kwargs)


def conversation(row: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    sides = {side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
    return {"prompt": [{"role": "user", "content": row["prompt"]}], **sides}


def main() -> None:
    plan = json.load(sys.stdin)
    torch.set_num_threads(plan["threads"])
    tokenizer = AutoTokenizer.from_pretrained(plan["model"])
    model = AutoModelForCausalLM.from_pretrained(plan["model"], dtype=torch.bfloat16, attn_implementation="sdpa")
    clock = Clock(plan["warmup"])
    settings = DPOConfig(
        output_dir=plan["scratch"],
        per_device_train_batch_size=plan["batch"],
        max_steps=plan["warmup"] + plan["steps"],
        learning_rate=1e-5,
        bf16=True,
        use_cpu=True,
        gradient_checkpointing=False,
        precompute_ref_log_probs=True,  # before the clock starts, as ours
        max_length=None,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=0,
    )
    lora = LoraConfig(r=plan["rank"], lora_alpha=2 * plan["rank"], target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = Dpo(
        model=model,
        args=settings,
        train_dataset=Dataset.from_list([conversation(row) for row in plan["rows"]]),
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=[clock],
    )
    trainer.tokens = []
    trainer.train()
    tokens = sum(trainer.tokens[plan["warmup"] :])
    figures = {
        "tokens": tokens,
        "seconds": clock.seconds,
        "tokens_per_second": tokens / clock.seconds,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "trainable": sum(value.numel() for value in model.parameters() if value.requires_grad),
        "versions": {one.__name__: one.__version__ for one in (trl, peft, transformers, torch)},
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
