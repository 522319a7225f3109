"""The `extract` arm in a session: its answers, and the threshold below which it says that the documents hold none."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.plan import ArmPlan
from trimtab.arms.session import Session
from trimtab.base.records import Arm, Example, Generation, Prompt
from trimtab.base.results import ArmEffort, Trial
from trimtab.measurement.evaluate import Scorer, evaluate
from trimtab.measurement.latency import MIN_LATENCIES
from trimtab.measurement.metrics import aggregate

THRESHOLDS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
LEAST_ROWS, MOST_ROWS = 20, 300  # labelled questions that the threshold is chosen on, of train and dev together
SCORING_SECONDS = 0.01  # of the sentences of a question, beside embedding it


def extracting(session: Session, context: Context) -> Callable[[Sequence[Prompt]], list[Generation]]:
    """Answers with the first sentence of a prompt where its chance is at least the context's threshold, else abstains."""
    unknown, least = session.task.task.unknown, context.threshold or 0.0

    def answer(prompts: Sequence[Prompt]) -> list[Generation]:
        return [
            Generation(
                id=prompt.id,
                text=prompt.hits[0].passage.text if prompt.hits and prompt.hits[0].score >= least else unknown,
            )
            for prompt in prompts
        ]

    return answer


def choose_threshold(session: Session, context: Context, scorer: Scorer | None) -> tuple[Context, ArmEffort | None]:
    """The threshold under which labelled questions of train and dev score best, the one nearest the usual of equals; and what was tried.

    Nothing is fitted to the training rows, so they say as much as dev does. Too few rows change nothing.
    """
    rows = (*session.part("dev", MOST_ROWS), *session.part("train", MOST_ROWS))[:MOST_ROWS]
    if len(rows) < LEAST_ROWS:
        return context, None
    began = time.perf_counter()
    prompts = PromptBuilder(session, context).prompts(rows)
    tried = {least: _score(session, rows, prompts, replace(context, threshold=least), scorer) for least in THRESHOLDS}
    best = max(tried, key=lambda least: (tried[least], -abs(least - (context.threshold or 0.0))))
    seconds = time.perf_counter() - began
    trials = tuple(
        Trial(
            what={"threshold": least},
            rows=len(rows),
            seconds=seconds / len(tried),
            dev_loss=None,
            dev_metric=score,
            kept=least == best,
        )
        for least, score in tried.items()
    )
    return replace(context, threshold=best), ArmEffort(seconds=seconds, trials=trials, stopped="no trial was better")


def _score(
    session: Session, rows: Sequence[Example], prompts: Sequence[Prompt], context: Context, scorer: Scorer | None
) -> float:
    answers = evaluate(rows, prompts, extracting(session, context), session.task, split="dev", seed=0, scorer=scorer)
    said, right = [one.answer for one in answers], [one.reference for one in answers]
    return aggregate(session.task.metric, said, right, [one.score for one in answers])


def planned_extract(session: Session, arm: Arm, each: float, setup: float) -> ArmPlan:
    """What the arm takes, where embedding a question takes `each` seconds and indexing the sentences `setup`: a budget cuts nothing of it."""
    labelled = sum(len(session.workspace.splits[name]) for name in ("train", "dev"))
    tests = len(session.workspace.splits["test"])
    asked = tests + min(tests, MIN_LATENCIES) + 2 + min(labelled, MOST_ROWS)
    return ArmPlan(arm=arm.name, answer_seconds=setup + (each + SCORING_SECONDS) * asked)
