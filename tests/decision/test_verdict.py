"""The verdict's rule on hand-made studies: what is shown, what is not, and what the sentence says beside it."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from made_studies import USAGES, Gap, a_task, an_arm, costing, evidence, usage, verdict

from trimtab.base.results import ArmEffort, ArmResult, Cost, TokenFee
from trimtab.base.task import Task
from trimtab.decision.choice import choose
from trimtab.decision.cost import by_weight
from trimtab.decision.evidence import best_arm, score_of
from trimtab.decision.verdict import decide
from trimtab.measurement.latency import latencies_needed
from trimtab.measurement.statistics import estimate, p_reaches

# ---- with a target


def test_the_cheapest_arm_that_passes_is_shown_not_the_best() -> None:
    task = a_task()
    found = verdict([an_arm("lora+rag", 0.97, task), an_arm("rag", 0.92, task), an_arm("prompt", 0.4, task)], task)
    assert (found.status, found.arm, found.needs) == ("shown", "rag", None)
    assert "0.92" in found.sentence
    assert "the target of 85 of 100" in found.sentence
    assert "USD over 12 months at 10,000 questions a month" in found.sentence
    assert "more test questions" not in found.sentence


def test_a_volume_that_no_one_stated_is_said_to_be_assumed() -> None:
    task = a_task()
    plain = task.model_dump()
    del plain["cost"]["questions_per_month"]
    unstated = Task.model_validate(plain)
    assert unstated.cost.questions_per_month == 10_000
    told = verdict([an_arm("rag", 0.95, unstated)], unstated).sentence
    assert "Not known or weak: No volume is stated: 10,000 questions a month are assumed." in told
    assert "assumed" not in verdict([an_arm("rag", 0.95, task)], task).sentence


def test_arms_pass_by_a_test_corrected_over_all_of_them() -> None:
    """.90 with half of .053 is shown to be above .85 alone (p = .032), not as the better one of two."""
    task = a_task()
    alone, other = an_arm("rag", 0.9, task, half=0.053), an_arm("prompt", 0.4, task)
    assert verdict([alone], task).arm == "rag"
    assert verdict([alone, other], task).status == "not_shown"


def test_equal_cost_goes_to_fewer_stored_bytes() -> None:
    task = a_task()
    same = Cost(total=10.0, up_front=1.0, monthly=0.75, currency="USD")
    big, small = (
        replace(an_arm(name, 0.95, task), cost=same, stored_bytes=size) for name, size in (("a", 9), ("b", 5))
    )
    assert verdict([big, small], task, usages={}).arm == "b"


def test_of_costs_within_a_tenth_the_simpler_arm_is_lighter() -> None:
    task = a_task()
    blend, rag = costing("lora+rag", 100.0, task), costing("rag", 109.0, task)
    found = verdict([blend, rag], task, usages={})
    assert found.arm == "rag"
    assert "It costs 109 USD over 12 months at 10,000 questions a month." in found.sentence
    equal = "the simplest of the cheapest (its cost counts as equal to that of lora+rag). The other"
    assert equal in found.sentence
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
    assert (
        ") reaches the target too, but is too slow: 1 in 20 answers took over 2,100 ms (limit 1,000 ms)."
        in found.sentence
    )
    alone = verdict([rag], task)
    assert (alone.status, alone.arm) == ("not_shown", None)
    assert alone.needs is not None
    assert alone.needs.startswith("not more test questions")
    unknown = verdict([an_arm("rag", 0.95, task)], task)
    assert unknown.status == "not_shown"
    assert f"{latencies_needed(len(task.arms))} answers" in unknown.sentence


def test_a_latency_limit_is_held_against_the_upper_bound() -> None:
    task = a_task(latency=1000)
    rag = an_arm("rag", 0.95, task, latency_p95_ms=900.0, latency_p95_high_ms=1300.0)
    both = an_arm("lora+rag", 0.94, task, latency_p95_ms=950.0, latency_p95_high_ms=990.0)
    found = verdict([rag, both], task)
    assert found.arm == "lora+rag"
    slow = "1 in 20 answers may take longer than 1,300 ms (upper 95% bound; 900 ms measured), and the limit is 1,000 ms"
    assert slow in found.sentence
    assert best_arm([rag, both], task) == "lora+rag"
    unbounded = an_arm("rag", 0.95, task, latency_p95_ms=900.0, latency_p95_high_ms=None)
    assert "no known latency" in verdict([unbounded], task).sentence


def test_not_shown_says_how_many_questions_would_do() -> None:
    task = a_task()
    score = estimate(np.r_[np.ones(88), np.zeros(12)])
    arm = replace(an_arm("rag", 0.88, task), score=score)
    other = an_arm("prompt", 0.4, task, n=100)
    found = verdict([arm, other], task)
    assert found.status == "not_shown"
    assert "The nearest, rag (" in found.sentence
    assert found.needs is not None
    assert "were asked): more than the target, but too few questions were asked to be sure." in found.sentence
    enough = "that is enough in 4 of 5 such studies, if it truly gets 88 of 100 right."
    assert f"To settle it, ask {found.needs}: {enough}" in found.sentence
    more = int(found.needs.split()[1].replace(",", ""))
    # with so many more, an arm that truly scores .88 passes at the level of two arms in about 80% of studies
    random, n = np.random.default_rng(0), 100 + more
    passed = np.mean([p_reaches(random.random(n) < 0.88, 0.85) <= 0.025 for _ in range(500)])
    assert passed == pytest.approx(0.8, abs=0.08)
    grouped = verdict([arm, other], task, groups=40)
    groups = -(-more * 40 // 100)  # of 2.5 questions each, to two digits
    assert re.fullmatch(rf"{found.needs} in about (\d+) new groups", grouped.needs or "")
    assert int((grouped.needs or "").split()[-3]) == pytest.approx(groups, rel=0.05)


def test_more_questions_are_for_the_stricter_level_of_the_next_look() -> None:
    task = a_task()
    arms = [an_arm("rag", 0.88, task), an_arm("prompt", 0.4, task)]
    needs = [verdict(arms, task, look=look).needs or "" for look in (None, 1, 2)]
    numbers = [int(one.split()[1].replace(",", "")) for one in needs]
    assert numbers == sorted(set(numbers))


def test_a_score_below_a_target_that_its_interval_holds_is_no_end() -> None:
    """.84 of 300, at most .88: a true score of .865, halfway to the upper end, would be shown."""
    task = a_task()
    found = verdict([an_arm("rag", 0.84, task), an_arm("prompt", 0.4, task)], task)
    assert "that is enough in 4 of 5 such studies, if it truly gets 86.5 of 100 right." in found.sentence
    assert "more than the target" not in found.sentence
    assert (found.needs or "").startswith("about ")


def test_below_the_target_more_questions_do_not_help() -> None:
    task = a_task()
    found = verdict([an_arm("rag", 0.8, task), an_arm("prompt", 0.4, task)], task)
    assert found.status == "not_shown"
    assert found.sentence.startswith(
        "No choice: none of the 2 ways measured is shown to reach the target of 85 of 100."
    )
    assert "More test questions will not help" in found.sentence
    assert found.needs is not None
    assert found.needs.startswith("not more")


def test_facts_that_change_too_fast_rule_tuning_alone_out() -> None:
    change = {"share": 0.5, "per_month": 3.0, "lead_days": 10}
    task = a_task(change=change)
    found = verdict([an_arm("lora", 0.95, task), an_arm("lora+rag", 0.95, task)], task)
    assert found.arm == "lora+rag"
    assert (
        "lora (the model trained on your examples) reaches the target too, but cannot be retrained often enough"
        in found.sentence
    )
    assert verdict([an_arm("lora", 0.95, a_task()), an_arm("lora+rag", 0.95, a_task())], a_task()).arm == "lora"


def test_staleness_is_measured_from_the_one_sided_bound() -> None:
    """An arm whose two-sided interval begins below the target and whose one-sided bound lies above it can be kept
    there."""
    change = {"share": 0.3, "per_month": 0.01, "lead_days": 3}
    task = a_task(change=change)
    passing = an_arm("lora", 0.88, task, half=0.034)
    kept = verdict([replace(passing, score_floor=0.853)], task)
    assert (kept.status, kept.arm) == ("shown", "lora")
    assert verdict([replace(passing, score_floor=0.849)], task).status == "not_shown"
    assert verdict([passing], task).status == "not_shown"  # a result of before, without the bound


# ---- no target


def test_a_lighter_arm_that_is_not_worse_is_shown() -> None:
    task = a_task(None)
    arms = [an_arm("rag", 0.90, task), an_arm("lora+rag", 0.905, task), an_arm("prompt", 0.4, task)]
    gaps = {("lora+rag", "rag"): (0.005, 0.013), ("lora+rag", "prompt"): (0.505, 0.05), ("rag", "prompt"): (0.5, 0.05)}
    found = verdict(arms, task, gaps)
    assert (found.status, found.arm) == ("shown", "rag")
    behind = "rag is at most the stated margin of 2 of 100 behind it"
    assert f"It is shown that {behind}, and that the cheaper prompt (the model as it is) is further behind." in (
        found.sentence
    )
    assert found.sentence.startswith(
        "If it is good enough for you (no target is stated), use rag: the language model as it is, given matching "
        "passages of your documents. It scores 0.90 on a scale from 0 to 1 (very likely 0.86 to 0.94; 300 questions "
        "were asked); do not promise more than 8"
    )


def test_the_best_is_shown_where_every_lighter_arm_is_worse_by_more_than_the_margin() -> None:
    task = a_task(None)
    arms = [an_arm("rag", 0.80, task), an_arm("lora+rag", 0.9, task)]
    found = verdict(arms, task, {("lora+rag", "rag"): (0.1, 0.05)})
    assert (found.status, found.arm) == ("shown", "lora+rag")
    shown = "no other way is better by more than the stated margin of 2 of 100"
    assert f"It is shown that {shown}, and that the cheaper rag is worse by more than that." in found.sentence
    assert "It costs" in found.sentence


def test_a_dearer_arm_is_not_shown_for_a_difference_within_the_margin() -> None:
    """Better beyond doubt (.015 +- .010), and by less than the margin of .02: the price of that difference is told
    instead."""
    task = a_task(None)
    arms = [an_arm("rag", 0.885, task), an_arm("lora+rag", 0.9, task)]
    found = verdict(arms, task, {("lora+rag", "rag"): (0.015, 0.010)})
    assert (found.status, found.arm) == ("not_shown", None)
    lies = "the true difference may lie anywhere from lora+rag 0 to 3 of 100 ahead"
    assert f"rag scored 0.89, for 12.00 USD; {lies}, which is less or more than the stated margin of 2 of 100." in (
        found.sentence
    )
    assert "rag is behind by 0.015 (95% interval 0.005 to 0.025)" in found.sentence


def test_a_lighter_arm_that_may_do_as_well_leaves_it_open() -> None:
    task = a_task(None)
    arms = [an_arm("rag", 0.87, task), an_arm("lora+rag", 0.9, task)]
    found = verdict(arms, task, {("lora+rag", "rag"): (0.03, 0.04)})
    assert (found.status, found.arm) == ("not_shown", None)
    # standard error .0204 on 300; .03 is .01 beyond the margin, which 2.49 of them must fit into: 7,727 in all
    assert found.needs is not None
    assert int(found.needs.split()[1].replace(",", "")) == pytest.approx(7_427, rel=0.12)
    if_true = "that is enough in 4 of 5 such studies, if the differences measured here are the true ones."
    assert f"To settle it, ask {found.needs}: {if_true}" in found.sentence
    in_groups = verdict(arms, task, {("lora+rag", "rag"): (0.03, 0.04)}, groups=40)
    assert re.search(rf"{found.needs} in about [\d,]+ new groups \(questions that .*\): {if_true}", in_groups.sentence)


def test_a_heavier_arm_that_may_be_much_better_leaves_it_open() -> None:
    task = a_task(None)
    arms = [an_arm("prompt", 0.9, task), an_arm("lora", 0.89, task)]
    open_one = verdict(arms, task, {("prompt", "lora"): (0.01, 0.06)})
    assert open_one.status == "not_shown"
    assert "lora (the model trained on your examples) scored 0.89, for " in open_one.sentence
    assert "may lie anywhere from prompt 7 of 100 ahead to lora 5 ahead." in open_one.sentence
    assert "lora is behind by 0.010" in open_one.sentence
    found = verdict(arms, task, {("prompt", "lora"): (0.01, 0.025)})
    assert (found.status, found.arm) == ("shown", "prompt")
    assert "prompt is the cheapest, and it is shown that no other way is better by more than the stated margin" in (
        found.sentence
    )


def test_an_undecided_arm_on_the_way_holds_the_walk() -> None:
    """`rag` would do; whether the lighter `prompt` would as well is not known, and so neither is shown."""
    task = a_task(None)
    arms = [an_arm("prompt", 0.88, task), an_arm("rag", 0.899, task), an_arm("lora+rag", 0.9, task)]
    near, open_one = (0.001, 0.012), (0.02, 0.025)
    gaps = {("lora+rag", "rag"): near, ("lora+rag", "prompt"): open_one, ("rag", "prompt"): (0.019, 0.025)}
    found = verdict(arms, task, gaps)
    assert found.status == "not_shown"
    assert "whether prompt (the language model as it is) may take the place of lora+rag (" in found.sentence
    worse = {**gaps, ("lora+rag", "prompt"): (0.06, 0.025), ("rag", "prompt"): (0.059, 0.025)}
    assert verdict(arms, task, worse).arm == "rag"


def test_worse_is_corrected_for_the_best_having_been_picked() -> None:
    """Beyond the margin with p = .03: enough beside one other arm, not beside three."""
    task, gap = a_task(None), (0.06, 0.0417)
    arms = [an_arm("prompt", 0.84, task), an_arm("lora+rag", 0.9, task)]
    assert verdict(arms, task, {("lora+rag", "prompt"): gap}).arm == "lora+rag"
    more = [an_arm("rag", 0.3, task), an_arm("lora", 0.3, task)]
    clear = {("lora+rag", arm.arm): (0.6, 0.05) for arm in more}
    found = verdict([*arms, *more], task, {("lora+rag", "prompt"): gap, **clear})
    assert found.status == "not_shown"


def test_where_the_groups_can_show_no_difference_more_of_their_questions_do_not_help() -> None:
    """Seven groups and four arms, so six comparisons: sign flips give p >= 2/2^7, never below .05/6."""
    task = a_task(None)
    arms = [
        an_arm(name, score, task) for name, score in (("rag", 0.7), ("lora+rag", 0.9), ("prompt", 0.1), ("lora", 0.1))
    ]
    gaps: dict[tuple[str, str], Gap] = {("lora+rag", "rag"): (0.2, 0.19)}
    gaps |= {("lora+rag", name): (0.8, 0.05) for name in ("prompt", "lora")}
    found = verdict(arms, task, gaps, groups=7)
    assert found.status == "not_shown"
    assert (
        found.needs
        == "no number of test questions of so few groups (7 groups of questions cannot show a difference in 6 "
        "comparisons, 8 are the least)"
    )
    enough = verdict(arms, task, gaps, groups=8)
    assert enough.needs is not None
    assert enough.needs.startswith("about")


def test_equal_arms_without_a_margin_cannot_be_told_apart_by_any_number() -> None:
    task = a_task(None, margin=0.0)
    arms = [an_arm("rag", 0.9, task), an_arm("lora+rag", 0.9, task)]
    found = verdict(arms, task, {("rag", "lora+rag"): (0.0, 0.03)})
    assert found.status == "not_shown"
    assert found.needs == "no number of test questions"


def test_one_arm_alone_shows_nothing_without_a_target() -> None:
    task = a_task(None)
    found = verdict([an_arm("rag", 0.9, task)], task)
    assert found.status == "not_shown"
    assert found.needs == "a target, or a second arm that runs to its end"


def test_uncompared_arms_are_not_taken_for_worse() -> None:
    task = a_task(None)
    found = verdict([an_arm("rag", 0.2, task), an_arm("lora+rag", 0.9, task)], task)
    assert found.status == "not_shown"


def test_where_no_answer_is_right_more_questions_do_not_help() -> None:
    task = a_task(quality=None)
    arms = [an_arm(name, 0.0, task, half=0.01) for name in ("prompt", "rag")]
    found = verdict(arms, task, {("prompt", "rag"): (0.0, 0.01)})
    assert (found.status, found.arm) == ("not_shown", None)
    assert "all ways measured scored 0" in found.sentence
    assert found.needs is not None
    assert found.needs.startswith("not more test questions")


def test_where_nothing_is_shown_the_first_sentence_has_no_word_of_the_trade() -> None:
    """It is read by people who decide: the figures stand below it."""
    task, limited, labels = a_task(None), a_task(0.8, latency=1000), a_task(None, latency=1000)
    slow = {"latency_p95_ms": 2000.0}
    failed = ArmResult(arm="rag", status="failed", why="no memory")
    found = [
        verdict([failed], task),
        verdict([an_arm("rag", 0.9, task)], task),
        verdict([an_arm("rag", 0.0, task, half=0.01), an_arm("lora", 0.0, task, half=0.01)], task),
        verdict([an_arm("rag", 0.95, limited, **slow), an_arm("lora", 0.4, limited, **slow)], limited),
        verdict([an_arm("rag", 0.95, labels, **slow), an_arm("lora", 0.4, labels, **slow)], labels),
        verdict([an_arm("rag", 0.7, a_task(0.9))], a_task(0.9)),
        verdict([an_arm("rag", 0.85, task), an_arm("lora", 0.86, task)], task, {("lora", "rag"): (0.01, 0.05)}),
    ]
    for one in found:
        first = one.sentence.split("\n")[0]
        assert one.status == "not_shown"
        assert not re.search(r"\barms?\b|lightest|macro-F1|exact match|0\.\d{3}", first), first
    assert "0.900" in found[1].sentence
    assert "0.950" in found[3].sentence


def test_best_arm_fits_the_latency_and_is_the_lighter_of_equals() -> None:
    task = a_task(None, latency=1000)
    slow = an_arm("lora+rag", 0.95, task, latency_p95_ms=2000.0)
    rag, prompt = (an_arm(name, 0.9, task, latency_p95_ms=500.0) for name in ("rag", "prompt"))
    assert best_arm([slow, rag, prompt], task) == "prompt"
    assert best_arm([slow], task) == "lora+rag"
    assert best_arm([], task) is None


# ---- what stands beside the choice


def test_a_slower_but_better_arm_is_named() -> None:
    task = a_task(None, latency=1000)
    slow = an_arm("lora+rag", 0.97, task, latency_p95_ms=2000.0)
    rag, prompt = (an_arm(name, score, task, latency_p95_ms=500.0) for name, score in (("rag", 0.9), ("prompt", 0.5)))
    found = verdict([slow, rag, prompt], task, {("rag", "prompt"): (0.4, 0.05)})
    assert found.arm == "rag"
    assert "scored higher (97 of 100), but is too slow: 1 in 20 answers took over 2,000 ms" in found.sentence


def test_failed_and_unrun_arms_are_named_and_not_decided_on() -> None:
    task = a_task()
    failed = ArmResult(arm="lora", status="failed", why="out of memory")
    left_out = ArmResult(arm="full", status="not_run", why="needs 12 more minutes")
    other = replace(left_out, arm="prompt")
    found = verdict([failed, left_out, other, an_arm("rag", 0.95, task)], task)
    assert found.arm == "rag"
    assert "lora could not be measured: its run failed. full and prompt were not measured: they did not fit the" in (
        found.sentence
    )
    nothing = verdict([failed], task)
    assert nothing.status == "not_shown"
    assert "out of memory" in nothing.sentence


def test_what_the_budget_cut_is_named() -> None:
    task = a_task()
    cuts = ["lora: 2 epochs of 3", "lora+rag: 1 trial of 4", "few-shot: 1 draw", "seeds: 1 of 3"]
    found = verdict([an_arm("rag", 0.95, task)], task, cuts=cuts)
    assert (
        "To fit the time budget: lora: 2 epochs of 3; lora+rag: 1 trial of 4; few-shot: 1 draw; and 1 more."
        in found.sentence
    )


def test_the_sentence_says_whether_it_speaks_of_a_model_or_of_a_method() -> None:
    task = a_task()
    assert "trained only once" not in verdict([an_arm("rag", 0.95, task)], task).sentence
    built = verdict([an_arm("rag", 0.95, task), an_arm("lora", 0.96, task)], task).sentence
    assert "lora was trained only once; trained again, it may do better or worse." in built
    method = verdict([an_arm("rag", 0.95, task), an_arm("lora", 0.96, task, seeds=3)], task).sentence
    mean = (
        "Each trained one was trained 3 times: its score is the mean, and its interval includes how much the runs "
        "differ."
    )
    assert mean in method
    assert "trained only once" not in method
    arms = [an_arm("linear", 0.9, task), an_arm("lora", 0.96, task, seeds=3)]  # linear comes out alike each time
    assert mean in verdict(arms, task).sentence
    mixed = verdict([an_arm("full", 0.9, task), an_arm("lora", 0.96, task, seeds=3)], task).sentence
    assert "lora was trained 3 times: its score is the mean" in mixed
    assert "full was trained only once" in mixed


def test_arms_that_were_still_getting_better_are_named() -> None:
    task = a_task()
    done = ArmEffort(seconds=1.0, trials=(), stopped="no trial was better")
    cut = replace(done, stopped="budget", improving=True)
    arms = [replace(an_arm("rag", 0.95, task), effort=done), replace(an_arm("lora", 0.9, task), effort=cut)]
    told = "lora was still getting better when the search for its settings ended; more time may raise its score."
    assert told in verdict(arms, task).sentence
    assert told not in verdict([arms[0], an_arm("lora", 0.9, task)], task).sentence


def test_best_is_not_said_of_what_was_compared_to_within_a_margin() -> None:
    task, done = a_task(quality=None), ArmEffort(seconds=1.0, trials=(), stopped="no trial was better")
    cut = replace(done, stopped="budget", improving=True)
    light, heavy = an_arm("prompt", 0.5, task), replace(an_arm("lora", 0.95, task), effort=done)
    gaps = {("lora", "prompt"): (0.45, 0.05)}
    for arms in ([light, heavy], [replace(light, effort=cut), heavy], [light, replace(heavy, effort=cut)]):
        told = verdict(arms, task, gaps).sentence
        assert "use lora: " in told
        assert (
            "It is shown that no other way is better by more than the stated margin of 2 of 100, and that the" in told
        )
        assert " best " not in told.replace("The next best", "")


@given(
    scores=st.lists(st.tuples(st.floats(0.05, 0.99), st.integers(0, 9), st.floats(0.001, 0.2)), max_size=5),
    target=st.one_of(st.none(), st.floats(0.3, 0.95)),
    priced=st.booleans(),
    latency=st.one_of(st.none(), st.just(1000.0)),
    rate=st.one_of(st.none(), st.floats(0, 2)),
)
@example(scores=[(0.9, 1, 0.01)] * 4, target=0.5, priced=True, latency=None, rate=5e-324)
def test_whatever_was_measured_only_an_arm_that_qualifies_is_shown(
    scores: list[tuple[float, int, float]],
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
        an_arm(name, score, task, half=half, latency_p95_ms=300.0 * speed or None, used=used[name])
        for name, (score, speed, half) in zip(names, scores, strict=True)
    ]
    halves = {name: half for name, (*_, half) in zip(names, scores, strict=True)}
    value = {name: score for name, (score, *_) in zip(names, scores, strict=True)}
    gaps = {(a, b): (value[a] - value[b], max(halves[a], halves[b])) for a, b in combinations(names, 2)}
    study = evidence(arms, task, gaps, used)
    found = verdict(arms, task, gaps, used)
    assert "None" not in found.sentence
    assert "nan" not in found.sentence
    assert (found.status == "shown") == (found.arm is not None) == (found.needs is None)
    for flip in found.flips:
        assert flip.then != found.arm
        assert (flip.below is None) != (flip.above is None)
    fast = [arm.arm for arm in arms if latency is None or (arm.latency_p95_ms or 1e9) <= latency]
    assert found.arm is None or found.arm in fast
    assert choose(study).arm is None or choose(study).arm.arm == found.arm  # type: ignore[union-attr]
    passing = {arm.arm for arm in study.passing}
    if target is not None:
        assert found.arm is None or found.arm in passing
        if rate is None:
            assert (found.arm is not None) == bool(passing & set(fast))
    elif found.arm is not None:
        order = [arm.arm for arm in by_weight(arms, task) if arm.arm in fast]
        lighter = order[: order.index(found.arm)]
        best = max(fast, key=lambda name: value[name])
        assert value[found.arm] >= value[best] - task.target.margin
        assert all(value[name] < value[best] - task.target.margin for name in lighter)


def test_a_cost_from_a_busy_machine_decides_nothing_that_a_quiet_one_could_turn() -> None:
    """`linear` was timed at a second beside another program: no dearer arm takes its place, and no cheaper one is
    dearer for it."""
    task = a_task()
    busy = usage(1.3, answering_share=0.4)
    linear = an_arm("linear", 0.95, task, used=busy, processor_share=0.4, stored_bytes=10)
    tuned = an_arm("lora", 0.95, task, used=usage(0.5, train=100.0), stored_bytes=99)
    usages = {"linear": busy, "lora": usage(0.5, train=100.0)}
    quiet = an_arm("linear", 0.95, task, used=usage(1.3), stored_bytes=10)
    assert [arm.arm for arm in by_weight([quiet, tuned], task)] == ["lora", "linear"]
    assert [arm.arm for arm in by_weight([linear, tuned], task)] == ["linear", "lora"], "equal, and the simpler one"
    found = decide(evidence([linear, tuned], task, usages=usages))
    assert (found.status, found.arm) == ("shown", "linear")
    assert "Measured on a busy machine: linear (40% of the processor), so a cost difference did not decide." in (
        found.sentence
    )
    cheaper = an_arm("lora", 0.95, task, used=usage(2.5), stored_bytes=1)  # a quiet machine makes linear only cheaper
    assert [arm.arm for arm in by_weight([cheaper, linear], task)] == ["linear", "lora"]


def test_where_a_quiet_machine_could_let_another_arm_keep_the_latency_nothing_is_shown() -> None:
    task = a_task(latency=500)
    light = an_arm("prompt", 0.95, task, latency_p95_ms=900.0, processor_share=0.5)
    heavy = an_arm("rag", 0.95, task, latency_p95_ms=300.0)
    found = decide(evidence([light, heavy], task))
    assert (found.status, found.needs) == ("not_shown", "the latency of prompt on a quiet machine")
    assert found.sentence.startswith(
        "No choice yet: measure again while nothing else runs on the machine. "
        "On a quiet machine prompt (the language model as it is) might be chosen in place of rag (the model as it is, "
        "given matching passages of your documents); here, prompt is too slow: 1 in 20 answers took over 900 ms on a "
        "busy machine (limit 500 ms)."
    )
    quiet = replace(light, processor_share=0.95)
    assert decide(evidence([quiet, heavy], task)).arm == "rag"
    worse = replace(light, score=replace(score_of(light), value=0.5, low=0.46, high=0.54))
    assert decide(evidence([worse, heavy], task)).arm == "rag", "it could not be shown on any machine"


def test_a_number_of_questions_that_nobody_can_label_is_not_asked_for() -> None:
    """At a gap of .0198 to a margin of .02 a million questions would show it, of which 300 are there."""
    task = a_task(None)
    arms = [an_arm("lora", 0.9002, task), an_arm("rag", 0.92, task)]
    told = verdict(arms, task, {("rag", "lora"): (0.0198, 0.04)})
    assert told.status == "not_shown"
    assert told.needs == "no practicable number of test questions"
    near = verdict([an_arm("lora", 0.915, task), an_arm("rag", 0.92, task)], task, {("rag", "lora"): (0.005, 0.04)})
    assert near.needs is not None
    assert near.needs.startswith("about ")


def test_costs_that_cannot_be_compared_are_not_called_cheaper() -> None:
    """Without a price of machine hours, one's own arms are in hours and an endpoint's in money: hours come first."""
    task = a_task(None, machine_hour=None)
    far = usage(runs_on_own_machine=False, token_fee=TokenFee(input=0.5, output=2.0))
    used = {"prompt": USAGES["prompt"], "api-big": far}
    best = [an_arm("prompt", 0.5, task), an_arm("api-big", 0.9, task, used=far)]
    told = verdict(best, task, {("api-big", "prompt"): (0.4, 0.05)}, usages=used)
    assert told.arm == "api-big"
    assert "and that prompt is worse by more than that." in told.sentence
    assert "the cheaper prompt" not in told.sentence
    alike = [an_arm("prompt", 0.9, task), an_arm("api-big", 0.89, task, used=far)]
    own = verdict(alike, task, {("prompt", "api-big"): (0.01, 0.02)}, usages=used)
    assert own.arm == "prompt"
    assert "prompt is the cheapest of those whose costs can be compared, and it is shown" in own.sentence
    assert "so costs of your own machines are in machine hours." in own.sentence


def test_what_cannot_be_used_is_not_spoken_of_as_shown_to_be_no_better() -> None:
    task = a_task(None, latency=1000)
    slow = an_arm("lora+rag", 0.97, task, latency_p95_ms=2000.0)
    fast = [an_arm(name, score, task, latency_p95_ms=500.0) for name, score in (("rag", 0.9), ("prompt", 0.5))]
    told = verdict([slow, *fast], task, {("rag", "prompt"): (0.4, 0.05)}).sentence
    assert "and that the cheaper prompt is worse by more than that." in told
    assert "no other way that can be used is better by more than the stated margin of 2 of 100" in told


def test_where_no_latency_is_known_more_questions_are_not_said_to_be_of_no_help() -> None:
    task = a_task(latency=1000)
    told = verdict([an_arm("rag", 0.95, task)], task)
    assert "will not help" not in told.sentence
    assert (told.needs or "").startswith("a known latency: rag has no known latency")
