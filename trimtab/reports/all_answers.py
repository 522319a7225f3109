"""The section with every answer of a study, searchable on the page by arm, kind of failure, slice and words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2.utils import htmlsafe_json_dumps

from trimtab.base.records import Answer, Arm
from trimtab.reports.components import ArmLabel, Heading, arm_label
from trimtab.reports.failures import QuestionView, question_view
from trimtab.reports.folder import StudyFolder
from trimtab.reports.formatting import replace_unprintable
from trimtab.reports.labels import FAILURES

MOST_BYTES = 2_000_000  # of answers in one page, so that it opens fast and can be sent by mail
NUMBERS = 24  # most bytes of an answer's or a question's numbers, beside its texts
PLACE = "arms/NAME/answers.parquet of the study"


@dataclass(frozen=True, slots=True, kw_only=True)
class AllAnswers:
    """All answers, to be filtered by arm, kind of failure, slice and words; a filter with one option is omitted.

    `without` is shown if no script runs, `left_out` if the answers do not fit into one page.
    """

    heading: Heading
    arms: tuple[ArmLabel, ...]
    kinds: tuple[str, ...]
    slices: tuple[str, ...]
    questions: tuple[QuestionView, ...]
    without: str
    left_out: str


def all_answers_section(study: StudyFolder) -> AllAnswers | None:
    """Return the answers of all arms to each question, for as many questions as fit; None if the folder has no
    answers."""
    by_item: dict[str, list[tuple[Arm, Answer]]] = {}
    for entry in study.done:
        for answer in entry.answers:
            by_item.setdefault(answer.item_id, []).append((entry.arm, answer))
    if not by_item:
        return None
    answers = [answer for pairs in by_item.values() for _, answer in pairs]
    seeds = len({answer.seed for answer in answers}) > 1
    questions = _sample_that_fits(
        {item: question_view(pairs, study.result.verdict.use, seeds=seeds) for item, pairs in sorted(by_item.items())}
    )
    failed = {answer.failure for answer in answers}
    right = () if study.right_metric is None or "none" not in failed else ("right",)
    kinds = (*right, *(name for kind, (name, _) in FAILURES.items() if kind in failed))
    left_out = (
        f"This page holds {len(questions):,} of {len(by_item):,} questions, drawn at random, so that it stays "
        f"small; all lie in {PLACE}."
    )
    return AllAnswers(
        heading=Heading(
            id="every",
            link="Every answer",
            title="Every answer",
            lead=(
                f"Any answer to the test questions, lowest score first. Long texts are cut; whole they lie in {PLACE}."
            ),
        ),
        arms=tuple(arm_label(entry.arm, study.result.verdict.use) for entry in study.done if entry.answers),
        kinds=_options(kinds),
        slices=_options(sorted({answer.slice for answer in answers if answer.slice})),
        questions=questions,
        without="Where this page may run its script, the answers can be looked through here.",
        left_out=left_out if len(questions) < len(by_item) else "",
    )


def _options(names: Any) -> tuple[str, ...]:
    """Return the options of a filter; none if there is only one."""
    return tuple(names) if len(names) > 1 else ()


def _sample_that_fits(questions: Mapping[str, QuestionView]) -> tuple[QuestionView, ...]:
    """Return the questions that fit, in the given order; if not all do, a sample drawn by the hash of their ids."""
    seen: set[str] = set()
    chosen, bytes_left = set(), MOST_BYTES
    for item in sorted(questions, key=lambda item: hashlib.sha256(item.encode()).digest()):
        new_texts = set(_texts(questions[item])) - seen
        bytes_left -= sum(len(_to_script_json(text).encode()) for text in new_texts) + NUMBERS * (
            1 + len(questions[item].answers)
        )
        if bytes_left < 0:
            break
        seen |= new_texts
        chosen.add(item)
    return tuple(question for item, question in questions.items() if item in chosen)


def _texts(question: QuestionView) -> Iterator[str]:
    yield from (question.question, question.reference, question.slice)
    for one in question.answers:
        yield from (one.score, one.failure, one.text, one.passages, one.seed)


def answers_json(every: AllAnswers) -> str:
    """Return the answers as JSON for a script element; each text is stored once and referred to by its index.

    `questions`: question, reference, slice, answers; an answer: index of its arm, score, failure, text, passages, seed.
    """
    indices: dict[str, int] = {}
    arms = {arm.name: index for index, arm in enumerate(every.arms)}

    def text_index(text: str) -> int:
        return indices.setdefault(replace_unprintable(text), len(indices))

    questions = [
        [
            *(text_index(one.question), text_index(one.reference), text_index(one.slice)),
            [
                [
                    arms[a.arm.name],
                    text_index(a.score),
                    text_index(a.failure),
                    text_index(a.text),
                    text_index(a.passages),
                    text_index(a.seed),
                ]
                for a in one.answers
            ],
        ]
        for one in every.questions
    ]
    return _to_script_json({"texts": list(indices), "questions": questions})


def _to_script_json(value: object) -> str:
    """Encode JSON in which nothing can end the script element."""
    compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
    return str(htmlsafe_json_dumps(value, dumps=lambda given, **_: compact.encode(given)))
