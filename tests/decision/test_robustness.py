"""The rule on the same answers where one thing is judged otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from made_answers import made_answer
from made_studies import a_task, an_arm, usage

from trimtab.base.grammar import arm_from_name
from trimtab.base.records import Answer
from trimtab.base.results import RobustnessCheck, Verdict
from trimtab.base.task import Task
from trimtab.decision.evidence import evidence_of
from trimtab.decision.robustness import robustness_checks, robustness_sentence
from trimtab.decision.summary import way
from trimtab.measurement.figures import score_estimate


def answer(item: int, said: str, *, score: float, group: str | None = None, seed: int = 0) -> Answer:
    return made_answer(f"item-{item}", score, answer=said, group=group, seed=seed, input="Who?", reference=("Ada",))


def varied(answers: dict[str, Sequence[Answer]], task: Task) -> dict[str, str | None]:
    arms, usages = [arm_from_name(name) for name in answers], {name: usage() for name in answers}
    results = [an_arm(name, score_estimate(own, task).value, task) for name, own in answers.items()]
    study = evidence_of(results, answers, arms, task, usages)
    found = robustness_checks(study, answers, lambda *one: evidence_of(*one[:2], arms, one[2], usages))
    return {one.what: one.arm for one in found}


@pytest.fixture
def verbose() -> dict[str, list[Answer]]:
    """Two arms that are alike by `contains`; one of them never gives the answer alone."""
    alone = [answer(n, "Ada" if n % 10 else "Bob", score=float(n % 10 > 0)) for n in range(200)]
    sentence = [answer(n, "It is Ada." if n % 10 else "Bob", score=float(n % 10 > 0)) for n in range(200)]
    return {"prompt": sentence, "lora": alone}


def contains(quality: float | None = None, margin: float = 0.05) -> Task:
    task = a_task(quality, margin=margin)
    return task.model_copy(update={"task": task.task.model_copy(update={"metric": "contains"})})


def test_another_metric_may_turn_the_choice_and_margins_do_not(verbose: dict[str, list[Answer]]) -> None:
    found = varied(verbose, contains())
    assert found["a margin of 0.1"] == found["a margin of 0.075"] == "prompt"
    assert found["scored by exact_match"] == "lora"


def test_a_choice_that_hangs_on_one_group_or_one_run_is_told() -> None:
    def runs(right: Sequence[int], large: float) -> list[Answer]:
        rows = [
            answer(n, "Ada", score=float(n in right), group=f"g{n}", seed=seed) for n in range(80) for seed in (0, 1)
        ]
        rows += [answer(1000 + n, "Ada", score=large, group="large", seed=seed) for n in range(60) for seed in (0, 1)]
        return rows

    few = range(0, 80, 4)
    found = varied({"prompt": runs(few, 0.0), "lora": runs(few, 1.0)}, contains())
    assert "without the group large" in found
    assert found["without the group large"] == "prompt"
    assert {"without run 0", "without run 1"} <= found.keys()


def test_with_a_target_it_is_the_target_that_moves(verbose: dict[str, list[Answer]]) -> None:
    found = varied(verbose, contains(quality=0.84, margin=0.04))
    assert list(found) == ["a target of 0.8", "a target of 0.82", "a target of 0.86", "a target of 0.88"]
    assert found["a target of 0.8"] == "prompt"
    assert found["a target of 0.88"] is None


def test_the_sentence_counts_and_names_what_differs() -> None:
    kept = tuple(RobustnessCheck(what=f"a margin of {n}", arm="a") for n in range(3))
    other = RobustnessCheck(what="without run 1", arm=None)
    verdict = Verdict(status="shown", arm="a", sentence="", robustness=(*kept, other))
    task = a_task(None)
    told = "In 1 of 4 checks what is shown changes: without run 1, nothing is shown."
    assert robustness_sentence(verdict, 2, task) == told
    all_same = "With a margin of 0 of 100, and in 2 more checks, the choice stays the same."
    assert robustness_sentence(replace(verdict, robustness=kept), 2, task) == all_same
    assert robustness_sentence(verdict, 1, task) == ""  # there was nothing to choose from
    assert robustness_sentence(Verdict(status="shown", arm="a", sentence=""), 2, task) == ""


def test_what_would_overturn_a_choice_is_told_in_the_units_of_the_verdict() -> None:
    turned = [("a margin of 0.025", None), ("a margin of 0.1", "lora"), ("a margin of 0.0375", None)]
    checks = tuple(RobustnessCheck(what=what, arm=arm) for what, arm in turned)
    told = robustness_sentence(Verdict(status="shown", arm="a", sentence="", robustness=checks), 2, a_task(None))
    assert told == (
        "In 3 of 3 checks what is shown changes: with a margin of 2.5 or 3.75 of 100, nothing is shown; "
        f"with a margin of 10 of 100, {way('lora')} is shown."
    )


def test_answers_that_the_metric_cannot_decide_are_counted_as_right_in_a_check() -> None:
    decided = [answer(n, "Ada" if n % 4 else "Bob", score=float(n % 4 > 0)) for n in range(200)]
    vague = [answer(n, "perhaps Ada" if n % 4 else "Ada", score=float(n % 4 == 0)) for n in range(200)]
    found = varied({"prompt": vague, "lora": decided}, contains())
    assert found["a margin of 0.1"] == "lora"
    assert found["undecided answers counted as right"] == "prompt", "all of its answers may be right"
    assert "undecided answers counted as right" not in varied({"prompt": decided, "lora": decided}, contains())
