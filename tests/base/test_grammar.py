"""One grammar of arm names: every arm has one spelling, every spelling one arm, and a name that means nothing is
told so."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.grammar import METHODS, arm_from_name, context_of, describe_arm, describe_context, parts_of
from trimtab.base.records import Arm

PLAIN = ["prompt", "rag", "few-shot", "nearest-shots", "rag+few-shot", "rag+nearest-shots"]
CONTEXTS = [*PLAIN, "rag+quote", "rag+quote+few-shot"]
WEIGHTS = [
    "",
    "lora",
    "lora-docs",
    "freeze",
    "freeze-docs",
    "full",
    "full-docs",
    "lora-head",
    "full-docs-head",
    "lora-distill",
    "full-docs-distill",
    "dora",
    "rslora-docs",
    "pissa-docs-head",
    "vera-head",
    "ia3",
    "bitfit-docs",
    "oft",
    "loha-docs-head",
    "soft-prompt",
    "soft-prompt-docs",
    "prefix",
    "qlora",
    "api-big",
    "api-a-b",
]
NAMES = ["linear"] + [
    "+".join(part for part in (weights, context if context != "prompt" or not weights else "") if part)
    for weights, context in itertools.product(WEIGHTS, CONTEXTS)
    if not (weights.startswith("api-") and "quote" in context)
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_written_is_the_name_that_is_read(name: str) -> None:
    arm = arm_from_name(name)
    assert arm is not None
    assert arm.name == name
    assert arm.parts == parts_of(arm.context)
    assert describe_arm(arm)


def test_different_names_are_different_arms() -> None:
    assert len({repr(arm.identity) for name in NAMES if (arm := arm_from_name(name))}) == len(NAMES)


@given(st.sampled_from(NAMES), st.randoms())
def test_order_does_not_matter_on_reading(name: str, random) -> None:
    parts = name.split("+")
    random.shuffle(parts)
    assert arm_from_name("+".join(parts)) == arm_from_name(name)


@given(st.text(alphabet="abdefhilmnoprstuwx-+ ", max_size=24))
def test_any_text_is_an_arm_of_the_grammar_or_none_or_refused_in_words(text: str) -> None:
    try:
        arm = arm_from_name(text)
    except ValueError as error:
        _, remedy = str(error).split("; ", 1)
        arm = arm_from_name(remedy.removeprefix("write ")) if remedy.startswith("write ") else None
    assert arm is None or (arm_from_name(arm.name) == arm and arm.weights in METHODS)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "+",
        "lora+",
        "base",
        "base+rag",
        "api",
        "api-",
        "lora-sft",
        "lora-docs-docs",
        "lora-head-docs",
        "lora-distill-docs",
        "linear-distill",
        "soft",
        "soft-docs",
        "soft-prompts",
        "soft-prompt-sft",
        "prefixes",
        "lora+lora",
        "Lora",
        "rag+x",
    ],
)
def test_what_is_not_of_the_grammar_is_none(name: str) -> None:
    assert arm_from_name(name) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("few-shot+nearest-shots", "do not go together"),
        ("rag+rag", "do not go together"),
        ("linear+rag", "stands by itself"),
        ("lora+prompt", "write lora"),
        ("prompt+rag", "write rag"),
        ("soft-prompt-head", "soft-prompt takes no head"),
        ("prefix-docs-head+rag", "prefix takes no head"),
        ("quote", "write rag\\+quote"),
        ("lora+quote+few-shot", "quote needs passages"),
        ("api-big+rag+quote", "an endpoint writes cannot be held to passages"),
    ],
)
def test_known_parts_that_do_not_go_together_are_told(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        arm_from_name(name)


def test_contexts_have_one_order() -> None:
    assert context_of(["few-shot", "rag"]) == "rag+few-shot"
    assert context_of([]) == context_of(["prompt"]) == "prompt"
    assert describe_context("rag+few-shot") == "retrieved passages and fixed shots"
    assert context_of(["few-shot", "quote", "rag"]) == "rag+quote+few-shot"
    assert describe_context("rag+quote+few-shot") == "retrieved passages, answers quoted from them and fixed shots"
    arm = Arm(name="x", weights="lora", stages=("docs", "sft"), context="rag+few-shot", settings={"rank": 4})
    assert "on the documents, then on the examples, shown passages" in describe_arm(arm)


def test_a_teacher_stands_in_the_place_of_the_examples() -> None:
    arm = arm_from_name("full-docs-distill+rag")
    assert arm is not None
    assert arm.stages == ("docs", "distill")
    assert "on the documents, then on a teacher's answers, shown passages" in describe_arm(arm)
