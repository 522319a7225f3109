"""Made answers with a known truth: what `verdict_simulation.py` sends through a study's own code.

Items share their difficulty over the arms (Gaussian copula), the items of a group share a part of it, and an arm
does better or worse on whole groups. A graded score is 1 where right and Beta(1, 3) elsewhere; with rare failures .9
to 1 where right and 0 elsewhere. Under macro-F1 a wrong answer is any other class, and an arm's share of right
answers is the one that has the stated macro-F1 over all answers there could be. Several runs of an arm scatter about
its truth by `run_spread`, and share half of what is the arm's own. Slices have other shares of the questions than of
the traffic, and an arm is right more or less often on each; its truth is that of the traffic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import optimize, stats

from trimtab.base.records import Answer
from trimtab.base.task import Task

WRONG_MEAN = 0.25  # mean score of a wrong answer, graded
DIFFICULTY_IN_GROUP = 0.5  # share of an item's difficulty that its group decides
OWN_IN_GROUP = 0.3  # share of what is an arm's own that the group decides
OWN_IN_RUNS = 0.5  # share of what is an arm's own that its runs have in common
RARE_TRUTH = 0.97 * 0.95  # where 3% of scores are 0, which a sample of 40 may lack, and the others .9 to 1
METRICS = {"right/wrong": "exact_match", "graded": "token_f1", "macro-F1": "macro_f1", "rare failures": "token_f1"}
BALANCED, SKEWED, RARE = (0.25,) * 4, (0.5, 0.25, 0.15, 0.07, 0.03), (0.6, 0.35, 0.05)
OF_GRADE = 0.08  # by which the share of right answers differs from one slice to the next
# Shares of the slices, of the test questions and of the traffic.
MIXES = {
    "slices of 80 and 20% that are 30 and 70% of the traffic": ((0.8, 0.3), (0.2, 0.7)),
    "slices of 95 and 5% that are 60 and 40% of the traffic": ((0.95, 0.6), (0.05, 0.4)),
    "five slices of 50 to 5% that are 5 to 50% of the traffic": (
        *((0.5, 0.05), (0.2, 0.1), (0.15, 0.15), (0.1, 0.2), (0.05, 0.5)),
    ),
}
UNEQUAL = {
    "one group of 100, 19 of 5": (100, *[5] * 19),
    "two of 80, 38 of 4": (80, 80, *[4] * 38),
    "Zipf": tuple(max(1, 120 // rank) for rank in range(1, 41)),
    "40, of which 3 pairs of near copies": (*[2] * 3, *[1] * 34),
}


@dataclass(frozen=True, kw_only=True)
class World:
    """A distribution of test questions and answers. `groups`: how many, of 1 to 7 items each; or their `sizes`; else
    `n`
    lone items."""

    kind: str = "right/wrong"
    n: int = 0
    groups: int = 0
    sizes: tuple[int, ...] = ()
    correlation: float = 0.6  # of two arms' latent success on one item
    seeds: int = 1
    run_spread: float = 0.0
    in_group: float | None = None  # share of all latent success that the group decides; None: of its parts, as below
    classes: tuple[float, ...] = BALANCED
    mix: str = field(default="", repr=False)  # of MIXES; not in the representation, which seeds draws

    @property
    def named(self) -> str:
        """Describe the world in words, for a table."""
        if self.sizes:
            items = next(name for name, sizes in UNEQUAL.items() if sizes == self.sizes)
        else:
            items = f"{self.groups} groups of 1 to 7" if self.groups else f"{self.n:,}"
        more = "" if self.correlation == World.correlation else f", correlation {self.correlation:g}"
        more += f", {self.seeds} runs that scatter by {self.run_spread:g}" if self.seeds > 1 else ""
        more += ", rare classes" if self.classes in (SKEWED, RARE) else ""
        more += f", {self.in_group:g} of it by group" if self.in_group is not None else ""
        more += f", {self.mix}" if self.mix else ""
        return items + more

    def task(self, target: float | None, margin: float, latency_ms: float | None = None) -> Task:
        """The task whose study this would be."""
        kind = "classify" if self.kind == "macro-F1" else "answer"
        labels = [str(place) for place in range(len(self.classes))] if kind == "classify" else []
        return Task.model_validate(
            {
                "task": {"name": "simulated", "kind": kind, "metric": METRICS[self.kind], "labels": labels},
                "data": {
                    "examples": ["rows.jsonl"],
                    "mix": {str(place): share for place, (_, share) in enumerate(MIXES.get(self.mix, ()))},
                },
                "base": {"model": "none"},
                "target": {"quality": target, "margin": margin, "latency_p95_ms": latency_ms},
            }
        )


def answers_of(random: np.random.Generator, truths: Sequence[float], world: World) -> list[list[Answer]]:
    """Each arm's answers, all seeds, to the same questions."""
    codes = _codes(random, world)
    n, groups = len(codes), codes.max() + 1

    def shared(within: float, *rows: int) -> np.ndarray[Any, Any]:
        by_group = random.standard_normal((*rows, groups))[..., codes]
        return np.sqrt(within) * by_group + np.sqrt(1 - within) * random.standard_normal((*rows, n))

    within = (DIFFICULTY_IN_GROUP, OWN_IN_GROUP) if world.in_group is None else (world.in_group, world.in_group)
    difficulty, own = shared(within[0]), shared(within[1], len(truths))
    classes = random.choice(len(world.classes), n, p=world.classes)
    slices, easier = _slices(codes, world)
    grouped = world.groups or world.sizes
    found: list[list[Answer]] = []
    for arm, truth in enumerate(truths):
        rows: list[Answer] = []
        for seed in range(world.seeds):
            each = own[arm]
            if world.seeds > 1:
                noise = random.standard_normal(n)
                each = np.sqrt(OWN_IN_RUNS) * own[arm] + np.sqrt(1 - OWN_IN_RUNS) * noise
            latent = np.sqrt(world.correlation) * difficulty + np.sqrt(1 - world.correlation) * each
            run_truth = truth + world.run_spread * random.standard_normal() if world.run_spread else truth
            right = latent < stats.norm.ppf(np.clip(right_share(run_truth, world) + easier, 0.0, 1.0))
            rows += _rows(random, right, classes, codes if grouped else None, slices, seed, world)
        found.append(rows)
    return found


def right_share(truth: float, world: World) -> float:
    """Return the share of right answers at which an arm's metric is `truth`."""
    truth = min(max(truth, 0.001), 0.999)
    if world.kind == "rare failures":
        return min(0.999, truth / 0.95)
    if world.kind == "graded":
        return max(0.001, (truth - WRONG_MEAN) / (1 - WRONG_MEAN))
    if world.kind == "macro-F1":
        share: float = optimize.brentq(lambda share: _macro_f1(share, world.classes) - truth, 1e-6, 1 - 1e-6)
        return share
    return truth


def _macro_f1(right: float, classes: Sequence[float]) -> float:
    """Macro-F1 over all answers there could be, wrong ones spread evenly over the other classes."""
    stray = (1 - right) / (len(classes) - 1)
    return float(np.mean([2 * own * right / (own + own * right + (1 - own) * stray) for own in classes]))


def _codes(random: np.random.Generator, world: World) -> np.ndarray[Any, Any]:
    if not world.groups and not world.sizes:
        return np.arange(world.n)
    sizes = np.array(world.sizes) if world.sizes else random.integers(1, 8, world.groups)
    return np.repeat(np.arange(len(sizes)), sizes)


def _slices(codes: np.ndarray[Any, Any], world: World) -> tuple[list[str | None], np.ndarray[Any, Any]]:
    """Each item's slice, whole groups in one, and how much more often it is answered rightly; over the traffic that
    is 0."""
    if not world.mix:
        return [None] * len(codes), np.zeros(len(codes))
    shares, traffic = np.array(MIXES[world.mix]).T
    units = codes.max() + 1
    places = np.searchsorted(np.cumsum(shares)[:-1], (np.arange(units) + 0.5) / units, side="right")[codes]
    easier = OF_GRADE * np.arange(len(shares))
    return [str(place) for place in places], (easier - easier @ traffic)[places]


def _rows(
    random: np.random.Generator,
    right: np.ndarray[Any, Any],
    classes: np.ndarray[Any, Any],
    codes: np.ndarray[Any, Any] | None,
    slices: Sequence[str | None],
    seed: int,
    world: World,
) -> list[Answer]:
    n, count = len(right), len(world.classes)
    scores = np.where(right, 1.0, random.beta(1, 3, n) if world.kind == "graded" else 0.0)
    if world.kind == "rare failures":
        scores *= 0.9 + 0.1 * random.random(n)
    said = np.where(right, classes, (classes + random.integers(1, count, n)) % count)
    return [
        plain_answer(
            f"{item:05}",
            str(said[item]),
            float(scores[item]),
            group=None if codes is None else str(codes[item]),
            slice=slices[item],
            seed=seed,
            reference=(str(classes[item]),),
        )
        for item in range(n)
    ]


def plain_answer(item_id: str, text: str, score: float, **known: Any) -> Answer:
    """An answer of which nothing else is told."""
    plain: dict[str, Any] = {"group": None, "slice": None, "seed": 0, "reference": ("a",)}
    return Answer(
        item_id=item_id,
        split="test",
        input="",
        answer=text,
        score=score,
        format_ok=True,
        abstained=False,
        probability=None,
        seconds=0.0,
        prompt_tokens=0,
        new_tokens=0,
        hits=(),
        failure="none",
        **(plain | known),
    )
