"""TRL's SFTTrainer over a grid of learning rates and lengths, an adapter saved for each; a JSON line a setting. Run by `expert.py`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import peft
import torch
import transformers
import trl
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer


def main() -> None:
    plan = json.load(sys.stdin)
    torch.set_num_threads(plan["threads"])
    tokenizer = AutoTokenizer.from_pretrained(plan["model"])
    rows = Dataset.from_list(plan["rows"])
    for setting in plan["settings"]:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_pretrained(plan["model"], dtype=torch.bfloat16, attn_implementation="sdpa")
        steps = -(-len(plan["rows"]) // plan["batch"]) * setting["epochs"]
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=plan["scratch"],
                per_device_train_batch_size=plan["batch"],
                num_train_epochs=setting["epochs"],
                learning_rate=setting["rate"],
                lr_scheduler_type="cosine",
                warmup_steps=max(1, steps // 20),
                bf16=True,
                use_cpu=True,
                gradient_checkpointing=False,
                train_sampling_strategy="group_by_length",
                completion_only_loss=True,
                packing=False,
                max_length=None,
                report_to="none",
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                seed=0,
            ),
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=plan["rank"], lora_alpha=2 * plan["rank"], target_modules="all-linear", task_type="CAUSAL_LM"
            ),
        )
        began = time.process_time(), time.perf_counter()
        trainer.train()
        seconds = {"processor_seconds": time.process_time() - began[0], "seconds": time.perf_counter() - began[1]}
        folder = Path(plan["out"]) / f"{setting['rate']:g}-{setting['epochs']}"
        trainer.model.save_pretrained(folder)
        versions = {one.__name__: one.__version__ for one in (trl, peft, transformers, torch)}
        print(json.dumps({**setting, **seconds, "folder": str(folder), "versions": versions}), flush=True)


if __name__ == "__main__":
    main()
