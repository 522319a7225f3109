"""The design of a study: which comparisons it plans before looking, and which arms dev leaves in the running."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.grammar import arm_from_name
from trimtab.base.records import Arm
from trimtab.decision.pairs import LEAST_SHARED, contenders, planned_pairs


def arms_named(*names: str) -> list[Arm]:
    found = []
    for name in names:
        weights, _, context = name.partition("+")
        plain = weights in ("prompt", "rag", "few-shot")
        found.append(
            Arm(
                name=name,
                weights="base" if plain else weights,
                stages=() if plain else ("sft",),
                context=weights if plain else (context or "prompt"),
            )
        )
    return found


def test_planned_pairs_are_the_best_with_each_and_blends_with_their_parts() -> None:
    arms = arms_named("prompt", "rag", "lora", "lora+rag", "full+rag")
    assert planned_pairs(arms, "lora+rag") == [
        ("lora+rag", "prompt"),
        ("lora+rag", "rag"),
        ("lora+rag", "lora"),
        ("lora+rag", "full+rag"),
        ("full+rag", "rag"),
    ]
    assert planned_pairs(arms, "rag")[-1] == ("lora+rag", "lora")
    assert ("lora+rag", "rag") not in planned_pairs(arms, "rag")


def test_a_composed_context_is_set_against_each_arm_that_lacks_one_ingredient() -> None:
    names = ("prompt", "rag", "few-shot", "rag+few-shot", "lora+rag", "lora+rag+few-shot", "api-big", "api-big+rag")
    arms = [arm for name in names if (arm := arm_from_name(name)) is not None]
    pairs = [pair for pair in planned_pairs(arms, "prompt") if "prompt" not in pair]
    assert pairs == [
        ("rag+few-shot", "rag"),
        ("rag+few-shot", "few-shot"),
        ("lora+rag", "rag"),
        ("lora+rag+few-shot", "rag+few-shot"),
        ("lora+rag+few-shot", "lora+rag"),
    ]


def test_quotes_are_set_against_the_same_passages_without() -> None:
    arms = [arm for name in ("prompt", "rag", "rag+quote", "lora+rag+quote") if (arm := arm_from_name(name))]
    pairs = planned_pairs(arms, "prompt")
    assert pairs[3:] == [("rag+quote", "rag"), ("lora+rag+quote", "rag+quote")]


def test_parts_share_the_settings_of_the_blend() -> None:
    wide = Arm(name="wide", weights="lora", stages=("sft",), context="rag", settings={"rank": 64, "passages": 3})
    others = [*arms_named("lora", "rag"), wide]
    rank = Arm(name="rank", weights="lora", stages=("sft",), context="prompt", settings={"rank": 64})
    three = Arm(name="three", weights="base", stages=(), context="rag", settings={"passages": 3})
    pairs = planned_pairs([*others, rank, three], "lora")
    assert [pair for pair in pairs if pair[0] == "wide"] == [("wide", "rank"), ("wide", "three")]


def scores(values: list[float]) -> dict[str, float]:
    return {f"q{number}": value for number, value in enumerate(values)}


@given(
    st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=30, max_size=30), min_size=2, max_size=5),
    st.floats(0, 0.5),
)
def test_the_best_is_always_in_and_a_wider_margin_leaves_out_no_more(rows: list[list[float]], margin: float) -> None:
    on_dev = {f"a{number}": scores(row) for number, row in enumerate(rows)}
    found = contenders(on_dev, margin)
    best = max(np.mean(row) for row in rows)
    assert {name for name, own in on_dev.items() if np.mean(list(own.values())) == best} <= set(found)
    assert set(found) <= set(contenders(on_dev, margin + 0.1))


def test_an_arm_that_is_clearly_behind_is_out_and_one_of_which_nothing_is_known_is_in() -> None:
    good, bad = [1.0] * 38 + [0.0] * 2, [0.0] * 38 + [1.0] * 2
    near = [0.0] + [1.0] * 38 + [0.0]
    on_dev = {"good": scores(good), "bad": scores(bad), "near": scores(near), "unasked": {}}
    assert contenders(on_dev, 0.02) == ("good", "near", "unasked")


def test_of_one_arm_or_few_questions_nothing_is_said() -> None:
    few = scores([1.0] * (LEAST_SHARED - 1))
    assert contenders({"a": few, "b": few}, 0.02) == ()
    assert contenders({"a": scores([1.0] * 50)}, 0.02) == ()
    assert contenders({}, 0.02) == ()
