"""Prediction-powered estimates compared with those of ppi_py, by the authors of PPI++, on the same labels.

Made traffic as in production_simulation.py, labels drawn at random. For each run: the share of right answers with
its 95% interval by `measurement.production` and by `ppi_py.ppi_mean_pointestimate` and `ppi_mean_ci`. Counted over
the runs: how far the two estimates are apart, in standard errors of ppi_py's; the ratio of the widths of the
intervals; how often each interval holds the true share. ppi_py takes no answers that were drawn with unequal
probabilities: active sampling has no counterpart there.

    python -m venv DIR && DIR/bin/pip install ppi-python
    python benchmarks/ppi_reference.py --python DIR/bin/python [--runs 500] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from production_simulation import CELLS, SIGNS

from trimtab.base.files import write_json
from trimtab.upkeep.production import production_quality

RESULT = Path(__file__).parent / "results" / "ppi_reference.json"
# Reads a list of runs, writes the point estimate and the interval of each.
REFERENCE = """
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
    done = subprocess.run(
        [python, "-c", REFERENCE], input=json.dumps(asked), capture_output=True, text=True, check=True
    )
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
    """Run all cells in which some answers are not labelled, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True, help="of an environment with ppi-python")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    found = [compared(*cell, given.runs, given.python) for cell in CELLS if cell[0] > cell[1]]
    for _, cell in found:
        print(cell)
    write_json(given.out, {"ppi_py": found[0][0], "runs": given.runs, "cells": [cell for _, cell in found]})


if __name__ == "__main__":
    main()
