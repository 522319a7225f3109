"""Embedding a corpus by one process, by one worker of a Ray cluster and by two, with one core each; and by Ray Data.

Run: python benchmarks/embedding_workers.py  →  benchmarks/results/embedding_workers.json, in some minutes on two cores,
alone on the machine. Needs the model minilm-l6 (`trimtab pull minilm-l6`). Each run is a process of its own, bound to
as many cores as it has workers, in the order A B C D D C B A. `seconds`: from connecting to the table of the index,
with starting processes and loading models. `processor_seconds`: of all processes on these cores; not those of Ray
Data's workers. `largest_difference`: of any number of a vector to that of one process. Linux, whose processes can be
bound to cores.

`ray_data`: what its import costs, and how it ends over a `ray://` address; see `trimtab/scale/embedding.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from trimtab.arms.retriever import load_embedder
from trimtab.base.files import sha256_text, write_json
from trimtab.base.machine import describe_machine, versions
from trimtab.base.records import Document, Section
from trimtab.retrieval.index import Index, SaveVectors

RESULT = Path(__file__).resolve().parent / "results" / "embedding_workers.json"
MODEL = "minilm-l6"
PASSAGE_WORDS = (20, 60)  # the least and the most
CORES = {"one process": 1, "one worker": 1, "two workers": 2, "Ray Data, two workers": 2}


def documents_of(count: int) -> list[Document]:
    """So many documents of one passage, of words of one to nine letters."""
    draw = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randint(1, 9))) for _ in range(5000)]
    found = []
    for number in range(count):
        text = f"{number} " + " ".join(draw.choices(words, k=draw.randint(*PASSAGE_WORDS)))
        part = Section(path=(), text=text)
        found.append(Document(id=str(number), title="", source=str(number), sections=(part,), digest=sha256_text(text)))
    return found


def by_trimtab(batches: Iterator[list[str]], keep: SaveVectors) -> None:
    """As `trimtab study --on local` does, with one core for each worker."""
    from trimtab.scale.cluster import open_cluster

    load = partial(load_embedder, MODEL, Path())
    with open_cluster("local") as machines:
        machines.embed(load, load().digest, batches, keep, lambda _: None)


class RayDataWorker:
    """The same for `map_batches` of Ray Data."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        self._encoder = load_embedder(MODEL, Path())

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, Any]:
        texts = list(batch["text"])
        return {"text": texts, "vector": self._encoder.encode(texts)}


def by_ray_data(batches: Iterator[list[str]], keep: SaveVectors) -> None:
    """All batches as blocks of a dataset: it draws none while it runs."""
    import pyarrow
    import ray
    import ray.data

    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "CRITICAL"}
    ray.init(address="local", num_cpus=len(os.sched_getaffinity(0)), object_store_memory=80 << 20, **quiet)
    ray.data.DataContext.get_current().enable_progress_bars = False
    tables = [pyarrow.table({"text": batch}) for batch in batches]
    pool = ray.data.ActorPoolStrategy(size=len(os.sched_getaffinity(0)))
    found = ray.data.from_arrow(tables).map_batches(RayDataWorker, batch_size=None, compute=pool, num_cpus=1)
    for rows in found.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
        keep(list(rows["text"]), np.stack(list(rows["vector"])).astype(np.float32), 0.0)
    ray.shutdown()


def busy_seconds() -> float:
    """The seconds that the cores of this process were busy since the machine started."""
    cores = psutil.cpu_times(percpu=True)
    return sum(cores[core].user + cores[core].system for core in os.sched_getaffinity(0))


def run_here(way: str, count: int, folder: Path) -> dict[str, float]:
    """Embed and index the passages in this process's cores; the vectors are left in the folder."""
    documents, encoder = documents_of(count), load_embedder(MODEL, Path())
    index = Index.open(folder / "index", encoder)
    began, busy = time.perf_counter(), busy_seconds()

    def embed(batches: Iterator[list[str]], _: int, keep: SaveVectors) -> None:
        elsewhere: Callable[[Iterator[list[str]], SaveVectors], None]
        if way == "one process":
            for texts in batches:
                keep(texts, encoder.encode(texts), 0.0)
            return
        elsewhere = by_ray_data if way.startswith("Ray Data") else by_trimtab
        elsewhere(batches, keep)

    index.embed_ahead(documents, embed)
    index.update(documents)
    seconds, busy = time.perf_counter() - began, busy_seconds() - busy
    names = [f"{number}#0" for number in range(count)]
    vectors = index.vectors(names)
    np.save(folder / "vectors.npy", np.stack([vectors[name] for name in names]))
    return {"seconds": seconds, "processor_seconds": busy}


def run(way: str, count: int, folder: Path) -> dict[str, float]:
    """One run, in a process of its own."""
    folder.mkdir()
    cores = sorted(os.sched_getaffinity(0))[: CORES[way]]
    command = [sys.executable, __file__, "--way", way, "--count", str(count), "--folder", str(folder)]
    done = subprocess.run(
        ["taskset", "-c", ",".join(map(str, cores)), *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


OVER_AN_ADDRESS = """
import ray, ray.data
ray.init(address="ray://127.0.0.1:{port}", log_to_driver=False, logging_level="CRITICAL")
try:
    print(ray.data.from_items([1, 2]).map_batches(lambda batch: batch).take_all())
except Exception as error:
    print(type(error).__name__, error)
"""
IMPORT = "import time, ray; began = time.perf_counter(); import ray.data; print(round(time.perf_counter() - began, 2))"


def ray_data_facts() -> dict[str, Any]:
    """What importing Ray Data costs beside Ray, and how a dataset ends over a `ray://` address."""
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}

    def said(*words: str) -> str:
        try:
            done = subprocess.run(
                [sys.executable, *words], capture_output=True, text=True, env=environment, timeout=300
            )
        except subprocess.TimeoutExpired:
            return "no answer within 300 s"
        return (done.stdout.splitlines() or done.stderr.splitlines() or [""])[-1]

    port = 23456
    main = "from ray.scripts.scripts import main; main()"
    head = ["start", "--head", "--port", "6399", "--ray-client-server-port", str(port), "--include-dashboard", "false"]
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-c", main, *head, "--num-cpus", "2", "--temp-dir", scratch, "--block"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, env=environment, **quiet) as process:
            time.sleep(30)
            over = said("-c", OVER_AN_ADDRESS.format(port=port))
            process.terminate()
    return {"import_seconds": said("-c", IMPORT), "over_a_ray_address": over}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2048)
    parser.add_argument("--way", choices=CORES)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(run_here(options.way, options.count, options.folder)))
        return
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in CORES}
    with tempfile.TemporaryDirectory() as folder:
        for number, way in enumerate([*CORES, *reversed(CORES)]):
            runs[way].append(run(way, options.count, Path(folder) / str(number)))
            print(way, runs[way][-1], flush=True)
        vectors = {way: np.load(Path(folder) / str(number) / "vectors.npy") for number, way in enumerate(CORES)}
    one = vectors.pop("one process")
    medians = {way: {what: median(each[what] for each in found) for what in found[0]} for way, found in runs.items()}
    seconds = {way: found["seconds"] for way, found in medians.items()}
    found = {
        "machine": describe_machine(),
        "versions": versions(),
        "load": os.getloadavg(),
        "model": MODEL,
        "passages": options.count,
        "runs": runs,
        "medians": medians,
        "two_over_one": seconds["one worker"] / seconds["two workers"],
        "one_over_no_ray": seconds["one process"] / seconds["one worker"],
        "largest_difference": {way: float(np.abs(found - one).max()) for way, found in vectors.items()},
    }
    write_json(options.out, found)  # what follows may fail
    found["ray_data"] = ray_data_facts()
    write_json(options.out, found)
    print(json.dumps({name: found[name] for name in ("two_over_one", "one_over_no_ray", "ray_data")}))


if __name__ == "__main__":
    main()
