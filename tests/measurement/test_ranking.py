from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from trimtab.base.records import Hit, Passage
from trimtab.measurement.ranking import gold_names, holds, may_hold, mrr, ndcg, recall_at_k


def passage(document: str, number: int = 0) -> Passage:
    return Passage(id=f"{document}#{number}", document=document, title="", path=(), text="", source=document)


@pytest.mark.parametrize(
    ("document", "name", "same"),
    [
        ("leave.md", "leave.md", True), ("leave.md", "handbook/leave.md", True), ("hr/leave.md", "leave.md", True),
        ("leave.md", "./leave.md", True), ("leave.md", "leave.md#2", True), ("leave.md", "docs/leave.md#2", True),
        ("leave.md", "leave.md#3", False), ("sick-leave.md", "leave.md", False), ("leave.md", "sick-leave.md", False),
        ("a.json#12", "a.json#12", True), ("a.json#12", "a.json#1", False), ("a.json#12", "a.json", True),
        ("leave.md", "", False),
    ],
)  # fmt: skip
def test_a_name_means_a_passage_or_its_document_whatever_folders_stand_in_front(document, name, same) -> None:
    assert holds(passage(document, 2), name) is same


NAMES = st.text(alphabet="ab/#.0", max_size=8)


@given(NAMES, st.integers(0, 11), NAMES)
def test_a_document_that_may_hold_no_passage_of_a_name_holds_none(document: str, number: int, name: str) -> None:
    assert may_hold(document, name) or not holds(passage(document, number), name)


@given(NAMES, st.integers(0, 11), st.sampled_from(["{}", "b/{}", "{}#3", "./{}"]))
def test_a_document_may_hold_what_is_named_by_it(document: str, number: int, form: str) -> None:
    for one in (document, passage(document, number).id):
        name = form.format(one)
        assert may_hold(document, name) or not holds(passage(document, number), name)


def test_gold_names_put_the_matching_name_in_the_ranking() -> None:
    hits = [Hit(passage=passage(name), rank=rank, score=1.0) for rank, name in enumerate(("b.md", "a.md"), 1)]
    assert gold_names(hits, ["docs/a.md"]) == ("b.md#0", "docs/a.md")


def test_figures_by_hand() -> None:
    rankings, relevant = [["x", "a"], ["y", "z"], ["q"]], [{"a", "b"}, {"y"}, set()]
    assert recall_at_k(rankings, relevant, 1) == 0.5
    assert recall_at_k(rankings, relevant, 2) == 0.75
    assert mrr(rankings, relevant) == 0.75
    assert ndcg(rankings, relevant, 2) == pytest.approx((1 / math.log2(3) / (1 + 1 / math.log2(3)) + 1) / 2)
    assert math.isnan(mrr([["a"]], [set()]))


def test_a_document_found_twice_counts_once() -> None:
    assert ndcg([["a", "a"]], [{"a"}], 2) == 1
    assert recall_at_k([["a", "a"]], [{"a"}], 2) == 1


@given(st.permutations(list("abcdefgh")), st.sets(st.sampled_from("abcdefgh"), min_size=1), st.integers(1, 8))
def test_ndcg_equals_scikit_learn(ranking: list[str], relevant: set[str], k: int) -> None:
    gains = np.array([[float(name in relevant) for name in ranking]])
    order = np.array([[float(-rank) for rank in range(len(ranking))]])
    assert ndcg([ranking], [relevant], k) == pytest.approx(ndcg_score(gains, order, k=k))


@given(st.permutations(list("abcdefgh")), st.sets(st.sampled_from("abcdefgh"), min_size=1))
def test_recall_grows_with_k_up_to_one(ranking: list[str], relevant: set[str]) -> None:
    values = [recall_at_k([ranking], [relevant], k) for k in range(1, 9)]
    assert values == sorted(values)
    assert values[-1] == 1
