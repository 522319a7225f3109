"""DPO on our loop on the same pairs, timed after warm-up; prints one JSON line. Run by `train_vs_trl.py dpo`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from trimtab_common import timed

from trimtab.base.records import Message
from trimtab.data.prompts import ChatEncoder
from trimtab.model.adapters.apply import add_lora
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import load_base
from trimtab.training.judged_answers import JudgedAnswers
from trimtab.training.preference import PreferenceObjective


def main() -> None:
    plan = json.load(sys.stdin)
    torch.set_num_threads(plan["threads"])
    base = accelerate(load_base(Path(plan["model"]), "bf16"))
    add_lora(base, plan["rank"], 2.0 * plan["rank"], seed=0)
    encoder = ChatEncoder(base.tokenizer)
    rows = []
    for row in plan["rows"]:
        asked = [Message(role="user", content=row["prompt"])]
        chosen, rejected = (encoder.conversation(asked, row[side]) for side in ("chosen", "rejected"))
        rows.append(JudgedAnswers(chosen=chosen, rejected=rejected))
    print(json.dumps(timed(base, PreferenceObjective(base, rows, "dpo", batch=plan["batch"], seed=0), plan, 1e-5)))


if __name__ == "__main__":
    main()
