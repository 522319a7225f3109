"""The sentence on an arm's score on the newest test questions compared with earlier ones; pure."""

from __future__ import annotations

from trimtab.base.results import OverTime


def over_time_sentence(found: OverTime | None) -> str:
    """Return both scores with their difference, and its consequence; empty if there are no times."""
    if found is None:
        return ""
    new, before = found.newest.value, found.earlier.value
    told = (
        f"On the newer half of the test questions (from {found.since} on) {found.arm} scores {new:.3f}, on the "
        f"older half {before:.3f}: a difference of {found.difference:+.3f} (95% interval {found.low:+.3f} to "
        f"{found.high:+.3f})"
    )
    if found.high < 0:
        return f"{told}; it is shown to get worse with time."
    if found.low > 0:
        return f"{told}; it is shown to do better on newer ones."
    return f"{told}; no change with time is shown."
