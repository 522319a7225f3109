"""Our loop on the same rows, timed after warm-up; prints one JSON line. Run by `train_vs_trl.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from trimtab_common import timed

from trimtab.base.records import Message
from trimtab.data.prompts import ChatEncoder
from trimtab.model.adapters import add_lora
from trimtab.model.load import load_base
from trimtab.training.sft import Supervised, answer_rows


def main() -> None:
    plan = json.load(sys.stdin)
    torch.set_num_threads(plan["threads"])
    base = load_base(Path(plan["model"]), "bf16")
    add_lora(base, plan["rank"], 2.0 * plan["rank"], seed=0)
    encoder = ChatEncoder(base.tokenizer)
    rows = answer_rows(
        (encoder.conversation([Message(role="user", content=row["question"])], row["answer"]), 1.0)
        for row in plan["rows"]
    )
    print(json.dumps(timed(base, Supervised(rows, batch=plan["batch"], seed=0), plan, 1e-4)))


if __name__ == "__main__":
    main()
