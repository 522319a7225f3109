"""The worker thread that owns the models: questions queue for it, and can be cancelled at any time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from trimtab.arms.online import AnswerPiece, FailedQuestion, OnlineArm, OnlineEvent, OnlineQuestion

THREAD_NAME = "model worker"
CLOSE_SECONDS = 5.0  # for a running step when the worker is to close
MAX_ADMITTED = 8  # questions admitted between two steps, so that running answers do not stall

OnEvent = Callable[[OnlineEvent], None]
OnRelease = Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Submission:
    arm: str
    question: OnlineQuestion
    on_event: OnEvent
    on_release: OnRelease


class ModelWorker:
    """Runs `arms` in a thread of its own. `ask`, `cancel` and `close` may be called from any thread; callbacks come
    from its own.

    A question that is cancelled while it waits is never prepared. `before_admission` is called before questions are
    admitted, and keeps the arms up to date. `threads`: number of threads for matrix products, torch's default if None.
    `is_remote`: another machine does the work, so a question counts as released as soon as it is cancelled.
    """

    def __init__(
        self,
        arms: Mapping[str, OnlineArm],
        before_admission: Callable[[], None] = lambda: None,
        *,
        threads: int | None = None,
        is_remote: bool = False,
    ) -> None:
        self.arms, self._before_admission, self._threads, self._is_remote = arms, before_admission, threads, is_remote
        self._condition = threading.Condition()  # guards the next four attributes
        self._queued: dict[str, _Submission] = {}  # in order of arrival
        self._active: dict[str, _Submission] = {}  # admitted by the thread
        self._cancelled: list[str] = []  # of these, cancelled since the last step
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """True while the thread runs; once it has ended it never runs again."""
        return self._thread.is_alive()

    def ask(self, arm: str, question: OnlineQuestion, on_event: OnEvent, on_release: OnRelease = lambda: None) -> None:
        """Queue a question: `on_event` gets its pieces, then the reply or the failure.

        `on_release` is called, from any thread and perhaps twice, once no work is done for the question any more.
        """
        with self._condition:
            self._queued[question.id] = _Submission(arm, question, on_event, on_release)
            self._condition.notify()

    def cancel(self, question_id: str) -> None:
        """Cancel a question, known or not; its events stop once the thread has seen that."""
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
        """End the thread; unanswered questions are never answered. A thread that an endpoint blocks is abandoned."""
        with self._condition:
            self._is_closing = True
            self._condition.notify()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            if self._threads:
                torch.set_num_threads(self._threads)
            while self._admit():
                for online_arm in self.arms.values():
                    if online_arm.pending_count:
                        for event in online_arm.step():
                            self._deliver(event)
        except BaseException as error:
            with self._condition:
                self._active |= self._queued
                self._queued.clear()
            for question_id in list(self._active):
                self._deliver(
                    FailedQuestion(id=question_id, error=RuntimeError(f"the model thread has crashed: {error}"))
                )
            raise

    def _admit(self) -> bool:
        """Drop cancelled questions, then admit queued ones, waiting for them while idle; return False when the worker
        is to close."""
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
            self.arms[submission.arm].ask(submission.question)
        except Exception as error:  # noqa: BLE001  (an error in one question must not end the others)
            self._deliver(FailedQuestion(id=submission.question.id, error=error))

    def _cancel(self, question_id: str) -> None:
        submission = self._pop_active(question_id)
        if submission is not None:
            self.arms[submission.arm].cancel(question_id)
            submission.on_release()

    def _deliver(self, event: OnlineEvent) -> None:
        submission = self._active[event.id]
        if isinstance(event, AnswerPiece):
            submission.on_event(event)
            return
        self._pop_active(event.id)
        submission.on_release()  # before the event, so that the slot is free when the client goes on
        submission.on_event(event)

    def _pop_active(self, question_id: str) -> _Submission | None:
        with self._condition:
            return self._active.pop(question_id, None)
