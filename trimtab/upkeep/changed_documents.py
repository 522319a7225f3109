"""Finds the documents that changed since a version was made, and the questions whose facts are gone from them."""

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
from trimtab.upkeep.statements import StatedFacts
from trimtab.upkeep.versions import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentChanges:
    """The documents that changed, the former passages with a fact that is stated no more, and what is stated now."""

    documents: tuple[ChangedDocument, ...]
    gone: tuple[Passage, ...]
    facts: StatedFacts


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
    present = read_documents(task)
    now, facts = {document.id: document for document in present}, StatedFacts(before, present)
    changed, gone = [], []
    for name in sorted(was.keys() | now.keys()):
        old = was.get(name)
        if facts.is_unchanged(name):
            continue
        passages = {one: facts.lost(one) for one in chunk_document(old, words=chunk_words)} if old else {}
        lost = {statement for statements in passages.values() for statement in statements}  # passages may overlap
        kind = "added" if old is None else "changed" if name in now else "removed"
        changed.append(ChangedDocument(document=name, change=kind, facts=len(lost)))  # type: ignore[arg-type]  # mypy reads str
        gone += [passage for passage, statements in passages.items() if statements]
    return DocumentChanges(documents=tuple(changed), gone=tuple(gone), facts=facts)


def affected_questions(
    task: Task, changes: DocumentChanges, answers: Sequence[ServedAnswer]
) -> Iterator[AffectedQuestion]:
    """Find the questions whose facts are gone: first test rows that name their passages, then answers in use, each
    question once.

    An answer rests on the sentences of its passages that hold it; one that stands in none of them, on the first.
    """
    gone: Mapping[str, Passage] = {passage.id: passage for passage in changes.gone}
    if not gone:
        return
    if task.data.examples:
        for example in open_workspace(task, refuse_leaks=False).splits["test"]:
            named = [one for one in gone.values() if any(holds(one, name) for name in example.passages)]
            lost = next((one for one in named if changes.facts.holds_answer(one, example.references) is not True), None)
            if lost is not None:
                yield AffectedQuestion(
                    source="test", document=lost.document, question=example.input, answer=example.references[0]
                )
    seen = set()
    for answer in answers:
        question = answer.messages[-1].content
        shown = _rests_on(answer, gone, changes.facts)
        if shown is not None and question not in seen:
            seen.add(question)
            yield AffectedQuestion(source="traffic", document=shown.document, question=question, answer=answer.answer)


def _rests_on(answer: ServedAnswer, gone: Mapping[str, Passage], facts: StatedFacts) -> Passage | None:
    """Return the passage whose lost fact an answer in use gave; None if it gave none."""
    if answer.abstained:
        return None
    shown = {gone[name]: facts.holds_answer(gone[name], [answer.answer]) for name in answer.passages if name in gone}
    if True in shown.values():
        return None
    first = gone.get(answer.passages[0]) if answer.passages else None
    return next((passage for passage, still in shown.items() if still is False), first)


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
