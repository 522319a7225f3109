"""Bounds that hold at every look: a monitor that looks after each batch raises a false alarm, ever, with probability at most δ."""

from __future__ import annotations

import math


def mixture_boundary(variance_sum: float, delta: float, rho_squared: float) -> float:
    """Bound that a sum of independent, centred errors stays below at every step, with probability at least 1 - delta.

    The one-sided normal-mixture boundary √(2(νρ²+1)/ρ² · ln(1 + √(νρ²+1)/(2δ))) (Robbins 1970; Waudby-Smith et al. 2024, "Time-uniform
    central limit theory and asymptotic confidence sequences"). Exact for Gaussian or sub-Gaussian errors with these variances, and in the
    limit of many for others. `variance_sum`: ν, the sum of the variances so far; `rho_squared`: ρ², see `mixture_rho_squared`. For a
    mean of t errors, divide by t.
    """
    _require_share("delta", delta)
    if not rho_squared > 0 or not variance_sum >= 0:
        raise ValueError("rho_squared must be above 0, and variance_sum at least 0")
    spread = variance_sum * rho_squared + 1
    return math.sqrt(2 * spread / rho_squared * math.log1p(math.sqrt(spread) / (2 * delta)))


def mixture_rho_squared(variance_sum: float, delta: float) -> float:
    """The ρ² for which `mixture_boundary` is tightest once the variances add up to `variance_sum`: (-2 ln 2δ + ln(1 - 2 ln 2δ))/ν."""
    _require_share("delta", delta)
    if not variance_sum > 0:
        raise ValueError("variance_sum must be above 0")
    surprise = -2 * math.log(2 * delta)
    return (surprise + math.log1p(surprise)) / variance_sum


def _require_share(name: str, value: float) -> None:
    if not 0 < value < 0.5:
        raise ValueError(f"{name} must lie between 0 and 0.5")
