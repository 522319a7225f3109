"""Which passages an arm that is trained is shown: the fewest that hold the answer nearly as often as any number does.

Weights that are trained read what they are shown otherwise than the base does, so the base is not asked; nothing is answered at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trimtab.arms.contexts import Context, PromptBuilder, context_for, is_unknown
from trimtab.arms.search.context_search import (
    FIRST_ROWS,
    SEARCH_SPACES,
    WORDS,
    ContextScores,
    ContextTrials,
    Options,
    TrialPlan,
    number_options,
    retrieval_variants,
)
from trimtab.arms.session import Session
from trimtab.base.config import Effort
from trimtab.base.grammar import PARTS
from trimtab.base.records import Arm, Example
from trimtab.base.results import ArmEffort

LOOKUPS = "lookups.jsonl"
TRAINING_ROWS = 4  # for each dev question that an effort may ask
SECONDS = 0.02  # of looking one question up; with a model that re-ranks about as long as answering takes


def plan_passage_search(session: Session, arm: Arm, effort: Effort, each: float) -> tuple[TrialPlan, ...]:
    """What an arm may try of its passages, where asking one dev question takes `each` seconds."""
    rows, context = len(_rows(session, effort)), context_for(arm)
    one = each if session.task.base.reranker else SECONDS
    tried = [options(context) for options in _rounds(session, arm, context)] if rows else []
    return tuple(
        TrialPlan(what=WORDS[what], count=len(contexts), seconds=one * rows * len(contexts)) for what, contexts in tried
    )


def gold_retrieved(session: Session, context: Context, rows: Sequence[Example]) -> tuple[Mapping[str, float], float]:
    """For each question 1 where its prompt shows a right passage, else 0, and the seconds that looking up took."""
    _ = session.index_of(context.words)  # made once, whoever needs it first
    began = time.perf_counter()
    found = PromptBuilder(session, context).gold_retrieved(rows)
    return {row.id: float(right) for row, right in zip(rows, found, strict=True)}, time.perf_counter() - began


def choose_passages(
    session: Session, arm: Arm, scores: ContextScores, effort: Effort, seconds: float
) -> tuple[Context, ArmEffort | None]:
    """The passages that an arm is shown, `scores` being those of `gold_retrieved`, and what was tried for it in at most `seconds`.

    One thing after the other; a round that its time does not reach to the end changes nothing. No effort: there was nothing to try.
    """
    context, rows = context_for(arm), _rows(session, effort)
    tried = ContextTrials(scores, seconds)
    for options in _rounds(session, arm, context) if rows else ():
        if not tried.out_of_time:
            context = _fewest(tried, rows, context, options(context)[1], session.task.target.margin)
    return context, tried.effort(context, _trial)


def _rows(session: Session, effort: Effort) -> tuple[Example, ...]:
    """Training and dev rows whose answer a text may hold: it holds no label of a closed set, and nothing that is not known."""
    space = SEARCH_SPACES.get(effort)
    if space is None or session.task.task.kind == "classify":
        return ()
    rows = (*session.subset("train", TRAINING_ROWS * space.rows), *session.subset("dev", space.rows))
    return tuple(row for row in rows if not is_unknown(row, session))


def _rounds(session: Session, arm: Arm, context: Context) -> list[Callable[[Context], Options]]:
    """What is chosen one after the other: the number of passages, where the arm's settings leave it open, and how they are found."""
    shown = [PARTS[name] for name in arm.parts if PARTS[name].setting == "passages"]
    counts = [number_options(part.setting, part.tried) for part in shown if part.setting not in arm.settings]
    return [*counts, *retrieval_variants(session, context)]


def _fewest(
    tried: ContextTrials, rows: Sequence[Example], now: Context, options: Sequence[Context], margin: float
) -> Context:
    """Of what finds at most the margin less often than the best, what shows the fewest passages, and then the present one.

    Over the rows to which any of them shows a right passage; where these are few, nothing is known and the present one stays.
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
