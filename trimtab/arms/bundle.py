"""A context as a folder: the index, the documents, the shots and the instruction, opened again by a session of our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trimtab.arms.contexts import Context, PromptBuilder, context_for
from trimtab.arms.session import Session
from trimtab.arms.workspace import Workspace
from trimtab.base.codec import read_record, write_record
from trimtab.base.errors import InputError
from trimtab.base.records import Arm, Document, Example, Hit, Kind, Message, Passage
from trimtab.base.tables import BaseTable, DataTable, TaskTable
from trimtab.base.task import TASK_FILE, Task
from trimtab.data.audit import audit_rows
from trimtab.data.prompts import Shot, compose
from trimtab.model.load import Base

BUNDLE_FILE, DOCUMENTS_FILE, SHOTS_FILE = "bundle.json", "documents.json", "shots.json"
QUESTION, PASSAGE = "{question}", "{passage}"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """`bundle.json`: how a question becomes a prompt. `prompt`: its turns, with places for the question and the passages."""

    arm: Arm
    chosen: Mapping[str, float | int | str]
    task: str
    kind: Kind
    instruction: str
    unknown: str
    labels: tuple[str, ...]
    output_tokens: int
    model: str
    revision: str | None
    embedding: str
    embedding_digest: str | None
    reranker: str | None
    prompt: tuple[Message, ...]


@dataclass(frozen=True, kw_only=True)
class Documents:
    """`documents.json`."""

    documents: tuple[Document, ...]


@dataclass(frozen=True, kw_only=True)
class Shots:
    """`shots.json`: the examples shown before a question, or those that the nearest are taken from."""

    shots: tuple[Example, ...]


def write_bundle(session: Session, arm: Arm, context: Context, builder: PromptBuilder, folder: Path) -> None:
    """Write what the prompts of an arm are built from; of the rows only those that it shows, or may show."""
    task = session.task
    near = session.workspace.splits["train"] if context.shot_kind == "nearest-shots" else ()
    shots = tuple(replace(shot, file="", line=0) for shot in (*builder.fixed, *near))
    own = task.task.instruction if context.instruction is None else context.instruction
    bundle = Bundle(
        arm=arm,
        chosen=context.chosen(),
        task=task.task.name,
        kind=task.task.kind,
        instruction=task.task.instruction,
        unknown=task.task.unknown,
        labels=session.workspace.labels if task.task.kind == "classify" else (),
        output_tokens=session.output_tokens,
        model=task.base.model,
        revision=task.base.revision,
        embedding=task.base.embedding,
        embedding_digest=session.embedder.digest if arm.retrieves or near else None,
        reranker=task.base.reranker if arm.retrieves and context.rerank else None,
        prompt=shape_of(own, [(shot.input, shot.references[0]) for shot in builder.fixed], context),
    )
    write_record(folder / BUNDLE_FILE, bundle)
    if shots:
        write_record(folder / SHOTS_FILE, Shots(shots=shots))
    if context.passages or context.shot_passages:
        write_record(folder / DOCUMENTS_FILE, Documents(documents=session.workspace.documents))
        home = folder / session.index_folder(context.words).name
        home.mkdir()
        session.index_of(context.words).copy_to(home)


def open_bundle(folder: Path, *, near: Path = Path(), base: Base | None = None) -> tuple[Session, PromptBuilder]:
    """A session over a bundle, and what builds its prompts; `near` is where relative names of models begin, `base` one that is loaded.

    Raises InputError for a bundle that is damaged, and for another embedding model than its index was made with.
    """
    bundle = read_record(folder / BUNDLE_FILE, Bundle)
    shots = read_record(folder / SHOTS_FILE, Shots).shots if (folder / SHOTS_FILE).is_file() else ()
    named = folder / DOCUMENTS_FILE
    documents = read_record(named, Documents).documents if named.is_file() else ()
    task = Task(
        task=TaskTable(
            name=bundle.task,
            kind=bundle.kind,
            instruction=bundle.instruction,
            unknown=bundle.unknown,
            labels=bundle.labels,
            output_tokens=bundle.output_tokens,
        ),
        data=DataTable(),
        base=BaseTable(
            model=bundle.model, revision=bundle.revision, embedding=bundle.embedding, reranker=bundle.reranker
        ),
        file=near / TASK_FILE,
    )
    workspace = Workspace(
        task=task,
        folder=folder,
        splits={"train": shots, "dev": (), "test": ()},
        preferences={"train": (), "dev": (), "test": ()},
        documents=documents,
        refusals=(),
        notes=(),
        audit=audit_rows((), (), ()),
        overlaps=(),
        findings=(),
        remarks=(),
    )
    session = Session(workspace, base=base)
    if bundle.embedding_digest not in (None, session.embedder.digest if bundle.embedding_digest else None):
        problem = f"its index was made with other weights of {bundle.embedding}"
        raise InputError(problem, "bring those, or export it again", file=folder / BUNDLE_FILE)
    return session, PromptBuilder(session, context_for(bundle.arm, bundle.chosen), shots=shots)


def shape_of(instruction: str, shots: Sequence[Shot], context: Context) -> tuple[Message, ...]:
    """The turns of a prompt, a place for the question and one for each passage in them; shots only where they are fixed."""
    passages = [
        Passage(id="", document="", title=f"{{title {rank}}}", path=(), text=f"{PASSAGE[:-1]} {rank}}}", source="")
        for rank in range(1, context.passages + 1)
    ]
    hits = [Hit(passage=passage, rank=rank, score=0.0) for rank, passage in enumerate(passages, 1)]
    asked = Example(id="", messages=(Message(role="user", content=QUESTION),), references=())
    return compose(asked, instruction, shots, hits).messages
