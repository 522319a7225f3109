"""The engine room: the one thread that owns the models of its arms; questions wait before it, and can be taken back there at any time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from trimtab.arms.online import AnswerPiece, FailedQuestion, OnlineArm, OnlineEvent, OnlineQuestion

THREAD_NAME = "engine room"  # what its thread is called
CLOSE_SECONDS = 5.0  # that a pass which is under way gets once the room is to close
MAX_ADMITTED = 8  # questions that are let in between two passes, so that answers under way do not stall

OnEvent = Callable[[OnlineEvent], None]
OnRelease = Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Submission:
    arm: str
    question: OnlineQuestion
    on_event: OnEvent
    on_release: OnRelease


class ModelWorker:
    """Lets arms answer in a thread of its own; `ask`, `cancel` and `close` may be called from any thread, `on_event` is called from its own.

    A question that is taken back while it waits is never prepared; one that the thread has is dropped before the next is prepared.
    `before_admission` is called before questions are let in: what keeps the arms up to date. `threads`: among how many its products are
    shared; as torch has it where none is given. `is_remote`: another machine does the work, so that a question counts as let go
    as soon as it is taken back.
    """

    def __init__(
        self,
        arms: Mapping[str, OnlineArm],
        before_admission: Callable[[], None] = lambda: None,
        *,
        threads: int | None = None,
        is_remote: bool = False,
    ) -> None:
        self._arms, self._before_admission, self._threads, self._is_remote = arms, before_admission, threads, is_remote
        self._condition = threading.Condition()  # guards the next four
        self._queued: dict[str, _Submission] = {}  # in order of arrival
        self._active: dict[str, _Submission] = {}  # those that the thread has
        self._cancelled: list[str] = []  # of these, taken back since the last pass
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
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

    def ask(self, arm: str, question: OnlineQuestion, on_event: OnEvent, on_release: OnRelease = lambda: None) -> None:
        """Have a question answered: `on_event` gets its pieces, then the Reply or why there is none.

        `on_release` is called, from any thread and perhaps twice, when nothing is done for the question any more.
        """
        with self._condition:
            self._queued[question.id] = _Submission(arm, question, on_event, on_release)
            self._condition.notify()

    def cancel(self, question_id: str) -> None:
        """Take a question back, whether it is known or not: nothing more is told of it once the thread has seen that."""
        with self._condition:
            queued, active = self._queued.pop(question_id, None), self._active.get(question_id)
            if active:
                self._cancelled.append(question_id)
                self._condition.notify()
        if queued:
            queued.on_release()
        elif active and self._is_remote:
            active.on_release()

    def close(self) -> None:
        """End the thread; what is not answered by then never is. One that an endpoint holds is left behind."""
        with self._condition:
            self._is_closing = True
            self._condition.notify()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            if self._threads:
                torch.set_num_threads(self._threads)
            while self._admit():
                for online_arm in self._arms.values():
                    if online_arm.waiting:
                        for event in online_arm.step():
                            self._deliver(event)
        except BaseException as error:
            with self._condition:
                self._active |= self._queued
                self._queued.clear()
            for question_id in list(self._active):
                self._deliver(FailedQuestion(id=question_id, error=RuntimeError(f"the engine room fell: {error}")))
            raise

    def _admit(self) -> bool:
        """Drop what was taken back, then let in what waits, waiting for that while nothing is under way; False when it is to close."""
        for _ in range(MAX_ADMITTED):
            with self._condition:
                self._condition.wait_for(lambda: self._queued or self._cancelled or self._active or self._is_closing)
                if self._is_closing:
                    return False
                cancelled, self._cancelled = self._cancelled, []
                submission = next(iter(self._queued.values()), None)
                if submission is not None:
                    self._active[submission.question.id] = self._queued.pop(submission.question.id)
            for question_id in cancelled:
                self._cancel(question_id)
            if submission is None:
                break
            self._start(submission)
        return True

    def _start(self, submission: _Submission) -> None:
        try:
            self._before_admission()
            self._arms[submission.arm].ask(submission.question)
        except Exception as error:  # noqa: BLE001  (one question, whatever is wrong with it, must not end all others)
            self._deliver(FailedQuestion(id=submission.question.id, error=error))

    def _cancel(self, question_id: str) -> None:
        submission = self._pop_active(question_id)
        if submission is not None:
            self._arms[submission.arm].cancel(question_id)
            submission.on_release()

    def _deliver(self, event: OnlineEvent) -> None:
        submission = self._active[event.id]
        if isinstance(event, AnswerPiece):
            submission.on_event(event)
            return
        self._pop_active(event.id)
        submission.on_release()  # before whoever waits goes on: its place is free by then
        submission.on_event(event)

    def _pop_active(self, question_id: str) -> _Submission | None:
        with self._condition:
            return self._active.pop(question_id, None)
