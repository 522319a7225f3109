"""The studies of the README's tables: runs one, or takes a finished one, and keeps its `study.json` with what it ran
on.

    python benchmarks/studies.py handbook             # a bundled example's cut; spam, style
    python benchmarks/studies.py banking77            # lays out the public data, runs the study
    python benchmarks/studies.py handbook-documents   # arms that retrieve, beside tuning; xquad-documents, endoflife
    python benchmarks/studies.py sums                 # made sums: what a reward adds to examples
    python benchmarks/studies.py handbook --from trimtab-demo-handbook/.trimtab/studies/ID --conditions "make demo"
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from statistics import fmean

from trimtab import open_study
from trimtab.arms.store import ANSWERS
from trimtab.arms.workspace import open_workspace
from trimtab.measurement.contains import facts_stand_in
from trimtab.measurement.evaluate import load_answers
from trimtab.studies.demo import copy_demo

HERE = Path(__file__).parent
DEMOS = ("handbook", "spam", "style")
NAMES = (*DEMOS, "handbook-documents", "banking77", "xquad", "xquad-documents", "endoflife", "sums")
OF_DOCUMENTS = ("handbook-documents", "xquad-documents", "endoflife")  # of whose answers it is told what is invented
DOCUMENT_ARMS = """[study]
arms = ["extract", "rag", "rag+quote", "lora", "lora+rag"]
effort = "none"
[arm.lora]
epochs = 1
[arm."lora+rag"]
epochs = 1
"""
SUMS = """[task]
name = "sums"
kind = "answer"
instruction = "Work out the sum. Answer with the number alone."
output_tokens = 12
[data]
examples = ["rows.jsonl"]
leakage = "report"                 # two sums are nearly alike by nature
split = { dev = 0.15, test = 0.35, seed = 0 }
[base]
model = "smollm2-135m-q4"
[study]
arms = ["prompt", "few-shot", "lora", "lora-grpo"]
effort = "none"
[reward]
exact_match = 1.0
"""


def run(name: str) -> Path:
    """Run the study of one name in `real-data/` (or the bundled demo) and return its folder."""
    command = [str(Path(sys.executable).with_name("trimtab"))]
    if name in DEMOS:
        place = Path(f"trimtab-demo-{name}")
        subprocess.run([*command, "demo", name, "--cut"], check=False)  # 1: not shown
    elif name == "handbook-documents":
        place = Path("handbook-documents")
        copy_demo("handbook", place, cut=True)
        task = place / "documents.toml"
        plain = (place / "demo.toml").read_text("utf-8")
        task.write_text(plain[: plain.index("[study]")] + DOCUMENT_ARMS, "utf-8")
        subprocess.run([*command, "study", "--task", str(task)], check=False)
    elif name == "sums":
        place = lay_out_sums(Path("sums"))
        subprocess.run([*command, "study", "--task", str(place)], check=False)
    else:
        place = Path("real-data")
        subprocess.run([sys.executable, str(HERE.parent / "docs" / "make_real_data.py"), str(place)], check=True)
        data, _, kind = name.partition("-")
        task = place / f"{data}.toml"
        if kind == "documents":  # a smaller test, scored by what an answer holds, since a whole sentence may answer
            task, plain = place / f"{name}.toml", task.read_text("utf-8")
            plain = (
                plain[: plain.index("[study]")].replace("token_f1", "contains").replace("test = 0.25", "test = 0.15")
            )
            task.write_text(plain + DOCUMENT_ARMS.replace("epochs = 1", "epochs = 0.4"), "utf-8")
        subprocess.run([*command, "study", "--task", str(task)], check=False)  # 1: not shown
    studies = place / ".trimtab" / "studies"
    return studies / (studies / "latest").read_text().strip()


def lay_out_sums(place: Path) -> Path:
    """Write 400 made sums and their task."""
    place.mkdir(exist_ok=True)
    write_sums(place / "rows.jsonl", range(10, 100), range(2, 30), 400)
    (place / "trimtab.toml").write_text(SUMS)
    return place


def write_sums(file: Path, firsts: range, seconds: range, count: int) -> None:
    """Write so many different sums and their answers, the same ones each time."""
    pairs = random.Random(0).sample([(one, other) for one in firsts for other in seconds], count)
    rows = [{"question": f"{one} + {other} = ?", "answer": str(one + other)} for one, other in pairs]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def seconds(events: Path) -> float:
    """Return the seconds from the first event of a study to its last."""
    times = [datetime.fromisoformat(json.loads(line)["time"]) for line in events.read_text().splitlines()]
    return (times[-1] - times[0]).total_seconds()


def readings(events: Path) -> dict[str, list[dict[str, float | None]]]:
    """Return each arm's dev evaluations during training."""
    found: dict[str, list[dict[str, float | None]]] = {}
    for event in map(json.loads, events.read_text().splitlines()):
        if event["stage"] == "dev":
            found.setdefault(event["arm"], []).append({key: event[key] for key in ("step", "dev_loss", "dev_metric")})
    return found


def answers_told(study: Path) -> dict[str, dict[str, float]]:
    """Return figures on the answers of each arm of a study with documents: shares that abstain, and that invent;
    words and correct abstentions.

    `invented`: of all questions, those whose answer gives numbers, dates, times or names that no single document
    holds, but for those of the question. `abstained_rightly`: of the questions that documents do not answer, those
    that the arm did not answer.
    """
    opened = open_study(study)
    texts = [
        "\n".join([one.title, *(" ".join((*section.path, section.text)) for section in one.sections)])
        for one in open_workspace(opened.task).documents
    ]
    unknown, told = opened.task.task.unknown, {}
    for arm in (one.arm for one in opened.arms if one.status == "done"):
        rows = load_answers(study / "arms" / arm / ANSWERS)
        invented = [
            not row.abstained and not any(facts_stand_in(text, row.answer, row.input) for text in texts) for row in rows
        ]
        absent = [row.abstained for row in rows if unknown in row.reference]
        told[arm] = {
            "abstained": fmean(row.abstained for row in rows),
            "invented": fmean(invented),
            "words": fmean(len(row.answer.split()) for row in rows),
        }
        if absent:
            told[arm] |= {"without_answer": len(absent), "abstained_rightly": fmean(absent)}
    return told


def keep(name: str, study: Path, conditions: str) -> Path:
    """Write `results/study_NAME.json`: study.json without its report's path, machine, versions, splits, what was
    foretold of time and memory, readings on dev."""
    plain = json.loads((study / "study.json").read_text())
    manifest = json.loads((study / "manifest.json").read_text())
    plain.pop("report")
    plain["conditions"] = conditions
    plain["manifest"] = {
        key: manifest[key] for key in ("machine", "versions", "precision", "counts", "cuts", "test_openings")
    }
    plain["foretold"] = {name: figure for name, figure in manifest["figures"].items() if "error" in figure}
    plain["seconds"] = seconds(study / "events.jsonl")
    if name in OF_DOCUMENTS:
        plain["answers_told"] = answers_told(study)
    plain["dev_readings"] = readings(study / "events.jsonl")
    target = HERE / "results" / f"study_{name}.json"
    target.write_text(json.dumps(plain, indent=2, ensure_ascii=False) + "\n")
    return target


def main() -> None:
    """Run or take a study and keep its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--from", dest="folder", type=Path, help="a finished study's folder")
    parser.add_argument("--conditions", default="alone on the machine", help="what else ran, how many threads")
    given = parser.parse_args()
    print(keep(given.name, given.folder or run(given.name), given.conditions))


if __name__ == "__main__":
    main()
