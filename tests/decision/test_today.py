"""The arm to take today: the least expected loss, its chances, and what more questions are worth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_answers import made_answer
from made_studies import a_task, costing

from trimtab.base.records import Answer, Arm
from trimtab.base.results import Today, TrivialArm
from trimtab.base.task import Task
from trimtab.decision.choice import shown_arm
from trimtab.decision.evidence import Evidence, evidence_of
from trimtab.decision.first_screen import before_relying, opening
from trimtab.decision.summary import way
from trimtab.decision.today import take_today
from trimtab.decision.verdict import decide
from trimtab.measurement.figures import score_estimate


def study_of(
    task: Task, n: int, *arms: tuple[str, float, float], rule: float | None = None, named: str = "most-frequent"
) -> Evidence:
    """A study of arms by name, share of right answers and cost; the same questions are hard for all. `rule`: the share
    that a fixed rule gets right."""

    def right(share: float) -> list[Answer]:
        return [made_answer(f"{item:04}", float(item < round(share * n))) for item in range(n)]

    answers = {name: right(share) for name, share, _ in arms}
    trivial = {} if rule is None else {named: right(rule)}
    results = [replace(costing(name, cost, task), score=score_estimate(answers[name], task)) for name, _, cost in arms]
    known = [Arm(name=name, weights="base", stages=(), context="prompt", settings={"of": name}) for name, _, _ in arms]
    return evidence_of(results, answers, known, task, {}, look=1, trivial=trivial)


def today_of(study: Evidence) -> Today:
    found = take_today(study, shown_arm(study))
    assert found is not None
    return found


def pointed(task: Task, point: str) -> Task:
    plain = task.model_dump(exclude_unset=True)
    return Task.model_validate({**plain, "target": {**plain["target"], "point": point}})


def test_the_lighter_arm_that_most_probably_reaches_the_target_is_taken_before_a_dearer_one_that_is_shown_to() -> None:
    study = study_of(a_task(0.8), 150, ("light", 0.84, 1.0), ("dear", 0.95, 30.0))
    assert shown_arm(study).arm == "dear"
    today = today_of(study)
    assert (today.arm, today.certainty) == ("light", "likely")
    assert 0.8 < today.outlook.lightest < 0.93
    assert sum(one.lightest for one in today.arms) <= 1


def test_an_arm_that_is_shown_is_marked_as_shown() -> None:
    today = today_of(study_of(a_task(0.8), 400, ("light", 0.9, 1.0), ("dear", 0.95, 30.0)))
    assert (today.arm, today.certainty) == ("light", "shown")
    assert today.outlook.good_enough > 0.99
    assert today.outlook.worst == 0.0


def test_the_price_of_a_point_decides_between_quality_and_cost() -> None:
    cheap, dear = ("cheap", 0.80, 120.0), ("dear", 0.85, 1320.0)  # 100 USD a month apart, five points apart
    taken = {point: today_of(study_of(pointed(a_task(None), point), 300, cheap, dear)) for point in ("5 USD", "60 USD")}
    assert {point: one.arm for point, one in taken.items()} == {"5 USD": "cheap", "60 USD": "dear"}
    assert all(one.point_stated and one.rival is None for one in taken.values())
    unstated = today_of(study_of(a_task(None), 300, cheap, dear))
    assert not unstated.point_stated
    assert (unstated.arm, unstated.rival) == ("dear", "cheap")
    assert unstated.rival_point == pytest.approx(20.0, rel=0.05)  # 100 USD a month for five points


def test_equal_arms_are_a_toss_up_and_the_lighter_one_is_taken() -> None:
    study = study_of(a_task(None), 60, ("light", 0.75, 1.0), ("dear", 0.75, 2.0))
    today = today_of(study)
    assert today.arm == "light"
    verdict = replace(decide(study), today=today)
    assert "Use " in opening(study, verdict, (), ())
    assert len(opening(study, verdict, (), ()).split()) <= 60


def test_more_questions_are_worth_less_the_surer_the_choice_is() -> None:
    near = today_of(study_of(a_task(0.8), 60, ("light", 0.8, 1.0), ("dear", 0.9, 30.0)))
    sure = today_of(study_of(a_task(0.8), 1500, ("light", 0.9, 1.0), ("dear", 0.95, 30.0)))
    assert [one.questions for one in near.more] == [50, 100, 300]
    assert near.more[0].saves <= near.more[1].saves <= near.more[2].saves
    assert near.more[2].saves > 0.1
    assert all(one.saves < 0.01 for one in sure.more)


def test_nothing_can_be_taken_where_all_scored_nothing() -> None:
    study = study_of(a_task(None), 50, ("light", 0.0, 1.0), ("dear", 0.0, 2.0))
    assert take_today(study, None) is None
    verdict = decide(study)
    assert opening(study, verdict, (), ()) == verdict.sentence.splitlines()[0]


def test_where_nothing_beats_a_fixed_rule_that_is_said_first_and_no_arm_is_taken() -> None:
    study = study_of(a_task(None), 100, ("light", 0.5, 1.0), ("dear", 0.55, 2.0), rule=0.6)
    assert take_today(study, None) is None
    beaten = [TrivialArm(arm="most-frequent", score=study.trivial["most-frequent"], not_beaten_by=("light", "dear"))]
    said = opening(study, decide(study), beaten, ())
    assert said.startswith("Nothing measured beats a fixed rule, giving every question the same answer (60 of 100).")
    assert take_today(study, study.done[0]) is None, "also where the tests show which arm is best"
    enough = study_of(a_task(0.5), 100, ("light", 0.55, 1.0), ("dear", 0.58, 2.0), rule=0.6)
    assert take_today(enough, enough.done[0]) is not None, "an arm that is shown to reach a target is a choice"


@pytest.mark.parametrize(("rule", "said"), [(0.9, "as much (90 of 100)"), (0.91, "more (91 of 100)"), (0.99, "")])
def test_a_rule_that_learns_from_rows_leads_where_it_is_shown_to_be_better_and_is_told_before(
    rule: float, said: str
) -> None:
    study = study_of(a_task(None), 100, ("light", 0.9, 1.0), ("dear", 0.5, 2.0), rule=rule, named="nearest-meaning")
    today = take_today(study, shown_arm(study))
    assert (today is None) is (said == "")
    verdict = replace(decide(study), today=today)
    opened = opening(
        study,
        verdict,
        [TrivialArm(arm="nearest-meaning", score=study.trivial["nearest-meaning"], not_beaten_by=())],
        (),
    )
    if today is None:
        assert opened.startswith("Nothing measured beats a fixed rule, copying the answer")
    else:
        assert f"Use {way('light')}. A fixed rule, nearest-meaning, scored {said}. " in opened
        assert len(opened.split()) <= 60
        assert any("The rule nearest-meaning is copying" in line for line in before_relying(study, verdict, ()))


def test_what_to_know_is_at_most_five_lines_and_begins_with_the_claim() -> None:
    study = study_of(a_task(0.8), 150, ("light", 0.84, 1.0), ("dear", 0.95, 30.0))
    verdict = replace(decide(study), today=today_of(study))
    lines = before_relying(study, verdict, ["more."] * 9)
    assert len(lines) == 5
    assert lines[0].startswith("Shown by a test is")
    assert np.all([len(line.split()) <= 30 for line in lines])


def test_answers_that_the_metric_cannot_decide_may_be_right() -> None:
    study = study_of(a_task(0.8), 1500, ("light", 0.9, 1.0), ("dear", 0.95, 30.0))
    vague = replace(study, results=[replace(arm, extras={**arm.extras, "unsure": 0.04}) for arm in study.results])
    for one, told in ((study, False), (vague, True)):
        lines = before_relying(one, replace(decide(one), today=today_of(one)), [])
        assert any("up to 94 of 100 may be right" in line for line in lines) is told


@pytest.mark.parametrize(("look", "told"), [(1, False), (2, True)])
def test_a_later_study_of_the_same_questions_says_that_it_needs_more_proof(look: int, told: bool) -> None:
    study = replace(study_of(a_task(0.8), 150, ("light", 0.82, 1.0)), look=look)
    verdict = replace(decide(study), today=today_of(study))
    line = before_relying(study, verdict, ())[0]
    assert line.startswith("Not shown by a test yet")
    assert ("a later study of the same questions needs more proof" in line) is told


@pytest.mark.parametrize(
    ("drafted", "told"), [(0, ""), (40, "40 of the 150 test questions"), (150, "All test questions")]
)
def test_that_nobody_asked_the_questions_is_told_first(drafted: int, told: str) -> None:
    study = replace(study_of(a_task(0.8), 150, ("light", 0.9, 1.0)), drafted=drafted)
    first = " ".join(before_relying(study, replace(decide(study), today=today_of(study)), ())[:1])
    assert ("are drafted from the documents" in first) is bool(told)
    assert told in first
