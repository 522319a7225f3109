from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.errors import InputError
from trimtab.retrieval.embed import embedded_text
from trimtab.retrieval.index import Index
from trimtab.retrieval.search import RRF_CONSTANT, hybrid_search

WORDS = ["leave", "pay", "office", "travel", "badge", "lunch", "holiday", "form", "manager", "approval"]


@pytest.fixture(scope="module")
def index(tmp_path_factory, encoder_type, make_document) -> Index:
    rng = np.random.default_rng(0)
    documents = [make_document(f"{n:02}.md", " ".join(rng.choice(WORDS, 8))) for n in range(60)]
    documents += [make_document(f"{n}.md", "twin words", title="Twin") for n in (91, 90)]
    index = Index.open(tmp_path_factory.mktemp("index"), encoder_type())
    index.update(documents)
    return index


def ids(hits) -> list[str]:
    return [hit.passage.id for hit in hits]


def test_vector_search_is_exact(index) -> None:
    passages = list(index.passages.values())
    matrix = index.encoder.encode([embedded_text(passage) for passage in passages])
    for question in ("leave and pay", "badge for the office", "travel approval form"):
        likeness = dict(zip((item.id for item in passages), matrix @ index.encoder.encode([question])[0], strict=True))
        found = ids(hybrid_search(index, [question], 10, vector_weight=1)[0])
        wanted = sorted(likeness.values(), reverse=True)[:10]
        assert [likeness[name] for name in found] == pytest.approx(wanted, abs=1e-6)


def test_text_search_finds_the_passages_that_have_the_word_in_text_title_or_heading(index) -> None:
    wanted = {name for name, item in index.passages.items() if "badge" in item.text}
    assert set(ids(hybrid_search(index, ["Badges!"], 62, vector_weight=0)[0])) == wanted
    assert ids(hybrid_search(index, ["17.md"], 1, vector_weight=0)[0]) == ["17.md#0"]


def test_hits_have_the_cosine_of_their_vector_unless_only_words_were_searched(index) -> None:
    question = "leave and pay"
    vector = index.encoder.encode_questions([question])[0]
    hits = hybrid_search(index, [question], 10)[0]
    own = index.vectors(ids(hits))
    known = [hit for hit in hits if hit.similarity is not None]
    assert known
    for hit in known:
        assert hit.similarity == pytest.approx(float(own[hit.passage.id] @ vector), abs=1e-5)
    assert all(hit.similarity is None for hit in hybrid_search(index, [question], 5, vector_weight=0)[0])


def test_fusion_adds_reciprocal_ranks(index) -> None:
    question = "leave approval by the manager"
    lists = [ids(hybrid_search(index, [question], 50, vector_weight=weight)[0]) for weight in (1, 0)]
    for hit in hybrid_search(index, [question], 20, vector_weight=0.5)[0]:
        places = [found.index(hit.passage.id) + 1 for found in lists if hit.passage.id in found]
        assert hit.score == pytest.approx(sum(1 / (RRF_CONSTANT + place) for place in places))


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.8])
def test_the_weight_is_the_share_of_the_vectors_in_every_score(index, weight: float) -> None:
    question = "leave approval by the manager"
    lists = [ids(hybrid_search(index, [question], 50, vector_weight=whole)[0]) for whole in (1, 0)]
    for hit in hybrid_search(index, [question], 20, vector_weight=weight)[0]:
        places = [found.index(hit.passage.id) + 1 if hit.passage.id in found else None for found in lists]
        shares = (2 * weight, 2 * (1 - weight))
        wanted = sum(share / (RRF_CONSTANT + place) for share, place in zip(shares, places, strict=True) if place)
        assert hit.score == pytest.approx(wanted)


def test_a_search_without_a_share_is_not_made(index, monkeypatch) -> None:
    monkeypatch.setattr(index.encoder, "encode_questions", lambda texts: pytest.fail("a question was embedded"))
    assert len(hybrid_search(index, ["pay"], 3, vector_weight=0)[0]) == 3


@pytest.mark.parametrize("weight", [-0.1, 1.01, float("nan")])
def test_a_weight_that_is_no_share_is_refused(index, weight: float) -> None:
    with pytest.raises(InputError, match=r"from 0 \(words alone\) to 1"):
        hybrid_search(index, ["pay"], 3, vector_weight=weight)


def test_hits_are_ranked_from_one_best_first_and_distinct(index) -> None:
    for hits in hybrid_search(index, ["pay", "lunch in the office"], 7):
        assert [hit.rank for hit in hits] == list(range(1, 8))
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert len(set(ids(hits))) == 7


def test_equal_passages_are_ordered_by_id(index) -> None:
    for weight in (1, 0, 0.5, 0.2):
        assert ids(hybrid_search(index, ["twin words"], 2, vector_weight=weight)[0]) == ["90.md#0", "91.md#0"]


def test_a_batch_finds_what_each_question_finds_alone(index) -> None:
    questions = ["pay", "lunch in the office", "", "travel form", "pay"]
    assert hybrid_search(index, questions, 5) == [hybrid_search(index, [question], 5)[0] for question in questions]
    assert hybrid_search(index, [], 5) == []


def test_all_questions_are_encoded_in_one_call(index, monkeypatch) -> None:
    calls: list[int] = []
    encode = index.encoder.encode_questions
    monkeypatch.setattr(index.encoder, "encode_questions", lambda texts: calls.append(len(texts)) or encode(texts))
    hybrid_search(index, ["a", "b", "c"], 2)
    assert calls == [3]


def test_more_passages_than_there_are_gives_all(index) -> None:
    assert len(hybrid_search(index, ["leave"], 500)[0]) == 62


SYNTAX = st.text(alphabet="\"'()+-&|!{}[]^~*?:\\/ ANDORNOTleave\0\n🙂\ud800%;", max_size=40)


@given(SYNTAX | st.text(max_size=40))
def test_no_character_of_a_question_is_syntax(index, question: str) -> None:
    (hits,) = hybrid_search(index, [question], 3)
    assert len(hits) == 3


def test_operators_around_the_words_change_nothing_in_the_text_search(index) -> None:
    plain = hybrid_search(index, ["leave pay"], 5, vector_weight=0)
    assert hybrid_search(index, ['("leave" +pay)*~'], 5, vector_weight=0) == plain


def test_a_very_long_question(index) -> None:
    (hits,) = hybrid_search(index, ["leave " * 20_000], 3)
    assert len(hits) == 3
