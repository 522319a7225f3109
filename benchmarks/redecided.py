"""Finished studies decided again by the present rules, from their stored answers: the verdict of then beside the
verdict of now.

Run: python benchmarks/redecided.py STUDY_FOLDER [STUDY_FOLDER ...]     # folders .trimtab/studies/ID with arms and
answers
"""

from __future__ import annotations

import sys
from pathlib import Path

from trimtab.base.files import write_json
from trimtab.base.machine import describe_machine
from trimtab.studies.decide import decide_again
from trimtab.studies.open_study import open_study

RESULT = Path(__file__).parent / "results" / "redecided.json"


def main() -> None:
    found = []
    for folder in sys.argv[1:]:
        opened = open_study(folder)
        before, now = opened.result.verdict, decide_again(opened.folder, opened.task, opened.result).verdict
        row = {"task": opened.result.task, "study": opened.id, "before": before.sentence, "now": now.sentence}
        row |= {"arm_before": before.arm or "not shown", "arm_now": now.arm or "not shown"}
        sys.stdout.write(f"{row['task']}\nbefore: {row['before']}\nnow: {row['now']}\n\n")
        found.append(row)
    write_json(RESULT, {"machine": describe_machine(), "studies": found})


if __name__ == "__main__":
    main()
