"""Four equal arms with one core each: one worker against two, and against a study without Ray.

Run: python benchmarks/cluster.py  →  benchmarks/results/cluster.json, in some minutes on two cores, alone on the
machine. A random Llama of four layers is fine-tuned with LoRA by four arms that differ in their name alone. Each run
is a process of its own, bound to as many cores as it has workers, in the order A B B A. Wall seconds of building the
arms (from the first `begin` of an arm to the last event before the test questions), of the whole command, and of what
it spent beside the arms. Linux, whose processes can be bound to cores.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trimtab.base.files import read_json_lines, write_json
from trimtab.base.machine import describe_machine, versions

RESULT = Path(__file__).resolve().parent / "results" / "cluster.json"
ARMS = ("first", "second", "third", "fourth")
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TASK = """
[task]
name = "cluster"
instruction = "Which city?"
kind = "answer"
metric = "exact_match"
output_tokens = 6
[data]
examples = ["rows.jsonl"]
[base]
model = "model"
precision = "fp32"
[study]
arms = {arms}
effort = "none"
"""
ARM = '[arm.{name}]\nweights = "lora"\nepochs = {epochs}\n'
ORDER = ("one worker", "two workers", "two workers", "one worker", "without Ray", "without Ray")
CORES = {"one worker": 1, "two workers": 2, "without Ray": 1}


def write_model(folder: Path) -> None:
    """A random Llama with a byte-level tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["Which city is it?"], trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=SPECIAL[2], pad_token=SPECIAL[0], chat_template=CHATML
    ).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=300, max_position_embeddings=256, tie_word_embeddings=True, **sizes)
    config.bos_token_id, config.eos_token_id, config.pad_token_id = None, tokenizer.token_to_id(SPECIAL[2]), 0
    LlamaForCausalLM(config).save_pretrained(folder)


def write_task(folder: Path, rows: int, epochs: float) -> Path:
    """The task of four equal arms."""
    draw = random.Random(0)
    folder.mkdir()
    write_model(folder / "model")
    lines = [
        {"question": f"{draw.randrange(10**9)} lies where, of {draw.randrange(10**9)}?", "answer": draw.choice(ARMS)}
        for _ in range(rows)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arms = "".join(ARM.format(name=name, epochs=epochs) for name in ARMS)
    (folder / "trimtab.toml").write_text(TASK.format(arms=json.dumps(ARMS)) + arms)
    return folder / "trimtab.toml"


def run(task: Path, way: str) -> dict[str, float]:
    """The wall seconds of one study."""
    shutil.rmtree(task.parent / ".trimtab", ignore_errors=True)
    on = [] if way == "without Ray" else ["--on", "local"]
    command = [sys.executable, "-m", "trimtab", "study", "--task", str(task), *on]
    cores = sorted(os.sched_getaffinity(0))[: CORES[way]]
    began = time.perf_counter()
    done = subprocess.run(
        ["taskset", "-c", ",".join(map(str, cores)), *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    whole = time.perf_counter() - began
    if done.returncode > 1:
        raise RuntimeError(done.stderr)
    (file,) = task.parent.glob(".trimtab/studies/*/events.jsonl")
    return {"building": building_seconds(list(read_json_lines(file))), "whole": whole}


def building_seconds(events: Sequence[dict[str, Any]]) -> float:
    """The seconds from the first `begin` of an arm to its last training step or look at dev."""
    of_arms = [event for event in events if event["stage"] in ("begin", "train", "dev")]
    trained = [event for event in of_arms if event["stage"] != "begin"]
    at = [datetime.fromisoformat(event["time"]).timestamp() for event in (of_arms[0], trained[-1])]
    return at[1] - at[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--epochs", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        task = write_task(Path(folder) / "task", options.rows, options.epochs)
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in CORES}
        for way in ORDER:
            runs[way].append(run(task, way))
            print(way, runs[way][-1], flush=True)
    medians = {way: {what: median(one[what] for one in each) for what in each[0]} for way, each in runs.items()}
    one, two = medians["one worker"], medians["two workers"]
    ratios = {what: one[what] / two[what] for what in one}
    write_json(
        options.out,
        {
            "machine": describe_machine(),
            "versions": versions(),
            "load": os.getloadavg(),
            "rows": options.rows,
            "epochs": options.epochs,
            "runs": runs,
            "medians": medians,
            "one_over_two": ratios,
        },
    )
    print(ratios)


if __name__ == "__main__":
    main()
