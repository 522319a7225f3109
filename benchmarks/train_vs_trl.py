"""Our loop against TRL's trainers and transformers', work by work, side by side on this machine.

python benchmarks/train_vs_trl.py [sft full last head dpo grpo]   →  benchmarks/results/train_vs_trl.json, works that
are there are kept

SmolLM2-135M, bf16 weights, GSM8K rows. `sft`: LoRA r=16 on all linear layers, batch 8; `full`: all weights; `last`:
the last six layers, three epochs; `head`: LoRA and a classification head over intents of Banking77, against
transformers' sequence classification with PEFT; `dpo`: LoRA, 4 pairs a step, a prompt (a question with the first
lines of its working) about three times as long as the answers (its last two lines, and another's); `grpo`: LoRA, 2
prompts a step with 8 answers of 64 tokens each, the whole step with generation. Each run is a process of its own, in
the order A B B A, then the peer as it is without a setting; tokens are counted without padding, over the steps after
the warm-up. The peer's environment is made once, in benchmarks/.peers (not in git). Results of different processors
are kept beside each other.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared import SHARED, kind, machine

from trimtab.base.files import write_json
from trimtab.model.catalog import resolve

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "benchmarks" / ".peers"
RESULT = ROOT / "benchmarks" / "results" / "train_vs_trl.json"
MODEL, RANK = "smollm2-135m-q4", 16


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of both sides: the script, what is trained (`rank` of LoRA, or the last `layers`, or neither: all),
    and the peer."""

    what: str
    peer: str
    goal: float
    script: str = "sft"
    rank: int = RANK
    layers: int = 0
    batch: int = 8
    steps: int = 20
    rows: int = 400  # that the steps draw from: enough for the peer to group by length as well as it can


SFT = (
    "TRL SFTTrainer: bf16, no gradient checkpointing, grouped by length, completion-only loss, no packing, freed "
    "memory kept"
)
WORKS = {
    "sft": Work(what="LoRA r=16 on all linear layers, batch 8, loss on answers", peer=SFT, goal=2.8),
    "full": Work(what="all weights, batch 8, loss on answers", peer=SFT, goal=2.5, rank=0),
    "last": Work(
        what="last 6 layers, batch 8, 3 epochs over 64 rows", peer=SFT, goal=6.0, rank=0, layers=6, steps=23, rows=64
    ),
    "head": Work(
        what="LoRA r=16 and a classification head, batch 8, Banking77",
        peer="transformers Trainer, sequence classification with PEFT: bf16, no gradient checkpointing, grouped by "
        "length, freed memory kept",
        goal=3.0,
        script="head",
    ),
    "dpo": Work(
        what="DPO, LoRA r=16, 4 pairs a step, prompts three times as long as answers",
        peer="TRL DPOTrainer: bf16, no gradient checkpointing, reference log-probabilities computed before the clock "
        "starts, freed memory kept",
        goal=4.5,
        script="dpo",
        batch=4,
        rows=96,  # the peer reads the reference of all of them first
    ),
    "grpo": Work(
        what="GRPO, LoRA r=16, 2 prompts a step with 8 answers of 64 tokens, with generation",
        peer="TRL GRPOTrainer: bf16, no gradient checkpointing, transformers' generation, freed memory kept",
        goal=3.0,
        script="grpo",
        batch=2,
        rows=64,
    ),
}
KEEPS_MEMORY = {  # as ours sets it for itself: pages of freed blocks are not touched anew
    "MALLOC_MMAP_THRESHOLD_": str(256 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
GROUP, ANSWER = 8, 64  # answers to a prompt, tokens of each
INSTRUCTION = "You sort messages of a bank's customers. Answer with the topic of the message, as a short name."
ORDER = ("trimtab", "trl", "trl", "trimtab")
STOCK, STOCK_STEPS = "stock", 5  # the peer as it is: mostly for its memory, which few steps show


def peer_python() -> Path:
    """The interpreter of the peer's environment, which has the same torch and transformers as ours."""
    python = PEERS / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
        same = [f"{name}=={importlib.metadata.version(name)}" for name in ("torch", "transformers", "peft")]
        subprocess.run([str(python), "-m", "pip", "install", "-q", *same, "trl==1.16.0"], check=True)
    (PEERS / ".gitignore").write_text("*\n")
    return python


def pairs(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Questions with the first lines of their working, and two ways to end it: the right one, and that of another
    row."""
    lines = [row["answer"].split("\n") for row in rows]
    ends = ["\n".join(one[-2:]) for one in lines]
    return [
        {"prompt": "\n".join([row["question"], *one[:-2]]), "chosen": own, "rejected": other}
        for row, one, own, other in zip(rows, lines, ends, [*ends[1:], ends[0]], strict=True)
    ]


def run(side: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One measured process; its last line of output is its figures."""
    ours = side == "trimtab"
    if side == STOCK:
        plan = {**plan, "stock": True, "steps": min(STOCK_STEPS, plan["steps"])}
    python = sys.executable if ours else str(peer_python())
    with tempfile.TemporaryDirectory() as scratch:
        command = [python, str(ROOT / "benchmarks" / "peers" / f"{'trimtab' if ours else 'trl'}_{plan['work']}.py")]
        given = json.dumps({**plan, "scratch": scratch})
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(plan["threads"])}
        environment |= KEEPS_MEMORY if side == "trl" else {}
        done = subprocess.run(command, input=given, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr}")
    figures: dict[str, Any] = {"side": side, **json.loads(done.stdout.strip().splitlines()[-1])}
    print(f"{side:<8} {figures['tokens_per_second']:7.1f} tokens/s  {figures['peak_memory_mb']:7.0f} MB", flush=True)
    return figures


def summary(runs: list[dict[str, Any]], work: Work, plan: dict[str, Any]) -> dict[str, Any]:
    """Medians of both sides, the ratio, and what they ran on."""
    rate, memory = (
        {
            side: statistics.median(figures[key] for figures in runs if figures["side"] == side)
            for side in dict.fromkeys(figures["side"] for figures in runs)
        }
        for key in ("tokens_per_second", "peak_memory_mb")
    )
    return {
        "what": work.what,
        "peer": work.peer,
        "goal": work.goal,
        "tokens_per_second": rate,
        "ratio": rate["trimtab"] / rate["trl"],
        "peak_memory_mb": memory,
        "runs": runs,
        "steps": plan["steps"],
        "warmup_steps": plan["warmup"],
        "rows": len(plan["rows"]),
        "machine": {**machine(), "threads": plan["threads"]},
    }


def rows_of(name: str, count: int, source: Path) -> list[dict[str, Any]]:
    """The rows of a work: GSM8K as it is, as pairs, or messages with their intents."""
    if name == "head":
        with open(source / "banking77.train.csv", encoding="utf-8", newline="") as file:
            found = [{"text": row["text"], "label": row["category"]} for row in csv.DictReader(file)]
        return random.Random(0).sample(found, count)
    lines = (source / "gsm8k.train-1500.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:count]]
    return pairs(rows) if name == "dpo" else rows


def measured(name: str, work: Work, options: argparse.Namespace) -> dict[str, Any]:
    """Measure both sides of one work."""
    plan = {
        "model": str(resolve(MODEL)),
        "work": work.script,
        "rows": rows_of(name, work.rows, options.source),
        "instruction": INSTRUCTION,
        "rank": work.rank,
        "layers": work.layers,
        "batch": work.batch,
        "group": GROUP,
        "answer": ANSWER,
        "steps": options.steps or work.steps,
        "warmup": 1,
        "threads": options.threads,
        "stock": False,
    }
    return summary([run(side, plan) for side in (*ORDER * options.rounds, STOCK)], work, plan)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("works", nargs="*", help=f"of {', '.join(WORKS)}; all unless given")
    options.add_argument("--source", type=Path, default=SHARED, help="where the public files lie")
    options.add_argument("--steps", type=int, help="measured optimizer steps of each run, in place of each work's own")
    options.add_argument("--rounds", type=int, default=1, help="times that both sides run twice, A B B A")
    options.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options.add_argument("--out", type=Path, default=RESULT)
    chosen = options.parse_args()
    names = chosen.works or list(WORKS)
    if unknown := set(names) - set(WORKS):
        options.error(f"no work is called {', '.join(sorted(unknown))}")
    result = json.loads(chosen.out.read_text(encoding="utf-8")) if chosen.out.is_file() else {"model": MODEL, "on": {}}
    for name in names:
        print(f"{name}: {WORKS[name].what}", flush=True)
        found = measured(name, WORKS[name], chosen)
        result["on"].setdefault(kind(), {})[name] = found
        write_json(chosen.out, result)
        memory = found["peak_memory_mb"]
        against = ", ".join(f"{memory['trimtab'] / memory[side]:.2f} of {side}" for side in ("trl", STOCK))
        print(f"{name}: ratio {found['ratio']:.2f}, memory {against}", flush=True)


if __name__ == "__main__":
    main()
