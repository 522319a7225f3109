"""`ask`: answers a question with its sources; `conversation`: a dialogue with one arm."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from trimtab.arms.bundle import BundledArm, named_bundle, open_bundle
from trimtab.arms.online import FailedQuestion, OnlineArm, OnlineQuestion, OnlineReply, open_online
from trimtab.arms.session import Session
from trimtab.arms.store import (
    Pick,
    SavedArm,
    find_saved,
    measured_precision,
    picked_arm,
    require_weights,
    usual_arm,
    with_measured_rows,
)
from trimtab.arms.workspace import open_for_answering
from trimtab.base.errors import InputError, MissingError, PackageError
from trimtab.base.grammar import shots_of
from trimtab.base.plugins import plugins
from trimtab.base.progress import Listener
from trimtab.base.records import Arm, Hit, Message, Passage
from trimtab.base.sanitize import visible
from trimtab.base.show import Shown
from trimtab.base.task import Task, require_answers
from trimtab.data.documents import read_documents
from trimtab.data.strict_json import has_lone_surrogate
from trimtab.measurement.contains import sentence_for
from trimtab.measurement.metrics import has_abstained
from trimtab.retrieval.chunk import WORDS
from trimtab.retrieval.extract import SURE
from trimtab.retrieval.sentences import can_answer, sentence_spans
from trimtab.studies.run_context import resolve_task, run_context

PRODUCTION = "production"  # alias of the version that answers who names no arm


@dataclass(frozen=True, kw_only=True, repr=False)
class AskResult(Shown):
    """An answer. `hits`: the passages in its prompt. `cited`: the ranks of those that support it.

    `sentence`: the supporting sentence of the first of these, word for word. `found`: True if a passage supports the
    answer; None if support does not apply: no passages, or an answer that abstains. `probability`: that the sentence
    answers, for the arm `extract`; None for all others. `contexts`: for the arm `extract`, each passage with the
    sentences beside it, which often complete the answer; empty for all others, and if it abstains.
    """

    answer: str
    arm: str
    seconds: float
    hits: tuple[Hit, ...]
    cited: tuple[int, ...]
    sentence: str | None = None
    found: bool | None = None
    probability: float | None = None
    contexts: tuple[str, ...] = ()

    @property
    def is_sure(self) -> bool:
        """True if the supporting sentence is said to hold the answer; False if it only may."""
        return self.probability is None or self.probability >= SURE

    @property
    def headline(self) -> str:
        """Return the answer."""
        return self.answer


def ask(
    question: str,
    *,
    task: str | Path | Task = "trimtab.toml",
    bundle: Path | None = None,
    signed_by: Path | None = None,
    arm: str | None = None,
    allow: Sequence[str] = (),
    listeners: Sequence[Listener] | None = None,
) -> AskResult:
    """Answer a question with an arm: the version in production unless one is named, as a server that follows it does.

    Without a registry, or with nothing in production: the winner of the newest study, else the arm that scored highest
    in it. Without a study: `extract` if the task has documents (`rag` if answers are labels), else `prompt`.

    `bundle`: a folder of `export`, whose arm is used without a task file; `signed_by`: the public key that must have
    signed it. Documents of an arm are read on each call, so an edited one is used at once; those of a version and of a
    bundle are fixed, and a note says where a version's are others than there are now.
    `seconds` are those of retrieval and answer, with models already loaded. `allow` is that of `study`. `listeners`
    get every event; None shows progress on standard error. Raises MissingError for an arm whose weights were not
    trained.
    """
    require_question(question)
    with conversation(task=task, bundle=bundle, signed_by=signed_by, arm=arm, allow=allow, listeners=listeners) as talk:
        return talk.ask(question)


@contextmanager
def conversation(
    *,
    task: str | Path | Task = "trimtab.toml",
    bundle: Path | None = None,
    signed_by: Path | None = None,
    arm: str | None = None,
    run: str | None = None,
    allow: Sequence[str] = (),
    listeners: Sequence[Listener] | None = None,
) -> Iterator[Conversation]:
    """Context manager: yields a conversation with one arm, its models loaded once. Parameters and errors are those of
    `ask`.

    `run`: the study or training run that its weights come from; default the newest one.
    """
    bundled, note = named_bundle(bundle, signed_by, arm), ""
    if bundled is None and arm is None and run is None:
        task = resolve_task(task)
        bundled, note = _in_production(task)
    own = bundled.session.task if bundled else resolve_task(task)
    pick = Pick(bundled.arm.name) if bundled else Pick(arm) if arm else usual_arm(own)
    chosen = bundled.arm if bundled else picked_arm(pick, own)
    require_answers(chosen, own)
    with run_context(own, [chosen], listeners=listeners, allow=allow, scores=False) as ctx:
        if note or pick.note:
            ctx.note(note or pick.note)
        saved = bundled.saved if bundled else require_weights(find_saved(own, chosen, run or pick.study), chosen, own)
        session = bundled.session if bundled else _session(own, chosen, saved)
        for left_out in session.workspace.refusals:
            note = f"left out: {left_out.file}: {left_out.reason}"
            if listeners is None:
                sys.stderr.write(f"{visible(note)}\n")
            ctx.progress(arm=chosen.name).emit("data", note=note)
        if chosen.retrieves:
            files = len(session.workspace.documents)
            ctx.progress(arm=chosen.name).emit("index", note=f"indexing what is new of {files:,} documents")
        with open_online(session, chosen, saved, sample=False) as answering:
            if ctx.display:
                ctx.display.close()  # from here on the conversation uses the terminal
            in_context = session.retriever.in_context if chosen.weights == "extract" else None
            yield Conversation(own, chosen, answering, in_context)


def _in_production(task: Task) -> tuple[BundledArm | None, str]:
    """Return the version of a task that is in production, and a note on it; None and no note without one."""
    open_followed = plugins("releases").get("registry")
    if open_followed is None:
        return None, ""
    with suppress(MissingError, PackageError), open_followed(task, PRODUCTION, None, artifacts=None, store=None) as one:
        release = one.follow(())
        bundled = open_bundle(release.folder, near=task.folder)
        note = f"Version {release.version} answers, which is in production"
        before = {document.id: document.digest for document in bundled.session.workspace.documents}
        now = {document.id: document.digest for document in read_documents(task)} if before else {}
        changed = len(dict(before.items() ^ now.items()))
        if changed:
            again, present = task.command("refresh"), task.command(f'ask --arm {bundled.arm.name} "…"')
            note += f"; {changed:,} documents are others now: {again} updates it, {present} asks with these"
        return bundled, note
    return None, ""


class Conversation:
    """A dialogue with one arm: each question is asked with the earlier questions and answers."""

    def __init__(
        self, task: Task, arm: Arm, answering: OnlineArm, in_context: Callable[[Passage], str] | None = None
    ) -> None:
        self.task, self.arm = task, arm
        self._answering, self._in_context = answering, in_context
        self.turns: list[Message] = []

    def forget(self) -> None:
        """Forget the earlier turns."""
        self.turns.clear()

    def ask(self, question: str, on_piece: Callable[[str], object] = lambda _: None) -> AskResult:
        """Return the answer to a question; `on_piece` gets its text as it is generated. Raises InputError for an
        invalid question.

        An interrupted question, for example by a signal, leaves the conversation unchanged.
        """
        require_question(question)
        began = time.perf_counter()
        turn = Message(role="user", content=question)
        self._answering.ask(OnlineQuestion(id="question", messages=(*self.turns, turn), cache_salt="terminal"))
        try:
            reply = self._reply(on_piece)
        finally:
            self._answering.cancel("question")
        self.turns += [turn, Message(role="assistant", content=reply.text)]
        silent = not reply.hits or not reply.text or has_abstained(reply.text, self.task.task.unknown)
        held = (_sentence_for(hit.passage.text, reply.text) for hit in reply.hits if hit.rank in reply.cited)
        return AskResult(
            answer=reply.text,
            arm=self.arm.name,
            seconds=time.perf_counter() - began,
            hits=reply.hits,
            cited=reply.cited,
            sentence=next(held, None),
            found=None if silent else bool(reply.cited),
            probability=reply.hits[0].score if self.arm.weights == "extract" and reply.hits else None,
            contexts=() if silent else self._contexts(reply.hits),
        )

    def _contexts(self, hits: Sequence[Hit]) -> tuple[str, ...]:
        return tuple(map(self._in_context, [hit.passage for hit in hits])) if self._in_context else ()

    def _reply(self, on_piece: Callable[[str], object]) -> OnlineReply:
        while True:
            for event in self._answering.step():
                if isinstance(event, FailedQuestion):
                    raise event.error
                if isinstance(event, OnlineReply):
                    return event
                on_piece(event.text)


def _sentence_for(passage: str, answer: str) -> str:
    """Return the sentence of a passage that supports an answer; one that cannot answer only if there is no other."""
    found = [passage[start:end] for start, end in sentence_spans(passage, WORDS)]
    return sentence_for([sentence for sentence in found if can_answer(sentence)] or found, answer)


def require_question(question: str) -> None:
    """Raise InputError for an empty or invalid question."""
    if not question.strip():
        raise InputError("the question is empty", "write it in quotes after ask")
    if has_lone_surrogate(question):  # how Python passes on bytes of another encoding from the shell
        raise InputError("the question is not UTF-8 text", "write it in UTF-8")


def _session(task: Task, arm: Arm, saved: SavedArm | None) -> Session:
    workspace = open_for_answering(with_measured_rows(task, saved), rows=_needs_rows(task, arm))
    return Session(workspace, measured_precision(saved, task))


def _needs_rows(task: Task, arm: Arm) -> bool:
    """True if answering needs the labelled rows: for shots, for labels, or for the length of answers."""
    labels = task.task.kind == "classify" and not task.task.labels
    return bool(task.data.examples) and (shots_of(arm) is not None or labels or task.task.output_tokens is None)
