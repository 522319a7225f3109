"""What several benchmarks share: where public files lie, the kind of processor, busy programs beside a measurement,
rows of GSM8K with the speed of training on them, and small tasks on which settings of training are compared.
"""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from trimtab.base.machine import describe_machine
from trimtab.base.records import Message
from trimtab.data.prompts import ChatEncoder
from trimtab.model.adapters.apply import trainable_parameters
from trimtab.model.load import Base
from trimtab.training.batch import Batch
from trimtab.training.parallel import map_microbatches
from trimtab.training.sft import SupervisedObjective, answer_rows

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"  # public files: gsm8k, Banking77, XQuAD (docs/start/your-data.md)
GSM8K_ROWS = 200
BUSY = "while True: pass"

TASK = """[task]
name = "{name}"
kind = "{kind}"
instruction = "{instruction}"
metric = "{metric}"
{more}
[data]
examples = ["rows.jsonl"]
leakage = "report"
{group}
split = {{ dev = 0.25, test = 0.4, seed = 0 }}
[base]
model = "smollm2-135m-q4"
[study]
arms = ["lora"]
"""
Rows = Iterator[dict[str, Any]]


# The processor, by whose kind results are filed beside each other.


def instructions() -> str:
    """Return the instructions with which the processor multiplies bfloat16."""
    file = Path("/proc/cpuinfo")
    flags = file.read_text(encoding="utf-8").split() if file.is_file() else []
    return next((name for name in ("amx_bf16", "avx512_bf16") if name in flags), "neither AMX nor avx512_bf16")


def kind() -> str:
    """Return the processor and its instructions, as results are filed."""
    return f"{describe_machine()['processor']}, {instructions()}"


def machine() -> dict[str, Any]:
    """Return the machine as it stands in a result, with the threads of this process."""
    return {**describe_machine(), "threads": torch.get_num_threads(), "bf16 by": instructions()}


@contextmanager
def busy_programs(count: int, program: str = BUSY) -> Iterator[None]:
    """Context manager: `count` programs run beside, by default each keeping a core busy."""
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()


# Training steps over rows of GSM8K.


def gsm8k_objective(base: Base, source: Path, batch: int) -> SupervisedObjective:
    """Return training on GSM8K rows, which share nothing but what the template puts before each question."""
    encoder = ChatEncoder(base.tokenizer)
    lines = (source / "gsm8k.train-1500.jsonl").read_text(encoding="utf-8").splitlines()[:GSM8K_ROWS]
    conversations = (
        (encoder.conversation([Message(role="user", content=row["question"])], row["answer"]), 1.0)
        for row in map(json.loads, lines)
    )
    return SupervisedObjective(answer_rows(conversations), batch=batch, seed=0)


def training_speed(base: Base, objective: SupervisedObjective, steps: int) -> float:
    """Return the tokens of rows a second, passes side by side as the loop has them."""
    moving = list(trainable_parameters(base.model).values())

    def passed(batch: Batch) -> int:
        torch.autograd.grad(objective.loss(base, batch).value, moving, allow_unused=True)
        return batch.row_tokens

    began = time.perf_counter()
    tokens = sum(tokens for step in range(steps) for tokens in map_microbatches(passed, objective.batches(step)))
    return tokens / (time.perf_counter() - began)


# Small tasks: cuts of two bundled examples and two public sets.


def bundled(name: str) -> Rows:
    """Yield the rows of a bundled example."""
    file = {"handbook": "questions.jsonl", "spam": "messages.jsonl"}[name]
    yield from map(json.loads, (files("trimtab.demos") / name / file).read_text(encoding="utf-8").splitlines())


def spam(_: Path) -> Rows:
    """Yield messages with three labels."""
    for row in bundled("spam"):
        yield {"input": row["input"], "label": row["label"], "group": row["group"]}


def handbook(_: Path) -> Rows:
    """Yield questions with the sentence that holds the answer: reading, as no fact of a test question stands in a
    training row."""
    documents = files("trimtab.demos") / "handbook" / "documents"
    for row in bundled("handbook"):
        text = (documents / row["passage"]).read_text(encoding="utf-8").replace("\n", " ") if row.get("passage") else ""
        sentences = [part for part in text.split(". ") if row["answer"][0].lower() in part.lower() and len(part) < 200]
        if sentences:
            yield {"input": f"{sentences[0]}\n{row['question']}", "output": row["answer"], "group": row["group"]}


def banking77(source: Path) -> Rows:
    """Yield messages of ten of the 77 intents, drawn."""
    with open(source / "banking77.train.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    intents = set(random.Random(0).sample(sorted({row["category"] for row in rows}), 10))
    for row in rows:
        if row["category"] in intents:
            yield {"input": row["text"], "label": row["category"].replace("_", " ")}


def xquad(source: Path) -> Rows:
    """Yield questions with the sentence that holds the answer: reading, not knowing."""
    for article in json.loads((source / "xquad.en.json").read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                text, answer = paragraph["context"], question["answers"][0]
                begin = text.rfind(". ", 0, answer["answer_start"]) + 1
                end = text.find(". ", answer["answer_start"] + len(answer["text"]))
                sentence = text[begin : end + 1 if end >= 0 else None].strip()
                if len(sentence) < 160:
                    asked = f"{sentence}\n{question['question']}"
                    yield {"input": asked, "output": answer["text"], "group": article["title"]}


# name: rows, kind, metric, instruction, further lines of [task]
TASKS: dict[str, tuple[Callable[[Path], Rows], str, str, str, str]] = {
    "spam": (spam, "classify", "accuracy", "Is it spam, promo or ham?", ""),
    "banking77": (banking77, "classify", "accuracy", "Name the topic of the message.", ""),
    "handbook": (handbook, "answer", "contains", "Answer in a few words.", "output_tokens = 12"),
    "xquad": (xquad, "answer", "token_f1", "Answer in a few words.", "output_tokens = 16"),
}


def write_task(name: str, source: Path, folder: Path) -> Path:
    """Write a task's folder and return its task file; the rows are the same each time."""
    rows, kind, metric, instruction, more = TASKS[name]
    listed = list(rows(source))
    chosen = random.Random(0).sample(listed, min(600, len(listed)))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")
    group = 'group = "group"' if "group" in chosen[0] else ""
    text = TASK.format(name=name, kind=kind, metric=metric, instruction=instruction, more=more, group=group)
    (folder / "trimtab.toml").write_text(text, encoding="utf-8")
    return folder / "trimtab.toml"
