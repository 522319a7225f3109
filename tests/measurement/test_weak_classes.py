"""A frequent class that is missed far more often than the rest is named, and chance names none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_answers import made_answer

from trimtab.base.records import Answer
from trimtab.base.task import Task
from trimtab.decision.caveats import weak_classes_sentence
from trimtab.decision.summary import way
from trimtab.measurement.weak_classes import weak_classes


def task_of(kind: str = "classify", **data: object) -> Task:
    task = {"name": "t", "kind": kind}
    return Task(task=task, data=data, base={"model": "m"}, file=Path("trimtab.toml"))  # type: ignore[arg-type]


def answers(seed: int = 0, groups: int | None = None, **right: tuple[int, float]) -> list[Answer]:
    """Answers to so many questions of each class, with so large a chance of being right."""
    draw, made = np.random.default_rng(seed), list[Answer]()
    for label, (count, chance) in right.items():
        for number in range(count):
            hit = draw.random() < chance
            group = None if groups is None else f"{label}{number % groups}"
            answer = label if hit else "other"
            made.append(made_answer(f"{label}{number}", hit, reference=(label,), answer=answer, group=group))
    return made


def test_the_class_its_share_its_recall_and_that_of_the_rest_are_told() -> None:
    given = answers(oos=(180, 0.39), a=(410, 0.9), b=(410, 0.88))
    (weak,) = weak_classes(given, task_of())
    own = [row.score for row in given if row.reference == ("oos",)]
    others = [row.score for row in given if row.reference != ("oos",)]
    assert (weak.label, weak.share, weak.recall.n, weak.rest.n) == ("oos", 0.18, 180, 820)
    assert (weak.recall.value, weak.rest.value) == (pytest.approx(np.mean(own)), pytest.approx(np.mean(others)))
    assert weak.p_holm < 0.001
    sentence = weak_classes_sentence("lora", [weak])
    assert sentence.startswith(
        f"{way('lora')} is far worse on some classes than on the rest: of 100 of the class oos (18%"
    )
    assert f"it gets {100 * weak.recall.value:.0f} (95% interval" in sentence
    assert weak_classes_sentence("lora", ()) == weak_classes_sentence(None, [weak]) == ""
    assert sentence.count("of 100 of the class") == 1
    assert weak_classes_sentence("lora", [weak] * 5).endswith("; and 2 more such classes.")


def test_a_rare_class_a_near_one_and_another_kind_are_not_named() -> None:
    assert weak_classes(answers(rare=(20, 0.0), a=(490, 0.9), b=(490, 0.9)), task_of()) == ()
    assert weak_classes(answers(near=(5000, 0.85), a=(5000, 0.9)), task_of()) == ()
    assert weak_classes(answers(oos=(180, 0.39), a=(820, 0.9)), task_of("answer")) == ()
    assert weak_classes(answers(only=(50, 0.5)), task_of()) == ()


def test_chance_seldom_names_a_class() -> None:
    named = [weak_classes(answers(seed, a=(40, 0.7), b=(40, 0.7), c=(40, 0.7)), task_of()) for seed in range(200)]
    assert np.mean([bool(found) for found in named]) <= 0.08


def test_groups_that_answer_alike_show_less() -> None:
    alike = [
        made_answer(f"{label}{n}", label == "a" or n < 30, reference=(label,), group=f"{label}{n // 30}")
        for label, count in (("a", 60), ("b", 60))
        for n in range(count)
    ]
    alone = [made_answer(row.item_id, row.score, reference=row.reference) for row in alike]
    assert [weak.label for weak in weak_classes(alone, task_of())] == ["b"]
    assert weak_classes(alike, task_of()) == ()


def test_several_seeds_of_a_question_count_once() -> None:
    given = answers(oos=(40, 0.3), a=(60, 0.9))
    twice = [*given, *(made_answer(row.item_id, row.score, seed=1, reference=row.reference) for row in given)]
    (once,), (again,) = weak_classes(given, task_of()), weak_classes(twice, task_of())
    assert (again.recall.n, again.p_holm) == (once.recall.n, once.p_holm) == (40, once.p_holm)
