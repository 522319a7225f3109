"""Compares the metric `contains` with people: 400 pairs of reference and answer, labelled by hand, right or wrong.

The pairs (tests/measurement/right_answers.jsonl) were written and labelled before the metric's answers to them were
looked at. Half of each kind, by hash, are for tuning (`tune`); the others are held back (`held`). A false accept is
a wrong answer that the metric calls right, a false reject a right one that it calls wrong; an answer that it cannot
decide is unsure, and counts as wrong in a score.

    python benchmarks/right_answers.py [--show tune] [--out FILE] [--as before]
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtab.base.files import write_json
from trimtab.measurement.contains import match

ROOT = Path(__file__).resolve().parents[1]
PAIRS = ROOT / "tests" / "measurement" / "right_answers.jsonl"
RESULT = ROOT / "benchmarks" / "results" / "right_answers.json"
ALL = "all"


def pairs() -> list[dict[str, Any]]:
    """The labelled pairs: kind, half, question, reference, answer, right."""
    return [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]


def counted(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """The number of right and of wrong answers, and of each what the metric got wrong or left undecided."""
    found = Counter((row["right"], match(row["answer"], row["reference"], row["question"])) for row in rows)
    return {
        "right": sum(row["right"] for row in rows),
        "false_rejects": found[True, "wrong"],
        "right_unsure": found[True, "unsure"],
        "wrong": sum(not row["right"] for row in rows),
        "false_accepts": found[False, "right"],
        "wrong_unsure": found[False, "unsure"],
    }


def main() -> None:
    """Judge all pairs, print the counts, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--show", choices=("tune", "held"), help="print the pairs of this half that are judged otherwise"
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument(
        "--as", dest="name", default="now", help="the name of the figures in the result, such as before"
    )
    options = parser.parse_args()
    rows = pairs()
    result: dict[str, Any] = {}
    for half in ("tune", "held"):
        own = [row for row in rows if row["half"] == half]
        kinds = list(dict.fromkeys(row["kind"] for row in own))
        result[half] = {kind: counted([row for row in own if row["kind"] == kind]) for kind in kinds} | {
            ALL: counted(own)
        }
        print(f"{half:16} false rejects  unsure    of right   false accepts  unsure    of wrong")
        for kind, each in result[half].items():
            left = f"{each['false_rejects']:13} {each['right_unsure']:7} {each['right']:11}"
            print(f"{kind:16} {left} {each['false_accepts']:15} {each['wrong_unsure']:7} {each['wrong']:11}")
    for row in rows:
        found = match(row["answer"], row["reference"], row["question"])
        if row["half"] == options.show and found != ("right" if row["right"] else "wrong"):
            print(
                f"{found}, not {'right' if row['right'] else 'wrong'}: {row['question']} | {row['reference']} | "
                f"{row['answer']}"
            )
    before = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    write_json(options.out, before | {options.name: result})


if __name__ == "__main__":
    main()
