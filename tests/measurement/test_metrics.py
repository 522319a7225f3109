from __future__ import annotations

import re
import string
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.chrf import CHRF
from sklearn.metrics import f1_score

from trimtab.base.errors import InputError
from trimtab.base.records import Answer
from trimtab.measurement.metrics import (
    abstention,
    aggregate,
    has_abstained,
    macro_f1_statistic,
    per_class,
    score_one,
    squad_normalised,
)

METRICS = ("exact_match", "token_f1", "rouge_l", "chrf", "json_f1", "accuracy", "macro_f1")
words = st.text(alphabet="abcde ABC.,'-$", max_size=30)
ANSWER = Answer(
    item_id="1", split="test", group=None, slice=None, seed=0, input="q", reference=("x",), answer="x", score=1.0,
    format_ok=True, abstained=False, probability=None, seconds=0.0, prompt_tokens=0, new_tokens=0, hits=(),
    failure="none",
)  # fmt: skip


def squad_normalise(text: str) -> str:
    bare = "".join(char for char in text.lower() if char not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def squad_f1(answer: str, reference: str) -> float:
    given_, wanted = squad_normalise(answer).split(), squad_normalise(reference).split()
    if not given_ or not wanted:
        return float(given_ == wanted)
    same = sum((Counter(given_) & Counter(wanted)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(given_), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


@given(words, words)
def test_squad_metrics_equal_the_official_ones_on_ascii(answer: str, reference: str) -> None:
    if not squad_normalise(answer) or not squad_normalise(reference):
        return  # where we depart on purpose, see below
    assert squad_normalised(answer) == squad_normalise(answer)
    assert score_one("token_f1", answer, [reference]) == pytest.approx(squad_f1(answer, reference))
    assert score_one("exact_match", answer, [reference]) == float(squad_normalise(answer) == squad_normalise(reference))


def test_an_answer_of_articles_or_punctuation_alone_is_not_the_empty_answer() -> None:
    assert score_one("exact_match", "", ["A"]) == 0
    assert score_one("exact_match", "+", ["-"]) == 0
    assert score_one("token_f1", "A", ["a."]) == 1
    assert score_one("token_f1", "", [""]) == 1


def test_a_decimal_point_is_part_of_its_number() -> None:
    assert score_one("exact_match", "15 litres", ["1.5 litres"]) == 0
    assert score_one("exact_match", "1.5 litres.", ["1.5 litres"]) == 1
    assert score_one("exact_match", "1,500", ["1500"]) == 1


def test_unicode_punctuation_and_composition_do_not_matter() -> None:
    assert score_one("exact_match", "«Cafe\u0301» — Zürich!", ["café Zürich"]) == 1
    assert score_one("token_f1", "東京", ["東京。"]) == 1
    assert score_one("rouge_l", "Ελλάδα και Κύπρος", ["Ελλάδα και Κρήτη"]) == pytest.approx(2 / 3)


@given(st.text(alphabet="ab c.", max_size=20), st.text(alphabet="ab c.", max_size=20))
def test_rouge_l_and_chrf_equal_their_libraries(answer: str, reference: str) -> None:
    rouge = RougeScorer(["rougeL"]).score(reference, answer)["rougeL"].fmeasure
    assert score_one("rouge_l", answer, [reference]) == pytest.approx(rouge)
    chrf = CHRF().sentence_score(answer, [reference]).score / 100
    assert score_one("chrf", answer, [reference]) == pytest.approx(chrf)


@given(st.sampled_from(METRICS), st.text(max_size=20), st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_the_score_is_in_range_and_the_best_over_references(metric: str, answer: str, references: list[str]) -> None:
    each = [score_one(metric, answer, [reference]) for reference in references]
    assert score_one(metric, answer, references) == max(each)
    assert 0 <= min(each) <= max(each) <= 1.0000001


def test_labels_are_compared_without_case_and_outer_space() -> None:
    assert score_one("accuracy", " Spam\n", ["spam"]) == 1
    assert score_one("accuracy", "spam!", ["spam"]) == 0


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(InputError, match="use one of"):
        score_one("bleu", "a", ["a"])


def _random_labels(seed: int) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    true = [f"c{value}" for value in rng.integers(0, 5, 200)]
    given_ = [f"c{value}" if rng.random() < 0.7 else str(rng.integers(5)) for value in rng.integers(0, 5, 200)]
    return true, given_


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_equals_scikit_learn(seed: int) -> None:
    true, given_ = _random_labels(seed)
    references = [(label,) for label in true]
    wanted = f1_score(true, given_, labels=sorted(set(true)), average="macro", zero_division=0)
    scores = [score_one("macro_f1", a, r) for a, r in zip(given_, references, strict=True)]
    assert aggregate("macro_f1", given_, references, scores) == pytest.approx(wanted)
    indices = np.random.default_rng(seed).integers(0, 200, 50)
    part_true, part_given = [true[i] for i in indices], [given_[i] for i in indices]
    wanted = f1_score(part_true, part_given, labels=sorted(set(part_true)), average="macro", zero_division=0)
    assert macro_f1_statistic(given_, references)(indices) == pytest.approx(wanted)


@pytest.mark.parametrize("weighted", [False, True])
def test_macro_f1_of_many_draws_is_that_of_each(weighted: bool) -> None:
    """Also of draws that lack a class, and of answers that are no class."""
    true, given_ = _random_labels(7)
    random = np.random.default_rng(7)
    weights = random.random(200) + 0.1 if weighted else None
    draws = random.integers(0, 200, (30, 8))
    figure = macro_f1_statistic(given_, [(label,) for label in true], weights)
    wanted = [
        f1_score(
            [true[i] for i in draw],
            [given_[i] for i in draw],
            labels=sorted({true[i] for i in draw}),
            average="macro",
            zero_division=0,
            sample_weight=None if weights is None else weights[draw],
        )
        for draw in draws
    ]
    assert figure.of_rows(draws) == pytest.approx(wanted)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([*"aBcD", " a ", "none of them"])), max_size=40))
def test_per_class_is_what_its_names_say(pairs: list[tuple[str, str]]) -> None:
    """By counting: labels are compared as labels are, an answer that is no class adds none, nothing is divided by
    zero."""
    answers = [replace(ANSWER, reference=(right,), answer=given_) for right, given_ in pairs]
    rows = per_class(answers)
    assert {row.label for row in rows} == {right for right, _ in pairs}
    assert [row.support for row in rows] == sorted((row.support for row in rows), reverse=True)
    for row in rows:
        due = sum(right == row.label for right, _ in pairs)
        said = sum(given_.strip().lower() == row.label for _, given_ in pairs)
        both = sum(right == row.label == given_.strip().lower() for right, given_ in pairs)
        assert (row.support, row.recall) == (due, pytest.approx(both / due))
        assert row.precision == pytest.approx(both / said if said else 0.0)
        assert row.f1 == pytest.approx(2 * both / (due + said))


def test_other_metrics_aggregate_to_the_mean() -> None:
    assert aggregate("token_f1", ["a", "b"], [("a",), ("c",)], [1.0, 0.0]) == 0.5
    assert np.isnan(aggregate("token_f1", [], [], []))


@pytest.mark.parametrize(
    ("answer", "abstained"),
    [
        ("I don't know", True), ("i don’t know.", True), ("I don't know, the handbook does not say.", True),
        ("I don't know the day but it is 5", False), ("I don't know-how", False), ("I don't know - sorry", True),
        ("You know I don't", False), ("", False), ("5", False),
    ],
)  # fmt: skip
def test_abstaining_is_the_whole_answer_or_its_first_clause(answer: str, abstained: bool) -> None:
    assert has_abstained(answer, "I don't know") is abstained


def test_abstention_precision_and_recall() -> None:
    unknown = "I don't know"
    due, other = replace(ANSWER, reference=(unknown,)), replace(ANSWER, reference=("5",))
    answers = [replace(due, abstained=True), due, due, replace(other, abstained=True), other]
    assert abstention(answers, unknown) == pytest.approx({"precision": 1 / 2, "recall": 1 / 3})
    assert abstention([other], unknown) == {}
    assert abstention([due], unknown) == {"recall": 0.0}
