"""Repeated runs of an arm with several seeds: its answers by seed, and figures as means over the seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from trimtab.base.records import Answer
from trimtab.base.results import Classes


def by_seed(answers: Sequence[Answer]) -> list[list[Answer]]:
    """Return the answers of each seed, the seeds in order."""
    runs: dict[int, list[Answer]] = {}
    for answer in answers:
        runs.setdefault(answer.seed, []).append(answer)
    return [runs[seed] for seed in sorted(runs)]


def mean_figures(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of every figure that all runs have."""
    shared = [name for name in (runs[0] if runs else ()) if all(name in run for run in runs)]
    return {name: _mean([run[name] for run in runs]) for name in shared}


def mean_classes(runs: Sequence[Classes]) -> Classes:
    """Return each class's means over runs on the same questions, so that its support is that of one; and the mean
    curve."""
    named = [{row.label: row for row in run.rows} for run in runs]
    rows = tuple(
        replace(
            first,
            precision=_mean([run[first.label].precision for run in named]),
            recall=_mean([run[first.label].recall for run in named]),
            f1=_mean([run[first.label].f1 for run in named]),
        )
        for first in runs[0].rows
    )
    shared = [share for share in runs[0].selective if all(share in run.selective for run in runs)]
    return Classes(rows=rows, selective={share: _mean([run.selective[share] for run in runs]) for share in shared})


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
