"""Rules that say which evaluation's weights are kept and when training stops, asked on recorded runs (see
best_weights.py)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from trimtab.training.monitor import EvalRecord, best_of, should_stop

PATIENCE = 2  # as `LoopSettings` has it
SIMPLEST = "lowest loss"
SHIPPED = "latest within 1 SE of the lowest loss"
STOPPED = (SIMPLEST, SHIPPED, "the rule until now")  # with which every stop is tried


@dataclass(frozen=True)
class Dev:
    """A run's evaluations on the same N dev rows: losses whose mean is the dev loss, and scores, `[evaluations, N]`."""

    losses: np.ndarray
    scores: np.ndarray

    def first(self, count: int) -> Dev:
        """The first evaluations alone."""
        return Dev(self.losses[:count], self.scores[:count])

    def over(self, rows: np.ndarray) -> Dev:
        """Return the same evaluations on other rows."""
        return Dev(self.losses[:, rows], self.scores[:, rows])

    @cached_property
    def readings(self) -> list[EvalRecord]:
        """Return the evaluations as the training loop records them."""
        means = self.loss.tolist()
        return [
            EvalRecord(step=t, train_loss=0.0, dev_loss=mean, dev_metric=None, rows=tuple(rows))
            for t, (mean, rows) in enumerate(zip(means, self.losses.tolist(), strict=True))
        ]

    @property
    def loss(self) -> np.ndarray:
        """Mean losses."""
        means: np.ndarray = self.losses.mean(1)
        return means

    @property
    def score(self) -> np.ndarray:
        """Mean scores."""
        means: np.ndarray = self.scores.mean(1)
        return means


def error(left: np.ndarray, right: np.ndarray) -> float:
    """One paired standard error of a difference of means."""
    return float(np.std(left - right, ddof=1) / len(left) ** 0.5)


def alike(values: np.ndarray, best: int) -> list[int]:
    """The evaluations within one paired standard error of the best."""
    means = values.mean(1)
    return [t for t in range(len(means)) if abs(means[t] - means[best]) <= error(values[t], values[best])]


def until_now(dev: Dev, order: Sequence[int] | None = None) -> int:
    """The rule until now: the newcomer wins by a score higher by over 0.02, else by a lower loss. It depends on the
    order."""
    order = range(len(dev.loss)) if order is None else order
    best = order[0]
    for new in order[1:]:
        gap = dev.score[new] - dev.score[best]
        best = new if (gap > 0 if abs(gap) > 0.02 else dev.loss[new] < dev.loss[best]) else best
    return best


def lowest_loss(dev: Dev) -> int:
    return int(dev.loss.argmin())


def latest_alike(dev: Dev) -> int:
    """Return the evaluation whose weights the program keeps."""
    return dev.readings.index(best_of(dev.readings))


def highest_score(dev: Dev) -> int:
    """Return the evaluation with the highest score, of equals the one with the lower loss."""
    return min(range(len(dev.loss)), key=lambda t: (-dev.score[t], dev.loss[t]))


def last_step_forward(dev: Dev) -> int:
    """The last one that was lower than the one before it that counted by more than one standard error."""
    kept = 0
    for t in range(1, len(dev.loss)):
        if dev.loss[kept] - dev.loss[t] > error(dev.losses[t], dev.losses[kept]):
            kept = t
    return kept


KEEP: dict[str, Callable[[Dev], int]] = {
    "the rule until now": until_now,
    "the last": lambda dev: len(dev.loss) - 1,
    "lowest loss": lowest_loss,
    "highest score": highest_score,
    "earliest within 1 SE of the lowest loss": lambda dev: min(alike(dev.losses, lowest_loss(dev))),
    SHIPPED: latest_alike,
    "earliest within 1 SE of the highest score": lambda dev: min(alike(dev.scores, highest_score(dev))),
    "lowest loss within 1 SE of the highest score": lambda dev: min(
        alike(dev.scores, highest_score(dev)), key=lambda t: dev.loss[t]
    ),
    "highest score within 1 SE of the lowest loss": lambda dev: min(
        alike(dev.losses, lowest_loss(dev)), key=lambda t: (-dev.score[t], dev.loss[t])
    ),
    "last that was lower by over 1 SE": last_step_forward,
}


def stale(kept: int, dev: Dev) -> bool:
    return len(dev.loss) - 1 - kept >= PATIENCE


# whether to stop after the evaluations seen so far
STOP: dict[str, Callable[[Dev], bool]] = {
    "never": lambda _: False,
    "the rule until now": lambda dev: stale(until_now(dev), dev) and dev.loss[-1] > dev.loss.min(),
    "no lower loss for 2": lambda dev: stale(lowest_loss(dev), dev),
    "no loss lower by over 1 SE for 2": lambda dev: stale(last_step_forward(dev), dev),
    # as the program stops
    "2 looks higher than the lowest loss by over 1 SE": lambda dev: should_stop(dev.readings, PATIENCE),
}


def spent(stop: Callable[[Dev], bool], dev: Dev) -> int:
    """Evaluations until the stop."""
    total = len(dev.loss)
    return next((count for count in range(1, total) if stop(dev.first(count))), total)


def compare(runs: Sequence[dict[str, Any]], redraws: int = 200) -> dict[str, Any]:
    """Every rule on every run, on its dev rows and as the mean over as many drawn anew with replacement."""
    asked = [(keep, "never") for keep in KEEP] + [(keep, stop) for keep in STOPPED for stop in STOP if stop != "never"]
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {pair: [] for pair in asked}
    best, circles = [], []
    for run in runs:
        seen, tokens = run["evaluations"], np.array(run["tokens"])
        test = np.array([one["test"] for one in seen])
        dev = Dev(np.array([one["losses"] for one in seen]) / tokens.mean(), np.array([one["scores"] for one in seen]))
        draw = np.random.default_rng(0)
        devs = [dev, *(dev.over(draw.integers(len(tokens), size=len(tokens))) for _ in range(redraws))]
        best.append(float(test.max()))
        orders = list(itertools.permutations(range(len(test))))
        circles.append(np.mean([len({until_now(one, order) for order in orders}) > 1 for one in devs]))
        for keep, stop in asked:
            counts = [spent(STOP[stop], one) for one in devs]
            tests = [test[KEEP[keep](one.first(count))] for one, count in zip(devs, counts, strict=True)]
            found[keep, stop].append((float(tests[0]), float(np.mean(tests[1:])), float(np.mean(counts[1:]))))
    simplest = np.array(found[SIMPLEST, "never"])[:, 1]
    rows = []
    for (keep, stop), values in found.items():
        test, again, looks = np.array(values).T
        gap = again - simplest
        figures = {
            "test": test.mean(),
            "test_redrawn": again.mean(),
            "regret_redrawn": np.mean(best) - again.mean(),
            "minus_simplest": gap.mean(),
            "standard_error": gap.std(ddof=1) / len(gap) ** 0.5,
            "evaluations": looks.mean(),
        }
        rows.append({"keep": keep, "stop": stop, **{name: round(float(value), 4) for name, value in figures.items()}})
    names = [f"{run['task']} {run['seed']}" for run in runs]
    own = np.array(found[SHIPPED, "never"])[:, 1] - simplest
    return {
        "what": "mean test score of the weights that a rule keeps, over runs; *_redrawn: each run's dev rows drawn "
        "anew",
        "simplest": f"{SIMPLEST}, no early stop",
        "runs": len(runs),
        "by_task": {task: sum(run["task"] == task for run in runs) for task in sorted({run["task"] for run in runs})},
        "rows_train_dev_test": runs[0]["rows"],
        "redraws": redraws,
        "machine": runs[0]["machine"],
        "processor_seconds": sum(run["seconds"] for run in runs),
        "share_where_order_decides_the_rule_until_now": round(float(np.mean(circles)), 4),
        "shipped": SHIPPED,
        "shipped_minus_simplest_by_run": {name: round(float(gap), 4) for name, gap in zip(names, own, strict=True)},
        "table": rows,
    }
