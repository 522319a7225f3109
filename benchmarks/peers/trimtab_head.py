"""A classification head with LoRA on our loop on the same rows, timed after warm-up; prints one JSON line. Run by
`train_vs_trl.py head`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from trimtab_common import timed

from trimtab.base.records import Message
from trimtab.data.prompts import ChatEncoder
from trimtab.model.adapters.apply import add_lora
from trimtab.model.classifier import ClassificationHead
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import load_base
from trimtab.training.classification import ClassificationObjective, label_rows


def main() -> None:
    plan = json.load(sys.stdin)
    torch.set_num_threads(plan["threads"])
    base = accelerate(load_base(Path(plan["model"]), "bf16"))
    add_lora(base, plan["rank"], 2.0 * plan["rank"], seed=0)
    encoder = ChatEncoder(base.tokenizer)
    names = sorted({row["label"] for row in plan["rows"]})
    system = Message(role="system", content=plan["instruction"])
    rows = label_rows(
        (
            (encoder.prompt([system, Message(role="user", content=row["text"])]), names.index(row["label"]), 1.0)
            for row in plan["rows"]
        ),
        len(names),
    )
    head = ClassificationHead(tuple(names), base.model.config.hidden_size, seed=0)
    print(
        json.dumps(
            timed(
                base,
                ClassificationObjective(rows, head, batch=plan["batch"], seed=0, cache_activations=False),
                plan,
                1e-4,
            )
        )
    )


if __name__ == "__main__":
    main()
