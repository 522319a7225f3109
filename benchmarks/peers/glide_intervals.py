"""Runs GLIDE on the studies of `judgements.py --peer`; prints one JSON object of intervals by estimator.

PPI++ with labels that were drawn evenly, of whole groups where questions come in groups; and active statistical
inference (ASI), which knows the chance of each question to be asked. A row has the interval of arm a's score and that
of the difference, and is null where GLIDE refuses either.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from glide.estimators import ASIMeanEstimator, ClusteredPPIMeanEstimator, PPIMeanEstimator

warnings.simplefilter("ignore")


def interval(estimate: Callable[..., object], said: np.ndarray, asked: np.ndarray, *others: np.ndarray) -> list[float]:
    """Return the 95% interval of a mean, of what people said where they were asked."""
    found = estimate(np.where(asked, said, np.nan), *others).confidence_interval
    return [float(found.lower_bound), float(found.upper_bound)]


def main(file: Path) -> None:
    """Print the intervals."""
    studies = np.load(file)
    told: dict[str, list[list[float] | None]] = {"GLIDE PPI++": [], "GLIDE ASI": []}
    columns = (studies[name] for name in ("said", "graded", "asked", "chances", "evenly", "groups"))
    for said, graded, asked, chances, evenly, groups in zip(*columns, strict=True):
        grouped = len(set(groups.tolist())) < len(groups)
        pairs = [(said[:, 0], graded[:, 0]), (said[:, 0] - said[:, 1], graded[:, 0] - graded[:, 1])]
        ways = {
            "GLIDE PPI++": lambda y, f, evenly=evenly, groups=groups, grouped=grouped: (
                interval(ClusteredPPIMeanEstimator().estimate, y, evenly, f, groups)
                if grouped
                else interval(PPIMeanEstimator().estimate, y, evenly, f)
            ),
            "GLIDE ASI": lambda y, f, asked=asked, chances=chances: interval(
                ASIMeanEstimator().estimate, y, asked, f, chances
            ),
        }
        for name, way in ways.items():
            try:
                told[name].append([bound for y, f in pairs for bound in way(y, f)])
            except ValueError:
                told[name].append(None)
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
