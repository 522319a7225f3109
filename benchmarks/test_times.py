"""Says where the time of the tests goes: by room, by file, and the dearest hundred.

Run: python benchmarks/test_times.py [words for pytest]  →  benchmarks/results/test_times.json

Trust the processor's seconds (`pytest --times`: the worker's own and those of the child processes that it waited
for); wall time hangs on what else runs. What a shared fixture costs stands at the test that made it. `between_tests`
is the processor time of the workers outside every test: starting, collecting, importing. `--from FILE` condenses
what `pytest --times FILE` wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from trimtab.base.machine import describe_machine

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "test_times.json"
DEAREST = 100


def measured(words: list[str]) -> dict[str, Any]:
    """The times that a run of the tests wrote."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "times.json"
        command = [sys.executable, "-m", "pytest", "--times", str(file), *words]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
        return json.loads(file.read_text())


def sums(times: dict[str, list[float]], parts: int) -> dict[str, dict[str, float]]:
    """Tests, processor and wall seconds by the first parts of their paths, the dearest first."""
    found: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    for test, (processor, wall) in times.items():
        group = found["/".join(test.partition("::")[0].removeprefix("tests/").split("/")[:parts])]
        for place, value in enumerate((1, processor, wall)):
            group[place] += value
    rows = sorted(found.items(), key=lambda row: -row[1][1])
    return {
        name: {"tests": tests, "processor_s": round(processor, 1), "wall_s": round(wall, 1)}
        for name, (tests, processor, wall) in rows
    }


def condensed(raw: dict[str, Any]) -> dict[str, Any]:
    """The figures that are kept."""
    phases: dict[str, dict[str, list[float]]] = raw["tests"]
    times = {test: [sum(column) for column in zip(*spent.values(), strict=True)] for test, spent in phases.items()}
    in_tests, workers = sum(processor for processor, _ in times.values()), sum(raw["processor_s"].values())
    dearest = sorted(times.items(), key=lambda row: -row[1][0])[:DEAREST]
    return {
        "machine": describe_machine(),
        "workers": len(raw["processor_s"]),
        "wall_s": raw["wall_s"],
        "processor_s": round(workers, 1),
        "between_tests_processor_s": round(workers - in_tests, 1),
        "rooms": sums(times, 1),
        "files": dict(list(sums(times, 3).items())[:DEAREST]),
        "dearest": {
            test: {"processor_s": round(spent, 1), "wall_s": round(wall, 1)} for test, (spent, wall) in dearest
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--from", dest="source", type=Path, help="a file that `pytest --times` wrote")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--note", default="", help="what else ran, for instance")
    given, words = parser.parse_known_args()
    raw = json.loads(given.source.read_text()) if given.source else measured(words)
    given.out.write_text(json.dumps({"note": given.note, **condensed(raw)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
