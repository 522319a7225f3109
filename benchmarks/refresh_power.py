"""Compares the foretold chance that a refresh passes its gate with the share of simulated refreshes that do.

Production and candidate are right on a question as a normal variable of each is below a bound; the two are correlated
(CORRELATION), as versions of one arm fail on the same questions. The answers go through the gate as a refresh uses it
(`candidate_gate`), the chance is that of the plan (`chance_to_pass`, `chance_not_worse`): production's score is known
to it, the correlation is not. Rows "false" have a candidate that is behind by the margin on the old questions: how
often it passes must stay below the level.

    python benchmarks/refresh_power.py [--runs 300] [--out FILE]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from simulated import plain_answer

from trimtab.base.files import write_json
from trimtab.base.records import Answer
from trimtab.base.task import Task
from trimtab.upkeep.gate import (
    INDEX_DISCORDANCE,
    candidate_gate,
    chance_not_worse,
    chance_to_pass,
    independent_discordance,
    new_discordance,
)
from trimtab.upkeep.versions import VersionScore

RESULT = Path(__file__).parent / "results" / "refresh_power.json"
CORRELATION = 0.5  # between the two versions' normal variables
CORRELATION_OF_INDEX = 0.98  # the same weights, and mostly the same passages


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A refresh: questions, production's score on the old and on the new ones, the candidate's gain on each, and the
    margin."""

    way: str
    old: int
    new: int
    score: float
    score_on_new: float
    gain: float
    behind: float
    margin: float


def cells() -> Iterator[Cell]:
    """Yield the grid."""
    for old, margin, score in product((100, 400), (0.02, 0.05, 0.1), (0.8, 0.95)):
        weights = partial(Cell, way="weights", old=old, score=score, margin=margin)
        for new, on_new, gain in ((300, 0.7, 0.1), (60, 0.36, 0.59), (20, 0.0, 0.9)):
            yield weights(new=new, score_on_new=on_new, gain=gain, behind=0.0)
        index = partial(Cell, way="index", old=old, score=score, margin=margin, new=0, score_on_new=0.0, gain=0.0)
        yield from (index(behind=0.0), index(behind=margin))
        yield weights(new=60, score_on_new=0.36, gain=0.59, behind=margin)


def answers(right: Sequence[bool], name: str) -> list[Answer]:
    """Return answers that are right or wrong."""
    return [plain_answer(f"{name}{number}", None, float(one)) for number, one in enumerate(right)]


def paired(draw: np.random.Generator, count: int, one: float, other: float, correlation: float) -> Any:
    """Return which of `count` questions each of two versions has right, [2, count]."""
    both = draw.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], size=count).T
    return both < stats.norm.ppf([[one], [other]])


def passes(cell: Cell, task: Task, draw: np.random.Generator) -> bool:
    """Simulate one refresh."""
    of_index = cell.way == "index"
    correlated = partial(paired, draw, correlation=CORRELATION_OF_INDEX if of_index else CORRELATION)
    old = correlated(cell.old, cell.score, cell.score - cell.behind)
    new = correlated(cell.new, cell.score_on_new, min(1.0, cell.score_on_new + cell.gain))
    production, candidate = (answers(old[at], "old") + answers(new[at], "new") for at in (0, 1))
    record = candidate_gate(
        candidate,
        production,
        new={f"new{number}" for number in range(cell.new)},
        outdated=(),
        learnt=(),
        task=task,
        old_look=1,
        new_look=1,
        forgetting=None,
        latency=None,
        of_index=of_index,
    )
    return record.passed is True


def foretold(cell: Cell) -> float:
    """Return the chance that the plan of this refresh tells."""
    score = VersionScore(value=cell.score, low=0, high=1, n=cell.old, metric="contains")
    differing = independent_discordance(score)
    if cell.way == "index":
        return chance_not_worse(cell.old, cell.margin, min(INDEX_DISCORDANCE, differing), 1.0, 1)
    on_new = new_discordance(cell.score_on_new, cell.gain)
    return chance_to_pass(cell.old, cell.new, cell.gain, cell.margin, (1.0, 1.0), (1, 1), differing, on_new)


def measured(cell: Cell, runs: int, seed: int) -> dict[str, Any]:
    """Simulate a cell; `error`: the Monte Carlo standard error of the share."""
    task = Task.model_validate(
        {
            "task": {"name": "t", "kind": "answer", "metric": "exact_match"},
            "data": {"examples": ["rows.jsonl"]},
            "base": {"model": "m"},
            "target": {"margin": cell.margin},
        }
    )
    draw = np.random.default_rng(seed)
    share = float(np.mean([passes(cell, task, draw) for _ in range(runs)]))
    named = {name: getattr(cell, name) for name in Cell.__dataclass_fields__}
    told = None if cell.behind else round(foretold(cell), 4)  # of a candidate that is as good
    return {
        **named,
        "foretold": told,
        "passed": round(share, 4),
        "error": round(math.sqrt(share * (1 - share) / runs), 4),
    }


def main() -> None:
    """Simulate every cell and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    rows = []
    for seed, cell in enumerate(cells()):
        rows.append(measured(cell, options.runs, seed))
        print(rows[-1], flush=True)
    told = [row for row in rows if row["foretold"] is not None]
    gaps = [row["foretold"] - row["passed"] for row in told]
    false = [row["passed"] for row in rows if row["foretold"] is None]
    summary = {
        "mean difference of foretold and simulated": round(float(np.mean(gaps)), 4),
        "largest": round(max(map(abs, gaps)), 4),
        "most false passes of a candidate behind by the margin": max(false),
        "mean of these": round(float(np.mean(false)), 4),
    }
    write_json(options.out, {"runs": options.runs, "summary": summary, "cells": rows})
    print(summary)


if __name__ == "__main__":
    main()
