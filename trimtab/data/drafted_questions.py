"""The file of drafted questions: rows that were written from the documents, each with what a person said of it.

Only what somebody approved or mended is a row of the task, and its slice is `drafted` for ever: nobody asked it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from trimtab.base.codec import from_plain
from trimtab.base.errors import InputError
from trimtab.base.files import FORM, read_own_lines, write_atomic
from trimtab.base.task import APPROVED, DRAFTED_QUESTIONS
from trimtab.data.raw_rows import RawRow, RawRows

State = Literal["drafted", "approved", "mended", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftedQuestion:
    """A drafted question. `passage`: the documents that hold the answer, none for one that is not answered here.

    `sentence`: what states the answer, word for word. `group`: the document and heading that it is about. `kind`:
    that of its draft. `by`: what drafted it. `state`: what a person said of it, `who` and when.
    """

    id: str
    question: str
    answer: str
    passage: tuple[str, ...]
    sentence: str
    group: str
    kind: str
    by: str
    state: State = "drafted"
    who: str = ""
    time: str = ""

    @property
    def counts(self) -> bool:
        """True if it is a row of the task: somebody approved it, or mended it."""
        return self.state in APPROVED


_FIELDS = tuple(one.name for one in fields(DraftedQuestion))


def read_drafts(folder: Path) -> list[DraftedQuestion]:
    """Return the drafted questions of a task's folder; none without the file. Raises InputError for a line that is no
    draft."""
    file = folder / DRAFTED_QUESTIONS
    if not file.exists():
        return []
    found = []
    for number, line in enumerate(read_own_lines(file, "id", "question", "answer", "state"), 1):
        try:
            found.append(from_plain(DraftedQuestion, {name: line[name] for name in _FIELDS if name in line}))
        except ValueError:
            raise InputError(
                "is no drafted question", "correct the line, or take it out", file=file, line=number
            ) from None
    return found


def write_drafts(folder: Path, drafts: Iterable[DraftedQuestion]) -> None:
    """Write the drafted questions of a task's folder, one a line."""
    lines = (json.dumps(asdict(one) | {"synthetic": True, "form": FORM}, ensure_ascii=False) for one in drafts)
    write_atomic(folder / DRAFTED_QUESTIONS, "".join(f"{line}\n" for line in lines))


def is_synthetic(row: RawRow) -> bool:
    """True if nobody asked the question of a row."""
    return str(row.fields.get("synthetic", "")).casefold() == "true"


def without_waiting(first: Iterable[Any], rest: RawRows, notes: list[str]) -> RawRows:
    """Yield the rows of a file of drafts that count; `notes` gets the number of the others."""
    left: Counter[str] = Counter()
    name = DRAFTED_QUESTIONS
    for row in chain(first, rest):
        if isinstance(row, RawRow) and is_synthetic(row) and row.fields.get("state", APPROVED[0]) not in APPROVED:
            left["refused" if row.fields["state"] == "refused" else "waiting"] += 1
        else:
            yield row
    if left["waiting"]:
        notes.append(f"{name}: {left['waiting']:,} drafts that nobody approved are left out")
