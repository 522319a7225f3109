"""Measures how often the sentence that `extract` finds answers the question, on three public sets; and fits its
weights.

python benchmarks/extract.py          # → results/extract.json

The weights that are fitted here on XQuAD and endoflife are told for comparison. Those of `retrieval/extract.py` are
rounded: of a small grid the ones that found most on samples of the two and on the first two documentations of
`support.py`, whose questions have other words than their documents; their calibration was fitted on the same four. A
first grid had a sample of the handbook, too; without it the same setting won, narrowly.

Each question is asked twice: of all documents, and of all but the one that answers it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from shared import SHARED
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from trimtab.arms.contexts import USUAL_THRESHOLD
from trimtab.arms.workspace import open_workspace
from trimtab.base.files import write_json
from trimtab.base.grammar import SENTENCE
from trimtab.base.machine import describe_machine, versions
from trimtab.base.records import Document, Example, Section
from trimtab.base.task import load_task
from trimtab.measurement.contains import match, stands_in
from trimtab.model.catalog import resolve
from trimtab.retrieval.embed import Embedder
from trimtab.retrieval.extract import (
    CALIBRATION,
    DEPTH,
    FEATURES,
    REACH,
    WEIGHTS,
    Extractor,
    names_in,
    stems,
)
from trimtab.retrieval.index import Index
from trimtab.retrieval.search import candidates

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "extract.json"
EMBEDDING, MONTH = "minilm-l6", "2026-07"
FITTED, PENALTY = ("xquad", "endoflife"), 1e-4
THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5)
TIMED = 60
Array = np.ndarray[Any, Any]
Sure = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question, its right answers (none where the documents hold none) and the document that holds them."""

    question: str
    references: tuple[str, ...]
    document: str | None


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The sentences that were found for a question: features [C, F], which hold the answer, and which give it and
    nothing else.

    `strange`: the share of the question's names that stand in no document.
    """

    asked: Asked
    features_CF: Array
    holds_C: Array
    right_C: Array
    strange: float


def handbook(folder: Path) -> tuple[Sequence[Document], list[Asked]]:
    """The bundled handbook with all its questions, those without an answer too."""
    shutil.copytree(str(files("trimtab") / "demos" / "handbook"), folder / "handbook")
    workspace = open_workspace(load_task(folder / "handbook" / "trimtab.toml"))
    unknown = workspace.task.task.unknown
    rows: list[Example] = [row for part in workspace.splits.values() for row in part]
    asked = [
        Asked(
            question=row.input,
            references=() if row.references[0] == unknown else row.references,
            document=row.passages[0] if row.passages else None,
        )
        for row in rows
    ]
    return workspace.documents, asked


def xquad(_: Path) -> tuple[Sequence[Document], list[Asked]]:
    """240 paragraphs of Wikipedia, each a document without a heading."""
    documents, asked = [], []
    for number, article in enumerate(json.loads((SHARED / "xquad.en.json").read_text("utf-8"))["data"]):
        for place, paragraph in enumerate(article["paragraphs"]):
            name = f"{number}-{place}"
            documents.append(_document(name, "", (Section(path=(), text=paragraph["context"]),)))
            for row in paragraph["qas"]:
                references = tuple(answer["text"] for answer in row["answers"])
                asked.append(Asked(question=row["question"], references=references, document=name))
    return documents, asked


def endoflife(folder: Path) -> tuple[Sequence[Document], list[Asked]]:
    """Release facts of 150 products as of one month, in short sentences under headings."""
    home = folder / "endoflife"
    (home / "documents").mkdir(parents=True)
    for line in (SHARED / "endoflife" / f"documents-{MONTH}.jsonl").read_text("utf-8").splitlines():
        plain = json.loads(line)
        (home / "documents" / plain["name"]).write_text(plain["text"], "utf-8")
    rows, asked = (
        [json.loads(line) for line in (SHARED / "endoflife" / "questions.jsonl").read_text("utf-8").splitlines()],
        [],
    )
    for row in rows:
        if MONTH in row["answers"]:
            asked.append(
                Asked(question=row["question"], references=(row["answers"][MONTH],), document=f"{row['group']}.md")
            )
    listed = [{"question": one.question, "answer": one.references[0]} for one in asked]
    (home / "questions.jsonl").write_text("\n".join(map(json.dumps, listed)), "utf-8")
    (home / "trimtab.toml").write_text(
        '[task]\nname = "endoflife"\nkind = "answer"\ninstruction = "Answer."\n'
        '[data]\nexamples = ["questions.jsonl"]\ndocuments = ["documents/"]\n'
        'columns = { input = "question", output = "answer" }\nleakage = "report"\n',
        "utf-8",
    )
    return open_workspace(load_task(home / "trimtab.toml")).documents, asked


def _document(name: str, title: str, sections: tuple[Section, ...]) -> Document:
    return Document(id=name, title=title, source=name, sections=sections, digest=name)


SETS = {"handbook": handbook, "xquad": xquad, "endoflife": endoflife}


def scored(extractor: Extractor, asked: Sequence[Asked], *, without: bool) -> list[Scored]:
    """Return every question with its sentences; `without`: those of the document that answers it are left out."""
    found, index = [], extractor.index
    standing: dict[str, set[str]] = {}
    for passage in index.passages.values():
        for word in stems(" ".join((passage.title, *passage.path, passage.text))):
            standing.setdefault(word, set()).add(passage.document)
    asked = [one for one in asked if not without or one.document]
    for start in range(0, len(asked), 64):
        part = asked[start : start + 64]
        alike = candidates(index, [one.question for one in part], 3 * DEPTH if without else DEPTH, reach=REACH)
        for one, cosines in zip(part, alike, strict=True):
            if without:
                others = {
                    name: value
                    for name, value in cosines.items()
                    if not _is(index.passages[name].document, one.document)
                }
                cosines = dict(sorted(others.items(), key=lambda pair: -pair[1])[: 2 * DEPTH])
            names, features_CF = extractor.scorer.features(one.question, cosines)
            named = names_in(one.question)
            strange = [all(without and _is(name, one.document) for name in standing.get(word, ())) for word in named]
            texts = [] if without else [index.passages[name].text for name in names]
            holds = [any(stands_in(text, right) for right in one.references) for text in texts] or [False] * len(names)
            right = [
                any(match(text, right, one.question) == "right" for right in one.references) for text in texts
            ] or [False] * len(names)
            if names:
                found.append(
                    Scored(
                        asked=one,
                        features_CF=features_CF,
                        holds_C=np.array(holds),
                        right_C=np.array(right),
                        strange=float(np.mean(strange)) if named else 0.0,
                    )
                )
    return found


def _is(document: str, name: str | None) -> bool:
    return document.rpartition("/")[2] == name


def fit_order(sets: Sequence[Sequence[Scored]]) -> Array:
    """The weights under which a sentence that holds the answer comes first, by the softmax over each question's
    sentences; sets weigh alike."""
    parts, rights, shares = [], [], []
    for found in sets:
        used = [one for one in found if one.holds_C.any()]
        parts += [one.features_CF for one in used]
        rights += [one.holds_C for one in used]
        shares += [1 / len(used) / len(sets)] * len(used)
    spread_F = np.vstack(parts).std(axis=0) + 1e-9

    def loss(weights_F: Array) -> tuple[float, Array]:
        total, slope_F = PENALTY * float(weights_F @ weights_F), 2 * PENALTY * weights_F
        for features_CF, holds_C, share in zip(parts, rights, shares, strict=True):
            scores_C = features_CF / spread_F @ weights_F
            chances_C = np.exp(scores_C - scores_C.max())
            chances_C /= chances_C.sum()
            right = float(chances_C[holds_C].sum())
            total -= share * np.log(right)
            slope_F = slope_F + share * ((chances_C - chances_C * holds_C / right) @ (features_CF / spread_F))
        return total, slope_F

    return np.asarray(minimize(loss, np.zeros(len(FEATURES)), jac=True, method="L-BFGS-B").x / spread_F)


def best(one: Scored, weights_F: Array) -> tuple[int, float]:
    """Place and score of the sentence that comes first."""
    scores_C = one.features_CF @ weights_F
    place = int(np.argmax(scores_C))
    return place, float(scores_C[place])


def fit_sure(there: Sequence[Sequence[Scored]], absent: Sequence[Sequence[Scored]], weights_F: Array) -> Sure:
    """Fit the log-odds that the sentence answers, from score and unknown names; a question and its twin
    without an answer weigh alike."""
    rows, right, shares = [], [], []
    for group in (*there, *absent):
        for one in group:
            place, score = best(one, weights_F)
            rows.append((score, one.strange))
            right.append(bool(one.holds_C[place]))
            shares.append(1 / len(group))
    fitted = LogisticRegression(C=1e4, max_iter=5000).fit(
        np.array(rows), right, sample_weight=np.array(shares) * len(rows) / len(there) / 2
    )
    of_score, of_strange = map(float, fitted.coef_[0])
    return of_score, of_strange, float(fitted.intercept_[0])


def told(there: Sequence[Scored], absent: Sequence[Scored], weights_F: Array, sure: Sure) -> dict[str, Any]:
    """Return the shares of a set's questions that are found, and answered at each threshold."""
    known = [one for one in there if one.asked.references]
    nowhere = [*absent, *(one for one in there if not one.asked.references)]

    def sureness(one: Scored) -> float:
        _, score = best(one, weights_F)
        return float(1 / (1 + np.exp(-(sure[0] * score + sure[1] * one.strange + sure[2]))))

    first = [best(one, weights_F)[0] for one in known]
    holds = np.array([one.holds_C[place] for one, place in zip(known, first, strict=True)])
    right = np.array([one.right_C[place] for one, place in zip(known, first, strict=True)])
    nearest = [int(np.argmax(one.features_CF[:, 0])) for one in known]
    sure_K, sure_N = np.array(list(map(sureness, known))), np.array(list(map(sureness, nowhere)))
    three = [np.argsort(-(one.features_CF @ weights_F))[:3] for one in known]
    return {
        "questions": len(known),
        "without_an_answer": len(nowhere),
        "first_holds_answer": float(holds.mean()),
        "one_of_three_holds_answer": float(
            np.mean([one.holds_C[places].any() for one, places in zip(known, three, strict=True)])
        ),
        "first_is_right": float(right.mean()),
        "nearest_holds_answer": float(np.mean([one.holds_C[place] for one, place in zip(known, nearest, strict=True)])),
        "nearest_is_right": float(np.mean([one.right_C[place] for one, place in zip(known, nearest, strict=True)])),
        "auc_there_or_not": float(roc_auc_score([1] * len(known) + [0] * len(nowhere), [*sure_K, *sure_N])),
        "at": {
            f"{threshold:g}": {
                "right": float(np.mean(right & (sure_K >= threshold))),
                "holds": float(np.mean(holds & (sure_K >= threshold))),
                "other_sentence": float(np.mean(~holds & (sure_K >= threshold))),
                "answered_without_an_answer": float(np.mean(sure_N >= threshold)),
            }
            for threshold in THRESHOLDS
        },
    }


def main() -> None:
    """Fit, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cache", type=Path, help="a folder that keeps the indexes between runs")
    cache = parser.parse_args().cache
    there, absent, seconds = {}, {}, {}
    with tempfile.TemporaryDirectory() as home:
        for name, load in SETS.items():
            documents, asked = load(Path(home))
            index = Index.open((cache or Path(home)) / f"index-{name}", Embedder(resolve(EMBEDDING)), words=SENTENCE)
            index.update(documents)
            extractor = Extractor(index)
            there[name], absent[name] = scored(extractor, asked, without=False), scored(extractor, asked, without=True)
            began = time.perf_counter()
            for one in asked[:TIMED]:
                extractor.best([one.question], 3)
            seconds[name] = (time.perf_counter() - began) / TIMED
            print(name, len(documents), "documents,", len(index.passages), "sentences", flush=True)
    weights_F = fit_order([there[name] for name in FITTED])
    sure = fit_sure([there[name] for name in FITTED], [absent[name] for name in FITTED], weights_F)
    used = np.array(WEIGHTS)
    result = {
        "fitted": {
            "weights": dict(zip(FEATURES, weights_F.round(2).tolist(), strict=True)),
            "sure": [round(value, 3) for value in sure],
        },
        "used": {"weights": dict(zip(FEATURES, WEIGHTS, strict=True)), "sure": list(CALIBRATION)},
        "sets": {
            name: {
                **told(there[name], absent[name], used, CALIBRATION),
                "milliseconds_a_question": 1000 * seconds[name],
            }
            for name in SETS
        },
        "left_out": {},
        "threshold": USUAL_THRESHOLD,
        "machine": describe_machine(),
        "versions": versions(),
    }
    for (
        name
    ) in SETS:  # weights from the other sets alone: what the constants would be worth on documents that they never saw
        others = [other for other in SETS if other != name]
        own_F = fit_order([there[other] for other in others])
        own_sure = fit_sure([there[other] for other in others], [absent[other] for other in others], own_F)
        result["left_out"][name] = told(there[name], absent[name], own_F, own_sure)
    write_json(RESULT, result)
    print(json.dumps({key: result[key] for key in ("fitted", "used", "sets", "left_out")}, indent=1))


if __name__ == "__main__":
    main()
