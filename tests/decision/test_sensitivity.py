"""What would flip a verdict, against the decision itself on both sides of each threshold."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_answers import made_answer
from made_studies import TOKENS, USAGES, a_task, an_arm, usage, verdict

from trimtab.base.grammar import arm_from_name
from trimtab.base.records import Answer
from trimtab.base.results import Flip
from trimtab.base.task import Task
from trimtab.decision.choice import choose
from trimtab.decision.cost import cost_of
from trimtab.decision.evidence import Evidence, evidence_of
from trimtab.decision.sensitivity import MIX, chance_of_flip, find_flips
from trimtab.decision.verdict import decide
from trimtab.measurement.audit import Audited
from trimtab.measurement.figures import score_estimate, score_floor


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


def test_rates_of_several_kinds_flip_together() -> None:
    def changing(factor: float) -> Task:
        kinds = ({"share": 0.1, "per_month": 0.1 * factor}, {"share": 0.4, "per_month": 0.005 * factor})
        return a_task(change={"kinds": kinds, "lead_days": 3})

    task = changing(1)
    found = verdict([an_arm("lora", 0.95, task), an_arm("rag", 0.95, task)], task)
    assert found.arm == "lora"
    (flip,) = [flip for flip in found.flips if flip.what.startswith("change.")]
    assert (flip.what, flip.then) == ("change.kinds", "rag")
    assert flip.above is not None
    for factor, winner in ((flip.above * 0.98, "lora"), (flip.above * 1.02, "rag")):
        moved = changing(factor)
        assert verdict([an_arm("lora", 0.95, moved), an_arm("rag", 0.95, moved)], moved).arm == winner


def test_targets_flip_where_the_test_turns() -> None:
    """The lower target at prompt's one-sided bound alone, as both others pass by far; the higher where lora is one
    of two left."""
    task = a_task()
    arms = [an_arm("prompt", 0.8, task), an_arm("lora", 0.92, task), an_arm("lora+rag", 0.96, task)]
    found = verdict(arms, task)
    assert found.arm == "lora"
    lower, higher = [flip for flip in found.flips if flip.what == "quality"]
    assert (lower.then, lower.below, lower.above) == (
        "prompt",
        pytest.approx(0.8 - 1.645 * 0.04 / 1.96, abs=1e-4),
        None,
    )
    assert (higher.then, higher.below, higher.above) == ("lora+rag", None, pytest.approx(0.88, abs=1e-4))
    for target, winner in ((0.765, "prompt"), (0.768, "lora"), (0.879, "lora"), (0.881, "lora+rag")):
        at = a_task(target)
        assert verdict([an_arm(arm.arm, arm.score.value, at) for arm in arms if arm.score], at).arm == winner


def test_beyond_the_last_arm_nothing_is_shown() -> None:
    task = a_task()
    found = verdict([an_arm("lora+rag", 0.95, task), an_arm("rag", 0.4, task)], task)
    lower, higher = found.flips
    assert (lower.what, lower.then, lower.above) == ("quality", "rag", None)
    assert (higher.what, higher.then, higher.below) == ("quality", "not shown", None)
    assert higher.above == pytest.approx(0.91, abs=1e-4)


def test_without_a_target_a_volume_flips_to_the_arm_that_the_rule_shows_there() -> None:
    """Two arms that do equally well; lora is the lighter one above a volume, and neither is made up where prices do
    not matter."""
    task = a_task(None)
    arms = [an_arm("rag", 0.9, task), an_arm("lora", 0.9, task)]
    found = verdict(arms, task, {("rag", "lora"): (0.0, 0.01)})
    assert found.arm == "lora"
    (flip,) = [flip for flip in found.flips if flip.what == "questions_per_month"]
    assert (flip.what, flip.then) == ("questions_per_month", "rag")
    assert flip.below == pytest.approx((9000 - 30) / 12 / 0.65)


def test_where_the_lighter_arm_beyond_a_volume_is_open_the_flip_says_not_shown() -> None:
    """Below the volume rag is the lighter one, and neither shown to be as good as lora nor to be worse by the
    margin."""
    task = a_task(None)
    arms = [an_arm("rag", 0.89, task), an_arm("lora", 0.9, task)]
    found = verdict(arms, task, {("lora", "rag"): (0.01, 0.025)})
    assert found.arm == "lora"
    volumes = [flip for flip in found.flips if flip.what == "questions_per_month"]
    assert [flip.then for flip in volumes] == ["not shown"]


def test_a_price_of_labels_and_a_margin_flip_where_the_rule_says_so() -> None:
    task = a_task(
        machine_hour={"price": 0.4, "as_of": "2026-11-01", "source": "list"},
        hosting="on-demand",
        label={"price": 0.001},
    )
    used = {"rag": usage(0.9), "lora": usage(0.3, train=9000, labels=1_000)}
    found = verdict(
        [an_arm("rag", 0.95, task, used=used["rag"]), an_arm("lora", 0.95, task, used=used["lora"])], task, usages=used
    )
    assert found.arm == "lora"
    (flip,) = [flip for flip in found.flips if flip.what == "label"]
    saved = (12 * 10_000 * 0.6 - 9000) * 0.4 / 3600
    assert flip.then == "rag"
    assert flip.above is not None
    assert flip.above == pytest.approx(saved / 1_000, rel=0.15)  # to within what counts as an equal cost
    gap = {("lora", "rag"): (0.0, 0.01)}
    close = verdict([an_arm("rag", 0.9, a_task(None)), an_arm("lora", 0.9, a_task(None))], a_task(None), gap)
    (flip,) = [flip for flip in close.flips if flip.what == "margin"]
    assert flip.below is not None
    for margin, same in ((flip.below * 0.98, False), (flip.below * 1.02, True)):
        moved = a_task(None, margin=margin)
        arm = verdict([an_arm("rag", 0.9, moved), an_arm("lora", 0.9, moved)], moved, gap).arm
        assert (arm == close.arm) is same


def test_the_mix_that_flips_is_where_the_other_arm_takes_over() -> None:
    """prompt is right on common questions, rag on rare ones: from some share of rare ones on prompt does not reach
    the target."""
    answers, task = {"prompt": _by_slice(0.95, 0.4), "rag": _by_slice(0.9, 0.9)}, a_task(0.75)
    _check_mix_flip(answers, task)


def test_slices_of_few_questions_have_no_mix_that_flips() -> None:
    task = a_task(0.75)
    few = {"prompt": _by_slice(0.95, 0.4, 9), "rag": _by_slice(0.9, 0.9, 9)}
    assert not [flip for flip in decide(_evidence(few, task)).flips if flip.what.startswith(MIX)]


def test_the_mix_that_flips_macro_f1_is_where_the_verdict_of_that_mix_turns() -> None:
    """Macro-F1 is counted anew with the weights of each mix, so that a study that states the mix decides as the flip
    says."""
    task = _of_labels(a_task(0.75))
    answers = {"prompt": _labels(0.95, 0.4), "rag": _labels(0.9, 0.9)}
    _check_mix_flip(answers, task)


def test_a_mix_under_which_a_class_weighs_too_little_shows_no_arm_for_macro_f1() -> None:
    """All is right, and two of 24 questions of class c are of the rare slice: the heavier that weighs, the less is
    known of c."""
    task = _of_labels(a_task(0.5))
    labels = {"common": "a" * 130 + "b" * 118 + "c" * 22, "rare": "a" * 15 + "b" * 13 + "c" * 2}
    answers = {
        "prompt": [
            made_answer(f"{name}-{place:03}", 1.0, slice=name, answer=label, reference=(label,))
            for name, own in labels.items()
            for place, label in enumerate(own)
        ]
    }
    found = _evidence(answers, task)
    (flip,) = [one for one in decide(found).flips if one.what.startswith(MIX)]
    assert (flip.what, flip.then) == ("mix.rare", "not shown")
    assert flip.above is not None
    stated = _mixed(task, {"rare": flip.above + 0.01, "common": 0.99 - flip.above})
    assert found.under(stated).rarest_class == ("c", 9)
    beyond = decide(_evidence(answers, stated))
    assert beyond.arm is None
    assert "The class c has 9 test questions" in beyond.sentence


def test_the_mix_that_flips_an_audited_verdict_is_of_the_corrected_scores() -> None:
    """People find every answer of prompt to a rare question right, which the metric rejects: then no share of them
    flips."""
    made, task = {"prompt": _by_slice(0.97, 0.4), "rag": _by_slice(0.9, 0.9)}, a_task(0.75)
    answers = {arm: [replace(one, answer=arm) for one in own] for arm, own in made.items()}
    judged = {
        (one.item_id, one.answer): one.score == 1.0 or (arm == "prompt" and one.slice == "rare")
        for arm, own in answers.items()
        for one in own
    }
    plain, people = _evidence(answers, task), _evidence(answers, task, Audited(answers, judged, task))
    assert [flip.then for flip in decide(plain).flips if flip.what == "mix.rare"] == ["rag"]
    shown = choose(people).arm
    assert shown is not None
    assert shown.arm == "prompt"
    assert not [flip for flip in find_flips(people, shown) if flip.what == "mix.rare" and flip.above is not None]
    stated = _mixed(task, {"rare": 0.6, "common": 0.4})
    moved = _evidence(answers, stated, Audited(answers, judged, stated))
    for arm in answers:
        assert people.under(stated).p_target(arm, 0.8) == pytest.approx(moved.p_target(arm, 0.8))
        assert people.under(stated).p_target(arm, 0.8) != plain.under(stated).p_target(arm, 0.8)


def _check_mix_flip(answers: dict[str, list[Answer]], task: Task) -> None:
    """Assert that prompt is shown, that only a share of rare questions flips it, to rag, and that studies which state
    the mix on either side of that share decide so, as does the rule on the evidence reweighted."""
    found = _evidence(answers, task)
    verdict = decide(found)
    assert verdict.arm == "prompt"
    (rare,) = [flip for flip in verdict.flips if flip.what.startswith(MIX)]
    assert (rare.what, rare.then) == ("mix.rare", "rag")
    assert rare.above is not None
    for share, then in ((rare.above - 0.01, "prompt"), (rare.above + 0.01, "rag")):
        stated = _mixed(task, {"rare": share, "common": 1 - share})
        assert decide(_evidence(answers, stated)).arm == then
        shown = choose(found.under(stated)).arm
        assert shown is not None
        assert shown.arm == then


def _of_labels(task: Task) -> Task:
    table = {"name": "t", "kind": "classify", "metric": "macro_f1"}
    return Task.model_validate({**task.model_dump(), "task": table, "data": {"examples": ["rows.jsonl"]}})


def _labels(common: float, rare: float) -> list[Answer]:
    """Three classes; a wrong answer is the next class."""
    found = []
    for place, one in enumerate(_by_slice(common, rare)):
        true, right = place % 3, one.score == 1.0
        found.append(replace(one, reference=("abc"[true],), answer="abc"[true if right else (true + 1) % 3]))
    return found


def _by_slice(common: float, rare: float, rares: int = 60) -> list[Answer]:
    sizes = {"common": (240, common), "rare": (rares, rare)}
    return [
        made_answer(f"{name}-{n:03}", n < share * size, slice=name)
        for name, (size, share) in sizes.items()
        for n in range(size)
    ]


def _mixed(task: Task, mix: dict[str, float]) -> Task:
    return task.model_copy(update={"data": task.data.model_copy(update={"mix": mix})})


def _evidence(answers: dict[str, list[Answer]], task: Task, audited: Audited | None = None) -> Evidence:
    results = [
        replace(an_arm(name, 0.0, task), score=score_estimate(own, task), score_floor=score_floor(own, task))
        for name, own in answers.items()
    ]
    arms = [arm for name in answers if (arm := arm_from_name(name)) is not None]
    return evidence_of(results, answers, arms, task, USAGES, audited=audited)


def test_a_volume_known_to_a_factor_of_two_is_beyond_either_border_in_five_of_a_hundred() -> None:
    def chance(**borders: float) -> float:
        return chance_of_flip(Flip(what="questions_per_month", then="rag", **borders), 1_000)

    assert chance(below=500, above=2_000) == pytest.approx(0.05)
    assert chance(above=1_000) == pytest.approx(0.5)
    assert chance(below=700) == pytest.approx(1 - chance(above=700))
    draw = np.exp(np.random.default_rng(0).normal(math.log(1_000), math.log(2) / 1.959964, 200_000))
    assert chance(above=1_400) == pytest.approx(float((draw > 1_400).mean()), abs=0.003)
