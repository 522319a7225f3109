"""Sentences as passages, and which of them answers."""

from __future__ import annotations

import pytest

from trimtab.base.grammar import SENTENCE
from trimtab.retrieval.chunk import chunk_document
from trimtab.retrieval.extract import DEPTH, FEATURES, Extractor, answer_probability, answer_type, in_context, stems
from trimtab.retrieval.index import Index
from trimtab.retrieval.search import candidates
from trimtab.retrieval.sentences import can_answer

LEAVE = (
    "A full year gives you 27 days of paid leave. How do I ask for it? Enter the request in Rosterly. "
    "Ada Quill answers within four working days. Days that are left over lapse on 19 April."
)
PAY = "Salaries are paid on the 25th. The payroll office is in Brannock. A bonus is paid in March."


@pytest.fixture
def extractor(tmp_path, encoder, make_document) -> Extractor:
    index = Index.open(tmp_path, encoder, words=SENTENCE)
    index.update([make_document("leave.md", LEAVE), make_document("pay.md", PAY)])
    return Extractor(index)


def answer(extractor: Extractor, question: str) -> str:
    return extractor.best([question], 1)[0][0].passage.text


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Smith met J. R. Ewing. He left.", ["Dr. Smith met J. R. Ewing.", "He left."]),
        ("It is in the U.S. army. See No. 5.", ["It is in the U.S. army.", "See No. 5."]),
        ("A line that is\nwrapped here.\nAnother one.", ["A line that is\nwrapped here.", "Another one."]),
        ("- one item\n- another item", ["- one item", "- another item"]),
        ("Costs 3.5 euros. Nothing else", ["Costs 3.5 euros.", "Nothing else"]),
        ("一。丂。", ["一。", "丂。"]),
        ("Heading\n\nText under it.", ["Heading", "Text under it."]),
    ],
)
def test_a_passage_is_one_sentence(make_document, text: str, sentences: list[str]) -> None:
    assert [one.text for one in chunk_document(make_document("a.md", text), words=SENTENCE)] == sentences


def test_a_sentence_without_an_end_is_cut_where_a_passage_would_be(make_document) -> None:
    words = [f"w{number}" for number in range(250)]
    found = chunk_document(make_document("a.md", " ".join(words)), words=SENTENCE)
    assert [len(one.text.split()) for one in found] == [120, 120, 10]
    assert " ".join(one.text for one in found).split() == words


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("When do days lapse?", "date"),
        ("By which date must I use them?", "date"),
        ("How many days do I get?", "number"),
        ("Up to how many gigabytes may it grow?", "number"),
        ("Who answers?", "name"),
        ("Where is the payroll office?", "name"),
        ("How do I open it?", "method"),
        ("Which command starts it?", "method"),
        ("Why is it so?", "other"),
    ],
)
def test_the_answer_type_a_question(question: str, kind: str) -> None:
    assert answer_type(question) == kind


def test_the_sentence_that_answers_comes_first(extractor: Extractor) -> None:
    assert answer(extractor, "How many days of leave do I have?") == "A full year gives you 27 days of paid leave."
    assert answer(extractor, "Who answers a request?") == "Ada Quill answers within four working days."
    assert answer(extractor, "When do leftover days lapse?") == "Days that are left over lapse on 19 April."
    assert answer(extractor, "Where is the payroll office?") == "The payroll office is in Brannock."


def test_a_sentence_that_asks_is_never_an_answer(extractor: Extractor) -> None:
    for question in ("How do I ask for it?", "How do I ask for leave?"):
        found = extractor.best([question], 20)[0]
        assert found
        assert not any(hit.passage.text.endswith("?") for hit in found)


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("The office is in Brannock.", True),
        ("Prices are these:", False),
        ("**Prices are these:**", False),
        ("Where is it?", False),
        ("Annual Leave Policy", False),
        ("## Annual Leave Policy", False),
        ("- [Annual leave](leave.md)", False),
        ("See:\n\n- [Annual leave](leave.md)\n- [Sick leave](sick.md)", False),
        ("A year gives [27 days](leave.md).", True),
        ("https://example.org/a/long/address", False),
        ("```\npip install thing\n```", False),
        ("12 345", False),
        ("**default**: `null`", True),
        ("| tea | 2 euros |", True),
        ("- one for each colleague", True),
        ("The office closes at 17:00", True),
        ("To install it, run:\n\n```\npip install thing\n```", True),
        ("一天有二十四小时。", True),
    ],
)
def test_what_can_answer(text: str, answers: bool) -> None:
    assert can_answer(text) == answers


def test_what_cannot_answer_is_no_candidate(tmp_path, encoder, make_document) -> None:
    index = Index.open(tmp_path, encoder, words=SENTENCE)
    index.update([make_document("a.md", "Price of the ticket\n\nThe price of the ticket:\n\nIt is 12 euros.")])
    (hits,) = Extractor(index).best(["What is the price of the ticket?"], 5)
    assert [hit.passage.text for hit in hits] == ["The price of the ticket:\n\nIt is 12 euros."]


def test_code_answers_how_to_do_something(tmp_path, encoder, make_document) -> None:
    index = Index.open(tmp_path, encoder, words=SENTENCE)
    index.update([make_document("a.md", "The site is built at night. The site is built with `site build`.")])
    (hits,) = Extractor(index).best(["How do I get the site built?"], 5)
    assert hits[0].passage.text == "The site is built with `site build`."


def test_a_log_of_changes_answers_only_what_has_changed(tmp_path, encoder, make_document) -> None:
    index = Index.open(tmp_path, encoder, words=SENTENCE)
    pages = {"changelog.md": "The port is 8000.", "server.md": "Nobody knows which port the server opens."}
    index.update([make_document(name, text) for name, text in pages.items()])
    for question, pages_of in (("Which port is it?", ["server.md"]), ("Which port was added in 1.2?", list(pages))):
        (hits,) = Extractor(index).best([question], 5)
        assert sorted(hit.passage.document for hit in hits) == pages_of


def test_scores_are_chances_in_falling_order_and_ranks_count(extractor: Extractor) -> None:
    found = extractor.best(["How many days?", "Who?"], 3)
    for hits in found:
        assert [hit.rank for hit in hits] == [1, 2, 3]
        assert all(0 < hit.score < 1 for hit in hits)
    assert extractor.best(["How many days?"], 3)[0] == found[0], "a question does not hang on those beside it"


def test_surer_with_a_higher_score_and_with_names_that_the_documents_hold() -> None:
    assert answer_probability(20) > answer_probability(15)
    assert answer_probability(20) > answer_probability(20, 0.5)


def test_a_sentence_is_found_by_those_beside_it(tmp_path, encoder, make_document) -> None:
    index = Index.open(tmp_path, encoder, words=SENTENCE)
    lent = "They are returned after five days."
    pages = {
        "lunch.md": f"Lunch is served. {lent} Eat it.",
        "ladders.md": f"Take borrowed ladders. {lent} Ladders are rare.",
    }
    index.update([make_document(name, text) for name, text in pages.items()])
    (hits,) = Extractor(index).best(["After how many days are borrowed ladders returned?"], 1)
    assert hits[0].passage.id == "ladders.md#1"
    assert in_context(index.passages, hits[0].passage).startswith("Take borrowed ladders."), (
        "it is shown with what it is about"
    )


def test_candidates_carry_their_true_cosines(extractor: Extractor) -> None:
    question = "payroll office bonus"
    index = extractor.index
    vector = index.encoder.encode_questions([question])[0]
    found = candidates(index, [question], 2)[0]
    held = index.vectors(list(found))
    assert len(found) >= 2
    for name, cosine in found.items():
        assert cosine == pytest.approx(float(held[name] @ vector), abs=1e-5)


def test_it_follows_the_index(extractor: Extractor, make_document) -> None:
    extractor.index.update([make_document("leave.md", "A full year gives you 30 days of paid leave.")])
    assert answer(extractor, "How many days of leave do I have?") == "A full year gives you 30 days of paid leave."


def test_no_documents_and_no_words(tmp_path, encoder, extractor: Extractor) -> None:
    assert Extractor(Index.open(tmp_path / "empty", encoder, words=SENTENCE)).best(["What?"], 3) == [()]
    assert len(extractor.best(["???"], 3)[0]) == 3
    assert extractor.best([], 3) == []


def test_features_are_shares(extractor: Extractor) -> None:
    names, features = extractor.scorer.features(
        "How many days?", candidates(extractor.index, ["How many days?"], DEPTH)[0]
    )
    assert features.shape == (len(names), len(FEATURES))
    assert ((features[:, 1:] >= 0) & (features[:, 1:] <= 1)).all()


def test_words_of_one_stem_are_alike() -> None:
    assert stems("applies applied apply applying") == stems("apply")
