"""The record of one judgement of answers by a user, validated so that it can be read back and trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Literal, get_args
from uuid import uuid4

from trimtab.base.errors import InputError
from trimtab.base.records import Message
from trimtab.data.chat import SkipRow, read_turns
from trimtab.data.raw_rows import RawRow

JudgementKind = Literal["like", "dislike", "prefer", "correct"]
KINDS: tuple[str, ...] = get_args(JudgementKind)
TEXT_CAP = 200_000
"""Longest text, in bytes of UTF-8."""
WHOLE_CAP = 900_000
"""Most bytes of all texts of a judgement; a row with them stays below the limit of `data/rows.py`."""
MOST_TURNS, MOST_ANSWERS, MOST_PASSAGES = 1_000, 16, 1_000
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NAME_CAP = 200  # characters of an arm, version or session


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedAnswer:
    """An answer as the user saw it: its id, its arm, the arm's version, and the ids of the passages shown with it."""

    id: str
    arm: str
    version: str
    text: str
    passages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One judgement: `messages` is the conversation up to the question, `answers` the answers in the order shown.

    `like`, `dislike` and `correct` are about one answer, `prefer` compares two or more: `chosen` is the index of the
    better one, None if they are equally good. `correction` is the right answer of a `correct`. `blind`: the arms' names
    were hidden. `session` groups judgements without naming anybody; `user` is a hash of the user, by which their
    judgements can be deleted; `voter`: who a canary counts, None in older records for the user. Raises InputError for
    anything else.
    """

    kind: JudgementKind
    messages: tuple[Message, ...]
    answers: tuple[JudgedAnswer, ...]
    chosen: int | None = None
    correction: str | None = None
    blind: bool = False
    session: str | None = None
    user: str | None = None
    voter: str | None = None
    id: str = field(default_factory=lambda: uuid4().hex)
    when: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise _invalid("id", "is not 1 to 64 letters, digits, dots, - and _", "give one such, or none")
        if self.when.tzinfo is None:
            raise _invalid("when", "has no time zone", "give it in UTC")
        if self.kind not in KINDS:
            raise _invalid("kind", f"is {self.kind[:40]!r}", f"use one of: {', '.join(KINDS)}")
        if len(self.messages) > MOST_TURNS:
            raise _invalid("messages", f"{len(self.messages):,} turns, and {MOST_TURNS:,} are the most", "begin anew")
        self._check_texts()
        self._check_conversation()
        self._check_answers()

    def _check_texts(self) -> None:
        whole = 0
        for name, text in self._texts():
            if "\0" in text:
                raise _invalid(name, "holds a NUL character", "take it out")
            try:
                size = len(text.encode())
            except UnicodeEncodeError:
                raise _invalid(name, "holds half a surrogate pair", "send whole characters") from None
            if size > TEXT_CAP:
                raise _invalid(name, f"{size:,} bytes, and {TEXT_CAP:,} are the most", "shorten it")
            whole += size
        if whole > WHOLE_CAP:
            raise _invalid(
                "messages", f"{whole:,} bytes with the answers, and {WHOLE_CAP:,} are the most", "shorten them"
            )
        short = (*((name, getattr(one, name)) for one in self.answers for name in ("id", "arm", "version")),)
        own = ((name, getattr(self, name) or "") for name in ("session", "user", "voter"))
        for name, text in (*short, *own):
            if len(text) > _NAME_CAP:
                raise _invalid(name, f"{len(text):,} letters, and {_NAME_CAP} are the most", "shorten it")

    def _texts(self) -> Iterator[tuple[str, str]]:
        yield from (("messages", message.content) for message in self.messages)
        for answer in self.answers:
            yield from (("answers", text) for text in (answer.text, answer.arm, answer.version, *answer.passages))
        yield "correction", self.correction or ""
        yield "session", self.session or ""
        yield "user", self.user or ""

    def _check_conversation(self) -> None:
        """Require turns that the readers of row files accept, so that an exported file can be read."""
        completed = [*map(asdict, self.messages), {"role": "assistant", "content": "-"}]
        try:
            read_turns(RawRow("", 0, {"messages": completed}), "messages", is_from_value=False)
        except InputError as error:
            raise _invalid("messages", error.problem, error.remedy) from None
        except SkipRow as skip:
            raise _invalid("messages", skip.reason, "send whole turns") from None
        if not self.messages or not self.messages[-1].content.strip():
            raise _invalid("messages", "hold no question", "end them with the turn that was answered")

    def _check_answers(self) -> None:
        count = len(self.answers)
        if self.kind == "prefer" and not 2 <= count <= MOST_ANSWERS:
            raise _invalid("answers", f"{count} to compare", f"give 2 to {MOST_ANSWERS}")
        if self.kind != "prefer" and count != 1:
            raise _invalid("answers", f"{count}, and {self.kind} speaks of one", "give that one, or use prefer")
        if any(len(answer.passages) > MOST_PASSAGES for answer in self.answers):
            raise _invalid("answers", f"more than {MOST_PASSAGES:,} passages", "give those that were shown")
        if isinstance(self.chosen, bool) or (self.chosen is not None and not 0 <= self.chosen < count):
            raise _invalid("chosen", f"{self.chosen} is the number of no answer", f"use 0 to {count - 1}, or none")
        if (self.correction is not None) != (self.kind == "correct"):
            raise _invalid(
                "correction", "goes with the kind correct alone, which needs one", "give it there, and nowhere else"
            )
        if self.correction is not None and self.correction.strip() in ("", self.answers[0].text.strip()):
            raise _invalid("correction", "is empty, or what was answered", "write what the answer should be")


def latest_judgements(judgements: Iterable[Judgement]) -> list[Judgement]:
    """Return the last judgement of each answer, or of the same answers compared, in the order in which they came."""
    last: dict[frozenset[str], Judgement] = {}
    for one in judgements:
        judged = frozenset(answer.id for answer in one.answers)
        last.pop(judged, None)
        last[judged] = one
    return [*last.values()]


def _invalid(field: str, problem: str, remedy: str) -> InputError:
    return InputError(problem, remedy, field=f"judgement.{field}")
