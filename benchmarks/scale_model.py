"""A model of time, memory and machine hours far beyond this machine, from measured rates; formulas are below.

Run: python benchmarks/scale_model.py measure  (some minutes: rates that no other result holds)
     python benchmarks/scale_model.py write    (→ benchmarks/results/scale_model.json and the tables of docs/scale.md)

Every rate is a committed result (`RATES` names file and key), or stands in `ASSUMED` with its reason. What lies beyond
the sizes that were measured is extrapolated by the formula beside it.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.base.files import read_json, write_atomic, write_json
from trimtab.base.machine import describe_machine, versions
from trimtab.data.similarity_join import KEYS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
RESULT = RESULTS / "scale_model.json"
CLUSTER = RESULTS / "cluster.json"  # the schedule of several workers, measured and simulated
PAGE = ROOT / "docs" / "scale.md"

VECTORS = (10_000, 100_000)  # sizes at which a scan of all vectors is measured
PASSAGES = 81  # of the handbook that are embedded
WORDS = 60  # of a passage, as the product cuts them by default

# Rates of other results: file, keys that lead to the value.
RATES: dict[str, tuple[str, tuple[str | int, ...]]] = {
    "answers_per_second": ("serving_load.json", ("closed", "goodput_per_second")),
    "training_tokens_per_second": (
        "train_vs_trl.json",
        ("on", "AMD EPYC (family 25 model 17), avx512_bf16", "sft", "tokens_per_second", "trimtab"),
    ),
    "adapter_bytes": ("study_handbook.json", ("arms", 3, "stored_bytes")),
    "machine_gb": ("serving_load.json", ("machine", "memory_gb")),
    "cores": ("serving_load.json", ("machine", "cores")),
}
# Of an index of 10,000 and of 100,000 passages: seconds of the processor, memory and disk grow by what lies between.
INDEX = ("million_passages.json", "10000", "100000")
# Rows by reading, checking and splitting them: from the size on at which near duplicates are joined by MinHash.
STREAM = "rows_stream.json"
TOKEN_BYTES = 5  # of an encoded row, `trimtab/training/encoded_rows.py`
# What nobody measured here, with the reason for the value.
ASSUMED: dict[str, tuple[float, str]] = {
    "disk_gb": (1000.0, "the disk of a machine"),
    "patience_hours": (24.0, "longer than a day counts as broken"),
    "peak_factor": (3.0, "questions in the busiest minute against the mean of the day"),
    "judged_share": (0.01, "questions that a user judges"),
    "row_tokens": (200.0, "tokens of a training row with its prompt"),
    "base_parameters": (134.5e6, "of SmolLM2-135M, by which answering and training scale in proportion"),
    "gpu_flops": (0.4 * 989e12, "40% of an H100's published bf16 rate"),
    "gpu_gb": (80.0, "an H100's published memory"),
}


# Measuring: by processor seconds, which other programs on the machine change less than they change the clock.


def measured_scan(count: int) -> dict[str, float]:
    """Search all of so many vectors of 384 numbers, without an index."""
    import lancedb

    draw = np.random.default_rng(count)
    with tempfile.TemporaryDirectory() as scratch:
        vectors = draw.standard_normal((count, 384), dtype=np.float32)
        table = lancedb.connect(scratch).create_table("t", [{"vector": vector} for vector in vectors])
        table.search(vectors[0]).limit(10).to_list()
        seconds = []
        for vector in vectors[:10]:
            began = time.process_time()
            table.search(vector).limit(10).to_list()
            seconds.append(time.process_time() - began)
    return {"vectors": count, "processor_seconds": statistics.median(seconds)}


def measured_embedding(count: int) -> dict[str, float]:
    """Embed passages of the handbook with the usual embedding model."""
    from trimtab.model.catalog import resolve
    from trimtab.retrieval.embed import Embedder

    with as_file(files("trimtab.demos") / "handbook" / "documents") as folder:
        words = " ".join(path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.md"))).split()
    texts = [" ".join(words[start : start + WORDS]) for start in range(0, count * WORDS, WORDS)]
    if len(texts[-1].split()) < WORDS:
        raise SystemExit(f"the handbook has fewer than {count} passages")
    embedder = Embedder(resolve("minilm-l6"))
    embedder.encode(texts[:8])
    began = time.process_time()
    embedder.encode(texts)
    return {"passages": count, "processor_seconds": time.process_time() - began}


STEPS: dict[str, Callable[[int], dict[str, float]]] = {
    "scan": measured_scan,
    "embedding": measured_embedding,
}


def measure() -> dict[str, Any]:
    """Measure each size in a process of its own."""
    sizes = {"scan": VECTORS, "embedding": (PASSAGES,)}
    found: dict[str, Any] = {}
    for step, counts in sizes.items():
        for count in counts:
            command = [sys.executable, __file__, "step", step, str(count)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.setdefault(step, []).append(json.loads(done.stdout.splitlines()[-1]))
            print(step, found[step][-1], flush=True)
    return {**found, "machine": describe_machine(), "versions": versions()}


# The model


@dataclass(frozen=True, kw_only=True)
class Line:
    """One decade of an axis: what it takes, what is the tightest limit, and whether the machine of the rates keeps it.

    `use`: the share of each limit that is needed, above 1 where it is broken.
    """

    size: float
    figures: dict[str, float]
    use: dict[str, float]

    @property
    def bottleneck(self) -> str:
        return max(self.use, key=lambda name: self.use[name])

    @property
    def holds(self) -> bool:
        return self.use[self.bottleneck] <= 1


def rates(measured: dict[str, Any]) -> dict[str, float]:
    """Return every rate that the formulas use."""
    found = {name: float(value_at(read_json(RESULTS / file), keys)) for name, (file, keys) in RATES.items()}
    sizes = read_json(RESULTS / STREAM)["sizes"]
    rows = [one for one in sizes if not one["exact"]]
    found["row_seconds"], found["row_exponent"] = power_law(
        [one["rows"] for one in rows], [one["processor_seconds"] for one in rows]
    )
    first, last = rows[0], rows[-1]
    found["row_mb"] = (last["peak_mb"] - first["peak_mb"]) / (last["rows"] - first["rows"])
    encode = next(one["encode"] for one in reversed(rows) if one["encode"])
    found["encode_seconds"] = encode["processor_seconds"] / encode["rows"]
    found["rows_base_mb"] = max(one["peak_mb"] for one in sizes if one["exact"])  # the largest exact join
    found["row_bytes"] = last["file_mb"] * 2**20 / last["rows"]
    scan = measured["scan"][-1]
    found["scan_seconds"] = scan["processor_seconds"] / scan["vectors"]
    few, many = (read_json(RESULTS / INDEX[0])["sizes"][size]["build"] for size in INDEX[1:])
    between = float(INDEX[2]) - float(INDEX[1])
    for name in ("processor_seconds", "peak_mb", "disk_mb"):
        found[f"index_{name}"] = (many[name] - few[name]) / between
    found["index_base_mb"] = many["peak_mb"] - found["index_peak_mb"] * float(INDEX[2])
    found["common_seconds"] = common_seconds()
    embedding = measured["embedding"][0]
    found["embedding_seconds"] = embedding["processor_seconds"] / embedding["passages"]
    return found | {name: value for name, (value, _) in ASSUMED.items()}


def value_at(plain: Any, keys: Sequence[str | int]) -> Any:
    for key in keys:
        plain = plain[key]
    return plain


def power_law(sizes: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """Return a and b of seconds = a · sizeᵇ, by least squares of the logarithms."""
    slope, intercept = np.polyfit(np.log(sizes), np.log(seconds), 1)
    return float(math.exp(intercept)), float(slope)


def of_rows(n: float, rate: dict[str, float]) -> Line:
    """Reading, checking, splitting and encoding on one core, with the file, a copy of its rows, their signatures and
    tokens on the disk; training one epoch of the 135M base on all rows.
    """
    hours = rate["row_seconds"] * n ** rate["row_exponent"] / 3600
    memory = (rate["rows_base_mb"] + rate["row_mb"] * n) / 1024
    encode = rate["encode_seconds"] * n / 3600
    disk = (2 * rate["row_bytes"] + 8 * KEYS + TOKEN_BYTES * rate["row_tokens"]) * n / 1e9
    epoch = rate["row_tokens"] * n / rate["training_tokens_per_second"] / 3600
    use = {
        "memory for rows": memory / rate["machine_gb"],
        "time to check them": hours / rate["patience_hours"],
        "time to encode them": encode / rate["patience_hours"],
        "time of an epoch": epoch / rate["patience_hours"],
        "disk": disk / rate["disk_gb"],
    }
    figures = {
        "check_hours": hours,
        "encode_hours": encode,
        "memory_gb": memory,
        "disk_gb": disk,
        "epoch_machine_hours_(assumed_tokens)": epoch,
    }
    return Line(size=n, figures=figures, use=use)


def of_passages(n: float, rate: dict[str, float]) -> Line:
    """Embedding on all cores of a machine; then one index over all of them, in one process; a scan without it."""
    embed = rate["embedding_seconds"] * n / rate["cores"] / 3600
    build = rate["index_processor_seconds"] * n / rate["cores"] / 3600
    memory = (rate["index_base_mb"] + rate["index_peak_mb"] * n) / 1024
    disk = rate["index_disk_mb"] * n / 1000
    use = {
        "time to embed them": embed / rate["patience_hours"],
        "time to index them": build / rate["patience_hours"],
        "memory to index them": memory / rate["machine_gb"],
        "disk": disk / rate["disk_gb"],
    }
    figures = {"embed_machine_hours": embed, "index_machine_hours": build, "memory_gb": memory, "disk_gb": disk}
    figures["scan_ms"] = rate["scan_seconds"] * n / rate["cores"] * 1000
    return Line(size=n, figures=figures, use=use)


def of_questions(n: float, rate: dict[str, float]) -> Line:
    """Servers for the busiest minute; what they ask of one registry and one store of judgements."""
    busiest = n / 86_400 * rate["peak_factor"]
    servers = max(1, math.ceil(busiest / rate["answers_per_second"]))
    figures = {
        "busiest_per_second_(assumed_peak)": busiest,
        "servers": float(servers),
        "machine_hours_a_day": servers * 24.0,
        "registry_reads_per_second": servers / 2.0,  # each looks every two seconds
        "judgements_per_second_(assumed_share)": n * rate["judged_share"] / 86_400,
    }
    return Line(size=n, figures=figures, use={"answers of one server": busiest / rate["answers_per_second"]})


def of_arms(n: float, rate: dict[str, float], seconds: Sequence[float]) -> Line:
    """Arms as those of the handbook's study, over and over, on 1, 10 and 100 machines; rows to tell them apart."""
    jobs = [seconds[number % len(seconds)] for number in range(int(n))]
    common = rate["common_seconds"]
    hours = {f"hours_on_{machines}": (common + makespan(jobs, machines)) / 3600 for machines in (1, 10, 100)}
    rows = rows_factor(int(n)) / rows_factor(len(seconds))
    use = {"time on one machine": hours["hours_on_1"] / rate["patience_hours"]}
    figures = {**hours, "machine_hours": sum(jobs) / 3600, "test_rows_factor": rows}
    figures["adapters_gb"] = rate["adapter_bytes"] * n / 1e9
    return Line(size=n, figures=figures, use=use)


def makespan(jobs: Sequence[float], machines: int) -> float:
    """Return when the last of the jobs ends, each begun in this order on the first machine that is free."""
    free = [0.0] * machines
    for job in jobs:
        heapq.heapreplace(free, free[0] + job)
    return max(free)


def rows_factor(arms: int) -> float:
    """Return what the test rows for the same power are in proportion to: (z of Bonferroni's level + z of 80%)², where
    each arm is compared with the best one.
    """
    normal = statistics.NormalDist()
    return (normal.inv_cdf(1 - 0.05 / 2 / max(1, arms - 1)) + normal.inv_cdf(0.8)) ** 2


def of_base(n: float, rate: dict[str, float]) -> Line:
    """A base of so many parameters in bfloat16: time in proportion to them, from the 135M base."""
    times = n / rate["base_parameters"]
    weights = 2 * n / 1e9
    seconds = times / rate["answers_per_second"]
    epoch = 10_000 * rate["row_tokens"] * times / rate["training_tokens_per_second"] / 3600
    gpu = 10_000 * rate["row_tokens"] * 4 * n / rate["gpu_flops"] / 3600  # LoRA: forward and half of backward
    use = {
        "memory for weights": weights / rate["machine_gb"],
        "time of an epoch over 10,000 rows": epoch / rate["patience_hours"],
        "seconds an answer, of 20": seconds / 20,
    }
    figures = {
        "weights_gb": weights,
        "GPUs_for_weights_(assumed)": math.ceil(weights / rate["gpu_gb"]),
        "machine_seconds_an_answer": seconds,
        "epoch_machine_hours_(assumed_tokens)": epoch,
        "epoch_GPU_hours_(assumed)": gpu,
    }
    return Line(size=n, figures=figures, use=use)


def study_seconds(name: str = "handbook") -> list[float]:
    """Return the seconds of each arm of a study, as its plan foretold them and corrected by its error."""
    foretold = read_json(RESULTS / f"study_{name}.json")["foretold"]
    return [actual(one) for name, one in foretold.items() if name.endswith(".seconds")]


def actual(foretold: dict[str, float]) -> float:
    """Return the measured value of a figure whose relative error is (foretold - measured) / measured."""
    return foretold["value"] / (1 + foretold["error"])


STUDIES = ("handbook", "endoflife", "spam", "style", "sums")


def common_seconds(without: str | None = None) -> float:
    """Return what a study takes beside its arms (start, reading, report): the median of the studies but one."""
    return statistics.median(
        read_json(RESULTS / f"study_{name}.json")["seconds"] - sum(study_seconds(name))
        for name in STUDIES
        if name != without
    )


def checks() -> list[dict[str, Any]]:
    """Compare the schedule with what studies took, whose arms came one after the other on one machine; what a study
    takes beside them is that of the other studies.
    """
    found = []
    for name in STUDIES:
        seconds, measured = study_seconds(name), read_json(RESULTS / f"study_{name}.json")["seconds"]
        model = makespan(seconds, 1) + common_seconds(without=name)
        plain = {"study": name, "arms": len(seconds), "model_seconds": model, "measured_seconds": measured}
        found.append({**plain, "error": model / measured - 1})
    return found


AXES: dict[str, tuple[float, ...]] = {
    "rows": tuple(10.0**power for power in range(3, 10)),
    "passages": tuple(10.0**power for power in range(3, 10)),
    "questions a day": tuple(10.0**power for power in range(2, 8)),
    "arms": (1, 10, 100, 1000),
    "parameters of the base": (134.5e6, 1e9, 8e9, 70e9),
}


def breaking(formula: Callable[[float], Line]) -> dict[str, float]:
    """Return by limit the size at which all of it is used, by halving; the least first."""
    found = {}
    for limit in formula(1000).use:
        low, high = 0.0, 15.0  # powers of ten
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if formula(10**middle).use[limit] > 1 else (middle, high)
        found[limit] = 10**high
    return dict(sorted(found.items(), key=lambda one: one[1]))


def modelled(measured: dict[str, Any]) -> dict[str, Any]:
    """Return the whole result: rates, lines of every axis, and checks."""
    rate, seconds = rates(measured), study_seconds()
    formulas: dict[str, Callable[[float], Line]] = {
        "rows": lambda n: of_rows(n, rate),
        "passages": lambda n: of_passages(n, rate),
        "questions a day": lambda n: of_questions(n, rate),
        "arms": lambda n: of_arms(n, rate, seconds),
        "parameters of the base": lambda n: of_base(n, rate),
    }
    axes = {
        name: [
            {**asdict(line), "bottleneck": line.bottleneck, "holds": line.holds} for line in map(formula, AXES[name])
        ]
        for name, formula in formulas.items()
    }
    return {
        "measured": measured,
        "schedule": read_json(CLUSTER)["model"] if CLUSTER.is_file() else [],
        "from": {name: [file, *map(str, keys)] for name, (file, keys) in RATES.items()},
        "assumed": {name: {"value": value, "why": why} for name, (value, why) in ASSUMED.items()},
        "rates": rate,
        "breaks": {name: breaking(formula) for name, formula in formulas.items() if name != "arms"},
        "axes": axes,
        "checks": checks(),
    }


# The page


def figure(value: float) -> str:
    """Return a number of two digits, with thousands apart."""
    if not value:
        return "0"
    digits = max(0, 1 - math.floor(math.log10(abs(value))))
    rounded = round(value, 1 - math.floor(math.log10(abs(value))))
    return f"{rounded:,.{digits}f}"


def tables(result: dict[str, Any]) -> str:
    """Return the tables of the page."""
    parts = ["| what grows | what breaks | at |", "| --- | --- | ---: |"]
    for axis, limits in result["breaks"].items():
        parts += [f"| {axis} | {limit} | {figure(size)} |" for limit, size in limits.items()]
    parts.append("")
    for axis, lines in result["axes"].items():
        names = list(lines[0]["figures"])
        parts.append(f"### {axis[0].upper()}{axis[1:]}\n")
        parts.append(
            f"| {axis} | {' | '.join(name.replace('_', ' ') for name in names)} | tightest limit | used of it |"
        )
        parts.append("| ---: |" + " ---: |" * len(names) + " --- | ---: |")
        for line in lines:
            used = line["use"][line["bottleneck"]]
            cells = [figure(line["size"]), *(figure(line["figures"][name]) for name in names), line["bottleneck"]]
            parts.append(f"| {' | '.join(cells)} | {figure(100 * used)}% |")
        parts.append("")
    parts += ["### Assumed\n", "| what | value | why |", "| --- | ---: | --- |"]
    parts += [
        f"| {name.replace('_', ' ')} | {one['value']:,g} | {one['why']} |" for name, one in result["assumed"].items()
    ]
    parts += ["", "### Measured\n", "| what | value | from |", "| --- | ---: | --- |"]
    for name, value in result["rates"].items():
        if name not in result["assumed"]:
            default = (
                INDEX[0] if name.startswith("index_") else STREAM if name.startswith(("row", "encode")) else RESULT.name
            )
            source = "study_*.json" if name == "common_seconds" else result["from"].get(name, [default])[0]
            parts.append(f"| {name.replace('_', ' ')} | {value:.3g} | `{source}` |")
    parts += [
        "",
        "### Checked\n",
        "| study | arms | modelled s | measured s | error |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for one in result["checks"]:
        seconds = f"{one['model_seconds']:.0f} | {one['measured_seconds']:.0f}"
        parts.append(f"| {one['study']} | {one['arms']} | {seconds} | {one['error']:+.0%} |")
    if result["schedule"]:
        parts += ["", "| workers | cores | what | modelled s | measured s | error |"]
        parts.append("| ---: | ---: | --- | ---: | ---: | ---: |")
    for one in result["schedule"]:
        seconds = f"{one['model_seconds']:.0f} | {one['measured_seconds']:.0f}"
        what = "building four arms" if one["what"] == "building" else "the whole study"
        parts.append(f"| {one['workers']} | {one['cores']} | {what} | {seconds} | {one['error']:+.0%} |")
    return "\n".join(parts)


START, END = "<!-- tables: written by benchmarks/scale_model.py -->", "<!-- end tables -->"


def page_with(text: str, result: dict[str, Any]) -> str:
    """Return the page with its tables written anew."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{tables(result)}\n{END}{after}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("what", choices=("measure", "step", "write"))
    options.add_argument("step", nargs="*")
    chosen = options.parse_args()
    if chosen.what == "step":
        print(json.dumps(STEPS[chosen.step[0]](int(chosen.step[1]))))
        return
    measured = measure() if chosen.what == "measure" else read_json(RESULT)["measured"]
    result = modelled(measured)
    write_json(RESULT, result)
    write_atomic(PAGE, page_with(PAGE.read_text(encoding="utf-8"), result))


if __name__ == "__main__":
    main()
