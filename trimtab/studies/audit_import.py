"""Judgements that a team has already: read from a file, matched to a study's answers by their text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.base.errors import InputError
from trimtab.base.records import Answer, Refusal
from trimtab.base.sanitize import printable
from trimtab.data.column_names import ANSWERS, INPUTS
from trimtab.data.raw_rows import RawRow
from trimtab.data.readers import read_raw_rows
from trimtab.measurement.audit import audited_answers

MOST_NAMED = 3  # rows that are named where nothing matches them
# Names of columns by what they hold; the first that a file has is taken.
ROLES: dict[str, tuple[str, ...]] = {
    "id": ("item", "item_id", "question_id", "id"),
    "question": INPUTS,
    "arm": ("arm", "system", "variant", "model"),
    "answer": ANSWERS,
    "criterion": ("criterion", "aspect", "dimension"),
    "grade": (
        *("grade", "judgement", "judgment", "value", "rating", "score", "verdict", "label"),
        *("correctness", "correct", "right"),
    ),
    "judge": ("by", "judge", "rater", "annotator", "labeller", "labeler", "grader", "reviewer", "worker", "user"),
}
WORDS = {
    **dict.fromkeys(("yes", "right", "true", "correct", "1", "1.0"), 1.0),
    **dict.fromkeys(("partly", "partial", "partially", "0.5", ".5"), 0.5),
    **dict.fromkeys(("no", "wrong", "false", "incorrect", "0", "0.0"), 0.0),
}


@dataclass(frozen=True, kw_only=True)
class ImportedJudgement:
    """One judgement of a file, of an answer of the study; `value` from 0 to 1."""

    item: str
    answer: str
    criterion: str
    value: float
    by: str


@dataclass(frozen=True, kw_only=True)
class ImportedJudgements:
    """What a file holds. `columns`: the column of each role. `unmatched`: rows about no answer of the study."""

    judgements: tuple[ImportedJudgement, ...]
    columns: Mapping[str, str]
    scale: tuple[float, float] | None
    unmatched: tuple[RawRow, ...]

    @property
    def notes(self) -> Iterator[str]:
        """What was read, and how; a line each."""
        yield "columns: " + ", ".join(f"{role} from {column!r}" for role, column in self.columns.items())
        if self.scale is not None:
            worst, best = self.scale
            yield f"grades: {worst:g} counts 0, {best:g} counts 1, and those between evenly"
        else:
            yield "grades: yes, right and 1 count 1; partly and 0.5 count ½; no, wrong and 0 count 0"
        by = Counter(one.by for one in self.judgements)
        yield f"{len(self.judgements):,} judgements: {', '.join(f'{name} {count:,}' for name, count in by.items())}"
        if self.unmatched:
            named = ", ".join(f"line {row.line}" for row in self.unmatched[:MOST_NAMED])
            more = f" and {len(self.unmatched) - MOST_NAMED:,} more" if len(self.unmatched) > MOST_NAMED else ""
            yield f"{len(self.unmatched):,} rows are about no answer of this study: {named}{more}"


def read_judgements(
    file: Path, answers: Mapping[str, Sequence[Answer]], criteria: Collection[str], scale: tuple[float, float] | None
) -> ImportedJudgements:
    """Read the judgements of a file about the answers of a study's arms.

    `criteria`: those of `[judge]` as people see them ("name: words"), or "" alone; each may have a column of its own.
    `scale`: the worst and the best grade where grades are numbers; needed for others than 0, ½ and 1. Raises InputError
    for an unreadable file, one without grades, or none that is about these answers.
    """
    rows = [_usable(row) for row in read_raw_rows(file)]
    if not rows:
        raise InputError("the file has no rows", "give one judgement a row", file=file)
    names = {criterion.partition(":")[0].strip().casefold(): criterion for criterion in criteria}
    columns, grades = _columns(rows, names)
    known = _Known(answers)
    found, unmatched = [], []
    for row in rows:
        matched = known.matching(row, columns)
        if not matched:
            unmatched.append(row)
            continue
        by = str(row.fields.get(columns.get("judge", ""), "") or file.name).strip()[:200]
        for column, criterion in grades.items():
            value = _value(row, column, scale)
            if value is None:
                continue
            of = criterion if criterion is not None else _criterion(row, columns, names)
            found += [
                ImportedJudgement(item=item, answer=text, criterion=of, value=value, by=by) for item, text in matched
            ]
    if not found:
        remedy = "give the questions and answers as the study has them, word for word"
        raise InputError(f"none of the {len(rows):,} rows is about an answer of this study", remedy, file=file)
    told = columns | {
        f"grade of {criterion.partition(':')[0]}": column for column, criterion in grades.items() if criterion
    }
    return ImportedJudgements(judgements=tuple(found), columns=told, scale=scale, unmatched=tuple(unmatched))


def _usable(row: RawRow | Refusal) -> RawRow:
    if isinstance(row, Refusal):
        raise InputError(row.reason, row.remedy, file=row.file, line=row.line)
    return row


def _columns(rows: Sequence[RawRow], names: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str | None]]:
    """Return the columns by role, and those of grades with their criteria; None where the row names it."""
    by_name = {str(column).strip().casefold().replace(" ", "_"): str(column) for row in rows for column in row.fields}
    columns: dict[str, str] = {}
    for role, candidates in ROLES.items():
        name = next((by_name[name] for name in candidates if name in by_name), None)
        if name is not None and name not in columns.values():
            columns[role] = name
    first = rows[0]
    if "id" not in columns and "question" not in columns:
        raise first.error("no column holds the question", "name one question, or id for the study's ids")
    if "answer" not in columns and "arm" not in columns:
        raise first.error("no column holds the answer", "name one answer, or arm for the arm that gave it")
    own: dict[str, str | None] = {by_name[name]: names[name] for name in names if name and name in by_name}
    if own:
        columns.pop("grade", None)
        return columns, own
    if "grade" not in columns:
        remedy = f"name one grade{', or one by criterion: ' + ', '.join(names) if any(names) else ''}"
        raise first.error("no column holds the grades", remedy)
    alone = next(iter(names.values())) if len(names) == 1 else None
    if alone is None and "criterion" not in columns:
        raise first.error("no column says by which criterion", f"name one criterion, with {', '.join(names)}")
    return columns, {columns["grade"]: alone}


def _criterion(row: RawRow, columns: Mapping[str, str], names: Mapping[str, str]) -> str:
    said = str(row.fields.get(columns["criterion"]) or "").partition(":")[0].strip()
    if said.casefold() not in names:
        raise row.error(f"{said[:80]!r} is no criterion of this study", f"write one of: {', '.join(names)}")
    return names[said.casefold()]


def _value(row: RawRow, column: str, scale: tuple[float, float] | None) -> float | None:
    """Return a grade from 0 to 1; None for an empty one."""
    given: Any = row.fields.get(column)
    text = "" if given is None else str(given).strip()
    if not text:
        return None
    if scale is None:
        if text.casefold() in WORDS:
            return WORDS[text.casefold()]
        remedy = "write yes, partly or no, right or wrong, 1 or 0; for other numbers, name worst and best: --scale 1,5"
        raise row.error(f"{text[:80]!r} is no grade that is known", remedy, column)
    worst, best = scale
    try:
        place = (float(text) - worst) / (best - worst)
    except ValueError:
        raise row.error(f"{text[:80]!r} is no number", f"write one from {worst:g} to {best:g}", column) from None
    if not 0 <= place <= 1:
        raise row.error(f"{text[:80]!r} is not on the scale", f"write one from {worst:g} to {best:g}", column)
    return place


class _Known:
    """The answers of a study, found by id or text of the question, by arm, and by their text."""

    def __init__(self, answers: Mapping[str, Sequence[Answer]]) -> None:
        self._own = audited_answers(answers)
        self._items: dict[str, set[str]] = {}
        for arm in self._own.values():
            for item, one in arm.items():
                self._items.setdefault(_plain(one.input), set()).add(item)
        self._ids = {item for arm in self._own.values() for item in arm}

    def matching(self, row: RawRow, columns: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return the questions and answers that a row is about, as the study has them."""

        def cell(role: str) -> str:
            given = row.fields.get(columns[role]) if role in columns else None
            return "" if given is None else str(given).strip()

        items = {cell("id")} & self._ids or self._items.get(_plain(cell("question")), set())
        arms = [cell("arm")] if cell("arm") in self._own else list(self._own)
        if "answer" not in columns and cell("arm") not in self._own:
            return []
        texts = {(item, self._own[arm][item].answer) for arm in arms for item in items if item in self._own[arm]}
        said = _plain(cell("answer"))
        return sorted((item, text) for item, text in texts if "answer" not in columns or _plain(text) == said)


def _plain(text: str) -> str:
    return " ".join(text.split())


def scale_from_text(text: str) -> tuple[float, float]:
    """Return worst and best of "1,5". Raises InputError for anything else."""
    try:
        worst, best = (float(part) for part in text.split(","))
    except ValueError:
        worst = best = 0.0
    if worst == best:
        raise InputError(
            f"{printable(text, 80)!r} is no scale", "name the worst and the best grade: 1,5", field="--scale"
        )
    return worst, best
