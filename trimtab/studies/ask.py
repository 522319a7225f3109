"""`ask`: one question, answered with its sources."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trimtab.arms.bundle import named_bundle
from trimtab.arms.online import FailedQuestion, OnlineArm, OnlineQuestion, OnlineReply, open_online
from trimtab.arms.session import Session
from trimtab.arms.store import Pick, SavedArm, find_saved, measured_precision, on_its_rows, require_weights, usual_arm
from trimtab.arms.workspace import open_to_answer
from trimtab.base.errors import InputError
from trimtab.base.grammar import shots_of
from trimtab.base.progress import Listener
from trimtab.base.records import Arm, Hit, Message
from trimtab.base.show import Shown
from trimtab.base.task import Task, parse_arm, require_answers
from trimtab.data.strict_json import has_lone_surrogate
from trimtab.measurement.contains import sentence_for
from trimtab.measurement.metrics import has_abstained
from trimtab.studies.run_context import loaded, opened


@dataclass(frozen=True, kw_only=True, repr=False)
class AskResult(Shown):
    """An answer; `hits` are the passages that were read for it, `cited` the ranks of those that support it.

    `sentence`: what the first of those says, word for word. `found`: whether any supports it; None where there is nothing to look for:
    no passages, or an answer that abstains.
    """

    answer: str
    arm: str
    seconds: float
    hits: tuple[Hit, ...]
    cited: tuple[int, ...]
    sentence: str | None = None
    found: bool | None = None

    @property
    def headline(self) -> str:
        """The answer."""
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
    """Answer a question with an arm: the winner of the newest study unless one is named, else `rag`, else `prompt`.

    `bundle`: a folder of `export`, whose arm is asked without a task file; `signed_by`: the public key that must have signed it.
    Documents are read anew on each call, so an edited one is answered from at once; those of a bundle stay. `seconds` are those of retrieval and answer,
    models already loaded. `allow` is that of `study`. `listeners` get every event; None shows progress on standard error. Raises MissingError for an arm whose
    weights were not trained.
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
    """Inside, questions are asked of one arm, its models loaded once; the words and errors are those of `ask`.

    `run`: the study or training run that its weights come from, the newest one unless it is named.
    """
    bundled = named_bundle(bundle, signed_by, arm)
    own = bundled.session.task if bundled else loaded(task)
    pick = Pick(bundled.arm.name) if bundled else Pick(arm) if arm else usual_arm(own)
    chosen = bundled.arm if bundled else parse_arm(pick.arm, own)
    require_answers(chosen, own)
    with opened(own, [chosen], listeners=listeners, allow=allow, scores=False) as opening:
        for line in bundled.notes if bundled else ():
            opening.note(line)
        saved = bundled.saved if bundled else require_weights(find_saved(own, chosen, run or pick.study), chosen, own)
        session = bundled.session if bundled else _session(own, chosen, saved)
        if chosen.retrieves:
            opening.progress(arm=chosen.name).emit("index")
        with open_online(session, chosen, saved, sample=False) as answering:
            if opening.display:
                opening.display.close()  # the terminal is the conversation's now
            yield Conversation(own, chosen, answering)


class Conversation:
    """Questions to one arm, each with those before it and their answers; `forget` begins anew."""

    def __init__(self, task: Task, arm: Arm, answering: OnlineArm) -> None:
        self.task, self.arm = task, arm
        self._answering = answering
        self.turns: list[Message] = []

    def forget(self) -> None:
        """Leave out what was said so far."""
        self.turns.clear()

    def ask(self, question: str, on_piece: Callable[[str], object] = lambda _: None) -> AskResult:
        """The answer to a question; `on_piece` is told its text as it comes. Raises InputError for one that cannot be asked.

        A question that is not answered to its end, by a signal for one, leaves the conversation as it was.
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
        held = (sentence_for(hit.passage.text, reply.text) for hit in reply.hits if hit.rank in reply.cited)
        return AskResult(
            answer=reply.text,
            arm=self.arm.name,
            seconds=time.perf_counter() - began,
            hits=reply.hits,
            cited=reply.cited,
            sentence=next(held, None),
            found=None if silent else bool(reply.cited),
        )

    def _reply(self, on_piece: Callable[[str], object]) -> OnlineReply:
        while True:
            for event in self._answering.step():
                if isinstance(event, FailedQuestion):
                    raise event.error
                if isinstance(event, OnlineReply):
                    return event
                on_piece(event.text)


def require_question(question: str) -> None:
    """Raise InputError for what is no question."""
    if not question.strip():
        raise InputError("the question is empty", "write it in quotes after ask")
    if has_lone_surrogate(question):  # how Python hands on what a shell gives in another encoding
        raise InputError("the question is not UTF-8 text", "write it in UTF-8")


def _session(task: Task, arm: Arm, saved: SavedArm | None) -> Session:
    workspace = open_to_answer(on_its_rows(task, saved), rows=_needs_rows(task, arm))
    return Session(workspace, measured_precision(saved, task))


def _needs_rows(task: Task, arm: Arm) -> bool:
    """Whether the labelled rows are needed to answer: as shots, for the labels, for the length of answers."""
    labels = task.task.kind == "classify" and not task.task.labels
    return bool(task.data.examples) and (shots_of(arm) is not None or labels or task.task.output_tokens is None)
