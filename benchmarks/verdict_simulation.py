"""Whole studies with known truth: how often intervals hold it, and how often a verdict is wrong.

Run: python benchmarks/verdict_simulation.py [--studies 800] [--out benchmarks/results/verdict_simulation.json]
One core, about two minutes. Items share their difficulty over the arms (Gaussian copula), and over the items of a group
where there are groups; groups hold 1 to 7 items. A graded score is 1 where right and Beta(1, 3) elsewhere.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from trimtab.base.files import write_json
from trimtab.base.records import ArmResult, Comparison, Cost, Estimate
from trimtab.base.task import Task
from trimtab.decision.verdict import best_arm, decide
from trimtab.measurement.statistics import compare, estimate, holm, p_noninferior, p_reaches

CORRELATION = 0.6  # of two arms' latent success on one item
WITHIN_GROUP = 0.5  # share of an item's difficulty that its group decides
WRONG_MEAN = 0.25  # mean score of a wrong answer, graded
MARGIN = 0.05


@dataclass(frozen=True)
class Cell:
    """One kind of test set: `groups` is their number, 0 for independent items; `sizes` where they are not drawn (1 to 7)."""

    kind: str
    n: int
    groups: int
    score: float
    sizes: tuple[int, ...] = ()


UNEQUAL = {
    "one of 100, 19 of 5": (100, *[5] * 19),
    "two of 80, 38 of 4": (80, 80, *[4] * 38),
    "Zipf": tuple(max(1, 120 // rank) for rank in range(1, 41)),
}


def draw(random: np.random.Generator, truths: list[float], cell: Cell) -> tuple[np.ndarray, list[str] | None]:
    """Scores [arm, item] with the true means `truths`, and the items' groups."""
    graded = cell.kind == "graded"
    if cell.groups:
        sizes = np.array(cell.sizes) if cell.sizes else random.integers(1, 8, cell.groups)
        codes = np.repeat(np.arange(cell.groups), sizes)
        n = len(codes)
        shared = np.sqrt(WITHIN_GROUP) * random.standard_normal(cell.groups)[codes]
        difficulty = shared + np.sqrt(1 - WITHIN_GROUP) * random.standard_normal(n)
    else:
        n, codes, difficulty = cell.n, None, random.standard_normal(cell.n)
    right_share = np.array([(truth - WRONG_MEAN) / (1 - WRONG_MEAN) if graded else truth for truth in truths])
    own = random.standard_normal((len(truths), n))
    latent = np.sqrt(CORRELATION) * difficulty + np.sqrt(1 - CORRELATION) * own
    right = latent < stats.norm.ppf(right_share)[:, None]
    scores = np.where(right, 1.0, random.beta(1, 3, right.shape) if graded else 0.0)
    return scores, None if codes is None else [str(code) for code in codes]


def measure_cell(random: np.random.Generator, cell: Cell, studies: int) -> dict[str, Any]:
    """Coverage of intervals, and errors where the null is exactly true: the worst case of each test."""
    truths = [cell.score, cell.score, cell.score - MARGIN]
    counts = dict.fromkeys(("score_covered", "difference_covered", "target_claimed", "different", "not_worse"), 0)
    for _ in range(studies):
        (a, same, worse), groups = draw(random, truths, cell)
        found, gap = estimate(a, groups), compare(a, worse, groups)
        counts["score_covered"] += found.low <= cell.score <= found.high
        counts["difference_covered"] += gap.low <= MARGIN <= gap.high
        counts["target_claimed"] += p_reaches(a, cell.score, groups) <= 0.05
        counts["different"] += compare(a, same, groups).p <= 0.05
        counts["not_worse"] += p_noninferior(worse, a, MARGIN, groups) <= 0.05
    return {**asdict(cell), "studies": studies, **{key: value / studies for key, value in counts.items()}}


def a_task(target: float | None) -> Task:
    return Task.model_validate(
        {
            "task": {"name": "simulated", "kind": "answer", "metric": "exact_match"},
            "data": {"examples": ["rows.jsonl"]},
            "base": {"model": "none"},
            "target": {"quality": target, "margin": MARGIN},
        }
    )


def run_study(
    random: np.random.Generator, truths: list[float], cell: Cell, task: Task
) -> tuple[str | None, list[bool]]:
    """One study, arms given from light to heavy: the arm shown, and which arms are said to reach the target."""
    scores, groups = draw(random, truths, cell)
    names, target = [f"arm{place}" for place in range(len(truths))], task.target.quality
    found: list[Estimate] = [estimate(row, groups) for row in scores]
    passes: list[bool | None] = [None] * len(names)
    if target is not None:
        passes = [p <= 0.05 for p in holm([p_reaches(row, target, groups) for row in scores])]
    results = [
        ArmResult(
            arm=name,
            status="done",
            score=score,
            passes=passed,
            cost=Cost(total=place + 1.0, up_front=0.0, monthly=0.0, currency="machine seconds"),
        )
        for place, (name, score, passed) in enumerate(zip(names, found, passes, strict=True))
    ]
    best = best_arm(results, task)
    top = names.index(best or names[0])
    others = [place for place in range(len(names)) if place != top]
    gaps = {place: compare(scores[top], scores[place], groups) for place in others}
    adjusted = dict(zip(others, holm([gaps[place].p for place in others]), strict=True))
    comparisons = [
        Comparison(
            a=names[top],
            b=names[place],
            difference=gap.difference,
            low=gap.low,
            high=gap.high,
            p=gap.p,
            p_holm=adjusted[place],
        )
        for place, gap in gaps.items()
    ]
    close = {names[place]: p_noninferior(scores[place], scores[top], MARGIN, groups) for place in others}
    return decide(results, comparisons, close, task, {}).arm, [bool(passed) for passed in passes]


TARGETED = {
    "all at the target": [0.85] * 5,
    "two at the target, three below": [0.6, 0.7, 0.85, 0.8, 0.85],
    "three below, one above": [0.5, 0.7, 0.84, 0.93],
}
OPEN = {
    "all equal": [0.8] * 4,
    "heaviest better by twice the margin": [0.6, 0.7, 0.7, 0.8],
    "heaviest better by just over the margin": [0.7, 0.74, 0.745, 0.8],
    "heaviest better than the lightest by just over the margin": [0.8, 0.6, 0.7, 0.86],
    "lightest equal to the best": [0.8, 0.6, 0.7, 0.8],
    "clear winner": [0.3, 0.5, 0.4, 0.8],
}


def measure_verdicts(random: np.random.Generator, studies: int) -> list[dict[str, Any]]:
    """Whole verdicts. Wrong: an arm shown that misses the target, or is worse than the best by the margin or more."""
    rows = []
    cells = [
        Cell("right/wrong", 60, 0, 0),
        Cell("right/wrong", 120, 0, 0),
        Cell("right/wrong", 400, 0, 0),
        Cell("right/wrong", 0, 60, 0),
    ]
    scenarios = [*((name, truths, 0.85) for name, truths in TARGETED.items()), *((n, t, None) for n, t in OPEN.items())]
    for (name, truths, target), cell in itertools.product(scenarios, cells):
        task = a_task(target)
        good = [truth > target if target else truth > max(truths) - MARGIN for truth in truths]
        shown = wrong = lightest = false_passes = 0
        for _ in range(studies):
            arm, passes = run_study(random, truths, cell, task)
            place = None if arm is None else int(arm.removeprefix("arm"))
            shown += place is not None
            wrong += place is not None and not good[place]
            lightest += place is not None and good[place] and place == good.index(True)
            false_passes += any(passed and not fine for passed, fine in zip(passes, good, strict=True))
        rows.append(
            {
                "scenario": name,
                "truths": truths,
                "target": target,
                "items": cell.n or f"{cell.groups} groups of 1 to 7",
                "studies": studies,
                "shown": shown / studies,
                "wrong": wrong / studies,
                "lightest_good_arm": lightest / studies,
                "any_false_reaches": false_passes / studies if target else None,
            }
        )
    return rows


def cells() -> list[Cell]:
    """Test sets of the grid; those with 8 groups are what the product calls too few, and those of unequal size too."""
    plain = [Cell("right/wrong", n, 0, score) for n in (60, 150, 400) for score in (0.5, 0.8, 0.95)]
    graded = [Cell("graded", n, 0, score) for n in (60, 200) for score in (0.6, 0.8, 0.93)]
    kinds = ("right/wrong", "graded")
    grouped = [Cell(kind, 0, groups, score) for kind in kinds for groups in (20, 60) for score in (0.6, 0.85)]
    few = [Cell(kind, 0, 8, 0.7) for kind in kinds]
    unequal = [Cell(kind, 0, len(sizes), 0.75, sizes) for kind in kinds for sizes in UNEQUAL.values()]
    return [*plain, *graded, *grouped, *few, *unequal]


def summarise(rows: list[dict[str, Any]], verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    enough = [row for row in rows if row["groups"] != 8 and not row["sizes"]]
    unequal = [row[key] for row in rows if row["sizes"] for key in ("score_covered", "difference_covered")]

    def mean(key: str) -> float:
        return float(np.mean([row[key] for row in enough]))

    targeted = [row for row in verdicts if row["target"]]
    open_rows = [row for row in verdicts if not row["target"]]
    return {
        "score interval, coverage": {"mean": mean("score_covered"), "least": min(r["score_covered"] for r in enough)},
        "difference interval, coverage": {
            "mean": mean("difference_covered"),
            "least": min(r["difference_covered"] for r in enough),
        },
        "groups of unequal size, coverage of both": {"mean": float(np.mean(unequal)), "least": min(unequal)},
        "one arm wrongly said to reach the target": {
            "mean": mean("target_claimed"),
            "most": max(r["target_claimed"] for r in enough),
        },
        "equal arms said to differ": {"mean": mean("different"), "most": max(r["different"] for r in enough)},
        "worse by the margin, said not to be": {"mean": mean("not_worse"), "most": max(r["not_worse"] for r in enough)},
        "studies in which any arm is wrongly said to reach the target": {
            "mean": float(np.mean([row["any_false_reaches"] for row in targeted])),
            "most": max(row["any_false_reaches"] for row in targeted),
        },
        "studies without a target that show a wrong arm": {
            "mean": float(np.mean([row["wrong"] for row in open_rows])),
            "most": max(row["wrong"] for row in open_rows),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "verdict_simulation.json")
    options = parser.parse_args()
    began, random = time.process_time(), np.random.default_rng(options.seed)
    rows = []
    for cell in cells():
        studies = options.studies * 5 // 2 if cell.kind == "right/wrong" else options.studies
        rows.append(measure_cell(random, cell, studies))
        sys.stderr.write(f"{rows[-1]}\n")
    verdicts = measure_verdicts(random, options.studies)
    for row in verdicts:
        sys.stderr.write(f"{row}\n")
    summary = summarise(rows, verdicts)
    seconds = round(time.process_time() - began, 1)
    write_json(
        options.out,
        {"seed": options.seed, "core_seconds": seconds, "summary": summary, "cells": rows, "verdicts": verdicts},
    )
    for name, figures in summary.items():
        sys.stdout.write(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in figures.items()) + "\n")


if __name__ == "__main__":
    main()
