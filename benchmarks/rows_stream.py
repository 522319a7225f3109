"""Seconds and memory of reading, checking, splitting and encoding 1,000 to 1,000,000 rows, and near pairs that MinHash
finds.

Each size runs in a process of its own (`open_workspace`). Memory is what the process holds beyond what it held before:
anonymous pages (`RssAnon`), looked at every 20 ms; pages of files that the system can drop at any time count apart
(`RssFile`). Seconds are of the processor, which other programs change less than they change the clock; the exponent is
the slope of their logarithm over that of the rows, from 5,000 rows on. Then the training rows are encoded under the
instruction alone, as an arm encodes them, and all are read once (`encode`; the base model is loaded before). The same
is measured for preferences, of two answers of 20 words each, and for rows with four passages. The rows
have 30 words each of 5,000, and a twentieth repeats another one nearly. Recall: pairs of a spanning forest of the
exact join whose texts are one component by MinHash, by their Jaccard similarity.

    python benchmarks/rows_stream.py [--sizes ROWS …] [--out FILE]   (some 30 minutes; 10,000,000 rows take an hour)

What the file already has from this machine is kept: other sizes, preferences, passages and recall; delete it to
measure all again. More than MOST_ENCODED rows are not encoded.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.base.files import write_json
from trimtab.base.machine import describe_machine, versions

if TYPE_CHECKING:
    from trimtab.arms.workspace import Workspace

RESULT = Path(__file__).parent / "results" / "rows_stream.json"
SIZES = (1_000, 10_000, 100_000, 300_000, 1_000_000)
MOST_ENCODED = 1_000_000  # it takes as long for each row
RECALL = (("planted", 30_000), ("planted", 100_000), ("alike", 10_000))
BANDS = (0.8, 0.82, 0.85, 0.9, 1.01)
WORDS, CHANGED = 30, 5  # words of a question; most words that are changed in one that repeats another
BLOCK = 50_000
EXAMPLES = 1_000  # rows beside the preferences
WITH_PASSAGES, DOCUMENTS, PASSAGES = 10_000, 500, 4
PREFERENCES = (20_000, 100_000)


def questions(count: int) -> Iterator[str]:
    """Questions of drawn words; every twentieth is an earlier one of its block with some words changed."""
    draw = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    vocabulary = np.array(["".join(draw.choice(letters, 7)) for _ in range(5_000)])
    for start in range(0, count, BLOCK):
        words = vocabulary[draw.integers(5_000, size=(min(BLOCK, count - start), WORDS))]
        for n in range(20, len(words), 20):
            words[n] = words[draw.integers(n)]
            words[n, draw.integers(WORDS, size=draw.integers(1, CHANGED + 1))] = draw.choice(vocabulary)
        yield from map(" ".join, words.tolist())


def alike(count: int) -> Iterator[str]:
    """Questions of one form with three drawn names in it: most are near many others."""
    draw = np.random.default_rng(0)
    names = ["".join(draw.choice(list("abcdefghijklmnopqrstuvwxyz"), 6)) for _ in range(400)]
    for n in range(count):
        a, b, c = draw.choice(names, 3)
        yield f"How do I send {a} from my account in {b} to another one there before it closes on {c}?{n % 7}"


def memory_mb(kind: str) -> float:
    return int(re.search(rf"{kind}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024  # type: ignore[index]


class Peak:
    """Looks at memory every 20 ms while it is open."""

    def __enter__(self) -> Peak:
        self.anonymous_mb = self.file_mb = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._is_over.wait(0.02):
            self.anonymous_mb = max(self.anonymous_mb, memory_mb("RssAnon"))
            self.file_mb = max(self.file_mb, memory_mb("RssFile"))

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()


def encoded(workspace: Workspace, *, judged: bool = False, passages: int = 0) -> dict[str, Any]:
    """Encode the training rows, or both answers of the preferences, and read them once."""
    from trimtab.arms.contexts import Context
    from trimtab.arms.objectives import judged_answers, training_rows
    from trimtab.arms.session import Session
    from trimtab.base.machine import release_memory

    session = Session(workspace)
    _ = session.encoder
    if passages:
        session.retriever.hits(workspace.splits["test"][:1])
    context = Context(passages=passages)
    release_memory()
    before, processor = memory_mb("RssAnon"), time.process_time()
    rows: Any
    with Peak() as peak:
        if judged:
            rows, _ = judged_answers(session, context, "train")
        else:
            rows, _ = training_rows(session, context, workspace.splits["train"], 0)
    taken = time.process_time() - processor
    release_memory()
    held, processor = memory_mb("RssAnon"), time.process_time()
    tokens = sum(len(one.ids) for row in rows for one in (row.answers if judged else (row.encoded,)))
    return {
        "rows": len(rows),
        "tokens": tokens,
        "processor_seconds": taken,
        "read_processor_seconds": time.process_time() - processor,
        "peak_mb": peak.anonymous_mb - before,
        "held_mb": held - before,
    }


def opened(count: int) -> dict[str, Any]:
    """Open a task of so many rows in this process."""
    from trimtab import load_task
    from trimtab.arms.workspace import open_workspace

    with tempfile.TemporaryDirectory() as scratch:
        rows = Path(scratch) / "rows.jsonl"
        with rows.open("w") as file:
            for question in questions(count):
                file.write(json.dumps({"question": question, "answer": question[-20:]}) + "\n")
        (Path(scratch) / "trimtab.toml").write_text(
            '[task]\nkind = "answer"\n[data]\nexamples = ["rows.jsonl"]\n[base]\nmodel = "smollm2-135m-q4"\n'
        )
        task, before = load_task(Path(scratch)), memory_mb("RssAnon")
        began, processor = time.perf_counter(), time.process_time()
        with Peak() as peak:
            workspace = open_workspace(task)
        seconds, processor_seconds = time.perf_counter() - began, time.process_time() - processor
        held, load = memory_mb("RssAnon"), os.getloadavg()[1]
        return {
            "rows": count,
            "seconds": seconds,
            "processor_seconds": processor_seconds,
            "load": load,
            "before_mb": before,
            "peak_mb": peak.anonymous_mb,
            "held_mb": held,
            "file_pages_mb": peak.file_mb,
            "file_mb": rows.stat().st_size / 2**20,
            "exact": workspace.audit.rows.exact,
            "near_pairs": len(workspace.audit.rows.near_pairs),
            "splits": {name: len(part) for name, part in workspace.splits.items()},
            "encode": encoded(workspace) if count <= MOST_ENCODED else None,
        }


def preferences(count: int) -> dict[str, Any]:
    """Open a task of so many preferences in this process, and encode them."""
    from trimtab import load_task
    from trimtab.arms.workspace import open_workspace

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with (folder / "rows.jsonl").open("w") as rows, (folder / "judged.jsonl").open("w") as file:
            for number, question in enumerate(questions(count)):
                words = question.split()
                answers = {"chosen": " ".join(words[:20]), "rejected": " ".join(words[-20:])}
                file.write(json.dumps({"prompt": question, **answers}) + "\n")
                if number < EXAMPLES:
                    rows.write(json.dumps({"question": f"{question}?", "answer": words[0]}) + "\n")
        (folder / "trimtab.toml").write_text(
            '[task]\nkind = "answer"\n[data]\nexamples = ["rows.jsonl"]\n'
            'preferences = ["judged.jsonl"]\n[base]\nmodel = "smollm2-135m-q4"\n'
        )
        task, before, processor = load_task(folder), memory_mb("RssAnon"), time.process_time()
        with Peak() as peak:
            workspace = open_workspace(task)
        return {
            "preferences": count,
            "processor_seconds": time.process_time() - processor,
            "peak_mb": peak.anonymous_mb - before,
            "held_mb": memory_mb("RssAnon") - before,
            "encode": encoded(workspace, judged=True),
        }


def retrieving(count: int) -> dict[str, Any]:
    """Encode so many rows with passages of made documents, each of which holds the words of some questions."""
    from trimtab import load_task
    from trimtab.arms.workspace import open_workspace

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "documents").mkdir()
        made = list(questions(count))
        for number in range(DOCUMENTS):
            (folder / "documents" / f"{number}.txt").write_text(". ".join(made[number::DOCUMENTS][:2]))
        with (folder / "rows.jsonl").open("w") as rows:
            for question in made:
                words = question.split()
                rows.write(json.dumps({"question": " ".join(words[:20]), "answer": " ".join(words[20:])}) + "\n")
        (folder / "trimtab.toml").write_text(
            '[task]\nkind = "answer"\n[data]\nexamples = ["rows.jsonl"]\ndocuments = ["documents/"]\n'
            '[base]\nmodel = "smollm2-135m-q4"\nembedding = "minilm-l6"\n'
        )
        return {"rows": count, "encode": encoded(open_workspace(load_task(folder)), passages=PASSAGES)}


def recall(kind: str, count: int) -> dict[str, Any]:
    """Join the same texts exactly and by MinHash."""
    from trimtab.data import duplicates

    texts = list({"planted": questions, "alike": alike}[kind](count))
    found: dict[str, Any] = {"kind": kind, "rows": count}
    indices = []
    for name, most in (("exact", 10**9), ("minhash", 0)):
        duplicates.MOST_COMPARED = most
        began = time.process_time()
        indices.append(duplicates.find_duplicates(texts))
        found[name] = {"processor_seconds": time.process_time() - began, "pairs": len(indices[-1].near_pairs)}
    exact, estimated = indices
    found["exact"]["is_exact"] = exact.exact
    together = [(s, estimated.components[a] == estimated.components[b]) for a, b, s in exact.near_pairs]
    found["by_similarity"] = [
        {"from": low, "pairs": len(own), "missed": len(own) - int(sum(own))}
        for low, high in pairwise(BANDS)
        if (own := [is_found for s, is_found in together if low <= s < high])
    ]
    return found


def exponent(sizes: list[dict[str, Any]]) -> float:
    """Return b of processor seconds = a · rowsᵇ by least squares of the logarithms, from 5,000 rows on."""
    some = [one for one in sizes if one["rows"] >= 5_000]
    return float(np.polyfit(*(np.log([one[key] for one in some]) for key in ("rows", "processor_seconds")), 1)[0])


def summary(sizes: list[dict[str, Any]]) -> dict[str, float]:
    """Return the exponents, and bytes a row between the sizes that MinHash joins: of all rows, and of encoding."""
    large = [one for one in sizes if not one["exact"]]
    encode = [one["encode"] for one in sizes if one["encode"]]
    found = {"exponent": exponent(sizes), "file_bytes_a_row": large[-1]["file_mb"] * 2**20 / large[-1]["rows"]}
    for kind, some in (("", large), ("encode_", [one["encode"] for one in large if one["encode"]])):
        few, many = some[0], some[-1]
        for name, key in (("bytes_a_row", "peak_mb"), ("bytes_held_a_row", "held_mb")):
            found[kind + name] = (many[key] - few[key]) * 2**20 / max(1, many["rows"] - few["rows"])
    last = encode[-1]
    found["encode_exponent"] = exponent(encode)
    found["encode_microseconds_a_row"] = 1e6 * last["processor_seconds"] / last["rows"]
    found["encode_read_microseconds_a_row"] = 1e6 * last["read_processor_seconds"] / last["rows"]
    return found


def in_process(*step: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, "--step", *step], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--step", nargs=2)
    given = parser.parse_args()
    if given.step:
        kind, count = given.step[0], int(given.step[1])
        step = {"open": opened, "preferences": preferences, "passages": retrieving}.get(kind) or partial(recall, kind)
        print(json.dumps(step(count)))
        return
    found: dict[str, Any] = {"machine": describe_machine()}
    before = json.loads(given.out.read_text()) if given.out.is_file() else {}
    if before.get("machine") == found["machine"]:
        found = before
    found["versions"] = versions()
    for count in given.sizes:
        new = in_process("open", str(count))
        others = [one for one in found.get("sizes", []) if one["rows"] != count]
        found["sizes"] = sorted([*others, new], key=lambda one: one["rows"])
        write_json(given.out, found)
    found |= summary(found["sizes"])
    parts = {
        "preferences": [("preferences", count) for count in PREFERENCES],
        "passages": [("passages", WITH_PASSAGES)],
        "recall": RECALL,
    }
    for name, steps in parts.items():
        if name not in found:
            found[name] = [in_process(kind, str(count)) for kind, count in steps]
        write_json(given.out, found)


if __name__ == "__main__":
    main()
