"""Time and memory of the audit of `trimtab check`, from 1,000 to 300,000 rows, and near duplicates that MinHash misses.

Two kinds of rows: *made*, 14 words each of a vocabulary of 20,000 with frequencies of natural text (Zipf), hardly
any alike; and *real*, questions of Banking77 (12 words at the median), from the 13,084th on with one to four words
taken out, put in or replaced, so that very many are alike. Seconds are from the call of `check` until it tells its
audit, each in a process of its own, memory its largest resident set. Recall: near pairs of the spanning forest that
MinHash finds, of those of the exact join, for real rows and for *floods* (`floods`).

    python benchmarks/audit.py [--source FOLDER] [--out FILE]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

from trimtab.base.files import write_json
from trimtab.base.machine import describe_machine

RESULT = Path(__file__).parent / "results" / "audit.json"
SOURCE = Path(__file__).resolve().parents[2] / "shared" / "data"
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000)
RECALL = (("real", 100_000), ("floods", 10_000))  # rows, of which the exact join takes some seconds
LETTERS = "etaoinshrdlucmfwypvbgk"


def made(count: int, _: Path) -> list[str]:
    draw = random.Random(0)
    words = ["".join(draw.choices(LETTERS, k=draw.randint(2, 9))) for _ in range(20_000)]
    weights = list(accumulate(1 / (rank + 2) for rank in range(len(words))))
    return [" ".join(draw.choices(words, cum_weights=weights, k=14)) for _ in range(count)]


def real(count: int, source: Path) -> list[str]:
    draw = random.Random(0)
    texts = []
    for split in ("train", "test"):
        with open(source / f"banking77.{split}.csv", encoding="utf-8", newline="") as file:
            texts += [row["text"] for row in csv.DictReader(file)]
    words = sorted({word for text in texts for word in text.split()})
    rows = texts[:count]
    while len(rows) < count:
        own = draw.choice(texts).split()
        for _ in range(draw.randint(1, 4)):
            at, other = draw.randrange(len(own)), draw.choice(words)
            own[at : at + 1] = draw.choice(([], [other], [own[at], other])) or ([] if len(own) > 1 else [other])
        rows.append(" ".join(own))
    return draw.sample(rows, count)


def floods(count: int, _: Path) -> list[str]:
    """Return groups of rows that differ in a number, each like many others: MinHash at its worst."""
    words = [f"{random.Random(i).randrange(10**9):x}" for i in range(100)]
    end = "won a prize of many pounds in our weekly draw, claim it with code"
    return [f"{words[i % 100]} {words[i % 97]} {end} {i}" for i in range(count)]


KINDS: dict[str, Callable[[int, Path], list[str]]] = {"made": made, "real": real, "floods": floods}


def audit(kind: str, count: int, source: Path) -> dict[str, Any]:
    """Audit rows once, in this process, which has loaded its libraries for some others."""
    _audited(kind, 100, source)
    seconds, processor, by = _audited(kind, count, source)
    return {
        "seconds": round(seconds, 2),
        "processor_seconds": round(processor, 2),
        "microseconds_a_row": round(1e6 * processor / count),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "near_duplicates": by,
    }


def _audited(kind: str, count: int, source: Path) -> tuple[float, float, str]:
    """Seconds and processor seconds of an audit, and what found near duplicates."""
    from trimtab.studies.check import CheckResult, check

    told: list[tuple[float, float, CheckResult]] = []
    with tempfile.TemporaryDirectory() as name:
        folder, draw = Path(name), random.Random(1)
        rows = ({"text": text, "label": f"label {draw.randrange(10)}"} for text in KINDS[kind](count, source))
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "trimtab.toml").write_text(
            '[task]\nname = "audit"\nkind = "classify"\n[data]\nexamples = ["rows.jsonl"]\n[base]\nmodel = "nowhere"\n'
        )
        began = time.perf_counter(), time.process_time()

        def audited(result: CheckResult) -> None:
            told.append((time.perf_counter() - began[0], time.process_time() - began[1], result))

        check(folder / "trimtab.toml", listeners=[], audited=audited, timing=False)
    ((seconds, processor, result),) = told
    estimated = any("MinHash" in remark.text for remark in result.remarks)
    return seconds, processor, "MinHash" if estimated else "exact"


def recall(kind: str, count: int, source: Path) -> dict[str, Any]:
    """Join rows exactly and by MinHash, in this process."""
    from trimtab.data import similarity_join
    from trimtab.data.duplicates import normalise_text
    from trimtab.data.shingles import Shingles

    shingles = Shingles(list(dict.fromkeys(map(normalise_text, KINDS[kind](count, source)))))
    found: dict[str, Any] = {"rows": count}
    for name, most in (("exact", 1e18), ("minhash", 0.0)):
        similarity_join.PRODUCTS_A_FEATURE = similarity_join.FEW_PRODUCTS = most  # type: ignore[assignment]
        began = time.process_time()
        pairs, _ = similarity_join.join_within(shingles, len(shingles.size))
        found |= {f"{name}_pairs": len(pairs), f"{name}_processor_seconds": round(time.process_time() - began, 2)}
    return found | {"recall": round(found["minhash_pairs"] / found["exact_pairs"], 4)}


def apart(what: str, kind: str, count: int, source: Path) -> dict[str, Any]:
    """`audit` or `recall` in a process of its own."""
    command = [sys.executable, __file__, "--source", str(source), "--one", what, kind, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(what, kind, f"{count:,}", found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--source", type=Path, default=SOURCE, help="the folder of the public files")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--one", nargs=3, metavar=("WHAT", "KIND", "ROWS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        what, kind, count = given.one
        print(json.dumps({"audit": audit, "recall": recall}[what](kind, int(count), given.source)))
        return
    load = [os.getloadavg()[0]]
    result: dict[str, Any] = {"python": sys.version.split()[0], "machine": describe_machine(), "audit": {}}
    for kind in ("made", "real"):
        result["audit"][kind] = {}
        for count in given.sizes:
            result["audit"][kind][str(count)] = apart("audit", kind, count, given.source)
            load.append(os.getloadavg()[0])
            result["load"] = [round(min(load), 1), round(max(load), 1)]
            write_json(given.out, result)
    result["recall"] = {kind: apart("recall", kind, count, given.source) for kind, count in RECALL}
    write_json(given.out, result)


if __name__ == "__main__":
    main()
