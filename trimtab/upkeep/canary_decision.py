"""Decides a canary from its evidence; a pure function, so that all servers and all calls reach the same outcome."""

from __future__ import annotations

from trimtab.serving.releases import Canary
from trimtab.upkeep.canary_records import CanaryEvidence, CanaryOutcome

SLOW_SHARE = 0.05  # of a version's answers, that may take longer than its 95th percentile


def decide_canary(canary: Canary, evidence: CanaryEvidence) -> tuple[CanaryOutcome, str] | None:
    """Return how a canary ends by what is known, and why; None if it goes on.

    Harm comes first, and needs no margin: more failed answers, a 95th percentile over the limit, or a quality shown to
    be lower by anything. The candidate is promoted where its quality is shown to be higher, or not to be lower by the
    margin.
    """
    errors, latency, quality = evidence.errors, evidence.latency, evidence.quality
    if errors is not None and errors.low > 0:
        return "rolled_back", f"more of its answers fail: {errors.candidate:.2%} against {errors.production:.2%}"
    if latency is not None and latency.slow_low > SLOW_SHARE:
        return "rolled_back", (
            f"it is too slow: 95th percentile {latency.candidate_p95_ms:,.0f} ms, limit {latency.limit_ms:,.0f} ms, "
            f"production {latency.production_p95_ms:,.0f} ms"
        )
    if quality is not None:
        if quality.high < 0:
            return "rolled_back", f"it is shown to be worse: right for {quality.figures}"
        if quality.low > 0:
            return "promoted", f"it is shown to be better: right for {quality.figures}"
        if quality.low > -canary.margin:
            return "promoted", f"it is shown not to be worse by {canary.margin:g}: right for {quality.figures}"
    if evidence.days >= canary.days:
        return "undecided", f"nothing was shown in {canary.days:g} days; version {canary.production} stays"
    return None
