"""How many retraining cycles end below the target, where facts change in bursts that come at random.

The period is that of `decision.cost.safe_period`: by the mean, and with `watched_months` and `bursts`. What is watched
and the cycle after it are drawn anew each time; every fact may change, and 20% may.

    python benchmarks/safe_period.py [--draws 4000]     # → results/safe_period.json
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.base.config import ChangeTable
from trimtab.base.files import write_json
from trimtab.decision.cost import safe_period

RESULT = Path(__file__).resolve().parent / "results" / "safe_period.json"
TARGET = 0.8
BURSTS = ((10.0, 0.005), (2.0, 0.02), (0.5, 0.1))  # a month, and the share of the facts that each changes
WATCHED = (3.0, 24.0)  # months


def measure(rate: float, share: float, watched: float, draws: int) -> dict[str, Any]:
    """Return, by the mean and with what was watched, the mean period and the share of cycles below the target."""
    random = np.random.default_rng(0)
    periods: dict[str, list[float]] = {"mean": [], "watched": []}
    below = dict.fromkeys(periods, 0)
    for _ in range(draws):
        bursts = max(1, int(random.poisson(rate * watched)))
        seen = {"share": 1.0, "per_month": -math.log1p(-share) * bursts / watched, "lead_days": 0.0}
        tables = {
            "mean": ChangeTable(**seen),
            "watched": ChangeTable(**seen, watched_months=watched, bursts=bursts),
        }
        for how, table in tables.items():
            period = safe_period(1.0, TARGET, table)
            if period is not None:
                periods[how].append(period)
                below[how] += (1 - share) ** random.poisson(rate * period) < TARGET - 1e-9
    figures = {how: {"months": float(np.mean(periods[how])), "below": below[how] / draws} for how in periods}
    return {"bursts_a_month": rate, "share_of_each": share, "watched_months": watched, "draws": draws, **figures}


def main() -> None:
    """Measure every cell, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--draws", type=int, default=4_000)
    draws = parser.parse_args().draws
    rows = [measure(rate, share, watched, draws) for rate, share in BURSTS for watched in WATCHED]
    write_json(RESULT, {"target": TARGET, "rows": rows})


if __name__ == "__main__":
    main()
