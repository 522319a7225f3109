"""Measures how fast arms go stale on documents that change each month, and whether the safe retraining period is
predicted.

    python benchmarks/staleness.py run [--arms extract,lora+rag,…] [--products 16]   # appends missing lines to
                                       # results/staleness_runs.jsonl, one for each arm, policy and month
    python benchmarks/staleness.py compare                                           # → results/staleness.json
    python benchmarks/staleness.py show extract replaced 2026-07                     # ten answers, to be read

Release facts of 150 products at twelve month ends. Each arm is built once, on the documents and training questions
of the first month, and asked about other products at every month's end; the right answer is that month's. Three
policies: the documents are *replaced* by that month's, *kept beside* them (every version stays in the index), or
*not updated*. Rows are split by product; no test question is trained on; the stage `docs` reads all documents of the
first month. The same prompt is asked once.

The rate of change is estimated from the changes of the first three months alone, of all products, in three ways: one
share with one rate, a share and a rate for each kind of question, and rates that are spread by a gamma distribution.
Beside each stands what happened.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from scipy.optimize import brentq, minimize
from shared import SHARED, machine
from simulated import plain_answer

from trimtab.arms.answerers import ReadyArm, ready_arm
from trimtab.arms.contexts import Context, context_for
from trimtab.arms.extract import choose_threshold
from trimtab.arms.session import BATCH_ITEMS, Session, open_session
from trimtab.arms.trainer import train_weights
from trimtab.arms.workspace import open_workspace
from trimtab.base.config import ChangeTable, ChangingFacts
from trimtab.base.files import append_line, read_json_lines, sha256_text, write_json
from trimtab.base.grammar import is_trained
from trimtab.base.machine import versions
from trimtab.base.progress import Progress
from trimtab.base.records import Arm, Document, Example, Message, Prompt
from trimtab.base.task import Task, load_task, parse_arm
from trimtab.data.documents import read_documents
from trimtab.decision.cost import safe_period
from trimtab.measurement.evaluate import score_text
from trimtab.measurement.figures import score_estimate

HERE = Path(__file__).resolve().parent
SOURCE = SHARED / "endoflife"
RUNS, RESULT = HERE / "results" / "staleness_runs.jsonl", HERE / "results" / "staleness.json"
ARMS = ("extract", "lora+rag", "rag", "lora-docs")
POLICIES = ("replaced", "kept beside", "not updated")
KNOWN = 3  # months of change that the rates are estimated from
FIRST_ASKED = (1, 2, 3, 5, 8, 11)  # months after the first; a run that is cut off has these
LOSSES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.35, 0.38, 0.4)  # shares of the first accuracy that may be lost
SEED, REDRAWN = 0, 400
TASK = """[task]
name = "staleness"
kind = "answer"
instruction = "Answer with the version or the date (YYYY-MM-DD) alone. \
If the documents do not say, answer: I don't know."
unknown = "I don't know"
output_tokens = 32
[data]
examples = ["questions.jsonl"]
documents = ["DOCUMENTS/"]
columns = { input = "question", output = "answer" }
group = "product"
slice = "kind"
leakage = "report"
split = { dev = 0.1, test = 0.2, seed = 0 }
[base]
model = "smollm2-135m-q4"
embedding = "minilm-l6"
[study]
arms = ["extract", "rag", "lora-docs", "lora+rag"]
effort = "none"
[arm."lora+rag"]
epochs = 0.25
[arm.lora-docs]
epochs = { docs = 1, sft = 0.25 }
"""

Array = np.ndarray[Any, Any]
Row = dict[str, Any]


def questions(source: Path = SOURCE) -> list[Row]:
    """Return every question with its right answer at each month's end."""
    return [json.loads(line) for line in (source / "questions.jsonl").read_text("utf-8").splitlines()]


def months_of(rows: Sequence[Row]) -> list[str]:
    """The month ends, the first of which the arms are built on."""
    return sorted(rows[0]["answers"])


class World:
    """The task laid out in a folder, its session, the documents of every month and the test questions that are
    asked."""

    def __init__(self, folder: Path, source: Path, products: int | None) -> None:
        self.folder, self.source, self.rows = folder, source, questions(source)
        self.months = months_of(self.rows)
        self.answers = {row["question"]: row["answers"] for row in self.rows}
        self.ids = {row["question"]: row["id"] for row in self.rows}
        listed = (
            {
                "question": row["question"],
                "answer": row["answers"][self.months[0]],
                "product": row["group"],
                "kind": row["kind"],
            }
            for row in self.rows
        )
        (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, listed)), "utf-8")
        self.documents = {month: self._laid_out(month) for month in self.months}
        self.workspace = open_workspace(self._task(self.months[0]))
        self.asked = self._drawn(products)

    @cached_property
    def session(self) -> Session:
        """Models and index, opened on the first month."""
        return open_session(self.workspace)

    def documents_of(self, policy: str, month: str) -> tuple[Document, ...]:
        """Return the documents in the index at a month's end."""
        if policy == "replaced":
            return self.documents[month]
        if policy == "not updated":
            return self.documents[self.months[0]]
        kept: dict[str, Document] = {}
        latest: dict[str, str] = {}
        for past in self.months[: self.months.index(month) + 1]:
            for one in self.documents[past]:
                if latest.get(one.id) != one.digest:  # a document that did not change is there once
                    latest[one.id] = one.digest
                    name = one.id if one.id not in kept else f"{past}/{one.id}"
                    kept[name] = replace(one, id=name, source=name)
        return tuple(kept.values())

    def _task(self, month: str) -> Task:
        file = self.folder / f"{month}.toml"
        file.write_text(TASK.replace("DOCUMENTS", f"documents-{month}"), "utf-8")
        return load_task(file)

    def _laid_out(self, month: str) -> tuple[Document, ...]:
        home = self.folder / f"documents-{month}"
        home.mkdir(parents=True, exist_ok=True)
        for line in (self.source / f"documents-{month}.jsonl").read_text("utf-8").splitlines():
            one = json.loads(line)
            (home / one["name"]).write_text(one["text"], "utf-8")
        found = read_documents(self._task(month))
        return tuple(replace(one, source=one.id) for one in found)

    def _drawn(self, products: int | None) -> tuple[Example, ...]:
        """The test questions of so many test products: each n-th in the order of how many of their answers change,
        from a seeded start."""
        test = self.workspace.splits["test"]
        changing: dict[str, list[bool]] = {}
        for row in test:
            changing.setdefault(row.group or "", []).append(len(set(self.answers[row.input].values())) > 1)
        order = sorted(changing, key=lambda name: (fmean(changing[name]), name))
        count = min(products or len(order), len(order))
        step = len(order) / count
        start = random.Random(SEED).random() * step
        chosen = {order[int(start + step * number)] for number in range(count)}
        return tuple(sorted((row for row in test if row.group in chosen), key=lambda row: row.id))


class Cache:
    """Answers by prompt, kept in a file: the same prompt to the same arm has the same answer."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.known: dict[str, str] = (
            {one["key"]: one["answer"] for one in read_json_lines(file)} if file.is_file() else {}
        )
        self.new = 0

    def answers(self, prompts: Sequence[Prompt], able: ReadyArm) -> list[str]:
        """The answer of each prompt; those that are not known are asked, in batches."""
        keys = [sha256_text(*(f"{one.role}:{one.content}" for one in prompt.messages)) for prompt in prompts]
        lacking = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self.known}
        left = list(lacking.items())
        self.new += len(left)
        for start in range(0, len(left), BATCH_ITEMS):
            part = left[start : start + BATCH_ITEMS]
            asked = [replace(prompt, id=key) for key, prompt in part]
            for given in able.answer_batch(asked):
                self.known[given.id] = given.text
                append_line(self.file, {"key": given.id, "answer": given.text})
        return [self.known[key] for key in keys]


def made(world: World, arm: Arm, folder: Path) -> tuple[Context, float]:
    """The arm as it is built on the first month: its context, its weights in `folder`, and the seconds of training."""
    context = context_for(arm)
    if arm.name == "extract":
        context, _ = choose_threshold(world.session, context, None)
    if not is_trained(arm):
        return context, 0.0
    trained = train_weights(world.session, arm, context, folder, Progress(path=folder / "metrics.jsonl"), seed=SEED)
    return context, trained.seconds


def run(world: World, name: str) -> None:
    """Ask one arm at every month under every policy, what is there already left out."""
    products = len({row.group for row in world.asked})
    done = {
        (line["policy"], line["month"])
        for line in (read_json_lines(RUNS) if RUNS.is_file() else ())
        if (line["arm"], line["products"]) == (name, products)
    }
    arm = parse_arm(name, world.workspace.task)
    first = world.months[0]
    wanted = [("not updated", first)]
    if arm.retrieves:
        ages = sorted(range(1, len(world.months)), key=lambda age: (age not in FIRST_ASKED, age))
        wanted += [(policy, world.months[age]) for age in ages for policy in POLICIES[:2]]
    wanted = [one for one in wanted if one not in done]
    if not wanted:
        return
    folder = world.folder / name
    folder.mkdir(exist_ok=True)
    if arm.retrieves:
        world.session.retriever.index_of(context_for(arm).words)
    world.session.set_documents(world.documents[first], {})
    began = time.perf_counter()
    context, training = made(world, arm, folder)
    print(f"{name}: built in {time.perf_counter() - began:.0f} s", flush=True)
    cache = Cache(folder / "answers.jsonl")
    with ready_arm(world.session, arm, context, folder) as able:
        for policy, month in wanted:
            began, before = time.perf_counter(), cache.new
            if arm.retrieves:
                world.session.set_documents(world.documents_of(policy, month), {})
            prompts = able.builder.prompts(world.asked)
            given = (
                [one.text for one in able.answer_batch(prompts)] if name == "extract" else cache.answers(prompts, able)
            )
            line = {
                "arm": name,
                "policy": policy,
                "month": month,
                "products": products,
                "questions": len(world.asked),
                "asked": cache.new - before if name != "extract" else len(prompts),
                "training_seconds": round(training, 1),
                "threads": machine()["threads"],
                "processor": machine()["processor"],
                "answers": {world.ids[row.input]: text for row, text in zip(world.asked, given, strict=True)},
            }
            append_line(RUNS, line)
            print(name, policy, month, line["asked"], f"{time.perf_counter() - began:.0f} s", flush=True)


# What happened, by arm, policy and month.


def scored(line: Row, month: str, rows: dict[str, Row], task: Task) -> Row:
    """Accuracy of a line's answers as of a month, its 95% interval by product, and the shares that give an answer of
    an earlier month."""
    months = months_of(list(rows.values()))
    earlier = months[: months.index(month)]
    answers, outdated, by_kind = [], [], {}
    for name, given in line["answers"].items():
        row = rows[name]
        question, right = row["question"], row["answers"][month]

        def score(reference: str, question: str = question, given: str = given) -> float:
            return score_text(
                Example(id="", messages=(Message(role="user", content=question),), references=(reference,)), given, task
            )

        value = score(right)
        former = {row["answers"][past] for past in earlier} - {right}
        outdated.append(value < 1 and any(score(one) == 1 for one in former))
        answers.append(plain_answer(name, given, value, group=row["group"], reference=(right,)))
        by_kind.setdefault(row["kind"], []).append(value)
    found = score_estimate(answers, task)
    return {
        "month": month,
        "accuracy": round(found.value, 4),
        "low": round(found.low, 4),
        "high": round(found.high, 4),
        "outdated": round(fmean(outdated), 4),
        "by_kind": {kind: round(fmean(values), 4) for kind, values in sorted(by_kind.items())},
    }


def by_month(lines: Sequence[Row], listed: Sequence[Row], task: Task) -> Row:
    """Every arm under every policy at every month; an arm that was not updated gives the answers of the first month
    at each."""
    rows = {row["id"]: row for row in listed}
    months = months_of(listed)
    found: Row = {}
    for arm in ARMS:
        own = {(line["policy"], line["month"]): line for line in lines if line["arm"] == arm}
        built = own.get(("not updated", months[0]))
        if built is None:
            continue
        found[arm] = {"not updated": [scored(built, month, rows, task) for month in months]}
        for policy in POLICIES[:2]:
            known = [own[policy, month] for month in months[1:] if (policy, month) in own]
            if known:
                later = [scored(line, line["month"], rows, task) for line in known]
                found[arm][policy] = [found[arm]["not updated"][0], *later]
        found[arm]["questions"] = built["questions"]
        found[arm]["products"] = built["products"]
        found[arm]["training_seconds"] = built["training_seconds"]
        found[arm]["prompts_asked"] = sum(line["asked"] for line in own.values())
        found[arm]["processor"] = built["processor"]
    return found


# Rates of change, from the first months alone.


def changes(rows: Sequence[Row]) -> Array:
    """Return True where the answer of a question differs from the one a month before: [N, months - 1]."""
    months = months_of(rows)
    return np.array(
        [[row["answers"][now] != row["answers"][past] for past, now in itertools.pairwise(months)] for row in rows]
    )


def share_and_rate(counts_N: Array) -> tuple[float, float]:
    """The share of facts that change and their monthly rate, from the months of KNOWN in which each changed.

    The likelihood of a zero-inflated binomial: a fact of the share w changes in a month with probability p = 1 -
    exp(-lambda), others never.
    """
    changed = counts_N > 0
    if not changed.any():
        return 0.0, 0.0
    mean = float(counts_N[changed].mean())  # of those seen to change it is KNOWN p / (1 - (1 - p)^KNOWN)
    if mean <= 1.0:
        chance, share = 0.0, math.inf
    elif mean >= KNOWN:
        return float(changed.mean()), 10.0
    else:
        chance = float(brentq(lambda p: KNOWN * p / (1 - (1 - p) ** KNOWN) - mean, 1e-9, 1 - 1e-12))
        share = float(changed.mean()) / (1 - (1 - chance) ** KNOWN)
    if share >= 1.0:  # all may change: then the mean alone says how often
        share, chance = 1.0, float(counts_N.mean()) / KNOWN
    return share, -math.log1p(-chance)


def one_rate(_: Array, counts_N: Array) -> ChangeTable:
    """One share and one rate for facts of all kinds."""
    share, rate = share_and_rate(counts_N)
    return ChangeTable(share=share, per_month=rate, lead_days=0)


def rates_by_kind(kinds_N: Array, counts_N: Array) -> ChangeTable:
    """A share and a rate for each kind of question."""
    found = []
    for kind in sorted(set(kinds_N)):
        share, rate = share_and_rate(counts_N[kinds_N == kind])
        found.append(ChangingFacts(share=share * float((kinds_N == kind).mean()), per_month=rate))
    return ChangeTable(kinds=tuple(found), lead_days=0)


def spread_rates(counts_N: Array) -> tuple[float, float]:
    """Shape and scale of gamma-distributed rates: the share that is unchanged after t months is (1 + t /
    scale)^-shape."""
    histogram = np.bincount(counts_N, minlength=KNOWN + 1)

    def loss(logs: Array) -> float:
        shape, scale = np.exp(logs)
        chances = [
            sum((-1) ** j * math.comb(k, j) * (1 + (KNOWN - k + j) / scale) ** -shape for j in range(k + 1))
            for k in range(KNOWN + 1)
        ]
        return -float(histogram @ np.log(np.maximum(chances, 1e-300)))

    found = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"maxiter": 4000})
    shape, scale = np.exp(found.x)
    return float(shape), float(scale)


def first_month_below(lost: Sequence[float], loss: float) -> float | None:
    """The months until a curve of what is lost passes `loss`, straight between month ends; None where it does not."""
    for month in range(1, len(lost)):
        if lost[month] > loss:
            return month - 1 + (loss - lost[month - 1]) / (lost[month] - lost[month - 1])
    return None


def foretold(rows: Sequence[Row]) -> Row:
    """Return the predictions from the first months, by each way to estimate, beside what happened."""
    changed_NM = changes(rows)
    counts_N = changed_NM[:, :KNOWN].sum(axis=1)
    months = months_of(rows)
    differs = np.array([[row["answers"][month] != row["answers"][months[0]] for month in months] for row in rows])
    kinds = np.array([row["kind"] for row in rows])
    shape, scale = spread_rates(counts_N)
    one, kind_table = one_rate(kinds, counts_N), rates_by_kind(kinds, counts_N)
    ages = range(len(months))
    curves = {
        "one rate": [one.changed(age) for age in ages],
        "by kind": [kind_table.changed(age) for age in ages],
        "spread": [1 - (1 + age / scale) ** -shape for age in ages],
    }
    happened = differs.mean(axis=0)
    result: Row = {
        "facts": len(rows),
        "products": len({row["group"] for row in rows}),
        "known_months": KNOWN,
        "changed": {
            "all": _rounded(happened),
            **{kind: _rounded(differs[kinds == kind].mean(axis=0)) for kind in sorted(set(kinds))},
        },
        "estimates": {
            "one rate": {"share": round(one.rates[0][0], 4), "per_month": round(one.rates[0][1], 4)},
            "by kind": {
                kind: {
                    "questions": int((kinds == kind).sum()),
                    "share": round(own[0], 4),
                    "per_month": round(own[1], 4),
                    "foretold": _rounded([own[0] * -math.expm1(-own[1] * age) for age in ages]),
                    "by one rate": _rounded(curves["one rate"]),
                }
                for kind, own in ((kind, share_and_rate(counts_N[kinds == kind])) for kind in sorted(set(kinds)))
            },
            "spread": {"shape": round(shape, 4), "scale": round(scale, 4)},
        },
        "foretold": {way: _rounded(curve) for way, curve in curves.items()},
        "off_after_known": {
            way: {
                "largest": round(max(abs(curve[age] - happened[age]) for age in ages if age > KNOWN), 4),
                "at the end": round(curve[-1] - float(happened[-1]), 4),
            }
            for way, curve in curves.items()
        },
        "periods": [],
    }
    drawn = _redrawn([row["group"] for row in rows], kinds, counts_N)
    for loss in LOSSES:
        entry: Row = {"loss": loss, "happened": first_month_below(happened, loss)}
        entry["one rate"] = _period(one, loss)
        entry["by kind"] = _period(kind_table, loss)
        entry["spread"] = scale * ((1 - loss) ** (-1 / shape) - 1)
        for way, tables in drawn.items():
            periods = sorted(_or_infinite(_period(table, loss)) for table in tables)
            entry[f"{way}, 95%"] = [periods[round(0.025 * len(periods))], periods[round(0.975 * len(periods)) - 1]]
        result["periods"].append(_finite(entry))
    return result


def _period(change: ChangeTable, loss: float) -> float | None:
    return safe_period(1.0, 1.0 - loss, change)


def _or_infinite(period: float | None) -> float:
    return 0.0 if period is None else period


def _finite(entry: Row) -> Row:
    """Infinity as text, since JSON has none; numbers to two places."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(one) for one in value]
        return "unlimited" if value == math.inf else round(value, 2) if isinstance(value, float) else value

    return {key: plain(value) for key, value in entry.items()}


def _redrawn(groups: Sequence[str], kinds_N: Array, counts_N: Array) -> dict[str, list[ChangeTable]]:
    """Return both tables of rates from products drawn again, whole products at a time."""
    places: dict[str, list[int]] = {}
    for number, name in enumerate(groups):
        places.setdefault(name, []).append(number)
    products, chance = sorted(places), random.Random(SEED)
    ways: dict[str, Callable[[Array, Array], ChangeTable]] = {"one rate": one_rate, "by kind": rates_by_kind}
    found: dict[str, list[ChangeTable]] = {way: [] for way in ways}
    for _ in range(REDRAWN):
        numbers = np.array([number for name in chance.choices(products, k=len(products)) for number in places[name]])
        for way, estimate in ways.items():
            found[way].append(estimate(kinds_N[numbers], counts_N[numbers]))
    return found


def _rounded(values: Sequence[float] | Array) -> list[float]:
    return [round(float(value), 4) for value in values]


def compare(source: Path) -> None:
    """Write the result from the lines that are there; of several draws of products the largest."""
    lines = list(read_json_lines(RUNS)) if RUNS.is_file() else []
    largest = max((line["products"] for line in lines), default=0)
    listed = questions(source)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "trimtab.toml"
        file.write_text(TASK.replace("DOCUMENTS", "documents"), "utf-8")
        (file.parent / "documents").mkdir()
        (file.parent / "questions.jsonl").touch()
        arms = by_month([line for line in lines if line["products"] == largest], listed, load_task(file))
    result = {"months": months_of(listed), "arms": arms, "rates": foretold(listed)}
    write_json(RESULT, {**result, "machine": machine(), "versions": versions()})
    for arm, policies in arms.items():
        for policy in POLICIES:
            if policy in policies:
                print(arm, policy, [one["accuracy"] for one in policies[policy]])
    print(json.dumps(result["rates"], indent=1))


def show(source: Path, arm: str, policy: str, month: str) -> None:
    """Ten answers beside what is right and what was right first."""
    rows = {row["id"]: row for row in questions(source)}
    line = next(
        line for line in read_json_lines(RUNS) if (line["arm"], line["policy"], line["month"]) == (arm, policy, month)
    )
    for name in random.Random(SEED).sample(sorted(line["answers"]), 10):
        question, known = rows[name]["question"], rows[name]["answers"]
        print(
            f"{question}\n  said: {line['answers'][name]}\n  right: {known[month]}; at first: {min(known.items())[1]}"
        )


def main() -> None:
    """Run, compare or show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "compare", "show"))
    parser.add_argument("of", nargs="*", metavar="ARM POLICY MONTH", help="for show")
    parser.add_argument("--arms", default=",".join(ARMS), help="which arms to run, comma-separated")
    parser.add_argument("--products", type=int, help="a draw of so many test products; all without it")
    parser.add_argument("--folder", type=Path, default=HERE / ".staleness", help="where arms and indexes lie")
    parser.add_argument(
        "--source", type=Path, default=SOURCE, help="where the documents and questions of every month lie"
    )
    given = parser.parse_args()
    if given.what == "show":
        show(given.source, *given.of)
        return
    if given.what == "compare":
        compare(given.source)
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    world = World(given.folder, given.source, given.products)
    for name in given.arms.split(","):
        run(world, name)


if __name__ == "__main__":
    main()
