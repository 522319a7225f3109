"""Measures how often `trimtab drift` alarms without drift, and how soon with it; beside it Evidently on the same
windows.

Two sources of real questions are replayed: Banking77's test messages, answered by a linear classifier on embeddings,
and the questions about releases of `endoflife`, with the passages found for them. A replay draws a reference and
then window after window, with replacement, so that nothing changes but by chance; or from the window on a share of
the questions is of a shift. Each text is embedded once. Counted without drift: alarms among all windows, and the run
length (windows looked at per first alarm). Counted with a shift: the windows up to the first alarm, at most CAP.
What Evidently says of the first window of each of PAIRS replays stands beside what we say of the same ones; its
interpreter is named with --peer, and without one that part stays as it was (`pip install "evidently>=0.7"
"pandas<3"`: Evidently 0.7.23 does not import with pandas 3).

    python benchmarks/drift_alarms.py [without shifts releases evidently] [--replays 1000] [--missing] [--source FOLDER]
    [--peer PYTHON] [--out FILE]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from trimtab.base.files import write_json
from trimtab.base.records import Document
from trimtab.data.markdown import parse_markdown
from trimtab.model.catalog import resolve
from trimtab.retrieval.chunk import chunk_document
from trimtab.retrieval.embed import Embedder, embedded_text
from trimtab.upkeep.drift import REFERENCE, window_statistics
from trimtab.upkeep.drift_report import Signal
from trimtab.upkeep.drift_tests import Vectors, drift_test

HERE = Path(__file__).parent
RESULT = HERE / "results" / "drift_alarms.json"
SOURCE = HERE.parents[1] / "shared" / "data"
PARTS = ("without", "shifts", "releases", "evidently")
SIZES = {100: 1, 200: 5}  # of windows, and how many times fewer replays there are of them
ALARM_FREE = 100
WINDOWS = 3  # looked at in each replay without drift
CAP = 6  # windows after which a shift counts as not found
SHIFTED = 30  # replays of each shift
PAIRS, NULL_PAIRS = 8, 40  # windows that Evidently is asked about: of each shift, and without one
SHARES = (0.1, 0.3)
PASSAGES, REWRITTEN = 2_000, 1_500  # messages that the arm knows, and that are written anew by a shift
NEW_INTENTS = 10  # that neither the classifier nor the reference knows
UNSURE = 0.3  # probability below which the classifier's answer counts as an abstention
CYRILLIC = str.maketrans("abcdefghijklmnopqrstuvwxyz", "абцдефгхийклмнопкрстуввхыз")
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Questions with what each signal has of them."""

    vectors: Vectors
    numbers: Mapping[Signal, NDArray[np.float64]]
    labels: NDArray[np.str_] | None

    def take(self, rows: Rows) -> Pool:
        """Return the pool of these rows."""
        return Pool(
            vectors=self.vectors[rows],
            numbers={name: values[rows] for name, values in self.numbers.items()},
            labels=None if self.labels is None else self.labels[rows],
        )

    def beside(self, other: Pool) -> Pool:
        """Return this pool followed by another one."""
        return Pool(
            vectors=np.concatenate([self.vectors, other.vectors]),
            numbers={name: np.concatenate([values, other.numbers[name]]) for name, values in self.numbers.items()},
            labels=None if self.labels is None else np.concatenate([self.labels, other.labels]),  # type: ignore[list-item]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A source of windows: rows of `usual`, and in a shifted window a share of `shifted` rows."""

    pool: Pool
    usual: Rows
    shifted: Rows

    def drawn(self, generator: np.random.Generator, size: int, share: float = 0.0) -> Rows:
        """One window of rows."""
        is_shifted = generator.random(size) < share
        found = generator.choice(self.usual, size)
        return np.where(is_shifted, generator.choice(self.shifted, size), found) if share else found


def p_of(pool: Pool, reference: Rows, window: Rows) -> tuple[float, Signal]:
    """Return the p-value of the family, and the signal with the least."""
    both = pool.take(np.concatenate([reference, window]))
    labels = None if both.labels is None else both.labels.tolist()
    statistics = window_statistics(
        {name: values.tolist() for name, values in both.numbers.items()}, labels, both.vectors
    )
    found = drift_test(statistics, len(reference), len(window), alarm_free=ALARM_FREE)
    return found.p, min(found.signals, key=lambda name: found.signals[name].p)


def without_drift(replay: Replay, size: int, replays: int) -> dict[str, Any]:
    """Count false alarms among the windows looked at: in each replay up to the first alarm, and WINDOWS at the most."""
    looked, alarms = np.zeros(WINDOWS, dtype=int), np.zeros(WINDOWS, dtype=int)
    for seed in range(replays):
        generator = np.random.default_rng([1, seed])
        before = replay.drawn(generator, size)
        for place in range(WINDOWS):
            window = replay.drawn(generator, size)
            looked[place] += 1
            if p_of(replay.pool, before[: REFERENCE * size], window)[0] <= 1 / ALARM_FREE:
                alarms[place] += 1
                break
            before = np.concatenate([before, window])
    return {
        "replays": replays,
        "windows": int(looked.sum()),
        "alarms": int(alarms.sum()),
        "rate": float(alarms.sum() / looked.sum()),
        "run_length": float(looked.sum() / max(1, alarms.sum())),
        "promised": ALARM_FREE,
        "alarms_by_place": alarms.tolist(),
    }


def with_shift(replay: Replay, size: int, share: float) -> dict[str, Any]:
    """Count the windows behind a whole reference up to the first alarm."""
    delays, signals = [], []
    for seed in range(SHIFTED):
        generator = np.random.default_rng([2, seed])
        reference = replay.drawn(generator, REFERENCE * size)
        delay = None
        for window in range(1, CAP + 1):
            p, signal = p_of(replay.pool, reference, replay.drawn(generator, size, share))
            if p <= 1 / ALARM_FREE:
                signals.append(signal)
                delay = window
                break
        delays.append(delay)
    found = [one for one in delays if one is not None]
    return {
        "replays": SHIFTED,
        "cap": CAP,
        "first_window": sum(one == 1 for one in found) / SHIFTED,
        "found": len(found) / SHIFTED,
        "windows": float(np.mean([one or CAP for one in delays])),
        "questions": float(np.mean([one or CAP for one in delays])) * size,
        "signals": {name: signals.count(name) for name in sorted(set(signals))},
    }


def pairs_of(replay: Replay, size: int, share: float, count: int) -> list[tuple[Rows, Rows]]:
    """A reference and one window behind it, for the comparison with the peer."""
    found = []
    for seed in range(count):
        generator = np.random.default_rng([3, seed])
        found.append((replay.drawn(generator, REFERENCE * size), replay.drawn(generator, size, share)))
    return found


def banking(source: Path, embedder: KeptVectors) -> dict[str, Replay]:
    """Messages of bank customers; by shift, what is drawn. The arm and its passages know all intents but
    NEW_INTENTS."""
    rows = {split: _csv(source / f"banking77.{split}.csv") for split in ("train", "test")}
    new = set(sorted({label for _, label in rows["train"]})[:: 77 // NEW_INTENTS][:NEW_INTENTS])
    known = [(text, label) for text, label in rows["train"] if label not in new]
    known = random.Random(1).sample(known, PASSAGES)
    names = sorted({label for _, label in known})  # as the classifier orders them
    passages = embedder.encode([text for text, _ in known])
    arm = LogisticRegression(C=10, max_iter=300).fit(passages, [label for _, label in known])
    label_of = np.array([names.index(label) for _, label in known])

    def answered(texts: Sequence[str]) -> Pool:
        vectors = embedder.encode(texts)
        odds, cosines = arm.predict_proba(vectors), vectors @ passages.T
        probability, chosen = odds.max(1), odds.argmax(1)
        return Pool(
            vectors=vectors,
            numbers={
                "confidence": probability,
                "abstained": (probability < UNSURE).astype(float),
                "similarity": cosines.max(1).astype(float),
                "support": (label_of[cosines.argmax(1)] == chosen).astype(float),
            },
            labels=np.array([names[place] for place in chosen]),
        )

    own = random.Random(0)
    texts = [text for text, _ in rows["test"]]
    pool = answered(texts)
    count = len(texts)
    usual = np.array([place for place, (_, label) in enumerate(rows["test"]) if label not in new])
    np.random.default_rng(1).shuffle(usual)
    fresh = np.array([place for place, (_, label) in enumerate(rows["test"]) if label in new])
    one_intent = np.array([place for place, (_, label) in enumerate(rows["test"]) if label == names[5]])
    shuffled = np.random.default_rng(0).integers(len(passages), size=count)
    broken = replace(
        pool,
        numbers={
            **pool.numbers,
            "similarity": np.einsum("nd,nd->n", pool.vectors, passages[shuffled]).astype(float),
            "support": (np.array(names)[label_of[shuffled]] == pool.labels).astype(float),
        },
    )
    beside, some = count + usual, usual[:REWRITTEN]
    rewritten = count + np.arange(len(some))
    return {
        "topic": Replay(pool=pool, usual=usual, shifted=fresh),
        "typos": Replay(
            pool=pool.beside(answered([_typos(texts[place], own) for place in some])), usual=usual, shifted=rewritten
        ),
        "script": Replay(
            pool=pool.beside(answered([texts[place].lower().translate(CYRILLIC) for place in some])),
            usual=usual,
            shifted=rewritten,
        ),
        "labels": Replay(pool=pool, usual=usual, shifted=one_intent),
        "retriever": Replay(pool=pool.beside(broken), usual=usual, shifted=beside),
    }


def releases(source: Path, embedder: KeptVectors) -> Replay:
    """Questions about releases, with the best of the passages of July 2026; `support`: it holds the answer."""
    passages = []
    for line in (source / "endoflife" / "documents-2026-07.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        sections = parse_markdown(row["text"], row["title"])[1]
        document = Document(id=row["name"], title=row["title"], source=row["name"], sections=sections, digest="")
        passages += chunk_document(document)
    found = embedder.encode([embedded_text(passage) for passage in passages])
    lines = (source / "endoflife" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    rows = [row for row in rows if row["answers"].get("2026-07")]
    vectors = embedder.encode([row["question"] for row in rows])
    cosines = vectors @ found.T
    answers = [row["answers"]["2026-07"] for row in rows]
    best = [passages[place].text for place in cosines.argmax(1)]
    numbers: dict[Signal, NDArray[np.float64]] = {
        "similarity": cosines.max(1).astype(float),
        "support": np.array([float(answer in text) for answer, text in zip(answers, best, strict=True)]),
        "length": np.array([float(len(answer.split())) for answer in answers]),
    }
    every = np.arange(len(rows))
    return Replay(pool=Pool(vectors=vectors, numbers=numbers, labels=None), usual=every, shifted=every)


class KeptVectors:
    """The vectors of texts, kept in a file: parts that run beside each other embed nothing twice."""

    def __init__(self, embedder: Embedder, file: Path | None) -> None:
        self._embedder, self._file = embedder, file
        self._held: dict[str, Any] = {}
        if file is not None and file.is_file():
            found = np.load(file)
            self._held = dict(zip(found["texts"].tolist(), found["vectors"], strict=True))

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Embed texts as `Embedder.encode`, each text once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._held]
        self._held.update(zip(new, self._embedder.encode(new), strict=True))
        if new and self._file is not None:
            np.savez(self._file, texts=np.array(list(self._held)), vectors=np.stack(list(self._held.values())))
        return np.stack([self._held[text] for text in texts])


def _csv(file: Path) -> list[tuple[str, str]]:
    with open(file, encoding="utf-8", newline="") as rows:
        return [(row["text"], row["category"]) for row in csv.DictReader(rows)]


def _typos(text: str, own: random.Random) -> str:
    """One letter in ten dropped, doubled or swapped with the next."""
    found, letters = [], list(text)
    for place, letter in enumerate(letters):
        kind = own.choice(("drop", "double", "swap")) if letter.isalpha() and own.random() < 0.1 else ""
        if kind == "double":
            found += [letter, letter]
        elif kind == "swap" and place + 1 < len(letters):
            letters[place + 1], letter = letter, letters[place + 1]
            found.append(letter)
        elif kind != "drop":
            found.append(letter)
    return "".join(found) or text


def beside(
    python: str, cells: Mapping[str, tuple[Pool, list[tuple[Rows, Rows]]]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run Evidently on the same windows, and compare the shares with an alarm."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, (pool, pairs) in cells.items():
            file = Path(scratch) / f"{name}.npz"
            columns = {f"number {signal}": values for signal, values in pool.numbers.items()}
            labels = {} if pool.labels is None else {"labels": pool.labels}
            references, windows = (np.stack(part) for part in zip(*pairs, strict=True))
            np.savez(file, vectors=pool.vectors, references=references, windows=windows, **columns, **labels)
            done = subprocess.run(
                [python, str(HERE / "peers" / "evidently_drift.py"), str(file)],
                capture_output=True,
                text=True,
                check=True,
                env={**os.environ, "DO_NOT_TRACK": "1"},
            )
            own = [p_of(pool, *pair)[0] <= 1 / ALARM_FREE for pair in pairs]
            yield name, {"windows": len(pairs), "trimtab": float(np.mean(own)), **json.loads(done.stdout)}


class Result:
    """The figures in a file, which is written anew with each."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.figures: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}

    def keep(self, *path: str, value: Any) -> None:
        place = self.figures
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = value
        write_json(self.file, self.figures)
        print(*path, value, flush=True)

    def holds(self, *path: str) -> bool:
        place = self.figures
        for key in path:
            place = place.get(key, {})
        return bool(place)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}; others stay")
    parser.add_argument("--replays", type=int, default=1_000)
    parser.add_argument("--source", type=Path, default=SOURCE)
    parser.add_argument(
        "--missing", action="store_true", help="measure only cells of shifts and Evidently that the file lacks"
    )
    parser.add_argument("--peer", help="a Python with evidently")
    parser.add_argument("--vectors", type=Path, help="a file that keeps the embeddings for further calls")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    if not (options.source / "banking77.test.csv").is_file():
        sys.exit(f"{options.source} holds no banking77.test.csv; name the folder of the public files with --source")
    return options


def cells_for_peer(null: Replay, replays: Mapping[str, Replay]) -> dict[str, Any]:
    """The cells of Evidently: one without a shift, and each shift at the largest share."""
    size = min(SIZES)
    cells = {"none": (null.pool, pairs_of(null, size, 0.0, NULL_PAIRS))}
    for name, replay in replays.items():
        cells[f"{name} {SHARES[-1]}"] = (replay.pool, pairs_of(replay, size, SHARES[-1], PAIRS))
    return cells


def main() -> None:
    options = parse_options()
    embedder = KeptVectors(Embedder(resolve("minilm-l6")), options.vectors)
    replays = banking(options.source, embedder)
    null = Replay(pool=replays["topic"].pool, usual=replays["topic"].usual, shifted=replays["topic"].usual)
    result = Result(options.out)
    keep = result.keep
    keep("alarm_free", value=ALARM_FREE)
    shifts = list(product(replays.items(), SHARES)) if "shifts" in options.parts else []
    for size, share_of_replays in SIZES.items():
        if "without" in options.parts:
            count = options.replays // share_of_replays
            keep("without", "banking77", str(size), value=without_drift(null, size, count))
        for (name, replay), share in shifts:
            if not (options.missing and result.holds("shifts", str(size), name, str(share))):
                keep("shifts", str(size), name, str(share), value=with_shift(replay, size, share))
    if "releases" in options.parts and (options.source / "endoflife").is_dir():
        replay = releases(options.source, embedder)
        keep("without", "endoflife", "100", value=without_drift(replay, 100, options.replays))
    if options.peer and "evidently" in options.parts:
        cells = cells_for_peer(null, replays)
        held = [name for name in cells if options.missing and result.holds("evidently", name)]
        for name, told in beside(options.peer, {name: one for name, one in cells.items() if name not in held}):
            keep("evidently", name, value=told)


if __name__ == "__main__":
    main()
