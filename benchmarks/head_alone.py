"""Time of one answer of a classification head, asked alone, beside a plain forward pass of transformers over the same
prompt.

Run: python benchmarks/head_alone.py  →  benchmarks/results/head_alone.json The arm is trained for a few steps (its
weights do not matter to its speed), saved, loaded and merged as a study does.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from trimtab.arms.answerers import head_answerer, ready_arm
from trimtab.arms.contexts import Context
from trimtab.arms.session import Session, open_session
from trimtab.arms.trainer import train_weights
from trimtab.arms.workspace import open_workspace
from trimtab.base.config import ArmTable
from trimtab.base.files import write_json
from trimtab.base.machine import describe_machine, versions
from trimtab.base.progress import Progress
from trimtab.base.records import Prompt
from trimtab.base.task import custom_arm, load_task
from trimtab.model.classifier import load_head
from trimtab.model.load import DTYPES

RESULT = Path(__file__).resolve().parent / "results" / "head_alone.json"
MOST = 1.3  # times a plain forward pass


def plain_pass(session: Session) -> Callable[[Prompt], object]:
    """The body of the same model in transformers' own attention, over the ids of a prompt."""
    kind = DTYPES[session.precision]
    model = AutoModelForCausalLM.from_pretrained(session.base_folder, dtype=kind, attn_implementation="sdpa").eval()

    @torch.inference_mode()
    def forward(prompt: Prompt) -> object:
        ids = torch.tensor([session.encoder.prompt(prompt.messages)])
        return model.base_model(input_ids=ids, use_cache=False).last_hidden_state

    return forward


def seconds(ask: Callable[[Prompt], object], prompt: Prompt) -> float:
    began = time.perf_counter()
    ask(prompt)
    return time.perf_counter() - began


def measured(session: Session, run: Path, questions: int) -> dict[str, Any]:
    """Medians in ms and the median over prompts of each ratio to the plain pass, in the order A B C C B A for every
    prompt."""
    arm = custom_arm("quick", ArmTable(weights="lora", stages=("head",), epochs=0.05))
    train_weights(session, arm, Context(), run, Progress())
    examples = session.workspace.splits["test"][:questions]
    with ready_arm(session, arm, Context(), run, examples) as able:
        many = head_answerer(session, load_head(session.base, run / "adapter"))
        asked: dict[str, Callable[[Prompt], object]] = {
            "plain": plain_pass(session),
            "alone": able.answer_one,
            "nothing_held": lambda prompt: many([prompt]),
        }
        prompts = able.builder.prompts(examples)
        for prompt in prompts[:5]:  # not counted
            for ask in asked.values():
                ask(prompt)
        took = {name: [0.0] * len(prompts) for name in asked}
        for number, prompt in enumerate(prompts):
            for name in (*asked, *reversed(asked)):
                took[name][number] += seconds(asked[name], prompt) / 2
    tokens = [len(session.encoder.prompt(prompt.messages)) for prompt in prompts]
    ratios = {
        name: median(own / plain for own, plain in zip(took[name], took["plain"], strict=True))
        for name in ("alone", "nothing_held")
    }
    return {
        "questions": len(prompts),
        "labels": len(session.workspace.labels),
        "precision": session.precision,
        "prompt_tokens": median(tokens),
        "milliseconds": {name: round(1000 * median(values), 2) for name, values in took.items()},
        "ratio_to_plain": {name: round(value, 3) for name, value in ratios.items()},
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--task", type=Path, help="a task file of kind classify; default: the bundled spam example")
    options.add_argument("--questions", type=int, default=60)
    options.add_argument("--conditions", default="", help="what else the machine did, kept in the result")
    options.add_argument("--out", type=Path, default=RESULT)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch, as_file(files("trimtab.demos") / "spam") as source:
        place = shutil.copytree(chosen.task.parent if chosen.task else source, Path(scratch) / "task")
        task = load_task(Path(place) / (chosen.task.name if chosen.task else "trimtab.toml"))
        found = measured(open_session(open_workspace(task)), Path(scratch) / "run", chosen.questions)
    result = {
        "what": "one answer of lora-head asked alone, beside a forward pass of transformers over its prompt: "
        f"{task.task.name}, {task.base.model}",
        "machine": describe_machine(),
        "versions": versions(),
        "conditions": chosen.conditions,
        "threads": torch.get_num_threads(),
        **found,
        "within_limit": found["ratio_to_plain"]["alone"] <= MOST,
    }
    write_json(chosen.out, result)
    print(result)


if __name__ == "__main__":
    main()
