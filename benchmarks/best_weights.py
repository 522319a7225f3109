"""Which evaluation's weights to keep, and when to stop: rules compared on recorded training runs (decision 12).

python benchmarks/best_weights.py record     # trains; adds a line a run to results/best_weights_runs.jsonl, those there are kept
python benchmarks/best_weights.py compare    # every rule on every recorded run → results/best_weights.json

A run is LoRA on a cut of a task: at every evaluation the loss and the score of each dev row, and the mean score on test rows that
decide nothing. No run stops early, so that every rule can be asked afterwards what it would have kept and when it would have stopped.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trimtab.arms.contexts import Context, PromptBuilder, context_for
from trimtab.arms.session import Session, open_session
from trimtab.arms.weights import prepare, recipe, training_rows
from trimtab.arms.workspace import open_workspace
from trimtab.base.files import write_json
from trimtab.base.machine import describe_machine
from trimtab.base.records import Example
from trimtab.base.task import load_task, parse_arm
from trimtab.data.draw import drawn
from trimtab.measurement.evaluate import Scorer, evaluate
from trimtab.measurement.scorer import ScorerProgram
from trimtab.model.adapters import merged
from trimtab.training.batch import MICRO_TOKENS, Row, micro_batches, pack
from trimtab.training.loop import LoopSettings, TrainingJob, train
from trimtab.training.losses import label_log_probabilities, scored_hidden
from trimtab.training.monitor import Evaluation
from trimtab.training.sft import Supervised

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
RUNS, RESULT = (ROOT / "benchmarks" / "results" / name for name in ("best_weights_runs.jsonl", "best_weights.json"))
SEEDS, EPOCHS, BATCH, RATE = (0, 1, 2), 4, 4, 1e-3
TRAIN, DEV, TEST = 32, 48, 64
PATIENCE = 2
CHOSEN = ("lowest loss",)  # with which every stop is tried

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
    file = {"handbook": "questions.jsonl", "spam": "messages.jsonl", "style": "pairs.jsonl"}[name]
    yield from map(json.loads, (files("trimtab.demos") / name / file).read_text(encoding="utf-8").splitlines())


def spam(_: Path) -> Rows:
    """Messages, three labels."""
    for row in bundled("spam"):
        yield {"input": row["input"], "label": row["label"], "group": row["group"]}


def handbook(_: Path) -> Rows:
    """Questions with the sentence that holds the answer: reading, as no fact of a test question stands in a training row."""
    documents = files("trimtab.demos") / "handbook" / "documents"
    for row in bundled("handbook"):
        text = (documents / row["passage"]).read_text(encoding="utf-8").replace("\n", " ") if row.get("passage") else ""
        sentences = [one for one in text.split(". ") if row["answer"][0].lower() in one.lower() and len(one) < 200]
        if sentences:
            yield {"input": f"{sentences[0]}\n{row['question']}", "output": row["answer"], "group": row["group"]}


def style(_: Path) -> Rows:
    """Short functions, scored by the example's own program."""
    for row in bundled("style"):
        if len(row["output"]) < 170:
            yield {"input": row["input"], "output": row["output"], "group": row["body"]}


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
    "style": (style, "generate", "scorer", "Rewrite in the house style.", "output_tokens = 64"),
}
SIZES = {"style": (24, 24, 32)}


def lay_out(name: str, source: Path, folder: Path) -> Path:
    """Write the task's folder; the same rows whatever the seed of a run."""
    rows, kind, metric, instruction, more = TASKS[name]
    listed = list(rows(source))
    chosen = random.Random(0).sample(listed, min(600, len(listed)))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")
    if metric == "scorer":
        (folder / "score.py").write_text((files("trimtab.demos") / name / "score.py").read_text(encoding="utf-8"))
        more += f'\nscorer = ["{sys.executable}", "score.py"]'
    group = 'group = "group"' if "group" in chosen[0] else ""
    text = TASK.format(name=name, kind=kind, metric=metric, instruction=instruction, more=more, group=group)
    (folder / "trimtab.toml").write_text(text, encoding="utf-8")
    return folder / "trimtab.toml"


def row_losses(session: Session, rows: Sequence[Row]) -> list[float]:
    """Nats of each row's answer, over all its tokens."""
    nats: dict[int, float] = {}
    with torch.no_grad():
        for part in micro_batches([(row,) for row in rows], MICRO_TOKENS):
            packed = [row for unit in part for row in unit]
            batch = pack(packed)
            log_p_M = label_log_probabilities(session.base, scored_hidden(session.base, batch), batch.labels_M)
            sizes = [row.trained_tokens for row in packed]
            nats |= {id(row): -float(each.sum()) for row, each in zip(packed, log_p_M.split(sizes), strict=True)}
    return [round(nats[id(row)], 4) for row in rows]


def scores(session: Session, builder: PromptBuilder, part: Sequence[Example], scorer: Scorer | None) -> list[float]:
    """The score of each answer, adapter merged."""
    task = session.task
    with merged(session.base.model):
        given = evaluate(part, builder.prompts(part), session.answer, task, split="dev", seed=0, scorer=scorer)
    return [round(answer.score, 4) for answer in given]


def record(name: str, seed: int, source: Path) -> dict[str, Any]:
    """One run, looked at after every epoch; the seed decides training rows, adapter and order."""
    with tempfile.TemporaryDirectory() as scratch:
        task = load_task(lay_out(name, source, Path(scratch)))
        if not task.task.scorer:
            return _record(name, seed, open_session(open_workspace(task)), Path(scratch), None)
        with ScorerProgram(task.task.scorer, task.folder) as scorer:
            return _record(name, seed, open_session(open_workspace(task)), Path(scratch), scorer)


def _record(name: str, seed: int, session: Session, folder: Path, scorer: Scorer | None) -> dict[str, Any]:
    task, splits = session.task, session.workspace.splits
    sizes = SIZES.get(name, (TRAIN, DEV, TEST))
    examples = drawn(splits["train"], sizes[0], task.task.kind, seed)
    dev, test = session.part("dev", sizes[1]), session.part("test", sizes[2])
    arm = parse_arm("lora", task)
    context: Context = context_for(arm)
    plan = replace(recipe(arm, len(examples), seed), batch=BATCH)
    prepare(session, plan)
    builder = PromptBuilder(session, context)
    train_rows, dev_rows = (training_rows(session, context, part, seed)[0] for part in (examples, dev))
    tokens = [row.trained_tokens for row in dev_rows]
    seen: list[dict[str, Any]] = []

    def look() -> Evaluation:
        began = time.process_time()
        losses = row_losses(session, dev_rows)
        own, others = scores(session, builder, dev, scorer), scores(session, builder, test, scorer)
        seen.append({"losses": losses, "scores": own, "test": round(sum(others) / len(others), 5)})
        mean = sum(losses) / sum(tokens)
        print(
            f"{name} {seed}: {mean:.3f} nats, dev {sum(own) / len(own):.3f}, test {seen[-1]['test']:.3f} "
            f"({time.process_time() - began:.0f} s)",
            flush=True,
        )
        return Evaluation(dev_loss=mean)

    settings = LoopSettings(learning_rate=RATE, epochs=EPOCHS, evaluations=EPOCHS, patience=EPOCHS)
    began = time.process_time()
    train(
        TrainingJob(
            base=session.base,
            objective=Supervised(train_rows, batch=BATCH, seed=seed),
            settings=settings,
            folder=folder / "run",
            evaluate=look,
        )
    )
    return {
        "task": name,
        "seed": seed,
        "rows": [len(examples), len(dev), len(test)],
        "seconds": round(time.process_time() - began),
        "machine": describe_machine(),
        "tokens": tokens,
        "groups": [example.group or example.id for example in dev],
        "evaluations": seen,
    }


def recorded() -> list[dict[str, Any]]:
    """The runs there are."""
    return [json.loads(line) for line in RUNS.read_text(encoding="utf-8").splitlines()] if RUNS.is_file() else []


def record_all(source: Path, names: Sequence[str]) -> None:
    """Every run that is not there yet, one seed of every task after the other."""
    done = {(run["task"], run["seed"]) for run in recorded()}
    for seed in SEEDS:
        for name in names:
            if (name, seed) not in done:
                line = json.dumps(record(name, seed, source))
                with open(RUNS, "a", encoding="utf-8") as file:
                    file.write(line + "\n")


@dataclass(frozen=True)
class Dev:
    """What a run's evaluations read on the same N dev rows: losses whose mean is the dev loss, and scores, `[evaluations, N]`."""

    losses: np.ndarray
    scores: np.ndarray

    def first(self, count: int) -> Dev:
        """The first evaluations alone."""
        return Dev(self.losses[:count], self.scores[:count])

    def over(self, rows: np.ndarray) -> Dev:
        """The same evaluations on other rows."""
        return Dev(self.losses[:, rows], self.scores[:, rows])

    @property
    def loss(self) -> np.ndarray:
        """Mean losses."""
        means: np.ndarray = self.losses.mean(1)
        return means

    @property
    def score(self) -> np.ndarray:
        """Mean scores."""
        means: np.ndarray = self.scores.mean(1)
        return means


def error(left: np.ndarray, right: np.ndarray) -> float:
    """One paired standard error of a difference of means."""
    return float(np.std(left - right, ddof=1) / len(left) ** 0.5)


def alike(values: np.ndarray, best: int) -> list[int]:
    """The evaluations within one paired standard error of the best."""
    means = values.mean(1)
    return [t for t in range(len(means)) if abs(means[t] - means[best]) <= error(values[t], values[best])]


def today(dev: Dev, order: Sequence[int] | None = None) -> int:
    """The rule until now: the newcomer wins by a score higher by over 0.02, else by a lower loss. It depends on the order."""
    order = range(len(dev.loss)) if order is None else order
    best = order[0]
    for new in order[1:]:
        gap = dev.score[new] - dev.score[best]
        best = new if (gap > 0 if abs(gap) > 0.02 else dev.loss[new] < dev.loss[best]) else best
    return best


def lowest_loss(dev: Dev) -> int:
    return int(dev.loss.argmin())


def highest_score(dev: Dev) -> int:
    """Of equals the one with the lower loss."""
    return min(range(len(dev.loss)), key=lambda t: (-dev.score[t], dev.loss[t]))


def last_step_forward(dev: Dev) -> int:
    """The last one that was lower than the one before it that counted by more than one standard error."""
    kept = 0
    for t in range(1, len(dev.loss)):
        if dev.loss[kept] - dev.loss[t] > error(dev.losses[t], dev.losses[kept]):
            kept = t
    return kept


KEEP: dict[str, Callable[[Dev], int]] = {
    "the rule until now": today,
    "the last": lambda dev: len(dev.loss) - 1,
    "lowest loss": lowest_loss,
    "highest score": highest_score,
    "earliest within 1 SE of the lowest loss": lambda dev: min(alike(dev.losses, lowest_loss(dev))),
    "latest within 1 SE of the lowest loss": lambda dev: max(alike(dev.losses, lowest_loss(dev))),
    "earliest within 1 SE of the highest score": lambda dev: min(alike(dev.scores, highest_score(dev))),
    "lowest loss within 1 SE of the highest score": lambda dev: min(
        alike(dev.scores, highest_score(dev)), key=lambda t: dev.loss[t]
    ),
    "highest score within 1 SE of the lowest loss": lambda dev: min(
        alike(dev.losses, lowest_loss(dev)), key=lambda t: (-dev.score[t], dev.loss[t])
    ),
    "last that was lower by over 1 SE": last_step_forward,
}


def stale(kept: int, dev: Dev) -> bool:
    return len(dev.loss) - 1 - kept >= PATIENCE


# whether to stop after the evaluations seen so far
STOP: dict[str, Callable[[Dev], bool]] = {
    "never": lambda _: False,
    "the rule until now": lambda dev: stale(today(dev), dev) and dev.loss[-1] > dev.loss.min(),
    "no lower loss for 2": lambda dev: stale(lowest_loss(dev), dev),
    "no loss lower by over 1 SE for 2": lambda dev: stale(last_step_forward(dev), dev),
    "no lower loss for 2, and now higher by over 1 SE": lambda dev: (
        stale(lowest_loss(dev), dev) and len(dev.loss) - 1 not in alike(dev.losses, lowest_loss(dev))
    ),
}


def spent(stop: Callable[[Dev], bool], dev: Dev) -> int:
    """Evaluations until the stop."""
    total = len(dev.loss)
    return next((count for count in range(1, total) if stop(dev.first(count))), total)


def compare(runs: Sequence[dict[str, Any]], redraws: int = 200) -> dict[str, Any]:
    """Every rule on every run: as recorded, and as the mean over dev rows drawn anew with replacement."""
    names = [
        (keep, stop) for keep in KEEP for stop in STOP if stop in ("never", "the rule until now") or keep in CHOSEN
    ]
    tests: dict[tuple[str, str], list[float]] = {name: [] for name in names}
    again: dict[tuple[str, str], list[float]] = {name: [] for name in names}
    looks: dict[tuple[str, str], list[float]] = {name: [] for name in names}
    reordered, best = 0, []
    for run in runs:
        seen, tokens = run["evaluations"], np.array(run["tokens"], dtype=float)
        test = np.array([one["test"] for one in seen])
        losses = np.array([one["losses"] for one in seen]) / tokens.mean()
        dev = Dev(losses, np.array([one["scores"] for one in seen]))
        best.append(float(test.max()))
        orders = itertools.permutations(range(len(test)))
        reordered += len({today(dev, order) for order in orders}) > 1
        draw = np.random.default_rng(0)
        drawn_anew = [dev.over(draw.integers(len(tokens), size=len(tokens))) for _ in range(redraws)]
        for name in names:
            keep, stop = KEEP[name[0]], STOP[name[1]]
            counts = [spent(stop, one) for one in (dev, *drawn_anew)]
            picks = [test[keep(one.first(count))] for one, count in zip((dev, *drawn_anew), counts, strict=True)]
            tests[name].append(float(picks[0]))
            again[name].append(float(np.mean(picks[1:])))
            looks[name].append(float(np.mean(counts[1:])))
    base = np.array(again["the rule until now", "the rule until now"])
    table = []
    for name in names:
        gap = np.array(again[name]) - base
        table.append(
            {
                "keep": name[0],
                "stop": name[1],
                "test": round(float(np.mean(tests[name])), 4),
                "test_redrawn": round(float(np.mean(again[name])), 4),
                "regret_redrawn": round(float(np.mean(np.array(best) - again[name])), 4),
                "minus_until_now": round(float(gap.mean()), 4),
                "standard_error": round(float(gap.std(ddof=1) / len(gap) ** 0.5), 4),
                "evaluations": round(float(np.mean(looks[name])), 2),
            }
        )
    return {
        "what": __doc__.split("\n")[0],
        "runs": len(runs),
        "tasks": sorted({run["task"] for run in runs}),
        "machine": runs[0]["machine"],
        "processor_seconds": sum(run["seconds"] for run in runs),
        "order_decides_the_rule_until_now": reordered,
        "table": table,
    }


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
