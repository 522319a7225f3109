"""What a look for drift found, as frozen records: windows, what changed in them, the quality, the documents, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from trimtab.base.show import Row, Shown

Signal = Literal[
    "questions", "classifier", "labels", "abstained", "length", "format", "confidence", "similarity", "support"
]
# What each signal is of, in words.
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
    """A signal that changed, with its p-value among the whole family; `sentence` says from what to what."""

    signal: Signal
    p: float
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftWindow:
    """One window of answers against the reference. `p`: of the family of signals; `signals`: each one's own, adjusted for the family.

    `number` counts from 1, in the order in which answers were kept; `reference`: answers that it is compared with; `began` and `ended` are the times of its first and last answer.
    """

    number: int
    reference: int
    began: datetime
    ended: datetime
    p: float
    drifted: bool
    signals: Mapping[Signal, float]
    changes: tuple[SignalChange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftExample:
    """A question of a window that drifted, with its answer: among those most typical of the change."""

    window: int
    signal: Signal
    question: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityPoint:
    """The share of right answers by the labels of one batch, and what the quality is at most.

    `window`: the last one of the batch, the reference being number 0; of judgements, which stand in no window, the number of the batch.
    """

    window: int
    labels: int
    quality: float
    at_most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityWatch:
    """The quality in use, held against `floor` after every batch of labels; `fell` is false with probability at most `delta`, ever.

    `floor_of`: where the floor comes from; `labels` are people's labels, or users' judgements. `contradicted`: answers that one person calls
    right and another wrong. `since`: the `window` of the point from which on it is shown to be lower.
    """

    floor: float
    floor_of: str
    delta: float
    labels: int
    contradicted: int
    points: tuple[QualityPoint, ...]
    fell: bool
    since: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UserJudgement:
    """What a user said of one answer of a version on the server's page."""

    arm: str
    version: str
    good: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedDocument:
    """A document that is not as it was when the version was made; `passages`: how many of its former passages are gone or changed."""

    document: str
    change: Literal["added", "changed", "removed"]
    passages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AffectedQuestion:
    """A question whose passages changed: one that was answered from them (`traffic`), or a test row that names them (`test`).

    `now`: what the arm answers with the documents as they are, None where it was not asked again.
    """

    source: Literal["traffic", "test"]
    document: str
    question: str
    answer: str
    now: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DriftReport(Shown):
    """Whether what is asked and answered still is as it was when a version came into production.

    The reference is the first `window` answers of the version, with the windows that came next and did not drift. Without drift the expected number of
    windows before a false alarm is at least `alarm_free`. `missing`: answers that the next window lacks. `quality` is None without
    a figure to hold labels to, `judgements` with too few of them, `documents` where the version's own are not known; `affected_questions` counts all, of which
    `affected` has the first. `sentence` says what was found, `action` is what to do, and `advice` says that.
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
        """What was found."""
        return self.sentence

    @property
    def must_act(self) -> bool:
        """True if something must be done."""
        return self.action != "nothing"

    def screen(self) -> Sequence[Row]:
        """One row for each window."""
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
