"""Records of a drift report: windows of answers, changed signals, quality, changed documents, and the advised
action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from trimtab.base.show import Shown, ShownRow

Signal = Literal[
    "questions", "classifier", "labels", "abstained", "length", "format", "confidence", "similarity", "support"
]
# Names of the signals for readers.
SIGNALS: Mapping[Signal, str] = {
    "questions": "questions",
    "classifier": "questions, told apart by a classifier",
    "labels": "mix of labels",
    "abstained": "abstentions",
    "length": "length of answers",
    "format": "format of answers",
    "confidence": "confidence",
    "similarity": "similarity of the best passage",
    "support": "answers that a passage supports",
}
DriftAction = Literal["nothing", "label", "refresh", "retrieval"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalChange:
    """A signal that changed, with its p-value adjusted for the whole family; `sentence` says from what to what."""

    signal: Signal
    p: float
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftWindow:
    """One window of answers, tested against the reference. `p`: of the whole family of signals; `signals`: each one's,
    adjusted for it.

    `number` counts from 1, in the order in which answers were kept. `reference`: the number of answers that it is
    compared with. `began` and `ended`: when its first and its last answer were given. `why_not`: why it could not be
    judged (p is 1 then), None where it was.
    """

    number: int
    reference: int
    began: datetime
    ended: datetime
    p: float
    drifted: bool
    signals: Mapping[Signal, float]
    changes: tuple[SignalChange, ...]
    why_not: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftExample:
    """A question of a window that drifted, with its answer: among those most typical of the change."""

    window: int
    signal: Signal
    question: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityPoint:
    """The share of right answers by the labels of one batch, and an upper bound of the quality, `at_most`.

    `window`: the last one of the batch, the reference being number 0; of judgements, which belong to no window, the
    number of the batch.
    """

    window: int
    labels: int
    quality: float
    at_most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityWatch:
    """A test of the quality in use against `floor` after every batch of labels; `fell` is ever false with probability
    at most `delta`.

    `floor_of`: where the floor comes from. `labels`: the number of people's labels, or of users' judgements.
    `contradicted`: answers that one labeller calls right and another wrong. `since`: the `window` of the point from
    which on the quality is shown to be lower. `why_not`: why that cannot be told, None where it can.
    """

    floor: float
    floor_of: str
    delta: float
    labels: int
    contradicted: int
    points: tuple[QualityPoint, ...]
    fell: bool
    since: int | None
    why_not: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UserJudgement:
    """A user's judgement of one answer of a version, from the server's page; `good`: the user liked it."""

    arm: str
    version: str
    good: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedDocument:
    """A document that differs from when the version was made; `facts`: how many of its former sentences state what is
    stated no more, in whatever words.
    """

    document: str
    change: Literal["added", "changed", "removed"]
    facts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AffectedQuestion:
    """A question whose facts are gone: one that was answered from them (`traffic`), or a test row that names their
    passages (`test`).

    `now`: the arm's answer with the present documents, None where it was not asked again.
    """

    source: Literal["traffic", "test"]
    document: str
    question: str
    answer: str
    now: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DriftReport(Shown):
    """A report on how questions, answers, quality and documents have changed since a version came into production.

    The reference is the first `window` answers of the version, with the next windows that did not drift, to three
    windows in all. Without drift the expected number of windows before a false alarm is at least `alarm_free`.
    `missing`: answers that the next window lacks. `quality` is None without a figure to hold labels to, `judgements`
    with too few of them, `documents` where the version's own are not known. `affected_questions` counts all, of which
    `affected` has the first. `sentence` says what was found, `action` what to do, and `advice` the same in words.
    """

    task: str
    arm: str
    version: str
    answers: int
    window: int
    alarm_free: int
    reference_began: datetime | None
    windows: tuple[DriftWindow, ...]
    missing: int
    examples: tuple[DriftExample, ...]
    quality: QualityWatch | None
    judgements: QualityWatch | None
    documents: tuple[ChangedDocument, ...] | None
    affected_questions: int
    affected: tuple[AffectedQuestion, ...]
    action: DriftAction
    sentence: str
    advice: str
    notes: tuple[str, ...] = ()
    page: str | None = None

    @property
    def headline(self) -> str:
        """Return what was found, in words."""
        return self.sentence

    @property
    def must_act(self) -> bool:
        """Return True if something must be done."""
        return self.action != "nothing"

    def screen(self) -> Sequence[ShownRow]:
        """Return one row for each window."""
        return [
            {
                "window": one.number,
                "from": f"{one.began:%Y-%m-%d %H:%M}",
                "to": f"{one.ended:%Y-%m-%d %H:%M}",
                "p": one.p,
                "changed": ", ".join(SIGNALS[change.signal] for change in one.changes),
            }
            for one in self.windows
        ]
