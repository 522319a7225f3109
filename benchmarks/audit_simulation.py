"""Checks an audit's corrected figures on simulated studies whose true shares of right answers are known.

Each study has two arms and a metric that accepts a share of the right answers (sensitivity) and rejects a share of
the wrong ones (specificity), of each arm its own. People judge the answers to some questions, drawn as `trimtab
audit` draws them. Counted over the studies: how often 95% intervals of a score and of a difference hold the true
one, with the metric alone and corrected; how often an arm whose true share is the target is said to be above it; and
how often the metric is said to favour an arm. In a cell with slices the test questions have other shares of them
than the traffic, and arms and metric are better on one slice than on another; the true share is that of the traffic.
`used`: the share of studies in which the verdict uses the audit, the only ones that the others count.

    python benchmarks/audit_simulation.py [--studies 2000] [--only-slices] [--out FILE]
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from simulated import MIXES, plain_answer

from trimtab.base.files import read_object, write_json
from trimtab.base.records import Answer
from trimtab.base.task import Task
from trimtab.measurement.audit import Audited, draw_audit
from trimtab.measurement.figures import difference, score_estimate
from trimtab.measurement.statistics import LEVEL

RESULT = Path(__file__).parent / "results" / "audit_simulation.json"
MARGIN = 0.02
# true shares of right answers; sensitivity and specificity of each arm; test questions; audited questions
CELLS: tuple[dict[str, Any], ...] = (
    {"true": (0.8, 0.7), "metric": ((0.9, 0.9), (0.9, 0.9)), "questions": 400, "audited": 100},
    {"true": (0.8, 0.7), "metric": ((0.9, 0.9), (0.9, 0.9)), "questions": 200, "audited": 60},
    {"true": (0.8, 0.8), "metric": ((0.8, 0.9), (0.95, 0.9)), "questions": 400, "audited": 100},
    {"true": (0.95, 0.9), "metric": ((0.99, 0.95), (0.99, 0.95)), "questions": 400, "audited": 60},
    {"true": (0.8, 0.7), "metric": ((1.0, 1.0), (1.0, 1.0)), "questions": 400, "audited": 60},
    {"true": (0.8, 0.7), "metric": ((0.97, 1.0), (1.0, 0.97)), "questions": 400, "audited": 60},
    {"true": (0.5, 0.4), "metric": ((0.9, 0.7), (0.9, 0.7)), "questions": 150, "audited": 100},
    *(
        {"slices": slices, "true": (0.8, 0.7), "metric": metric, "questions": 400, "audited": audited}
        for slices, audited in zip(MIXES, (60, 100, 150), strict=True)
        for metric in (((0.9, 0.9), (0.9, 0.9)), ((0.9, 0.8), (0.7, 0.9)), ((0.99, 0.97), (0.99, 0.97)))
    ),
)
# by which an arm is more often right on a slice of half the traffic than on one of none; the metric errs half as much
# more
BETTER = 0.1


def made(
    draw: np.random.Generator, cell: dict[str, Any]
) -> tuple[dict[str, list[Answer]], dict[tuple[str, str], bool]]:
    """Answers of two arms that are alike in part, and whether each is right."""
    count = cell["questions"]
    parts = MIXES[cell["slices"]] if "slices" in cell else ((1.0, 1.0),)
    slice_N = draw.choice(len(parts), count, p=[share for share, _ in parts])
    traffic_S = np.array([share for _, share in parts])
    better_N = 2 * BETTER * (traffic_S - traffic_S @ traffic_S)[slice_N]  # none over all traffic
    shared = draw.random(count)
    answers: dict[str, list[Answer]] = {}
    right: dict[tuple[str, str], bool] = {}
    for arm, share, (sensitivity, specificity) in zip("ab", cell["true"], cell["metric"], strict=True):
        luck = np.where(draw.random(count) < 0.5, shared, draw.random(count))
        true = luck < share + better_N
        says = np.where(true, draw.random(count) < sensitivity + better_N / 2, draw.random(count) >= specificity)
        answers[arm] = [
            replace(plain_answer(f"{item:04}", arm, float(says[item])), slice=f"slice {slice_N[item]}")
            for item in range(count)
        ]
        right |= {(f"{item:04}", arm): bool(true[item]) for item in range(count)}
    return answers, right


def of_task(cell: dict[str, Any]) -> Task:
    """A task of short answers, with the cell's mix of slices in the traffic."""
    shares = MIXES[cell["slices"]] if "slices" in cell else ()
    mix = {f"slice {place}": share for place, (_, share) in enumerate(shares)}
    data = {"examples": ["rows.jsonl"], "mix": mix}
    return Task.model_validate({"task": {"name": "t", "kind": "answer"}, "data": data, "base": {"model": "m"}})


def simulated(cell: dict[str, Any], studies: int, seed: int) -> dict[str, float]:
    """Shares of studies."""
    draw, task, found = np.random.default_rng(seed), of_task(cell), Counter[str]()
    true_a, true_b = cell["true"]
    for _ in range(studies):
        answers, right = made(draw, cell)
        asked = draw_audit(answers, cell["audited"])
        audited = Audited(answers, {(one.item_id, one.answer): right[one.item_id, one.answer] for one in asked}, task)
        if audited.why_not is not None:
            continue
        found["used"] += 1
        found["judged_effective"] += audited.effective or cell["audited"]
        plain, corrected = score_estimate(answers["a"], task), audited.score("a")
        gap, plain_gap = audited.difference("a", "b"), difference(answers["a"], answers["b"], task)
        found["score_covered_by_the_metric"] += plain.low <= true_a <= plain.high
        found["score_covered"] += corrected.low <= true_a <= corrected.high
        found["difference_covered_by_the_metric"] += plain_gap.low <= true_a - true_b <= plain_gap.high
        found["difference_covered"] += gap.low <= true_a - true_b <= gap.high
        found["target_claimed"] += audited.target_curve("a")(true_a) <= LEVEL
        found["uneven"] += audited.uneven(MARGIN) is not None
        found["error"] += corrected.value - true_a
        found["half_width"] += (corrected.high - corrected.low) / 2
    used = found.pop("used")
    return {"studies": studies, "used": used / studies, **{name: count / used for name, count in found.items()}}


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate every cell, print it and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--only-slices", action="store_true", help="only the cells with slices; the other rows stay")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    studies = options.studies  # of the rows that do not say it themselves
    if options.only_slices:
        before = read_object(options.out)
        rows, studies = [row for row in before["rows"] if "slices" not in row], before["studies"]
    for seed, cell in enumerate(CELLS):
        if options.only_slices and "slices" not in cell:
            continue
        rows.append({**cell, **simulated(cell, options.studies, seed)})
        print(
            {key: round(value, 3) if isinstance(value, float) else value for key, value in rows[-1].items()}, flush=True
        )
    write_json(options.out, {"studies": studies, "margin": MARGIN, "rows": rows})


if __name__ == "__main__":
    main()
