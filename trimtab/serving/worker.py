"""The engine room: the one thread that owns the models of its arms; questions wait before it, and can be taken back there at any time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from trimtab.arms.online import AnswerPiece, FailedQuestion, OnlineArm, OnlineEvent, OnlineQuestion

ROOM = "engine room"  # what its thread is called
CLOSE_SECONDS = 5.0  # that a pass which is under way gets once the room is to close
AT_ONCE = 8  # questions that are let in between two passes, so that answers under way do not stall

Tell = Callable[[OnlineEvent], None]
LetGo = Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Asked:
    arm: str
    question: OnlineQuestion
    tell: Tell
    let_go: LetGo


class Room:
    """Lets arms answer in a thread of its own; `ask`, `cancel` and `close` may be called from any thread, `tell` is called from its own.

    A question that is taken back while it waits is never prepared; one that the thread has is dropped before the next is prepared.
    `between` is called before questions are let in: what keeps the arms up to date. `threads`: among how many its products are
    shared; as torch has it where none is given. `is_remote`: another machine does the work, so that a question counts as let go
    as soon as it is taken back.
    """

    def __init__(
        self,
        arms: Mapping[str, OnlineArm],
        between: Callable[[], None] = lambda: None,
        *,
        threads: int | None = None,
        is_remote: bool = False,
    ) -> None:
        self._arms, self._between, self._threads, self._is_remote = arms, between, threads, is_remote
        self._door = threading.Condition()  # guards the next four
        self._waiting: dict[str, _Asked] = {}  # in order of arrival
        self._tells: dict[str, _Asked] = {}  # those that the thread has
        self._left: list[str] = []  # of these, taken back since the last pass
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name=ROOM, daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it works; once it does not, it never will again."""
        return self._thread.is_alive()

    def is_prepared(self, arm: str, question: OnlineQuestion) -> bool:
        """Whether a question can be asked without `prepare`."""
        return self._arms[arm].is_prepared(question)

    def prepare(self, arm: str, question: OnlineQuestion) -> None:
        """What takes long before a question can be asked, in the thread of whoever calls; raises InputError as `Live.prepare`."""
        self._arms[arm].prepare(question)

    def ask(self, arm: str, question: OnlineQuestion, tell: Tell, let_go: LetGo = lambda: None) -> None:
        """Have a question answered: `tell` gets its pieces, then the Reply or why there is none.

        `let_go` is called, from any thread and perhaps twice, when nothing is done for the question any more.
        """
        with self._door:
            self._waiting[question.id] = _Asked(arm, question, tell, let_go)
            self._door.notify()

    def cancel(self, question_id: str) -> None:
        """Take a question back, whether it is known or not: nothing more is told of it once the thread has seen that."""
        with self._door:
            waiting, begun = self._waiting.pop(question_id, None), self._tells.get(question_id)
            if begun:
                self._left.append(question_id)
                self._door.notify()
        if waiting:
            waiting.let_go()
        elif begun and self._is_remote:
            begun.let_go()

    def close(self) -> None:
        """End the thread; what is not answered by then never is. One that an endpoint holds is left behind."""
        with self._door:
            self._is_closing = True
            self._door.notify()
        self._thread.join(CLOSE_SECONDS)

    def _work(self) -> None:
        try:
            if self._threads:
                torch.set_num_threads(self._threads)
            while self._let_in():
                for live in self._arms.values():
                    if live.pending_count:
                        for event in live.step():
                            self._tell(event)
        except BaseException as error:
            with self._door:
                self._tells |= self._waiting
                self._waiting.clear()
            for question_id in list(self._tells):
                self._tell(FailedQuestion(id=question_id, error=RuntimeError(f"the engine room fell: {error}")))
            raise

    def _let_in(self) -> bool:
        """Drop what was taken back, then let in what waits, waiting for that while nothing is under way; False when it is to close."""
        for _ in range(AT_ONCE):
            with self._door:
                self._door.wait_for(lambda: self._waiting or self._left or self._tells or self._is_closing)
                if self._is_closing:
                    return False
                left, self._left = self._left, []
                asked = next(iter(self._waiting.values()), None)
                if asked is not None:
                    self._tells[asked.question.id] = self._waiting.pop(asked.question.id)
            for question_id in left:
                self._take_back(question_id)
            if asked is None:
                break
            self._let(asked)
        return True

    def _let(self, asked: _Asked) -> None:
        try:
            self._between()
            self._arms[asked.arm].ask(asked.question)
        except Exception as error:  # noqa: BLE001  (one question, whatever is wrong with it, must not end all others)
            self._tell(FailedQuestion(id=asked.question.id, error=error))

    def _take_back(self, question_id: str) -> None:
        asked = self._released(question_id)
        if asked is not None:
            self._arms[asked.arm].cancel(question_id)
            asked.let_go()

    def _tell(self, event: OnlineEvent) -> None:
        asked = self._tells[event.id]
        if isinstance(event, AnswerPiece):
            asked.tell(event)
            return
        self._released(event.id)
        asked.let_go()  # before whoever waits goes on: its place is free by then
        asked.tell(event)

    def _released(self, question_id: str) -> _Asked | None:
        with self._door:
            return self._tells.pop(question_id, None)
