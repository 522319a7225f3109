"""What came since a version was made: rows that are new or have other answers, documents, and labels that hold a right answer."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.arms.made_from import KnownRow, digest_of_row
from trimtab.arms.traffic import FILE, traffic_of
from trimtab.arms.workspace import FOLDER, Workspace
from trimtab.base.files import write_atomic
from trimtab.base.records import Answer, Document, Example, Split
from trimtab.base.task import Task
from trimtab.data.corrections import Correction, correction_rows

LABELLED = "labelled.jsonl"
SOURCE = "traffic"
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledRows:
    """Answers in use whose right answer people gave or confirmed, as rows: how many, and how many labels gave none, by the reason."""

    rows: int
    left_out: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What is there now and was not when a version was made.

    `new` and `changed`: rows by split, the latter with the same id and another question or other right answers; `gone`: rows that are
    there no more. Ids of documents that were added, changed or removed; None for an arm that carries no documents. `labelled`: rows that
    labels of traffic gave.
    """

    new: Mapping[str, int]
    changed: Mapping[str, int]
    gone: int
    documents_added: tuple[str, ...] | None
    documents_changed: tuple[str, ...] | None
    documents_removed: tuple[str, ...] | None
    labelled: LabelledRows

    @property
    def documents(self) -> int:
        """How many documents differ."""
        return sum(len(part or ()) for part in (self.documents_added, self.documents_changed, self.documents_removed))

    @property
    def nothing(self) -> bool:
        """Whether everything is as it was."""
        return not (sum(self.new.values()) or sum(self.changed.values()) or self.gone or self.documents)

    @property
    def sentence(self) -> str:
        """In words."""
        if self.nothing:
            return "Nothing is new: rows and documents are those that production was made from."
        new, changed = sum(self.new.values()), sum(self.changed.values())
        parts = [f"{new:,} new rows ({self.new.get('test', 0):,} of them test questions)"] if new else []
        parts += (
            [f"{changed:,} rows with other answers ({self.changed.get('test', 0):,} test questions)"] if changed else []
        )
        parts += [f"{self.gone:,} rows gone"] if self.gone else []
        for count, said in (
            (len(self.documents_changed or ()), "changed"),
            (len(self.documents_added or ()), "added"),
            (len(self.documents_removed or ()), "removed"),
        ):
            parts += [f"{count:,} document{'s' * (count != 1)} {said}"] if count else []
        return f"New: {', '.join(parts)}."


def news_of(
    workspace: Workspace,
    known: Mapping[str, KnownRow],
    documents: Sequence[Document] | None,
    labelled: LabelledRows,
) -> News:
    """Compare a task's rows and documents with those that a version was made from; `documents` None where it carries none."""
    new: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    there: set[str] = set()
    for split, rows in workspace.splits.items():
        for row in rows:
            there.add(row.id)
            if row.id not in known:
                new[split] += 1
            elif known[row.id].digest != digest_of_row(row):
                changed[split] += 1
    added: tuple[str, ...] | None = None
    differs: tuple[str, ...] | None = None
    removed: tuple[str, ...] | None = None
    if documents is not None:
        before = {one.id: one.digest for one in documents}
        now = {one.id: one.digest for one in workspace.documents}
        added = tuple(sorted(now.keys() - before.keys()))
        differs = tuple(sorted(name for name in now.keys() & before.keys() if now[name] != before[name]))
        removed = tuple(sorted(before.keys() - now.keys()))
    return News(
        new=dict(new),
        changed=dict(changed),
        gone=len(known.keys() - there),
        documents_added=added,
        documents_changed=differs,
        documents_removed=removed,
        labelled=labelled,
    )


def new_rows(rows: Sequence[Example], known: Mapping[str, KnownRow]) -> list[Example]:
    """The rows that a version did not know, or knew with another question or other right answers."""
    return [row for row in rows if row.id not in known or known[row.id].digest != digest_of_row(row)]


def outdated(answers: Sequence[Answer], rows: Sequence[Example], documents: Sequence[Document]) -> list[str]:
    """The ids of questions whose right answer may have changed with the documents.

    `answers`: production's, with the passages of its own time. A question is outdated where a right answer stands in a passage that it
    was shown, and no sentence that holds it there stands in the documents of today: the row should be answered anew.
    """
    text = _plain("\n".join(section.text for document in documents for section in document.sections))
    references = {row.id: row.references for row in rows}
    found = []
    for answer in answers:
        right = [plain for one in references.get(answer.item_id, ()) if (plain := _plain(one))]
        held = [
            sentence
            for hit in answer.hits
            for sentence in map(_plain, _SENTENCE.split(hit.passage.text))
            if any(one in sentence for one in right)
        ]
        if held and not any(sentence in text for sentence in held):
            found.append(answer.item_id)
    return list(dict.fromkeys(found))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def labelled_rows(task: Task, where: str | None) -> tuple[Task, LabelledRows]:
    """The task with the rows that labels of its traffic give: `.trimtab/labelled.jsonl`, in the columns of its own files.

    A row is a question that people were asked about, and the right answer that they gave, or the arm's own where all call it right.
    Labels that contradict each other give none.
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
    return with_examples(task, file), LabelledRows(rows=len(rows), left_out=kept)


def with_examples(task: Task, file: Path) -> Task:
    """The task with one more file of examples; as it is where it names that file already."""
    name = file.relative_to(task.folder).as_posix()
    if name in task.data.examples:
        return task
    data = task.data.model_copy(update={"examples": (*task.data.examples, name)})
    return task.model_copy(update={"data": data})


def splits_of(workspace: Workspace) -> dict[str, Split]:
    """The split of every row, by its id."""
    return {row.id: split for split, rows in workspace.splits.items() for row in rows}
