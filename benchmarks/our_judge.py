"""Measures a judge that learnt from graded answers, beside rules and an untrained model, against the people who graded.

Two sets of graded student answers of SemEval-2013 task 7. SciEntsBank: right or wrong; the judge is asked about other
questions of the domains that it knows, and about questions of other domains. Beetle: right, partly right or wrong; a
quarter of the questions is left out of training. The judge is `linear` (or the arm that --arm names), trained by
`trimtab study` on 500 graded answers and on 5,000, or all where there are fewer, and asked as the metric `judged` asks
it; its own study keeps some of them for dev and test. The rules compare with the reference: the words shared (token
F1), MiniLM's similarity, with limits that fit all training rows best; and `contains`. The bare base model is asked as
`[judge] by = "base"` asks it. All are asked about the same answers.

Accuracy, its difference from token F1's and κ (quadratic weights: of two degrees, Cohen's) have 95% intervals by
question, made by the functions that make a study's.

    python benchmarks/our_judge.py --data CLONES [--arm linear] [--taught 500 5000] [--sets SciEntsBank] [--out FILE]

What FILE has already is kept, and not measured again.

CLONES holds plain clones of myrosia/semeval-2013-task7 (CC BY-SA) and ashudeep/Student-Response-Analysis in folders
OWNER+NAME. Nothing of them is committed.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
from judgements import UNSEEN_DOMAINS, student_answers
from numpy.typing import NDArray

import trimtab
from trimtab.arms.judges import open_judge
from trimtab.base.files import read_json, write_json
from trimtab.base.results import Estimate
from trimtab.base.task import load_task
from trimtab.measurement.clusters import group_codes
from trimtab.measurement.contains import match
from trimtab.measurement.judge import DEGREES, GRADED, graded_columns
from trimtab.measurement.metrics import token_f1
from trimtab.measurement.resampling import Indices, bca, jackknife, sampling_units, statistic_draws
from trimtab.measurement.statistics import compare_paired, estimate
from trimtab.model.catalog import resolve
from trimtab.retrieval.embed import Embedder

RESULT = Path(__file__).parent / "results" / "our_judge.json"
CRITERION = "The student's answer is right: it says what the reference answer says."
TAUGHT = (500, 5000)  # graded answers to learn from, or all if there are fewer
PARTLY = {"correct": "yes", "partially_correct_incomplete": "partly"}  # any other grade is no
Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Graded:
    """An answer to a question, and the degree that people gave it."""

    question: str
    references: tuple[str, ...]
    answer: str
    degree: str

    def row(self, place: int) -> tuple[str, str, tuple[str, ...], str]:
        """Return it as a judge is given it."""
        return str(place), self.question, self.references, self.answer


Parts = Mapping[str, Sequence[Graded]]
"""Graded answers by part: `train`, and those that the judges are asked about."""


def scientsbank(data: Path) -> Parts:
    """Answers to questions about science, right or wrong."""

    def rows(folder: str) -> list[Graded]:
        return [
            Graded(
                question=question,
                references=tuple(references),
                answer=answer,
                degree="yes" if grade == "correct" else "no",
            )
            for question, references, answers in student_answers(data, folder)
            for answer, grade in answers
            if answer.strip()
        ]

    return {
        "train": rows("training/2way/sciEntsBank"),
        "other questions": rows("test/2way/sciEntsBank/test-unseen-questions"),
        "other domains": rows(UNSEEN_DOMAINS),
    }


def beetle(data: Path) -> Parts:
    """Answers to questions about circuits, right, partly right or wrong."""
    folder = data / "ashudeep+Student-Response-Analysis"
    with (folder / "semevalFormatProcessing-2way" / "answers.csv").open(encoding="utf-8", newline="") as lines:
        texts = {row[0]: row[1:4] for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)}
    rows: dict[str, list[Graded]] = {}
    with (folder / "evaluationScripts" / "trainingGold.txt").open(encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines, delimiter="\t"):
            question, answer, reference = texts[line["id"]]
            degree = PARTLY.get(line["accuracy"], "no")
            graded = Graded(question=question, references=(reference,), answer=answer, degree=degree)
            rows.setdefault(question, []).append(graded)
    by_question = [rows[question] for question in sorted(rows)]
    left_out = [row for own in by_question[::4] for row in own]
    kept = [row for place, own in enumerate(by_question) if place % 4 for row in own]
    return {"train": kept, "other questions": left_out}


SETS: Mapping[str, Callable[[Path], Parts]] = {"SciEntsBank": scientsbank, "Beetle": beetle}
Judge = Callable[[Sequence[Graded]], Numbers]
"""Graded answers to scores: the degrees that a judge gives."""
Maker = Callable[[], tuple[Judge, dict[str, Any]]]
"""Makes a judge, with what is told of it beside its figures."""


def drawn(rows: Sequence[Graded], count: int) -> list[Graded]:
    """Return some of the rows, or all if there are no more."""
    order = np.random.default_rng(0).permutation(len(rows))[:count]
    return [rows[place] for place in sorted(order.tolist())]


def trained(train: Sequence[Graded], arm: str, folder: Path) -> tuple[Judge, dict[str, Any]]:
    """Train an arm of a judging task, and return it as a judge, with what its own study says."""
    judging = folder / "judging"
    judging.mkdir(parents=True)
    lines = [
        json.dumps(graded_columns(CRITERION, row.row(place)) | {"label": row.degree}) for place, row in enumerate(train)
    ]
    (judging / "graded.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = "\\n\\n".join(f"{name.capitalize()}:\\n{{{name}}}" for name in GRADED)
    (judging / "trimtab.toml").write_text(
        '[task]\nname = "judging"\nkind = "classify"\ninstruction = "Is the criterion met? Answer yes, partly or no."\n'
        f'[data]\nexamples = ["graded.jsonl"]\ncolumns = {{ input = "{text}", label = "label" }}\ngroup = "question"\n'
        f'[base]\nmodel = "smollm2-135m-q4"\n[study]\narms = ["{arm}"]\n'
        '[arm.quick-head]\nweights = "lora"\nstages = ["head"]\nepochs = 1\n'
    )
    result = trimtab.study(judging / "trimtab.toml", listeners=[])
    score = result.arms[0].score
    own = {} if score is None else {**interval(score), "n": score.n}
    return asked(folder, f"judging/trimtab.toml#{arm}"), {"accuracy in its own study": own}


def asked(folder: Path, by: str) -> Judge:
    """Return the judge of a task that names it."""
    folder.mkdir(exist_ok=True)
    (folder / "judged.toml").write_text(
        '[task]\nname = "judged"\nkind = "generate"\nmetric = "judged"\ninstruction = "Answer."\n'
        '[data]\nexamples = ["none.jsonl"]\n[base]\nmodel = "smollm2-135m-q4"\n'
        f'[judge]\ncriteria = {{ right = {json.dumps(CRITERION)} }}\nby = "{by}"\n'
    )
    judge = open_judge(load_task(folder / "judged.toml", needs_data=False))

    def scores(rows: Sequence[Graded]) -> Numbers:
        found = judge.score([row.row(place) for place, row in enumerate(rows)])
        return np.array([found[str(place)] for place in range(len(rows))])

    return scores


def by_rule(train: Sequence[Graded], score: Judge) -> Judge:
    """Return a judge that gives degrees by limits of a score, those that give most training rows their degree."""
    degrees = sorted({DEGREES[row.degree] for row in train})
    scored, right = score(train), np.array([DEGREES[row.degree] for row in train])
    steps = np.unique([*np.quantile(scored, np.linspace(0, 1, 101)), np.inf])  # above the last one no row gets a degree
    pairs = list(combinations_with_replacement(steps.tolist(), len(degrees) - 1))
    shares = [np.mean(np.array(degrees)[np.searchsorted(limits, scored, side="right")] == right) for limits in pairs]
    best = pairs[int(np.argmax(shares))]
    return lambda rows: np.array(degrees)[np.searchsorted(best, score(rows), side="right")]


def shared_words(rows: Sequence[Graded]) -> Numbers:
    """Return token F1 with the nearest reference."""
    return np.array([max(token_f1("", text, row.answer) for text in row.references) for row in rows])


def similarity() -> Judge:
    """Return a judge that gives the cosine of MiniLM's vectors of the answer and the nearest reference."""
    embedder = Embedder(resolve("minilm-l6", None))

    def scores(rows: Sequence[Graded]) -> Numbers:
        texts = sorted({text for row in rows for text in (row.answer, *row.references)})
        vectors = dict(zip(texts, embedder.encode(texts), strict=True))
        return np.array([max(float(vectors[row.answer] @ vectors[text]) for text in row.references) for row in rows])

    return scores


def contains(rows: Sequence[Graded]) -> Numbers:
    """Return 1 where the metric `contains` finds the reference stated, else 0."""
    return np.array(
        [float(any(match(row.answer, text, row.question) == "right" for text in row.references)) for row in rows]
    )


def agreement(rows: Sequence[Graded], given: Numbers, beside: Numbers) -> dict[str, Any]:
    """Return accuracy and quadratic κ with their intervals by question, and how far the accuracy is above that of
    other scores, `beside`. A judge that says the same of all has a κ of 0, without an interval."""
    said = np.array([DEGREES[row.degree] for row in rows])
    questions = [row.question for row in rows]
    units = sampling_units(len(rows), group_codes(questions))

    def kappa(places: Indices) -> float:
        return quadratic_kappa(said[places], given[places])

    found: dict[str, Any] = {"answers": len(rows), "questions": len(units)}
    found["accuracy"] = interval(estimate(said == given, questions))
    if not np.array_equal(given, beside):
        gap = compare_paired(said == given, said == beside, questions)
        found["above token F1"] = {"value": gap.difference, "low": gap.low, "high": gap.high}
    found["kappa"] = {"value": 0.0}
    if len(set(given.tolist())) > 1:
        value = kappa(np.arange(len(rows)))
        low, high = bca(value, statistic_draws(kappa, units, seed=0), jackknife(kappa, units))
        found["kappa"] = {"value": value, "low": low, "high": high}
    return found


def interval(found: Estimate) -> dict[str, float]:
    """Return an estimate as it stands in the result."""
    return {"value": found.value, "low": found.low, "high": found.high}


def quadratic_kappa(people: Numbers, judge: Numbers) -> float:
    """Return Cohen's κ with quadratic weights (Cohen 1968): 1 less the mean squared gap, over that by chance."""
    by_chance = people.var() + judge.var() + (people.mean() - judge.mean()) ** 2
    return float(1 - np.mean((people - judge) ** 2) / by_chance) if by_chance > 0 else 0.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every judge on every part, print it and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--arm", default="linear")
    parser.add_argument("--taught", type=int, nargs="*", default=TAUGHT)
    parser.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    rows: dict[str, Any] = read_json(options.out)["rows"] if options.out.exists() else {}

    for set_name in options.sets:
        parts = SETS[set_name](options.data)
        train = parts["train"]
        by_words = by_rule(train, shared_words)
        rules: dict[str, Maker] = {"token F1": partial(ready, by_words)}
        with tempfile.TemporaryDirectory() as home:
            judges = judges_of(train, Path(home), options.arm, options.taught)
            for name, make in (rules | judges).items():
                missing = [part for part in parts if part != "train" and f"{set_name}, {name}, {part}" not in rows]
                judge, about = make() if missing else (contains, {})
                for part in missing:
                    asked_about = parts[part]
                    found = {**about, **agreement(asked_about, judge(asked_about), by_words(asked_about))}
                    rows[f"{set_name}, {name}, {part}"] = found
                    print(f"{set_name}, {name}, {part}:", json.dumps(found), flush=True)
                    write_json(options.out, {"rows": rows})


def judges_of(train: Sequence[Graded], home: Path, arm: str, taught: Sequence[int]) -> dict[str, Maker]:
    """Return the makers of all judges but token F1, by name."""
    judges: dict[str, Maker] = {
        "most frequent": lambda: ready(by_rule(train, lambda rows: np.zeros(len(rows)))),
        "contains": partial(ready, contains),
        "MiniLM": lambda: ready(by_rule(train, similarity())),
    }
    for count in sorted({min(count, len(train)) for count in taught}):
        judges[f"{arm} taught by {count}"] = partial(trained, drawn(train, count), arm, home / str(count))
    return judges | {"bare SmolLM2-135M": lambda: ready(asked(home / "base", "base"))}


def ready(judge: Judge) -> tuple[Judge, dict[str, Any]]:
    """Return a judge of which nothing is told but its figures."""
    return judge, {}


if __name__ == "__main__":
    main()
