"""Compares, on recorded training runs, rules for which evaluation's weights are kept and when training stops.

    python benchmarks/best_weights.py record     # trains; appends missing runs to results/best_weights_runs.jsonl
    python benchmarks/best_weights.py compare    # every rule on every recorded run → results/best_weights.json

A run is LoRA on a cut of a task: at every evaluation the loss and the score of each dev row, and the mean score on
test rows that decide nothing. No run stops early, so that every rule can be asked afterwards what it would have kept
and when it would have stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from processor import machine
from weight_rules import compare

from trimtab.arms.contexts import Context, PromptBuilder, context_for
from trimtab.arms.objectives import training_rows
from trimtab.arms.recipe import recipe
from trimtab.arms.session import Session, open_session
from trimtab.arms.trainer import prepare_base
from trimtab.arms.workspace import open_workspace
from trimtab.base.files import write_json
from trimtab.base.records import Example
from trimtab.base.task import load_task, parse_arm
from trimtab.data.draw import sample_rows
from trimtab.measurement.evaluate import evaluate_prompts
from trimtab.model.adapters.apply import merged
from trimtab.training.loop import LoopSettings, TrainingJob, train_model
from trimtab.training.monitor import DevEvaluation
from trimtab.training.sft import SupervisedObjective, row_losses

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
RUNS, RESULT = (ROOT / "benchmarks" / "results" / name for name in ("best_weights_runs.jsonl", "best_weights.json"))
SEEDS, EPOCHS, BATCH, RATE = (0, 1, 2, 3), 4, 4, 1e-3
TRAIN, DEV, TEST = 32, 48, 64

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


def bundled(name: str) -> Rows:
    """The rows of a bundled example."""
    file = {"handbook": "questions.jsonl", "spam": "messages.jsonl"}[name]
    yield from map(json.loads, (files("trimtab.demos") / name / file).read_text(encoding="utf-8").splitlines())


def spam(_: Path) -> Rows:
    """Messages, three labels."""
    for row in bundled("spam"):
        yield {"input": row["input"], "label": row["label"], "group": row["group"]}


def handbook(_: Path) -> Rows:
    """Questions with the sentence that holds the answer: reading, as no fact of a test question stands in a training
    row."""
    documents = files("trimtab.demos") / "handbook" / "documents"
    for row in bundled("handbook"):
        text = (documents / row["passage"]).read_text(encoding="utf-8").replace("\n", " ") if row.get("passage") else ""
        sentences = [one for one in text.split(". ") if row["answer"][0].lower() in one.lower() and len(one) < 200]
        if sentences:
            yield {"input": f"{sentences[0]}\n{row['question']}", "output": row["answer"], "group": row["group"]}


def banking77(source: Path) -> Rows:
    """Ten of the 77 intents, drawn."""
    with open(source / "banking77.train.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    intents = set(random.Random(0).sample(sorted({row["category"] for row in rows}), 10))
    for row in rows:
        if row["category"] in intents:
            yield {"input": row["text"], "label": row["category"].replace("_", " ")}


def xquad(source: Path) -> Rows:
    """Questions with the sentence that holds the answer: reading, not knowing."""
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


Source = Callable[[Path], Rows]
# name: rows, kind, metric, instruction, further lines of [task]
TASKS: dict[str, tuple[Source, str, str, str, str]] = {
    "spam": (spam, "classify", "accuracy", "Is it spam, promo or ham?", ""),
    "banking77": (banking77, "classify", "accuracy", "Name the topic of the message.", ""),
    "handbook": (handbook, "answer", "contains", "Answer in a few words.", "output_tokens = 12"),
    "xquad": (xquad, "answer", "token_f1", "Answer in a few words.", "output_tokens = 16"),
}


def copy_demo(name: str, source: Path, folder: Path) -> Path:
    """Write the task's folder; the same rows whatever the seed of a run."""
    rows, kind, metric, instruction, more = TASKS[name]
    listed = list(rows(source))
    chosen = random.Random(0).sample(listed, min(600, len(listed)))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")
    group = 'group = "group"' if "group" in chosen[0] else ""
    text = TASK.format(name=name, kind=kind, metric=metric, instruction=instruction, more=more, group=group)
    (folder / "trimtab.toml").write_text(text, encoding="utf-8")
    return folder / "trimtab.toml"


def scores(session: Session, builder: PromptBuilder, part: Sequence[Example]) -> list[float]:
    """The score of each answer, adapter merged."""
    with merged(session.base.model):
        given = evaluate_prompts(
            part, builder.prompts(part), session.answer, session.task, split="dev", seed=0, scorer=None
        )
    return [round(answer.score, 4) for answer in given]


def record(name: str, seed: int, source: Path) -> dict[str, Any]:
    """One run, looked at after every epoch; the seed decides training rows, adapter and order."""
    with tempfile.TemporaryDirectory() as scratch:
        return _record(name, seed, open_session(open_workspace(load_task(copy_demo(name, source, Path(scratch))))))


def _record(name: str, seed: int, session: Session) -> dict[str, Any]:
    task, splits = session.task, session.workspace.splits
    examples = sample_rows(splits["train"], TRAIN, task.task.kind, seed)
    dev, test = session.workspace.subset("dev", DEV), session.workspace.subset("test", TEST)
    arm = parse_arm("lora", task)
    context: Context = context_for(arm)
    plan = replace(recipe(arm, len(examples), seed), batch=BATCH)
    prepare_base(session, plan)
    builder = PromptBuilder(session, context)
    train_rows, dev_rows = (training_rows(session, context, part, seed)[0] for part in (examples, dev))
    tokens = [row.trained_tokens for row in dev_rows]
    seen: list[dict[str, Any]] = []

    def look() -> DevEvaluation:
        began = time.process_time()
        losses = [round(nats, 4) for nats in row_losses(session.base, dev_rows)]
        own, others = scores(session, builder, dev), scores(session, builder, test)
        seen.append({"losses": losses, "scores": own, "test": round(sum(others) / len(others), 5)})
        mean = sum(losses) / sum(tokens)
        print(
            f"{name} {seed}: {mean:.3f} nats, dev {sum(own) / len(own):.3f}, test {seen[-1]['test']:.3f} "
            f"({time.process_time() - began:.0f} s)",
            flush=True,
        )
        return DevEvaluation(dev_loss=mean)

    settings = LoopSettings(learning_rate=RATE, epochs=EPOCHS, evaluations=EPOCHS, patience=EPOCHS)
    began = time.process_time()
    train_model(
        TrainingJob(
            base=session.base,
            objective=SupervisedObjective(train_rows, batch=BATCH, seed=seed),
            settings=settings,
            folder=session.workspace.folder / "run",
            evaluate=look,
        )
    )
    return {
        "task": name,
        "seed": seed,
        "rows": [len(examples), len(dev), len(test)],
        "seconds": round(time.process_time() - began),
        "machine": machine(),
        "tokens": tokens,
        "groups": [example.group or example.id for example in dev],
        "evaluations": seen,
    }


def recorded() -> list[dict[str, Any]]:
    """The runs there are."""
    return [json.loads(line) for line in RUNS.read_text(encoding="utf-8").splitlines()] if RUNS.is_file() else []


def record_all(source: Path, names: Sequence[str]) -> None:
    """Record every run that is missing, one seed of every task after the other."""
    done = {(run["task"], run["seed"]) for run in recorded()}
    for seed in SEEDS:
        for name in names:
            if (name, seed) not in done:
                line = json.dumps(record(name, seed, source))
                with open(RUNS, "a", encoding="utf-8") as file:
                    file.write(line + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("record", "compare"))
    parser.add_argument("--tasks", default=",".join(TASKS), help="which of them, with commas")
    parser.add_argument("--source", type=Path, default=SHARED, help="where the public files lie")
    given = parser.parse_args()
    if given.what == "record":
        record_all(given.source, given.tasks.split(","))
        return
    result = compare(recorded())
    write_json(RESULT, result)
    for row in result["table"]:
        print(*(row[key] for key in row), sep=" | ")


if __name__ == "__main__":
    main()
