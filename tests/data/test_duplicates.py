"""Duplicates: the join is exact against brute force, short texts work, bursts stay linear."""

import random
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.data.duplicates import Pair, find_pairs, plain_words
from trimtab.data.shingles import NEAR


def features(text: str) -> set[tuple[str, str]]:
    padded = f" {text} ".ljust(4)
    return {("g", padded[i : i + 4]) for i in range(len(padded) - 3)} | {("w", word) for word in text.split()}


def jaccard(a: str, b: str) -> float:
    one, other = features(a), features(b)
    return len(one & other) / len(one | other)


def components(count: int, pairs: list[tuple[int, int]]) -> set[frozenset[int]]:
    part = list(range(count))
    for a, b in pairs:
        old, new = part[b], part[a]
        part = [new if p == old else p for p in part]
    return {frozenset(i for i in range(count) if part[i] == p) for p in set(part)}


def kind_of(a: str, b: str) -> str | None:
    pairs = find_pairs([a], [b])
    within = find_pairs([a, b])
    assert [pair.kind for pair in pairs] == [pair.kind for pair in within]
    return pairs[0].kind if pairs else None


WORDS = ["card", "lost", "my", "arrived", "the", "stolen", "account", "transfer", "a", "not"]
SENTENCE = st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).map(" ".join)


@pytest.mark.parametrize(
    ("a", "b", "kind"),
    [
        ("I lost my card!!", "I lost my card!!", "exact"),
        ("I lost my card!!", "i lost my  card", "normalised"),
        ("ｃａｒｄ lost", "Card, lost.", "normalised"),
        ("wire\u200bless ca\u00adrd", "wireless card", "normalised"),
        ("don’t block it", "Dont block it", "normalised"),
        (
            "I would like to know why my transfer has not arrived yet",
            "I would like to know why my transfers has not arrived yet",
            "near",
        ),
        ("my card was stolen", "my card has arrived", None),
        ("my card was stolen", "my card was lost", None),
        ("my card has arrived", "my card has not arrived", None),
        ("How do I activate my new card?", "How do I cancel my new card?", None),
        ("What is the fee for a transfer in euros?", "What is the fee for a transfer in dollars?", None),
        ("3 - 5", "3 * 5", None),
        ("pay 3.5", "pay 35", None),
        ("no", "yes", None),
        ("", "card", None),
    ],
)
def test_kind_of_a_pair(a: str, b: str, kind: str | None) -> None:
    assert kind_of(a, b) == kind


@settings(deadline=None, max_examples=150)
@given(st.lists(SENTENCE, max_size=19))
def test_within_connects_what_brute_force_connects(texts: list[str]) -> None:
    # at most 19 texts: no template is taken off
    found = find_pairs(texts)
    expected = [
        (i, j)
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
        if jaccard(plain_words(texts[i]), plain_words(texts[j])) >= NEAR - 1e-9
    ]
    truth = components(len(texts), expected)
    assert components(len(texts), [(pair.a, pair.b) for pair in found]) == truth
    assert len(found) == len(texts) - len(truth)  # a forest: as few as connect
    for pair in found:
        assert pair.a < pair.b
        assert pair.similarity == pytest.approx(jaccard(plain_words(texts[pair.a]), plain_words(texts[pair.b])))


@settings(deadline=None, max_examples=150)
@given(st.lists(SENTENCE, max_size=9), st.lists(SENTENCE, max_size=9))
def test_between_gives_each_right_text_its_best(left: list[str], right: list[str]) -> None:
    found = {pair.b: pair for pair in find_pairs(left, right)}
    for j, text in enumerate(right):
        best = max((jaccard(plain_words(other), plain_words(text)) for other in left), default=0.0)
        assert (j in found) == (best >= NEAR - 1e-9)
        if j in found:
            assert found[j].similarity == pytest.approx(best)
            assert (found[j].kind == "exact") == (text in left)


def test_most_alike_and_first_is_taken() -> None:
    question = "could you tell me how long a transfer to another bank in europe takes"
    left = [question + " please", question + "s", question + "s", question.replace("another", "some other")]
    assert find_pairs(left, [question])[0].a == 1
    assert find_pairs(["a b", "x", "x"], ["x", "A, b"]) == [Pair(1, 0, "exact", 1.0), Pair(0, 1, "normalised", 1.0)]


@given(st.text(max_size=60))
def test_normalise_is_idempotent_and_never_empties(text: str) -> None:
    assert plain_words(plain_words(text)) == plain_words(text)
    assert bool(plain_words(text)) == bool(text.split())


def test_large_sets_match_small_ones_across_blocks() -> None:
    draw = random.Random(0)
    vocabulary = [f"w{draw.randrange(10**6)}" for _ in range(400)]
    texts = [" ".join(draw.choices(vocabulary, k=draw.randrange(5, 12))) for _ in range(600)]
    copies = [text + " x" for text in texts[:100] if len(text) > 50]
    found = find_pairs(texts + copies)
    near = {(pair.a, pair.b) for pair in found if pair.kind == "near"}
    expected = {(texts.index(copy[:-2]), 600 + i) for i, copy in enumerate(copies) if jaccard(copy, copy[:-2]) >= NEAR}
    assert len(expected) > 20
    assert near == expected


def test_template_that_all_rows_share_is_not_compared() -> None:
    draw = random.Random(1)
    words = [f"{draw.randrange(10**9):x}" for _ in range(200)]
    instruction = (
        "Classify the following message of a customer as one of the seventy-seven intents that the bank knows: "
    )
    texts = [instruction + " ".join(draw.choices(words, k=2)) + ". Answer with the intent alone." for _ in range(40)]
    assert find_pairs(texts) == []
    assert find_pairs(texts[:30], texts[30:]) == []


def test_no_texts() -> None:
    assert find_pairs([]) == []
    assert find_pairs([], ["a"]) == []
    assert find_pairs(["a"], []) == []
    assert find_pairs(["", ""]) == [Pair(0, 1, "exact", 1.0)]


def test_burst_of_near_duplicates_stays_small_and_fast() -> None:
    texts = [f"you have won a prize of many pounds in our weekly draw, claim it with code {i}" for i in range(1000)]
    texts += ["when does my card arrive", "how do I change my address"]
    started = time.process_time()
    found = find_pairs(texts)
    assert time.process_time() - started < 10
    assert len(found) == 999


def test_long_texts_are_compared_in_bounded_memory() -> None:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=draw.randint(2, 8))) for _ in range(2000)]
    texts = [" ".join(draw.choices(words, k=600)) for _ in range(200)]
    tracemalloc.start()
    try:
        assert [(pair.a, pair.b) for pair in find_pairs([*texts, f"{texts[7]} and more"])] == [(7, 200)]
        assert tracemalloc.get_traced_memory()[1] < 250 * 1024 * 1024
    finally:
        tracemalloc.stop()
