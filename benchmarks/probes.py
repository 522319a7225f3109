"""What probes find that a test set does not ask: studies of bundled examples and of public data, with their probes.

Each study compares few arms without searching for settings, and probes the arm to take. Written down: the verdict, each
probe with its interval, and answers that a change turned wrong, to be read.

    python benchmarks/probes.py [NAME …] --data FOLDER [--work FOLDER]

NAME: spam, handbook, handbook-tuned (without `extract`, which wins), banking77 or xquad; all of them unless named.
--data holds banking77.train.csv and xquad.en.json; --work is empty or new, and one that is removed afterwards unless
named. Other results stay in the file.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
from collections.abc import Callable
from contextlib import chdir
from dataclasses import asdict
from pathlib import Path
from typing import Any

import trimtab
from trimtab.base.files import write_json
from trimtab.base.machine import describe_machine
from trimtab.base.task import TASK_FILE
from trimtab.studies.demo import copy_demo

RESULT = Path(__file__).parent / "results" / "probes.json"
TOPICS = ("card_arrival", "lost_or_stolen_card", "exchange_rate", "top_up_failed")
ROWS = 320  # of a public set
TASK = """[task]
name = "{name}"
kind = "{kind}"
instruction = "{instruction}"
{more}
[data]
examples = ["rows.jsonl"]
{data}
split = {{ dev = 0.2, test = 0.3, seed = 0 }}
[base]
model = "smollm2-135m-q4"
embedding = "minilm-l6"
[study]
"""


def spam(folder: Path, _data: Path) -> Path:
    """The bundled example of messages."""
    return copy_demo("spam", folder, cut=True)


def handbook(folder: Path, _data: Path) -> Path:
    """The bundled example of a handbook."""
    return copy_demo("handbook", folder, cut=True)


def banking77(folder: Path, data: Path) -> Path:
    """Four of the 77 topics of bank customers' questions."""
    with (data / "banking77.train.csv").open(newline="", encoding="utf-8") as file:
        found = [(row["text"].strip(), row["category"].strip()) for row in csv.DictReader(file)]
    rows = [{"input": text, "label": topic} for text, topic in found if topic in TOPICS]
    _write_rows(folder, rows)
    return _write_task(
        folder,
        name="banking77",
        kind="classify",
        instruction="Which topic is this question of a bank's customer about?",
    )


def xquad(folder: Path, data: Path) -> Path:
    """Questions to articles of Wikipedia, the articles as documents."""
    rows = []
    (folder / "documents").mkdir()
    for number, article in enumerate(json.loads((data / "xquad.en.json").read_text(encoding="utf-8"))["data"]):
        name = f"{number:02}-{article['title']}.md"
        parts = article["paragraphs"]
        (folder / "documents" / name).write_text("\n\n".join(part["context"] for part in parts), encoding="utf-8")
        rows += [
            {"input": asked["question"], "output": asked["answers"][0]["text"], "passage": name}
            for part in parts
            for asked in part["qas"]
        ]
    _write_rows(folder, rows)
    return _write_task(
        folder,
        name="xquad",
        kind="answer",
        instruction="Answer the question from the documents in a few words.",
        more='metric = "contains"\noutput_tokens = 16',
        data='documents = ["documents/"]\ncolumns = { input = "input", output = "output", passage = "passage" }',
    )


Layout = Callable[[Path, Path], Path]
SETS: dict[str, tuple[Layout, tuple[str, ...], tuple[str, ...]]] = {  # the task, its arms and its probes
    "spam": (spam, ("linear", "prompt"), ("typing", "other-words")),
    "handbook": (handbook, ("prompt", "extract"), ("typing", "other-words", "retrieval")),
    "handbook-tuned": (handbook, ("rag", "lora+rag"), ("typing", "other-words", "retrieval", "forgetting")),
    "banking77": (banking77, ("prompt", "lora"), ("typing", "other-words", "forgetting")),
    "xquad": (xquad, ("prompt", "extract"), ("typing", "other-words", "retrieval")),
}


def _write_rows(folder: Path, rows: list[dict[str, str]]) -> None:
    random.Random(0).shuffle(rows)
    lines = (json.dumps(row, ensure_ascii=False) for row in rows[:ROWS])
    (folder / "rows.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _write_task(folder: Path, *, more: str = "", data: str = "", **words: str) -> Path:
    file = folder / TASK_FILE
    file.write_text(TASK.format(more=more, data=data, **words), encoding="utf-8")
    return file


def measured(name: str, folder: Path, data: Path) -> dict[str, Any]:
    """Return the verdict of a study and what its probes found."""
    lay_out, arms, probes = SETS[name]
    folder.mkdir(parents=True)
    task = lay_out(folder, data)
    replaced = ("arms =", "budget =", "effort =")
    lines = [line for line in task.read_text(encoding="utf-8").splitlines() if not line.startswith(replaced)]
    own = f'[study]\narms = {json.dumps(arms)}\nprobes = {json.dumps(probes)}\neffort = "none"'
    (folder / TASK_FILE).write_text("\n".join(lines).replace("[study]", own) + "\n", encoding="utf-8")
    with chdir(folder):
        result = trimtab.study(TASK_FILE)
    probed = {arm.arm: [asdict(probe) for probe in arm.probes] for arm in result.arms if arm.probes}
    return {"arms": arms, "use": result.verdict.use, "sentence": result.verdict.sentence, "probes": probed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(SETS), metavar="NAME")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        for name in given.names:
            found = measured(name, (given.work or Path(place)) / name, given.data)
            kept = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"sets": {}}
            kept["machine"] = describe_machine()
            kept["sets"][name] = found
            write_json(RESULT, kept)
            print(name, found["sentence"], flush=True)


if __name__ == "__main__":
    main()
