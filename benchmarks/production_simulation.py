"""Checks the estimated quality in use from few labels on simulated traffic whose share of right answers is known.

Each answer has a probability that the arm gives it, from a beta distribution, and is right with that probability
plus a shift (0: the arm is calibrated). Some are labelled, drawn as `trimtab label` draws them. Counted over the
runs, for the labels alone and with the arm's confidence: how often 95% intervals hold the true share, their width,
the bias in its standard errors, and the labels saved.

    python benchmarks/production_simulation.py [--runs 2000] [--out FILE]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.base.files import write_json
from trimtab.upkeep.production import inclusion_probabilities, production_quality, sizes_by_uncertainty

RESULT = Path(__file__).parent / "results" / "production_simulation.json"
SIGNS = 1_000_000  # answers from which the true share is taken
# answers, labels, beta distribution of the arm's probabilities, shift
CELLS: tuple[tuple[int, int, tuple[float, float], float], ...] = (
    (1_000, 50, (9.0, 1.0), 0.0),
    (1_000, 100, (9.0, 1.0), 0.0),
    (1_000, 100, (2.0, 1.0), 0.0),
    (1_000, 100, (1.0, 0.3), 0.0),
    (1_000, 100, (1.0, 0.3), -0.15),
    (300, 60, (0.5, 0.5), 0.0),
    (2_000, 50, (50.0, 1.0), 0.0),
    (200, 200, (2.0, 1.0), 0.0),
)


def simulated(
    answers: int, labels: int, beta: tuple[float, float], shift: float, drawing: str, runs: int
) -> dict[str, Any]:
    """One cell, drawn in one way."""
    random = np.random.default_rng(0)
    truth = float(np.clip(random.beta(*beta, SIGNS) + shift, 0, 1).mean())
    values: dict[str, list[float]] = {"plain": [], "powered": []}
    widths: dict[str, list[float]] = {"plain": [], "powered": []}
    covered, saved = {"plain": 0, "powered": 0}, []
    for _ in range(runs):
        confidence_N = random.beta(*beta, answers)
        right_N = (random.random(answers) < np.clip(confidence_N + shift, 0, 1)).astype(float)
        size_N = sizes_by_uncertainty(list(confidence_N)) if drawing == "uncertain" else np.ones(answers)
        priority_N = random.random(answers) / size_N
        asked_N = np.zeros(answers, dtype=bool)
        asked_N[np.argsort(priority_N)[:labels]] = True
        inclusion_N = inclusion_probabilities(priority_N, size_N, asked_N)
        found = production_quality(np.where(asked_N, right_N, np.nan), confidence_N, inclusion_N)
        if found is None or found.powered is None or found.labels_saved is None:
            raise RuntimeError("a run without an estimate")
        for name, one in (("plain", found.plain), ("powered", found.powered)):
            values[name].append(one.value)
            widths[name].append(one.high - one.low)
            covered[name] += one.low <= truth <= one.high
        saved.append(found.labels_saved)
    figures = {
        name: {
            "covered": covered[name] / runs,
            "width": float(np.mean(widths[name])),
            "bias_in_standard_errors": float(
                (np.mean(values[name]) - truth) / (np.std(values[name]) / math.sqrt(runs))
            ),
        }
        for name in values
    }
    cell = {"answers": answers, "labels": labels, "beta": beta, "shift": shift, "drawing": drawing, "true": truth}
    return {**cell, **figures, "labels_saved": float(np.mean(saved))}


def main() -> None:
    """Run all cells and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    cells = [simulated(*cell, drawing, given.runs) for cell in CELLS for drawing in ("random", "uncertain")]
    write_json(given.out, {"runs": given.runs, "cells": cells})


if __name__ == "__main__":
    main()
