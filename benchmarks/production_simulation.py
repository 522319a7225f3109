"""Checks the estimated quality in use from few labels on simulated traffic whose share of right answers is known.

Each answer has a probability that the arm gives it, from a beta distribution, and is right with that probability
plus a shift (0: the arm is calibrated). Some are labelled, drawn as `trimtab label` draws them. Counted over the
runs, for the labels alone and with the arm's confidence: how often 95% intervals hold the true share, their width,
the bias in its standard errors, and the labels saved.

    python benchmarks/production_simulation.py [--runs 2000] [--out FILE]

With --peer, the estimates with confidence are also compared with those of ppi_py, by the authors of PPI++, on the same
labels, drawn at random (ppi_py takes no answers that were drawn with unequal probabilities): how far the two are apart,
in standard errors of ppi_py's; the ratio of the widths; how often each interval holds the true share.

    python -m venv DIR && DIR/bin/pip install ppi-python
    python benchmarks/production_simulation.py --peer DIR/bin/python
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
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
# Reads a list of runs, writes the point estimate and the interval of each.
PEER = """
import importlib.metadata, json, sys
import numpy as np
from ppi_py import ppi_mean_ci, ppi_mean_pointestimate
found = []
for right, labelled, others in json.load(sys.stdin):
    given = [np.array(one) for one in (right, labelled, others)]
    low, high = ppi_mean_ci(*given, alpha=0.05)
    found.append([float(np.squeeze(one)) for one in (ppi_mean_pointestimate(*given), low, high)])
json.dump([importlib.metadata.version("ppi-python"), found], sys.stdout)
"""


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


def compared(
    answers: int, labels: int, beta: tuple[float, float], shift: float, runs: int, python: Path
) -> tuple[str, dict[str, Any]]:
    """Run one cell; return ppi_py's version and the figures."""
    draw = np.random.default_rng(0)
    truth = float(np.clip(draw.beta(*beta, SIGNS) + shift, 0, 1).mean())
    ours, asked = [], []
    for _ in range(runs):
        confidence_N = draw.beta(*beta, answers)
        right_N = (draw.random(answers) < np.clip(confidence_N + shift, 0, 1)).astype(float)
        drawn_N = draw.permutation(answers) < labels
        told_N, inclusion_N = np.where(drawn_N, right_N, np.nan), np.where(drawn_N, labels / answers, np.nan)
        found = production_quality(told_N, confidence_N, inclusion_N)
        if found is None or found.powered is None:
            raise RuntimeError("a run without an estimate")
        ours.append((found.powered.value, found.powered.low, found.powered.high))
        asked.append([right_N[drawn_N].tolist(), confidence_N[drawn_N].tolist(), confidence_N[~drawn_N].tolist()])
    done = subprocess.run([python, "-c", PEER], input=json.dumps(asked), capture_output=True, text=True, check=True)
    version, told = json.loads(done.stdout)
    own, theirs = np.array(ours), np.array(told)
    # Intervals of ours end at 0 and 1; those of ppi_py are cut there for the widths.
    widths = [np.clip(one[:, 2], 0, 1) - np.clip(one[:, 1], 0, 1) for one in (own, theirs)]
    errors = (theirs[:, 2] - theirs[:, 1]) / (2 * 1.959964)
    usable = errors > 0  # all labels alike: ppi_py gives an interval without width
    apart = np.abs(own[usable, 0] - theirs[usable, 0]) / errors[usable]
    figures = {
        "answers": answers,
        "labels": labels,
        "beta": beta,
        "shift": shift,
        "true": truth,
        "apart_in_standard_errors": {"median": float(np.median(apart)), "p95": float(np.quantile(apart, 0.95))},
        "width_ratio": float(widths[0].mean() / widths[1].mean()),
        "covered": {
            name: float(np.mean((one[:, 1] <= truth) & (truth <= one[:, 2])))
            for name, one in (("trimtab", own), ("ppi_py", theirs))
        },
        "intervals_without_width": int((~usable).sum()),
    }
    return version, figures


def main() -> None:
    """Run all cells and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--peer-runs", type=int, default=500)
    parser.add_argument("--peer", type=Path, help="Python of an environment with ppi-python; compares, and no more")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    result = json.loads(given.out.read_text(encoding="utf-8")) if given.out.is_file() else {}
    if given.peer:
        pairs = [compared(*cell, given.peer_runs, given.peer) for cell in CELLS if cell[0] > cell[1]]
        result["peer"] = {"ppi_py": pairs[0][0], "runs": given.peer_runs, "cells": [cell for _, cell in pairs]}
    else:
        result["runs"] = given.runs
        result["cells"] = [
            simulated(*cell, drawing, given.runs) for cell in CELLS for drawing in ("random", "uncertain")
        ]
    write_json(given.out, result)


if __name__ == "__main__":
    main()
