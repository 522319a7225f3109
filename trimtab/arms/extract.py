"""Arm `extract`: answers with a sentence of the documents, or abstains below a threshold that is chosen on train and
dev.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.planning.plan import ArmPlan
from trimtab.arms.session import Session
from trimtab.base.machine import MemoryPeak
from trimtab.base.records import Arm, Generation, Prompt
from trimtab.base.results import ArmEffort, Trial
from trimtab.measurement.evaluate import Scorer, evaluate_prompts

THRESHOLDS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
LEAST_ROWS, MOST_ROWS = 20, 300  # labelled questions of train and dev that the threshold is chosen on
SCORING_SECONDS = 0.01  # seconds per question for scoring its sentences


def extract_answerer(unknown: str, threshold: float) -> Callable[[Sequence[Prompt]], list[Generation]]:
    """Return an answerer that gives a prompt's first sentence if its probability is at least `threshold`."""

    def answer(prompts: Sequence[Prompt]) -> list[Generation]:
        return [
            Generation(
                id=prompt.id,
                text=prompt.hits[0].passage.text if prompt.hits and prompt.hits[0].score >= threshold else unknown,
            )
            for prompt in prompts
        ]

    return answer


def choose_threshold(session: Session, context: Context, scorer: Scorer | None) -> tuple[Context, ArmEffort | None]:
    """Choose the threshold with the best mean score on train and dev; of equals, the one nearest the context's own.

    Nothing is fitted to the training rows, so they count like dev rows. With fewer than LEAST_ROWS rows the context
    stays as it is.
    """
    rows = (*session.workspace.subset("dev", MOST_ROWS), *session.workspace.subset("train", MOST_ROWS))[:MOST_ROWS]
    if len(rows) < LEAST_ROWS:
        return context, None
    began = time.perf_counter()
    task, prompts = session.task, PromptBuilder(session, context).prompts(rows)

    def scores(threshold: float) -> list[float]:
        answerer = extract_answerer(task.task.unknown, threshold)
        return [
            one.score for one in evaluate_prompts(rows, prompts, answerer, task, split="dev", seed=0, scorer=scorer)
        ]

    answering_N, abstaining_N = np.array(scores(0.0)), np.array(scores(math.inf))
    probability_N = np.array([prompt.hits[0].score if prompt.hits else 0.0 for prompt in prompts])
    means = {
        threshold: float(np.where(probability_N >= threshold, answering_N, abstaining_N).mean())
        for threshold in THRESHOLDS
    }
    best = max(means, key=lambda threshold: (means[threshold], -abs(threshold - (context.threshold or 0.0))))
    seconds = time.perf_counter() - began
    trials = tuple(
        Trial(
            what={"threshold": threshold},
            rows=len(rows),
            seconds=seconds / len(means),
            dev_loss=None,
            dev_metric=mean,
            kept=threshold == best,
        )
        for threshold, mean in means.items()
    )
    return replace(context, threshold=best), ArmEffort(seconds=seconds, trials=trials, stopped="no trial was better")


def planned_extract(
    session: Session, arm: Arm, embedding: Callable[[Sequence[str]], float], setup: float, questions: int
) -> ArmPlan:
    """Predict seconds and memory of the arm from the embedding of a few questions.

    `embedding`: returns the seconds of embedding some texts. `setup`: seconds of indexing the sentences. A budget cuts
    none of it but test questions.
    """
    sample = [row.input for row in session.workspace.subset("train", questions)]
    with MemoryPeak() as memory:
        each = embedding(sample) / max(1, len(sample)) + SCORING_SECONDS
    labelled = sum(len(session.workspace.splits[name]) for name in ("train", "dev"))
    tests = len(session.workspace.splits["test"])
    others = len(session.workspace.timed_questions("test")) + 2 + min(labelled, MOST_ROWS)
    return ArmPlan(
        arm=arm.name,
        answer_seconds=setup + each * (tests + others),
        test_seconds=each * tests,
        memory_mb=memory.above_present(),
    )
