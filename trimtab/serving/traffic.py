"""Records a sample of the served answers: from a bounded queue, in a thread of its own, so that no answer waits for
it."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starlette.requests import Request

from trimtab.arms.online import OnlineQuestion, OnlineReply
from trimtab.base.errors import TrimtabError
from trimtab.base.files import sha256_text
from trimtab.base.sanitize import one_line
from trimtab.data.privacy import mask_private
from trimtab.serving.config import TrafficTable
from trimtab.serving.metrics import Metrics
from trimtab.serving.traffic_store import KEY_VOTER, ServedAnswer, TrafficStore, user_key

if TYPE_CHECKING:
    from trimtab.serving.served_model import ServedModel

MOST_WAITING = 1_000  # answers that wait to be written; more are dropped
BATCH = 100  # answers written at once
SECONDS_PER_DAY = 86_400.0  # between two deletions of expired answers
CLOSE_SECONDS = 5.0  # for writing queued answers at the end
LONGEST_LINE = 400  # characters of an error message
LONGEST_TEXT = 200_000  # characters of a conversation with its answer; longer ones are dropped


def is_sampled(request_id: str, share: float) -> bool:
    """True for a share `share` of request ids, by their hash: the same ids always give the same sample."""
    return int(sha256_text("traffic", request_id)[:13], 16) < share * 16**13


class Recorder:
    """Writes a sample of answers to a store; dropped answers are counted by reason. Thread-safe."""

    def __init__(self, store: TrafficStore, settings: TrafficTable, metrics: Metrics) -> None:
        self._store, self._settings = store, settings
        self._written, self._dropped = metrics.traffic_written, metrics.traffic_dropped
        self._queue: queue.Queue[ServedAnswer | None] = queue.Queue(MOST_WAITING)
        self._last_error = ""
        self._expire()
        self._thread = threading.Thread(target=self._write, name="traffic", daemon=True)
        self._thread.start()

    async def answered(
        self, served: ServedModel, question: OnlineQuestion, reply: OnlineReply, request: Request, milliseconds: float
    ) -> None:
        """Queue a complete answer if its request is in the sample. Raw prompts are left out, as the arm was not
        measured that way."""
        if question.raw is not None or not is_sampled(request.scope["trimtab.id"], self._settings.share):
            return
        user = (await request.json()).get("user")  # the body was parsed before
        answer = ServedAnswer(
            id=question.id,
            when=datetime.now(UTC),
            arm=served.arm,
            version=served.recorded_version,
            messages=question.asked,
            passages=tuple(hit.passage.id for hit in reply.hits),
            answer=reply.text,
            abstained=reply.abstained,
            probability=reply.generation.probability,
            milliseconds=round(milliseconds, 1),
            user=user_of(request, user),
            voter=voter_of(request, user),
            share=self._settings.share,
            masked=self._settings.mask,
            similarity=max((hit.similarity for hit in reply.hits if hit.similarity is not None), default=None),
            supported=bool(reply.cited) if reply.hits else None,
        )
        if len(reply.text) + sum(len(turn.content) for turn in question.asked) > LONGEST_TEXT:
            self._dropped.labels("long").inc()
            return
        try:
            self._queue.put_nowait(answer)
        except queue.Full:
            self._dropped.labels("queue").inc()

    def close(self) -> None:
        """Write the queued answers, for CLOSE_SECONDS at most."""
        deadline = time.monotonic() + CLOSE_SECONDS
        try:
            self._queue.put(None, timeout=CLOSE_SECONDS)
        except queue.Full:
            return
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _write(self) -> None:
        expires, is_open = time.monotonic() + SECONDS_PER_DAY, True
        while is_open:
            batch: list[ServedAnswer] = []
            try:
                first = self._queue.get(timeout=max(0.0, expires - time.monotonic()))
                is_open = first is not None
                batch += [first] if first else []
                while is_open and len(batch) < BATCH:
                    more = self._queue.get_nowait()
                    is_open = more is not None
                    batch += [more] if more else []
            except queue.Empty:
                pass
            if batch:
                answers = [_masked(one) if one.masked else one for one in batch]
                is_done = self._report_failure(lambda: self._store.add(answers))  # noqa: B023  (called at once)
                (self._written if is_done else self._dropped.labels("store")).inc(len(batch))
            if time.monotonic() >= expires:
                self._report_failure(self._expire)
                expires = time.monotonic() + SECONDS_PER_DAY

    def _expire(self) -> None:
        self._store.expire(self._settings.keep_days)

    def _report_failure(self, action: Callable[[], object]) -> bool:
        """Run an action on the store; return False and report the error, once as long as it stays the same."""
        try:
            action()
        except (TrimtabError, OSError, ValueError) as error:
            line = f"trimtab: traffic is not kept: {one_line(error, LONGEST_LINE)}\n"
            if line != self._last_error:
                self._last_error = line
                sys.stderr.write(line)
            return False
        self._last_error = ""
        return True


def _masked(answer: ServedAnswer) -> ServedAnswer:
    turns = tuple(replace(turn, content=mask_private(turn.content)) for turn in answer.messages)
    return replace(answer, messages=turns, answer=mask_private(answer.answer))


def voter_of(request: Request, user_field: object) -> str | None:
    """Return who a canary counts: the user as `user_of`, but one for all users of a key that is not marked as naming
    them."""
    key = request.scope.get("trimtab.key")
    return f"{KEY_VOTER}{key.sha256}" if key and not key.names_users else user_of(request, user_field)


def user_of(request: Request, user_field: object) -> str | None:
    """Return the hash of the user that a request names, else of the owner of its key; None if unknown."""
    if isinstance(user_field, str) and user_field:
        return user_key(user_field)
    key = request.scope.get("trimtab.key")
    return key.sha256 if key else None
