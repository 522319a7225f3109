"""Questions from the facts in sentences and tables: each reads as a person asks, and its answer stands in the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.grammar import SENTENCE
from trimtab.base.records import Document, Section
from trimtab.retrieval.chunk import chunk_document
from trimtab.retrieval.drafting import Draft, draft_questions

UNKNOWN = "I don't know"


def document(text: str, name: str = "page.md", path: tuple[str, ...] = ("Page",)) -> Document:
    return Document(id=name, title=path[0], source=name, digest="", sections=(Section(path=path, text=text),))


def drafts(*documents: Document) -> list[Draft]:
    sentences = [one for document in documents for one in chunk_document(document, words=SENTENCE)]
    return list(draft_questions(documents, sentences, UNKNOWN))


@pytest.mark.parametrize(
    ("sentence", "question", "answer"),
    [
        ("You may carry up to eight days into the next year.", "Up to how many days may I carry into the next year?",
         "eight days"),
        ("The gate opens at 6:10 and closes at 21:00.", "At what time does the gate open?", "6:10"),
        ("A replacement costs your team 29 euros.", "How much does a replacement cost my team?", "29 euros"),
        ("The privacy officer is Beatrix Olander.", "Who is the privacy officer?", "Beatrix Olander"),
        ("Complaints are collected by Fergus Adeyemi, who reads them aloud.", "Who are complaints collected by?",
         "Fergus Adeyemi"),
        ("A full year gives you 27 days of paid leave, on top of public holidays.",
         "How many days of paid leave does a full year give me?", "27 days of paid leave"),
        ("The shoes are replaced every 15 months.", "How often are the shoes replaced?", "every 15 months"),
        ("After six years with the company you receive two extra days a year.",
         "How many extra days do I receive a year after six years with the company?", "two extra days"),
        ("The quiet room on the second floor is called Lagoon and is not booked at all.",
         "What is the quiet room on the second floor called?", "Lagoon"),
        ("The gallery closed on 25 February 2010.", "When did the gallery close?", "25 February 2010"),
    ],
)  # fmt: skip
def test_a_sentence_is_asked_for_its_fact(sentence: str, question: str, answer: str) -> None:
    (draft,) = drafts(document(sentence))
    assert (draft.question, draft.answer, draft.kind) == (question, answer, "one passage")
    assert draft.sentence == sentence


@pytest.mark.parametrize(
    "sentence",
    [
        "It was built in 1957.",  # what was?
        "They repeat their course every 20 months.",
        "Between 2 and 8 people came to the meeting.",
        "The talks last 20 to 30 minutes.",
        "Do you have 20 minutes?",
        "Ask in the office.",
        "The house that Jack built has five rooms and it was sold in 1957 to a man who never came.",
    ],
)
def test_what_needs_the_sentence_before_it_or_is_no_single_fact_is_not_asked(sentence: str) -> None:
    assert drafts(document(sentence)) == []


TABLE = """| part | price | kept in |
| --- | --- | --- |
| pump | 120 euros | hall |
| valve | 35 euros | cellar |
"""


def test_a_table_is_asked_by_its_headers_and_two_rows_are_compared() -> None:
    found = drafts(document(TABLE))
    asked = {one.question: one.answer for one in found}
    assert asked["What is the price for pump?"] == "120 euros"
    assert asked["Pump: kept in?"] == "hall"
    assert asked["Which has the larger price, pump or valve?"] == "pump"
    assert {one.kind for one in found} == {"one passage", "two passages"}


def test_what_others_state_and_one_does_not_is_asked_and_not_answered() -> None:
    full = "Released: 2021\nSupported until: 2024\nLanguage: C\n"
    pages = [document(full, f"{name}.md", (name,)) for name in ("Anvil", "Bolt")]
    found = drafts(*pages, document("Released: 2022\nLanguage: Rust\n", "Crane.md", ("Crane",)))
    (silent,) = [one for one in found if one.kind == "not answered"]
    assert silent.question == "Crane: supported until?"
    assert silent.answer == UNKNOWN
    assert silent.passages == ()


def test_a_list_of_changes_gives_no_questions() -> None:
    lines = "Fix: the pump stops after 20 minutes\nFix: the valve opens at 6:10\n"
    assert drafts(document(lines, "changelog.md", ("Changelog",))) == []
    assert [one for one in drafts(document(lines)) if one.question.startswith("What is the fix")] == []


@given(st.text(max_size=300))
def test_any_text_can_be_read(text: str) -> None:
    for one in drafts(document(text)):
        assert one.question
        assert one.answer
