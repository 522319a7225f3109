"""Whether what is served is what was measured: stored test questions asked again through the server's own way, before anybody else asks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from trimtab.arms.online import OnlineQuestion
from trimtab.arms.store import ANSWERS, StoredQuestion
from trimtab.arms.workspace import Workspace
from trimtab.measurement.evaluate import load_answers
from trimtab.serving.dispatcher import Dispatcher, ServedModel, new_id

QUESTIONS_PER_ARM = 20  # stored questions of each arm


def stored_answers(workspace: Workspace, folder: Path | None) -> tuple[StoredQuestion, ...]:
    """The first answers that `folder` keeps to test questions that are still there; none of an arm that was not measured."""
    file = folder / ANSWERS if folder else None
    if file is None or not file.is_file():
        return ()
    rows = {row.id: row for row in workspace.splits["test"]}
    answers = (one for one in load_answers(file) if one.split == "test" and one.seed == 0 and one.item_id in rows)
    found = [StoredQuestion(messages=rows[one.item_id].messages, answer=one.answer) for one in answers]
    return tuple(found[:QUESTIONS_PER_ARM])


async def equal_share(dispatcher: Dispatcher, served: ServedModel, stored: Sequence[StoredQuestion]) -> float | None:
    """The share of stored answers that come out the same, all asked at once; None where there are none.

    Raises Refused where a question gets no answer, of an endpoint that is down for one.
    """
    if not stored:
        return None
    pending = [dispatcher.answer(served, OnlineQuestion(id=new_id("self"), messages=one.messages)) for one in stored]
    answers = await asyncio.gather(*pending, return_exceptions=True)  # none is left under way when one fails
    equal = 0
    for now, then in zip(answers, stored, strict=True):
        if isinstance(now, BaseException):
            raise now
        equal += now.reply.text == then.answer
    return equal / len(stored)
