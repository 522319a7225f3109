"""Documents are compared by what they state: other words and another place change nothing, another fact does."""

from __future__ import annotations

import pytest

from trimtab.base.records import Document, Example, Message, Passage, Section
from trimtab.upkeep.statements import StatedFacts, outdated_rows, statement_of

Texts = dict[tuple[str, ...], str]


def document(name: str, texts: Texts) -> Document:
    sections = tuple(Section(path=path, text=text) for path, text in texts.items())
    return Document(id=name, title=name, source=name, sections=sections, digest=str(texts))


def passage(text: str, path: tuple[str, ...] = ("Leave",), name: str = "a.md") -> Passage:
    return Passage(id=f"{name}#0", document=name, title=name, path=path, text=text, source=name)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Employees have thirty days of leave.", "The leave of employees is 30 days.", True),
        ("It is due on 2 May 2026.", "It is due on 2026-05-02.", True),
        ("Employees have 30 days of leave.", "Employees have 25 days of leave.", False),
        ("The fee is 5 euros.", "The limit is 5 euros.", False),
        ("The office is led by Ada Gray.", "The office is led by Max Gray.", False),
        ("Dogs are allowed.", "Dogs are not allowed.", False),
        ("Dogs are allowed.", "Cats are allowed.", False),
    ],
)
def test_sentences_agree_where_their_facts_do(one: str, other: str, same: bool) -> None:
    assert statement_of(one).agrees(statement_of(other)) is same
    assert statement_of(other).agrees(statement_of(one)) is same


BEFORE = document("a.md", {("Leave",): "Employees have 30 days of leave.", ("Fees",): "The fee is 5 euros."})


@pytest.mark.parametrize(
    ("now", "holds"),
    [
        ([BEFORE], True),
        ([document("a.md", {("Leave",): "The leave of employees is thirty days."})], True),
        ([document("a.md", {("Leave",): "Up to 30 days of annual leave, half of them in summer."})], True),
        ([document("b.md", {("Leave",): "Employees have 30 days of leave."})], True),  # it moved
        ([document("a.md", {("Leave",): "Employees have 25 days of leave."})], False),
        ([document("a.md", {("Leave",): "Employees have 25 days of leave.", ("Fees",): "After 30 days."})], False),
        ([document("a.md", {("Leave",): "Employees have 25 days of leave. The notice is 30 days."})], False),
        ([document("b.md", {("Illness",): "Employees have 30 days."})], False),
        ([], False),
    ],
)
def test_an_answer_holds_while_its_own_sentence_does(now: list[Document], holds: bool) -> None:
    facts = StatedFacts([BEFORE], now)
    assert facts.holds_answer(passage("Employees have 30 days of leave."), ["30 days"]) is holds
    assert facts.holds_answer(passage("Employees have 30 days of leave."), ["7 weeks"]) is None


def test_only_facts_that_are_stated_no_more_are_lost() -> None:
    now = document("a.md", {("Leave",): "Employees' leave: thirty days of leave.", ("Fees",): "The fee is 6 euros."})
    facts = StatedFacts([BEFORE], [now])
    assert facts.lost(passage("Employees have 30 days of leave.")) == []
    assert [one.text for one in facts.lost(passage("The fee is 5 euros.", ("Fees",)))] == ["The fee is 5 euros."]


def test_a_row_is_outdated_by_the_passage_that_it_names_else_by_the_best_that_held_its_answer() -> None:
    other = passage("Employees of the office have 30 days of notice.", ("Notice",), "b.md")
    own = passage("Employees have 30 days of leave.")
    before = [BEFORE, document("b.md", {("Notice",): other.text})]
    facts = StatedFacts(before, [document("a.md", {("Leave",): "Employees have 25 days of leave."}), before[1]])

    def row(name: str, *passages: str, answer: str = "30 days") -> Example:
        asked = (Message(role="user", content="How many days of leave?"),)
        return Example(id=name, messages=asked, references=(answer,), passages=passages)

    found = {"first": [own, other], "second": [other, own], "named": [other, own], "unknown": [own, other]}
    rows = [row("first"), row("second"), row("named", "a.md"), row("unknown", answer="7 weeks")]
    assert outdated_rows(rows, facts, lambda asked: [found[one.id] for one in asked]) == ("first", "named")
