"""Our loop on the same rows, timed after warm-up; prints one JSON line. Run by `train_vs_trl.py` for sft, full and
last."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from trimtab_common import timed

from trimtab.base.records import Message
from trimtab.data.prompts import ChatEncoder
from trimtab.model.adapters.apply import add_lora, unfreeze
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import load_base
from trimtab.training.sft import SupervisedObjective, answer_rows


def main() -> None:
    plan = json.load(sys.stdin)
    torch.set_num_threads(plan["threads"])
    base = accelerate(load_base(Path(plan["model"]), "bf16"))
    if plan["rank"]:
        add_lora(base, plan["rank"], 2.0 * plan["rank"], seed=0)
    elif plan["layers"]:
        unfreeze(base, "freeze", plan["layers"])
    else:
        unfreeze(base, "full")
    encoder = ChatEncoder(base.tokenizer)
    rows = answer_rows(
        (encoder.conversation([Message(role="user", content=row["question"])], row["answer"]), 1.0)
        for row in plan["rows"]
    )
    objective = SupervisedObjective(rows, batch=plan["batch"], seed=0, cache_activations=bool(plan["layers"]))
    print(json.dumps(timed(base, objective, plan, 1e-4)))


if __name__ == "__main__":
    main()
