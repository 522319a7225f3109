"""MinHash over many rows: every pair that it reports is near, and it finds nearly all that the exact join finds."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab.data import duplicates
from trimtab.data.duplicates import DuplicateIndex, find_duplicates
from trimtab.data.shingles import Shingles
from trimtab.data.similarity_join import HASHES, equal_minima, minhash_signatures

LETTERS = list("abcdefghijklmnopqrstuvwxyz")


def texts_of(count: int, words: int, seed: int = 0) -> list[str]:
    """Sentences of which every fifth is another one with a few words changed."""
    draw = np.random.default_rng(seed)
    vocabulary = ["".join(draw.choice(LETTERS, draw.integers(2, 9))) for _ in range(2000)]
    texts: list[str] = []
    for n in range(count):
        if n % 5 or n < 10:
            texts.append(" ".join(draw.choice(vocabulary, words)))
            continue
        changed = texts[draw.integers(len(texts))].split()
        for _ in range(draw.integers(1, max(2, words // 6))):
            changed[draw.integers(len(changed))] = str(draw.choice(vocabulary))
        texts.append(" ".join(changed))
    return texts


@pytest.fixture
def by_minhash(monkeypatch: pytest.MonkeyPatch):
    """Join texts by MinHash, however few."""

    def find(texts: list[str], first: int = 0) -> DuplicateIndex:
        with monkeypatch.context() as patch:
            patch.setattr(duplicates, "MOST_COMPARED", 1)
            return find_duplicates(texts, first)

    return find


@pytest.mark.parametrize("words", [12, 25, 200])
def test_nearly_all_near_pairs_are_found_and_no_others(by_minhash, words: int) -> None:
    texts = texts_of(2000, words)
    exact, estimated = find_duplicates(texts), by_minhash(texts)
    assert exact.exact
    assert not estimated.exact
    near = [(a, b) for a, b, _ in exact.near_pairs]
    assert len(near) > 50
    found = [estimated.components[a] == estimated.components[b] for a, b in near]
    assert np.mean(found) >= 0.98
    assert all(exact.components[a] == exact.components[b] for a, b, _ in estimated.near_pairs)
    for a, b, similarity in estimated.near_pairs[:50]:
        assert Shingles([texts[a], texts[b]]).near_pairs(*np.array([[0], [1]]))[2] == [similarity]


def test_a_flood_of_near_texts_is_one_component(by_minhash) -> None:
    start = " ".join(f"word{n}" for n in range(40))
    texts = [f"{start} {n}" for n in range(1500)] + texts_of(50, 30)  # so that no template is taken off
    assert len(set(by_minhash(texts).components[:1500].tolist())) == 1


def test_pairs_below_the_head_connect_what_is_near_there(by_minhash) -> None:
    texts = texts_of(1000, 25)
    head, alone = by_minhash(texts, 600).head(600), by_minhash(texts[:600])
    assert head.components.tolist() == alone.components.tolist()


@pytest.mark.parametrize("words", [12, 25, 200])
def test_the_share_of_equal_minima_is_the_jaccard_similarity(words: int) -> None:
    texts = texts_of(600, words, seed=1)
    shingles, signed = Shingles(texts), minhash_signatures(texts)
    a, b = (side.ravel() for side in np.triu_indices(600, 1))
    a, b, similarity = shingles.near_pairs(a, b)
    same = equal_minima(signed[a], signed[b]) / HASHES
    assert len(a) > 20
    assert abs(np.mean(same - similarity)) < 0.03
    assert np.max(np.abs(same - similarity)) < 5 * np.sqrt(0.25 / HASHES)


def test_a_signature_does_not_depend_on_the_texts_beside_it() -> None:
    texts = [*texts_of(40, 12), "", "a", "ß ü", "x" * 5000]
    together = minhash_signatures(texts)
    for n, text in enumerate(texts):
        assert (minhash_signatures([text])[0] == together[n]).all()
