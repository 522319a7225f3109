"""LoRA r=16 on all linear layers, batch 8, GSM8K rows: our loop against TRL's trainers, side by side on this machine.

Run: python benchmarks/train_vs_trl.py       →  benchmarks/results/train_vs_trl.json      (SFTTrainer)
     python benchmarks/train_vs_trl.py dpo   →  benchmarks/results/train_vs_trl_dpo.json  (DPOTrainer; 4 pairs a step)
In `dpo` a prompt is a question with the first lines of its working, about three times as long as the answers: its last two lines, and another's.
Each run is a process of its own, in the order A B B A; tokens are counted without padding, over the steps after the warm-up.
The peer's environment is made once, in benchmarks/.peers (not in git).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from trimtab.base.files import write_json
from trimtab.model.catalog import resolve

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "benchmarks" / ".peers"
ROWS = ROOT.parent / "shared" / "data" / "gsm8k.train-1500.jsonl"
RESULTS = {"sft": "train_vs_trl.json", "dpo": "train_vs_trl_dpo.json"}
MODEL, RANK, BATCHES = "smollm2-135m-q4", 16, {"sft": 8, "dpo": 4}
PEER = {
    "sft": "TRL SFTTrainer: bf16, no gradient checkpointing, grouped by length, completion-only loss, no packing",
    "dpo": "TRL DPOTrainer: bf16, no gradient checkpointing, reference log-probabilities computed before the clock starts",
}
POOL = 400  # rows that the steps draw from: enough for the peer to group by length as well as it can
ORDER = ("trimtab", "trl", "trl", "trimtab")


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
    """Questions with the first lines of their working, and two ways to end it: the right one, and that of another row."""
    lines = [row["answer"].split("\n") for row in rows]
    ends = ["\n".join(one[-2:]) for one in lines]
    return [
        {"prompt": "\n".join([row["question"], *one[:-2]]), "chosen": own, "rejected": other}
        for row, one, own, other in zip(rows, lines, ends, [*ends[1:], ends[0]], strict=True)
    ]


def run(side: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One measured process; its last line of output is its figures."""
    python = str(peer_python()) if side == "trl" else sys.executable
    with tempfile.TemporaryDirectory() as scratch:
        command = [python, str(ROOT / "benchmarks" / "peers" / f"{side}_{plan['work']}.py")]
        given = json.dumps({**plan, "scratch": scratch})
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(plan["threads"])}
        done = subprocess.run(command, input=given, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr}")
    figures: dict[str, Any] = {"side": side, **json.loads(done.stdout.strip().splitlines()[-1])}
    print(f"{side:<8} {figures['tokens_per_second']:7.1f} tokens/s  {figures['peak_memory_mb']:7.0f} MB", flush=True)
    return figures


def summary(runs: list[dict[str, Any]], plan: dict[str, Any]) -> dict[str, Any]:
    """Medians of both sides, the ratio, and what they ran on."""
    rate, memory = (
        {
            side: statistics.median(figures[key] for figures in runs if figures["side"] == side)
            for side in ("trimtab", "trl")
        }
        for key in ("tokens_per_second", "peak_memory_mb")
    )
    return {
        "what": f"{plan['work']}: {MODEL}, LoRA r={RANK} on all linear layers, batch {plan['batch']}, GSM8K, loss on answers, bf16 weights",
        "peer": PEER[plan["work"]],
        "tokens_per_second": rate,
        "ratio": rate["trimtab"] / rate["trl"],
        "peak_memory_mb": memory,
        "runs": runs,
        "steps": plan["steps"],
        "warmup_steps": plan["warmup"],
        "rows": len(plan["rows"]),
        "machine": {"processor": processor(), "threads": plan["threads"], "system": platform.platform()},
    }


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("work", nargs="?", choices=tuple(RESULTS), default="sft")
    options.add_argument("--rows", type=Path, default=ROWS, help="JSON lines with question and answer")
    options.add_argument("--steps", type=int, default=5, help="measured optimizer steps of each run")
    options.add_argument("--warmup", type=int, default=1)
    options.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options.add_argument("--out", type=Path, help="where the result goes, in place of benchmarks/results/")
    chosen = options.parse_args()
    batch = BATCHES[chosen.work]
    count = max(POOL, batch * (chosen.steps + chosen.warmup))
    rows = [json.loads(line) for line in chosen.rows.read_text(encoding="utf-8").splitlines()[:count]]
    plan = {
        "model": str(resolve(MODEL)),
        "work": chosen.work,
        "rows": pairs(rows) if chosen.work == "dpo" else rows,
        "rank": RANK,
        "batch": batch,
        "steps": chosen.steps,
        "warmup": chosen.warmup,
        "threads": chosen.threads,
    }
    result = summary([run(side, plan) for side in ORDER], plan)
    out = chosen.out or ROOT / "benchmarks" / "results" / RESULTS[chosen.work]
    write_json(out, result)
    print(f"ratio {result['ratio']:.2f}  →  {out}")


if __name__ == "__main__":
    main()
