"""Studies drawn from a study: which items they hold, and that their tests are those of the study itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_answers import made_answer

from trimtab.base.records import Answer
from trimtab.base.task import Task
from trimtab.measurement.audit import Audited
from trimtab.measurement.figures import behind_curve, difference, score_estimate, target_curve
from trimtab.measurement.metrics import label_codes, macro_f1_parts, macro_f1_statistic
from trimtab.measurement.replicates import Assumed, Replicate, StudyScores

METRICS = {"right": "exact_match", "graded": "token_f1", "classes": "macro_f1"}


def a_task(kind: str = "right") -> Task:
    table = {"name": "t", "kind": "classify" if kind == "classes" else "answer", "metric": METRICS[kind]}
    return Task.model_validate({"task": table, "data": {"examples": ["rows.jsonl"]}, "base": {"model": "m"}})


def study(kind: str = "right", size: int = 1, runs: int = 1, n: int = 120) -> dict[str, list[Answer]]:
    """Two arms of which the second is better; `size`: of the groups."""
    random, found = np.random.default_rng(3), {}
    classes = random.integers(0, 3, n)
    for arm, share in (("a", 0.7), ("b", 0.8)):
        found[arm] = []
        for seed in range(runs):
            right = random.random(n) < share
            scores = np.where(right, 1.0, random.random(n) if kind == "graded" else 0.0)
            given = np.where(right, classes, (classes + 1) % 3)
            found[arm] += [
                made_answer(
                    f"{item:03}",
                    scores[item],
                    seed=seed,
                    answer=str(given[item]),
                    reference=(str(classes[item]),),
                    group=str(item // size) if size > 1 else None,
                )
                for item in range(n)
            ]
    return found


def itself(answers: dict[str, list[Answer]], task: Task, audited: Audited | None = None) -> Replicate:
    """The replicate in which every item was drawn once."""
    scores = StudyScores(answers, task, audited)
    return Replicate(scores, np.arange(scores.items), scores.codes_N)


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("kind", ["right", "graded"])
def test_a_replicate_of_the_study_itself_has_its_p_values(kind: str, runs: int, size: int) -> None:
    answers, task = study(kind, size, runs), a_task(kind)
    found = itself(answers, task)
    assert found.value("b") == pytest.approx(score_estimate(answers["b"], task).value)
    assert found.p_target("b", 0.72) == pytest.approx(target_curve(answers["b"], task)(0.72))
    assert found.p_behind("b", "a", 0.02) == pytest.approx(behind_curve(answers["b"], answers["a"], task)(0.02))
    told, gap = difference(answers["b"], answers["a"], task), found.difference("b", "a")
    flipped = (
        kind == "graded" or size > 1 or runs > 1
    )  # signs are flipped 9,999 times there, here the normal limit is taken
    assert gap.difference == pytest.approx(told.difference)
    assert gap.p == pytest.approx(told.p, abs=0.02 if flipped else 1e-12)


@pytest.mark.parametrize("size", [1, 4])
def test_macro_f1_is_tested_by_its_linear_parts_much_as_by_the_bootstrap(size: int) -> None:
    answers, task = study("classes", size), a_task("classes")
    found = itself(answers, task)
    assert found.value("b") == pytest.approx(score_estimate(answers["b"], task).value)
    assert found.p_target("b", 0.72) == pytest.approx(target_curve(answers["b"], task)(0.72), abs=0.03)
    assert found.p_behind("b", "a", 0.02) == pytest.approx(
        behind_curve(answers["b"], answers["a"], task)(0.02), abs=0.03
    )
    assert found.difference("b", "a").p == pytest.approx(difference(answers["b"], answers["a"], task).p, abs=0.05)


def test_linear_parts_are_what_an_item_drawn_once_more_changes() -> None:
    answers = study("classes")["a"]
    said, right = [row.answer for row in answers], [row.reference for row in answers]
    parts, figure = macro_f1_parts(*label_codes(said, right)), macro_f1_statistic(said, right)
    everything = np.arange(len(answers))
    assert parts.mean() == pytest.approx(figure(everything))
    for item in (0, 7, 50):
        once_more = figure(np.append(everything, item)) - figure(everything)
        assert (parts[item] - parts.mean()) / len(parts) == pytest.approx(once_more, rel=0.05)


def test_groups_are_drawn_whole_and_each_draw_is_a_group_of_its_own() -> None:
    scores = StudyScores(study(size=4), a_task())
    found = scores.drawn(400, 0)
    assert found.items == 400
    groups = found.codes
    items = found.chosen
    assert groups is not None
    assert np.bincount(groups).tolist() == [4] * 100
    assert (items.reshape(100, 4) // 4 == items[::4, None] // 4).all()


def test_the_same_draw_begins_alike_at_every_size_and_comes_out_the_same_again() -> None:
    scores = StudyScores(study(), a_task())
    small, large, again = (scores.drawn(size, 5).chosen for size in (50, 300, 300))
    assert (large[:50] == small).all()
    assert (large == again).all()
    assert (scores.drawn(50, 6).chosen != small).any()


@pytest.mark.parametrize(("kind", "size"), [("right", 1), ("right", 4), ("graded", 1), ("classes", 1)])
def test_an_assumed_score_is_the_true_one_of_what_is_drawn(kind: str, size: int) -> None:
    scores, assumed = StudyScores(study(kind, size), a_task(kind)), Assumed("a", 0.9)
    assert scores.can_be(assumed)
    assert scores.drawn(100_000, 0, assumed).value("a") == pytest.approx(0.9, abs=0.015)
    assert not scores.can_be(Assumed("a", 1.1))


def test_an_audit_corrects_a_replicate_as_it_does_the_study() -> None:
    answers, task = study(), a_task()
    judged = {
        (row.item_id, row.answer): row.score == 1.0 or row.item_id < "010" for own in answers.values() for row in own
    }
    audited = Audited(answers, judged, task)
    found = itself(answers, task, audited)
    assert found.value("b") == pytest.approx(audited.score("b").value)
    assert found.p_target("b", 0.75) == pytest.approx(audited.target_curve("b")(0.75), abs=0.02)
    assert found.p_behind("b", "a", 0.02) == pytest.approx(audited.behind_curve("b", "a")(0.02), abs=0.02)
    assert found.difference("b", "a").p == pytest.approx(audited.difference("b", "a").p, abs=0.02)


@pytest.mark.parametrize("size", [1, 4])
def test_under_a_mix_items_are_drawn_as_traffic_has_them_and_so_many_that_they_are_as_sure(size: int) -> None:
    """Slices of half the questions each, which are right in 9 and 5 of 10, and .8 and .2 of the traffic."""
    random = np.random.default_rng(2)
    slices = ["common" if item < 200 else "rare" for item in range(400)]
    scores = [float(random.random() < (0.9 if name == "common" else 0.5)) for name in slices]
    answers = {
        "a": [
            replace(
                made_answer(f"{item:03}", scores[item], group=str(item // size) if size > 1 else None),
                slice=slices[item],
            )
            for item in range(400)
        ]
    }
    task = a_task()
    mixed = task.model_copy(update={"data": task.data.model_copy(update={"mix": {"common": 0.8, "rare": 0.2}})})
    study_scores, wanted = StudyScores(answers, mixed), score_estimate(answers["a"], mixed)
    assert wanted.n_effective is not None
    assert study_scores.efficiency == pytest.approx(wanted.n_effective / 400)
    drawn = [study_scores.drawn(800, draw) for draw in range(200)]
    assert {one.items for one in drawn} == {round(800 * study_scores.efficiency / size) * size}
    assert np.mean([one.value("a") for one in drawn]) == pytest.approx(wanted.value, abs=0.004)
    higher = [study_scores.drawn(800, draw, Assumed("a", 0.9)).value("a") for draw in range(200)]
    assert np.mean(higher) == pytest.approx(0.9, abs=0.004)
