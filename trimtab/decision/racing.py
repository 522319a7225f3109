"""Racing: selects by dev scores the arms that get more seeds before the test questions are asked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

LEAST_SHARED = 20  # dev questions that all arms have answered, of fewer nothing is read off
ERRORS = 2.0  # standard errors beyond the margin within which an arm may still be the best


def contenders(on_dev: Mapping[str, Mapping[str, float]], margin: float) -> tuple[str, ...]:
    """Return the arms whose mean score on dev is within the margin and two paired standard errors of the best.

    `on_dev`: scores by question of each arm; arms without any are in the running. None where there is one arm, or too
    few questions were answered by all.
    """
    known = {arm: scores for arm, scores in on_dev.items() if scores}
    shared = sorted(set.intersection(*(set(scores) for scores in known.values()))) if known else []
    if len(on_dev) < 2 or len(shared) < LEAST_SHARED:
        return ()
    values = {arm: np.array([scores[item] for item in shared]) for arm, scores in known.items()}
    best = max(values.values(), key=lambda scores: float(scores.mean()))

    def near(arm: str) -> bool:
        gaps = best - values[arm]
        return bool(gaps.mean() <= margin + ERRORS * gaps.std(ddof=1) / len(gaps) ** 0.5)

    return tuple(arm for arm in on_dev if arm not in values or near(arm))
