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
from trimtab.base.task import Task, parse_arm
from trimtab.data.strict_json import holds_half_pair
from trimtab.measurement.contains import facts_stand_in, sentence_for, sentences, sentences_for, stands_in
from trimtab.measurement.metrics import has_abstained, squad_normalised
from trimtab.studies.opening import loaded, opened

SUPPORT = 0.5  # least share of an answer's content words that a passage must hold to be cited for it
FUNCTION_WORD = 3  # letters up to which a word is taken for a function word: is, the, on, von, les


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


def supporting(answer: str, hits: Sequence[Hit], unknown: str, question: str = "") -> tuple[int, ...]:
    """Ranks of the passages with a sentence that holds the answer, else of the one with most of its content words.

    In either case all its numbers, dates and names stand there, but for those of the question, and the words are looked for in
    the sentences that hold one of them: a number that stands there for something else supports nothing. None for an
    abstention or the question said over again, and none where no passage holds at least half of those words.
    """
    if not answer.strip() or has_abstained(answer, unknown) or squad_normalised(answer) == squad_normalised(question):
        return ()
    texts = {hit.rank: hit.passage.text for hit in hits}
    whole = tuple(rank for rank, text in texts.items() if any(stands_in(one, answer) for one in sentences(text)))
    words = _content(answer)
    if whole or not words:
        return whole
    holding = [rank for rank, text in texts.items() if facts_stand_in(text, answer, question)]
    shares = {
        rank: len(words & _content(" ".join(sentences_for(texts[rank], answer)))) / len(words) for rank in holding
    }
    best = max(shares, key=lambda rank: shares[rank], default=None)
    return (best,) if best is not None and shares[best] >= SUPPORT else ()


def _content(text: str) -> set[str]:
    """The words of a text that are no function words, and its numbers."""
    return {word for word in squad_normalised(text).split() if len(word) > FUNCTION_WORD or not word.isalpha()}


def _needs_rows(task: Task, arm: Arm) -> bool:
    """Whether the labelled rows are needed to answer: as shots, for the labels, for the length of answers."""
    labels = task.task.kind == "classify" and not task.task.labels
    return bool(task.data.examples) and (shots_of(arm) is not None or labels or task.task.output_tokens is None)
