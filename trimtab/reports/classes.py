"""The section on a classifier: what is mistaken for what, each class, and what is gained where unsure answers go to a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from trimtab.base.records import Answer
from trimtab.reports.folder import Row, Study
from trimtab.reports.markup import Html, count, el, join, plain, score, shorten
from trimtab.reports.parts import arm_label, section, table

MOST_MISTAKES, FOLD_FROM = 10, 13


def classes(study: Study) -> Html | None:
    """The chosen arm's classes, the best arm's where none is chosen; and how sure all arms are."""
    row = study.row(study.verdict.arm) or next(iter(study.done), None)
    if row is None or not row.classes:
        return None
    lead = f"Of {row.name}. A class of few questions decides nothing."
    return section("classes", "Class by class", _mistakes(row), _table(row), _surest(study), lead=lead)


def _mistakes(row: Row) -> Html | None:
    """The pairs that are confused most often."""
    wrong = Counter(_pair(answer) for answer in row.answers if answer.score < 1.0 and answer.reference)
    pairs = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:MOST_MISTAKES]
    if not pairs:
        return None
    body = [[shorten(right, 80), shorten(said, 80) or "(empty)", plain(times)] for (right, said), times in pairs]
    heading = "Most frequent mistakes"
    return join(el("h3", heading), table(heading, ["Right", "Answered", "Times"], body, texts=(1,)))


def _pair(answer: Answer) -> tuple[str, str]:
    return answer.reference[0], answer.answer


def _table(row: Row) -> Html:
    weakest = sorted(row.classes, key=lambda one: (one.f1, -one.support))
    body = [
        [shorten(one.label, 80), plain(one.support), score(one.precision), score(one.recall), score(one.f1)]
        for one in weakest
    ]
    whole = table("Classes", ["Class", "Questions", "Precision", "Recall", "F1"], body)
    if len(body) < FOLD_FROM:
        return join(el("h3", "Every class, weakest first"), whole)
    return el("details", el("summary", el("b", f"All {count(len(body), 'class', 'classes')}, weakest first")), whole)


def _surest(study: Study) -> list[Html]:
    """Accuracy on the surest share of the answers, for every arm that gives probabilities."""
    rows: Sequence[Row] = [row for row in study.done if row.selective]
    if not rows:
        return []
    shares = sorted({share for row in rows for share in row.selective})
    body = [
        [arm_label(row, row.name == study.verdict.arm)]
        + [score(row.selective[share]) if share in row.selective else "–" for share in shares]
        for row in rows
    ]
    said = "Accuracy where only the surest share is answered by the machine and the rest goes to a person."
    return [
        el("h3", "Unsure answers left to a person"),
        el("p", said, class_="note"),
        table("Accuracy by share answered", ["Arm", *(f"{share:.0%}" for share in shares)], body),
    ]
