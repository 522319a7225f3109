"""The verdict's rule on hand-made studies: what is shown, what is not, what would settle or flip it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trimtab.base.grammar import named
from trimtab.base.records import Arm, ArmResult, Comparison, Cost, Estimate, Usage, Verdict
from trimtab.base.task import Task
from trimtab.decision.cost import cost_of, planned_retrainings
from trimtab.decision.verdict import best_arm, decide, planned_pairs
from trimtab.decision.weight import by_weight
from trimtab.measurement.statistics import estimate, p_reaches

PRICE = {"price": 0.4, "as_of": "2026-11-01", "source": "contract"}
TOKENS = {"input": 0.15, "output": 0.6, "as_of": "2026-11-01", "source": "list"}


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


def an_arm(
    name: str, score: float, task: Task, *, n: int = 300, half: float = 0.04, passes: bool | None = None, **other: Any
) -> ArmResult:
    found = Estimate(value=score, low=score - half, high=score + half, n=n)
    target = task.target.quality
    if target is not None and passes is None:
        passes = found.low > target
    used = other.pop("used", USAGES.get(name, usage()))
    other.setdefault("latency_p95_high_ms", other.get("latency_p95_ms"))
    times = planned_retrainings(used, task.cost, found.low, target) or 0
    return ArmResult(
        arm=name, status="done", score=found, passes=passes, cost=cost_of(used, task.cost, retrainings=times), **other
    )


def verdict(
    arms: Sequence[ArmResult],
    task: Task,
    gaps: Mapping[tuple[str, str], tuple[float, float, float, float]] | None = None,
    noninferiority: Mapping[str, float] | None = None,
    usages: Mapping[str, Usage] = USAGES,
) -> Verdict:
    comparisons = [
        Comparison(a=a, b=b, difference=d, low=low, high=high, p=p, p_holm=p)
        for (a, b), (d, low, high, p) in (gaps or {}).items()
    ]
    return decide(arms, comparisons, noninferiority or {}, task, usages)


def test_the_cheapest_arm_that_passes_is_shown_not_the_best() -> None:
    task = a_task()
    found = verdict([an_arm("lora+rag", 0.97, task), an_arm("rag", 0.92, task), an_arm("prompt", 0.4, task)], task)
    assert (found.status, found.arm, found.needs) == ("shown", "rag", None)
    assert "0.92" in found.sentence
    assert "0.85" in found.sentence
    assert "USD over 12 months" in found.sentence


def test_equal_cost_goes_to_fewer_stored_bytes() -> None:
    task = a_task()
    same = Cost(total=10.0, up_front=1.0, monthly=0.75, currency="USD")
    big, small = (
        replace(an_arm(name, 0.95, task), cost=same, stored_bytes=size) for name, size in (("a", 9), ("b", 5))
    )
    assert verdict([big, small], task, usages={}).arm == "b"


def costing(name: str, total: float, task: Task, **other: Any) -> ArmResult:
    between = {key: other.pop(key) for key in ("low", "high") if key in other}
    cost = Cost(total=total, up_front=1.0, monthly=0.75, currency="USD", **between)
    return replace(an_arm(name, 0.95, task, **other), cost=cost)


def test_of_costs_within_a_tenth_the_simpler_arm_is_lighter() -> None:
    task = a_task()
    blend, rag = costing("lora+rag", 100.0, task), costing("rag", 109.0, task)
    found = verdict([blend, rag], task, usages={})
    assert found.arm == "rag"
    assert "109 USD over 12 months, which counts as equal to 100 USD for lora+rag" in found.sentence
    assert verdict([blend, costing("rag", 111.0, task)], task, usages={}).arm == "lora+rag"
    small = costing("lora", 109.0, task, stored_bytes=5)
    assert verdict([costing("rag", 100.0, task, stored_bytes=9), small], task, usages={}).arm == "lora"


def test_costs_whose_intervals_overlap_are_equal() -> None:
    task = a_task()
    blend, rag = (
        costing("lora+rag", 100.0, task, low=80.0, high=120.0),
        costing("rag", 130.0, task, low=115.0, high=145.0),
    )
    assert verdict([blend, rag], task, usages={}).arm == "rag"
    apart = costing("rag", 130.0, task, low=121.0, high=139.0)
    assert verdict([blend, apart], task, usages={}).arm == "lora+rag"


@given(totals=st.lists(st.floats(1, 3), min_size=1, max_size=5), turned=st.randoms())
def test_the_order_of_weight_is_one_whatever_the_order_given(totals: list[float], turned: Any) -> None:
    """Each run spans a tenth from its cheapest arm; an arm is never lighter than one of a cheaper run."""
    task, names = a_task(), ["lora+rag", "rag", "lora", "prompt", "rag+few-shot"]
    arms = [costing(name, total, task) for name, total in zip(names, totals, strict=False)]
    found = by_weight(arms, task)
    shuffled = list(arms)
    turned.shuffle(shuffled)
    assert by_weight(shuffled, task) == found
    costs = [arm.cost.total for arm in found if arm.cost]
    assert sorted(arm.arm for arm in found) == sorted(arm.arm for arm in arms)
    assert all(first <= 1.1 * later for place, first in enumerate(costs) for later in costs[place:])


def test_an_arm_of_unknown_cost_comes_last_and_is_named() -> None:
    task = a_task()
    used = {**USAGES, "api-big": usage(runs_on_own_machine=False)}
    found = verdict([an_arm("api-big", 0.97, task, used=used["api-big"]), an_arm("rag", 0.95, task)], task, usages=used)
    assert found.arm == "rag"
    assert "What api-big would cost is not known" in found.sentence


def test_a_slow_arm_is_passed_over_and_named() -> None:
    task = a_task(latency=1000)
    rag = an_arm("rag", 0.95, task, latency_p95_ms=2100.0)
    both = an_arm("lora+rag", 0.95, task, latency_p95_ms=900.0)
    found = verdict([rag, both], task)
    assert found.arm == "lora+rag"
    assert "2,100 ms" in found.sentence
    alone = verdict([rag], task)
    assert (alone.status, alone.arm) == ("not_shown", None)
    assert alone.needs is not None
    assert alone.needs.startswith("not more test questions")
    unknown = verdict([an_arm("rag", 0.95, task)], task)
    assert unknown.status == "not_shown"
    assert "60 answers" in unknown.sentence


def test_a_latency_limit_is_held_against_the_upper_bound() -> None:
    task = a_task(latency=1000)
    rag = an_arm("rag", 0.95, task, latency_p95_ms=900.0, latency_p95_high_ms=1300.0)
    both = an_arm("lora+rag", 0.94, task, latency_p95_ms=950.0, latency_p95_high_ms=990.0)
    found = verdict([rag, both], task)
    assert found.arm == "lora+rag"
    assert "may take 1,300 ms at the 95th percentile (upper 95% bound, 900 ms measured)" in found.sentence
    assert best_arm([rag, both], task) == "lora+rag"
    unbounded = an_arm("rag", 0.95, task, latency_p95_ms=900.0, latency_p95_high_ms=None)
    assert "no known latency" in verdict([unbounded], task).sentence


def test_not_shown_says_how_many_questions_would_do() -> None:
    task = a_task()
    scores = np.r_[np.ones(88), np.zeros(12)]
    score = estimate(scores)
    arm = replace(an_arm("rag", 0.88, task), score=score, passes=False)
    found = verdict([arm, an_arm("prompt", 0.4, task)], task)
    assert found.status == "not_shown"
    assert "rag" in found.sentence
    assert found.needs is not None
    more = int(found.needs.split()[1].replace(",", ""))
    # with so many more, an arm that truly scores .88 passes at the level of two arms in about 80% of studies
    random, n = np.random.default_rng(0), 100 + more
    passed = np.mean([p_reaches(random.random(n) < 0.88, 0.85) <= 0.025 for _ in range(500)])
    assert passed == pytest.approx(0.8, abs=0.08)


def test_below_the_target_more_questions_do_not_help() -> None:
    task = a_task()
    found = verdict([an_arm("rag", 0.8, task), an_arm("prompt", 0.4, task)], task)
    assert found.status == "not_shown"
    assert "more test questions will not help" in found.sentence
    assert found.needs is not None
    assert found.needs.startswith("not more")


def test_failed_arms_are_not_decided_on() -> None:
    task = a_task()
    failed = ArmResult(arm="lora", status="failed", why="out of memory")
    assert verdict([failed, an_arm("rag", 0.95, task)], task).arm == "rag"
    nothing = verdict([failed], task)
    assert nothing.status == "not_shown"
    assert "out of memory" in nothing.sentence


def test_facts_that_change_too_fast_rule_tuning_alone_out() -> None:
    change = {"share": 0.5, "per_month": 3.0, "lead_days": 10}
    task = a_task(change=change)
    found = verdict([an_arm("lora", 0.95, task), an_arm("lora+rag", 0.95, task)], task)
    assert found.arm == "lora+rag"
    assert "lora reaches it too, but cannot be retrained often enough" in found.sentence
    assert verdict([an_arm("lora", 0.95, a_task()), an_arm("lora+rag", 0.95, a_task())], a_task()).arm == "lora"


def test_staleness_is_measured_from_the_one_sided_bound() -> None:
    """An arm whose two-sided interval begins below the target and whose one-sided bound lies above it can be kept there."""
    change = {"share": 0.3, "per_month": 0.01, "lead_days": 3}
    task = a_task(change=change)
    passing = an_arm("lora", 0.88, task, half=0.034, passes=True)
    kept = verdict([replace(passing, score_floor=0.853)], task)
    assert (kept.status, kept.arm) == ("shown", "lora")
    assert verdict([replace(passing, score_floor=0.849)], task).status == "not_shown"
    assert verdict([passing], task).status == "not_shown"  # a result of before, without the bound


# ---- no target


def test_a_lighter_arm_that_is_not_worse_is_shown() -> None:
    task = a_task(None)
    found = verdict(
        [an_arm("rag", 0.90, task), an_arm("lora+rag", 0.905, task), an_arm("prompt", 0.4, task)],
        task,
        {("lora+rag", "rag"): (0.005, -0.008, 0.018, 0.5), ("lora+rag", "prompt"): (0.505, 0.45, 0.55, 1e-9)},
        {"rag": 0.001, "prompt": 1.0},
    )
    assert (found.status, found.arm) == ("shown", "rag")
    assert "within 0.02 of the best" in found.sentence


def test_the_best_is_shown_where_every_lighter_arm_is_worse() -> None:
    task = a_task(None)
    found = verdict(
        [an_arm("rag", 0.80, task), an_arm("lora+rag", 0.9, task)],
        task,
        {("rag", "lora+rag"): (-0.1, -0.15, -0.05, 0.001)},
        {"rag": 1.0},
    )
    assert (found.status, found.arm) == ("shown", "lora+rag")
    assert "every lighter arm is shown to be worse" in found.sentence


def test_a_lighter_arm_that_may_do_as_well_leaves_it_open() -> None:
    task = a_task(None)
    found = verdict(
        [an_arm("rag", 0.87, task), an_arm("lora+rag", 0.9, task)],
        task,
        {("lora+rag", "rag"): (0.03, -0.01, 0.07, 0.15)},
        {"rag": 0.7},
    )
    assert (found.status, found.arm) == ("not_shown", None)
    assert "rag (behind by 0.03" in found.sentence
    assert found.needs is not None
    # standard error 0.0204 on 300; shown at 80% power where 0.03 is 2.8 of them: 1,089 in all
    assert found.needs == "about 790 more test questions"


def test_a_heavier_arm_that_may_be_much_better_leaves_it_open() -> None:
    task = a_task(None)
    arms = [an_arm("prompt", 0.9, task), an_arm("lora", 0.89, task)]
    wide, tight = (0.01, -0.05, 0.07, 0.8), (0.01, -0.015, 0.035, 0.5)
    assert verdict(arms, task, {("prompt", "lora"): wide}, {"lora": 0.5}).status == "not_shown"
    found = verdict(arms, task, {("prompt", "lora"): tight}, {"lora": 0.5})
    assert (found.status, found.arm) == ("shown", "prompt")
    assert "is the lightest" in found.sentence


def test_noninferiority_is_corrected_over_the_arms() -> None:
    task = a_task(None)
    arms = [an_arm("prompt", 0.899, task), an_arm("rag", 0.895, task), an_arm("lora+rag", 0.9, task)]
    gaps = {("lora+rag", "rag"): (0.005, -0.01, 0.02, 0.5), ("lora+rag", "prompt"): (0.001, -0.01, 0.012, 0.9)}
    assert verdict(arms, task, gaps, {"prompt": 0.02, "rag": 0.03}).arm == "prompt"
    assert verdict(arms, task, gaps, {"prompt": 0.03, "rag": 0.03}).status == "not_shown"


def test_a_lighter_undecided_arm_is_named_beside_the_one_shown() -> None:
    task = a_task(None)
    arms = [an_arm("prompt", 0.88, task), an_arm("rag", 0.899, task), an_arm("lora+rag", 0.9, task)]
    gaps = {("lora+rag", "rag"): (0.001, -0.01, 0.012, 0.9), ("lora+rag", "prompt"): (0.02, -0.005, 0.045, 0.1)}
    found = verdict(arms, task, gaps, {"prompt": 0.5, "rag": 0.001})
    assert (found.status, found.arm) == ("shown", "rag")
    assert "Lighter still, prompt may do as well" in found.sentence


def test_where_the_groups_can_show_no_difference_more_of_their_questions_do_not_help() -> None:
    """Seven groups and four comparisons: sign flips give p >= 2/2^7, never below .05/4."""
    task = a_task(None)
    arms = [an_arm("rag", 0.7, task), an_arm("lora+rag", 0.9, task)]
    gap = Comparison(a="lora+rag", b="rag", difference=0.2, low=0.1, high=0.3, p=0.0157, p_holm=0.0625)
    others = [replace(gap, a="x", b=name) for name in ("u", "v", "w")]
    found = decide(arms, [gap, *others], {"rag": 1.0}, task, USAGES, groups=7)
    assert found.status == "not_shown"
    assert (
        found.needs
        == "no number of test questions of so few groups (7 groups of questions cannot show a difference in 4 comparisons, 8 are the least)"
    )
    enough = decide(arms, [gap, *others], {"rag": 1.0}, task, USAGES, groups=8)
    assert enough.needs is not None
    assert enough.needs.startswith("about")


def test_equal_arms_without_a_margin_cannot_be_told_apart_by_any_number() -> None:
    task = a_task(None, margin=0.0)
    arms = [an_arm("rag", 0.9, task), an_arm("lora+rag", 0.9, task)]
    found = verdict(arms, task, {("rag", "lora+rag"): (0.0, -0.03, 0.03, 1.0)}, {"lora+rag": 0.5})
    assert found.status == "not_shown"
    assert found.needs == "no number of test questions"


def test_one_arm_alone_shows_nothing_without_a_target() -> None:
    task = a_task(None)
    found = verdict([an_arm("rag", 0.9, task)], task)
    assert found.status == "not_shown"
    assert found.needs is not None


def test_uncompared_arms_are_not_taken_for_worse() -> None:
    task = a_task(None)
    found = verdict([an_arm("rag", 0.2, task), an_arm("lora+rag", 0.9, task)], task)
    assert found.status == "not_shown"
    assert "not compared" in found.sentence


def test_best_arm_fits_the_latency_and_is_the_lighter_of_equals() -> None:
    task = a_task(None, latency=1000)
    slow = an_arm("lora+rag", 0.95, task, latency_p95_ms=2000.0)
    rag, prompt = (an_arm(name, 0.9, task, latency_p95_ms=500.0) for name in ("rag", "prompt"))
    assert best_arm([slow, rag, prompt], task) == "prompt"
    assert best_arm([slow], task) == "lora+rag"
    assert best_arm([], task) is None


@given(
    scores=st.lists(st.tuples(st.floats(0.05, 0.99), st.booleans(), st.integers(0, 9), st.floats(0, 1)), max_size=5),
    target=st.one_of(st.none(), st.floats(0.3, 0.95)),
    priced=st.booleans(),
    latency=st.one_of(st.none(), st.just(1000.0)),
    rate=st.one_of(st.none(), st.floats(0, 2)),
)
@example(scores=[(0.9, True, 1, 0.0)] * 4, target=0.5, priced=True, latency=None, rate=5e-324)
@settings(max_examples=150, deadline=None)
def test_whatever_was_measured_only_an_arm_that_qualifies_is_shown(
    scores: list[tuple[float, bool, int, float]],
    target: float | None,
    priced: bool,
    latency: float | None,
    rate: float | None,
) -> None:
    more: dict[str, Any] = {} if rate is None else {"change": {"share": 0.4, "per_month": rate, "lead_days": 5}}
    task = a_task(target, latency, **(more if priced else {**more, "machine_hour": None}))
    names = ["prompt", "rag", "lora", "lora+rag", "few-shot"][: len(scores)]
    used = {**USAGES, "few-shot": usage(runs_on_own_machine=False)}
    arms = [
        an_arm(
            name, score, task, passes=passes if target else None, latency_p95_ms=300.0 * speed or None, used=used[name]
        )
        for name, (score, passes, speed, _) in zip(names, scores, strict=True)
    ]
    best = best_arm(arms, task) or ""
    value = {name: score for name, (score, *_) in zip(names, scores, strict=True)}
    p = {name: each for name, (*_, each) in zip(names, scores, strict=True) if name != best}
    gaps = {}
    for name in p:
        gap = value[best] - value[name]
        gaps[best, name] = (gap, gap - 0.05, gap + 0.05, p[name])
    found = verdict(arms, task, gaps, p, used)
    assert "None" not in found.sentence
    assert "nan" not in found.sentence
    assert (found.status == "shown") == (found.arm is not None) == (found.needs is None)
    for flip in found.flips:
        assert flip.then != found.arm
        assert (flip.below is None) != (flip.above is None)
    fast = [arm for arm in arms if latency is None or (arm.latency_p95_ms or 1e9) <= latency]
    if target is not None:
        assert found.arm is None or found.arm in {arm.arm for arm in fast if arm.passes}
        if rate is None:
            assert (found.arm is not None) == any(arm.passes for arm in fast)
    else:
        assert found.arm is None or found.arm in {arm.arm for arm in fast}


# ---- flips


def total(name: str, task: Task, **changed: Any) -> float:
    cost = type(task.cost).model_validate({**task.cost.model_dump(), **changed})
    found = cost_of(USAGES[name], cost)
    assert found is not None
    return found.total


def test_the_volume_that_flips_is_where_the_totals_cross() -> None:
    task = a_task()
    found = verdict([an_arm("rag", 0.95, task), an_arm("lora", 0.95, task)], task)
    assert found.arm == "lora"
    (flip,) = [flip for flip in found.flips if flip.what == "questions_per_month"]
    assert flip.then == "rag"
    assert flip.above is None
    assert flip.below is not None
    # training 9,000 s less indexing 30 s, over 12 months of 0.65 s saved a question
    assert flip.below == pytest.approx((9000 - 30) / 12 / 0.65)
    below, above = flip.below * 0.99, flip.below * 1.01
    assert total("rag", task, questions_per_month=below) < total("lora", task, questions_per_month=below)
    assert total("rag", task, questions_per_month=above) > total("lora", task, questions_per_month=above)


def test_a_volume_flips_only_where_the_simpler_arm_costs_a_tenth_more() -> None:
    """Between the crossing and that volume both cost the same for the decision, which the flips are asked of."""
    task = a_task(questions_per_month=100.0)
    used = {"rag": usage(0.9), "lora+rag": usage(0.3, train=9000)}
    found = verdict(
        [an_arm("rag", 0.95, task, used=used["rag"]), an_arm("lora+rag", 0.95, task, used=used["lora+rag"])],
        task,
        usages=used,
    )
    assert found.arm == "rag"
    (flip,) = [flip for flip in found.flips if flip.what == "questions_per_month"]
    # 12 x 0.9 V = 1.1 (9000 + 12 x 0.3 V)
    assert flip.above == pytest.approx(1.1 * 9000 / (12 * 0.9 - 1.1 * 12 * 0.3))
    for volume, winner in ((flip.above * 0.99, "rag"), (flip.above * 1.01, "lora+rag")):
        moved = a_task(questions_per_month=volume)
        arms = [an_arm(name, 0.95, moved, used=used[name]) for name in used]
        assert verdict(arms, moved, usages=used).arm == winner


def test_a_machine_price_flips_only_against_an_endpoint() -> None:
    task = a_task()
    used = {**USAGES, "api-big": usage(runs_on_own_machine=False, token_fee=TOKENS)}
    used["api-big"] = replace(
        used["api-big"],
        token_fee=Task.model_validate(
            {**a_task().model_dump(), "api": {"big": {"url": "http://x", "model": "m", "price_per_million": TOKENS}}}
        )
        .api["big"]
        .price_per_million,
    )
    own = verdict([an_arm("rag", 0.95, task), an_arm("lora", 0.95, task)], task)
    assert not [flip for flip in own.flips if flip.what == "machine_hour"]
    arms = [an_arm("prompt", 0.95, task), an_arm("api-big", 0.95, task, used=used["api-big"])]
    found = verdict(arms, task, usages=used)
    assert found.arm == "prompt"
    (flip,) = [flip for flip in found.flips if flip.what == "machine_hour"]
    # 0.2 s of a machine against 500 tokens at 0.15 and 20 at 0.60 a million
    assert flip.above == pytest.approx((500 * 0.15 + 20 * 0.6) / 1e6 / 0.2 * 3600, rel=1e-6)
    assert flip.then == "api-big"


def test_a_rate_of_change_flips_to_retrieval() -> None:
    task = a_task(change={"share": 0.5, "per_month": 0.01, "lead_days": 3})
    found = verdict([an_arm("lora", 0.95, task), an_arm("rag", 0.95, task)], task)
    assert found.arm == "lora"
    (flip,) = [flip for flip in found.flips if flip.what == "change.per_month"]
    assert flip.then == "rag"
    assert flip.above is not None
    for rate, winner in ((flip.above * 0.98, "lora"), (flip.above * 1.02, "rag")):
        moved = a_task(change={"share": 0.5, "per_month": rate, "lead_days": 3})
        assert verdict([an_arm("lora", 0.95, moved), an_arm("rag", 0.95, moved)], moved).arm == winner


def test_targets_flip_at_lower_bounds() -> None:
    task = a_task()
    found = verdict([an_arm("prompt", 0.8, task), an_arm("lora", 0.92, task), an_arm("lora+rag", 0.96, task)], task)
    assert found.arm == "lora"
    lower, higher = [flip for flip in found.flips if flip.what == "quality"]
    assert (lower.then, lower.below, lower.above) == ("prompt", pytest.approx(0.76), None)
    assert (higher.then, higher.below, higher.above) == ("lora+rag", None, pytest.approx(0.88))


def test_nothing_is_made_up_where_nothing_flips() -> None:
    task = a_task()
    found = verdict([an_arm("lora+rag", 0.95, task), an_arm("rag", 0.4, task, passes=False)], task)
    assert {flip.what for flip in found.flips} == {"quality"}
    assert verdict([an_arm("lora+rag", 0.95, task)], task, usages={}).flips == ()


# ---- planned pairs


def arms_named(*names: str) -> list[Arm]:
    found = []
    for name in names:
        weights, _, context = name.partition("+")
        plain = weights in ("prompt", "rag", "few-shot")
        found.append(
            Arm(
                name=name,
                weights="base" if plain else weights,
                stages=() if plain else ("sft",),
                context=weights if plain else (context or "prompt"),
            )
        )
    return found


def test_planned_pairs_are_the_best_with_each_and_blends_with_their_parts() -> None:
    arms = arms_named("prompt", "rag", "lora", "lora+rag", "full+rag")
    assert planned_pairs(arms, "lora+rag") == [
        ("lora+rag", "prompt"),
        ("lora+rag", "rag"),
        ("lora+rag", "lora"),
        ("lora+rag", "full+rag"),
        ("full+rag", "rag"),
    ]
    assert planned_pairs(arms, "rag")[-1] == ("lora+rag", "lora")
    assert ("lora+rag", "rag") not in planned_pairs(arms, "rag")


def test_a_composed_context_is_set_against_each_arm_that_lacks_one_ingredient() -> None:
    names = ("prompt", "rag", "few-shot", "rag+few-shot", "lora+rag", "lora+rag+few-shot", "api-big", "api-big+rag")
    arms = [arm for name in names if (arm := named(name)) is not None]
    pairs = [pair for pair in planned_pairs(arms, "prompt") if "prompt" not in pair]
    assert pairs == [
        ("rag+few-shot", "rag"),
        ("rag+few-shot", "few-shot"),
        ("lora+rag", "rag"),
        ("lora+rag+few-shot", "rag+few-shot"),
        ("lora+rag+few-shot", "lora+rag"),
    ]


def test_parts_share_the_settings_of_the_blend() -> None:
    wide = Arm(name="wide", weights="lora", stages=("sft",), context="rag", settings={"rank": 64, "passages": 3})
    others = [*arms_named("lora", "rag"), wide]
    rank = Arm(name="rank", weights="lora", stages=("sft",), context="prompt", settings={"rank": 64})
    three = Arm(name="three", weights="base", stages=(), context="rag", settings={"passages": 3})
    pairs = planned_pairs([*others, rank, three], "lora")
    assert [pair for pair in pairs if pair[0] == "wide"] == [("wide", "rank"), ("wide", "three")]


def test_where_no_answer_is_right_more_questions_do_not_help() -> None:
    task = a_task(quality=None)
    arms = [an_arm(name, 0.0, task, half=0.01) for name in ("prompt", "rag")]
    found = verdict(arms, task, {("prompt", "rag"): (0.0, -0.01, 0.01, 1.0)})
    assert (found.status, found.arm) == ("not_shown", None)
    assert "every arm scored 0" in found.sentence
    assert found.needs is not None
    assert found.needs.startswith("not more test questions")
