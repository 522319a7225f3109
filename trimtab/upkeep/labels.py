"""`label`: people label answers in use, or those of a file; estimates the quality in use and the labellers'
agreement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from trimtab.base.errors import InputError
from trimtab.base.files import sha256_text
from trimtab.base.records import Message, Refusal
from trimtab.base.results import Agreement
from trimtab.base.task import TASK_FILE, Task, as_task
from trimtab.data.raw_rows import RawRow
from trimtab.data.readers import read_raw_rows
from trimtab.measurement.audit import AuditItem
from trimtab.measurement.raters import agreement_of, rater_name
from trimtab.serving.database import Closing
from trimtab.serving.traffic_store import Drawing, Label, LabelDraw, ServedAnswer, TrafficStore, traffic_of
from trimtab.upkeep.production import (
    Numbers,
    ProductionQuality,
    inclusion_probabilities,
    production_quality,
    sizes_by_uncertainty,
    uniform,
)

TRAFFIC = "traffic"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionQuality:
    """The quality of one version of an arm in use; None with too few labels."""

    arm: str
    version: str
    answers: int
    labels: int
    quality: ProductionQuality | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSummary:
    """Summary of the labels of one source. `labels`: answers that somebody called right or wrong; `unsure`: of which
    nobody could tell.

    `unused`: labels behind the first answer of a draw that is not labelled, which count once it is. `quality` is
    None with fewer than FEWEST labels; where labellers disagree, an answer counts by the share that calls it right.
    """

    source: str
    answers: int
    labels: int
    unsure: int
    unused: int
    by: dict[str, int]
    agreement: Agreement | None
    quality: ProductionQuality | None
    versions: tuple[VersionQuality, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledAnswers:
    """The answers of every draw that somebody labelled. `judged`: by answer and labeller True, False, or None for
    "cannot tell".

    `right` [N]: the share of labellers who call an answer right, nan where none can tell; `inclusion` [N]: the
    probability with which it was drawn, nan where it is not known yet.
    """

    answers: Sequence[ServedAnswer]
    judged: Mapping[str, Mapping[str, bool | None]]
    right: Numbers
    inclusion: Numbers


def labelled(
    store: TrafficStore, source: str, answers_of: Callable[[LabelDraw], Sequence[ServedAnswer]]
) -> LabelledAnswers:
    """Collect the labels of a source's answers, in the order of its draws. `answers_of` returns the answers of a
    draw."""
    said: dict[str, dict[str, bool | None]] = {}
    for one in store.labels():
        said.setdefault(one.item, {})[one.by] = one.right
    drawn = [_Drawn(draw, answers_of(draw)) for draw in store.draws(source)]
    drawn = [one for one in drawn if any(answer.id in said for answer in one.answers)]
    answers = [answer for one in drawn for answer in one.answers]
    judged = {answer.id: said[answer.id] for answer in answers if answer.id in said}
    return LabelledAnswers(
        answers=answers,
        judged=judged,
        right=np.array([_share(judged.get(answer.id, {})) for answer in answers]),
        inclusion=np.concatenate([one.inclusion(judged) for one in drawn]) if drawn else np.array([]),
    )


def contradict(said: Iterable[bool | None]) -> bool:
    """True if one labeller calls an answer right and another wrong."""
    return set(said) >= {True, False}


class Labelling(Closing):
    """Labelling in progress: `pending` are the answers that this labeller has to judge; `judge` stores a label at once,
    `undo` removes it.

    For use as a context manager, which closes the store.
    """

    def __init__(
        self, store: TrafficStore, file: Path | None, *, by: str, drawing: Drawing | None, new: bool, questions: int
    ) -> None:
        self._store, self._by = store, by
        self._file = None if file is None else _read(file)
        self.source = TRAFFIC if self._file is None else sha256_text(*(one.id for one in self._file))
        labels = store.labels()
        draw = self._drawn(drawing, {label.item for label in labels}, new=new)
        self.drawing = draw.drawing
        done = {label.item for label in labels if label.by == by}
        chosen = _Drawn(draw, self._answers(draw)).in_order[:questions]
        self.pending = [_item(one) for one in chosen if one.id not in done]

    def _drawn(self, drawing: Drawing | None, labelled: set[str], *, new: bool) -> LabelDraw:
        """Return the newest draw, or a new one; a draw without labels is drawn again if another method is asked for."""
        store, last = self._store, None if self._file is None else len(self._file)
        draws = store.draws(self.source)
        if not draws:
            return store.draw(self.source, drawing or "random", last=last)
        draw = draws[-1]
        is_begun = any(answer.id in labelled for answer in self._answers(draw))
        if not is_begun and (new or drawing not in (None, draw.drawing)):
            return store.draw_again(draw, drawing or draw.drawing, last)
        if new:
            return store.draw(self.source, drawing or "random", after=draw.last_row, last=last)
        if drawing not in (None, draw.drawing):
            raise InputError(
                f"this draw is {draw.drawing}", "go on with it, or begin another with --new", field="--draw"
            )
        return draw

    def judge(self, asked: AuditItem, value: float | None) -> None:
        """Store the label of an answer: right (1), wrong (0), or None for "cannot tell"."""
        self._keep(asked, None if value is None else value == 1)

    def correct(self, asked: AuditItem, text: str) -> None:
        """Store the right answer, which calls the given one wrong unless both are the same."""
        is_same = text.strip() == asked.answer.strip()
        self._keep(asked, is_same, None if is_same else text.strip())

    def _keep(self, asked: AuditItem, right: bool | None, correction: str | None = None) -> None:
        label = Label(item=asked.item_id, by=self._by, right=right, correction=correction, when=datetime.now(UTC))
        self._store.label(label)

    def undo(self, asked: AuditItem) -> None:
        """Remove this labeller's label of an answer."""
        self._store.unlabel(asked.item_id, self._by)

    def finish(self) -> LabelSummary:
        """Return the summary of all labels of this source, from every draw of it."""
        found = labelled(self._store, self.source, self._answers)
        answers, own, right, inclusion = found.answers, found.judged, found.right, found.inclusion
        confidence = np.array([np.nan if one.probability is None else one.probability for one in answers])
        weight = np.array([1 / answer.share for answer in answers])

        def quality(of: Sequence[int]) -> ProductionQuality | None:
            return production_quality(right[of], confidence[of], inclusion[of], weight[of]) if of else None

        counts = Counter((answer.arm, answer.version) for answer in answers)
        versions = []
        for arm, version in sorted(counts) if self.source == TRAFFIC else ():
            places = [place for place, one in enumerate(answers) if (one.arm, one.version) == (arm, version)]
            labels = int((~np.isnan(right[places]) & ~np.isnan(inclusion[places])).sum())
            versions.append(
                VersionQuality(arm=arm, version=version, answers=len(places), labels=labels, quality=quality(places))
            )
        asked = np.array([answer.id in own for answer in answers], dtype=bool)
        return LabelSummary(
            source=self.source,
            answers=len(answers),
            labels=int((~np.isnan(right)).sum()),
            unsure=int((asked & np.isnan(right)).sum()),
            unused=int((asked & np.isnan(inclusion)).sum()),
            by=dict(Counter(by for given in own.values() for by in given)),
            agreement=agreement_of([[told] for by in own.values() if len(told := _told(by)) > 1]),
            quality=quality(range(len(answers))),
            versions=tuple(versions),
        )

    def _answers(self, draw: LabelDraw) -> list[ServedAnswer]:
        if self._file is not None:
            return self._file
        return self._store.answers(after=draw.after_row, last=draw.last_row)

    def close(self) -> None:
        """Close the store."""
        self._store.close()


def label(
    file: str | Path | None = None,
    *,
    task: str | Path | Task = TASK_FILE,
    questions: int = 100,
    by: str | None = None,
    drawing: Drawing | None = None,
    new: bool = False,
    store: str | None = None,
) -> Labelling:
    """Start or continue labelling `questions` of the answers that `serve` stored, or of a file's.

    `file`: rows with `question`, `answer` and, where it is known, `probability`. `by`: who labels, the user of this
    machine unless named. `drawing`: `random`, or `uncertain`, where answers that the arm is unsure of are drawn more
    often; `new` begins another draw, of what came since the last. `store` as for `serve`. Raises MissingError where
    no traffic was kept, InputError where there is nothing to label.
    """
    name, own = rater_name(by), as_task(task)
    opened = traffic_of(own, store, make=file is not None)
    try:
        return Labelling(
            opened, None if file is None else Path(file), by=name, drawing=drawing, new=new, questions=questions
        )
    except BaseException:
        opened.close()
        raise


class _Drawn:
    """The answers of one draw, in the order in which they are asked."""

    def __init__(self, draw: LabelDraw, answers: Sequence[ServedAnswer]) -> None:
        self.answers = answers
        is_random = draw.drawing == "random"
        self._sizes = np.ones(len(answers)) if is_random else sizes_by_uncertainty([one.probability for one in answers])
        self._priorities = np.array([uniform(one.id) for one in answers]) / self._sizes

    @property
    def in_order(self) -> list[ServedAnswer]:
        return [self.answers[place] for place in np.argsort(self._priorities)]

    def inclusion(self, said: Mapping[str, Mapping[str, bool | None]]) -> Numbers:
        """Return the probability with which each answer was drawn, [N], by the labels so far."""
        asked = np.array([one.id in said for one in self.answers], dtype=bool)
        return inclusion_probabilities(self._priorities, self._sizes, asked)


def _share(said: Mapping[str, bool | None]) -> float:
    """Return the share of labellers who call an answer right, nan if none can tell."""
    told = _told(said)
    return sum(told.values()) / len(told) if told else float("nan")


def _told(said: Mapping[str, bool | None]) -> dict[str, float]:
    """Return who calls an answer right (1) or wrong (0)."""
    return {by: float(right) for by, right in said.items() if right is not None}


def _item(answer: ServedAnswer) -> AuditItem:
    *earlier, asked = answer.messages
    turns = [f"{turn.role}: {turn.content}" for turn in earlier]
    question = "\n".join([*turns, asked.content])
    return AuditItem(
        item_id=answer.id, question=question, references=(), answer=answer.answer, passages=answer.passages
    )


def _read(file: Path) -> list[ServedAnswer]:
    """Read the answers of a file; raises InputError for a row without one."""
    return [_answer_of(row, number) for number, row in enumerate(read_raw_rows(file), 1)]


def _answer_of(row: RawRow | Refusal, number: int) -> ServedAnswer:
    if isinstance(row, Refusal):
        raise InputError(row.reason, row.remedy, file=row.file, line=row.line)
    question, answer, given = (row.fields.get(name) for name in ("question", "answer", "probability"))
    if not isinstance(question, str) or not isinstance(answer, str) or not question.strip():
        raise row.error("has no question with its answer", "give it both, as texts: question, answer")
    try:
        probability = None if given in (None, "") else float(given)  # a table's cells are text
    except (TypeError, ValueError):
        probability = -1.0
    if probability is not None and not 0 <= probability <= 1:
        raise row.error("the probability is no number from 0 to 1", "mend it, or leave it out", "probability")
    return ServedAnswer(
        id=sha256_text(question, answer, str(number)),
        when=datetime.now(UTC),
        arm="",
        version="",
        messages=(Message(role="user", content=question),),
        passages=(),
        answer=answer,
        abstained=False,
        probability=probability,
        milliseconds=0.0,
        user=None,
        share=1.0,
        masked=False,
    )
