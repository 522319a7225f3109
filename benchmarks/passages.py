"""Compares passages shown to a tuned arm, `lora+rag` on the bundled handbook, and signals on dev that could choose
among them and among rates.

    python benchmarks/passages.py run ["3 x 120 @ 1" …]   # appends missing runs to results/passages_runs.jsonl
    python benchmarks/passages.py compare                 # → results/passages.json

A run has a number of passages, their words, and a rate as a multiple of the usual one; it is trained to its end. At
each of four looks: loss of the dev answers with every right passage put in and with passages as they are found,
score of dev questions, score of test questions (which decides nothing). Beside them how often each way of looking up
finds the right passage. Times are of no interest here.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from best_weights import scores

from trimtab.arms.contexts import Context, PromptBuilder, is_unknown
from trimtab.arms.objectives import training_rows
from trimtab.arms.recipe import recipe_for
from trimtab.arms.search.passage_search import gold_retrieved
from trimtab.arms.session import Session, open_session
from trimtab.arms.trainer import prepare_base
from trimtab.arms.workspace import open_workspace
from trimtab.base.files import append_line, read_json_lines, write_json
from trimtab.base.machine import describe_machine
from trimtab.base.records import Example
from trimtab.base.task import load_task, parse_arm
from trimtab.studies.demo import copy_demo
from trimtab.training.batch import TrainingRow
from trimtab.training.loop import LoopSettings, TrainingJob, train_model
from trimtab.training.monitor import DevEvaluation
from trimtab.training.sft import SupervisedObjective, answer_rows, row_losses

HERE = Path(__file__).resolve().parent
RUNS, RESULT = HERE / "results" / "passages_runs.jsonl", HERE / "results" / "passages.json"
LOOKS = 4
GRID = ("3 x 120 @ 1", "1 x 60 @ 0.16", "1 x 60 @ 1")


def as_asked(session: Session, context: Context, part: Sequence[Example]) -> list[TrainingRow]:
    """The answers of dev behind prompts as retrieval makes them, right passage or not."""
    prompts = PromptBuilder(session, context).prompts(part)
    encoded = [
        (session.encoder.conversation(prompt.messages, example.references[0], train_on="last"), 1.0)
        for prompt, example in zip(prompts, part, strict=True)
    ]
    return answer_rows(encoded)


def context_of(what: str) -> tuple[Context, float]:
    """Return the context of a run, and its learning rate in multiples of the usual one."""
    parsed = re.fullmatch(r"(\d+) x (\d+) @ ([\d.]+)", what)
    assert parsed, what
    return Context(passages=int(parsed[1]), chunk_words=int(parsed[2])), float(parsed[3])


def run(session: Session, what: str) -> dict[str, Any]:
    """One way of looking up and one rate, trained to the end."""
    context, times = context_of(what)
    arm, splits = parse_arm("lora+rag", session.task), session.workspace.splits
    plan = recipe_for(session, arm, 0)
    stage = plan.stages[-1]
    prepare_base(session, plan)
    builder, dev, test = PromptBuilder(session, context), splits["dev"], splits["test"]
    put_in, asked = training_rows(session, context, dev, 0)[0], as_asked(session, context, dev)
    looks: list[dict[str, Any]] = []

    def look() -> DevEvaluation:
        sums = {"put_in": row_losses(session.base, put_in), "as_asked": row_losses(session.base, asked)}
        own, others = scores(session, builder, dev), scores(session, builder, test)
        tokens = sum(row.trained_tokens for row in put_in)
        looks.append({name: [round(nats, 3) for nats in rows] for name, rows in sums.items()})
        looks[-1] |= {"dev": own, "test": round(fmean(others), 4)}
        print(
            what, sum(sums["put_in"]) / tokens, sum(sums["as_asked"]) / len(dev), fmean(own), fmean(others), flush=True
        )
        return DevEvaluation(dev_loss=sum(sums["put_in"]) / tokens)

    train_model(
        TrainingJob(
            base=session.base,
            objective=SupervisedObjective(
                training_rows(session, context, splits["train"], 0)[0], batch=plan.batch, seed=0
            ),
            settings=LoopSettings(
                learning_rate=stage.learning_rate * times,
                epochs=stage.epochs,
                evaluations=LOOKS,
                patience=LOOKS,
            ),
            folder=session.workspace.folder / what.replace(" ", ""),
            evaluate=look,
        )
    )
    return {"what": what, "looks": looks, "machine": describe_machine()["processor"]}


def found(session: Session, what: str) -> dict[str, float]:
    """The share of the questions with an answer that are shown a right passage, as a search of the arm would see it."""
    shares = {}
    for part in ("train", "dev", "test"):
        rows = [row for row in session.workspace.splits[part] if not is_unknown(row, session)]
        shares[part] = round(fmean(gold_retrieved(session, context_of(what)[0], rows)[0].values()), 4)
    return shares


def compared(session: Session) -> list[dict[str, Any]]:
    """A row a run: what each look would have said, means over dev rows, and the score of test at it."""
    return [
        {
            "what": line["what"],
            "found": found(session, line["what"]),
            **{name: [round(fmean(look[name]), 4) for look in line["looks"]] for name in ("put_in", "as_asked", "dev")},
            "test": [look["test"] for look in line["looks"]],
        }
        for line in read_json_lines(RUNS)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "compare"))
    parser.add_argument("runs", nargs="*", metavar="RUN", help=", ".join(GRID))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        file = copy_demo("handbook", Path(scratch) / "handbook", cut=True)
        session = open_session(open_workspace(load_task(file)))
        if given.what == "run":
            for what in given.runs or GRID:
                if not any(line["what"] == what for line in read_json_lines(RUNS)):
                    append_line(RUNS, run(session, what))
            return
        table = compared(session)
    write_json(RESULT, {"table": table})
    for row in table:
        print(*row.values(), sep=" | ")


if __name__ == "__main__":
    main()
