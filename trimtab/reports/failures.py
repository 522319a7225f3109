"""The sections with examples: failures by kind, and the questions on which the arms differ most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

from trimtab.base.records import Answer, Arm, Failure
from trimtab.measurement.error_analysis import disagreements, failure_counts, failure_examples, quartiles
from trimtab.reports.components import ArmLabel, Cell, Column, Grid, Heading, StyledText, arm_label
from trimtab.reports.folder import StudyFolder
from trimtab.reports.formatting import DASH, format_score, plural, shorten
from trimtab.reports.labels import FAILURES

SPREAD = ("lowest quarter up to", "half up to", "three quarters up to", "score 0", "score 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerView:
    """One arm's answer: its score, failure, retrieved passages, and its seed if there are several."""

    arm: ArmLabel
    score: str
    failure: str
    text: str
    passages: str
    seed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionView:
    """A question with its reference, its slice if any, and the answers of some arms."""

    question: str
    reference: str
    answers: tuple[AnswerView, ...]
    slice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureKind:
    """A kind of failure, its count, and examples."""

    name: str
    meaning: str
    count: str
    examples: tuple[QuestionView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """Failures by kind and arm, or the distribution of a graded metric's scores; `none` is the message without
    failures."""

    heading: Heading
    none: str | None
    grid: Grid | None
    note: str
    kinds: tuple[FailureKind, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide:
    """Questions on which the arms differ, with all their answers."""

    heading: Heading
    questions: tuple[QuestionView, ...]


def failures_section(study: StudyFolder) -> Failures | None:
    """Return failures by kind and arm with examples; for a graded metric the distribution of the scores."""
    entries = {one.name: one for one in study.done if one.answers}
    if not entries:
        return None
    counts = {name: failure_counts(one.answers) for name, one in entries.items()}
    kinds: list[Failure] = [
        kind for kind in get_args(Failure) if kind != "none" and any(of[kind] for of in counts.values())
    ]
    graded = study.right_metric is None
    title = "How the scores spread" if graded else "Where it fails"
    heading = Heading(id="failures", link="Failures", title=title, lead=_lead(study) if kinds or graded else "")
    if not kinds and not graded:
        return Failures(heading=heading, none="No answer was counted as a failure.", grid=None, note="", kinds=())
    columns = [
        Column(title=title)
        for title in ("Arm", *(SPREAD if graded else ("right",)), *(FAILURES[kind][0] for kind in kinds))
    ]
    rows: list[tuple[Cell, ...]] = [
        (
            arm_label(one.arm, study.result.verdict.use),
            *(_spread(one.answers) if graded else (_share(counts[name]["none"], len(one.answers)),)),
            *(_share(counts[name][kind], len(one.answers)) for kind in kinds),
        )
        for name, one in entries.items()
    ]
    first = sorted(entries, key=lambda name: name != study.result.verdict.use)
    by_arm = {name: entries[name].answers for name in first}
    return Failures(
        heading=heading,
        none=None,
        grid=Grid(label=title, columns=tuple(columns), rows=tuple(rows)),
        note="These examples come from the chosen arm where it has any." if kinds else "",
        kinds=tuple(
            FailureKind(
                name=FAILURES[kind][0],
                meaning=FAILURES[kind][1],
                count=f"{plural(sum(of[kind] for of in counts.values()), 'answer')} of all arms",
                examples=tuple(
                    question_view([(entries[name].arm, answer)]) for name, answer in failure_examples(by_arm, kind)
                ),
            )
            for kind in kinds
        ),
    )


def _lead(study: StudyFolder) -> str:
    if study.right_metric is None:
        return (
            f"{study.metric.label} says how near an answer comes to its reference, not whether it is right, so that no "
            "answer counts as right or wrong: a quarter, half and three quarters of the answers score at most this, "
            "and so many 0 or 1."
        )
    rule = ""
    if study.right_metric is not study.metric:
        rule = (
            "An answer counts as right when it holds a reference and gives nothing else in its place, whatever its "
            "score. "
        )
    return f"{rule}Answers by kind of failure: how many, and their share of the arm’s answers."


def _spread(answers: Sequence[Answer]) -> tuple[Cell, ...]:
    """Return the quartiles of the scores, and the number of scores 0 and 1."""
    ends = (sum(one.score == end for one in answers) for end in (0.0, 1.0))
    return (*map(format_score, quartiles(answers)), *(_share(number, len(answers)) for number in ends))


def _share(number: int, total: int) -> StyledText:
    share = "<1%" if number / total < 0.005 else f"{number / total:.0%}"
    return StyledText(text=f"{number:,}", soft=share) if number else StyledText(text="0")


def question_view(
    pairs: Iterable[tuple[Arm, Answer]], chosen: str | None = None, *, seeds: bool = False
) -> QuestionView:
    """Return a question and some arms' answers, with long texts cut; with `seeds` each answer names its seed."""
    pairs = list(pairs)
    first = pairs[0][1]
    return QuestionView(
        question=shorten(first.input),
        reference=shorten(" · ".join(shorten(one, 300) for one in first.reference)) or DASH,
        slice=first.slice or "",
        answers=tuple(
            AnswerView(
                arm=arm_label(arm, chosen),
                score=format_score(answer.score),
                failure=FAILURES[answer.failure][0] if answer.failure in FAILURES else "",
                text=shorten(answer.answer) or "(empty)",
                passages=shorten(
                    ", ".join(dict.fromkeys(hit.passage.source or hit.passage.id for hit in answer.hits)), 200
                ),
                seed=f"seed {answer.seed}" if seeds else "",
            )
            for arm, answer in pairs
        ),
    )


def side_by_side_section(study: StudyFolder) -> SideBySide | None:
    """Return a few questions with the answers of all arms side by side."""
    entries = {one.name: one for one in study.done if one.answers}
    found = disagreements({name: one.answers for name, one in entries.items()}, study.result.verdict.use)
    if not found:
        return None
    lead = (
        "Questions on which the arms differ most, by turns some that the chosen arm wins and some that it loses, "
        "where it does: picked to show differences, not a sample."
    )
    return SideBySide(
        heading=Heading(id="answers", link="Answers", title="Answers side by side", lead=lead),
        questions=tuple(
            question_view([(entries[name].arm, answer) for name, answer in answers.items()], study.result.verdict.use)
            for answers in found
        ),
    )
