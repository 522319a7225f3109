"""An audit of scores that are weighted by `data.mix`: the corrected figures are those of the traffic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_answers import made_answer

from trimtab.base.records import Answer
from trimtab.base.results import HumanAudit
from trimtab.base.task import Task
from trimtab.decision.caveats import audit_sentence, still_needed
from trimtab.measurement.audit import ENOUGH, ENOUGH_WEIGHTED, Audited, draw_audit
from trimtab.measurement.mix import mix_weights

MIX = {"common": 0.3, "rare": 0.7}  # of the traffic; of the questions four fifths are common
TRUE = {"common": 0.9, "rare": 0.7}  # arm a's shares of right answers; b is right .1 less often
OVER_TRAFFIC = 0.3 * 0.9 + 0.7 * 0.7
Judged = dict[tuple[str, str], bool]


def a_task(mix: dict[str, float]) -> Task:
    return Task.model_validate(
        {
            "task": {"name": "t", "kind": "answer"},
            "data": {"examples": ["r.jsonl"], "mix": mix},
            "base": {"model": "m"},
        }
    )


def made(seed: int, count: int = 300) -> tuple[dict[str, list[Answer]], Judged]:
    """Two arms on slices of unlike difficulty; the metric accepts 95% of right answers to common questions and 75%
    of the rare ones'."""
    draw = np.random.default_rng(seed)
    slices = np.where(draw.random(count) < 0.8, "common", "rare")
    answers: dict[str, list[Answer]] = {}
    right: Judged = {}
    for arm, less in (("a", 0.0), ("b", 0.1)):
        true = draw.random(count) < np.where(slices == "rare", TRUE["rare"], TRUE["common"]) - less
        accepts = draw.random(count) < np.where(slices == "rare", 0.75, 0.95)
        says = np.where(true, accepts, draw.random(count) < 0.1)
        answers[arm] = [
            made_answer(f"{item:04}", float(says[item]), answer=f"{arm} says", slice=str(slices[item]))
            for item in range(count)
        ]
        right |= {(f"{item:04}", f"{arm} says"): bool(true[item]) for item in range(count)}
    return answers, right


def judged_of(answers: dict[str, list[Answer]], right: Judged, count: int) -> Judged:
    """What people say of an audit of so many questions."""
    return {(one.item_id, one.answer): right[one.item_id, one.answer] for one in draw_audit(answers, count)}


def test_where_all_answers_are_judged_the_figures_are_the_weighted_ones_of_people() -> None:
    answers, right = made(0, 120)
    audited = Audited(answers, right, a_task(MIX))
    weights = mix_weights([one.slice for one in answers["a"]], MIX)
    share = {
        arm: np.average([right[one.item_id, one.answer] for one in own], weights=weights)
        for arm, own in answers.items()
    }
    assert audited.score("a").value == pytest.approx(share["a"])
    assert audited.difference("a", "b").difference == pytest.approx(share["a"] - share["b"])
    held = audited.by_arm[0]
    said = np.array([right[one.item_id, one.answer] for one in answers["a"]])
    told = np.array([one.score for one in answers["a"]])
    assert weights is not None
    assert held.sensitivity is not None
    assert held.sensitivity.value == pytest.approx(np.average(told[said], weights=weights[said]))


def test_weights_that_are_alike_give_the_unweighted_figures() -> None:
    """Exactly where they are equal, and nearly where they nearly are, so that both ways of counting are the same
    estimator."""
    answers, right = made(1)
    judged = judged_of(answers, right, 100)
    rare = np.mean([one.slice == "rare" for one in answers["a"]])
    plain = Audited(answers, judged, a_task({}))
    equal, near = (
        Audited(answers, judged, a_task({"rare": rare + more, "common": 1 - rare - more})) for more in (0.0, 1e-6)
    )
    assert equal.effective is None
    assert near.effective == pytest.approx(100, abs=0.01)
    for found, close in ((equal, 1e-12), (near, 1e-4)):
        for arm in answers:
            mine, other = found.corrected_score(arm, 0.7, 0.02), plain.corrected_score(arm, 0.7, 0.02)
            assert mine == pytest.approx(other, rel=close)
        gap, other_gap = (one.corrected_gap("a", "b", 0.1, 0.02) for one in (found, plain))
        assert gap == pytest.approx(other_gap, rel=close)


def test_corrected_figures_are_unbiased_and_their_intervals_hold_the_truth_of_the_traffic() -> None:
    studies, covered, plain, gaps, claimed = 150, 0, 0, 0, 0
    errors, unweighted = [], []
    for seed in range(studies):
        answers, right = made(seed)
        judged = judged_of(answers, right, 80)
        audited = Audited(answers, judged, a_task(MIX))
        assert audited.why_not is None
        score, metric, gap = audited.score("a"), audited.by_arm[0].metric_score, audited.difference("a", "b")
        covered += score.low <= OVER_TRAFFIC <= score.high
        plain += metric.low <= OVER_TRAFFIC <= metric.high
        gaps += gap.low <= 0.1 <= gap.high
        claimed += audited.target_curve("a")(OVER_TRAFFIC) <= 0.05
        errors.append(score.value - OVER_TRAFFIC)
        unweighted.append(Audited(answers, judged, a_task({})).score("a").value - OVER_TRAFFIC)
    assert covered >= 0.92 * studies
    assert gaps >= 0.92 * studies
    assert claimed <= 0.08 * studies
    assert plain < 0.8 * studies
    standard_error = np.std(errors) / np.sqrt(studies)
    assert abs(np.mean(errors)) < 3 * standard_error
    assert np.mean(unweighted) > 10 * standard_error  # without weights it is that of the test set


def test_curves_and_intervals_agree() -> None:
    answers, right = made(3)
    audited = Audited(answers, judged_of(answers, right, 100), a_task(MIX))
    score, gap = audited.score("a"), audited.difference("a", "b")
    assert score.n_effective is not None
    assert score.n_effective < score.n
    assert audited.target_curve("a")(score.low) == pytest.approx(0.025)
    assert audited.target_curve("a")(audited.floor("a")) == pytest.approx(0.05)
    assert audited.behind_curve("a", "b")(-gap.low) == pytest.approx(0.025)


def test_judgements_that_weigh_too_little_do_not_correct() -> None:
    """Where almost all traffic is of the slice with few questions, or none of it is judged."""
    answers, right = made(4)
    task = a_task({"common": 0.02, "rare": 0.98})
    few = Audited(answers, judged_of(answers, right, ENOUGH), task)
    assert few.why_not is not None
    assert "as sure as" in few.why_not
    commons = {one.item_id for one in answers["a"] if one.slice == "common"}
    blind = Audited(answers, {key: said for key, said in right.items() if key[0] in commons}, task)
    assert blind.count > 200
    assert blind.effective is not None
    assert blind.effective < blind.count / 2


def test_the_verdict_tells_how_sure_weighted_judgements_are_and_how_many_are_missing() -> None:
    answers, right = made(5)
    for count in (ENOUGH, 100):
        audited = Audited(answers, judged_of(answers, right, count), a_task(MIX))
        found = HumanAudit(
            answers=2 * count,
            questions=audited.count,
            arms=audited.by_arm,
            why_not=audited.why_not,
            n_effective=audited.effective,
        )
        assert audited.effective is not None
        sure = f"to {count} questions, as sure as {audited.effective:.0f} that count alike; all scores and"
        assert sure in audit_sentence(found, [], a_task(MIX))
        assert still_needed(found) == 0
    short = replace(found, questions=60, n_effective=15.0)
    assert still_needed(short) == 60 * ENOUGH_WEIGHTED / 15 - 60
