"""Anytime-valid bounds: a monitor that looks after each batch ever raises a false alarm with probability at most δ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.measurement.resampling import Array
from trimtab.measurement.units import block_length

HORIZON = 10  # batches after which the bound of each mean is tightest
LEAST_BATCHES = 8  # that tell how much batches differ from each other
DECIMALS = 12  # of residuals; beyond these they are rounding errors
LOST = 4  # degrees of freedom of their residuals: two means and where they change
MOST_ALIKE = 0.9  # the largest correlation of neighbouring batches that is reckoned with
LEAST_SPREAD = 0.05  # of one label, so that a threshold near 0 or 1 does not make the bound blind to few labels


def mixture_boundary(variance_sum: float, delta: float, rho_squared: float) -> float:
    """Compute the bound that a sum of independent, centred errors stays below at all steps, with probability at
    least 1 - delta.

    The one-sided normal-mixture boundary √(2(νρ²+1)/ρ² · ln(1 + √(νρ²+1)/(2δ))) (Robbins 1970; Waudby-Smith et al.
    2024, "Time-uniform central limit theory and asymptotic confidence sequences"). Exact for Gaussian or
    sub-Gaussian errors with these variances, and in the limit of many for others. `variance_sum`: ν, the sum of the
    variances so far; `rho_squared`: ρ², see `mixture_rho_squared`. For a mean of t errors, divide by t.
    """
    _require_share("delta", delta)
    if not rho_squared > 0 or not variance_sum >= 0:
        raise ValueError("rho_squared must be above 0, and variance_sum at least 0")
    spread = variance_sum * rho_squared + 1
    return math.sqrt(2 * spread / rho_squared * math.log1p(math.sqrt(spread) / (2 * delta)))


def mixture_rho_squared(variance_sum: float, delta: float) -> float:
    """Compute the ρ² with the tightest `mixture_boundary` where the variances add up to `variance_sum`: (-2 ln 2δ +
    ln(1 - 2 ln 2δ))/ν."""
    _require_share("delta", delta)
    if not variance_sum > 0:
        raise ValueError("variance_sum must be above 0")
    surprise = -2 * math.log(2 * delta)
    return (surprise + math.log1p(surprise)) / variance_sum


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskBatch:
    """A batch of labelled answers: the share that is wrong, the variance of this estimate, and the effective number
    of labels."""

    risk: float
    variance: float
    labels: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskBound:
    """A lower bound of the true mean risk of the batches from number `since` to this one; `since` is the start with
    the highest bound."""

    low: float
    since: int


def risk_bounds(
    batches: Sequence[RiskBatch], threshold: float, delta: float, *, least: int = LEAST_BATCHES, dispersed: bool = True
) -> list[RiskBound]:
    """Compute lower bounds of the risk after every batch; one above `threshold` is an alarm, ever false with
    probability at most delta.

    A mean over all batches is slow to follow a change, so one is begun at every batch, number s from 0 with its
    share delta / ((s + 1)(s + 2)) of the probability; these shares add up to delta. Each mean has the bound R -
    `mixture_boundary` / t over its t batches, with ρ² for `HORIZON` batches like the first at a risk of `threshold`
    (Podkopaev & Ramdas 2022, "Tracking the risk of a deployed model", with the asymptotic bound). Variances are
    multiplied by the `dispersion` of the batches so far, unless they are known not to be `dispersed`; until there are
    `least` of them, which it takes to know that, the bound is 0. Raises ValueError for a threshold outside 0 to 1.
    """
    if not 0 <= threshold <= 1:
        raise ValueError("threshold must lie between 0 and 1")
    means: list[_RunningMean] = []
    found = []
    for number, batch in enumerate(batches):
        share = delta / ((number + 1) * (number + 2))
        expected = HORIZON * max(threshold * (1 - threshold), LEAST_SPREAD) / batch.labels
        means.append(_RunningMean(delta=share, rho_squared=mixture_rho_squared(expected, share)))
        for mean in means:
            mean.add(batch)
        if number + 1 < least:
            found.append(RiskBound(low=0.0, since=0))
            continue
        spread = dispersion(batches[: number + 1]) if dispersed else 1.0
        bounds = [mean.bound(spread) for mean in means]
        best = max(range(len(bounds)), key=bounds.__getitem__)
        found.append(RiskBound(low=max(0.0, bounds[best]), since=best))
    return found


def dispersion(batches: Sequence[RiskBatch]) -> float:
    """Compute how many times as much the sum of the batches varies as the labels within each explain, at least 1.

    Answers that are right or wrong alike within a day make the days differ, and neighbouring days may be alike, too:
    where their correlation is above half a standard error it counts, with one error more and the 2 / n by which it is
    estimated too low. A change from one batch on is not counted: the residuals are those of the best two means.
    """
    count = len(batches)
    risk_B, variance_B = (np.array(part) for part in zip(*((one.risk, one.variance) for one in batches), strict=True))
    left_B = _residuals(risk_B) / np.sqrt(variance_B)
    total = float(left_B @ left_B)
    spread = max(1.0, total / max(1, count - LOST))
    correlation = float(left_B[1:] @ left_B[:-1]) / total if total > 0 else 0.0
    error = 1 / math.sqrt(count)
    if correlation <= error / 2:
        return spread
    upper = min(correlation + error + 2 / count, MOST_ALIKE)
    return float(spread * (1 + upper) / (1 - upper))


def independent_batches(batches: Sequence[RiskBatch]) -> list[list[int]] | None:
    """Return the numbers of the batches that have to be taken together, since neighbours are alike; None where no
    number of them is enough."""
    residual_B = _residuals(np.array([one.risk for one in batches]))
    length = block_length([residual_B], [None] * len(batches)) if len(batches) >= LEAST_BATCHES else 1
    if length is None:
        return None
    return [list(range(end - length, end)) for end in range(length, len(batches) + 1, length)]


def joined_batches(batches: Sequence[RiskBatch]) -> RiskBatch:
    """Return several batches as one."""
    labels = sum(one.labels for one in batches)
    return RiskBatch(
        risk=sum(one.risk * one.labels for one in batches) / labels,
        variance=sum(one.variance * one.labels**2 for one in batches) / labels**2,
        labels=labels,
    )


def _residuals(risk_B: Array) -> Array:
    """Return what is left of risks once one change, where it explains most, is taken out."""
    count = len(risk_B)
    if not count:
        return risk_B
    before_C = np.arange(1, count)
    sum_C = risk_B.cumsum()[:-1]
    explained_C = sum_C**2 / before_C + (risk_B.sum() - sum_C) ** 2 / (count - before_C)
    cut = int(explained_C.argmax()) + 1 if count > 1 else 1
    left_B = risk_B - risk_B[:cut].mean()
    left_B[cut:] = risk_B[cut:] - (risk_B[cut:].mean() if count > 1 else 0.0)
    rounded_B: Array = np.round(left_B, DECIMALS)
    return rounded_B


@dataclass(slots=True)
class _RunningMean:
    delta: float
    rho_squared: float
    total: float = 0.0
    variance: float = 0.0
    count: int = 0

    def add(self, batch: RiskBatch) -> None:
        self.total += batch.risk
        self.variance += batch.variance
        self.count += 1

    def bound(self, spread: float) -> float:
        """Return the lower bound, with variances `spread` times as large."""
        return (self.total - mixture_boundary(spread * self.variance, self.delta, self.rho_squared)) / self.count


def _require_share(name: str, value: float) -> None:
    if not 0 < value < 0.5:
        raise ValueError(f"{name} must lie between 0 and 0.5")
