"""Lays out three public data sets with their task files, so that `trimtab study` can be run on real input.

Run: python docs/make_real_data.py real-data [--source FOLDER]; the source holds banking77.train.csv,
banking77.test.csv, xquad.en.json and the folder endoflife. Banking77 is cut to a seeded draw, stratified by intent.
Test rows that repeat a drawn training row are left out before the draw. Of endoflife the documents of a tenth of the
products are taken away: the right answer to their questions is to abstain.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import sys
from collections import defaultdict
from pathlib import Path

from trimtab.data.duplicates import duplicate_pairs

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1] / "shared" / "data"
TRAIN_ROWS, TEST_ROWS = 1_650, 300  # dev takes 150 of the first
TRAIN, TEST, XQUAD = "banking77.train.csv", "banking77.test.csv", "xquad.en.json"
MONTH, UNKNOWN = "2026-07", "I don't know"
DOCUMENTS, QUESTIONS = f"endoflife/documents-{MONTH}.jsonl", "endoflife/questions.jsonl"
TASKS = ("banking77.toml", "xquad.toml", "endoflife.toml")

Row = dict[str, str]


def draw(rows: list[Row], count: int, seed: int) -> list[Row]:
    """`count` rows, each class with its share to within one row (largest remainders), in the order of the file."""
    classes: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        classes[row["category"]].append(number)
    shares = {name: len(members) * count / len(rows) for name, members in classes.items()}
    sizes = {name: int(share) for name, share in shares.items()}
    rest = sorted(shares, key=lambda name: (sizes[name] - shares[name], name))
    for name in rest[: count - sum(sizes.values())]:
        sizes[name] += 1
    chance = random.Random(seed)
    chosen = [number for name, members in sorted(classes.items()) for number in chance.sample(members, sizes[name])]
    return [rows[number] for number in sorted(chosen)]


def banking77(source: Path, folder: Path) -> str:
    """Write the cut of Banking77; what was done, in words."""
    train = draw(_read(source / TRAIN), TRAIN_ROWS, seed=0)
    tests = _read(source / TEST)
    repeated = {pair.b for pair in duplicate_pairs([row["text"] for row in train], [row["text"] for row in tests])}
    new = [row for number, row in enumerate(tests) if number not in repeated]
    _write(folder / TRAIN, train)
    _write(folder / TEST, draw(new, TEST_ROWS, seed=1))
    return (
        f"banking77: {TRAIN_ROWS} rows for train and dev, {TEST_ROWS} for test; "
        f"{len(repeated)} of the {len(tests)} public test rows repeat a drawn training row and were left out "
        "before the draw"
    )


def endoflife(source: Path, folder: Path) -> str:
    """Write documents and questions of one month, without the documents of every tenth product; what was done, in
    words."""
    documents = [json.loads(line) for line in (source / DOCUMENTS).read_text("utf-8").splitlines()]
    kept = [one for number, one in enumerate(documents) if number % 10]
    home = folder / "endoflife"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    for one in kept:
        (home / one["name"]).write_text(one["text"], "utf-8")
    known = {one["name"].removesuffix(".md") for one in kept}
    rows = []
    for line in (source / QUESTIONS).read_text("utf-8").splitlines():
        row = json.loads(line)
        answer = row["answers"][MONTH] if row["group"] in known else UNKNOWN
        rows.append({"question": row["question"], "answer": answer, "product": row["group"], "kind": row["kind"]})
    with open(folder / "endoflife.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    absent = sum(row["answer"] == UNKNOWN for row in rows)
    return (
        f"endoflife: {len(rows)} questions, {len(kept)} documents; {absent} questions are about products without a "
        "document"
    )


def _read(path: Path) -> list[Row]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: list[Row]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main() -> int:
    """Parse the arguments, write the folder, say what was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("real-data"), help="where data and task files go")
    parser.add_argument("--source", type=Path, default=SOURCE, help="where the public files lie")
    chosen = parser.parse_args()
    missing = [name for name in (TRAIN, TEST, XQUAD, DOCUMENTS, QUESTIONS) if not (chosen.source / name).is_file()]
    if missing:
        print(f"{chosen.source}: no {', '.join(missing)}; name the folder with --source", file=sys.stderr)
        return 2
    chosen.folder.mkdir(parents=True, exist_ok=True)
    print(banking77(chosen.source, chosen.folder))
    print(endoflife(chosen.source, chosen.folder))
    for source in (chosen.source / XQUAD, *(HERE / name for name in TASKS)):
        shutil.copyfile(source, chosen.folder / source.name)
    print("xquad: the public file as it is, both examples and documents")
    for name in TASKS:
        print(f"next: trimtab study --task {chosen.folder / name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
