"""What following `today` loses in worlds with known truth, beside naive rules, and whether its chances hold.

Made answers (`simulated.py`) go through the code of a study. The loss of an arm is what its true score falls short of
the target (or of the best arm, where there is none) in points of 100, and its cost in points. Every rule decides on
the same answers.

    python benchmarks/today_simulation.py [--studies 400] [--processes 2] [--only WORD|WORD] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
from simulated import World, answers_of

from trimtab.base.files import sha256_text, write_json
from trimtab.base.machine import describe_machine
from trimtab.base.records import Arm
from trimtab.base.results import ArmResult, Cost, Estimate
from trimtab.base.task import Task
from trimtab.decision.choice import shown_arm
from trimtab.decision.evidence import Evidence, evidence_of
from trimtab.decision.today import ASSUMED, POINTS, take_today
from trimtab.measurement.figures import score_value

RESULT = Path(__file__).resolve().parent / "results" / "today_simulation.json"
HOUR = 3600.0
WAITING = 2.0  # points that it costs to wait for more questions
WITHIN = 0.02  # of the highest score, of the rule "cheapest within two points"
EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)  # of the chances that are held against what is so
STATED = "a point has a price"


@dataclass(frozen=True, kw_only=True)
class Truths:
    """How the true scores of the arms, light to heavy, are drawn, and what they cost in points."""

    name: str
    centre: tuple[float, ...]
    spread: float
    costs: tuple[float, ...] = (0.0, 1.0, 3.0)
    target: float | None = 0.8
    stated: bool = True

    def drawn(self, random: np.random.Generator) -> np.ndarray[Any, Any]:
        """One world: the true scores."""
        return np.clip(random.normal(self.centre, self.spread), 0.02, 0.98)


def worlds() -> list[tuple[Truths, World]]:
    """The cells of the table."""
    drawn = Truths(name="three arms about the target", centre=(0.8,) * 3, spread=0.06)
    rising = Truths(name="dearer arms are better", centre=(0.74, 0.8, 0.86), spread=0.04)
    above = Truths(name="all well above the target", centre=(0.9,) * 3, spread=0.03)
    below = Truths(name="all below the target", centre=(0.7,) * 3, spread=0.04)
    near = Truths(name="lightest just above the target", centre=(0.82, 0.86, 0.88), spread=0.0)
    free = Truths(name="no target, dearer arms are better", centre=(0.74, 0.78, 0.82), spread=0.04, target=None)
    alike = Truths(name="no target, arms drawn alike", centre=(0.8,) * 3, spread=0.04, target=None)
    ten = Truths(
        name="no target, ten arms drawn alike",
        centre=(0.8,) * 10,
        spread=0.04,
        target=None,
        costs=tuple(place / 3 for place in range(10)),
    )
    assumed = Truths(name="three arms about the target, no price", centre=(0.8,) * 3, spread=0.06, stated=False)
    several = [World(n=n) for n in (40, 100, 300, 1000, 2000)]
    found = list(product([drawn, rising], several))
    found += [(one, World(n=n)) for one in (above, below, near, free, alike, ten, assumed) for n in (50, 300)]
    found += [(one, world) for one in (drawn, free) for world in (World(groups=60), World(kind="graded", n=200))]
    found += [(drawn, World(n=200, seeds=3, run_spread=0.02)), (drawn, World(kind="macro-F1", n=200))]
    return found


def measure(truths: Truths, world: World, studies: int) -> dict[str, Any]:
    """The mean loss of each rule, and how often what was said to be good enough with some chance was."""
    random = np.random.default_rng(int(sha256_text(repr((truths, world)))[:8], 16))
    losses: dict[str, list[float]] = {}
    said: list[tuple[float, bool]] = []
    silent = 0
    for _ in range(studies):
        truth = truths.drawn(random)
        study = _evidence(random, truth, truths, world)
        shown, costs = shown_arm(study), np.array(truths.costs)
        today = take_today(study, shown)
        own = _losses(truth, costs, truths.target)
        names = [arm.arm for arm in study.done]
        places = [int(name.removeprefix("arm")) for name in names]
        scores = {place: next(a.score.value for a in study.done if a.arm == f"arm{place}") for place in places}
        silent += shown is None
        for rule, place in _rules(scores, costs, truths.target).items():
            losses.setdefault(rule, []).append(own[place])
        losses.setdefault("today", []).append(own[int((today.arm if today else names[0]).removeprefix("arm"))])
        highest = max(scores, key=lambda place: scores[place])
        losses.setdefault("shown, else the highest score", []).append(own[_place(shown, highest)])
        losses.setdefault("shown, else waiting", []).append(
            min(own) + WAITING if shown is None else own[_place(shown, 0)]
        )
        if today is not None:
            short = _short(truth, truths.target) <= (study.task.target.margin if truths.target is None else 0)
            said += [(one.good_enough, bool(short[int(one.arm.removeprefix("arm"))])) for one in today.arms]
            first = int(np.argmax(short)) if short.any() else None
            said += [(one.lightest, int(one.arm.removeprefix("arm")) == first) for one in today.arms]
    means = {rule: float(np.mean(own)) for rule, own in losses.items()}
    naive = {rule: mean for rule, mean in means.items() if rule != "today"}
    best = min(naive, key=lambda rule: naive[rule])
    gap = np.array(losses["today"]) - np.array(losses[best])
    return {
        "arms": truths.name,
        "scores": world.kind,
        "questions": world.named,
        "studies": studies,
        "not_shown": silent / studies,
        "loss": {rule: round(mean, 3) for rule, mean in means.items()},
        "above_best_naive": float(gap.mean()),
        "error": float(gap.std(ddof=1) / math.sqrt(studies)),
        "said": _calibration(said),
    }


def _place(arm: ArmResult | None, otherwise: int) -> int:
    return otherwise if arm is None else int(arm.arm.removeprefix("arm"))


def _short(truth: np.ndarray[Any, Any], target: float | None) -> np.ndarray[Any, Any]:
    return truth.max() - truth if target is None else np.maximum(0, target - truth)


def _losses(truth: np.ndarray[Any, Any], costs: np.ndarray[Any, Any], target: float | None) -> np.ndarray[Any, Any]:
    return POINTS * _short(truth, target) + costs


def _rules(scores: dict[int, float], costs: np.ndarray[Any, Any], target: float | None) -> dict[str, int]:
    """The arm that each naive rule takes."""
    best = max(scores, key=lambda place: (scores[place], -place))
    near = [place for place in sorted(scores) if scores[place] >= scores[best] - WITHIN]
    found = {"highest score": best, "cheapest within two points": min(near, key=lambda place: costs[place])}
    if target is not None:
        reached = [place for place in scores if scores[place] >= target] or [best]
        found["cheapest at the target"] = min(reached, key=lambda place: costs[place])
    return found


def _calibration(said: Sequence[tuple[float, bool]]) -> list[dict[str, Any]]:
    rows = []
    for low, high in pairwise(EDGES):
        here = [(chance, so) for chance, so in said if low <= chance < high or (high == 1.0 and chance == 1.0)]
        if here:
            told, found = np.mean(here, axis=0)
            rows.append({"from": low, "to": high, "count": len(here), "said": float(told), "so": float(found)})
    return rows


def _evidence(random: np.random.Generator, truth: np.ndarray[Any, Any], truths: Truths, world: World) -> Evidence:
    task, names = world.task(truths.target, 0.02), [f"arm{place}" for place in range(len(truth))]
    point = "1h" if truths.stated else ""  # a month; costs are over the horizon
    task = Task.model_validate({**task.model_dump(), "target": {**task.target.model_dump(), "point": point}})
    unit = HOUR * task.cost.horizon_months if truths.stated else ASSUMED
    made = answers_of(random, list(truth), world)
    results = []
    for name, own, cost in zip(names, made, truths.costs, strict=True):
        value = score_value(own, task)
        score = Estimate(value=value, low=value, high=value, n=len(own))
        paid = Cost(total=cost * unit, up_front=0.0, monthly=0.0, currency="machine seconds")
        results.append(ArmResult(arm=name, status="done", score=score, cost=paid))
    groups = len({row.group for row in made[0]}) if made[0][0].group is not None else None
    arms = [Arm(name=name, weights="base", stages=(), context="prompt", settings={"variant": name}) for name in names]
    return evidence_of(results, dict(zip(names, made, strict=True)), arms, task, {}, groups=groups, look=1)


def _call(one: tuple[Callable[..., dict[str, Any]], Truths, World, int]) -> dict[str, Any]:
    function, *given = one
    return function(*given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    cells = [
        (truths, world)
        for truths, world in worlds()
        if not args.only or any(word in f"{truths.name} {world.named}" for word in args.only.split("|"))
    ]
    jobs = [(measure, truths, world, args.studies) for truths, world in cells]
    with ProcessPoolExecutor(args.processes) as pool:
        rows = []
        for row in pool.map(_call, jobs):
            rows.append(row)
            print(json.dumps(row), flush=True)
    write_json(args.out, {"machine": describe_machine(), "waiting": WAITING, "cells": rows})


if __name__ == "__main__":
    main()
