"""Probe `other-words`: the same questions in other words, by an endpoint or by rules for English."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from trimtab.arms.probing.rewording import reworded_by_endpoint
from trimtab.arms.probing.subject import Subject
from trimtab.base.results import Probe

# Beginnings of questions, and others that ask for the same.
_BEGINNINGS = {
    "how do i": "what do I have to do to",
    "how can i": "what is the way to",
    "how do you": "what does one do to",
    "how to": "what is the way to",
    "how many": "what number of",
    "how long does it take": "how much time does it take",
    "how long will it take": "how much time will it take",
    "how often": "how frequently",
    "what happens": "what occurs",
    "what year did": "in which year did",
    "what year was": "in which year was",
    "in what year": "in which year",
    "what kind of": "which sort of",
    "what type of": "which kind of",
    "why": "for what reason",
    "where can i": "in what place can I",
    "when did": "at what time did",
    "when was": "at what time was",
    "who is": "which person is",
    "who was": "which person was",
    "can you tell me": "I would like to know",
    "can i": "is it possible for me to",
    "am i able to": "is it possible for me to",
    "do i need to": "must I",
    "do i have to": "is it required that I",
}
# Words and their equals in the same form, so that nothing has to be inflected; words that are equal in one of their
# meanings alone (since, used, close) are not here.
_EQUALS = {
    one: other
    for pair in [
        "allowed=permitted",
        "permitted=allowed",
        "approximately=roughly",
        "roughly=approximately",
        "began=started",
        "begin=start",
        "begins=starts",
        "biggest=largest",
        "largest=biggest",
        "bought=purchased",
        "purchased=bought",
        "built=constructed",
        "buy=purchase",
        "buying=purchasing",
        "children=kids",
        "currently=at the moment",
        "employees=staff",
        "entire=whole",
        "film=movie",
        "for example=for instance",
        "founded=established",
        "frequently=often",
        "huge=very large",
        "i need to=I have to",
        "i want to=I would like to",
        "immediately=right away",
        "incorrect=wrong",
        "located=situated",
        "maybe=perhaps",
        "perhaps=maybe",
        "needed=required",
        "required=needed",
        "requires=needs",
        "obtain=get",
        "often=frequently",
        "please tell me=let me know",
        "problem=issue",
        "problems=issues",
        "quickly=fast",
        "receive=get",
        "received=got",
        "repaired=fixed",
        "require=need",
        "until=till",
        "verify=check",
    ]
    for one, other in [pair.split("=")]
}
_EQUAL = re.compile(rf"(?<![\w'’-])(?:{'|'.join(map(re.escape, _EQUALS))})(?![\w'’-])", re.IGNORECASE)
_LONGEST_FIRST = sorted(map(re.escape, _BEGINNINGS), key=len, reverse=True)
_BEGINNING = re.compile(rf"(^|[.!?]\s+)({'|'.join(_LONGEST_FIRST)})(?=\s(?!times)[^.!?\n]*\?)", re.IGNORECASE)
_OPENINGS = ("I have a question: ", "Could you help me with this? ", "Quick question. ")


def probe_other_words(subject: Subject) -> Iterator[Probe]:
    """Yield the finding in other words; nothing without an endpoint for texts that are not English."""
    if subject.session.task.study.rewords:
        yield from reworded_by_endpoint(subject, "other-words", "in other words")
    else:
        yield from subject.reworded("other-words", "in other words", in_other_words)


def in_other_words(text: str, seed: str) -> str:
    """Return a text with its questions begun in another way and words replaced by their equals; the same text where
    there are none. A single question then also gets an opening, as people write it.
    """
    reworded = _EQUAL.sub(lambda found: _like(found[0], _EQUALS[found[0].lower()]), text)
    reworded = _BEGINNING.sub(lambda found: found[1] + _like(found[2], _BEGINNINGS[found[2].lower()]), reworded)
    if reworded == text or not re.fullmatch(r"[^?\n]*\?\s*", text):
        return reworded
    return random.Random(f"words:{seed}").choice(_OPENINGS) + reworded


def _like(old: str, new: str) -> str:
    """Return new words with the capitals that the old ones had."""
    if len(old) > 1 and old.isupper():
        return new.upper()
    return new[0].upper() + new[1:] if old[0].isupper() else new
