"""TRL's SFTTrainer over a grid of learning rates and lengths, an adapter saved for each; a JSON line a setting. Run
by `expert.py`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer
from trl_common import SFT, lora, model_of, versions


def main() -> None:
    plan = json.load(sys.stdin)
    torch.set_num_threads(plan["threads"])
    tokenizer = AutoTokenizer.from_pretrained(plan["model"])
    rows = Dataset.from_list(plan["rows"])
    for setting in plan["settings"]:
        seed = setting.get("seed", 0)
        torch.manual_seed(seed)
        steps = -(-len(plan["rows"]) // plan["batch"]) * setting["epochs"]
        trainer = SFTTrainer(
            model=model_of(plan["model"]),
            args=SFTConfig(
                output_dir=plan["scratch"],
                per_device_train_batch_size=plan["batch"],
                num_train_epochs=setting["epochs"],
                learning_rate=setting["rate"],
                lr_scheduler_type="cosine",
                warmup_steps=max(1, steps // 20),
                **{**SFT, "seed": seed},
            ),
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=lora(plan["rank"]),
        )
        began = time.process_time(), time.perf_counter()
        trainer.train()
        seconds = {"processor_seconds": time.process_time() - began[0], "seconds": time.perf_counter() - began[1]}
        folder = Path(plan["out"]) / f"{setting['rate']:g}-{setting['epochs']}-{seed}"
        trainer.model.save_pretrained(folder)
        print(json.dumps({**setting, **seconds, "folder": str(folder), "versions": versions()}), flush=True)


if __name__ == "__main__":
    main()
