"""Four equal arms with one core each: one worker against two and four, and what the model of the schedule foretells.

Run: python benchmarks/cluster.py  →  benchmarks/results/cluster.json and the tables of docs/scale.md, in about ten
minutes on two cores, alone on the machine (`load`: of the minutes before). A random Llama of four layers is fine-tuned
with LoRA by four arms that differ in their name alone, on a Ray cluster of one, two and four nodes with a core each.
Study and cluster are bound to as many cores as there are nodes, two at most, in the order A B C B A. Wall seconds of
building the arms, from where building is foretold to the last event of a worker, and of the whole command. Linux, whose
processes can be bound to cores.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from schedule_model import StageTimes, checked
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
ORDER = (1, 2, 4, 2, 1)  # workers
CORES = 2  # of the machine, at most; as many as workers
HEAD = """
import sys
from ray.cluster_utils import Cluster
sizes = {"num_cpus": 1, "object_store_memory": 80 << 20}
made = Cluster(initialize_head=True, head_node_args={**sizes, "include_dashboard": False})
for _ in range(int(sys.argv[1]) - 1):
    made.add_node(**sizes)
print(made.address, flush=True)
sys.stdin.read()
made.shutdown()
"""


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


@contextmanager
def cluster(workers: int, cores: Sequence[int]) -> Iterator[dict[str, str]]:
    """A cluster of as many nodes as workers, each of which offers a core; all of it is bound to `cores`. What a study
    needs in its environment.
    """
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    quiet = {**os.environ, **token, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [*bound(cores), sys.executable, "-c", HEAD, str(workers)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, env=quiet, **pipes) as head:
        try:
            yield {**quiet, "RAY_ADDRESS": head.stdout.readline().strip()}  # type: ignore[union-attr]
        finally:
            head.communicate()


def bound(cores: Sequence[int]) -> list[str]:
    return ["taskset", "-c", ",".join(map(str, cores))]


def run(task: Path, workers: int) -> dict[str, Any]:
    """What one study took: wall seconds, and those of its stages."""
    shutil.rmtree(task.parent / ".trimtab", ignore_errors=True)
    cores = sorted(os.sched_getaffinity(0))[: min(workers, CORES)]
    with cluster(workers, cores) as environment:
        command = [*bound(cores), sys.executable, "-m", "trimtab", "study", "--task", str(task), "--on", "auto"]
        began = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        whole = time.perf_counter() - began
    if done.returncode > 1:
        raise RuntimeError(done.stderr)
    (file,) = task.parent.glob(".trimtab/studies/*/events.jsonl")
    events = list(read_json_lines(file))
    made, answered = (stage_times(events, note) for note in ("building ", "answering the test questions: "))
    seconds = {"building": made.seconds, "whole": whole}
    return {"seconds": seconds, "building": asdict(made), "answering": asdict(answered), "whole": whole}


def stage_times(events: Sequence[dict[str, Any]], note: str) -> StageTimes:
    """The times of a stage, from its prediction to its last event: until its first job begins, and from there to where
    the next job begins. With several workers only the sum of them says something.
    """
    at = [datetime.fromisoformat(event["time"]).timestamp() for event in events]
    first = next(number for number, event in enumerate(events) if event.get("note", "").startswith(note))
    rest = range(first + 1, len(events))
    ends = (number for number in rest if not {"worker", "note"} & events[number].keys())
    until = next(ends, len(events))
    own = range(first + 1, until)
    begun = sorted(at[number] for number in own if events[number]["stage"] == "begin")
    times = [*begun, max(at[number] for number in own)]
    return StageTimes(start=times[0] - at[first], jobs=tuple(later - one for one, later in pairwise(times)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--epochs", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        task = write_task(Path(folder) / "task", options.rows, options.epochs)
        runs: dict[str, list[dict[str, Any]]] = {str(workers): [] for workers in sorted(set(ORDER))}
        for workers in ORDER:
            runs[str(workers)].append(run(task, workers))
            print(workers, runs[str(workers)][-1], flush=True)
    means = {
        workers: {what: mean(one["seconds"][what] for one in each) for what in each[0]["seconds"]}
        for workers, each in runs.items()
    }
    measured = {
        "machine": describe_machine(),
        "versions": versions(),
        "load": load,
        "rows": options.rows,
        "epochs": options.epochs,
        "cores": CORES,
        "runs": runs,
        "means": means,
        "one_over_two": {what: means["1"][what] / means["2"][what] for what in means["1"]},
    }
    write_json(options.out, {**measured, "model": checked(measured)})
    print(json.dumps({"one_over_two": measured["one_over_two"], "model": checked(measured)}, indent=1))
    if options.out == RESULT:
        subprocess.run([sys.executable, str(RESULT.parents[1] / "scale_model.py"), "write"], check=True)


if __name__ == "__main__":
    main()
