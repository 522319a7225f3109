"""Post-stratification: weights of test questions so that slices have the shares that they have in traffic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from trimtab.base.errors import InputError
from trimtab.measurement.resampling import Array


def mix_weights(slices: Sequence[str | None], mix: Mapping[str, float]) -> Array | None:
    """Return the weight of each item: its slice's share in traffic / its slice's share of the items, 1 on average (Holt
    and Smith 1979).

    Slices that no item is of take no part. None without a mix, and where all items weigh the same. Raises InputError
    for an item of a slice that the mix does not name.
    """
    if not mix:
        return None
    counts = Counter(slices)
    if None in counts:
        problem = f"{counts[None]:,} of {len(slices):,} questions have no slice, by which data.mix weighs them"
        raise InputError(problem, "name the column that holds it as data.slice, and fill it", field="data.mix")
    unknown = next((name for name in counts if name not in mix), None)
    if unknown is not None:
        problem = (
            f"{counts[unknown]:,} of {len(slices):,} questions are of the slice {unknown!r}, which data.mix does not "
            "name"
        )
        raise InputError(problem, "give every slice its share of the traffic", field="data.mix")
    whole = sum(mix[str(name)] for name in counts)
    each = {name: mix[str(name)] / whole * len(slices) / count for name, count in counts.items()}
    weights = np.array([each[name] for name in slices])
    return None if np.ptp(weights) < 1e-9 else weights


def effective_items(slices: Sequence[str | None], mix: Mapping[str, float]) -> float:
    """Return the effective number of items under their weights."""
    weights = mix_weights(slices, mix)
    return len(slices) if weights is None else effective_number(weights)


def effective_number(weights: Array) -> float:
    """Return (sum of weights)^2 / sum of squared weights (Kish 1965)."""
    return float(weights.sum()) ** 2 / float(weights @ weights)


def check_mix(slices: Sequence[str | None], mix: Mapping[str, float], file: Path) -> None:
    """Raise InputError unless each slice of the test questions has a share, and each share a test question."""
    try:
        mix_weights(slices, mix)
    except InputError as error:
        raise InputError(error.problem, error.remedy, file=file, field=error.field) from None
    missing = next((name for name in mix if name not in slices), None)
    if missing is not None:
        known = ", ".join(sorted({str(name) for name in slices})[:20]) or "none"
        raise InputError(
            f"no test question is of the slice {missing!r}; there are: {known}",
            "add rows of it, or take it out and let the other shares sum to 1",
            file=file,
            field="data.mix",
        )
