"""Changed documents of a running server: read and indexed in a thread, and swapped in between questions."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence

from trimtab.arms.session import Session
from trimtab.base.errors import TrimtabError
from trimtab.base.records import Document
from trimtab.base.sanitize import one_line
from trimtab.base.task import Task
from trimtab.data.documents import FileStamps, document_stamps, read_documents
from trimtab.model.threads import single_thread
from trimtab.retrieval.index import Index
from trimtab.serving.worker import CLOSE_SECONDS

POLL_SECONDS = 1.0  # between two checks for changed documents
RETRY_FACTOR = 20  # the next check, or retry, comes after this many times the duration of the last one
LONGEST_LINE = 400  # characters of a message about unreadable documents


class DocumentRefresher:
    """Keeps sessions up to date with their documents: a thread reads and indexes changes, `apply` swaps them in between
    questions.

    Unreadable documents, such as half-written ones, change nothing until they can be read. `stamps`: of the documents
    as they were read.
    """

    def __init__(self, task: Task, sessions: Sequence[Session], stamps: FileStamps) -> None:
        self._task, self._sessions, self._stamps = task, sessions, stamps
        self._prepared: dict[Session, tuple[tuple[Document, ...], Mapping[int, Index]]] = {}
        self._failed_stamps: FileStamps | None = None  # of documents that could not be read or indexed
        self._retry_at, self._last_line = 0.0, ""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="documents", daemon=True)
        if task.data.documents:
            self._thread.start()

    def apply(self, session: Session) -> None:
        """Swap in the documents that are ready for a session; call it in the session's thread."""
        if session in self._prepared:
            session.set_documents(*self._prepared.pop(session))

    def close(self) -> None:
        """End the thread; if it is reading, it ends with the process."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS)

    def _poll(self) -> None:
        pause = POLL_SECONDS
        while not self._closing.wait(pause):
            began = time.monotonic()
            try:
                stamps = document_stamps(self._task)
                pause = max(POLL_SECONDS, RETRY_FACTOR * (time.monotonic() - began))
                if stamps != self._stamps and (stamps != self._failed_stamps or time.monotonic() >= self._retry_at):
                    self._failed_stamps = stamps
                    self._prepare()
                    self._stamps, self._failed_stamps, self._last_line = stamps, None, ""
            except (TrimtabError, OSError, RuntimeError, ValueError, MemoryError) as error:
                self._retry_at = time.monotonic() + RETRY_FACTOR * (time.monotonic() - began)
                self._report(f"trimtab: documents as they were: {one_line(error, LONGEST_LINE)}\n")

    def _prepare(self) -> None:
        documents = read_documents(self._task)
        with single_thread():
            for session in self._sessions:
                self._prepared[session] = documents, session.retriever.build_indexes(documents)

    def _report(self, line: str) -> None:
        """Write a line to standard error, once as long as it stays the same."""
        if line != self._last_line:
            self._last_line = line
            sys.stderr.write(line)
