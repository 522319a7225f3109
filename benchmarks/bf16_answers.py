"""Counts the greedy answers that bfloat16 changes: adapter merged or not, a question alone or in a batch, float32 or
not.

Run: python benchmarks/bf16_answers.py  →  benchmarks/results/bf16_answers.json In float32 the first two are equal to
the token (tests hold that); in bfloat16 the share that differs is what this reports.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from trimtab import train
from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.session import Session, open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.files import write_json
from trimtab.base.records import Generation, Prompt
from trimtab.base.task import Task, load_task
from trimtab.model.adapters.apply import load_adapter, merged

RESULT = Path(__file__).resolve().parent / "results" / "bf16_answers.json"


def in_precision(task: Task, precision: str, run: Path) -> Session:
    """The base model in `precision` with the run's adapter on."""
    base = task.base.model_copy(update={"precision": precision})
    session = open_session(open_workspace(task.model_copy(update={"base": base})))
    load_adapter(session.fresh_base(), run / "adapter")
    return session


def differing(left: Sequence[Generation], right: Sequence[Generation]) -> float:
    """Share of questions whose answers are not the same to the letter."""
    return sum(one.text != other.text for one, other in zip(left, right, strict=True)) / len(left)


def answers(session: Session, prompts: Sequence[Prompt]) -> tuple[list[Generation], list[Generation], list[Generation]]:
    """With the adapter beside the weights, with it merged, and merged but one question at a time."""
    beside = session.answer(prompts)
    with merged(session.base.model):
        together = session.answer(prompts)
        alone = [session.answer([prompt])[0] for prompt in prompts]
    return beside, together, alone


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--questions", type=int, default=100)
    options.add_argument("--out", type=Path, default=RESULT)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch, as_file(files("trimtab.demos") / "handbook") as source:
        place = Path(shutil.copytree(source, Path(scratch) / "handbook"))
        task = load_task(place / "trimtab.toml")
        run = train(task, "lora").folder
        given = {}
        for precision in ("bf16", "fp32"):
            session = in_precision(task, precision, run)
            questions = session.workspace.splits["test"][: chosen.questions]
            given[precision] = answers(session, PromptBuilder(session, Context()).prompts(questions))
    low, full = given["bf16"], given["fp32"]
    result = {
        "what": "share of greedy answers that differ to the letter, LoRA r=16 on the handbook example, smollm2-135m-q4",
        "questions": len(low[0]),
        "bf16": {"merged_from_beside": differing(low[0], low[1]), "alone_from_batch": differing(low[1], low[2])},
        "fp32": {"merged_from_beside": differing(full[0], full[1]), "alone_from_batch": differing(full[1], full[2])},
        "bf16_from_fp32": differing(low[1], full[1]),
    }
    write_json(chosen.out, result)
    print(result)


if __name__ == "__main__":
    main()
