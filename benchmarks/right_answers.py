"""Compares the metric `contains` with people: pairs of reference and answer that were labelled by hand, right or wrong.

Two sets are ours (tests/measurement/right_answers.jsonl, 400 pairs; right_answers_kinds.jsonl, 156 pairs by what a
rule may mistake and by language), written and labelled before the metric's answers to them were looked at. With a
folder of QA-Eval (Wang et al. 2023, "Evaluating Open-QA Evaluation": answers of five systems to 5,610 questions, each
judged by people) these are measured, too. Half of each set is for tuning (`tune`); the others are held back (`held`).
A false accept is a wrong answer that the metric calls right, a false reject a right one that it calls wrong; an answer
that it cannot decide is on neither side.

    python benchmarks/right_answers.py [--qa-eval FOLDER] [--show pairs/tune] [--out FILE] [--as before]
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trimtab.base.files import write_json
from trimtab.measurement.contains import match

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests" / "measurement"
OWN = {"pairs": TESTS / "right_answers.jsonl", "kinds": TESTS / "right_answers_kinds.jsonl"}
RESULT = ROOT / "benchmarks" / "results" / "right_answers.json"
SYSTEMS = ("fid", "gpt35", "chatgpt", "gpt4", "newbing")
ALL = "all"


def own_rows(path: Path) -> list[dict[str, Any]]:
    """The labelled pairs of a file: kind, half, question, reference, answer, right."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row | {"references": [row["reference"]]} for row in rows]


def qa_eval_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The judged answers of QA-Eval by system; questions alternate between the halves."""
    for name in ("NQ", "TQ"):
        questions = json.loads((folder / "EVOUNA" / f"{name}.json").read_text(encoding="utf-8"))
        proper = (question for question in questions if not question["improper"])
        for place, question in enumerate(proper):
            for system in SYSTEMS:
                if question[f"answer_{system}"] is None:
                    continue
                yield {
                    "kind": f"{name} {system}",
                    "half": "held" if place % 2 else "tune",
                    "question": question["question"],
                    "references": question["golden_answer"].split("/"),
                    "answer": question[f"answer_{system}"],
                    "right": question[f"judge_{system}"],
                }


def judged(row: dict[str, Any]) -> str:
    """What the metric says of an answer that may give any of the references."""
    found = {match(row["answer"], reference, row["question"]) for reference in row["references"]}
    return next((one for one in ("right", "unsure") if one in found), "wrong")


def counted(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """The number of right and of wrong answers, and of each what the metric got wrong or left undecided."""
    found = Counter((row["right"], row["judged"]) for row in rows)
    return {
        "right": sum(row["right"] for row in rows),
        "false_rejects": found[True, "wrong"],
        "right_unsure": found[True, "unsure"],
        "wrong": sum(not row["right"] for row in rows),
        "false_accepts": found[False, "right"],
        "wrong_unsure": found[False, "unsure"],
    }


def by_kind(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """The counts of each kind, and of all."""
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    return {kind: counted([row for row in rows if row["kind"] == kind]) for kind in kinds} | {ALL: counted(rows)}


def print_counts(title: str, counts: dict[str, dict[str, int]]) -> None:
    """Print a line for each kind."""
    print(f"{title:16} false rejects  unsure    of right   false accepts  unsure    of wrong")
    for kind, each in counts.items():
        left = f"{each['false_rejects']:13} {each['right_unsure']:7} {each['right']:11}"
        print(f"{kind:16} {left} {each['false_accepts']:15} {each['wrong_unsure']:7} {each['wrong']:11}")


def main() -> None:
    """Judge all pairs, print the counts, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qa-eval", type=Path, help="the folder of QA-Eval, with EVOUNA/NQ.json and EVOUNA/TQ.json")
    parser.add_argument("--show", help="print the pairs of this set and half that are judged otherwise: kinds/tune")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument(
        "--as", dest="name", default="now", help="the name of the figures in the result, such as before"
    )
    options = parser.parse_args()
    sets = {name: own_rows(path) for name, path in OWN.items()}
    if options.qa_eval is not None:
        sets["qa-eval"] = list(qa_eval_rows(options.qa_eval))
    results = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    result = results.setdefault(options.name, {})
    for name, rows in sets.items():
        began = time.process_time()
        for row in rows:
            row["judged"] = judged(row)
        each = (time.process_time() - began) / len(rows)
        print(f"{name}: {1000 * each:.2f} ms an answer")
        result[name] = {half: by_kind([row for row in rows if row["half"] == half]) for half in ("tune", "held")}
        for half, counts in result[name].items():
            print_counts(f"{name}/{half}", counts)
            for row in rows:
                label = "right" if row["right"] else "wrong"
                if options.show == f"{name}/{half}" and row["half"] == half and row["judged"] != label:
                    print(f"{row['judged']}, not {label}: {row['question']} | {row['references']} | {row['answer']}")
    write_json(options.out, results)


if __name__ == "__main__":
    main()
