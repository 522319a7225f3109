"""Search of the passages for a trained arm: the fewest passages that contain the answer nearly as often as any number.

Trained weights read passages differently from the base model, so no answers are generated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trimtab.arms.contexts import Context, PromptBuilder, context_for, is_unknown
from trimtab.arms.search.context_search import (
    SEARCH_SPACES,
    WORDS,
    Options,
    TrialPlan,
    number_options,
    retrieval_variants,
)
from trimtab.arms.search.trials import FIRST_ROWS, ContextScores, ContextTrials
from trimtab.arms.session import Session
from trimtab.base.config import Effort
from trimtab.base.grammar import PARTS
from trimtab.base.records import Arm, Example
from trimtab.base.results import ArmEffort

LOOKUPS = "lookups.jsonl"
TRAINING_ROWS = 4  # rows per dev question of the effort level
SECONDS = 0.02  # seconds of retrieval for one question; with a reranker it takes about as long as answering


def plan_passage_search(session: Session, arm: Arm, effort: Effort, each: float) -> tuple[TrialPlan, ...]:
    """Return the planned trials of an arm's passages, where one dev question takes `each` seconds."""
    rows, context = len(_rows(session, effort)), context_for(arm)
    seconds = each if session.task.base.reranker else SECONDS
    tried = [options(context) for options in _rounds(session, arm, context)] if rows else []
    return tuple(
        TrialPlan(what=WORDS[what], count=len(contexts), seconds=seconds * rows * len(contexts))
        for what, contexts in tried
    )


def gold_retrieved(session: Session, context: Context, rows: Sequence[Example]) -> tuple[Mapping[str, float], float]:
    """Return, by question, 1 if its prompt has a right passage, else 0; and the seconds of the retrieval."""
    _ = session.retriever.index_of(context.words)  # built once, by the first that needs it
    began = time.perf_counter()
    found = PromptBuilder(session, context).gold_retrieved(rows)
    return {row.id: float(right) for row, right in zip(rows, found, strict=True)}, time.perf_counter() - began


def choose_passages(
    session: Session, arm: Arm, scores: ContextScores, effort: Effort, seconds: float
) -> tuple[Context, ArmEffort | None]:
    """Return the context with the selected passages, and the effort. `scores`: those of `gold_retrieved`.

    One choice after the other; a round that runs out of time changes nothing. The effort is None if there was
    nothing to try.
    """
    context, rows = context_for(arm), _rows(session, effort)
    tried = ContextTrials(scores, seconds)
    for options in _rounds(session, arm, context) if rows else ():
        if not tried.out_of_time:
            context = _fewest(tried, rows, context, options(context)[1], session.task.target.margin)
    return context, tried.effort(context, _trial)


def _rows(session: Session, effort: Effort) -> tuple[Example, ...]:
    """Return training and dev rows whose answer a text can contain."""
    space = SEARCH_SPACES.get(effort)
    if space is None or session.task.task.kind == "classify":
        return ()
    workspace = session.workspace
    rows = (*workspace.subset("train", TRAINING_ROWS * space.rows), *workspace.subset("dev", space.rows))
    return tuple(row for row in rows if not is_unknown(row, session))


def _rounds(session: Session, arm: Arm, context: Context) -> list[Callable[[Context], Options]]:
    """Return the choices in order: the number of passages, if the arm's settings leave it open, and the retrieval."""
    shown = [PARTS[name] for name in arm.parts if PARTS[name].setting == "passages"]
    counts = [number_options(part.setting, part.tried) for part in shown if part.setting not in arm.settings]
    return [*counts, *retrieval_variants(session, context)]


def _fewest(
    tried: ContextTrials, rows: Sequence[Example], now: Context, options: Sequence[Context], margin: float
) -> Context:
    """Return, of the options within the margin of the best, the one with the fewest passages, then the present one.

    Compares rows to which any option shows a right passage; if these are few, the present option stays.
    """
    scores: dict[Context, list[float]] = {}
    for option in options:
        found = tried.try_context(option, now, rows)
        if found is None:
            return now
        scores[option] = found
    known = sum(map(max, zip(*scores.values(), strict=True)))
    if known < FIRST_ROWS:
        return now
    shares = {option: sum(found) / known for option, found in scores.items()}
    enough = [option for option in options if shares[option] >= max(shares.values()) - margin - 1e-9]
    return min(enough, key=lambda option: (option.passages, option != now, -shares[option]))


def _trial(context: Context, score: float) -> Mapping[str, Any]:
    return {"what": context.chosen(), "found": score}
