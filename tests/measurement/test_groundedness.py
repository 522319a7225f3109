"""Groundedness of answers: sentences that passages support, contradict, or do not say."""

from __future__ import annotations

import pytest
from made_answers import made_answer

from trimtab.base.records import Hit, Passage
from trimtab.measurement.groundedness import groundedness_of, groundedness_shares

PASSAGES = (
    "The workshop in Brannock opens at 9:30 on weekdays. It repairs violins and cellos within twelve days.",
    "Returns are free for 30 days after delivery, if the strings are unopened.",
)
HITS = tuple(
    Hit(passage=Passage(id=str(n), document="d", title="", path=(), text=text, source="d"), rank=n, score=1.0)
    for n, text in enumerate(PASSAGES, 1)
)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("The workshop in Brannock opens at 9:30.", ["supported"]),
        ("The workshop in Brannock opens at 10:15.", ["contradicted"]),
        ("Returns are free for 14 days after delivery.", ["contradicted"]),
        ("The founder learned her trade in Cremona.", ["not_there"]),
        ("Returns are free for 30 days. Shipping insurance costs extra.", ["supported", "not_there"]),
        ("Would you like to know more?", []),
        ("I don't know", []),
        ("", []),
    ],
)
def test_each_sentence_is_supported_contradicted_or_not_there(said: str, expected: list[str]) -> None:
    assert groundedness_of(said, HITS, "I don't know", "When can I come, and how are returns handled?") == expected


def test_a_sentence_that_only_repeats_the_question_states_nothing() -> None:
    assert groundedness_of("Opening hours in Brannock.", HITS, "", "What are the opening hours in Brannock?") == []


def test_shares_are_of_all_sentences_of_answers_with_passages() -> None:
    right = made_answer("item-0", 1.0, answer="It repairs violins and cellos within twelve days.", hits=HITS)
    wrong = made_answer(
        "item-1", 1.0, answer="It repairs violins and cellos within ninety days. Tuning is free.", hits=HITS
    )
    silent = made_answer("item-2", 1.0, answer="The founder learned in Cremona.", hits=())
    assert groundedness_shares([right, wrong, silent], "I don't know") == pytest.approx(
        {"sentences_supported": 1 / 3, "sentences_contradicted": 1 / 3, "sentences_not_there": 1 / 3}
    )
    assert groundedness_shares([silent], "I don't know") == {}
