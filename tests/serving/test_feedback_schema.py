"""What a judgement may say, and that whatever it may say comes back from its JSON form."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import judgement, said

from trimtab.base.codec import from_plain, to_plain
from trimtab.base.errors import InputError
from trimtab.base.records import Message
from trimtab.serving.feedback_schema import TEXT_CAP, Judgement

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


@given(asked=TEXTS.filter(str.strip), one=TEXTS, other=TEXTS, blind=st.booleans(), session=st.none() | TEXTS)
def test_whatever_is_kept_comes_back(asked: str, one: str, other: str, blind: bool, session: str | None) -> None:
    kept = judgement("prefer", one, other, asked=asked, chosen=1, blind=blind, session=session)
    assert from_plain(Judgement, json.loads(json.dumps(to_plain(kept)))) == kept


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"kind": "love"}, "judgement.kind"),
        ({"answers": ("Rome", "Oslo")}, "judgement.answers: 2, and like speaks of one"),
        ({"kind": "prefer"}, "judgement.answers: 1 to compare"),
        ({"kind": "prefer", "answers": ("a",) * 17}, "judgement.answers: 17 to compare"),
        (
            {"kind": "prefer", "answers": ("Rome", "Oslo"), "chosen": 2},
            "judgement.chosen: 2 is the number of no answer",
        ),
        ({"kind": "prefer", "answers": ("Rome", "Oslo"), "chosen": -1}, "judgement.chosen"),
        ({"chosen": False}, "judgement.chosen"),
        ({"kind": "correct"}, "judgement.correction"),
        ({"kind": "correct", "correction": " \n"}, "judgement.correction: is empty"),
        ({"kind": "correct", "correction": "Rome\n"}, "judgement.correction: is empty, or what was answered"),
        ({"correction": "Oslo"}, "judgement.correction: goes with the kind correct alone"),
        ({"messages": ()}, "judgement.messages"),
        ({"messages": said(" ")}, "judgement.messages: hold no question"),
        ({"messages": said("Q", "A")}, "judgement.messages: a turn of assistant follows assistant"),
        ({"messages": said("Q", "", "Q")}, "judgement.messages: turn 2 of the assistant is empty"),
        ({"messages": (*said("Q"), Message(role="system", content="S"))}, "judgement.messages: the system turn"),
        ({"messages": (Message(role="boss", content="Q"),)}, "judgement.messages: unknown role"),  # type: ignore[arg-type]
        ({"messages": said(*["Q", "A"] * 501, "Q")}, "judgement.messages: 1,003 turns"),
        ({"messages": said(*["Q" * 150_000, "A"] * 6, "Q")}, "judgement.messages: 900,0.. bytes with the answers"),
        ({"asked": "half \ud83d"}, "judgement.messages: holds half a surrogate pair"),
        ({"answers": ("a\0",)}, "judgement.answers: holds a NUL"),
        ({"answers": ("é" * (TEXT_CAP // 2 + 1),)}, "judgement.answers: 200,002 bytes"),
        ({"session": "s" * 201}, "judgement.session: 201 letters"),
        ({"id": "../x"}, "judgement.id"),
        ({"when": datetime(2026, 1, 1)}, "judgement.when: has no time zone"),
    ],
)
def test_what_cannot_be_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    more = {"kind": "like", "answers": ("Rome",), **fields}
    with pytest.raises(InputError, match=named):
        judgement(more.pop("kind"), *more.pop("answers"), **more)


def test_the_longest_text_is_kept() -> None:
    assert len(judgement("like", "a" * TEXT_CAP).answers[0].text) == TEXT_CAP
