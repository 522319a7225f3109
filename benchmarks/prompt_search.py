"""Measures what a search over worked examples brings a small model, beside more draws at the same price in questions.

    python benchmarks/prompt_search.py run [banking77 xquad gsm8k] [--seeds 0 1]  # → results/prompt_search.json
    python benchmarks/prompt_search.py run banking77 --dspy PYTHON  # with DSPy's search (`peers/dspy_shots.py`) beside

Three public tasks with the bundled smollm2-135m-q4: messages of ten intents of Banking77, XQuAD with one retrieved
passage, and GSM8K. Each seed is another split. `usual`: four shots as they are drawn; `draws`: other draws of four by
halving, as many as the price allows; `sets`: two draws, then sets, the rows valued, and orders
(`arms/search/shot_search.py`). Neither instructions nor the number of shots are varied. Other work may stand beside
it: the price is counted in questions, not in seconds.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from clients import serving
from shared import SHARED, TASK, banking77

from trimtab.arms.answerers import ready_arm, score_on_dev
from trimtab.arms.calibration import calibrate
from trimtab.arms.contexts import Context, context_for
from trimtab.arms.run import ArmRunner
from trimtab.arms.search import context_search
from trimtab.arms.search.context_search import SEARCH_SPACES, SearchSpace, choose_context
from trimtab.arms.search.shot_search import with_shots
from trimtab.arms.search.trials import ContextScores
from trimtab.arms.session import Session, open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.files import read_json, write_json
from trimtab.base.grammar import PARTS
from trimtab.base.machine import describe_machine, versions
from trimtab.base.progress import Progress
from trimtab.base.records import Arm, Example
from trimtab.base.task import load_task, parse_arm

HERE = Path(__file__).resolve().parent
RESULT, PEER = HERE / "results" / "prompt_search.json", HERE / "peers" / "dspy_shots.py"
DEV_ROWS = {"banking77": 60, "xquad": 40, "gsm8k": 30}
TESTS = {"banking77": 150, "xquad": 100, "gsm8k": 40}
MOST_DRAWS = 60  # more than any price here allows
SHOTS = 4
SPACES = {
    "draws": SearchSpace(draws=MOST_DRAWS, rows=0, rates=1),
    "sets": SearchSpace(draws=2, rows=0, rates=1, sets=8, orders=4),
}


def write_rows(name: str, source: Path, folder: Path, seed: int) -> Path:
    """Write a task's folder and return its task file."""
    more, group, arms = "", "", '"few-shot"'
    own = {"kind": "answer", "metric": "token_f1", "instruction": "Answer the question with a few words."}
    if name == "banking77":
        rows = random.Random(0).sample(list(banking77(source)), 600)
        own = {"kind": "classify", "metric": "accuracy", "instruction": "Name the topic of the message."}
    elif name == "gsm8k":
        lines = (source / "gsm8k.train-1500.jsonl").read_text(encoding="utf-8").splitlines()
        rows = random.Random(0).sample([json.loads(line) for line in lines], 600)
        own = {
            "kind": "generate",
            "metric": "number",
            "instruction": "Solve the problem. End with #### and the number.",
        }
        more = "output_tokens = 64"
    else:
        (folder / "xquad.en.json").write_bytes((source / "xquad.en.json").read_bytes())
        more, arms, rows = "output_tokens = 16", '"rag+few-shot"', []
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    text = TASK.format(name=name, more=more, group=group, **own)
    text = text.replace("seed = 0", f"seed = {seed}").replace('"lora"', arms)
    if name == "xquad":
        text = text.replace('["rows.jsonl"]', '["xquad.en.json"]\ndocuments = ["xquad.en.json"]')
        text += '[arm."rag+few-shot"]\npassages = 1\n'
    (folder / "trimtab.toml").write_text(text, encoding="utf-8")
    return folder / "trimtab.toml"


class Bench:
    """One task on one split: its base model's scores on dev are computed once, whichever search asks."""

    def __init__(self, file: Path, arm: str) -> None:
        self.session: Session = open_session(open_workspace(load_task(file)))
        self.arm: Arm = parse_arm(arm, self.session.task)
        self.runner = ArmRunner(self.session, None, Progress())
        self.name = self.session.task.task.name
        self.tests = self.session.workspace.subset("test", TESTS[self.name])
        self.folder = file.parent

    def search(self, space: SearchSpace, price: float) -> tuple[Context, float]:
        """Return the context that a search finds for a price in dev questions, and the questions that it asked."""
        known = self.runner.scores

        def ask(context: Context, rows: Sequence[Example]) -> tuple[Mapping[str, float], float]:
            scores = known.scores_of(context, rows)
            return {row.id: score for row, score in zip(rows, scores, strict=True)}, float(len(rows))

        sized = replace(space, rows=DEV_ROWS[self.name])
        with (
            mock.patch.dict(SEARCH_SPACES, {"standard": sized}),  # type: ignore[arg-type]
            mock.patch.object(context_search, "instruction_variants", return_value=()),
            mock.patch.dict(PARTS, {"few-shot": replace(PARTS["few-shot"], tried=(SHOTS,))}),
        ):
            context, effort = choose_context(self.session, self.arm, ContextScores(None, ask), "standard", price)
        return context, effort.seconds if effort else 0.0

    def test(self, context: Context) -> dict[str, float]:
        """Return the score of each test question, with labels calibrated as in a study."""
        run = self.folder / "run"
        calibrate(self.session, self.arm, context, run, Progress())
        with ready_arm(self.session, self.arm, context, run) as ready:
            return score_on_dev(self.session, self.tests, ready.builder, ready.answer_batch, None)[1]


def compared(scores: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """Return the mean difference of two arms over the same questions, and its standard error."""
    gaps = np.array([scores[name] - other[name] for name in scores])
    return {"difference": float(gaps.mean()), "error": float(gaps.std(ddof=1) / len(gaps) ** 0.5)}


def measure(name: str, seed: int, source: Path, dspy: str | None) -> dict[str, Any]:
    """Measure one task on one split."""
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(write_rows(name, source, Path(scratch), seed), "rag+few-shot" if name == "xquad" else "few-shot")
        began = time.perf_counter()
        sets, price = bench.search(SPACES["sets"], 1e9)
        draws, paid = bench.search(SPACES["draws"], price)
        contexts = {"usual": context_for(bench.arm), "draws": draws, "sets": sets}
        row: dict[str, Any] = {"task": name, "seed": seed, "tests": len(bench.tests), "dev": DEV_ROWS[name]}
        asked = {"usual": 0.0, "draws": paid, "sets": price}
        if dspy is not None and bench.session.task.task.kind == "classify":  # it compares answers with labels
            contexts["dspy"], row["dspy"] = found_by_dspy(bench, dspy, price)
            asked["dspy"] = row["dspy"]["questions"]
        scores = {way: bench.test(context) for way, context in contexts.items()}
        row |= {"questions": asked}
        row |= {"scores": {way: float(np.mean(list(found.values()))) for way, found in scores.items()}}
        row |= {f"sets less {way}": compared(scores["sets"], scores[way]) for way in contexts if way != "sets"}
        row |= {"chosen": {way: context.chosen() for way, context in contexts.items()}}
        row |= {"seconds": time.perf_counter() - began, "machine": describe_machine(), "versions": versions()}
        return row


def found_by_dspy(bench: Bench, python: str, price: float) -> tuple[Context, dict[str, Any]]:
    """Return the context with the shots that DSPy's random search finds on the same rows for the same price, and what
    it says; it asks `trimtab serve prompt` on loopback."""
    workspace, file = bench.session.workspace, bench.folder / "given.json"
    rows = {"train": workspace.splits["train"], "dev": workspace.subset("dev", DEV_ROWS[bench.name])}
    plain = {part: [{"input": row.input, "answer": row.references[0]} for row in own] for part, own in rows.items()}
    with serving(bench.folder / "trimtab.toml") as (url, key):
        given = {"url": url, "key": key, "model": "prompt", "rows": plain, "price": price}
        given |= {"instruction": bench.session.task.task.instruction}
        file.write_text(json.dumps(given), encoding="utf-8")
        done = subprocess.run([python, PEER, file], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    by_input = {row.input: row.id for row in rows["train"]}
    ids = [by_input[shot["input"]] for shot in said.pop("shots")]
    usual = context_for(bench.arm)
    return with_shots(usual, ids) if ids else replace(usual, shots=0), said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run",))
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(TESTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--source", type=Path, default=SHARED, help="the folder of the public files")
    parser.add_argument("--dspy", metavar="PYTHON", help="an interpreter that has dspy")
    given = parser.parse_args()
    for name in given.tasks or TESTS:
        for seed in given.seeds:
            row = measure(name, seed, given.source, given.dspy)
            known = read_json(RESULT)["runs"] if RESULT.is_file() else []
            kept = [one for one in known if (one["task"], one["seed"]) != (name, seed)]
            write_json(RESULT, {"runs": [*kept, row]})
            print(json.dumps({key: row[key] for key in ("task", "seed", "questions", "scores", "sets less draws")}))


if __name__ == "__main__":
    main()
