"""An audit: what is drawn, what the metric's errors come to, and scores corrected for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from made_answers import made_answer
from scipy import stats

from trimtab.base.records import Answer
from trimtab.base.task import Task
from trimtab.measurement import audit as audit_module
from trimtab.measurement.audit import (
    ENOUGH,
    RATE_ALIKE,
    RATE_DIFFERING,
    Audited,
    AuditItem,
    audited_answers,
    draw_audit,
)
from trimtab.measurement.judging_session import Judging
from trimtab.measurement.raters import audit_looks, judged_by_key

TASK = Task.model_validate(
    {"task": {"name": "t", "kind": "answer"}, "data": {"examples": ["rows.jsonl"]}, "base": {"model": "m"}}
)


def answer(item: int, text: str, score: float, seed: int = 0) -> Answer:
    return made_answer(f"{item:04}", score, answer=text, input=f"question {item}", seed=seed)


def made(
    seed: int, count: int = 300, sensitivity: tuple[float, float] = (0.85, 0.85), specificity: float = 0.9
) -> tuple[dict[str, list[Answer]], dict[tuple[str, str], bool]]:
    """Two arms, right in 80% and in 70%, and a metric that errs."""
    draw = np.random.default_rng(seed)
    answers: dict[str, list[Answer]] = {}
    right: dict[tuple[str, str], bool] = {}
    for arm, share, found in zip("ab", (0.8, 0.7), sensitivity, strict=True):
        true = draw.random(count) < share
        says = np.where(true, draw.random(count) < found, draw.random(count) >= specificity)
        answers[arm] = [answer(item, f"{arm} says", float(says[item])) for item in range(count)]
        right |= {(f"{item:04}", f"{arm} says"): bool(true[item]) for item in range(count)}
    return answers, right


def test_a_draw_prefers_questions_on_which_arms_differ_and_a_larger_one_goes_on_from_it() -> None:
    answers, _ = made(0)
    scores = {arm: [one.score for one in own] for arm, own in answers.items()}
    differing = {f"{item:04}" for item, (a, b) in enumerate(zip(scores["a"], scores["b"], strict=True)) if a != b}
    few, many = draw_audit(answers, 40), draw_audit(answers, 100)
    assert few == many[: len(few)]
    items = list(dict.fromkeys(one.item_id for one in few))
    assert len(items) == 40
    odds = RATE_DIFFERING * len(differing) / (300 - len(differing))
    assert len(differing & set(items)) == pytest.approx(40 * odds / (1 + odds), abs=1)
    assert len(few) == 80  # both arms' answers to each
    first = [one.answer[0] for one in many[::2]]
    assert 0.3 < first.count("a") / len(first) < 0.7  # no arm comes first


def test_questions_that_all_answer_alike_are_drawn_half_as_often_unless_scores_are_held_against_a_target() -> None:
    answers, _ = made(0)
    graded = {arm: [replace(one, score=0.5 * one.score) for one in own] for arm, own in answers.items()}
    alike = {arm: [replace(one, answer="same", score=1.0) for one in own[:100]] for arm, own in graded.items()}
    graded = {arm: alike[arm] + own[100:] for arm, own in graded.items()}

    def share(for_target: bool) -> float:
        return (
            len(
                {one.item_id for one in draw_audit(graded, 60, for_target=for_target)}
                & set(map("{:04}".format, range(100)))
            )
            / 60
        )

    assert share(for_target=True) == pytest.approx(1 / 3, abs=0.02)
    assert share(for_target=False) == pytest.approx(1 / 3 * RATE_ALIKE / (2 / 3 + 1 / 3 * RATE_ALIKE), abs=0.02)


def test_where_two_arms_answer_alike_their_difference_needs_no_judge() -> None:
    answers, right = made(2)
    for item in range(200):
        answers["b"][item] = answers["a"][item]
    unlike = {key: value for key, value in right.items() if int(key[0]) >= 200}
    people = {**unlike, **{(f"{item:04}", "a says"): 1.0 for item in range(60)}}
    gap = Audited(answers, people, TASK).difference("a", "b")
    true = np.mean([right[f"{item:04}", "a says"] - right[f"{item:04}", "b says"] for item in range(200, 300)]) / 3
    assert gap.difference == pytest.approx(true)
    every = Audited(answers, {**right, **unlike}, TASK).difference("a", "b")
    assert (gap.low, gap.high) == pytest.approx((every.low, every.high), abs=0.01)


def test_an_audit_that_was_drawn_by_the_former_rule_still_estimates_without_bias() -> None:
    """Half of its questions were those on which scores differ; within each stratum of today it is a plain draw."""
    errors = []
    for seed in range(120):
        answers, right = made(seed, sensitivity=(0.7, 0.95))
        for item in range(0, 300, 3):
            answers["b"][item] = answers["a"][item]
        pairs = list(zip(answers["a"], answers["b"], strict=True))
        differing = [a.item_id for a, b in pairs if a.score != b.score]
        equal = [a.item_id for a, b in pairs if a.score == b.score]
        ordered = [sorted(part, key=audit_module._hash)[:40] for part in (differing, equal)]
        asked = {item for part in ordered for item in part}
        judged = {key: value for key, value in right.items() if key[0] in asked}
        said = {arm: [right[one.item_id, one.answer] for one in own] for arm, own in answers.items()}
        errors.append(
            Audited(answers, judged, TASK).difference("a", "b").difference - (np.mean(said["a"]) - np.mean(said["b"]))
        )
    assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(len(errors))


def test_equal_answers_are_judged_once_and_nothing_says_whose_an_answer_is() -> None:
    answers = {arm: [answer(item, "same", 1.0) for item in range(5)] for arm in ("prompt", "rag")}
    found = draw_audit(answers, 5)
    assert len(found) == 5
    assert all("rag" not in repr(one) and "prompt" not in repr(one) for one in found)
    assert draw_audit(answers, 99) == found
    assert audited_answers({"lora": [answer(0, "second", 0.0, seed=1), answer(0, "first", 1.0)]})["lora"][
        "0000"
    ].answer == ("first")


def test_a_comparison_shows_two_answers_in_a_drawn_order_and_counts_for_the_right_one() -> None:
    """Whoever always prefers the arm's answer gives it 1, and the reference 0, in whichever place they stand."""
    answers = {"a": [replace(answer(item, f"a says {item}", 1.0), reference=("theirs",)) for item in range(40)]}
    drawn = draw_audit(answers, 40, ("clear (of two answers): Is clear.",), pairs=True)
    places = [one.place for one in drawn]
    assert 10 < places.count("first") < 30
    for preferred, value in (("a says", 1.0), ("theirs", 0.0)):
        session = Kept(drawn)
        judging = Judging(session)
        assert [choice.value for choice in judging.choices][:3] == ["first", "second", "tie"]
        while judging.asked is not None:
            shown = dict(judging.asked.parts)
            assert "Reference" not in shown
            judging.take("first" if shown["First"][0].startswith(preferred) else "second")
        assert session.values == [value] * 40
    tie = Kept(drawn[:1])
    Judging(tie).take("tie")
    assert tie.values == [0.5]


class Kept:
    """Judgements in memory."""

    def __init__(self, pending: Sequence[AuditItem]) -> None:
        self.pending, self.values = pending, list[float | None]()

    def judge(self, asked: AuditItem, value: float | None) -> None:
        self.values.append(value)

    def undo(self, asked: AuditItem) -> None:
        self.values.pop()


def test_where_all_answers_are_judged_the_corrected_figures_are_those_of_people() -> None:
    answers, right = made(1, count=120)
    audited = Audited(answers, right, TASK)
    share = {arm: np.mean([right[one.item_id, one.answer] for one in own]) for arm, own in answers.items()}
    assert audited.score("a").value == pytest.approx(share["a"])
    assert audited.difference("a", "b").difference == pytest.approx(share["a"] - share["b"])
    held = next(one for one in audited.by_arm if one.arm == "a")
    said = np.array([right[one.item_id, one.answer] for one in answers["a"]])
    told = np.array([one.score == 1.0 for one in answers["a"]])
    assert held.sensitivity is not None
    assert held.specificity is not None
    assert held.sensitivity.value == pytest.approx(told[said].mean())
    assert held.specificity.value == pytest.approx((~told[~said]).mean())
    from sklearn.metrics import cohen_kappa_score

    assert held.kappa is not None
    assert held.kappa.value == pytest.approx(cohen_kappa_score(said, told))
    assert held.kappa.low < held.kappa.value < held.kappa.high


def test_a_metric_that_gives_parts_of_a_point_is_not_held_to_people() -> None:
    answers, right = made(1, count=120)
    graded = {arm: [replace(row, score=0.6 * row.score) for row in rows] for arm, rows in answers.items()}
    audited = Audited(graded, right, TASK)
    assert audited.why_not is not None
    for held in audited.by_arm:
        assert (held.sensitivity, held.specificity, held.kappa) == (None, None, None)


def test_corrected_intervals_hold_the_true_share_where_those_of_the_metric_do_not() -> None:
    covered = plain = gaps = claimed = 0
    for seed in range(150):
        answers, right = made(seed)
        judged = {(one.item_id, one.answer): right[one.item_id, one.answer] for one in draw_audit(answers, 100)}
        audited = Audited(answers, judged, TASK)
        score, held = audited.score("a"), audited.by_arm[0]
        covered += score.low <= 0.8 <= score.high
        plain += held.metric_score.low <= 0.8 <= held.metric_score.high
        gap = audited.difference("a", "b")
        gaps += gap.low <= 0.1 <= gap.high
        claimed += audited.target_curve("a")(0.8) <= 0.05
    assert covered >= 135
    assert gaps >= 135
    assert plain < 75
    assert claimed <= 15


def test_curves_and_intervals_agree() -> None:
    answers, right = made(3)
    audited = Audited(answers, right, TASK)
    score, gap = audited.score("a"), audited.difference("a", "b")
    assert audited.target_curve("a")(score.low) == pytest.approx(0.025)
    assert audited.target_curve("a")(audited.floor("a")) == pytest.approx(0.05)
    assert audited.behind_curve("a", "b")(-gap.low) == pytest.approx(0.025)


def test_it_is_used_from_sixty_questions_on_and_only_for_right_or_wrong() -> None:
    answers, right = made(4)
    for count, used in ((ENOUGH - 1, False), (ENOUGH, True)):
        judged = {(one.item_id, one.answer): right[one.item_id, one.answer] for one in draw_audit(answers, count)}
        assert (Audited(answers, judged, TASK).why_not is None) is used
    assert Audited(answers, {}, TASK).by_arm == ()
    graded = {arm: [replace(one, score=one.score * 0.9) for one in own] for arm, own in answers.items()}
    held = Audited(graded, right, TASK)
    assert held.why_not is not None
    assert "parts of a point" in held.why_not
    assert held.by_arm  # the agreement is told all the same


def test_looks_widen_what_the_judgements_leave_open_and_one_look_changes_nothing() -> None:
    answers, right = made(5)
    asked = draw_audit(answers, 100)
    judged = {(one.item_id, one.answer): right[one.item_id, one.answer] for one in asked}
    widths = []
    for looks in (0, 1, 2, 8):
        gap = Audited(answers, judged, TASK, looks).difference("a", "b")
        widths.append(gap.high - gap.low)
    assert widths[0] == widths[1] < widths[2] < widths[3]
    rows = [
        {"item": "q1", "answer": "a", "criterion": "", "value": 1.0},
        {"item": "", "answer": "", "criterion": "", "value": None},
    ]
    assert audit_looks(rows * 2) == 2
    assert judged_by_key(rows * 2, {"": 1.0}) == {("q1", "a"): 1.0}


def test_a_metric_that_favours_an_arm_is_found_and_an_even_one_is_not() -> None:
    answers, right = made(5, sensitivity=(0.6, 0.98))
    found = Audited(answers, right, TASK).uneven(0.02)
    assert found is not None
    assert set(found[:2]) == {"a", "b"}
    assert found[2] > 0.1
    answers, right = made(5)
    assert Audited(answers, right, TASK).uneven(0.02) is None


def test_in_groups_whose_questions_are_alike_a_score_is_as_sure_as_the_groups_are_many() -> None:
    draw = np.random.default_rng(2)
    groups, each = 30, 10
    true = np.repeat(draw.random(groups) < 0.5, each)
    says = np.where(draw.random(groups * each) < 0.7, true, ~true)  # errs from question to question
    rows = [
        replace(answer(item, "a says", float(found)), group=f"g{item // each}")
        for item, found in enumerate(says.tolist())
    ]
    said = {(row.item_id, "a says"): float(right) for row, right in zip(rows, true.tolist(), strict=True)}
    score = Audited({"a": rows}, said, TASK).score("a")
    assert score.value == pytest.approx(true.mean())
    of_groups = stats.t.isf(0.025, groups - 1) * true[::each].std(ddof=1) / np.sqrt(groups)
    assert (score.high - score.low) / 2 == pytest.approx(of_groups, rel=0.05)


def test_a_metric_that_says_nothing_leaves_the_whole_uncertainty_of_people_and_groups_widen_it() -> None:
    draw = np.random.default_rng(5)
    alike = np.repeat(draw.random(30) < 0.5, 10)  # groups of ten questions with the same answer
    plain = {"a": [answer(item, "a says", 1.0) for item in range(300)]}
    grouped = {"a": [replace(row, group=f"g{item // 10}") for item, row in enumerate(plain["a"])]}
    asked = {one.item_id for one in draw_audit(plain, 200)}
    right = {(f"{item:04}", "a says"): float(alike[item]) for item in range(300) if f"{item:04}" in asked}
    widths = []
    for answers in (plain, grouped):
        found = Audited(answers, right, TASK).score("a")
        widths.append(found.high - found.low)
    independent = 2 * 1.96 * np.sqrt(0.25 / 300)
    assert widths[0] > independent
    assert widths[1] > 2 * widths[0]
