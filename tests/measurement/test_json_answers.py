"""Answers that are JSON: keys and values count, their order and spacing do not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.measurement.json_answers import json_f1, same_answer
from trimtab.measurement.metrics import score_one

ORDER = '{"intent": "book", "slots": {"city": "Bonn", "nights": 2}, "tags": ["a", "b"]}'
leaves = st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab ", max_size=3)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("kl", max_size=2), inner)
)
objects = st.dictionaries(st.text("kl", max_size=2), values)


def score(reference: Any, answer: Any) -> float:
    return json_f1("", json.dumps(reference), json.dumps(answer))


def pairs(value: Any, path: str = "") -> Iterator[str]:
    """The pairs of path and value, written plainly."""
    if isinstance(value, dict | list) and value:
        for key, inner in value.items() if isinstance(value, dict) else ((0, inner) for inner in value):
            yield from pairs(inner, f"{path}/{key!r}")
    else:
        yield f"{path}={json.dumps(value.strip() if isinstance(value, str) else value)}"


@given(objects, objects)
def test_the_score_is_f1_of_the_pairs_of_path_and_value(reference: Any, answer: Any) -> None:
    wanted, said, right = list(pairs(reference)), list(pairs(answer)), 0
    for pair in said:
        if pair in wanted[:]:
            wanted.remove(pair)
            right += 1
    assert score(reference, answer) == pytest.approx(2 * right / (len(list(pairs(reference))) + len(said)))


@given(objects)
def test_the_order_of_keys_spaces_and_a_fence_change_nothing(value: dict[str, Any]) -> None:
    turned = json.dumps(dict(reversed(value.items())), indent=3)
    for answer in (turned, f"```json\n{turned}\n```", f"Here it is:\n```\n{turned}\n```\nAnything else?"):
        assert json_f1("", json.dumps(value), answer) == 1.0
        assert same_answer(json.dumps(value), answer)


def test_a_wrong_value_costs_its_pair_and_no_more() -> None:
    wrong = ORDER.replace("book", "cancel")
    assert score_one("json_f1", wrong, [ORDER]) == pytest.approx(2 * 4 / 10)
    assert score_one("json_f1", '{"intent": "book"}', [ORDER]) == pytest.approx(2 * 1 / 6)
    assert not same_answer(ORDER, wrong)


def test_numbers_are_compared_as_numbers_texts_without_outer_spaces_and_types_are_kept_apart() -> None:
    assert score({"n": 1, "t": "a"}, {"n": 1.0, "t": " a\n"}) == 1.0
    assert [score({"n": 1}, {"n": other}) for other in ("1", True, [1], None)] == [0.0] * 4
    assert score({"n": 0}, {"n": False}) == 0.0


def test_the_items_of_a_list_stand_in_any_order_but_are_then_not_exactly_right() -> None:
    assert score({"a": [1, 2, 2]}, {"a": [2, 1, 2]}) == 1.0
    assert score({"a": [1, 2, 2]}, {"a": [1, 2]}) == pytest.approx(2 * 2 / 5)
    assert not same_answer('{"a": [1, 2]}', '{"a": [2, 1]}')


@pytest.mark.parametrize("answer", ["", "book", '"book"', "7", '{"intent": "book"', '{"a": NaN}', "[" * 100_000])
def test_what_is_no_object_and_no_list_scores_nothing(answer: str) -> None:
    assert json_f1("", ORDER, answer) == 0.0
    assert not same_answer(ORDER, answer)


def test_other_texts_are_the_same_but_for_spaces_and_nothing_else() -> None:
    assert same_answer("ls -l  | wc", " ls -l | wc\n")
    assert not same_answer("ls -l", "ls l")
    assert not same_answer("ls -l", "LS -l")
