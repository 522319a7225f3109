"""Every answer of a study, to be looked through on the page: by arm, kind of failure, slice and words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from jinja2.utils import htmlsafe_json_dumps

from trimtab.base.records import Answer, Arm
from trimtab.reports.components import Heading, label
from trimtab.reports.failures import shown
from trimtab.reports.folder import StudyFolder
from trimtab.reports.formatting import clean
from trimtab.reports.labels import FAILURES, GRADED
from trimtab.reports.view import EveryAnswer, ShownQuestion

MOST_BYTES = 2_000_000  # of answers in one page, so that it opens at once and can be sent on
NUMBERS = 24  # bytes at most, of the numbers that an answer or a question takes beside its texts
PLACE = "arms/NAME/answers.parquet of the study"


def every_answer(study: StudyFolder) -> EveryAnswer | None:
    """The answers of all arms to each question, of so many questions as fit; None where no answers lie in the folder."""
    by_item: dict[str, list[tuple[Arm, Answer]]] = {}
    for entry in study.done:
        for answer in entry.answers:
            by_item.setdefault(answer.item_id, []).append((entry.arm, answer))
    if not by_item:
        return None
    answers = [answer for pairs in by_item.values() for _, answer in pairs]
    seeds = len({answer.seed for answer in answers}) > 1
    fitting = _fitting({item: shown(pairs, study.verdict.arm, seeds=seeds) for item, pairs in sorted(by_item.items())})
    failed = {answer.failure for answer in answers}
    right = () if study.metric in GRADED or "none" not in failed else ("right",)
    kinds = (*right, *(name for kind, (name, _) in FAILURES.items() if kind in failed))
    left = f"This page holds {len(fitting):,} of {len(by_item):,} questions, drawn at random, so that it stays small; all lie in {PLACE}."
    return EveryAnswer(
        heading=Heading(
            id="every",
            link="Every answer",
            title="Every answer",
            lead=f"Any answer to the test questions, lowest score first. Long texts are cut; whole they lie in {PLACE}.",
        ),
        arms=tuple(label(entry.arm, study.verdict.arm) for entry in study.done if entry.answers),
        kinds=_choice(kinds),
        slices=_choice(sorted({answer.slice for answer in answers if answer.slice})),
        questions=fitting,
        without="Where this page may run its script, the answers can be looked through here.",
        left_out=left if len(fitting) < len(by_item) else "",
    )


def _choice(names: Any) -> tuple[str, ...]:
    """What can be chosen from: of one there is no choice."""
    return tuple(names) if len(names) > 1 else ()


def _fitting(questions: Mapping[str, ShownQuestion]) -> tuple[ShownQuestion, ...]:
    """Those that fit, drawn by the hash of their ids where not all do, in the order given."""
    seen: set[str] = set()
    kept, left = set(), MOST_BYTES
    for item in sorted(questions, key=lambda item: hashlib.sha256(item.encode()).digest()):
        fresh = set(_texts(questions[item])) - seen
        left -= sum(len(_written(text).encode()) for text in fresh) + NUMBERS * (1 + len(questions[item].answers))
        if left < 0:
            break
        seen |= fresh
        kept.add(item)
    return tuple(question for item, question in questions.items() if item in kept)


def _texts(question: ShownQuestion) -> Iterator[str]:
    yield from (question.question, question.reference, question.slice)
    for one in question.answers:
        yield from (one.score, one.failure, one.text, one.passages, one.seed)


def packed(every: EveryAnswer) -> str:
    """The answers as JSON that may stand in a script element: each text once, then by its number.

    `questions`: question, reference, slice, answers; an answer: its arm's place, score, failure, text, passages, seed.
    """
    places: dict[str, int] = {}
    arms = {arm.name: place for place, arm in enumerate(every.arms)}

    def at(text: str) -> int:
        return places.setdefault(clean(text), len(places))

    questions = [
        [
            *(at(one.question), at(one.reference), at(one.slice)),
            [
                [arms[a.arm.name], at(a.score), at(a.failure), at(a.text), at(a.passages), at(a.seed)]
                for a in one.answers
            ],
        ]
        for one in every.questions
    ]
    return _written({"texts": list(places), "questions": questions})


def _written(value: object) -> str:
    """JSON in which nothing can end the element that it stands in."""
    compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
    return str(htmlsafe_json_dumps(value, dumps=lambda given, **_: compact.encode(given)))
