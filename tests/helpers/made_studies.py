"""Studies of hand-made figures: scores and gaps with their intervals, p-values by the normal tail that the intervals
stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any, cast

import numpy as np

from trimtab.base.results import ArmResult, Comparison, Cost, Estimate, Usage, Verdict
from trimtab.base.task import Task
from trimtab.decision.cost import cost_of, costed_retrainings
from trimtab.decision.evidence import Evidence
from trimtab.decision.verdict import decide
from trimtab.measurement.replicates import Assumed, StudyScores
from trimtab.measurement.statistics import Difference

PRICE = {"price": 0.4, "as_of": "2026-11-01", "source": "contract"}
TOKENS = {"input": 0.15, "output": 0.6, "as_of": "2026-11-01", "source": "list"}
NORMAL = NormalDist()
Gap = tuple[float, float]  # what an arm is ahead of another, and half its 95% interval


def a_task(quality: float | None = 0.85, latency: float | None = None, margin: float = 0.02, **cost: Any) -> Task:
    return Task.model_validate(
        {
            "task": {"name": "t", "kind": "answer", "metric": "exact_match"},
            "data": {"examples": ["rows.jsonl"], "documents": ["docs"]},
            "base": {"model": "m"},
            "target": {"quality": quality, "latency_p95_ms": latency, "margin": margin},
            "cost": {"machine_hour": PRICE, "hosting": "on-demand", "questions_per_month": 10_000, **cost},
        }
    )


def usage(seconds: float = 0.3, train: float = 0.0, index: float = 0.0, **other: Any) -> Usage:
    plain: dict[str, Any] = {
        "train_seconds": train,
        "evaluation_seconds": 0.0,
        "index_seconds": index,
        "seconds_per_question": seconds,
        "prompt_tokens": 500.0,
        "new_tokens": 20.0,
        "runs_on_own_machine": True,
        "trained": train > 0,
        "token_fee": None,
    }
    return Usage(**(plain | other))


USAGES = {
    "prompt": usage(0.2),
    "rag": usage(0.9, index=30),
    "lora": usage(0.25, train=9000),
    "lora+rag": usage(1.0, 9000, 30),
}


def an_arm(name: str, score: float, task: Task, *, n: int = 300, half: float = 0.04, **other: Any) -> ArmResult:
    """An arm with its score, `half` its 95% interval, and the cost of its usage (`used`)."""
    found = Estimate(value=score, low=score - half, high=score + half, n=n)
    used = other.pop("used", USAGES.get(name, usage()))
    other.setdefault("latency_p95_high_ms", other.get("latency_p95_ms"))
    times = costed_retrainings(used, task.cost, found.low, task.target.quality)
    return ArmResult(arm=name, status="done", score=found, cost=cost_of(used, task.cost, retrainings=times), **other)


def costing(name: str, total: float, task: Task, **other: Any) -> ArmResult:
    """An arm that costs `total`, `low` to `high`."""
    between = {key: other.pop(key) for key in ("low", "high") if key in other}
    cost = Cost(total=total, up_front=1.0, monthly=0.75, currency="USD", **between)
    return replace(an_arm(name, 0.95, task, **other), cost=cost)


class MadeScores:
    """Studies of other sizes of hand-made figures: normal errors of the size that the intervals stand for, less the
    more items there are."""

    efficiency = 1.0

    def __init__(self, scores: Mapping[str, Estimate], gaps: Mapping[tuple[str, str], Gap]) -> None:
        self.scores, self.gaps = scores, gaps
        self.items = max((score.n for score in scores.values()), default=0)

    def can_be(self, assumed: Assumed) -> bool:
        return assumed.arm in self.scores

    def drawn(self, size: int, draw: int, assumed: Assumed | None = None) -> MadeReplicate:
        random, nearer = np.random.default_rng(draw), (self.items / size) ** 0.5 / 1.96
        errors: dict[str, float] = {}
        for arm, score in self.scores.items():
            known = [(other, *gap) for (one, other), gap in self.gaps.items() if one == arm and other in errors]
            known += [(one, *gap) for (one, other), gap in self.gaps.items() if other == arm and one in errors]
            base, half = (errors[known[0][0]], known[0][2]) if known else (0.0, (score.high - score.low) / 2)
            errors[arm] = base + random.normal() * half * nearer
        return MadeReplicate(self, size, errors, assumed)


class MadeReplicate:
    """One such study."""

    rarest_class = None

    def __init__(self, made: MadeScores, items: int, errors: Mapping[str, float], assumed: Assumed | None) -> None:
        self.made, self.items, self.errors, self.assumed = made, items, errors, assumed

    def value(self, arm: str) -> float:
        own = self.assumed.score if self.assumed and self.assumed.arm == arm else self.made.scores[arm].value
        return own + self.errors[arm]

    def p_target(self, arm: str, target: float) -> float:
        score = self.made.scores[arm]
        return self._above(self.value(arm) - target, (score.high - score.low) / 2)

    def p_behind(self, arm: str, other: str, margin: float) -> float:
        gap, half = self._gap(arm, other)
        return self._above(gap + margin, half) if half else 1.0

    def difference(self, arm: str, other: str) -> Difference:
        gap, half = self._gap(arm, other)
        return Difference(gap, -1.0, 1.0, 2 * self._above(abs(gap), half) if half else 1.0)

    def _gap(self, arm: str, other: str) -> Gap:
        gap, half = self.made.gaps.get((arm, other), (0.0, 0.0))
        if (other, arm) in self.made.gaps:
            gap, half = -self.made.gaps[other, arm][0], self.made.gaps[other, arm][1]
        return gap + self.errors[arm] - self.errors[other], half

    def _above(self, value: float, half: float) -> float:
        return 1 - NORMAL.cdf(value * 1.96 / (half * (self.made.items / self.items) ** 0.5))


def evidence(
    arms: Sequence[ArmResult],
    task: Task,
    gaps: Mapping[tuple[str, str], Gap] | None = None,
    usages: Mapping[str, Usage] = USAGES,
    **known: Any,
) -> Evidence:
    """What is known of hand-made arms; every p-value follows from an interval, and nothing is known of gaps that are
    not given."""
    gaps = gaps or {}
    made = MadeScores({arm.arm: arm.score for arm in arms if arm.score is not None}, gaps)
    scores = {arm.arm: arm.score for arm in arms if arm.score is not None}
    scores |= known.get("trivial", {})  # tested against the target as arms are
    both = {**gaps, **{(other, one): (-gap, half) for (one, other), (gap, half) in gaps.items()}}

    def above(value: float, half: float) -> float:
        return 1 - NORMAL.cdf(value * 1.96 / half)

    def p_target(arm: str, target: float) -> float:
        score = scores[arm]
        return above(score.value - target, (score.high - score.low) / 2)

    def p_behind(arm: str, other: str, margin: float) -> float:
        if (arm, other) not in both:
            return 1.0
        gap, half = both[arm, other]
        return above(gap + margin, half)

    def compared(one: str, other: str, gap: float, half: float) -> Comparison:
        p = 2 * above(abs(gap), half)
        p_holm = min(1.0, len(gaps) * p)
        return Comparison(a=one, b=other, difference=gap, low=gap - half, high=gap + half, p=p, p_holm=p_holm)

    comparisons = [compared(one, other, gap, half) for (one, other), (gap, half) in gaps.items()]
    return Evidence(
        results=arms,
        comparisons=comparisons,
        p_target=p_target,
        p_behind=p_behind,
        task=task,
        usages=usages,
        study_scores=lambda: cast("StudyScores", made),
        **known,
    )


def verdict(
    arms: Sequence[ArmResult],
    task: Task,
    gaps: Mapping[tuple[str, str], Gap] | None = None,
    usages: Mapping[str, Usage] = USAGES,
    **known: Any,
) -> Verdict:
    return decide(evidence(arms, task, gaps, usages, **known))
