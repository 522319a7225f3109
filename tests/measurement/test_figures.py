"""Answers into figures: seeds, groups, slices, set-level metrics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_answers import made_answer

from trimtab.base.errors import InputError
from trimtab.base.records import Answer, Generation
from trimtab.base.task import Task
from trimtab.measurement.figures import (
    alone_figures,
    behind_curve,
    class_figures,
    difference,
    extra_figures,
    prefill_and_decode,
    score_estimate,
    scores_of,
    slice_estimates,
    target_curve,
)
from trimtab.measurement.statistics import estimate


def task_of(kind: str = "answer", metric: str = "exact_match") -> Task:
    return Task(
        task={"name": "t", "kind": kind, "metric": metric}, data={}, base={"model": "m"}, file=Path("trimtab.toml")
    )


def answer(item: int, score: float, *, seed: int = 0, **more: object) -> Answer:
    return made_answer(f"i{item:03}", score, seed=seed, **{"answer": "a" if score else "b", **more})


def some(count: int = 60, share: float = 0.6, seed: int = 0, **more: object) -> list[Answer]:
    draw = np.random.default_rng(seed)
    return [answer(item, float(draw.random() < share), **more) for item in range(count)]


def test_seeds_are_averaged_by_item_in_the_order_of_items() -> None:
    answers = [answer(2, 1.0), answer(1, 0.0), answer(1, 1.0, seed=1), answer(2, 1.0, seed=1)]
    scores = scores_of(answers)
    assert scores.items == ("i001", "i002")
    assert scores.values_N.tolist() == [0.5, 1.0]
    assert score_estimate(answers, task_of()).n == 2


def test_the_order_of_answers_changes_no_figure() -> None:
    a, b = some(seed=1), some(seed=2)
    shuffled = list(reversed(a))
    assert score_estimate(a, task_of()) == score_estimate(shuffled, task_of())
    assert difference(a, b, task_of()) == difference(shuffled, b, task_of())


def test_repeating_groups_widen_the_interval_and_lone_ones_do_not() -> None:
    same = [answer(item, float(item // 10 % 2), group=f"g{item // 10}") for item in range(60)]
    alone = [answer(item, float(item // 10 % 2), group=f"g{item}") for item in range(60)]
    wide, narrow = score_estimate(same, task_of()), score_estimate(alone, task_of())
    assert wide.value == narrow.value
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    assert narrow == estimate(scores_of(alone).values_N)


def test_slices_are_scored_as_if_alone() -> None:
    answers = [answer(item, float(item % 3 == 0), slice="rare" if item % 2 else "usual") for item in range(40)]
    slices = slice_estimates([*answers, answer(99, 1.0)], task_of())
    assert set(slices) == {"rare", "usual"}
    assert slices["rare"] == score_estimate([item for item in answers if item.slice == "rare"], task_of())


def test_macro_f1_is_that_of_the_set() -> None:
    from sklearn.metrics import f1_score

    draw = np.random.default_rng(0)
    truth, given = draw.choice(list("aab"), 80), draw.choice(list("ab"), 80)
    answers = [
        answer(item, float(right == said), reference=(str(right),), answer=str(said))
        for item, (right, said) in enumerate(zip(truth, given, strict=True))
    ]
    task = task_of("classify", "macro_f1")
    assert score_estimate(answers, task).value == pytest.approx(f1_score(truth, given, average="macro"))
    perfect = [replace(item, answer=item.reference[0], score=1.0) for item in answers]
    found = difference(perfect, answers, task)
    assert found.difference == pytest.approx(1 - score_estimate(answers, task).value)
    assert found.p < 0.01


def labelled(right: float, seed: int, slice: str | None = None, items: int = 90) -> list[Answer]:
    """Answers of one seed to questions of three classes, of which a share `right` is right."""
    draw = np.random.default_rng(seed)
    found = []
    for item in range(items):
        truth = "aabc"[item % 4]
        said = truth if draw.random() < right else str(draw.choice(list("abc")))
        found.append(answer(item, float(said == truth), seed=seed, reference=(truth,), answer=said, slice=slice))
    return found


def test_macro_f1_of_several_seeds_is_the_mean_of_theirs_in_every_figure() -> None:
    """A strong first run beside weak ones, and the same runs in another order, are worth the same."""
    task, runs = task_of("classify", "macro_f1"), [labelled(0.95, 0), labelled(0.4, 1), labelled(0.4, 2)]
    several = [one for run in runs for one in run]
    turned = [replace(one, seed=2 - one.seed) for one in several]
    found = score_estimate(several, task)
    assert found.value == pytest.approx(np.mean([score_estimate(run, task).value for run in runs]))
    assert found.value < score_estimate(runs[0], task).low
    assert score_estimate(turned, task) == found
    assert target_curve(several, task)(0.75) > 0.5 > target_curve(runs[0], task)(0.75)
    assert target_curve(turned, task)(0.75) == target_curve(several, task)(0.75)
    other = [replace(one, seed=seed) for seed in range(3) for one in labelled(0.7, 9)]
    gap = difference(several, other, task)
    assert gap.difference == pytest.approx(found.value - score_estimate(other, task).value)
    assert difference(turned, other, task) == gap
    assert behind_curve(several, other, task)(0.02) == behind_curve(turned, other, task)(0.02)
    sliced = slice_estimates([replace(one, slice="all") for one in several], task)
    assert sliced["all"] == found


def test_macro_f1_refuses_seeds_of_different_questions() -> None:
    task = task_of("classify", "macro_f1")
    with pytest.raises(InputError, match="different questions"):
        score_estimate([*labelled(0.9, 0), *labelled(0.9, 1)[1:]], task)


def test_p_values_point_the_right_way() -> None:
    good, poor, task = some(200, 0.9, 3), some(200, 0.5, 4), task_of()
    assert target_curve(good, task)(0.7) < 0.01 < target_curve(poor, task)(0.7)
    assert behind_curve(good, poor, task)(0.02) < 0.01 < behind_curve(poor, good, task)(0.02)
    assert difference(good, poor, task).difference > 0


def test_calibration_needs_a_probability_of_every_answer() -> None:
    task = task_of("classify", "accuracy")
    sure = [answer(item, 1.0, probability=1.0) for item in range(20)]
    assert extra_figures(sure, [], task) == {"ece": 0.0, "ece_by_chance": 0.0, "ece_debiased": 0.0, "macro_f1": 1.0}
    assert extra_figures([*sure, answer(99, 1.0)], [], task) == {"macro_f1": 1.0}


def test_the_metric_that_does_not_decide_is_given_too() -> None:
    answers = [answer(item, float(item > 2), answer="a" if item > 2 else "b") for item in range(10)]
    assert extra_figures(answers, [], task_of("classify", "macro_f1"))["accuracy"] == pytest.approx(0.7)


def test_short_answers_show_the_other_metrics_of_their_kind() -> None:
    """The words of "158 euros" are half right and its fact is not: under token_f1 that is counted."""
    given = ("112 euros", "158 euros", "about 112 euros", "I don't know", "euros")
    answers = [
        answer(item, 0.0, reference=("112 euros",), answer=text, abstained=text.startswith("I don't"))
        for item, text in enumerate(given)
    ]
    by_fact = extra_figures(answers, [], task_of(metric="contains"))
    words = {"answer_words": (2 + 2 + 3 + 1) / 4}  # of those that do not abstain
    assert by_fact == {
        "exact_match": 0.2,
        "token_f1": pytest.approx((1 + 0.5 + 0.8 + 0 + 2 / 3) / 5),
        "unsure": 0.0,
        **words,
    }
    untried = [*answers, answer(9, 0.0, reference=("2 года",), answer="два года")]
    assert extra_figures(untried, [], task_of(metric="contains"))["untried"] == pytest.approx(1 / 6)
    by_words = extra_figures(answers, [], task_of(metric="token_f1"))
    assert by_words == {"contains": 0.4, "exact_match": 0.2, "facts_disagree": 1.0, **words}
    assert extra_figures([], [], task_of()) == {}
    assert set(extra_figures(answers, [], task_of())) == {"contains", "token_f1", "answer_words"}


def test_beside_chrf_and_json_stands_the_share_of_exactly_right_answers() -> None:
    given = [answer(0, 0.9, answer="ls -l", reference=("ls -l", "ls"))]
    given += [answer(item, 0.9, answer="ls l", reference=("ls -l",)) for item in (1, 2, 3)]
    for metric in ("chrf", "json_f1"):
        assert extra_figures(given, [], task_of("generate", metric))["exact"] == 0.25
    assert "exact" not in extra_figures(given, [], task_of("generate", "rouge_l"))


def test_answering_only_when_sure_raises_accuracy() -> None:
    answers = [answer(item, float(item >= 10), probability=0.5 + item / 100) for item in range(20)]
    found = class_figures(answers)
    assert found.selective == {0.5: 1.0, 0.7: pytest.approx(10 / 14), 0.8: 0.625, 0.9: pytest.approx(10 / 18), 1.0: 0.5}
    assert [row.label for row in found.rows] == ["a"]
    assert class_figures([*answers, answer(99, 1.0)]).selective == {}


def test_a_question_answered_otherwise_alone_is_counted() -> None:
    together = [answer(item, 1.0) for item in range(4)]
    alone = [Generation(id=one.item_id, text="a") for one in together[:3]]
    assert alone_figures(alone, together, lambda unequal: [1 / 0 for _ in unequal]) == {"same_alone": 1.0}
    changed = [*alone, Generation(id="i003", text="b")]
    assert alone_figures(changed, together, lambda unequal: [0.0] * len(unequal)) == {
        "same_alone": 0.75,
        "score_alone": -0.25,
    }
    assert alone_figures([], together, lambda _: []) == {}


def test_prefill_and_decoding_are_told_apart_where_the_answerer_knows() -> None:
    given = [Generation(id=str(n), text="", seconds=1.0 + n, prefill_seconds=0.25) for n in range(3)]
    assert prefill_and_decode(given) == {"prefill_seconds": 0.25, "decode_seconds": 1.75}
    assert prefill_and_decode([*given, Generation(id="remote", text="", seconds=1.0)]) == {}
    assert prefill_and_decode([]) == {}
