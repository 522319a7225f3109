"""Calibrates label scores into probabilities, by offsets and one temperature, and measures the calibration error.

Shapes: N questions, M unlabelled inputs, L labels. Scores are logarithms: of a label's probability, up to a constant
a question.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
# Questions on dev, and right and wrong answers among them, below which nothing is fitted.
LEAST_ROWS, LEAST_OF_EACH = 20, 2
COLDEST, HOTTEST = 0.01, 100.0
BINS = 10
DRAWS = 1_000  # of what chance adds to a calibration error
_TINY = 1e-300  # in place of a probability that was rounded to 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Answers of similar probability: their number, their mean probability, and the share that is right."""

    count: int
    probability: float
    right: float


def label_scores(sums_NL: Floats, lengths_L: Sequence[int], *, per_token: bool, offsets_L: Floats | None) -> Floats:
    """Return scores from summed log-probabilities: the sums, or the means over each label's tokens, minus the labels'
    offsets."""
    scores_NL = sums_NL / np.asarray(lengths_L, dtype=float) if per_token else sums_NL
    return scores_NL if offsets_L is None else scores_NL - offsets_L


def mean_offsets(sums_ML: Floats) -> Floats:
    """Return each label's mean log-probability over some inputs: the part of its score that does not depend on the
    question.

    Over one content-free input this is the denominator of PMI (Holtzman et al. 2021, domain-conditional PMI; Zhao et
    al. 2021); over a batch of unlabelled inputs it is batch calibration (after Zhou et al. 2024, with means of
    logarithms).
    """
    return np.asarray(sums_ML.mean(axis=0))


def log_losses(scores_NL: Floats, right_N: NDArray[np.integer[Any]], temperature: float = 1.0) -> Floats:
    """Return the negative log-probability of each right label, `[N]`, in nats; `right_N` are indices of the labels."""
    scaled_NL = scores_NL / temperature
    return np.asarray(_log_sum(scaled_NL) - scaled_NL[np.arange(len(right_N)), right_N])


def log_loss(scores_NL: Floats, right_N: NDArray[np.integer[Any]], temperature: float = 1.0) -> float:
    """Return the mean negative log-probability of the right labels, in nats."""
    return float(np.mean(log_losses(scores_NL, right_N, temperature)))


def fit_temperature(scores_NL: Floats, right_N: NDArray[np.integer[Any]]) -> float:
    """Return the temperature, from COLDEST to HOTTEST, with the lowest log loss (temperature scaling; Guo et al. 2017,
    section 4.2).

    The loss is convex in the inverse temperature, so that the sign of its slope is bisected.
    """
    own_N = scores_NL[np.arange(len(right_N)), right_N]
    low, high = math.log(1 / HOTTEST), math.log(1 / COLDEST)
    for _ in range(60):
        middle = (low + high) / 2
        chances_NL = _softmax(scores_NL * math.exp(middle))
        slope = float(np.mean((chances_NL * scores_NL).sum(axis=1) - own_N))
        low, high = (middle, high) if slope < 0 else (low, middle)
    return math.exp(-(low + high) / 2)


def suiting_temperature(scores_NL: Floats, right_N: NDArray[np.integer[Any]]) -> float:
    """Return the temperature with the lowest log loss, 1 if there are too few right or wrong answers to fit one."""
    hits = (scores_NL.argmax(axis=1) == right_N).tolist()
    return fit_temperature(scores_NL, right_N) if may_be_fitted(hits) else 1.0


def may_be_fitted(right: Sequence[bool]) -> bool:
    """True if there are enough answers, right ones and wrong ones, to fit a temperature or offsets."""
    return len(right) >= LEAST_ROWS and LEAST_OF_EACH <= sum(right) <= len(right) - LEAST_OF_EACH


def tempered(probabilities: Mapping[str, float], temperature: float) -> dict[str, float]:
    """Return label probabilities rescaled to another temperature; the order of the labels stays."""
    scores_1L = np.log(np.maximum(np.array([list(probabilities.values())]), _TINY))
    return dict(zip(probabilities, _softmax(scores_1L / temperature)[0].tolist(), strict=True))


def logarithms(probabilities_NL: Floats) -> Floats:
    """Return the logarithms of probabilities; a probability that was rounded to 0 is replaced by a very small one."""
    return np.asarray(np.log(np.maximum(probabilities_NL, _TINY)))


def reliability(probabilities: Sequence[float], right: Sequence[bool], bins: int = BINS) -> tuple[Bin, ...]:
    """Return the non-empty bins of equal width, least probable first; bins are open to the left, and the first one
    contains 0."""
    probability_N, right_N = np.asarray(probabilities, dtype=float), np.asarray(right, dtype=float)
    bin_N = _bins(probability_N, bins)
    return tuple(
        Bin(
            count=int((bin_N == number).sum()),
            probability=float(probability_N[bin_N == number].mean()),
            right=float(right_N[bin_N == number].mean()),
        )
        for number in np.unique(bin_N)
    )


def expected_calibration_error(probabilities: Sequence[float], right: Sequence[bool], bins: int = BINS) -> float:
    """Return the mean distance between probability and share of right answers over the bins, weighted by their items;
    NaN for no items.

    Guo et al. 2017, equation 3.
    """
    found = reliability(probabilities, right, bins)
    return sum(one.count * abs(one.probability - one.right) for one in found) / len(right) if found else math.nan


def calibration_error_by_chance(probabilities: Sequence[float], bins: int = BINS) -> float:
    """Return the expected calibration error that perfectly calibrated answers with these probabilities would have on
    average; NaN for no items.

    Each answer is drawn right with its own probability, 1,000 times, seeded. A measured error is to be read beside
    it: with few answers chance alone makes it large.
    """
    probability_N = np.asarray(probabilities, dtype=float)
    return _mean_error(probability_N, probability_N, bins) if len(probability_N) else math.nan


def debiased_calibration_error(probabilities: Sequence[float], right: Sequence[bool], bins: int = BINS) -> float:
    """Return the calibration error minus its bias from chance, at least 0; NaN for no items.

    The shares of right answers are drawn again around those that were seen, and the mean rise of the error is taken
    off (Kumar et al. 2019, arXiv 1909.10155, section 5, with binomial draws in place of normal ones).
    """
    probability_N, right_N = np.asarray(probabilities, dtype=float), np.asarray(right, dtype=float)
    if not len(probability_N):
        return math.nan
    bin_N = _bins(probability_N, bins)
    share_N = np.array([right_N[bin_N == number].mean() for number in bin_N])
    seen = expected_calibration_error(probabilities, right, bins)
    return max(0.0, 2 * seen - _mean_error(probability_N, share_N, bins))


def _mean_error(probability_N: Floats, chance_N: Floats, bins: int) -> float:
    """Return the mean calibration error over draws in which each answer is right with its probability."""
    bin_N, draws = _bins(probability_N, bins), np.random.default_rng(0)
    right_DN = draws.random((DRAWS, len(chance_N))) < chance_N
    numbers = np.unique(bin_N)
    gaps_D = sum(
        np.abs((right_DN[:, bin_N == number] - probability_N[bin_N == number]).sum(axis=1)) for number in numbers
    )
    return float(np.mean(gaps_D)) / len(chance_N)


def _bins(probability_N: Floats, bins: int) -> NDArray[np.integer[Any]]:
    """Return the bin of each probability; bins are open to the left, and the first one contains 0."""
    return np.asarray(np.clip(np.ceil(probability_N * bins).astype(int) - 1, 0, bins - 1))


def _softmax(scores_NL: Floats) -> Floats:
    return np.asarray(np.exp(scores_NL - _log_sum(scores_NL)[:, None]))


def _log_sum(scores_NL: Floats) -> Floats:
    top_N = scores_NL.max(axis=1)
    return np.asarray(top_N + np.log(np.exp(scores_NL - top_N[:, None]).sum(axis=1)))
