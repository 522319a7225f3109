"""Finds the documents that changed since a version was made, and the questions that were answered from passages that
are gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from trimtab.arms.bundle import DOCUMENTS_FILE, BundledDocuments
from trimtab.arms.workspace import open_workspace
from trimtab.base.codec import read_record
from trimtab.base.records import Document, Passage
from trimtab.base.task import Task
from trimtab.data.documents import read_documents
from trimtab.measurement.ranking import holds
from trimtab.retrieval.chunk import WORDS, chunk_document
from trimtab.serving.traffic_store import ServedAnswer
from trimtab.studies.ask import conversation
from trimtab.upkeep.drift_report import AffectedQuestion, ChangedDocument
from trimtab.upkeep.registry import Registry
from trimtab.upkeep.versions import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentChanges:
    """The documents that changed, and their former passages that are in them no more."""

    documents: tuple[ChangedDocument, ...]
    gone: tuple[Passage, ...]


def version_documents(registry: Registry, version: Version) -> tuple[Document, ...] | None:
    """Read the documents that a version answers from, out of its files; None where it has none."""
    if version.artifact_sha256 is None:
        return None
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / DOCUMENTS_FILE
        if not registry.artifacts.get_file(version.artifact_sha256, DOCUMENTS_FILE, file):
            return None
        return read_record(file, BundledDocuments).documents


def compare_documents(task: Task, before: Sequence[Document], chunk_words: int = WORDS) -> DocumentChanges:
    """Compare the documents of a version with the present ones of its task; `chunk_words` as the version cuts
    passages."""
    was = {document.id: document for document in before}
    now = {document.id: document for document in read_documents(task)}
    changed, gone = [], []
    for name in sorted(was.keys() | now.keys()):
        old, new = was.get(name), now.get(name)
        if old is not None and new is not None and old.digest == new.digest:
            continue
        texts = {passage.text for passage in chunk_document(new, words=chunk_words)} if new else set()
        lost = [one for one in chunk_document(old, words=chunk_words) if one.text not in texts] if old else []
        kind = "added" if old is None else "removed" if new is None else "changed"
        changed.append(ChangedDocument(document=name, change=kind, passages=len(lost)))  # type: ignore[arg-type]  # mypy reads str
        gone += lost
    return DocumentChanges(documents=tuple(changed), gone=tuple(gone))


def affected_questions(
    task: Task, changes: DocumentChanges, answers: Sequence[ServedAnswer]
) -> Iterator[AffectedQuestion]:
    """Find the questions whose passages are gone: first test rows that name them, then answers in use from them,
    each question once."""
    gone: Mapping[str, Passage] = {passage.id: passage for passage in changes.gone}
    if not gone:
        return
    if task.data.examples:
        for example in open_workspace(task, refuse_leaks=False).splits["test"]:
            lost = next((one for one in gone.values() if any(holds(one, name) for name in example.passages)), None)
            if lost is not None:
                yield AffectedQuestion(
                    source="test", document=lost.document, question=example.input, answer=example.references[0]
                )
    seen = set()
    for answer in answers:
        question = answer.messages[-1].content
        shown = next((gone[name] for name in answer.passages if name in gone), None)
        if shown is not None and question not in seen:
            seen.add(question)
            yield AffectedQuestion(source="traffic", document=shown.document, question=question, answer=answer.answer)


def ask_again(
    task: Task, version: Version, questions: Sequence[AffectedQuestion], allow: Sequence[str]
) -> tuple[AffectedQuestion, ...]:
    """Ask the arm of a version questions again, with its weights and the present documents."""
    found = []
    with conversation(task=task, arm=version.arm, run=version.source, allow=allow) as talk:
        for one in questions:
            found.append(replace(one, now=talk.ask(one.question).answer))
            talk.forget()
    return tuple(found)
