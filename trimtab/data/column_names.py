"""Names by which the columns of a file are recognised, one table per role."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import permutations

from trimtab.data.values import last_word

GRADES = ("label", "grade", "verdict", "rating", "correctness", "judgement", "judgment")
"""Columns that judge an answer in their row: the answer is then a part of what is asked."""
LABELS = (
    *GRADES,
    "stance",
    "sentiment",
    "class",
    "decision",
    "entailment",
    "polarity",
    "emotion",
    "category",
    "kategorie",
    "intent",
    "target",
    "topic",
)
"""Columns of labels."""
ANSWERS = ("output", "answer", "completion", "response", "reply", "target", "solution", "summary")
INPUTS = (
    "input",
    "text",
    "question",
    "prompt",
    "query",
    "message",
    "sentence",
    "utterance",
    "instruction",
    "content",
    "body",
    "review",
)
_ANSWERED_BY = re.compile(r"(student|learner|candidate|submitted|predicted)", re.IGNORECASE)
CONTEXTS = ("context", "contexts")
CHOICES = ("choices", "options")
"""Columns of the answers to choose from, which stand behind their question."""
METADATA = frozenset(
    (
        *("id", "uuid", "key", "index", "number", "nr", "version", "split", "fold", "meta", "metadata"),
        *(
            "agent",
            "user",
            "author",
            "annotator",
            "annotators",
            "worker",
            "rater",
            "customer",
            "operator",
            "name",
            "bearbeiter",
            "kunde",
        ),
        *("source", "channel", "platform", "device", "file", "url", "link", "site", "model"),
        *("date", "time", "timestamp", "day", "month", "year", "created", "updated", "opened", "closed"),
        *("language", "lang", "locale", "country", "region", "city"),
    )
)
"""Last words of columns about how a row came to be; they are labels only where nothing else is."""
INPUT_PAIRS = frozenset(
    (
        ("premise", "hypothesis"),
        ("title", "body"),
        ("title", "text"),
        ("title", "content"),
        ("title", "description"),
        ("title", "abstract"),
        ("subject", "body"),
        ("subject", "message"),
        ("headline", "body"),
        ("question", "sentence"),
        ("query", "passage"),
        ("query", "document"),
        ("claim", "evidence"),
        ("source", "translation"),
    )
)
"""Two columns that are read together, without capitals and signs."""
_NUMBERED_PAIR = re.compile(r"(\D*)(?:1 \1_?2|a \1_?b)", re.IGNORECASE)


def match_name(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the column whose name, or its last word (`final_decision`, `longAnswer`), comes first in `wanted`."""
    whole = {name.lower(): name for name in reversed(names)}
    last = {last_word(name): name for name in reversed(names)}
    return next((found[word] for found in (whole, last) for word in wanted if word in found), None)


def judges_answers(label: str, names: Sequence[str]) -> bool:
    """True if a label is about the answers of its row: by its own name, or because they are a student's."""
    return match_name(GRADES, [label]) is not None or any(map(_ANSWERED_BY.match, names))


def is_metadata(name: str) -> bool:
    """True if a name says how a row came to be, not what it says."""
    return last_word(name) in METADATA


def paired_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return two columns that are read together (`premise` and `hypothesis`, `sentence1` and `sentence2`), or
    nothing."""
    for first, second in permutations(names, 2):
        plain = tuple(re.sub(r"[^a-z0-9]", "", name.lower()) for name in (first, second))
        if plain in INPUT_PAIRS or _NUMBERED_PAIR.fullmatch(" ".join(plain)):
            return first, second
    return ()
