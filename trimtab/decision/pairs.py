"""Design of a study: which arms are compared, and which get more seeds before the test questions are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trimtab.base.grammar import PARTS, is_trained
from trimtab.base.records import Arm


def comparisons_among(arms: int) -> int:
    """Return the number of comparisons to correct for: every pair of arms, as the best of them is picked after
    looking."""
    return max(1, arms * (arms - 1) // 2)


def planned_pairs(arms: Sequence[Arm], best: str) -> list[tuple[str, str]]:
    """Return the comparisons of a study, decided by its arms: the best with each other arm, each blend with its parts.

    The parts of a blend are the arms that lack one of its ingredients: lora+rag has lora and rag, rag+few-shot has rag
    and few-shot, where those arms exist. No pair comes twice.
    """
    pairs = [(best, arm.name) for arm in arms if arm.name != best]
    for blend in arms:
        for part in arms:
            pair = (blend.name, part.name)
            if _is_part(part, blend) and pair not in pairs and pair[::-1] not in pairs:
                pairs.append(pair)
    return pairs


def _is_part(part: Arm, blend: Arm) -> bool:
    """True if `part` is `blend` without its tuned weights or without one part of its context, all else equal."""
    same_weights = (part.weights, part.stages, part.endpoint) == (blend.weights, blend.stages, blend.endpoint)
    if same_weights:
        lacks_one = set(part.parts) < set(blend.parts) and len(part.parts) == len(blend.parts) - 1
    else:
        lacks_one = part.weights == "base" and is_trained(blend) and part.parts == blend.parts != ()
    of_context = {PARTS[name].setting for name in blend.parts}
    kept = {PARTS[name].setting for name in part.parts}
    own = {key: value for key, value in blend.settings.items() if (key in kept if key in of_context else same_weights)}
    blended = is_trained(blend) + len(blend.parts) > 1
    return blended and lacks_one and dict(part.settings) == own


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
