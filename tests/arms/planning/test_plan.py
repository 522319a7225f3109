"""The cuts of arms that do not fit the budget, and their order."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_tasks import CLASSIFY, LABELLED, write_task

from trimtab.arms.artifacts import Allowance
from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.planning.answering_rate import AnsweringRate, passage_tokens, shared_seconds
from trimtab.arms.planning.plan import (
    GAINS_FROM,
    LEAST_COMPARED,
    LEAST_TESTS,
    ArmPlan,
    Plan,
    StagePlan,
    TrainedStanding,
    cheapest_fit,
    fit,
    largest_fitting_sample,
    load_plan,
    replan,
    seeds_that_fit,
    spendable,
    with_fewer_tests,
    with_readmitted,
)
from trimtab.arms.planning.predict import SAMPLE, _Profiler, predict
from trimtab.arms.search.context_search import TrialPlan
from trimtab.arms.session import BATCH_ITEMS, Session, open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.codec import write_record
from trimtab.base.records import Generation, Prompt
from trimtab.base.task import load_task

SCORING = 3.0  # seconds, of what takes milliseconds here


def arm(name: str, epoch: float = 100.0, answer: float = 10.0, choose: float = 30.0, epochs: float = 3.0) -> ArmPlan:
    return ArmPlan(
        arm=name,
        stages=(StagePlan(epoch_seconds=epoch, epochs=epochs),),
        answer_seconds=answer,
        trials=(TrialPlan(what="numbers of shots", count=3, seconds=choose),) if choose else (),
        memory_mb=None,
    )


def test_cuts_come_in_their_order_and_no_further_than_needed() -> None:
    arms = [arm("lora")]  # 2 seeds: 2 (300 + 10) + 30 = 650 seconds
    assert fit(arms, None, 2).cuts == ()
    assert fit(arms, 650, 2).allowance == Allowance(seeds=2, search_seconds=30.0)
    assert fit(arms, 640, 2).allowance.search_seconds == pytest.approx(20.0)
    assert fit(arms, 621, 2).allowance == Allowance(seeds=2)  # a second is not worth beginning
    assert fit(arms, 501, 2).allowance == Allowance(seeds=2, epochs=2.4)  # as many as fit, to two digits
    assert fit(arms, 131, 2).allowance == Allowance(seeds=2, epochs=0.55)
    assert fit(arms, 71, 2).allowance == Allowance(seeds=2, epochs=0.25)
    plan = fit(arms, 60, 2)
    assert plan.allowance == Allowance(seeds=1, epochs=0.5)
    assert [len(plan.cuts), plan.left_out, plan.seconds] == [3, {}, 60.0]
    assert "lora" in fit(arms, 30, 2).left_out


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=6), st.floats(0, 5e3))
def test_every_arm_may_search_for_the_same_time_and_all_of_it_is_used(wanted: list[float], left: float) -> None:
    arms = [replace(arm(f"a{number}", answer=0, choose=seconds), stages=()) for number, seconds in enumerate(wanted)]
    plan = fit(arms, left, 1)
    share = plan.allowance.search_seconds
    spent = sum(min(share, seconds) for seconds in wanted)
    assert share <= max(wanted)
    assert spent <= left + 1e-6
    if 0 < share < max(wanted):  # nothing is left over while any arm wants more
        assert spent == pytest.approx(left)
    if left >= sum(wanted):
        assert share == max(wanted)
        assert plan.cuts == ()


def test_a_budget_counts_on_a_training_that_goes_on_for_as_long_as_it_may() -> None:
    """A short training beside one with a long list of trials may be made longer and longer in the same time."""
    short, long = arm("lora", choose=10.0), arm("lora+rag", choose=300.0)
    assert fit([short, long], 1000, 1).allowance.search_seconds == pytest.approx((1000 - 2 * 310) / 2)
    asked = replace(arm("few-shot", choose=10.0), stages=())
    assert fit([asked, long], 1000, 1).allowance == Allowance(search_seconds=300.0)


def test_what_is_done_beside_the_search_is_counted_for_each_seed_and_a_curve_once() -> None:
    weighing = TrialPlan(what="ways of weighing labels", count=4, seconds=7.0, beside=True)
    one = arm("lora", choose=30.0)
    plan = replace(one, trials=(*one.trials, weighing), curve_seconds=50.0)
    assert plan.search_seconds == 30.0
    assert plan.seconds(Allowance(seeds=2, search_seconds=30.0)) == 2 * (310 + 7) + 30 + 50
    assert plan.seconds(Allowance(seeds=2)) == 2 * 310 + 50, "without a search nothing is weighed"
    assert fit([plan], 390, 1).allowance.search_seconds == pytest.approx(390 - 310 - 7 - 50)


def test_more_seeds_are_trained_where_the_budget_has_room_for_all_of_them() -> None:
    arms = [arm("lora", epoch=100, answer=10, choose=0, epochs=1), arm("prompt", epoch=0, answer=10, choose=0)]
    trained = {"lora": 100.0}
    assert seeds_that_fit(fit(arms, None, 1), trained, 100) == 3
    assert seeds_that_fit(fit(arms, 340, 1), trained, 100) == 3  # 100 made, 20 of answers, twice 110 more
    assert seeds_that_fit(fit(arms, 339, 1), trained, 100) == 2
    assert seeds_that_fit(fit(arms, 200, 1), trained, 100) == 1


def test_the_longest_arm_is_left_out_first_and_told_its_minutes() -> None:
    plan = fit([arm("prompt", epoch=0, choose=0), arm("lora", epoch=1000)], 60, 1)
    assert set(plan.left_out) == {"lora"}
    # 260 s; 60 s less 10 s of the other
    assert plan.left_out["lora"].startswith("it needs about 4.4 min and 0.8 min of the budget are left; raise")
    assert plan.seconds == 10.0


def made(plan: Plan, seconds: float, answer_seconds: float | None = None) -> TrainedStanding:
    return TrainedStanding(allowance=plan.allowance, seconds=seconds, cut=True, answer_seconds=answer_seconds)


def test_what_is_not_made_yet_and_what_was_cut_get_the_time_that_came_back_alike() -> None:
    plan = fit([arm("a", choose=0), arm("b", choose=0)], 220, 1)  # 2 (100 e + 10)
    assert plan.allowance.epochs == 1.0
    assert plan.cuts == ("at most 1 epoch of training",)
    begun = replace(plan, allowances={"a": plan.allowance})
    fast = replan(begun, {"a": made(plan, 20.0)}, 20.0)  # a fifth of what was foretold
    assert fast.allowance.epochs is None  # all 3 epochs of b, and of a again: 60 + 60 + 20 of 200
    assert fast.allowances == {}
    assert fast.cuts == ()
    as_foretold = replan(begun, {"a": made(plan, 100.0)}, 100.0)
    assert as_foretold.allowance.epochs == 1.0
    assert as_foretold.allowances == begun.allowances
    slow = replan(begun, {"a": made(plan, 150.0)}, 150.0)  # 70 seconds are left for 10 + 150 e + 10
    assert slow.allowance.epochs == 0.33
    assert slow.cuts == ("at most 1 epoch of training (a)", "at most 0.33 epoch of training (b)")


def test_where_not_all_that_was_cut_can_be_made_again_the_cheaper_is() -> None:
    plan = fit([arm("a", epoch=40, choose=0), arm("b", choose=0)], 160, 1)
    assert plan.allowance.epochs == 1.0
    begun = replace(plan, allowances=dict.fromkeys("ab", plan.allowance))
    found = replan(begun, {"a": made(plan, 36.0, 10.0), "b": made(plan, 90.0, 10.0)}, 85.0)  # of 160
    assert set(found.allowances) == {"b"}
    assert found.allowance.epochs == pytest.approx(65 / 36, abs=0.01)
    nothing = replan(begun, {"a": made(plan, 36.0, 10.0), "b": made(plan, 90.0, 10.0)}, 125.0)
    assert nothing.allowances == begun.allowances, "a quarter more takes 55 seconds, and 35 are left"


def test_what_does_not_even_fit_at_the_pace_seen_is_left_out() -> None:
    plan = fit([arm("a", choose=0), arm("b", choose=0)], 220, 1)
    begun = replace(plan, allowances={"a": plan.allowance})
    found = replan(begun, {"a": made(plan, 190.0)}, 190.0)
    assert set(found.left_out) == {"b"}


@given(
    st.lists(st.tuples(st.floats(1, 100), st.floats(0.1, 10), st.floats(0.2, 3.0)), min_size=1, max_size=4),
    st.floats(10, 2000),
)
def test_a_study_uses_nine_tenths_of_a_budget_that_it_can_use_and_stays_within_it(rows, budget: float) -> None:
    """Arms that take other times than foretold, made one after the other and again, as a study does."""
    arms = [arm(f"a{number}", epoch, answer, 0.0) for number, (epoch, answer, _) in enumerate(rows)]
    pace = {f"a{number}": row[2] for number, row in enumerate(rows)}
    plan = fit(arms, budget, 1)
    standings: dict[str, TrainedStanding] = {}
    spent = 0.0

    def make(name: str) -> None:
        nonlocal spent, plan
        one = next(one for one in plan.arms if one.arm == name)
        allowance = plan.allowance
        seconds = pace[name] * one.making_seconds(allowance)
        spent += seconds + one.answer_seconds
        cut = allowance.epochs is not None and allowance.epochs < 3
        standings[name] = TrainedStanding(
            allowance=allowance, seconds=seconds, cut=cut, answer_seconds=one.answer_seconds
        )
        plan = replace(plan, allowances={**plan.allowances, name: allowance})

    for name in plan.order:
        if name not in plan.left_out:
            plan = replace(replan(plan, standings, spent), allowances=plan.allowances)
            if name not in plan.left_out:
                make(name)
    rounds = 0
    while again := [name for name in standings if name not in replan(plan, standings, spent).allowances]:
        plan = replace(plan, allowance=replan(plan, standings, spent).allowance)
        make(again[0])
        rounds += 1
        assert rounds < 50
    cut = [name for name, one in standings.items() if one.cut]
    for name in cut:  # what is left is not enough for a quarter more of any
        one = next(one for one in plan.arms if one.arm == name)
        longer = replace(standings[name].allowance, epochs=GAINS_FROM * (standings[name].allowance.epochs or 0.0))
        paces = (
            [standings[other].seconds for other in standings],
            [
                next(two for two in plan.arms if two.arm == other).making_seconds(standings[other].allowance)
                for other in standings
            ],
        )
        seen = sum(paces[0]) / sum(paces[1]) if sum(paces[1]) >= 5 else 1.0
        assert spent + seen * one.making_seconds(longer) + one.answer_seconds > budget * (1 - 0.02)


def test_what_was_left_out_is_taken_in_where_it_is_timed_and_fits_the_shortest_first() -> None:
    names = ("prompt", "a", "b", "c", "d")
    plan = fit([replace(arm(name, epoch=0, answer=500, choose=0), stages=()) for name in names], 600, 1)
    assert set(plan.left_out) == {"prompt", "a", "b", "c"}
    spent, seconds = 100.0, {"prompt": 300.0, "a": 150.0, "b": 100.0}
    anew = [ArmPlan(arm=name, answer_seconds=value) for name, value in seconds.items()]
    anew.append(ArmPlan(arm="c", answer_seconds=1.0, timed=False))
    found = with_readmitted(plan, anew, spent)
    assert set(found.left_out) == {"prompt", "c"}
    assert "it needs about 5.0 min and 4.1 min of the budget are left" in found.left_out["prompt"]  # 250 of 300 seconds
    assert found.left_out["c"] == plan.left_out["c"], "nothing was timed"
    assert [(one.arm, one.answer_seconds) for one in found.arms] == [
        *(("prompt", 300.0), ("a", 150.0), ("b", 100.0), ("c", 500.0), ("d", 500.0))
    ]
    assert found.allowance == plan.allowance
    assert with_readmitted(plan, [ArmPlan(arm="a", problem="no memory")], spent).left_out == plan.left_out


@given(
    st.lists(
        st.tuples(st.floats(0, 1e4), st.floats(0.1, 1e4), st.floats(0, 1e4), st.floats(0, 20)), min_size=1, max_size=5
    ),
    st.floats(0.1, 1e5),
    st.integers(1, 5),
)
def test_what_is_left_fits_and_a_larger_budget_leaves_out_no_more(rows, budget: float, seeds: int) -> None:
    arms = [arm(f"a{number}", *row) for number, row in enumerate(rows)]
    plan = fit(arms, budget, seeds)
    assert plan.seconds <= budget * (1 + 1e-9)
    assert plan.allowance.seeds >= 1
    if not plan.left_out:
        assert not fit(arms, 2 * budget, seeds).left_out
    if not plan.cuts and not plan.left_out:
        assert plan.allowance == Allowance(seeds=seeds, search_seconds=max(row[2] for row in rows))


def test_a_kept_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    plan = fit([arm("lora"), arm("prompt", epoch=0)], 100, 3)
    write_record(tmp_path / "plan.json", plan)
    assert load_plan(tmp_path / "plan.json") == plan
    assert load_plan(tmp_path / "none.json") is None


OWN = """
[arm.fixed]
weights = "base"
context = "few-shot"
shots = 2
[arm.open]
weights = "base"
context = "few-shot"
[arm.tuned]
weights = "lora"
context = "few-shot"
[api.big]
url = "http://127.0.0.1:9"
model = "m"
"""


def a_session(folder: Path, model: Path, arms: list[str], effort: str = "none") -> Session:
    return open_session(open_workspace(load_task(write_task(folder, model, arms, more=OWN, effort=effort))))


def test_an_arm_may_try_what_neither_its_settings_nor_its_endpoint_fix(tmp_path: Path, tiny_model_folder: Path) -> None:
    session = a_session(tmp_path, tiny_model_folder, ["fixed", "open", "tuned", "api-big+few-shot"], effort="standard")
    tried = [{trial.what: trial.count for trial in plan.trials} for plan in predict(session, session.task.arms)]
    wordings = tried[0]["instructions"]
    assert tried[0] == {"instructions": wordings}
    assert tried[1] == {"instructions": wordings, "numbers and draws of shots": 6}
    assert tried[2] == {
        "learning rates": 4,
        "training with the usual settings to the end": 1,
        "training for longer while dev improves": 1,
    }
    assert tried[3] == {}
    assert all(trial.seconds > 0 for plan in predict(session, session.task.arms) for trial in plan.trials)
    none = a_session(tmp_path, tiny_model_folder, ["open", "tuned"])
    assert all(plan.trials == () for plan in predict(none, none.task.arms))


def test_where_nothing_fits_the_cheapest_arm_and_its_budget_are_told() -> None:
    plan = fit([arm("lora", epoch=10_000), arm("prompt", epoch=0, answer=119)], 5, 1)
    assert plan.is_empty
    told = "planning and the verdict leave 0.0 min of it, and the cheapest, prompt, takes about 2.0 min"
    assert cheapest_fit(plan) == (told, "3m")  # 119 s and as much again / 9
    assert cheapest_fit(replace(plan, planning_seconds=70.0))[1] == "4m"
    assert not fit([arm("lora"), arm("prompt", epoch=0, answer=119)], 119, 1).is_empty
    asking = replace(arm("prompt", epoch=0, answer=1000), test_seconds=1000)
    told, enough = cheapest_fit(fit([asking], 5, 1), 1000)  # a tenth of the questions may be asked
    assert told.endswith("prompt, takes about 1.7 min for 100 test questions")
    assert enough == "2m"


@given(st.floats(1, 2000), st.floats(1, 2000))
def test_the_minutes_that_are_needed_are_never_told_as_fewer_than_those_that_are_left(
    budget: float, more: float
) -> None:
    plan = fit([arm("prompt", epoch=0, answer=budget + more, choose=0)], budget, 1)
    left, needed = (float(found) for found in re.findall(r"([0-9.]+) min", cheapest_fit(plan)[0]))
    assert left < needed


def test_of_a_budget_a_twentieth_is_kept_beside_what_planning_took() -> None:
    assert spendable(None) is None
    assert spendable(600.0) == pytest.approx(570)
    assert spendable(600.0, planning=50.0) == pytest.approx(520)
    assert spendable(10.0, planning=50.0) == 0.0
    seconds = 105.0  # the budget that is named for the cheapest arm holds it, whatever planning takes of its tenth
    plan = fit([arm("prompt", epoch=0, answer=seconds, choose=0)], 1.0, 1)
    named = 60 * float(cheapest_fit(plan)[1].removesuffix("m"))
    assert seconds <= (spendable(named, planning=0.1 * named) or 0.0)


def test_where_planning_has_no_time_arms_are_foretold_from_one_answer(tmp_path: Path, tiny_model_folder: Path) -> None:
    session = a_session(tmp_path, tiny_model_folder, ["prompt", "few-shot", "lora", "tuned"])
    answer, asked = session.answer, []
    session.answer = lambda prompts, **more: asked.append(len(prompts)) or answer(prompts, **more)  # type: ignore[method-assign]
    plans = predict(session, session.task.arms, seconds=0.0)
    assert asked == [1]
    assert [plan.timed for plan in plans] == [True, False, False, False]
    seconds = {plan.arm: plan.seconds(Allowance()) for plan in plans}
    assert all(value > 0 for value in seconds.values())
    assert seconds["lora"] > seconds["prompt"]
    assert seconds["tuned"] > seconds["lora"]  # its prompts are longer
    asked.clear()
    assert all(plan.timed for plan in predict(session, session.task.arms, seconds=60.0))
    assert len(asked) > 2


def test_what_scoring_labels_takes_is_not_held_against_training(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["prompt", "lora", "lora-head"], task=CLASSIFY, data=LABELLED)
    session = open_session(open_workspace(load_task(task)))
    answer = session.answer

    def slowly(prompts: Sequence[Prompt], **more: Any) -> list[Generation]:  # as beside many labels
        time.sleep(SCORING)
        return [replace(one, seconds=SCORING, prefill_seconds=SCORING) for one in answer(prompts, **more)]

    session.answer = slowly  # type: ignore[method-assign]
    prompt, lora, head = predict(session, session.task.arms, seconds=0.0)
    assert [prompt.timed, lora.timed, head.timed] == [True, False, False]
    rows, tests = (len(session.workspace.splits[name]) for name in ("train", "test"))
    assert lora.answer_seconds == prompt.answer_seconds > tests * SCORING
    for plan in (lora, head):  # by the seconds of scoring it would be three times those of each row
        assert plan.stages[0].epoch_seconds < 0.2 * SCORING * rows
    assert head.answer_seconds < 0.2 * SCORING * tests


def test_no_index_is_made_for_a_plan_that_has_no_time_for_it(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path
) -> None:
    (tmp_path / "a.md").write_text("# Aalen\nAalen has a bridge.\n")
    base = f'embedding = "{tiny_embedding_folder}"'
    task = write_task(tmp_path, tiny_model_folder, ["rag"], data='documents = ["a.md"]', base=base)
    session = open_session(open_workspace(load_task(task)))
    (plan,) = predict(session, session.task.arms, seconds=0.0)
    assert not plan.timed
    assert plan.answer_seconds > 0
    assert not list((tmp_path / ".trimtab").glob("index/*.json"))
    timing = _Profiler(session, 0.0)
    timing._embedded = 100.0  # seconds a character
    first, second = (timing.arm(arm).answer_seconds for arm in (session.task.arms[0], session.task.arms[0]))
    assert first > 1000 > second  # the first arm that needs the index makes it
    (plan,) = predict(session, session.task.arms)
    assert plan.timed
    assert list((tmp_path / ".trimtab").glob("index/*.json"))


def test_quotes_are_timed_as_quotes(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.md").write_text("# Aalen\nAalen has a bridge.\n")
    base = f'embedding = "{tiny_embedding_folder}"'
    task = write_task(tmp_path, tiny_model_folder, ["rag", "rag+quote"], data='documents = ["a.md"]', base=base)
    session, answered = open_session(open_workspace(load_task(task))), Session.answer
    for arm in session.task.arms:
        texts: list[str] = []

        def answer(session: Session, *asked: Any, texts: list[str] = texts, **how: Any) -> list[Generation]:
            given = answered(session, *asked, **how)
            texts += [one.text for one in given]
            return given

        monkeypatch.setattr(Session, "answer", answer)
        (plan,) = predict(session, [arm])
        assert plan.timed
        held = [one in "Aalen has a bridge." or one == session.task.task.unknown for one in texts]
        assert texts
        assert all(held) == (arm.name == "rag+quote")


def test_tokens_of_passages_are_counted_by_those_of_the_documents(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path
) -> None:
    """Short documents and long ones: prompts with passages come to what was counted before any was looked up."""
    for name, words in (("short", 10), ("long", 110)):
        folder = tmp_path / name
        folder.mkdir()
        for number in range(20):
            text = " ".join(f"Aalen{number * words + place}" for place in range(words))
            (folder / f"{number}.md").write_text(f"# Aalen\n{text}.\n")
        base = f'embedding = "{tiny_embedding_folder}"'
        task = write_task(folder, tiny_model_folder, ["rag"], data='documents = ["*.md"]', base=base)
        session = open_session(open_workspace(load_task(task)))
        context, rows = Context(passages=3), session.workspace.subset("dev", 8)
        counted = 3 * passage_tokens(session, context.words)
        plain, shown = (
            [
                len(session.encoder.prompt(one.messages))
                for one in PromptBuilder(session, shown, fits=False).prompts(rows)
            ]
            for shown in (Context(), context)
        )
        assert counted == pytest.approx(sum(shown) / len(rows) - sum(plain) / len(rows), rel=0.15)


def test_the_rate_of_cut_answers_counts_as_if_they_went_on(tmp_path: Path, tiny_model_folder: Path) -> None:
    session = a_session(tmp_path, tiny_model_folder, ["prompt"])
    session.output_tokens = 100  # the random model never ends by itself
    prompts = PromptBuilder(session, Context()).prompts(session.workspace.subset("dev", 4))
    assert all(one.new_tokens <= 3 for one in session.answer(prompts, most=3))
    timing = _Profiler(session, 0.0)
    cut, given = timing._time_batch(prompts, 3)
    assert cut > sum(one.seconds for one in given)


def test_weights_that_learnt_short_answers_are_foretold_to_answer_faster(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    session = a_session(tmp_path, tiny_model_folder, ["prompt", "lora"])
    session.output_tokens = 100  # the random model never ends by itself
    base, tuned = predict(session, session.task.arms)
    assert tuned.answer_seconds < 0.6 * base.answer_seconds  # the references have a few tokens
    rate = AnsweringRate(
        **{"each": 1.0, "together": 64.0, "alone": 3.0, "token": 0.0, "tokens": 1.0, "own": 1, "memory_mb": 0.0},
        timed=True,
        decoding=0.5,
        new_tokens=20,
    )
    assert (rate.with_new_tokens(10).batch_mean_seconds, rate.with_new_tokens(10).alone) == (1.5, 2.25)
    assert rate.with_new_tokens(40).batch_mean_seconds == 2.0  # never slower than what was timed
    assert [rate.seconds(questions) for questions in (1, 64, 65)] == [65.0, 128.0, 193.0]  # whole batches first


@pytest.mark.parametrize(
    ("few", "several", "shared"), [(2.0, 5.0, 1.0), (1.0, 4.0, 0.0), (0.5, 4.0, 0.0), (4.0, 4.0, 4.0)]
)
def test_what_questions_share_is_told_by_asking_fewer_of_them(few: float, several: float, shared: float) -> None:
    assert shared_seconds(4, few, 16, several) == shared
    assert shared_seconds(3, few, 3, few) == 0.0


@pytest.mark.parametrize(("given_seconds", "is_whole"), [(1000.0, True), (40.0, False)])
def test_one_question_alone_is_foretold_by_how_long_answers_are_and_not_by_where_timing_cut_them(
    given_seconds: float, is_whole: bool, tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And by a whole batch of answers where there is time for one: 16 do not tell how long they are."""
    session, clock = a_session(tmp_path, tiny_model_folder, ["prompt"]), [0.0]
    session.output_tokens = 128
    rows = [row for split in ("dev", "train") for row in session.workspace.splits[split]]
    lengths = {row.id: 33 + 7 * number % 60 for number, row in enumerate(rows)}
    asked: list[str] = []

    def answer(prompts: Sequence[Prompt], *, most: int | None = None, **_: Any) -> list[Generation]:
        given = []
        for prompt in prompts:
            asked.append(prompt.id)
            new = min(lengths[prompt.id], most or 128)
            seconds = 0.01 + 0.002 * new
            clock[0] += seconds
            given.append(Generation(id=prompt.id, text="", new_tokens=new, seconds=seconds, prefill_seconds=0.01))
        return given

    monkeypatch.setattr(session, "answer", answer)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    rate = _Profiler(session, given_seconds)._measured_rate(Context())
    assert len(set(asked)) == (min(BATCH_ITEMS, len(rows)) if is_whole else SAMPLE)
    usual = sum(lengths[one] for one in set(asked)) / len(set(asked))
    assert rate.new_tokens == pytest.approx(usual)
    assert rate.alone == pytest.approx(0.01 + 0.002 * usual)
    assert rate.batch_mean_seconds == pytest.approx(0.01 + 0.002 * usual, rel=0.02)  # a few are not as long as all
    assert rate.decoding == pytest.approx(0.002 * usual / rate.alone)


def test_looks_are_foretold_for_each_stage_that_has_them(tmp_path: Path, tiny_model_folder: Path) -> None:
    (tmp_path / "a.md").write_text("# Aalen\nAalen has a bridge.\n")
    task = write_task(tmp_path, tiny_model_folder, ["lora-docs"], data='documents = ["a.md"]')
    session = open_session(open_workspace(load_task(task)))
    (plan,) = predict(session, session.task.arms)
    looks = [stage.look_seconds for stage in plan.stages]
    assert looks[0] == 0 < looks[1]  # nothing of dev is asked while documents are read
    without = sum(stage.epoch_seconds * stage.epochs for stage in plan.stages) + plan.answer_seconds
    assert plan.seconds(Allowance()) == pytest.approx(without + 4 * looks[1])
    assert plan.seconds(Allowance(), trained=0.5) < plan.seconds(Allowance())


@given(st.floats(10, 500), st.integers(50, 3000))
def test_fewer_test_questions_are_asked_only_where_an_arm_would_be_left_out(budget: float, tests: int) -> None:
    arms = [
        ArmPlan(arm=name, answer_seconds=seconds + 5, test_seconds=seconds)
        for name, seconds in (("a", 40.0), ("b", 90.0))
    ]
    plan = fit(arms, budget, 1)
    fewer = with_fewer_tests(plan, tests)
    if fewer.test_rows is None:
        assert fewer == plan
        return
    assert plan.left_out
    assert LEAST_TESTS <= fewer.test_rows < tests
    unasked = with_fewer_tests(plan, tests, asked_for=False)
    assert plan.is_empty or unasked == plan or unasked.test_rows >= LEAST_COMPARED
    assert len(fewer.left_out) < len(plan.left_out)
    assert fewer.seconds <= budget * (1 + 1e-9)
    one_more = fit([one.with_test_share((fewer.test_rows + 1) / tests) for one in arms], budget, 1)
    assert len(one_more.left_out) > len(fewer.left_out) or fewer.test_rows + 1 == tests


def test_a_sample_is_proposed_that_trains_every_arm_in_full() -> None:
    arms = [arm("lora", epoch=100.0, answer=10.0, choose=30.0)]
    assert largest_fitting_sample(fit(arms, 1000, 1), 5000) is None
    rows = largest_fitting_sample(fit(arms, 100, 1), 5000)
    assert rows is not None
    assert fit([one.with_row_share(rows / 5000) for one in arms], 100, 1).is_complete
    assert rows % 100 == 0
    assert largest_fitting_sample(fit(arms, 1, 1), 5000) is None
