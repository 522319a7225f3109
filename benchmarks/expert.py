"""The expert's table: the best of a hand-made sweep of TRL against our arm under effort standard, on the same rows.

    python benchmarks/expert.py run [--tasks spam,xquad]   # appends missing tasks to results/expert_runs.jsonl
    python benchmarks/expert.py ours [--tasks spam]        # our side again, the peer's sweep of a line stays
    python benchmarks/expert.py seeds [--tasks handbook]   # both sides twice more at their choice: means are compared
    python benchmarks/expert.py usual                      # our arm without any search beside it
    python benchmarks/expert.py compare                    # → results/expert.json

Four tasks, 64 training rows each. The peer: LoRA r=16 on all linear layers, batch 8, cosine, 5 rates x 2 lengths;
the adapter that scores best on dev is the one whose test score counts. Ours: `lora` with `effort = "standard"`,
nothing else set. Prompts are the same to the letter, and both sides' adapters are asked by the same engine, so that
training alone differs. Time is processor time, the peer's of training alone (its looks at dev are not counted), ours
of everything that making the arm took.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from shared import SHARED, TASKS, machine, write_task
from train_vs_trl import peer_python

from trimtab.arms.artifacts import Allowance
from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.run import ArmRunner
from trimtab.arms.session import Session, open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.files import append_line, read_json_lines, write_atomic, write_json
from trimtab.base.progress import Progress
from trimtab.base.records import Example
from trimtab.base.task import load_task, parse_arm
from trimtab.data.draw import sample_rows
from trimtab.measurement.evaluate import evaluate_prompts
from trimtab.model.adapters.apply import load_adapter, merged

HERE = Path(__file__).resolve().parent
RUNS, RESULT = HERE / "results" / "expert_runs.jsonl", HERE / "results" / "expert.json"
TRAIN, DEV, TEST = 64, 64, 200
RATES, EPOCHS, BATCH, RANK = (1e-4, 2.5e-4, 6e-4, 1.5e-3, 4e-3), (3, 8), 8, 16
SEEDS = 3  # of each side, where `seeds` was run


def cut(session: Session) -> None:
    """Fewer rows, drawn so that they stand for all."""
    splits, kind = session.workspace.splits, session.task.task.kind
    sizes = {"train": TRAIN, "dev": DEV, "test": TEST}
    fewer = {name: sample_rows(splits[name], most, kind) for name, most in sizes.items()}
    session.workspace = replace(session.workspace, splits=fewer)


def scores(session: Session, adapter: Path, part: Sequence[Example]) -> list[float]:
    """Return the score of each answer with an adapter."""
    base = session.fresh_base()
    load_adapter(base, adapter)
    with merged(base.model):
        prompts = PromptBuilder(session, Context()).prompts(part)
        given = evaluate_prompts(part, prompts, session.answer, session.task, split="test", seed=0, scorer=None)
    return [answer.score for answer in given]


def sweep(session: Session, folder: Path) -> dict[str, Any]:
    """The peer's adapters, the one that is best on dev, and its test scores."""
    splits = session.workspace.splits
    tried = peers(session, folder, [{"rate": rate, "epochs": epochs} for rate in RATES for epochs in EPOCHS])
    for one in tried:
        one["dev"] = mean(scores(session, Path(one["folder"]), splits["dev"]))
        print(f"  peer {one['rate']:g} x {one['epochs']}: dev {one['dev']:.3f}, {one['seconds']:.0f} s", flush=True)
    best = max(tried, key=lambda one: one["dev"])
    return {
        "tried": [{name: value for name, value in one.items() if name not in ("folder", "versions")} for one in tried],
        "versions": best["versions"],
        "chosen": {"rate": best["rate"], "epochs": best["epochs"]},
        "processor_seconds": sum(one["processor_seconds"] for one in tried),
        "seconds": sum(one["seconds"] for one in tried),
        "test": scores(session, Path(best["folder"]), splits["test"]),
    }


def peers(session: Session, folder: Path, settings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Train the peer with each setting; return the folder of each adapter, and its seconds."""
    splits = session.workspace.splits
    pairs = PromptBuilder(session, Context()).training_prompts(splits["train"], 0)
    rows = [
        {
            "prompt": [{"role": turn.role, "content": turn.content} for turn in prompt.messages],
            "completion": [{"role": "assistant", "content": answer}],
        }
        for prompt, answer in pairs
    ]
    plan = {
        "model": str(session.base_folder),
        "rows": rows,
        "settings": list(settings),
        "batch": BATCH,
        "rank": RANK,
        "threads": torch.get_num_threads(),
        "scratch": str(folder / "scratch"),
        "out": str(folder / "peer"),
    }
    command = [str(peer_python()), str(HERE / "peers" / "trl_sweep.py")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(plan["threads"])}
    done = subprocess.run(command, input=json.dumps(plan), capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return [
        json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')
    ]  # TRL tells a dictionary of its own


def ours(session: Session, folder: Path, *, searches: bool = True, seeds: int = 1) -> dict[str, Any]:
    """Our arm, made with all the search that a standard effort wants or with none, and its test scores; of further
    seeds too."""
    arm = parse_arm("lora", session.task)
    runner = ArmRunner(session, None, Progress())
    began = time.process_time(), time.perf_counter()
    made = runner.make(arm, folder / "ours", Allowance(search_seconds=1e9 if searches else 0.0, seeds=seeds))
    taken = time.process_time() - began[0], time.perf_counter() - began[1]
    effort = made.effort
    tests = [scores(session, run / "adapter", session.workspace.splits["test"]) for run in made.folders]
    return {
        "tried": [{**trial.what, "dev_loss": trial.dev_loss, "kept": trial.kept} for trial in effort.trials]
        if effort
        else [],
        "chosen": dict(made.chosen),
        "stopped": effort.stopped if effort else "",
        "processor_seconds": taken[0],
        "seconds": taken[1],
        "test": tests[0],
        **({"further": tests[1:]} if seeds > 1 else {}),
    }


@contextmanager
def laid_out(name: str, source: Path, effort: str) -> Iterator[tuple[Session, Path]]:
    """A task's rows in a folder of their own, opened and cut."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        file = write_task(name, source, folder)
        file.write_text(f'{file.read_text(encoding="utf-8")}effort = "{effort}"\n', encoding="utf-8")
        session = open_session(open_workspace(load_task(file)))
        cut(session)
        yield session, folder


def usual(line: dict[str, Any], source: Path) -> dict[str, Any]:
    """A line with our arm as it is made without a search."""
    with laid_out(line["task"], source, "none") as (session, folder):
        made = ours(session, folder, searches=False)
        print(
            f"{line['task']}: usual settings {mean(made['test']):.3f} in {made['processor_seconds']:.0f} s", flush=True
        )
        return {**line, "usual": made}


def run(name: str, source: Path, former: dict[str, Any] | None = None) -> dict[str, Any]:
    """Measure both sides on one task; the peer's figures are those of the `former` line if there is one."""
    with laid_out(name, source, "standard") as (session, folder):
        mine = ours(session, folder)
        print(f"{name}: ours {mean(mine['test']):.3f} in {mine['processor_seconds']:.0f} processor seconds", flush=True)
        peer = former["peer"] if former else sweep(session, folder)
        print(f"{name}: peer {mean(peer['test']):.3f} in {peer['processor_seconds']:.0f} processor seconds", flush=True)
        return {
            "task": name,
            "metric": session.task.metric,
            "rows": {part: len(rows) for part, rows in session.workspace.splits.items()},
            "machine": machine(),
            "ours": mine,
            "peer": peer,
        }


def further(line: dict[str, Any], source: Path) -> dict[str, Any]:
    """A line with both sides made twice more at the settings that they chose."""
    with laid_out(line["task"], source, "standard") as (session, folder):
        mine = ours(session, folder, seeds=SEEDS)
        settings = [{**line["peer"]["chosen"], "seed": seed} for seed in range(1, SEEDS)]
        made = peers(session, folder, settings)
        tests = [scores(session, Path(one["folder"]), session.workspace.splits["test"]) for one in made]
        for name, found in (("ours", [mine["test"], *mine["further"]]), ("peer", [line["peer"]["test"], *tests])):
            print(f"{line['task']}: {name} {[round(mean(one), 3) for one in found]}", flush=True)
        kept = {**line["ours"], "test": mine["test"], "further": mine["further"], "chosen": mine["chosen"]}
        return {**line, "ours": kept, "peer": {**line["peer"], "further": tests}}


def replaced(change: Callable[[dict[str, Any]], dict[str, Any]], names: Collection[str]) -> None:
    """The lines of some tasks anew."""
    kept = [change(line) if line["task"] in names else line for line in read_json_lines(RUNS)]
    write_atomic(RUNS, "".join(json.dumps(line) + "\n" for line in kept))


def by_question(side: dict[str, Any]) -> list[float]:
    """The score of each test question, the mean over the runs."""
    return [mean(one) for one in zip(side["test"], *side.get("further", []), strict=True)]


def compared(line: dict[str, Any]) -> dict[str, Any]:
    """A row of the table: both scores, the paired difference in standard errors, the ratio of times."""
    mine, peer = line["ours"], line["peer"]
    scored, theirs = (by_question(side) for side in (mine, peer))
    gaps = [a - b for a, b in zip(scored, theirs, strict=True)]
    error = math.sqrt(sum((gap - mean(gaps)) ** 2 for gap in gaps) / (len(gaps) - 1) / len(gaps))
    return {
        "task": line["task"],
        "metric": line["metric"],
        "test_rows": len(gaps),
        "runs_of_each": 1 + len(mine.get("further", [])),
        "ours": mean(scored),
        **({"ours_unsearched": mean(line["usual"]["test"])} if "usual" in line else {}),
        "peer": mean(theirs),
        "difference": mean(gaps),
        "standard_error": error,
        "not_below_by_more_than_one": mean(gaps) >= -error,
        "our_settings": mine["chosen"],
        "peer_settings": peer["chosen"],
        "time_of_ours_to_theirs": mine["processor_seconds"] / peer["processor_seconds"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "ours", "seeds", "usual", "compare"))
    parser.add_argument("--tasks", default=",".join(TASKS), help="which of them, with commas")
    parser.add_argument("--source", type=Path, default=SHARED, help="where the public files lie")
    given = parser.parse_args()
    if given.what == "run":
        done = {line["task"] for line in read_json_lines(RUNS)}
        for name in given.tasks.split(","):
            if name not in done:
                append_line(RUNS, run(name, given.source))
        return
    if given.what == "ours":
        replaced(lambda line: run(line["task"], given.source, line), given.tasks.split(","))
        return
    if given.what == "seeds":
        replaced(lambda line: further(line, given.source), given.tasks.split(","))
        return
    if given.what == "usual":
        replaced(lambda line: usual(line, given.source), given.tasks.split(","))
        return
    lines = list(read_json_lines(RUNS))
    result = {"table": [compared(line) for line in lines], "machine": [line["machine"] for line in lines]}
    write_json(RESULT, result)
    for row in result["table"]:
        print(*(f"{value:.3f}" if isinstance(value, float) else value for value in row.values()), sep=" | ")


if __name__ == "__main__":
    main()
