"""Simulates answers that come in sessions, days and bursts: how often something false is said of them, before and
after the unit that is compared became the user, the day or a block.

`before` counts every answer as independent, as Trimtab did; `after` is what it does now. Every share has its Monte
Carlo error. Rows whose truth is "nothing differs" count false alarms, the others how often what is true is found.

    python benchmarks/bursts_simulation.py [means …] [--runs 400] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trimtab.base.files import write_json
from trimtab.measurement.resampling import p_sign_flip
from trimtab.measurement.statistics import LEVEL, compare_paired

RESULT = Path(__file__).parent / "results" / "bursts_simulation.json"
Numbers = NDArray[np.float64]
Row = dict[str, Any]


def share(count: int, runs: int) -> Row:
    """A share with its Monte Carlo error (of a share one event from the edge, where none or all came)."""
    inside = min(max(count, 1), runs - 1) / runs
    return {"share": count / runs, "error": round(math.sqrt(inside * (1 - inside) / runs), 4)}


def row(what: str, runs: int, said: Callable[[np.random.Generator], tuple[bool, ...]], *names: str) -> Row:
    """Count how often each of several things is said in so many simulations."""
    told = np.array([said(np.random.default_rng([place])) for place in range(runs)])
    counted = {name: share(int(count), runs) for name, count in zip(names, told.sum(0), strict=True)}
    return {"what": what, "runs": runs, **counted}


# ---- equal means


def means(runs: int) -> Iterator[Row]:
    """Two arms on the same questions, graded: is a difference said to be there, at .05?"""

    def said(random: np.random.Generator, draw: Callable[..., tuple[Numbers, Numbers]]) -> tuple[bool, bool]:
        a, b = draw(random)
        return p_sign_flip(a - b, 0) <= LEVEL, compare_paired(a, b).p <= LEVEL

    def steady(random: np.random.Generator, n: int, rare: float, spread: float) -> tuple[Numbers, Numbers]:
        return 1 - rare + spread * random.uniform(-1, 1, n), (random.random(n) >= rare).astype(float)

    def graded(random: np.random.Generator, n: int, ahead: float) -> tuple[Numbers, Numbers]:
        shared, own, other = random.standard_normal((3, n)) * math.sqrt(0.5)
        a, b = stats.norm.cdf(shared + own), stats.norm.cdf(shared + other)
        return stats.beta.ppf(a, 4 * (0.7 + ahead), 4 * (0.3 - ahead)), stats.beta.ppf(b, 2.8, 1.2)

    for n, rare, spread in (
        (40, 0.02, 0),
        (40, 0.05, 0),
        (40, 0.05, 0.05),
        (100, 0.05, 0),
        (100, 0.1, 0),
        (200, 0.05, 0),
    ):
        what = f"equal means, {n} questions: a steady arm{' with noise' * (spread > 0)}, one with {rare:.0%} zeros"
        yield row(what, runs, partial(said, draw=partial(steady, n=n, rare=rare, spread=spread)), "before", "after")
    for n, ahead in ((40, 0.0), (100, 0.0), (40, 0.1), (100, 0.05), (200, 0.05)):
        what = f"{'ahead by ' + str(ahead) if ahead else 'equal means'}, {n} questions: two graded arms"
        yield row(what, runs, partial(said, draw=partial(graded, n=n, ahead=ahead)), "before", "after")


PARTS: dict[str, Callable[[int], Iterator[Row]]] = {"means": means}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    found: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {}
    for part in options.parts:
        found[part] = []
        for one in PARTS[part](options.runs):
            found[part].append(one)
            print(json.dumps(one), flush=True)
        write_json(options.out, found)


if __name__ == "__main__":
    main()
