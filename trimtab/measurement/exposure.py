"""Exposure of memorisation canaries against controls after Carlini et al. 2019 (The Secret Sharer, section 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence


def exposures(canaries: Sequence[float], controls: Sequence[float]) -> list[float]:
    """Return the exposure of each canary in bits: log2 of the number of controls plus 1, minus log2 of its loss's rank
    among theirs.

    The rank is 1 where no control has a loss as low: of equals the canary stands last, so that none looks remembered
    by chance. Of a canary that was never trained on every rank is as likely, and the mean comes near log2(e) = 1.44
    bits. Departs from the paper in its controls: other made rows with other random digits, not other digits in the
    same row.
    """
    most = math.log2(len(controls) + 1)
    return [most - math.log2(1 + sum(control <= canary for control in controls)) for canary in canaries]


def highest_by_chance(canaries: int, controls: int) -> float:
    """Return the expected highest exposure of `canaries` canaries without memorisation, where every rank is equally
    likely.

    The mean of log2(controls + 1) - log2(lowest rank), exactly.
    """
    ranks = controls + 1
    # at_most[rank]: the chance that the lowest rank is at most this one
    at_most = [1 - (1 - rank / ranks) ** canaries for rank in range(ranks + 1)]
    return sum((at_most[rank] - at_most[rank - 1]) * math.log2(ranks / rank) for rank in range(1, ranks + 1))
