"""DPO on our loop on the same pairs, timed after warm-up; prints one JSON line. Run by `train_vs_trl.py dpo`."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import torch
import transformers

import trimtab
from trimtab.base.progress import Event, Progress
from trimtab.base.records import Message
from trimtab.data.prompts import ChatEncoder
from trimtab.model.adapters import add_lora, trainable
from trimtab.model.load import load_base
from trimtab.training.loop import LoopSettings, TrainingJob, train
from trimtab.training.preference import Judged, Preference


def main() -> None:
    plan = json.load(sys.stdin)
    torch.set_num_threads(plan["threads"])
    base = load_base(Path(plan["model"]), "bf16")
    add_lora(base, plan["rank"], 2.0 * plan["rank"], seed=0)
    encoder = ChatEncoder(base.tokenizer)
    rows = []
    for row in plan["rows"]:
        asked = [Message(role="user", content=row["prompt"])]
        chosen, rejected = (encoder.conversation(asked, row[side]) for side in ("chosen", "rejected"))
        rows.append(Judged(chosen=chosen, rejected=rejected))
    objective = Preference(base, rows, "dpo", batch=plan["batch"], seed=0)
    steps = plan["warmup"] + plan["steps"]
    ends: list[float] = []

    def clock(event: Event) -> None:
        if event["stage"] == "train" and event["step"] > len(ends):
            ends.append(time.perf_counter())

    settings = LoopSettings(learning_rate=1e-5, epochs=steps / objective.steps_per_epoch)
    job = TrainingJob(
        base=base,
        objective=objective,
        settings=settings,
        folder=Path(plan["scratch"]),
        progress=Progress(listeners=[clock]),
    )
    train(job)
    seconds = ends[steps - 1] - ends[plan["warmup"] - 1]
    tokens = sum(batch.row_tokens for step in range(plan["warmup"], steps) for batch in objective.batches(step))
    figures = {
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "trainable": sum(value.numel() for value in trainable(base.model).values()),
        "versions": {
            "trimtab": trimtab.__version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        },
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
