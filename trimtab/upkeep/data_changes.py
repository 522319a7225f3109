"""Compares the data of today with those that a version was made from: rows, documents, and labels that hold a right
answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.arms.fingerprint import fingerprint_rows
from trimtab.arms.known_rows import KnownRow, digest_of_row
from trimtab.arms.workspace import FOLDER, Workspace
from trimtab.base.files import write_atomic
from trimtab.base.records import Document, Example
from trimtab.base.task import Task
from trimtab.serving.corrections import Correction, correction_rows
from trimtab.serving.traffic_store import FILE, traffic_of

LABELLED = "labelled.jsonl"
SOURCE = "traffic"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledRows:
    """The number of rows that labels of traffic gave, and of labels that gave none, by the reason."""

    rows: int
    left_out: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataChanges:
    """The differences between the data of today and those that a version was made from.

    `new` and `changed`: rows by split, the latter with the same id and another question or other right answers;
    `gone`: rows that are there no more. Ids of documents that were added, changed or removed; None for a version
    that carries no documents. `documents_learnt`: the documents that its weights were trained on are others now.
    `labelled`: rows that labels of traffic gave.
    """

    new: Mapping[str, int]
    changed: Mapping[str, int]
    gone: int
    documents_added: tuple[str, ...] | None
    documents_changed: tuple[str, ...] | None
    documents_removed: tuple[str, ...] | None
    documents_learnt: bool
    labelled: LabelledRows

    @property
    def nothing(self) -> bool:
        """True if nothing changed."""
        rows = sum(self.new.values()) + sum(self.changed.values()) + self.gone
        return not (rows or self.documents_differ or self.documents_learnt)

    @property
    def documents_differ(self) -> bool:
        """True if the version carries documents, and those of today are others."""
        return any((self.documents_added, self.documents_changed, self.documents_removed))

    @property
    def sentence(self) -> str:
        """Return the differences in words."""
        if self.nothing:
            return "Nothing is new: rows and documents are those that production was made from."
        counts = [
            (sum(self.new.values()), f"new rows ({self.new.get('test', 0):,} of them test questions)"),
            (sum(self.changed.values()), f"rows with other answers ({self.changed.get('test', 0):,} test questions)"),
            (self.gone, "rows gone"),
            (len(self.documents_changed or ()), "documents changed"),
            (len(self.documents_added or ()), "documents added"),
            (len(self.documents_removed or ()), "documents removed"),
        ]
        parts = [f"{count:,} {words}" for count, words in counts if count]
        parts += ["other documents than the weights were trained on"] if self.documents_learnt else []
        return f"New: {', '.join(parts)}."


def compare_data(
    workspace: Workspace,
    known: Mapping[str, KnownRow],
    documents: Sequence[Document] | None,
    labelled: LabelledRows,
    *,
    learnt: str | None = None,
) -> DataChanges:
    """Compare a task's rows and documents with those that a version was made from.

    `documents`: those that the version answers from, None where it carries none. `learnt`: the hash of the documents
    that its weights were trained on, None where they were trained on none.
    """
    new: dict[str, int] = {}
    changed: dict[str, int] = {}
    for split, rows in workspace.splits.items():
        differing = new_rows(rows, known)
        changed[split] = sum(row.id in known for row in differing)
        new[split] = len(differing) - changed[split]
    there = {row.id for rows in workspace.all_splits.values() for row in rows}
    before = None if documents is None else {one.id: one.digest for one in documents}
    now = {one.id: one.digest for one in workspace.documents}
    return DataChanges(
        new=new,
        changed=changed,
        gone=len(known.keys() - there),
        documents_added=None if before is None else tuple(sorted(now.keys() - before.keys())),
        documents_changed=None
        if before is None
        else tuple(sorted(name for name in now.keys() & before.keys() if now[name] != before[name])),
        documents_removed=None if before is None else tuple(sorted(before.keys() - now.keys())),
        documents_learnt=learnt is not None and learnt != fingerprint_rows(workspace)["documents"],
        labelled=labelled,
    )


def new_rows(rows: Sequence[Example], known: Mapping[str, KnownRow]) -> list[Example]:
    """Return the rows that a version did not know, or knew with another question or other right answers."""
    return [row for row in rows if row.id not in known or known[row.id].digest != digest_of_row(row)]


def labelled_rows(task: Task, where: str | None) -> tuple[Task, LabelledRows]:
    """Write the rows that labels of a task's traffic give to `.trimtab/labelled.jsonl`; return the task with this
    file of examples.

    A row is a question that people labelled, with the right answer that they gave, or the arm's own answer where all
    call it right. Labels that contradict each other give no row. Raises as `traffic_of` does.
    """
    if where is None and not (task.folder / FOLDER / FILE).is_file():
        return task, LabelledRows(rows=0, left_out={})
    left_out: Counter[str] = Counter()
    with traffic_of(task, where, make=False) as store:
        answers = {one.id: one for one in store.answers()}
        by_item: dict[str, list[tuple[bool | None, str | None]]] = {}
        for label in store.labels():
            by_item.setdefault(label.item, []).append((label.right, label.correction))
    corrected: list[Correction] = []
    for item, said in by_item.items():
        answer = answers.get(item)
        if answer is None:  # of a file, or deleted since
            continue
        given = {correction.strip() for _, correction in said if correction}
        calls = {right for right, _ in said if right is not None}
        if len(given) > 1 or len(calls) > 1:
            left_out["labellers contradict each other"] += 1
        elif given:
            corrected.append(Correction(id=f"{SOURCE}-{item}", messages=answer.messages, answer=given.pop()))
        elif calls == {True}:
            corrected.append(Correction(id=f"{SOURCE}-{item}", messages=answer.messages, answer=answer.answer))
        else:
            left_out["wrong or unknown, and nobody gave the right answer"] += 1
    rows = correction_rows(corrected, task, SOURCE)
    left_out["the columns of the task file have no place for it"] += len(corrected) - len(rows)
    kept = {reason: count for reason, count in left_out.items() if count}
    if not rows:
        return task, LabelledRows(rows=0, left_out=kept)
    file = task.folder / FOLDER / LABELLED
    plain = task.data.encoding.lower() not in ("utf-8", "utf8")
    write_atomic(
        file, "".join(json.dumps(row, ensure_ascii=plain) + "\n" for _, row in rows).encode(task.data.encoding)
    )
    return _with_examples(task, file), LabelledRows(rows=len(rows), left_out=kept)


def _with_examples(task: Task, file: Path) -> Task:
    """Return the task with one more file of examples, unchanged if it names that file already."""
    name = file.relative_to(task.folder).as_posix()
    if name in task.data.examples:
        return task
    data = task.data.model_copy(update={"examples": (*task.data.examples, name)})
    return task.model_copy(update={"data": data})
