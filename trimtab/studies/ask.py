"""`ask`: one question, answered with its sources."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.arms.answerers import ready
from trimtab.arms.contexts import context_for
from trimtab.arms.saved import find_saved, latest_winner, require_weights
from trimtab.arms.session import Session
from trimtab.arms.workspace import FOLDER, open_to_answer
from trimtab.base.errors import InputError
from trimtab.base.grammar import shots_of
from trimtab.base.progress import Listener
from trimtab.base.records import Arm, Example, Hit, Message
from trimtab.base.show import Shown
from trimtab.base.task import Task, parse_arm, require_answers
from trimtab.data.strict_json import holds_half_pair
from trimtab.measurement.contains import sentence_for
from trimtab.measurement.metrics import has_abstained
from trimtab.measurement.support import supporting
from trimtab.studies.opening import loaded, opened


@dataclass(frozen=True, kw_only=True)
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
    arm: str | None = None,
    allow: Sequence[str] = (),
    listeners: Sequence[Listener] | None = None,
) -> AskResult:
    """Answer a question with an arm: the winner of the newest study unless one is named, else `rag`, else `prompt`.

    Documents are read anew on each call, so an edited one is answered from at once. `seconds` are those of retrieval and answer,
    models already loaded. `allow` is that of `study`. `listeners` get every event; None shows progress on standard error. Raises MissingError for an arm whose
    weights were not trained.
    """
    if not question.strip():
        raise InputError("the question is empty", "write it in quotes after ask")
    if holds_half_pair(question):  # how Python hands on what a shell gives in another encoding
        raise InputError("the question is not UTF-8 text", "write it in UTF-8")
    own = loaded(task)
    chosen = parse_arm(arm or latest_winner(own) or ("rag" if own.data.documents else "prompt"), own)
    require_answers(chosen, own)
    with opened(own, [chosen], listeners=listeners, allow=allow, scores=False) as opening:
        saved = require_weights(find_saved(own, chosen), chosen, own)
        context = context_for(chosen, saved.chosen if saved else None)
        session = Session(open_to_answer(own, rows=_needs_rows(own, chosen)))
        example = Example(id="question", messages=(Message(role="user", content=question),), references=())
        with ready(session, chosen, context, saved.folder if saved else own.folder / FOLDER) as able:
            if chosen.retrieves:
                opening.progress(arm=chosen.name).emit("index")
                _ = session.index_of(context.words)
            began = time.perf_counter()
            prompt = able.builder.prompts([example])[0]
            answer = able.many([prompt])[0].text
            seconds = time.perf_counter() - began
    unknown = own.task.unknown
    cited = supporting(answer, prompt.hits, unknown, question)
    silent = not prompt.hits or not answer.strip() or has_abstained(answer, unknown)
    return AskResult(
        answer=answer,
        arm=chosen.name,
        seconds=seconds,
        hits=prompt.hits,
        cited=cited,
        sentence=next((sentence_for(hit.passage.text, answer) for hit in prompt.hits if hit.rank in cited), None),
        found=None if silent else bool(cited),
    )


def _needs_rows(task: Task, arm: Arm) -> bool:
    """Whether the labelled rows are needed to answer: as shots, for the labels, for the length of answers."""
    labels = task.task.kind == "classify" and not task.task.labels
    return bool(task.data.examples) and (shots_of(arm) is not None or labels or task.task.output_tokens is None)
