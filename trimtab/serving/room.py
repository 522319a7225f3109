"""The engine room: the one thread that owns the models of its arms, with a door for questions and one for what becomes of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import torch

from trimtab.arms.live import Event, Failed, Live, Piece, Question

ROOM = "engine room"  # what its thread is called
CLOSE_SECONDS = 5.0  # that a pass which is under way gets once the room is to close
AT_ONCE = 8  # questions that are let in between two passes, so that answers under way do not stall

Tell = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class _Asked:
    arm: str
    question: Question
    tell: Tell


@dataclass(frozen=True, slots=True)
class _TakenBack:
    question_id: str


class Room:
    """Lets arms answer in a thread of its own; `ask`, `cancel` and `close` may be called from any thread, `tell` is called from its own.

    `between` is called before questions are let in: what keeps the arms up to date. `threads`: among how many its products are
    shared; as torch has it where none is given.
    """

    def __init__(
        self, arms: Mapping[str, Live], between: Callable[[], None] = lambda: None, *, threads: int | None = None
    ) -> None:
        self._arms, self._between, self._threads = arms, between, threads
        self._door: SimpleQueue[_Asked | _TakenBack | None] = SimpleQueue()
        self._tells: dict[str, tuple[Live, Tell]] = {}
        self._thread = threading.Thread(target=self._work, name=ROOM, daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it works; once it does not, it never will again."""
        return self._thread.is_alive()

    def is_prepared(self, arm: str, question: Question) -> bool:
        """Whether a question can be asked without `prepare`."""
        return self._arms[arm].is_prepared(question)

    def prepare(self, arm: str, question: Question) -> None:
        """What takes long before a question can be asked, in the thread of whoever calls; raises InputError as `Live.prepare`."""
        self._arms[arm].prepare(question)

    def ask(self, arm: str, question: Question, tell: Tell) -> None:
        """Have a question answered: `tell` gets its pieces, then the Reply or why there is none."""
        self._door.put(_Asked(arm, question, tell))

    def cancel(self, question_id: str) -> None:
        """Take a question back: nothing more is told of it once this has arrived."""
        self._door.put(_TakenBack(question_id))

    def close(self) -> None:
        """End the thread; what is not answered by then never is. One that an endpoint holds is left behind."""
        self._door.put(None)
        self._thread.join(CLOSE_SECONDS)

    def _work(self) -> None:
        try:
            if self._threads:
                torch.set_num_threads(self._threads)
            while self._let_in():
                for live in self._arms.values():
                    if live.waiting:
                        for event in live.step():
                            self._tell(event)
        except BaseException as error:
            for question_id in list(self._tells):
                self._tell(Failed(id=question_id, error=RuntimeError(f"the engine room fell: {error}")))
            raise

    def _let_in(self) -> bool:
        """Take in what stands at the door, waiting there while nothing is under way; False when it is to close."""
        for _ in range(AT_ONCE):
            try:
                entry = self._door.get(block=not self._tells)
            except Empty:
                return True
            if entry is None:
                return False
            if isinstance(entry, _TakenBack):
                self._take_back(entry.question_id)
            else:
                self._let(entry)
        return True

    def _let(self, asked: _Asked) -> None:
        live, question = self._arms[asked.arm], asked.question
        self._tells[question.id] = live, asked.tell
        try:
            self._between()
            live.ask(question)
        except Exception as error:  # noqa: BLE001  (one question, whatever is wrong with it, must not end all others)
            self._tell(Failed(id=question.id, error=error))

    def _take_back(self, question_id: str) -> None:
        if question_id in self._tells:
            live, _ = self._tells.pop(question_id)
            live.cancel(question_id)

    def _tell(self, event: Event) -> None:
        _, tell = self._tells[event.id]
        if not isinstance(event, Piece):
            del self._tells[event.id]
        tell(event)
