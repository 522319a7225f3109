"""`audit --rows`: what people graded becomes the rows of a task whose arms learn to judge."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trimtab.base.errors import InputError
from trimtab.base.files import write_atomic
from trimtab.base.results import StudyResult
from trimtab.base.show import Shown
from trimtab.base.task import TASK_FILE, Task, command, name_after
from trimtab.measurement.judge import DEGREES, GRADED, graded_columns, nearest_degree
from trimtab.measurement.raters import judged_by_key
from trimtab.studies.audit import StudyAudit, audit
from trimtab.studies.decide import read_audit

_TASK = """# Written by `trimtab audit --rows`: learns to judge answers as people graded them. Next: `trimtab study`.
[task]
name = {name}
kind = "classify"
instruction = "Does the answer meet the criterion? Answer with one of: yes, partly, no."

[data]
examples = [{rows}]
columns = {{ input = {text}, label = "label" }}   # the judge reads the same text
group = "question"   # tested on questions that it has not learnt from

[base]
model = {model}
embedding = {embedding}
"""
_RIGHT = "The answer is right."  # the criterion of an audit without any


@dataclass(frozen=True, kw_only=True, repr=False)
class GradedRows(Shown):
    """Rows that teach a judge: their file, the number with each label, and the task file beside them."""

    file: Path
    labels: Mapping[str, int]
    task_file: Path

    @property
    def headline(self) -> str:
        """Return what was written, and what comes next."""
        counts = ", ".join(f"{count:,} {label}" for label, count in self.labels.items())
        return f"Wrote {self.file}: {counts}. Next: {command('study', self.task_file)}"


def write_graded_rows(
    study: str | Path | StudyResult, file: Path, *, task: str | Path | Task = TASK_FILE
) -> GradedRows:
    """Write what people graded in a study as JSON lines, anew each time, and a task file beside them if there is none.

    Raises InputError where nothing was graded, where answers were compared with references, and for a file that holds
    anything else than such rows.
    """
    opened = audit(study, task=task)
    if opened.task.judges_pairs:
        problem = "people compared its answers with references, and a judge that is taught grades answers alone"
        raise InputError(problem, "audit a study without judge.against", file=opened.folder)
    rows = graded_rows(opened)
    if not rows:
        raise InputError("people have graded none of its answers", "run: trimtab audit", file=opened.folder)
    if file.exists() and not _holds_graded(file):
        raise InputError("holds other rows, and is not overwritten", "name another file", file=file)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    task_file = file.parent / TASK_FILE
    if not task_file.exists():
        write_atomic(task_file, _task_file(file, opened.task))
    counts = Counter(row["label"] for row in rows)
    return GradedRows(file=file, labels={degree: counts[degree] for degree in DEGREES}, task_file=task_file)


def graded_rows(opened: StudyAudit) -> list[dict[str, str]]:
    """Return the grades of a study's answers as rows: the columns GRADED, and the degree as `label`."""
    known = {(one.item_id, one.answer): one for rows in opened.answers.values() for one in rows}
    said, found = read_audit(opened.folder), []
    for criterion in opened.shares:
        words = criterion.split(": ", 1)[-1] or _RIGHT  # without the name of the criterion
        for key, value in judged_by_key(said, {criterion: 1.0}).items():
            if key in known:
                asked = known[key]
                row = graded_columns(words, (asked.item_id, asked.input, asked.reference, asked.answer))
                found.append({**row, "label": nearest_degree(value)})
    return found


def _holds_graded(file: Path) -> bool:
    """True if a file has rows of an earlier call, by its first line."""
    try:
        with file.open(encoding="utf-8") as lines:
            first = json.loads(next(lines, "{}"))
    except ValueError:
        return False
    return isinstance(first, dict) and set(first) == {*GRADED, "label"}


def _task_file(file: Path, task: Task) -> str:
    text = "\n\n".join(f"{name.capitalize()}:\n{{{name}}}" for name in GRADED)
    near = {name: task.folder / getattr(task.base, name) for name in ("model", "embedding")}
    models = {name: str(path.resolve()) if path.exists() else getattr(task.base, name) for name, path in near.items()}
    values = {"name": name_after(file.parent), "rows": file.name, "text": text, **models}
    return _TASK.format(**{key: json.dumps(value, ensure_ascii=False) for key, value in values.items()})
