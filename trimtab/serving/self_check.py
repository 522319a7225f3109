"""The self-check at the start: stored test questions are asked again through the server, and the answers compared."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from trimtab.arms.online import OnlineQuestion
from trimtab.arms.store import ANSWERS, StoredQuestion
from trimtab.arms.workspace import Workspace
from trimtab.measurement.evaluate import load_answers
from trimtab.serving.dispatcher import Dispatcher, ServedModel, new_id

QUESTIONS_PER_ARM = 20


def stored_answers(workspace: Workspace, folder: Path | None) -> tuple[StoredQuestion, ...]:
    """Return the first stored answers to test questions that still exist; none if the arm was not measured."""
    file = folder / ANSWERS if folder else None
    if file is None or not file.is_file():
        return ()
    rows = {row.id: row for row in workspace.splits["test"]}
    answers = (one for one in load_answers(file) if one.split == "test" and one.seed == 0 and one.item_id in rows)
    found = [StoredQuestion(messages=rows[one.item_id].messages, answer=one.answer) for one in answers]
    return tuple(found[:QUESTIONS_PER_ARM])


async def equal_share(dispatcher: Dispatcher, served: ServedModel, stored: Sequence[StoredQuestion]) -> float | None:
    """Return the share of stored answers that the arm reproduces; None without stored answers.

    Raises Refused if a question gets no answer, for example from an endpoint that is down.
    """
    if not stored:
        return None
    pending = [dispatcher.answer(served, OnlineQuestion(id=new_id("self"), messages=one.messages)) for one in stored]
    answers = await asyncio.gather(*pending, return_exceptions=True)  # all have ended when one fails
    equal = 0
    for now, then in zip(answers, stored, strict=True):
        if isinstance(now, BaseException):
            raise now
        equal += now.reply.text == then.answer
    return equal / len(stored)
