"""Duplicates: the join is exact against brute force, short texts work, bursts stay linear."""

import random
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.data import similarity_join
from trimtab.data.duplicates import DuplicatePair, duplicate_pairs, find_duplicates, normalise_text
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
    pairs = duplicate_pairs([a], [b])
    within = duplicate_pairs([a, b])
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


@given(st.lists(SENTENCE, max_size=19))
def test_within_connects_what_brute_force_connects(texts: list[str]) -> None:
    # at most 19 texts: no template is taken off
    found = duplicate_pairs(texts)
    expected = [
        (i, j)
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
        if jaccard(normalise_text(texts[i]), normalise_text(texts[j])) >= NEAR - 1e-9
    ]
    truth = components(len(texts), expected)
    assert components(len(texts), [(pair.a, pair.b) for pair in found]) == truth
    assert len(found) == len(texts) - len(truth)  # a forest: as few as connect
    for pair in found:
        assert pair.a < pair.b
        assert pair.similarity == pytest.approx(jaccard(normalise_text(texts[pair.a]), normalise_text(texts[pair.b])))


@given(st.lists(SENTENCE, max_size=9), st.lists(SENTENCE, max_size=9))
def test_between_gives_each_right_text_its_best(left: list[str], right: list[str]) -> None:
    found = {pair.b: pair for pair in duplicate_pairs(left, right)}
    for j, text in enumerate(right):
        best = max((jaccard(normalise_text(other), normalise_text(text)) for other in left), default=0.0)
        assert (j in found) == (best >= NEAR - 1e-9)
        if j in found:
            assert found[j].similarity == pytest.approx(best)
            assert (found[j].kind == "exact") == (text in left)


def test_most_alike_and_first_is_taken() -> None:
    question = "could you tell me how long a transfer to another bank in europe takes"
    left = [question + " please", question + "s", question + "s", question.replace("another", "some other")]
    assert duplicate_pairs(left, [question])[0].a == 1
    assert duplicate_pairs(["a b", "x", "x"], ["x", "A, b"]) == [
        DuplicatePair(1, 0, "exact", 1.0),
        DuplicatePair(0, 1, "normalised", 1.0),
    ]


@given(st.text(max_size=60))
def test_normalise_is_idempotent_and_never_empties(text: str) -> None:
    assert normalise_text(normalise_text(text)) == normalise_text(text)
    assert bool(normalise_text(text)) == bool(text.split())


def test_large_sets_match_small_ones_across_blocks() -> None:
    draw = random.Random(0)
    vocabulary = [f"w{draw.randrange(10**6)}" for _ in range(400)]
    texts = [" ".join(draw.choices(vocabulary, k=draw.randrange(5, 12))) for _ in range(600)]
    copies = [text + " x" for text in texts[:100] if len(text) > 50]
    found = duplicate_pairs(texts + copies)
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
    assert duplicate_pairs(texts) == []
    assert duplicate_pairs(texts[:30], texts[30:]) == []


def test_no_texts() -> None:
    assert duplicate_pairs([]) == []
    assert duplicate_pairs([], ["a"]) == []
    assert duplicate_pairs(["a"], []) == []
    assert duplicate_pairs(["", ""]) == [DuplicatePair(0, 1, "exact", 1.0)]


def test_burst_of_near_duplicates_stays_small_and_fast() -> None:
    texts = [f"you have won a prize of many pounds in our weekly draw, claim it with code {i}" for i in range(1000)]
    texts += ["when does my card arrive", "how do I change my address"]
    started = time.process_time()
    found = duplicate_pairs(texts)
    assert time.process_time() - started < 10
    assert len(found) == 999


def test_long_texts_are_compared_in_bounded_memory() -> None:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=draw.randint(2, 8))) for _ in range(2000)]
    texts = [" ".join(draw.choices(words, k=600)) for _ in range(200)]
    tracemalloc.start()
    try:
        assert [(pair.a, pair.b) for pair in duplicate_pairs([*texts, f"{texts[7]} and more"])] == [(7, 200)]
        assert tracemalloc.get_traced_memory()[1] < 250 * 1024 * 1024
    finally:
        tracemalloc.stop()


def written_anew(draw: random.Random, texts: list[str], words: list[str]) -> list[str]:
    """The texts with one to four words taken out, put in or replaced."""
    anew = []
    for text in texts:
        own = text.split()
        for _ in range(draw.randint(1, 4)):
            own[draw.randrange(len(own))] = draw.choice(
                ["", draw.choice(words), f"{draw.choice(own)} {draw.choice(words)}"]
            )
        anew.append(" ".join(" ".join(own).split()))
    return anew


@pytest.fixture
def sentences() -> list[str]:
    """Some thousand sentences, of which every second is another one written anew."""
    draw = random.Random(2)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(2000)]
    texts = [" ".join(draw.choices(words, k=draw.randint(8, 24))) for _ in range(750)]
    return draw.sample(both := [*texts, *written_anew(draw, texts, words)], len(both))


def by_minhash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity_join, "PRODUCTS_A_FEATURE", 0)
    monkeypatch.setattr(similarity_join, "FEW_PRODUCTS", 0)


def test_minhash_finds_what_the_exact_join_finds(sentences: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    half = len(sentences) // 2
    exact = find_duplicates(sentences, half)
    by_minhash(monkeypatch)
    estimated = find_duplicates(sentences, half)
    assert (exact.exact, estimated.exact) == (True, False)
    assert len(exact.near_pairs) > 150
    assert set(estimated.near_pairs) <= set(
        exact.near_pairs
    )  # nothing is invented; pairs are few, so that the forest is one
    assert len(estimated.near_pairs) >= 0.995 * len(exact.near_pairs)
    one, other = (like.between(range(half), range(half, len(sentences))) for like in (exact, estimated))
    assert len(one) > 50
    assert len(set(one) & set(other)) >= 0.99 * len(one)
    assert estimated.head(half).exact is False


def test_exact_join_reports_every_pair_of_a_set_in_several_blocks(
    sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similarity_join, "_BLOCK", 64)
    monkeypatch.setattr(similarity_join, "_CHUNK", 256)
    found = {(a, b) for a, b, _ in find_duplicates(sentences).near_pairs}
    sets = [features(normalise_text(text)) for text in sentences]
    holders: dict[tuple[str, str], list[int]] = {}
    for i, own in enumerate(sets):
        for name in own:
            holders.setdefault(name, []).append(i)
    expected = set()
    for j, own in enumerate(sets):
        common: dict[int, int] = {}
        for name in own:
            for i in holders[name]:
                common[i] = common.get(i, 0) + 1
        expected |= {(i, j) for i, n in common.items() if i < j and n / (len(sets[i]) + len(own) - n) >= NEAR - 1e-9}
    assert found == expected


def test_a_flood_of_near_duplicates_takes_linear_time() -> None:
    def seconds(count: int) -> float:
        texts = [
            f"you have won a prize of many pounds in our weekly draw, claim it with code {i}" for i in range(count)
        ]
        started = time.process_time()
        likeness = find_duplicates([*texts, "when does my card arrive"])  # so that no template is taken off
        assert not likeness.exact
        assert len(likeness.near_pairs) == count - 1
        return time.process_time() - started

    assert seconds(16_000) < 3 * 4 * seconds(4_000)  # the square would be 16 times
