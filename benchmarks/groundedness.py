"""Holds what `measurement/groundedness.py` says of replies against what people said: BEGIN (Dziri et al. 2022).

A reply counts as supported if each of its sentences that states something is. People marked whole replies as fully
attributable to their source, or not; generic ones, which state nothing, are left out. The threshold was chosen on the
dev files of the three parts; "held out" is the test file of Wizard of Wikipedia.

    python benchmarks/groundedness.py --data CLONES [--out FILE]

CLONES holds a plain clone of google/BEGIN-dataset in the folder google+BEGIN-dataset; nothing of it is committed.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from pathlib import Path
from typing import Any

from trimtab.base.files import write_json
from trimtab.base.records import Hit, Passage
from trimtab.measurement.groundedness import SAID, groundedness_of
from trimtab.measurement.statistics import estimate

RESULT = Path(__file__).parent / "results" / "groundedness.json"
FILES = {
    "CMU-DoG, dev": "cmu-dog/begin_dev_cmu.tsv",
    "TopicalChat, dev": "topicalchat/begin_dev_tc.tsv",
    "Wizard of Wikipedia, dev": "wow/begin_dev_wow.tsv",
    "Wizard of Wikipedia, held out": "wow/begin_test_wow.tsv",
}
MARKS = {"Fully attributable": "attributable", "Not fully attributable": "not attributable"}


def counts_of(file: Path) -> Counter[tuple[str, str]]:
    """Replies by what people said, and by what the rule says of the whole reply."""
    counts: Counter[tuple[str, str]] = Counter()
    with file.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
            if row["begin_label"] not in MARKS:
                continue
            passage = Passage(id="0", document="0", title="", path=(), text=row["knowledge"], source="")
            hits = [Hit(passage=passage, rank=1, score=1.0)]
            found = set(groundedness_of(row["response"], hits, "", row["message"]))
            whole = "contradicted" if "contradicted" in found else "not there" if "not_there" in found else "supported"
            counts[MARKS[row["begin_label"]], whole if found else "states nothing"] += 1
    return counts


def measure(file: Path) -> dict[str, Any]:
    """The shares of both marks that are called supported, with 95% intervals, and what is said of the others."""
    counts = counts_of(file)
    row: dict[str, Any] = {}
    for mark in MARKS.values():
        said = {whole: number for (people, whole), number in counts.items() if people == mark}
        total, supported = sum(said.values()), said.get("supported", 0)
        share = estimate([1.0] * supported + [0.0] * (total - supported))
        figures = {"called_supported": share.value, "low": share.low, "high": share.high}
        row[mark] = {"replies": total, **{name: round(value, 3) for name, value in figures.items()}, "said": said}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    folder = options.data / "google+BEGIN-dataset"
    rows = {name: measure(folder / file) for name, file in FILES.items()}
    write_json(options.out, {"least_share_of_words": round(SAID, 3), "sets": rows})
    for name, row in rows.items():
        print(name, row)


if __name__ == "__main__":
    main()
