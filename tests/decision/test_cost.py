"""Cost against sums done by hand, break-even against totals on both sides of it, staleness against its own curve."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trimtab.base.config import ChangeTable, ChangingFacts, CostTable, HourPrice, LabelPrice, TokenPrice
from trimtab.decision.cost import (
    MACHINE_SECONDS,
    SECONDS_A_MONTH,
    Usage,
    cost_of,
    cost_terms,
    costed_retrainings,
    crossings,
    planned_retrainings,
    retrainings_within,
    safe_period,
)

HOUR = HourPrice(price=0.4, as_of=date(2026, 11, 1), source="contract")
TOKENS = TokenPrice(input=0.15, output=0.6, as_of=date(2026, 11, 1), source="list")
ON_DEMAND = CostTable(machine_hour=HOUR, hosting="on-demand", questions_per_month=100_000)
ALWAYS_ON = CostTable(machine_hour=HOUR, questions_per_month=100_000)
RAG = Usage(
    train_seconds=0,
    evaluation_seconds=60,
    index_seconds=30,
    seconds_per_question=0.9,
    prompt_tokens=600,
    new_tokens=20,
    runs_on_own_machine=True,
    trained=False,
    token_fee=None,
)
LORA = replace(RAG, train_seconds=7200, index_seconds=0, seconds_per_question=0.3, prompt_tokens=60, trained=True)
API = replace(RAG, index_seconds=0, runs_on_own_machine=False, token_fee=TOKENS)


def total(usage: Usage, cost: CostTable, volume: float, retrainings: int = 0) -> float:
    found = cost_of(usage, cost.model_copy(update={"questions_per_month": volume}), retrainings=retrainings)
    assert found is not None
    return found.total


def test_on_demand_pays_machine_seconds_only() -> None:
    found = cost_of(LORA, ON_DEMAND, retrainings=2)
    assert found is not None
    second = 0.4 / 3600
    assert found.up_front == pytest.approx((7200 + 60) * second)
    assert found.total == pytest.approx(3 * (7200 + 60) * second + 12 * 100_000 * 0.3 * second)
    assert found.total == pytest.approx(found.up_front + 12 * found.monthly)
    assert found.currency == "USD"


def test_a_total_has_the_ends_of_the_seconds_it_is_worked_out_from() -> None:
    found = cost_of(replace(LORA, seconds_error=0.01), ON_DEMAND)
    assert found is not None
    half = 12 * 100_000 * 1.95996 * 0.01 * 0.4 / 3600
    assert (found.low, found.high) == pytest.approx((found.total - half, found.total + half), rel=1e-5)
    plain = cost_of(LORA, ON_DEMAND)
    assert plain is not None
    assert (plain.low, plain.high, plain.total) == (None, None, found.total)


def test_always_on_pays_whole_machines_for_retrieval_too() -> None:
    # 100,000 questions of 0.9 s fit one machine (capacity 1.75 million); 2 million do not
    second, month = 0.4 / 3600, SECONDS_A_MONTH * 0.4 / 3600
    assert total(RAG, ALWAYS_ON, 100_000) == pytest.approx(90 * second + 12 * month)
    assert total(RAG, ALWAYS_ON, 2_000_000) == pytest.approx(90 * second + 24 * month)
    assert total(RAG, ALWAYS_ON, 0) == pytest.approx(90 * second)


def test_without_a_price_machine_seconds_are_counted() -> None:
    found = cost_of(LORA, CostTable(questions_per_month=1000, horizon_months=6))
    assert found is not None
    assert found.total == pytest.approx(7260 + 6 * 1000 * 0.3)
    assert found.currency == MACHINE_SECONDS
    default = cost_of(LORA, CostTable())
    assert default is not None
    assert default.total == pytest.approx(7260 + 12 * 10_000 * 0.3)


def test_an_endpoint_pays_for_tokens_and_is_unknown_without_a_price() -> None:
    found = cost_of(API, ALWAYS_ON)
    assert found is not None
    assert found.up_front == 0
    assert found.total == pytest.approx(12 * 100_000 * (600 * 0.15 + 20 * 0.6) / 1e6)
    assert cost_of(replace(API, token_fee=None), ALWAYS_ON) is None
    assert cost_of(API, CostTable()) is not None


def test_changing_facts_are_indexed_again() -> None:
    change = ChangeTable(share=0.3, per_month=0.05, lead_days=3)
    still, moving = ON_DEMAND, ON_DEMAND.model_copy(update={"change": change})
    extra = 12 * 30 * 0.3 * (1 - math.exp(-0.05)) * 0.4 / 3600
    assert total(RAG, moving, 1000) - total(RAG, still, 1000) == pytest.approx(extra)
    assert total(LORA, moving, 1000) == total(LORA, still, 1000)


def test_break_even_is_the_closed_formula_where_costs_are_lines() -> None:
    (found,) = crossings(LORA, RAG, ON_DEMAND, retrainings_a=3)
    second = 0.4 / 3600
    up_front = (7260 - 90) * second + 3 * 7260 * second
    assert found == pytest.approx(up_front / 12 / ((0.9 - 0.3) * second))
    assert crossings(RAG, LORA, ON_DEMAND, retrainings_b=3) == (found,)


def test_an_arm_that_is_cheaper_at_every_volume_has_no_break_even() -> None:
    assert crossings(replace(LORA, train_seconds=0, seconds_per_question=0.1), RAG, ON_DEMAND) == ()
    assert crossings(RAG, RAG, ON_DEMAND) == ()
    assert crossings(RAG, replace(API, token_fee=None), ON_DEMAND) == ()
    assert crossings(RAG, API, CostTable()) == ()


def test_whole_machines_can_cross_more_than_once() -> None:
    # the slow arm needs its second machine at 1.75 million questions; the fast one at 5.26 million
    found = crossings(LORA, RAG, ALWAYS_ON)
    assert found[0] == pytest.approx(SECONDS_A_MONTH * 0.6 / 0.9)
    slower = replace(LORA, seconds_per_question=0.7)
    several = crossings(slower, RAG, ALWAYS_ON)
    assert len(several) > 2
    for volume in several:
        below = total(slower, ALWAYS_ON, volume * 0.9999) - total(RAG, ALWAYS_ON, volume * 0.9999)
        above = total(slower, ALWAYS_ON, volume * 1.0001) - total(RAG, ALWAYS_ON, volume * 1.0001)
        assert below * above < 0


def test_an_endpoint_crosses_a_machine_that_stands_idle() -> None:
    own = replace(RAG, seconds_per_question=0.3)
    found = crossings(own, API, ALWAYS_ON)[0]
    assert total(API, ALWAYS_ON, found * 0.99) < total(own, ALWAYS_ON, found * 0.99)
    assert total(API, ALWAYS_ON, found * 1.01) > total(own, ALWAYS_ON, found * 1.01)


@given(
    seconds=st.tuples(st.floats(0.01, 20), st.floats(0.01, 20)),
    training=st.tuples(st.floats(0, 1e5), st.floats(0, 1e5)),
    hosting=st.sampled_from(["always-on", "on-demand"]),
)
def test_between_crossings_the_order_of_totals_holds(
    seconds: tuple[float, float], training: tuple[float, float], hosting: str
) -> None:
    assume(seconds[0] == seconds[1] or abs(seconds[0] - seconds[1]) > 1e-9)  # else rounding decides where lines cross
    cost = CostTable.model_validate({**ALWAYS_ON.model_dump(), "hosting": hosting})
    a = replace(LORA, seconds_per_question=seconds[0], train_seconds=training[0])
    b = replace(LORA, seconds_per_question=seconds[1], train_seconds=training[1])
    edges = [0.0, *crossings(a, b, cost)]
    left, right = cost_terms(a, cost), cost_terms(b, cost)
    assert left is not None
    assert right is not None
    for start, end in itertools.pairwise(edges[:20]):
        gaps = [left.at(v) - right.at(v) for v in (start + (end - start) * share for share in (0.01, 0.3, 0.7, 0.99))]
        gaps = [gap for gap in gaps if abs(gap) > 1e-6]
        assert all(gap > 0 for gap in gaps) or all(gap < 0 for gap in gaps)


def accuracy_at_end(accuracy: float, period: float, change: ChangeTable) -> float:
    """A (1 - w (1 - exp(-lambda (P + L)))): a stale fact is answered wrongly."""
    age = period + change.lead_days * 12 / 365.25
    return accuracy * (1 - change.share * (1 - math.exp(-change.per_month * age)))


@given(
    low=st.floats(0.5, 1.0),
    spare=st.floats(0.001, 0.3),
    share=st.floats(0.01, 1.0),
    rate=st.floats(0.001, 1.0),
    lead=st.floats(0, 60),
)
def test_accuracy_is_at_the_target_when_a_safe_period_ends(
    low: float, spare: float, share: float, rate: float, lead: float
) -> None:
    change, target = ChangeTable(share=share, per_month=rate, lead_days=lead), low * (1 - spare)
    period = safe_period(low, target, change)
    if period is None:
        # even a cycle as short as the lead time, the shortest there is, ends below the target
        assert accuracy_at_end(low, lead * 12 / 365.25, change) < target + 1e-9
    elif math.isinf(period):
        assert accuracy_at_end(low, 1e6, change) >= target - 1e-9
    else:
        assert accuracy_at_end(low, period, change) == pytest.approx(target)
        assert period >= lead * 12 / 365.25


KINDS = st.lists(
    st.builds(ChangingFacts, share=st.floats(0.01, 0.3), per_month=st.floats(0.0, 30.0)), min_size=1, max_size=3
)


@given(kinds=KINDS, low=st.floats(0.5, 1.0), spare=st.floats(0.001, 0.5), lead=st.floats(0, 60))
def test_with_several_kinds_the_accuracy_is_at_the_target_when_a_safe_period_ends(
    kinds: list[ChangingFacts], low: float, spare: float, lead: float
) -> None:
    change, target = ChangeTable(kinds=tuple(kinds), lead_days=lead), low * (1 - spare)

    def left(age: float) -> float:
        return low * (1 - sum(kind.share * (1 - math.exp(-kind.per_month * age)) for kind in kinds))

    months = lead * 12 / 365.25
    period = safe_period(low, target, change)
    if period is None:
        assert left(2 * months) < target + 1e-9
    elif math.isinf(period):
        assert left(1e6) >= target - 1e-9
    else:
        assert left(period + months) == pytest.approx(target, abs=1e-9)
        assert period >= months


@given(share=st.floats(0.01, 0.9), rate=st.floats(0.001, 2.0), part=st.floats(0.1, 0.9), spare=st.floats(0.001, 0.3))
def test_two_kinds_of_one_rate_are_one_kind(share: float, rate: float, part: float, spare: float) -> None:
    assume(abs(share - spare) > 1e-9)  # where all that changes is just what may be lost, rounding decides
    one = ChangeTable(share=share, per_month=rate, lead_days=3)
    halves = [ChangingFacts(share=share * own, per_month=rate) for own in (part, 1 - part)]
    two = ChangeTable(kinds=tuple(halves), lead_days=3)
    assert two.changed(4.0) == pytest.approx(one.changed(4.0))
    found = [safe_period(0.9, 0.9 * (1 - spare), change) for change in (one, two)]
    assert found[0] == found[1] or found[0] == pytest.approx(found[1])


def test_one_rate_for_facts_of_two_rates_misjudges_the_period() -> None:
    """A tenth of the questions on facts that change weekly, four tenths on ones that change every few years."""
    kinds = (ChangingFacts(share=0.1, per_month=4.0), ChangingFacts(share=0.4, per_month=0.03))
    mean = sum(kind.share * kind.per_month for kind in kinds) / 0.5
    both = safe_period(1.0, 0.95, ChangeTable(kinds=kinds, lead_days=0))
    slow = safe_period(1.0, 0.95, ChangeTable(share=0.5, per_month=0.03, lead_days=0))
    at_mean = safe_period(1.0, 0.8, ChangeTable(share=0.5, per_month=mean, lead_days=0))
    late = safe_period(1.0, 0.8, ChangeTable(kinds=kinds, lead_days=0))
    assert both is not None
    assert slow is not None
    assert both < slow / 10
    assert at_mean is not None
    assert late is not None
    assert late > 5 * at_mean  # the mean rate would have half of the questions change within months


@pytest.mark.parametrize(("watched", "rate", "share_of_burst"), [(6, 2.0, 0.02), (12, 1.0, 0.05), (24, 0.5, 0.05)])
def test_at_most_a_twentieth_of_the_cycles_ends_below_the_target_where_changes_come_in_bursts(
    watched: float, rate: float, share_of_burst: float
) -> None:
    """What is watched and the cycle after it are drawn 4,000 times; 5% of these is 200, with a deviation of 14."""
    random, below, at_mean = np.random.default_rng(0), 0, 0
    for _ in range(4_000):
        bursts = max(1, random.poisson(rate * watched))
        per_month = -math.log1p(-share_of_burst) * bursts / watched
        change = ChangeTable(share=1, per_month=per_month, lead_days=0, watched_months=watched, bursts=bursts)
        usual = ChangeTable(share=1, per_month=per_month, lead_days=0)

        def fails(table: ChangeTable) -> bool:
            period = safe_period(1.0, 0.8, table)
            return period is not None and (1 - share_of_burst) ** random.poisson(rate * period) < 0.8 - 1e-9

        below, at_mean = below + fails(change), at_mean + fails(usual)
    assert below <= 250
    assert at_mean > 1_000


def test_a_longer_watch_allows_a_longer_period() -> None:
    def period(months: float) -> float:
        bursts = round(2 * months)
        return (
            safe_period(
                1.0, 0.8, ChangeTable(share=1, per_month=0.1, lead_days=0, watched_months=months, bursts=bursts)
            )
            or 0.0
        )

    periods = [period(months) for months in (2, 6, 24, 240)]
    assert periods == sorted(periods)
    assert periods[-1] < (safe_period(1.0, 0.8, ChangeTable(share=1, per_month=0.1, lead_days=0)) or 0.0)


def test_safe_period_has_its_cases() -> None:
    change = ChangeTable(share=0.3, per_month=0.05, lead_days=3)
    # 1 - 0.85/0.9 = 0.0556; -ln(1 - 0.0556/0.3)/0.05 - 3 days
    assert safe_period(0.9, 0.85, change) == pytest.approx(-math.log(1 - (1 - 0.85 / 0.9) / 0.3) / 0.05 - 36 / 365.25)
    assert safe_period(0.9, 0.85, ChangeTable(share=0.05, per_month=0.5, lead_days=3)) == math.inf
    assert safe_period(0.9, 0.85, ChangeTable(share=0.3, per_month=0, lead_days=3)) == math.inf
    assert safe_period(0.8, 0.85, change) is None
    assert safe_period(0.9, 0.85, ChangeTable(share=0.3, per_month=5, lead_days=3)) is None


@pytest.mark.parametrize(("period", "times"), [(12, 0), (6, 1), (5, 2), (1, 11), (math.inf, 0), (100, 0)])
def test_retrainings_within_the_horizon(period: float, times: int) -> None:
    assert retrainings_within(12, period) == times


def test_only_knowledge_in_weights_is_retrained() -> None:
    cost = CostTable(change=ChangeTable(share=0.3, per_month=0.05, lead_days=3))
    times = planned_retrainings(LORA, cost, 0.9, 0.85)
    assert times == 3  # due every 3.997 months of 12
    assert planned_retrainings(RAG, cost, 0.9, 0.85) == 0
    assert planned_retrainings(replace(LORA, index_seconds=30), cost, 0.9, 0.85) == 0
    assert planned_retrainings(LORA, cost, 0.9, None) == 0
    assert planned_retrainings(LORA, CostTable(), 0.9, 0.85) == 0
    assert planned_retrainings(LORA, cost, 0.8, 0.85) is None


def test_the_rate_that_needs_one_retraining_more() -> None:
    cost = CostTable(change=ChangeTable(share=0.3, per_month=0.05, lead_days=3))
    slack = -math.log1p(-(1 - 0.85 / 0.9) / 0.3)
    for times in range(5):
        edge = slack / (12 / (times + 1) + 3 * 12 / 365.25)  # lambda (P + L) = slack, with P = H / (n + 1)
        for rate, due in ((edge * 0.999, times), (edge * 1.001, times + 1)):
            moved = cost.model_copy(update={"change": ChangeTable(share=0.3, per_month=rate, lead_days=3)})
            assert planned_retrainings(LORA, moved, 0.9, 0.85) == due


def test_labels_are_paid_once_and_again_for_facts_that_changed() -> None:
    change = ChangeTable(share=0.5, per_month=0.1, lead_days=0)
    table = ON_DEMAND.model_copy(update={"label": LabelPrice(minutes=3, wage=40), "change": change})
    free = table.model_copy(update={"label": None})
    labelled = replace(LORA, labels=1_000)
    changed = 0.5 * (1 - math.exp(-0.1 * 4))  # twelve months with two retrainings are three periods of four
    for retrainings, rows in ((0, 1_000), (2, 1_000 * (1 + 2 * changed))):
        paid, unpaid = (cost_of(labelled, one, retrainings=retrainings) for one in (table, free))
        assert paid is not None
        assert unpaid is not None
        assert paid.total - unpaid.total == pytest.approx(rows * 2)
        assert paid.up_front - unpaid.up_front == pytest.approx(2_000)
    endpoint = replace(API, labels=8)
    assert total(endpoint, table, 1_000) - total(endpoint, free, 1_000) == pytest.approx(16)


@pytest.mark.parametrize(
    "given", [{}, {"minutes": 2}, {"wage": 30}, {"price": 1, "minutes": 2}, {"price": 1, "minutes": 2, "wage": 3}]
)
def test_a_label_has_one_price(given) -> None:
    with pytest.raises(ValueError, match="either price, or both minutes and wage"):
        LabelPrice(**given)


def test_a_price_of_labels_needs_a_price_of_machines() -> None:
    with pytest.raises(ValueError, match="label needs machine_hour"):
        CostTable(label=LabelPrice(price=1))


@given(
    low=st.floats(0.4, 1.0),
    targets=st.lists(st.floats(0.1, 1.0), min_size=2, max_size=6),
    share=st.floats(0.0, 1.0),
    rate=st.floats(0.0, 3.0),
    lead=st.floats(0.0, 90.0),
)
def test_a_stricter_target_never_looks_cheaper(
    low: float, targets: list[float], share: float, rate: float, lead: float
) -> None:
    change = ChangeTable(share=share, per_month=rate, lead_days=lead)
    cost = CostTable(machine_hour=HOUR, change=change, label=LabelPrice(price=0.5))
    used = replace(LORA, labels=200)
    counts = [costed_retrainings(used, cost, low, target) for target in sorted(targets)]
    assert counts == sorted(counts)
    totals = [made.total for times in counts if (made := cost_of(used, cost, retrainings=times))]
    assert all(after >= before - 1e-9 * before for before, after in itertools.pairwise(totals))
