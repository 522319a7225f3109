"""Probe `typing`: the same questions as people type them in a hurry."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from trimtab.arms.probing.subject import Subject
from trimtab.base.results import Probe

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_WORD = re.compile(r"(?<![\w@/.#`'’-])[^\W\d_]{4,}(?![\w@/#`]|[.'’-]\w)")
WORDS_PER_SLIP = 6  # one word in so many has a slip, at least one in a question


def probe_typing(subject: Subject) -> Iterator[Probe]:
    """Yield the findings with typing errors, and in lower case without punctuation."""
    yield from subject.reworded("typing", "with typing errors", with_slips)
    yield from subject.reworded("typing", "in lower case without punctuation", lambda text, _: in_lower_case(text))


def with_slips(text: str, seed: str) -> str:
    """Return a text in which one word in WORDS_PER_SLIP has a slip: two letters swapped, one left out, doubled, or its
    neighbour on the keyboard.

    A slip changes no first letter, no number and no capitalised word but the first: names and codes stay, so that the
    question stays the same to a reader.
    """
    draw = random.Random(f"slips:{seed}")
    words = [
        found for found in _WORD.finditer(text) if found[0].islower() or (found.start() == 0 and found[0][1:].islower())
    ]
    slips = draw.sample(words, max(1, len(words) // WORDS_PER_SLIP)) if words else []
    for found in sorted(slips, key=lambda one: -one.start()):
        text = f"{text[: found.start()]}{_slip(found[0], draw)}{text[found.end() :]}"
    return text


def _slip(word: str, draw: random.Random) -> str:
    place = draw.randrange(1, len(word) - 1)
    before, letter, after = word[:place], word[place], word[place + 1 :]
    neighbours = _neighbours(letter)
    kind = draw.choice(("swap", "drop", "double", "neighbour"))
    if kind == "swap" and letter != after[0]:
        return f"{before}{after[0]}{letter}{after[1:]}"
    if kind == "drop":
        return f"{before}{after}"
    if kind == "neighbour" and neighbours:
        return f"{before}{draw.choice(neighbours)}{after}"
    return f"{before}{letter}{letter}{after}"


def _neighbours(letter: str) -> str:
    """Return the letters beside a letter on a keyboard; empty for other letters."""
    row = next((row for row in _ROWS if letter in row), "")
    at = row.find(letter)
    return row[max(0, at - 1) : at] + row[at + 1 : at + 2] if row else ""


def in_lower_case(text: str) -> str:
    """Return a text in lower case, without the marks that end or divide sentences; those within numbers and names
    (3.5, node.js) stay."""
    return re.sub(r"[.,;:!?¿¡]+(?=\s|$)|[¿¡]", "", text.lower())
