"""Labels scored in waves against all labels in one pass, on the 77 intents of Banking77 with the real small model, A
B B A in one process.

Run: python benchmarks/choose_labels.py --source FOLDER  →  benchmarks/results/choose_labels.json; FOLDER holds
banking77.train.csv and banking77.test.csv One pass is the code of the commit BEFORE, read from git. The tuned model
is LoRA on the rows of one part of the data, for one epoch; --run keeps it or takes one that was made. Seconds are
those of the processor (run it with OMP_NUM_THREADS=1), told as ratios, so that a busy machine matters little.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from trimtab.arms.contexts import PromptBuilder, context_for
from trimtab.arms.session import Session, open_session
from trimtab.arms.trainer import train_weights
from trimtab.arms.workspace import open_workspace
from trimtab.base.files import write_json
from trimtab.base.machine import describe_machine, versions
from trimtab.base.progress import Progress
from trimtab.base.task import load_task, parse_arm
from trimtab.inference import label_scoring as waves
from trimtab.inference.kv_cache import shared_length
from trimtab.inference.label_scoring import LabelRequest, score_labels
from trimtab.inference.label_trie import LabelTrie, LabelWeighting
from trimtab.model.adapters.apply import load_adapter, merged
from trimtab.model.load import Base

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "choose_labels.json"
BEFORE = "6dd21ff"
ALONE = 3  # questions asked one at a time
ORDER = ("one pass", "waves", "waves", "one pass")
TUNED = '\n[arm.quick]\nweights = "lora"\nlearning_rate = 1.3e-3\nepochs = 1\n'

Choose = Callable[[Sequence[LabelRequest], Any], list[Any]]


def code_before() -> ModuleType:
    """`inference/label_scoring.py` as it was when every label was scored."""
    source = subprocess.run(
        ["git", "show", f"{BEFORE}:trimtab/inference/label_scoring.py"], cwd=ROOT, check=True, capture_output=True
    ).stdout
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "choose_before.py"
        file.write_bytes(source)
        spec = importlib.util.spec_from_file_location("choose_before", file)
        if spec is None or spec.loader is None:
            raise ImportError(str(file))
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    return module


def made(source: Path, place: Path, dev: float) -> Session:
    """A session on the cut of Banking77 that the docs use, with `dev` of its rows kept from training."""
    script = ROOT / "docs" / "make_real_data.py"
    for name in ("xquad.en.json",):  # which the script wants too and nothing here reads
        if not (source / name).is_file():
            source = Path(shutil.copytree(source, place / "source"))
            (source / name).write_text("{}")
    subprocess.run([sys.executable, str(script), str(place), "--source", str(source)], check=True, capture_output=True)
    file = place / "banking77.toml"
    file.write_text(file.read_text().replace("dev = 0.0909", f"dev = {dev}") + TUNED)
    return open_session(open_workspace(load_task(file)))


class Tokens:
    """Counts the tokens that the model reads."""

    def __init__(self) -> None:
        self.count = 0
        hidden = Base.hidden

        def counted(base: Base, ids: torch.Tensor, positions: torch.Tensor, layout: Any) -> torch.Tensor:
            self.count += len(ids)
            return hidden(base, ids, positions, layout)

        Base.hidden = counted  # type: ignore[method-assign, assignment]

    def taken(self) -> int:
        """Return the tokens read since the last call."""
        taken, self.count = self.count, 0
        return taken


def compared(requests: Sequence[LabelRequest], held: Any, sides: dict[str, Choose], tokens: Tokens) -> dict[str, Any]:
    """Measure both sides in turn: all questions together, then some alone after their common prefix."""
    seconds: dict[str, list[float]] = {f"{side}, {how}": [] for side in sides for how in ("together", "alone")}
    read: dict[str, int] = {}
    given: dict[str, list[Any]] = {}
    for side in ORDER:
        tokens.taken()
        began = time.process_time()
        given[side] = sides[side](requests, None)
        seconds[f"{side}, together"].append((time.process_time() - began) / len(requests))
        read[side] = tokens.taken()
        for request in requests[:ALONE]:
            began = time.process_time()
            sides[side]([request], held)
            seconds[f"{side}, alone"].append(time.process_time() - began)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    one, other = given["one pass"], given["waves"]
    print(medians, read, flush=True)
    return {
        "times_as_fast_together": round(medians["one pass, together"] / medians["waves, together"], 2),
        "times_as_fast_alone": round(medians["one pass, alone"] / medians["waves, alone"], 2),
        "tokens_read": {side: round(count / len(requests), 1) for side, count in read.items()},
        "same_label": sum(a.best == b.best for a, b in zip(one, other, strict=True)) / len(requests),
        "largest_difference_of_a_probability": max(
            abs(a - b)
            for left, right in zip(one, other, strict=True)
            for a, b in zip(left.probabilities, right.probabilities, strict=True)
        ),
        "median_probability_of_the_answer": round(statistics.median(max(one.probabilities) for one in other), 3),
        "seconds": {name: [round(value, 4) for value in values] for name, values in seconds.items()},
    }


def weighed(sums: torch.Tensor, offsets: torch.Tensor) -> list[Any]:
    """All labels in one pass, less offsets, with the fields that are compared."""
    found = []
    for scores in sums - offsets:
        chances = scores.softmax(-1).tolist()
        found.append(waves.LabelProbabilities(id="", probabilities=tuple(chances), best=int(scores.argmax()), plain=(),
                                  prompt_tokens=0, seconds=0.0))  # fmt: skip
    return found


def measured(session: Session, questions: int, before: ModuleType, tokens: Tokens, *, offsets: bool) -> dict[str, Any]:
    """The figures of the weights that are on; with offsets also under batch calibration."""
    builder = PromptBuilder(session, context_for(parse_arm("prompt", session.task)))
    base, labels = session.base, [session.encoder.answer(label) for label in session.workspace.labels]

    def asked(split: str, most: int) -> list[LabelRequest]:
        prompts = builder.prompts(session.workspace.subset(split, most))  # type: ignore[arg-type]
        return [LabelRequest(id=one.id, ids=session.encoder.prompt(one.messages)) for one in prompts]

    requests = asked("test", questions)
    held = waves.prefill_prefix(base, requests[0].ids[: shared_length([one.ids for one in requests])])
    found = {
        "sums": compared(
            requests,
            held,
            {
                "one pass": lambda some, held: before.choose(base, some, labels, held=held),
                "waves": lambda some, held: waves.label_probabilities(base, some, labels, pinned=held),
            },
            tokens,
        )
    }
    if offsets:
        batch_L = score_labels(base, asked("train", 10), labels).mean(0)
        less = LabelWeighting(offsets=tuple(batch_L.tolist()))
        found["less the mean over training inputs"] = compared(
            requests,
            held,
            {
                "one pass": lambda some, _: weighed(score_labels(base, some, labels), batch_L),
                "waves": lambda some, held: waves.label_probabilities(base, some, labels, pinned=held, weighting=less),
            },
            tokens,
        )
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--source", type=Path, default=ROOT.parent / "shared" / "data")
    options.add_argument("--questions", type=int, default=16)
    options.add_argument("--dev", type=float, default=0.4, help="share of the 1,650 rows that is not trained on")
    options.add_argument("--run", type=Path, help="where the tuned weights lie, or are put")
    options.add_argument("--conditions", default="", help="what else the machine was doing, for the result")
    options.add_argument("--only-train", action="store_true", help="make the tuned weights and stop")
    options.add_argument("--only-tuned", action="store_true", help="measure the tuned weights alone")
    options.add_argument("--out", type=Path, default=RESULT)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        session = made(chosen.source, Path(scratch), chosen.dev)
        run = chosen.run or Path(scratch) / "run"
        arm = parse_arm("quick", session.task)
        if not (run / "adapter").is_dir():
            train_weights(session, arm, context_for(arm), run, Progress())
        if chosen.only_train:
            return
        before, tokens = code_before(), Tokens()
        trie = LabelTrie([session.encoder.answer(label) for label in session.workspace.labels])
        load_adapter(session.fresh_base(), run / "adapter")
        with merged(session.base.model):
            found = {"lora, one epoch": measured(session, chosen.questions, before, tokens, offsets=False)}
        if not chosen.only_tuned:
            session.fresh_base()
            found["base"] = measured(session, chosen.questions, before, tokens, offsets=True)
        result = {
            "what": "processor seconds a question with all labels in one pass, over those in waves; medians, A B B A, "
            "one process, one thread",
            "data": f"Banking77: {len(session.workspace.labels)} labels, a trie of {len(trie)} nodes behind each "
            f"prompt; {chosen.questions} test questions together, {ALONE} of them alone",
            "model": session.task.base.model,
            "precision": session.base.precision,
            "tuned_on_rows": len(session.workspace.splits["train"]),
            "conditions": chosen.conditions,
            "machine": describe_machine(),
            "versions": versions(),
            "found": found,
        }
    write_json(chosen.out, result)
    print(found)


if __name__ == "__main__":
    main()
