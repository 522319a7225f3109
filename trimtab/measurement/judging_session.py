"""Judging answers one after the other, forwards and back: the logic that terminal and web page share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from trimtab.measurement.audit import AuditItem
from trimtab.measurement.judge import CHOICES, DEGREES


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgementChoice:
    """One possible judgement: its value, the name of its button, and its key."""

    value: str
    name: str
    key: str


_RIGHT = JudgementChoice(value="right", name="Right", key="r")
_WRONG = JudgementChoice(value="wrong", name="Wrong", key="w")
_UNDO = JudgementChoice(value="undo", name="Undo", key="u")
_STOP = JudgementChoice(value="stop", name="Stop here", key="q")
_SKIP = JudgementChoice(value="skip", name="Skip", key="s")
AUDIT = (_RIGHT, _WRONG, _SKIP, _UNDO, _STOP)
GRADE = (
    *(JudgementChoice(value=degree, name=degree.capitalize(), key=degree[0]) for degree in DEGREES),
    *(_SKIP, _UNDO, _STOP),
)
COMPARE = (
    JudgementChoice(value="first", name="First", key="1"),
    JudgementChoice(value="second", name="Second", key="2"),
    JudgementChoice(value="tie", name="As good", key="t"),
    *(_SKIP, _UNDO, _STOP),
)
LABEL = (
    _RIGHT,
    _WRONG,
    JudgementChoice(value="answer", name="The right answer", key="a"),
    JudgementChoice(value="unsure", name="Cannot tell", key="c"),
    _UNDO,
    _STOP,
)
REVIEW = (
    JudgementChoice(value="approve", name="Approve", key="a"),
    JudgementChoice(value="refuse", name="Refuse", key="r"),
    JudgementChoice(value="answer", name="Mend", key="m"),
    *(_SKIP, _UNDO, _STOP),
)
_SAYS: dict[str, float | None] = {
    **{"right": 1.0, "wrong": 0.0, "unsure": None, "approve": 1.0, "refuse": 0.0},
    **DEGREES,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgingForm:
    """What is asked of each answer: the question, the choices, and what a text that is written beside them is.

    `headings`: the parts that are displayed, in order, each with its own heading; without them all parts of an item.
    `mends`: the parts that the text begins with where it can be edited. `what`: what is judged.
    """

    question: str
    choices: tuple[JudgementChoice, ...]
    text: str = "the right answer"
    headings: Mapping[str, str] = field(default_factory=dict)
    mends: tuple[str, ...] = ()
    what: str = "answer"


LABEL_FORM = JudgingForm(question="right or wrong?", choices=LABEL)
REVIEW_FORM = JudgingForm(
    question="could somebody ask this, and is this the answer?",
    choices=REVIEW,
    text="the right answer, a better question with its question mark, or the question and then the answer",
    headings={"Question": "Question", "Answer": "Answer", "Reference": "The document says", "Passages": "Where"},
    mends=("Question", "Answer"),
    what="question",
)
Correct = Callable[[AuditItem, str], None]
Outlook = Callable[[AuditItem], str]


class Judgements(Protocol):
    """Interface that stores each judgement at once; `undo` withdraws one."""

    @property
    def pending(self) -> Sequence[AuditItem]:
        """The answers to be judged."""

    def judge(self, asked: AuditItem, value: float | None) -> None:
        """Store the judgement of an answer, from 0 (wrong) to 1 (right): None if nobody can tell."""

    def undo(self, asked: AuditItem) -> None:
        """Withdraw the judgement of an answer."""


class Judging:
    """Steps through the pending answers until the last one, or until somebody stops; `correct` stores the texts of
    `form`, if these are taken, and `outlook` says how many judgements are still needed."""

    def __init__(
        self,
        session: Judgements,
        correct: Correct | None = None,
        outlook: Outlook | None = None,
        form: JudgingForm | None = None,
    ) -> None:
        self._session, self._correct, self._outlook = session, correct, outlook
        self.form = form or (LABEL_FORM if correct else _form_for(session.pending))
        self.choices, self.question = self.form.choices, self.form.question
        self.place, self.count, self._stopped = 0, len(session.pending), False

    @property
    def asked(self) -> AuditItem | None:
        """The answer to be judged now; None at the end."""
        return None if self._stopped or self.place >= self.count else self._session.pending[self.place]

    @property
    def parts(self) -> list[tuple[str, tuple[str, ...]]]:
        """The texts of the answer to be judged, with their headings; none at the end."""
        parts = self.asked.parts if self.asked else []
        own, headings = dict(parts), self.form.headings
        return [(said, own[name]) for name, said in headings.items() if name in own] if headings else parts

    @property
    def draft(self) -> str:
        """The text that somebody who mends begins with."""
        parts = dict(self.asked.parts) if self.asked else {}
        return "\n".join(text for name in self.form.mends for text in parts.get(name, ()))

    @property
    def progress(self) -> str:
        """Which of the pending answers this is, and how many are still needed."""
        asked = self.asked
        outlook = f" ({self._outlook(asked)})" if self._outlook and asked else ""
        return f"{self.place + 1} of {self.count}{outlook}"

    def take(self, said: str, correction: str = "") -> None:
        """Store the judgement of the present answer and go on; an unknown choice, or an empty right answer, changes
        nothing."""
        asked = self.asked
        if asked is None or said not in {choice.value for choice in self.choices}:
            return
        if said == "stop":
            self._stopped = True
        elif said == "undo":
            if self.place:
                self.place -= 1
                self._session.undo(self._session.pending[self.place])
        elif said in (values := CHOICES[asked.place] if asked.against else _SAYS):
            self._session.judge(asked, values[said])
            self.place += 1
        elif said == "skip":
            self.place += 1
        elif self._correct and correction.strip():
            self._correct(asked, correction)
            self.place += 1


def _form_for(pending: Sequence[AuditItem]) -> JudgingForm:
    """Return what the answers of an audit are asked: how they compare, how far they meet a criterion, or right or
    wrong."""
    if any(item.against for item in pending):
        return JudgingForm(question="which one meets the criterion better?", choices=COMPARE)
    if any(item.criterion for item in pending):
        return JudgingForm(question="does it meet the criterion?", choices=GRADE)
    return JudgingForm(question="right or wrong?", choices=AUDIT)
