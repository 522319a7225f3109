"""Whole studies with known truth: how often intervals hold it, and how often a verdict is wrong.

Made answers (`simulated.py`) go through the code of a study: `measurement.figures` and `decision`. Rows that `--only`
leaves out stay as they are.

    python benchmarks/verdict_simulation.py [--studies 300] [--processes 2] [--only WORD|WORD] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from simulated import MIXES, RARE, RARE_TRUTH, SKEWED, UNEQUAL, World, answers_of

from trimtab.base.files import sha256_text, write_json
from trimtab.base.grammar import arm_from_name
from trimtab.base.machine import describe_machine
from trimtab.base.records import Answer, Arm
from trimtab.base.results import ArmResult, Cost, Estimate
from trimtab.base.task import Task
from trimtab.decision.choice import shown_arm
from trimtab.decision.evidence import Evidence, best_arm, evidence_of
from trimtab.decision.sample_size import questions_needed
from trimtab.measurement.figures import (
    behind_curve,
    difference,
    rarest_class,
    score_estimate,
    score_floor,
    target_curve,
)
from trimtab.measurement.latency import MORE_PASSES, PASSES, latencies_needed, latency_bound, latency_percentiles
from trimtab.measurement.metrics import aggregate
from trimtab.measurement.statistics import LEVEL, look_level

MARGIN = 0.05
LIMIT_MS = 1_000.0
BLENDS = ("prompt", "rag", "lora", "lora+rag")
NOTHING = 1e-9
FURTHEST = 10  # times as many further questions as were asked
FOLLOWED = 5  # times each study that was not shown is followed
CLAIMS = (
    "false reaches",
    "false better",
    "shown worse",
    "shown dearer",
    "shown too slow",
    "false trivial",
    "picked missed",
)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Arms by their true scores, from light to heavy, and what is asked of them; `p95_ms`: their true latencies."""

    name: str
    truths: tuple[float, ...]
    target: float | None = None
    p95_ms: tuple[float, ...] = ()
    blends: bool = False
    timing_correlation: float = 0.0  # of the timings that follow one another
    trivial: float | None = None  # true score of an answer without a model
    looks: int = 1
    grows: bool = True  # the test set, from look to look; else each look has an arm of its own


# ---- intervals and tests, one at a time


def worlds() -> list[tuple[World, float]]:
    """Test sets with the true score of an arm. Of those of few effective groups the product says that they are too
    few."""
    found = [(World(n=n), score) for n in (40, 60, 150, 400, 2000) for score in (0.5, 0.8, 0.95)]
    found += [(World(n=150, correlation=correlation), 0.8) for correlation in (0.2, 0.9)]
    found += [(World(kind="graded", n=n), score) for n in (40, 60, 200) for score in (0.6, 0.8, 0.93)]
    found += [(World(kind="graded", n=2000), 0.8)]
    found += [(World(kind="macro-F1", n=n), score) for n in (60, 200) for score in (0.6, 0.85)]
    found += [(World(kind="macro-F1", n=n, classes=SKEWED), 0.7) for n in (200, 1000)]
    kinds = ("right/wrong", "graded")
    found += [(World(kind=kind, groups=groups), 0.8) for kind, groups in product(kinds, (8, 20, 60))]
    found += [(World(kind=kind, sizes=sizes), 0.75) for kind, sizes in product(kinds, UNEQUAL.values())]
    found += [(World(kind="macro-F1", groups=60), 0.75)]
    found += [(World(n=200, seeds=seeds, run_spread=spread), 0.8) for seeds, spread in product((3, 5), (0.01, 0.05))]
    found += [(World(kind="graded", n=200, seeds=3, run_spread=0.03), 0.8)]
    found += [(World(kind="rare failures", n=n), RARE_TRUTH) for n in (40, 100)]
    found += [(World(sizes=UNEQUAL["Zipf"], in_group=within), 0.75) for within in (0.3, 0.7)]
    found += [(World(kind="macro-F1", n=60, classes=RARE), 0.7)]
    for mix in MIXES:
        found += [(World(n=n, mix=mix), score) for n in (150, 400) for score in (0.5, 0.8)]
        found += [(World(kind="graded", n=200, mix=mix), 0.8), (World(groups=60, mix=mix), 0.75)]
        found += [(World(kind="rare failures", n=100, mix=mix), RARE_TRUTH)]
    found += [(World(n=60, mix=next(iter(MIXES))), 0.8)]
    return [*found, (World(kind="macro-F1", n=400, mix=next(iter(MIXES))), 0.7)]


def measure_world(world: World, score: float, studies: int) -> dict[str, Any]:
    """Coverage of intervals, and errors where the null is exactly true: the worst case of each test."""
    random, task, counts = _random("world", world, score), world.task(score, MARGIN), Counter[str]()
    for _ in range(studies):
        a, same, worse = answers_of(random, (score, score, score - MARGIN), world)
        found, gap = score_estimate(a, task), difference(a, worse, task)
        counts["score_covered"] += found.low <= score <= found.high
        counts["difference_covered"] += gap.low <= MARGIN <= gap.high
        counts["target_claimed"] += rarest_class(a, task) is None and target_curve(a, task)(score) <= LEVEL
        counts["different"] += difference(a, same, task).p <= LEVEL
        counts["not_worse"] += behind_curve(worse, a, task)(MARGIN) <= LEVEL
    shares = {
        key: counts[key] / studies
        for key in ("score_covered", "difference_covered", "target_claimed", "different", "not_worse")
    }
    return {"scores": world.kind, "questions": world.named, "score": score, "studies": studies, **shares}


# ---- whole verdicts


def scenarios() -> list[tuple[Scenario, World]]:
    """Studies at their worst: arms at the target, or apart by the margin, just over it, or not at all."""
    targeted = [
        Scenario(name="all at the target", truths=(0.85,) * 5, target=0.85),
        Scenario(name="two at the target, three below", truths=(0.6, 0.7, 0.85, 0.8, 0.85), target=0.85),
        Scenario(name="three below, one above", truths=(0.5, 0.7, 0.84, 0.93), target=0.85),
    ]
    equal = Scenario(name="all equal", truths=(0.8,) * 4)
    at_margin = Scenario(name="lightest behind by the margin", truths=(0.75, 0.6, 0.7, 0.8))
    within = Scenario(name="lightest behind by half the margin", truths=(0.775, 0.6, 0.7, 0.8))
    untargeted = [
        equal,
        at_margin,
        within,
        Scenario(name="lightest equal to the best", truths=(0.8, 0.6, 0.7, 0.8)),
        Scenario(name="three lighter ones behind by the margin", truths=(0.75, 0.75, 0.75, 0.8)),
        Scenario(name="each behind the next by half the margin", truths=(0.725, 0.75, 0.775, 0.8)),
        Scenario(name="heaviest better by just over the margin", truths=(0.7, 0.74, 0.745, 0.8)),
        Scenario(name="heaviest better by twice the margin", truths=(0.6, 0.7, 0.7, 0.8)),
        Scenario(name="clear winner", truths=(0.3, 0.5, 0.4, 0.8)),
    ]
    found = list(product([*targeted, *untargeted], [World(n=60), World(n=400), World(groups=60)]))
    worst = [targeted[0], equal, at_margin, within]
    others = [
        World(n=40),
        World(n=2000),
        World(n=400, correlation=0.2),
        World(n=400, correlation=0.9),
        World(kind="graded", n=200),
        World(kind="macro-F1", n=200),
        World(kind="macro-F1", n=60, classes=RARE),
        World(sizes=UNEQUAL["one group of 100, 19 of 5"]),
        World(sizes=UNEQUAL["Zipf"]),
        World(n=200, seeds=3, run_spread=0.02),
    ]
    found += list(product(worst, others))
    blends = (0.75, 0.75, 0.7, 0.8)
    found += [
        (Scenario(name="blends: two lighter ones behind by the margin", truths=blends, blends=True), World(n=400))
    ]
    found += [(Scenario(name="blends: all equal", truths=(0.8,) * 4, blends=True), World(n=400))]
    for count in (2, 12):
        at_target = Scenario(name=f"{count} arms, all at the target", truths=(0.85,) * count, target=0.85)
        behind = Scenario(
            name=f"{count} arms, all but the heaviest behind by the margin", truths=(*[0.75] * (count - 1), 0.8)
        )
        same = Scenario(name=f"{count} arms, all equal", truths=(0.8,) * count)
        found += [(one, World(n=400)) for one in (at_target, behind, same)]
    slow = Scenario(
        name="the light arms' p95 at the limit",
        truths=(0.95, 0.95, 0.95),
        target=0.85,
        p95_ms=(LIMIT_MS, LIMIT_MS, 0.4 * LIMIT_MS),
    )
    five = Scenario(name="five arms' p95 at the limit", truths=(0.95,) * 5, target=0.85, p95_ms=(LIMIT_MS,) * 5)
    alike = replace(five, name="five arms' p95 at the limit, timings correlated by .6", timing_correlation=0.6)
    trivial = Scenario(name="the most frequent label at the target", truths=(0.9, 0.95), target=0.8, trivial=0.8)
    above = replace(trivial, name="the most frequent label above the target", trivial=0.9)
    picked = [Scenario(name=f"the highest of {count} equal arms", truths=(0.8,) * count) for count in (8, 12)]
    grows = Scenario(name="a test set that grows by 50, ten looks", truths=(0.8,), target=0.8, looks=10)
    reused = Scenario(
        name="another arm each, ten looks at the same questions", truths=(0.8,), target=0.8, looks=10, grows=False
    )
    return [
        *found,
        *((one, World(n=400)) for one in (slow, five, alike, trivial, above, reused)),
        *((one, World(n=100)) for one in (*picked, grows)),
    ]


def measure_scenario(scenario: Scenario, world: World, studies: int) -> dict[str, Any]:
    """Verdicts on made studies, and how many of them claim what is not so."""
    random, counts = _random("scenario", scenario, world), Counter[str]()
    task = world.task(scenario.target, MARGIN, LIMIT_MS if scenario.p95_ms else None)
    for _ in range(studies):
        counts.update(
            _looked(scenario, random, task) if scenario.looks > 1 else _studied(scenario, random, task, world)
        )
    asked = ["false better", *(["false reaches"] if scenario.target else ["shown worse", "shown dearer"])]
    asked += ["shown too slow"] if scenario.p95_ms else []
    asked += ["false trivial"] if scenario.trivial is not None else []
    asked += ["picked missed"] if scenario.target is None and len(scenario.truths) > 1 else []
    return {
        "scenario": scenario.name,
        "truths": list(scenario.truths),
        "target": scenario.target,
        "scores": world.kind,
        "questions": world.named,
        "studies": studies,
        "shown": counts["shown"] / studies,
        "shown rightly": counts["rightly"] / studies,
        "wrong": {key: counts[key] / studies for key in asked},
    }


def _studied(scenario: Scenario, random: np.random.Generator, task: Task, world: World) -> Counter[str]:
    """One study: whether an arm is shown, and which claims are wrong."""
    names = BLENDS if scenario.blends else tuple(f"arm{place}" for place in range(len(scenario.truths)))
    trivial = [] if scenario.trivial is None else [scenario.trivial]
    made = answers_of(random, [*scenario.truths, *trivial], world)
    answers = dict(zip(names, made, strict=False))
    without = {"most-frequent": made[-1]} if trivial else {}
    latencies = [_latencies(random, p95, scenario) for p95 in scenario.p95_ms] or [None] * len(names)
    results = [
        _result(name, place, answers[name], latencies[place], task, len(names)) for place, name in enumerate(names)
    ]
    groups = len({answer.group for answer in made[0]}) if made[0][0].group is not None else None
    study = evidence_of(
        *(results, answers, [_arm(name) for name in names], task, {}), groups=groups, look=1, trivial=without
    )
    truth, arm, level = dict(zip(names, scenario.truths, strict=True)), shown_arm(study), look_level(1)
    counts = Counter[str](_wrong(scenario, names, arm.arm if arm else None))
    counts["shown"] = arm is not None
    counts["false better"] = any(
        one.p_holm <= level and one.difference * (truth[one.a] - truth[one.b]) <= 0 for one in study.comparisons
    )
    counts["false reaches"] = scenario.target is not None and any(
        arm.passes and truth[arm.arm] <= scenario.target + NOTHING for arm in study.results
    )
    if study.without_model is not None:
        true = trivial[0] > (scenario.target or 0.0) + NOTHING
        counts.update({"false trivial": int(not true), "rightly": int(true)})
    if study.picked is not None:
        highest = best_arm(study.results, task) or names[0]
        counts["picked missed"] = not study.picked.low <= truth[highest] <= study.picked.high
    return counts


# ---- following the number of questions that a verdict asks for


def followed() -> list[tuple[Scenario, World]]:
    """Studies that are often not shown, of which a few times as many questions would show an arm."""
    near = Scenario(name="following N: one arm above the target", truths=(0.7, 0.8, 0.88), target=0.85)
    two = Scenario(name="following N: two arms above the target", truths=(0.7, 0.87, 0.88), target=0.85)
    beyond = Scenario(name="following N: lightest behind by more than the margin", truths=(0.73, 0.65, 0.83))
    within = Scenario(name="following N: lightest equal to the best", truths=(0.8, 0.7, 0.8))
    several = Scenario(
        name="following N: four lighter ones behind by more than the margin", truths=(0.7, 0.72, 0.71, 0.7, 0.82)
    )
    return [
        *((one, World(n=200)) for one in (near, beyond)),
        (several, World(n=300)),
        *((one, World(groups=60)) for one in (near, beyond)),
        *((one, World(kind="graded", n=150)) for one in (near, beyond)),
        (near, World(kind="macro-F1", n=200)),
        *((one, World(n=200)) for one in (two, within)),
    ]


def measure_followed(scenario: Scenario, world: World, studies: int) -> dict[str, Any]:
    """Measure how often an arm is shown in the study that a "not shown" asks for, where the measured scores are the
    true ones.

    Its questions are drawn from those that were asked (`redrawn`); those that were asked stay and only the further
    ones are drawn (`added`); or all are new ones of arms whose true scores are the measured ones (`simulated`).
    Studies that need over ten times as many questions are left out. `studies` counts those that follow, five of
    each.
    """
    random, counts = _random("followed", scenario, world), Counter[str]()
    while counts["done"] < studies // FOLLOWED:
        counts.update(follow(scenario, world, random))
    return followed_row(scenario, world, counts)


def follow(scenario: Scenario, world: World, random: np.random.Generator) -> Counter[str]:
    """One made study, and what comes of following it; nothing where an arm is shown at once, or the best score
    misses the target."""
    task, names = world.task(scenario.target, MARGIN), [f"arm{place}" for place in range(len(scenario.truths))]
    answers = answers_of(random, scenario.truths, world)
    study, truths = _evidence(names, answers, task, look=1), [_value(own, task) for own in answers]
    if shown_arm(study) is not None or (scenario.target and truths[-1] <= scenario.target):
        return Counter()
    more, asked = questions_needed(study), study.study_scores().items
    if more is None or more > FURTHEST * asked:
        return Counter({"left out": 1})
    size = asked + more
    groups = round(size * len({row.group for row in answers[0]}) / asked) if world.groups else 0
    larger = replace(world, n=0 if groups else size, groups=groups)
    counts = Counter({"done": 1, "hundredths": round(100 * size / asked)})
    for _ in range(FOLLOWED):
        further = _redrawn(random, answers, more, first=asked)
        made = {
            "redrawn": _redrawn(random, answers, size),
            "added": [[*own, *new] for own, new in zip(answers, further, strict=True)],
            "simulated": answers_of(random, truths, larger),
        }
        for how, given in made.items():
            counts[how] += shown_arm(_evidence(names, given, task, look=2)) is not None
    return counts


def followed_row(scenario: Scenario, world: World, counts: Counter[str]) -> dict[str, Any]:
    """The row of the table that these counts come to."""
    return {
        "followed": scenario.name,
        "truths": list(scenario.truths),
        "target": scenario.target,
        "scores": world.kind,
        "questions": world.named,
        "studies": counts["done"] * FOLLOWED,
        "left_out": counts["left out"],
        "times_as_many": counts["hundredths"] / 100 / counts["done"],
        **{how: counts[how] / (counts["done"] * FOLLOWED) for how in ("redrawn", "added", "simulated")},
    }


def _redrawn(
    random: np.random.Generator, answers: Sequence[Sequence[Answer]], size: int, first: int = 0
) -> list[list[Answer]]:
    """About `size` questions drawn with replacement, whole groups where they repeat, named from `first` on."""
    units: dict[str | None, list[int]] = {}
    for place, row in enumerate(answers[0]):
        units.setdefault(row.group if row.group is not None else row.item_id, []).append(place)
    known = list(units.values())
    chosen = random.integers(0, len(known), max(1, round(size * len(known) / len(answers[0]))))
    places = [(place, first + unit) for unit, one in enumerate(chosen) for place in known[one]]
    return [
        [
            replace(own[place], item_id=f"{first + at:07}", group=None if own[place].group is None else f"new {unit}")
            for at, (place, unit) in enumerate(places)
        ]
        for own in answers
    ]


def _evidence(names: Sequence[str], answers: Sequence[Sequence[Answer]], task: Task, look: int) -> Evidence:
    """The evidence of these answers; scores without their intervals, which decide nothing."""
    results = []
    for place, (name, own) in enumerate(zip(names, answers, strict=True)):
        value = _value(own, task)
        score = Estimate(value=value, low=value, high=value, n=len(own))
        cost = Cost(total=1.5**place, up_front=0.0, monthly=0.0, currency="machine seconds")
        results.append(ArmResult(arm=name, status="done", score=score, cost=cost))
    groups = len({row.group for row in answers[0]}) if answers[0][0].group is not None else None
    given = dict(zip(names, answers, strict=True))
    return evidence_of(results, given, [_arm(name) for name in names], task, {}, groups=groups, look=look)


def _value(answers: Sequence[Answer], task: Task) -> float:
    said, right = [row.answer for row in answers], [row.reference for row in answers]
    return aggregate(task.metric, said, right, [row.score for row in answers])


def _looked(scenario: Scenario, random: np.random.Generator, task: Task) -> Counter[str]:
    """Ten studies one after another, of a test set that grows by half or of the same questions: whether any claims
    the target."""
    truth, most = scenario.truths[0], 100 + 50 * (scenario.looks - 1)
    made = answers_of(
        random, [truth] * (1 if scenario.grows else scenario.looks), World(n=most if scenario.grows else 400)
    )
    claimed = False
    for look in range(1, scenario.looks + 1):
        own = made[0][: 100 + 50 * (look - 1)] if scenario.grows else made[look - 1]
        results = [_result("arm0", 0, own, None, task)]
        found = evidence_of(results, {"arm0": own}, [_arm("arm0")], task, {}, look=look)
        claimed |= bool(found.results[0].passes)
    return Counter({"shown": int(claimed), "false reaches": int(claimed)})


def _wrong(scenario: Scenario, names: Sequence[str], shown: str | None) -> dict[str, int]:
    """Return the false claims of a verdict that shows an arm: worse by the margin, or dearer although a lighter arm is
    within it."""
    if shown is None:
        return {}
    place = names.index(shown)
    if scenario.p95_ms and scenario.p95_ms[place] > LIMIT_MS - NOTHING:
        return {"shown too slow": 1}
    if scenario.target is not None:
        return {"rightly": int(scenario.truths[place] > scenario.target + NOTHING)}
    gaps = [max(scenario.truths) - truth for truth in scenario.truths]
    worse = gaps[place] >= MARGIN - NOTHING
    dearer = any(gap <= MARGIN + NOTHING for gap in gaps[:place])
    return {"shown worse": int(worse), "shown dearer": int(dearer), "rightly": int(not worse and not dearer)}


def _arm(name: str) -> Arm:
    return arm_from_name(name) or Arm(
        name=name, weights="base", stages=(), context="prompt", settings={"variant": name}
    )


def _result(
    name: str, place: int, answers: Sequence[Any], latencies: Sequence[float] | None, task: Task, arms: int = 1
) -> ArmResult:
    cost = Cost(total=1.5**place, up_front=0.0, monthly=0.0, currency="machine seconds")
    timed: dict[str, float | None] = {}
    if latencies is not None:
        timed = {
            "latency_p95_ms": latency_percentiles(latencies)[1],
            "latency_p95_high_ms": latency_bound(latencies, arms),
        }
    return ArmResult(
        arm=name,
        status="done",
        score=score_estimate(answers, task),
        score_floor=score_floor(answers, task),
        seeds=len({answer.seed for answer in answers}),
        cost=cost,
        **timed,  # type: ignore[arg-type]
    )


def _latencies(random: np.random.Generator, p95_ms: float, scenario: Scenario) -> list[float]:
    """Seconds of as many answers as a study times, in passes, lognormal with this true 95th percentile."""
    arms, found = len(scenario.truths), list[float]()
    n = latencies_needed(arms)
    for number in range(PASSES + MORE_PASSES):
        if number >= PASSES and latency_bound(found, arms) is not None:
            break
        noise = random.standard_normal(len(range(number % PASSES, n, PASSES)))
        for place in range(1, len(noise)):
            noise[place] *= math.sqrt(1 - scenario.timing_correlation**2)
            noise[place] += scenario.timing_correlation * noise[place - 1]
        found += list(p95_ms / 1000 * np.exp(0.3 * (noise - 1.6448536)))
    return found


def _random(*what: object) -> np.random.Generator:
    return np.random.default_rng(int(sha256_text(*map(repr, what))[:15], 16))


# ---- the whole table


def summarise(
    cells: list[dict[str, Any]], verdicts: list[dict[str, Any]], followed: list[dict[str, Any]]
) -> dict[str, Any]:
    """Means and worst cells; of 8 groups alone the product says that they are too few for a verdict to rest on."""
    enough = [row for row in cells if not row["questions"].startswith("8 groups")]
    found: dict[str, Any] = {}
    for key in ("score_covered", "difference_covered"):
        values = [row[key] for row in enough]
        found[key] = {"mean": float(np.mean(values)), "worst": min(values)}
    for key in ("target_claimed", "different", "not_worse"):
        values = [row[key] for row in enough]
        found[key] = {"mean": float(np.mean(values)), "worst": max(values)}
    for key in CLAIMS:
        values = [row["wrong"][key] for row in verdicts if key in row["wrong"]]
        if values:
            found[key] = {"mean": float(np.mean(values)), "worst": max(values)}
    for key in ("redrawn", "added", "simulated"):
        values = [row[key] for row in followed]
        if values:
            found[key] = {"mean": float(np.mean(values)), "worst": min(values)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--only", default="", help="rows whose name has one of these words, divided by |; the others stay"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "verdict_simulation.json")
    options = parser.parse_args()
    found = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    rows: dict[str, list[dict[str, Any]]] = {name: found.get(name, []) for name in ("cells", "verdicts", "followed")}
    words = options.only.split("|")
    jobs: list[tuple[str, Callable[..., dict[str, Any]], tuple[Any, ...]]] = []
    jobs += [("cells", measure_world, (world, score, _studies(world, options.studies))) for world, score in worlds()]
    jobs += [
        ("verdicts", measure_scenario, (one, world, _studies(world, options.studies))) for one, world in scenarios()
    ]
    jobs += [("followed", measure_followed, (one, world, options.studies)) for one, world in followed()]
    jobs = [job for job in jobs if any(word in _title(job[2]) for word in words)]
    with ProcessPoolExecutor(options.processes) as pool:
        running = [(table, pool.submit(measure, *asked)) for table, measure, asked in jobs]
        for table, run in running:
            row = run.result()
            sys.stderr.write(f"{json.dumps(row)}\n")
            rows[table] = [old for old in rows[table] if _key(old) != _key(row)] + [row]
            machine, summary = describe_machine(), summarise(**rows) if rows["cells"] and rows["verdicts"] else {}
            write_json(options.out, {"machine": machine, "summary": summary, **rows})
    for name, figures in summarise(**rows).items():
        sys.stdout.write(f"{name}: mean {figures['mean']:.3f}, worst {figures['worst']:.3f}\n")


def _title(asked: tuple[Any, ...]) -> str:
    return " ".join(
        one.name if isinstance(one, Scenario) else f"{one.kind}, {one.named}"
        for one in asked
        if not isinstance(one, int | float)
    )


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("scenario", "followed", "scores", "questions", "score"))


def _studies(world: World, most: int) -> int:
    """Half as many where each takes longest: macro-F1 is counted anew for every draw of the bootstrap."""
    return most // 2 if world.kind == "macro-F1" else most


if __name__ == "__main__":
    main()
