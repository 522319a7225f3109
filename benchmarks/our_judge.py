"""Measures a judge that learnt from graded answers, beside rules and an untrained model, against the people who graded.

Two sets of graded student answers of SemEval-2013 task 7. SciEntsBank: right or wrong; the judge is asked about other
questions of the domains that it knows, and about questions of other domains. Beetle: right, partly right or wrong; a
quarter of the questions is left out of training. The judge is `linear` (or the arm that --arm names), trained by
`trimtab study` on 500 graded answers and on all, and asked as the metric `judged` asks it. The rules compare with the
reference: the words shared (token F1), MiniLM's similarity, with limits that fit the training rows best; and
`contains`. The bare base model is asked as `[judge] by = "base"` asks it, about some of the answers (--base).

Accuracy and κ (quadratic weights) have 95% intervals by a bootstrap of whole questions.

    python benchmarks/our_judge.py --data CLONES [--arm linear] [--taught 500 5000] [--base 0] [--out FILE]

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
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
from judgements import UNSEEN_DOMAINS, student_answers
from numpy.typing import NDArray

import trimtab
from trimtab.arms.judges import open_judge
from trimtab.base.files import read_json, write_json
from trimtab.base.task import load_task
from trimtab.measurement.contains import match
from trimtab.measurement.judge import DEGREES, GRADED, graded_columns
from trimtab.measurement.metrics import token_f1
from trimtab.model.catalog import resolve
from trimtab.retrieval.embed import Embedder

RESULT = Path(__file__).parent / "results" / "our_judge.json"
CRITERION = "The student's answer is right: it says what the reference answer says."
TAUGHT = (500, 5000)  # graded answers to learn from, or all if there are fewer
DRAWS = 2000  # of the bootstrap
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
    own = {} if score is None else {"value": score.value, "low": score.low, "high": score.high, "n": score.n}
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
    steps = np.unique(np.quantile(scored, np.linspace(0, 1, 101)))
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


def agreement(rows: Sequence[Graded], given: Numbers) -> dict[str, Any]:
    """Return accuracy and quadratic κ with their intervals by a bootstrap of whole questions."""
    said = np.array([DEGREES[row.degree] for row in rows])
    _, codes = np.unique([row.question for row in rows], return_inverse=True)
    places = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    random = np.random.default_rng(0)
    draws = [
        np.concatenate([places[place] for place in random.integers(len(places), size=len(places))])
        for _ in range(DRAWS)
    ]
    figures: dict[str, Callable[[Numbers, Numbers], float]] = {
        "accuracy": lambda people, judge: float(np.mean(people == judge)),
        "kappa": quadratic_kappa,
    }
    found: dict[str, Any] = {"answers": len(rows), "questions": len(places)}
    for name, figure in figures.items():
        low, high = np.quantile([figure(said[draw], given[draw]) for draw in draws], [0.025, 0.975])
        found[name] = {"value": figure(said, given), "low": float(low), "high": float(high)}
    return found


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
    parser.add_argument("--base", type=int, default=0, help="answers of a part that the bare base model is asked about")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    rows: dict[str, Any] = read_json(options.out)["rows"] if options.out.exists() else {}

    def measure(name: str, make: Callable[[], tuple[Judge, dict[str, Any]]], parts: Parts, most: int = 10**9) -> None:
        missing = [part for part in parts if part != "train" and f"{name}, {part}" not in rows]
        judge, about = make() if missing else (contains, {})
        for part in missing:
            some = drawn(parts[part], most)
            rows[f"{name}, {part}"] = {**about, **agreement(some, judge(some))}
            print(f"{name}, {part}:", json.dumps(rows[f"{name}, {part}"]), flush=True)
            write_json(options.out, {"rows": rows})

    for set_name, read in SETS.items():
        parts = read(options.data)
        train = parts["train"]
        rules: dict[str, Callable[[], Judge]] = {
            "contains": lambda: contains,
            "most frequent": lambda train=train: by_rule(train, lambda own: np.zeros(len(own))),
            "token F1": lambda train=train: by_rule(train, shared_words),
            "MiniLM": lambda train=train: by_rule(train, similarity()),
        }
        for name, rule in rules.items():
            measure(f"{set_name}, {name}", lambda rule=rule: (rule(), {}), parts)
        with tempfile.TemporaryDirectory() as home:
            if options.base:
                folder = Path(home)
                measure(f"{set_name}, base", lambda folder=folder: (asked(folder, "base"), {}), parts, options.base)
            for count in sorted({min(count, len(train)) for count in options.taught}):
                some, folder = drawn(train, count), Path(home) / str(count)
                measure(
                    f"{set_name}, {options.arm} taught by {count}",
                    lambda some=some, folder=folder: trained(some, options.arm, folder),
                    parts,
                )


if __name__ == "__main__":
    main()
