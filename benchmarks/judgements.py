"""Checks judged scores on what people said: public human marks are the truth, and a judge grades the same answers.

The pool of a data set holds questions with the answers of two arms, what people said of each (1, ½, 0), and grades of
judges: real ones where they were published, and made ones: people's mark with every fifth one drawn anew, where of the
long answers, of those of one arm or of those in first position every second one is graded yes in any case; or one that
grades all alike. A study draws its questions from the pool with replacement, so that the pool's means are the true
ones; people grade those that `trimtab audit` would draw. Where the arms are to be equal, the answers to each question
are dealt to them by a coin. Counted over the studies: how often the 95% intervals of a score and of the difference hold
the true one, and how often the wrong arm, or one of two equal ones, is called better (p ≤ .05, two-sided).

"Labels" tells what the grades of the judge save: as many labels alone would give the same width, by the same estimator
with a judge that says nothing.

    python benchmarks/judgements.py --data CLONES [--peer PYTHON] [--studies 1000] [--out FILE]

CLONES holds a plain clone of each repository of SOURCES in folders OWNER+NAME. Nothing of them is committed. PYTHON
runs GLIDE (`pip install glide-py==0.11.0`, Python 3.12 or newer): PPI++ with as many labels drawn evenly (of whole
groups where there are groups), and active inference with the chances of our draw. A cell that is in FILE is kept.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import subprocess
import tempfile
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from simulated import plain_answer

from trimtab.base.files import read_json, write_json
from trimtab.base.records import Answer
from trimtab.base.task import Task
from trimtab.measurement.audit import Audited, draw_audit
from trimtab.measurement.figures import difference, score_estimate
from trimtab.measurement.metrics import token_f1
from trimtab.measurement.resampling import p_flip_normal
from trimtab.measurement.statistics import LEVEL, Difference
from trimtab.model.catalog import resolve
from trimtab.retrieval.embed import Embedder

HERE = Path(__file__).parent
RESULT = HERE / "results" / "judgements.json"
SOURCES = {
    "pandalm": "WeOpenML/PandaLM",
    "students": "myrosia/semeval-2013-task7",
    "begin": "google/BEGIN-dataset",
    "llmbar": "princeton-nlp/LLMBar",
}
LLMBAR = ("Natural", *(f"Adversarial/{part}" for part in ("Neighbor", "GPTInst", "GPTOut", "Manual")))
UNSEEN_DOMAINS = "test/2way/sciEntsBank/test-unseen-domains"  # of the students' answers
MADE = ("favours long answers", "favours arm a", "favours the first position", "says nothing")
# test questions, those of which people grade the answers, and whether questions come in groups
SIZES = ((200, 60, False), (300, 100, True), (300, 150, False), (400, 60, False))
GROUPS, GROUP = 30, 10  # groups of a study, and questions of each, where there are groups
BESIDE = 300  # studies of a cell in which the plain average of the judge is looked at, and the peer is asked
CHECKED = 10  # studies of a cell in which the limits by formula are compared with those by resampling
NOISE, FAVOUR = 0.2, 0.5  # shares of a made judge's marks that are drawn anew, and of favoured answers graded yes
Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Questions with two answers each. `marks_N2`: people's; `long_N2`, `first_N2`: which answers are long, or stand
    first; `judges`: grades of real judges; `groups_N`: of questions that belong together; None without groups.
    """

    marks_N2: Numbers
    long_N2: NDArray[np.bool_]
    first_N2: NDArray[np.bool_] | None
    judges: Mapping[str, Numbers]
    groups_N: NDArray[np.int64] | None = None


@dataclass(frozen=True, kw_only=True)
class Study:
    """The questions of one study: people's and the judge's marks of both arms, and the questions' groups."""

    said_N2: Numbers
    graded_N2: Numbers
    groups_N: NDArray[np.int64] | None


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def pandalm(clones: Path) -> Pool:
    """Pairs of answers that three people compared: arm a is LLaMA-7B, arm b the other model of the pair."""
    folder = clones / "WeOpenML+PandaLM" / "data"
    pairs = _json(folder / "testset-v1.json")
    rows = [place for place, pair in enumerate(pairs) if "llama-7b" in pair["cmp_key"].split("_")]
    told = {
        "GPT-3.5": {row["idx"]: str(row["gpt_result"]) for row in _json(folder / "gpt-3.5-turbo-testset-v1.json")},
        "PandaLM-7B": {row["idx"]: str(row["pandalm_result"]) for row in _json(folder / "pandalm-7b-testset-v1.json")},
    }
    people, own, judges, places = [], [], defaultdict(list), []
    for pair in (pairs[row] for row in rows):
        a = pair["cmp_key"].split("_").index("llama-7b")  # 0 where LLaMA's answer stands first
        said = Counter(pair[f"annotator{number}"] for number in (1, 2, 3)).most_common(1)[0][0]
        people.append(_of_pair(str(said), a))
        own.append([str(pair[f"response{place + 1}"]) for place in (a, 1 - a)])
        places.append([a == 0, a == 1])
        for judge, by_pair in told.items():
            judges[judge].append(_of_pair(by_pair[pair["idx"]], a))
    return _pool(people, own, judges, places)


def llmbar(clones: Path) -> Pool:
    """Pairs of answers of which one is better beyond taste: arm a is the first, arm b the second."""
    folder = clones / "princeton-nlp+LLMBar" / "Dataset" / "LLMBar"
    people, own, judges = [], [], defaultdict(list)
    for part in LLMBAR:
        for row in _json(folder / part / "dataset.json"):
            people.append(_of_pair(str(row["label"]), 0))
            own.append([row["output_1"], row["output_2"]])
        for judge in ("ChatGPT", "GPT-4"):
            for row in _json(folder / part / "evaluators" / judge / "Vanilla" / "result.json"):
                judges[judge].append(_of_pair(str(row["results"][0]["swap = False"]["winner"]), 0))
    return _pool(people, own, judges, [[True, False]] * len(people))


def _of_pair(better: str, a: int) -> list[float]:
    """Return the marks of arm a and arm b of a pair: 1 and 0, or ½ each where neither is better."""
    if better not in ("1", "2"):
        return [0.5, 0.5]
    return [1.0, 0.0] if int(better) - 1 == a else [0.0, 1.0]


def students(clones: Path) -> Pool:
    """Students' answers to the questions of unseen domains: arm a gave the longer one of two to one question."""
    people, own, references, groups = [], [], [], []
    for number, (_, reference, answers) in enumerate(student_answers(clones, UNSEEN_DOMAINS)):
        order = np.random.default_rng(number).permutation(len(answers))
        for one, other in zip(order[::2], order[1::2], strict=False):
            pair = sorted((answers[one], answers[other]), key=lambda answer: -len(answer[0]))
            people.append([float(mark == "correct") for _, mark in pair])
            own.append([text for text, _ in pair])
            references.append([reference])
            groups.append(number)
    return _pool(people, own, _by_reference(own, references), None, groups)


def student_answers(clones: Path, folder: str) -> list[tuple[str, list[str], list[tuple[str, str]]]]:
    """Return questions with their reference answers and the students' answers, each with its grade."""
    found = []
    with zipfile.ZipFile(clones / "myrosia+semeval-2013-task7" / "semeval-3way.zip") as archive:
        for name in sorted(archive.namelist()):
            if name.startswith(f"{folder}/") and name.endswith(".xml"):
                tree = ElementTree.fromstring(archive.read(name))
                answers = [(one.text or "", one.get("accuracy", "")) for one in tree.iter("studentAnswer")]
                references = [one.text or "" for one in tree.iter("referenceAnswer")]
                found.append((tree.findtext("questionText", ""), references, answers))
    return found


def begin(clones: Path) -> Pool:
    """Replies that shall say no more than their source: arm a is a model that was made for that, arm b is not."""
    file = clones / "google+BEGIN-dataset" / "wow" / "begin_test_wow.tsv"
    marks = {"Fully attributable": 1.0, "Generic": 0.5, "Not fully attributable": 0.0}
    replies: dict[tuple[str, str], dict[str, tuple[str, float]]] = defaultdict(dict)
    with file.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
            arm = "a" if row["model_name"] in ("doha", "ctrl") else "b"
            replies[row["knowledge"], row["message"]][arm] = (row["response"], marks[row["begin_label"]])
    both = {asked: given for asked, given in replies.items() if len(given) == 2}
    people = [[given[arm][1] for arm in "ab"] for given in both.values()]
    own = [[given[arm][0] for arm in "ab"] for given in both.values()]
    return _pool(people, own, _by_reference(own, [[[source]] for source, _ in both]), None)


def _by_reference(own: Sequence[Sequence[str]], references: Sequence[Any]) -> dict[str, Any]:
    """Return the grades of two judges that compare with the references: by words, and by MiniLM; a third of all
    answers gets each degree.
    """
    flat = [text for texts in own for text in texts]
    right = [known[0] for known in references for _ in range(2)]
    embedder = Embedder(resolve("minilm-l6", None))
    texts = sorted({*flat, *(text for known in right for text in known)})
    vectors = dict(zip(texts, embedder.encode(texts), strict=True))
    words = [max(token_f1("", text, answer) for text in known) for answer, known in zip(flat, right, strict=True)]
    near = [
        max(float(vectors[text] @ vectors[answer]) for text in known) for answer, known in zip(flat, right, strict=True)
    ]
    return {"token F1": _degrees(words), "MiniLM": _degrees(near)}


def _degrees(scores: Sequence[float]) -> Numbers:
    limits = np.quantile(scores, [1 / 3, 2 / 3])
    found: Numbers = (np.searchsorted(limits, scores) / 2).reshape(-1, 2)
    return found


def _pool(
    people: Sequence[Sequence[float]],
    own: Sequence[Sequence[str]],
    judges: Mapping[str, Any],
    first: Sequence[Sequence[bool]] | None,
    groups: Sequence[int] | None = None,
) -> Pool:
    lengths_N2 = np.array([[len(text.split()) for text in texts] for texts in own])
    return Pool(
        marks_N2=np.array(people),
        long_N2=lengths_N2 > np.median(lengths_N2),
        first_N2=None if first is None else np.array(first),
        judges={name: np.array(grades) for name, grades in judges.items()},
        groups_N=None if groups is None else np.array(groups),
    )


POOLS: Mapping[str, Callable[[Path], Pool]] = {read.__name__: read for read in (pandalm, students, begin, llmbar)}


def judges_of(pool: Pool) -> tuple[str, ...]:
    """Return the names of the judges of a pool; without positions none favours the first one."""
    made = [name for name in MADE if pool.first_N2 is not None or name != "favours the first position"]
    return ("says nothing", *pool.judges, *(name for name in made if name != "says nothing"))


def graded(pool: Pool, judge: str) -> tuple[Numbers, NDArray[np.bool_] | None]:
    """Return a judge's grades of the whole pool, and which of its answers it grades yes in any case; None where that
    hangs on the arm: every second one of arm a.
    """
    if judge in pool.judges:
        return pool.judges[judge], np.zeros(pool.marks_N2.shape, dtype=bool)
    if judge == "says nothing":
        return np.ones_like(pool.marks_N2), np.zeros(pool.marks_N2.shape, dtype=bool)
    draw = np.random.default_rng(7)  # a judge says the same of an answer each time
    noise_N2, is_noise_N2 = draw.integers(0, 3, pool.marks_N2.shape) / 2, draw.random(pool.marks_N2.shape) < NOISE
    noisy_N2: Numbers = np.where(is_noise_N2, noise_N2, pool.marks_N2)
    generous_N2 = draw.random(pool.marks_N2.shape) < FAVOUR
    favoured_N2 = {"favours long answers": pool.long_N2, "favours the first position": pool.first_N2}.get(judge)
    return noisy_N2, None if favoured_N2 is None else favoured_N2 & generous_N2


def drawn(pool: Pool, cell: Mapping[str, Any], draw: np.random.Generator) -> Study:
    """Draw the questions of a study."""
    if cell["groups"] and pool.groups_N is not None:
        names = np.unique(pool.groups_N)
        chosen = [np.flatnonzero(pool.groups_N == name) for name in draw.choice(names, GROUPS)]
        rows = np.concatenate([draw.choice(places, GROUP) for places in chosen])
        groups = np.repeat(np.arange(GROUPS), GROUP)
    else:
        rows, groups = draw.integers(len(pool.marks_N2), size=cell["questions"]), None
    grades_N2, yes_N2 = graded(pool, cell["judge"])
    said_n2, grades_n2 = pool.marks_N2[rows], grades_N2[rows]
    yes_n2 = None if yes_N2 is None else yes_N2[rows]
    if cell["arms"] == "equal":
        swapped_n = draw.random(len(rows)) < 0.5
        said_n2, grades_n2 = swap(said_n2, swapped_n), swap(grades_n2, swapped_n)
        yes_n2 = None if yes_n2 is None else swap(yes_n2, swapped_n)
    if yes_n2 is None:  # which answers of arm a are favoured is the judge's whim
        yes_n2 = (draw.random(said_n2.shape) < FAVOUR) & np.array([True, False])
    return Study(said_N2=said_n2, graded_N2=np.where(yes_n2, 1.0, grades_n2), groups_N=groups)


def swap(values_N2: Any, swapped_N: NDArray[np.bool_]) -> Any:
    """Return the values with both arms' exchanged where asked."""
    return np.where(swapped_N[:, None], values_N2[:, ::-1], values_N2)


def true_scores(pool: Pool, cell: Mapping[str, Any]) -> Numbers:
    """Return the true scores of both arms."""
    if cell["groups"] and pool.groups_N is not None:
        by_group = [pool.marks_N2[pool.groups_N == name].mean(0) for name in np.unique(pool.groups_N)]
        means = np.mean(by_group, 0)
    else:
        means = pool.marks_N2.mean(0)
    return np.full(2, means.mean()) if cell["arms"] == "equal" else means


def answers_of(study: Study, number: int) -> dict[str, list[Answer]]:
    """Return the arms' answers with the judge's grades; the names of the questions are new in every study, so that
    people are asked about others.
    """
    groups = [None] * len(study.said_N2) if study.groups_N is None else [f"group {group}" for group in study.groups_N]
    return {
        arm: [
            plain_answer(f"{number}.{item}", arm, grade, group=groups[item])
            for item, grade in enumerate(study.graded_N2[:, place].tolist())
        ]
        for place, arm in enumerate("ab")
    }


class Counts:
    """Counts over the studies of a cell, by name of the estimator."""

    def __init__(self, scores: Numbers) -> None:
        self._score, self._gap = float(scores[0]), float(scores[0] - scores[1])
        self._found: dict[str, list[float]] = defaultdict(list)

    def take(self, name: str, score: tuple[float, float], gap: tuple[float, float], better: float) -> None:
        """Count one study's intervals of a score and of the difference; `better`: the sign that is shown, or 0."""
        values = {
            "score covered": score[0] <= self._score <= score[1],
            "difference covered": gap[0] <= self._gap <= gap[1],
            "wrongly better": better != 0 and better * self._gap <= 0,
            "rightly better": better != 0 and better * self._gap > 0,
            "half width of a score": (score[1] - score[0]) / 2,
            "half width of the difference": (gap[1] - gap[0]) / 2,
        }
        for figure, value in values.items():
            self._found[f"{figure}, {name}"].append(float(value))

    def refused(self, name: str, share: float) -> None:
        """Note the share of studies for which an estimator gave no interval."""
        self._found[f"refused, {name}"].append(share)

    def shares(self) -> dict[str, float]:
        """Return the mean of every figure."""
        return {name: round(math.fsum(values) / len(values), 5) for name, values in self._found.items()}


def measured(pool: Pool, cell: Mapping[str, Any], studies: int, seed: int, peer: str | None) -> dict[str, Any]:
    """Return the figures of a cell."""
    draw, scores, wider = np.random.default_rng(seed), true_scores(pool, cell), []
    counts = Counts(scores)
    for_peer: dict[str, list[Any]] = defaultdict(list)
    for number in range(studies):
        study = drawn(pool, cell, draw)
        answers = answers_of(study, number)
        items = [one.item_id for one in answers["a"]]
        asked = {one.item_id for one in draw_audit(answers, cell["labels"])}
        is_asked = np.array([item in asked for item in items])
        with by_formula():
            people = people_of(study, answers, is_asked)
            score, gap = people.score("a"), people.difference("a", "b")
            counts.take("corrected", (score.low, score.high), (gap.low, gap.high), better_of(gap))
            if number < BESIDE:
                score, plain = score_estimate(answers["a"], TASK), difference(answers["a"], answers["b"], TASK)
                counts.take("judge alone", (score.low, score.high), (plain.low, plain.high), better_of(plain))
        if number < CHECKED:
            resampled = people_of(study, answers, is_asked).difference("a", "b")
            wider.append((resampled.high - resampled.low) / (gap.high - gap.low) - 1)
        for name, values in _peer_study(study, is_asked, cell, draw).items() if peer and number < BESIDE else ():
            for_peer[name].append(values)
    if peer:
        count_peer(counts, asked_peer(peer, for_peer))
    true = {"true score": float(scores[0]), "true difference": float(scores[0] - scores[1])}
    return {**true, **counts.shares(), "wider by resampling": round(float(np.mean(wider)), 4)}


def people_of(study: Study, answers: Mapping[str, Sequence[Answer]], is_asked: NDArray[np.bool_]) -> Audited:
    """Return the study's answers with what people said of those that they were asked about."""
    said = {
        (answers["a"][item].item_id, arm): float(study.said_N2[item, place])
        for item in np.flatnonzero(is_asked).tolist()
        for place, arm in enumerate("ab")
    }
    return Audited(answers, said, TASK)


def better_of(gap: Difference) -> float:
    """Return the sign of a difference that is shown, else 0."""
    return float(np.sign(gap.difference)) if gap.p <= LEVEL else 0.0


def count_peer(counts: Counts, rows: Mapping[str, Sequence[Sequence[float] | None]]) -> None:
    """Count the peer's intervals, and how many it refused; a difference is shown where its interval leaves 0 out."""
    for name, given in rows.items():
        for score_low, score_high, low, high in filter(None, given):
            better = float(np.sign(low)) if low * high > 0 else 0.0
            counts.take(name, (score_low, score_high), (low, high), better)
        counts.refused(name, sum(row is None for row in given) / len(given))


@contextmanager
def by_formula() -> Iterator[None]:
    """Take the interval and the test of graded scores of all questions from their limits for many questions instead of
    10,000 draws. The corrected figures know only the standard error of these, and never the test.
    """

    def interval(values: Numbers, worst: float, best: float, _seed: int) -> tuple[float, float]:
        reach = float(stats.t.isf(LEVEL / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
        return max(worst, float(values.mean()) - reach), min(best, float(values.mean()) + reach)

    changed = {
        "_graded_interval": interval,
        "p_sign_flip": lambda gaps, _seed: p_flip_normal(gaps),
        "p_without_rare": lambda _gaps: 0.0,
    }
    with mock.patch.multiple("trimtab.measurement.statistics", **changed):
        yield


def _peer_study(
    study: Study, is_asked: NDArray[np.bool_], cell: Mapping[str, Any], draw: np.random.Generator
) -> dict[str, Any]:
    """Return what the peer is given: the same questions, our draw of labels with its chances, and one drawn evenly."""
    differs = study.graded_N2[:, 0] != study.graded_N2[:, 1]
    chances = np.zeros(len(differs))
    for stratum in (differs, ~differs):
        if stratum.any():
            chances[stratum] = is_asked[stratum].mean()
    evenly = np.zeros(len(differs), dtype=bool)
    if cell["groups"] and study.groups_N is not None:
        evenly = np.isin(study.groups_N, draw.permutation(GROUPS)[: cell["labels"] // GROUP])
    else:
        evenly[draw.permutation(len(differs))[: cell["labels"]]] = True
    groups = np.arange(len(differs)) if study.groups_N is None else study.groups_N
    values = {"said": study.said_N2, "graded": study.graded_N2, "asked": is_asked, "chances": chances}
    return {**values, "evenly": evenly, "groups": groups}


def asked_peer(peer: str, studies: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Return the peer's intervals by estimator, a row a study: of the score, and of the difference; None if refused."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "studies.npz"
        np.savez(file, **{name: np.array(values) for name, values in studies.items()})
        words = [peer, str(HERE / "peers" / "glide_intervals.py"), str(file)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, list[Any]] = json.loads(done.stdout)
    return found


TASK = Task.model_validate(
    {
        "task": {"name": "t", "kind": "generate", "metric": "judged"},
        "data": {"examples": ["rows.jsonl"]},
        "base": {"model": "m"},
        "judge": {"criteria": {"good": "Good."}},
    }
)


def cells_of(pools: Mapping[str, Pool]) -> list[dict[str, Any]]:
    """Return all cells."""
    return [
        {"data": name, "judge": judge, "arms": arms, "questions": questions, "labels": labels, "groups": groups}
        for questions, labels, groups in SIZES
        for name, pool in pools.items()
        if not groups or pool.groups_N is not None
        for judge in judges_of(pool)
        for arms in ("equal", "as they are")
    ]


def with_saved_labels(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows, each with the number of labels alone that would give the width of its difference."""
    width = "half width of the difference, corrected"
    sides = ("data", "arms", "questions", "labels", "groups")
    alone = {tuple(row[side] for side in sides): row[width] for row in rows if row["judge"] == "says nothing"}
    return [
        {**row, "labels of the same width": round(row["labels"] * (alone[key] / row[width]) ** 2, 1)}
        for row in rows
        for key in [tuple(row[side] for side in sides)]
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every cell, print it and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer", help="a Python with GLIDE")
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    pools = {name: read(options.data) for name, read in POOLS.items()}
    cells = cells_of(pools)
    rows = [row for row in (read_json(options.out)["rows"] if options.out.exists() else []) if side_of(row) in cells]
    for seed, cell in enumerate(cells):
        if cell not in map(side_of, rows):
            rows.append({**cell, **measured(pools[cell["data"]], cell, options.studies, seed, options.peer)})
            print(json.dumps(rows[-1]), flush=True)
            about = {name: told(name, pool) for name, pool in pools.items()}
            write_json(options.out, {"studies": options.studies, "data": about, "rows": with_saved_labels(rows)})


def side_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what names a cell."""
    return {side: row[side] for side in ("data", "judge", "arms", "questions", "labels", "groups")}


def told(name: str, pool: Pool) -> dict[str, Any]:
    """Return facts about a pool: its size, the true means, and how often each judge gives people's mark."""
    return {
        "repository": SOURCES[name],
        "questions": len(pool.marks_N2),
        "mean marks": [round(float(mean), 4) for mean in pool.marks_N2.mean(0)],
        "same mark": {
            judge: round(float((grades == pool.marks_N2).mean()), 4) for judge, grades in pool.judges.items()
        },
    }


if __name__ == "__main__":
    main()
