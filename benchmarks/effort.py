"""Measures what search effort standard gains each arm over its usual settings, on cuts of the bundled examples and
XQuAD.

    python benchmarks/effort.py run [handbook spam style xquad]  # appends missing studies to results/effort_runs.jsonl
    python benchmarks/effort.py run handbook --arms lora+rag --efforts standard [--seeds 1]  # replaces those arms
    python benchmarks/effort.py run … --folder FOLDER            # resumes one that was cut off
    python benchmarks/effort.py compare                          # → results/effort.json

XQuAD needs the public file of --source (see docs/start/your-data.md). No budget, so that nothing is cut. Scores and
what was chosen are of interest here; how long it took is not, so other work may stand beside it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared import SHARED

from trimtab import study
from trimtab.base.codec import to_plain
from trimtab.base.files import append_line, read_json_lines, write_json
from trimtab.base.machine import describe_machine, versions
from trimtab.studies.demo import copy_demo

HERE = Path(__file__).resolve().parent
RUNS, RESULT = HERE / "results" / "effort_runs.jsonl", HERE / "results" / "effort.json"
ARMS = {
    "handbook": ("prompt", "few-shot", "rag", "lora", "lora-docs", "lora+rag"),
    "spam": ("linear", "prompt", "few-shot", "nearest-shots", "lora", "lora-head"),
    "style": ("prompt", "few-shot", "nearest-shots", "lora", "lora-dpo"),
    "xquad": ("prompt", "few-shot", "rag", "lora", "lora-docs"),
}
OWN = {  # arms of a task that its list does not have, asked for by --arms
    # Prompts with passages have some 600 tokens here: as many epochs as in the README's study, whose budget held one.
    "one-epoch-with-rag": '[arm.one-epoch-with-rag]\nweights = "lora"\ncontext = "rag"\nepochs = 1.0\n'
}
EFFORTS = ("none", "standard")


def lay_out_task(name: str, folder: Path, source: Path) -> None:
    """The files of a task: `demo.toml` and what it names."""
    if name != "xquad":
        copy_demo(name, folder, cut=True)
        return
    folder.mkdir(parents=True)
    shutil.copyfile(source / "xquad.en.json", folder / "xquad.en.json")
    shutil.copyfile(HERE.parent / "docs" / "xquad.toml", folder / "demo.toml")


def run(
    name: str, effort: str, arms: Sequence[str], seeds: int | None, kept: Path | None, source: Path
) -> dict[str, Any]:
    """One study and its arms' figures; in a folder that is kept, one that was cut off goes on."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = (kept or Path(scratch)) / "-".join((name, effort, *arms))
        begun = folder.exists()
        if not begun:
            lay_out_task(name, folder, source)
        file = folder / "effort.toml"
        data, _, _ = (folder / "demo.toml").read_text(encoding="utf-8").partition("[study]")
        more = f"seeds = {seeds}\n" if seeds else ""
        more += "".join(OWN.get(arm, "") for arm in arms)
        file.write_text(f'{data}[study]\narms = {json.dumps(arms)}\neffort = "{effort}"\n{more}', encoding="utf-8")
        told = to_plain(study(file, resume="latest" if begun else None, allow_commands=True))
    figures = [
        {key: arm.get(key) for key in ("arm", "score", "low", "high", "n", "seed_scores", "train_seconds")}
        | {key: arm[key] for key in ("chosen", "extras", "effort")}
        for arm in told["arms"]
    ]
    plain = {"task": name, "effort": effort, "metric": told["metric"], "arms": figures, "verdict": told["verdict"]}
    return plain | {"trivial": told["trivial"], "machine": describe_machine(), "versions": versions()}


def compared() -> list[dict[str, Any]]:
    """A row an arm: its score with the usual settings and with those that were found, and the seconds that finding
    them took."""
    found: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for line in read_json_lines(RUNS):  # a later line of the same arm stands for it
        found[line["task"], line["effort"]] |= {arm["arm"]: arm for arm in line["arms"]}
    table = []
    for name in dict.fromkeys(task for task, _ in found):
        usual, searched = (found.get((name, effort), {}) for effort in EFFORTS)
        for arm in (arm for arm in searched if arm in usual):
            row = {"task": name, "arm": arm, "n": searched[arm]["n"]}
            row |= {"usual": usual[arm]["score"], "searched": searched[arm]["score"]}
            row |= {key: searched[arm][key] for key in ("low", "high", "seed_scores", "chosen")}
            extras = searched[arm].get("extras", {})
            row |= {key: extras[key] for key in ("ece_before", "ece") if key in extras}
            table.append(row | {"search_seconds": searched[arm]["effort"]["seconds"]})
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "compare"))
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(ARMS))
    parser.add_argument("--arms", help="only these of a task, with commas, whether they were measured or not")
    parser.add_argument("--efforts", default=",".join(EFFORTS), help="with commas")
    parser.add_argument("--seeds", type=int, help="of trained arms; as the study decides where it is not given")
    parser.add_argument("--folder", type=Path, help="where studies are kept, so that one that was cut off goes on")
    parser.add_argument("--source", type=Path, default=SHARED, help="the folder of xquad.en.json")
    given = parser.parse_args()
    if given.what == "run":
        tasks = given.tasks or list(ARMS)
        if "xquad" in tasks and not (given.source / "xquad.en.json").is_file():
            parser.error(f"{given.source}: no xquad.en.json; name its folder with --source, or the tasks without xquad")
        for name in tasks:
            for effort in given.efforts.split(","):
                known = any((line["task"], line["effort"]) == (name, effort) for line in read_json_lines(RUNS))
                if given.arms or not known:
                    arms = given.arms.split(",") if given.arms else ARMS[name]
                    append_line(RUNS, run(name, effort, arms, given.seeds, given.folder, given.source))
        return
    table = compared()
    write_json(RESULT, {"table": table})
    for row in table:
        print(row["task"], row["arm"], row["usual"], row["searched"], row["chosen"])


if __name__ == "__main__":
    main()
