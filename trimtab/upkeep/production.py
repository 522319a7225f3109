"""Estimates the quality of an arm in use from labels of a few answers: by these alone, and with the arm's confidence in
all.

Answers are drawn in the order of uᵢ/sᵢ, with uᵢ a uniform number made of the answer's id and sᵢ its size: 1 for a
random draw, greater where the arm is unsure for active sampling. The first of them that are not labelled gives the
threshold τ, and min(1, τ·sᵢ) is the probability with which an answer was drawn (priority sampling; Duffield, Lund &
Thorup 2007): whoever stops early, or goes on another day, leaves estimates unbiased. From these probabilities π the
share of right answers y is

    θ = mean(λ·f) + mean over the drawn, weighted by 1/π, of (y - λ·f)

(PPI++: Angelopoulos, Duchi & Zrnic 2023; with active sampling: Zrnic & Candès 2024), f being the arm's probability
that its answer is right, with the λ that leaves the least variance; λ = 0 is the plain estimate.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trimtab.base.results import Estimate
from trimtab.measurement.statistics import LEVEL

FEWEST = 10  # labels from which on an interval is given
LEAST_SIZE = 0.2  # of an answer that the arm is sure of: it is drawn at 0.4 times the rate of one at 0.5
Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductionQuality:
    """The share of right answers. `plain`: by the labels alone; `powered`: with the arm's confidence, None where it
    gives none.

    `confidence_weight`: λ, how much the confidence says of what people say; `labels_saved`: so many more labels the
    plain estimate would have needed for the same interval.
    """

    answers: int
    labels: int
    plain: Estimate
    powered: Estimate | None
    confidence_weight: float | None
    labels_saved: int | None


def uniform(name: str) -> float:
    """Return a pseudo-random number from 0 to 1, a hash of an id, so that nobody can choose it."""
    return (int(hashlib.sha256(f"label\0{name}".encode()).hexdigest()[:13], 16) + 0.5) / 16**13


def sizes_by_uncertainty(probabilities: Sequence[float | None]) -> Numbers:
    """Return sizes for active sampling: the standard deviation of being right by the arm's own probability; 0.5 if it
    gives none."""
    sure_N = np.array([0.5 if one is None else one for one in probabilities])
    size_N: Numbers = np.maximum(np.sqrt(sure_N * (1 - sure_N)), LEAST_SIZE)
    return size_N


def inclusion_probabilities(priority_N: Numbers, size_N: Numbers, asked_N: Flags) -> Numbers:
    """Return the probability with which each answer was drawn; nan for one after the first that is not labelled."""
    if asked_N.all():
        return np.ones(len(priority_N))
    threshold = float(priority_N[~asked_N].min())
    return np.where(asked_N & (priority_N < threshold), np.minimum(1.0, threshold * size_N), np.nan)


def production_quality(
    right_N: Numbers, confidence_N: Numbers, inclusion_N: Numbers, weight_N: Numbers | None = None
) -> ProductionQuality | None:
    """Estimate the share of right answers of N from those that were drawn and labelled; None for fewer than FEWEST
    labels.

    `right_N`: what people say, from 0 to 1, nan where they said nothing or cannot tell; `confidence_N`: the arm's
    probabilities, nan where it gives none; `inclusion_N`: nan for what was not drawn; `weight_N`: how many requests
    each answer stands for.
    """
    drawn_N = ~np.isnan(inclusion_N)
    told_N = drawn_N & ~np.isnan(right_N)
    labels = int(told_N.sum())
    if labels < FEWEST:
        return None
    own_N = np.ones(len(right_N)) if weight_N is None else weight_N / weight_N.mean()
    expanded_N = np.where(drawn_N, own_N / np.where(drawn_N, inclusion_N, 1.0), 0.0)
    plain = _Part(np.where(told_N, expanded_N, 0.0), np.where(told_N, right_N, 0.0))
    variance = _variance(plain.influence_N, plain)
    found = _estimate(plain.mean, variance, plain, labels)
    if np.isnan(confidence_N).any():
        return ProductionQuality(
            answers=len(right_N), labels=labels, plain=found, powered=None, confidence_weight=None, labels_saved=None
        )
    everywhere, drawn = _Part(own_N, confidence_N), _Part(expanded_N, confidence_N)
    gap_N = drawn.influence_N - everywhere.influence_N  # what the draw happened to hold of confident answers
    spread = float(gap_N @ gap_N)
    weight = float(np.clip(plain.influence_N @ gap_N / spread, 0.0, 1.0)) if spread > 0 else 0.0
    powered = _variance(plain.influence_N - weight * gap_N, plain)
    return ProductionQuality(
        answers=len(right_N),
        labels=labels,
        plain=found,
        powered=_estimate(plain.mean - weight * (drawn.mean - everywhere.mean), powered, plain, labels),
        confidence_weight=weight,
        labels_saved=round(labels * (variance / powered - 1)),
    )


class _Part:
    """A weighted mean over some of N answers, and each one's influence on its error (mean 0)."""

    def __init__(self, weight_N: Numbers, value_N: Numbers) -> None:
        total = float(weight_N.sum())
        self.mean = float(weight_N @ value_N) / total
        self.influence_N = weight_N * (value_N - self.mean) * len(value_N) / total
        self.effective = total**2 / float(weight_N @ weight_N)


def _variance(influence_N: Numbers, labelled: _Part) -> float:
    """Return the variance of a mean with these influences.

    One more deviation of a whole point to each side is counted, as in an audit: fifty right answers do not show that
    none is wrong.
    """
    count, effective = len(influence_N), labelled.effective
    more = 2 * (count / effective) ** 2
    return (float(influence_N @ influence_N) + more) / count**2 * effective / (effective + 1)


def _estimate(value: float, variance: float, labelled: _Part, labels: int) -> Estimate:
    reach = float(stats.t.isf(LEVEL / 2, max(1.0, labelled.effective - 1))) * math.sqrt(variance)
    clipped = min(1.0, max(0.0, value))
    return Estimate(value=clipped, low=max(0.0, value - reach), high=min(1.0, value + reach), n=labels)
