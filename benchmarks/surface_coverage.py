"""Measures how often `surface coverage` judges wrongly, on labelled questions, and at which distance questions of
similar meaning are joined.

python benchmarks/surface_coverage.py          # → results/surface_coverage.json

Judging: each question of three public sets is asked of the simulated assistant without its label, over all documents
and again without the document that answers it. A passage is right where it holds the reference
(`measurement/contains.py`). Groups: questions of Banking77's test set, whose intents are the true groups, by the
adjusted Rand index (Hubert and Arabie 1985) at each distance. Facts: questions of the handbook, which asks for each
fact in three ways, and of endoflife, where nearly each asks for another one, grouped by meaning alone, and by the
sentences that answer them and the figures and names in them, too. The rules were chosen on the facts with an even
number ("chosen on"), and on endoflife.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from extract import SETS, Asked
from shared import SHARED
from sklearn.metrics import adjusted_rand_score

from trimtab.base.files import write_json
from trimtab.base.machine import describe_machine, versions
from trimtab.base.records import Document, Hit
from trimtab.measurement.contains import stands_in
from trimtab.measurement.statistics import estimate
from trimtab.model.catalog import resolve
from trimtab.publishing.assistant import (
    SOURCES,
    THRESHOLD,
    CachingEncoder,
    ExtractiveEngine,
    SentenceJudge,
    SimulatedAssistant,
    open_index,
)
from trimtab.publishing.questions import DISTANCE, UNSTABLE, group_questions, linked_codes
from trimtab.retrieval.embed import Embedder
from trimtab.retrieval.extract import SURE
from trimtab.retrieval.search import hybrid_search

RESULT = Path(__file__).resolve().parent / "results" / "surface_coverage.json"
EMBEDDING = "minilm-l6"
LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
DISTANCES = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)
BANKING = 1_000
FACTS_ASKED = 747  # all of the handbook that have an answer


def drawn(asked: Sequence[Asked], most: int) -> list[Asked]:
    """A seeded draw of the questions that have a right answer and a document."""
    known = [one for one in asked if one.references and one.document]
    order = np.random.default_rng(0).permutation(len(known))[:most]
    return [known[place] for place in sorted(order)]


def is_of(hit: Hit, document: str | None) -> bool:
    """Return True if a passage is of the document that answers."""
    return hit.passage.document.rpartition("/")[2] == document


def judged(
    documents: Sequence[Document], asked: Sequence[Asked], encoder: CachingEncoder, folder: Path
) -> dict[str, Any]:
    """Passages and questions as they are judged without labels, against what the labels say."""
    index = open_index(folder, encoder, documents)
    judge = SentenceJudge(index.passages, encoder)
    engine = ExtractiveEngine(judge)
    assistant = SimulatedAssistant(index, engine)
    passages: list[tuple[float, bool]] = []
    questions: list[tuple[float, bool, bool]] = []
    groups = [one.document for one in asked]
    texts = [one.question for one in asked]
    found = assistant.retrieve(texts)
    for one, hits, said in zip(asked, found, engine.answer(texts, found), strict=True):
        best = judge.each(one.question, hits)
        for hit in hits:
            right = any(stands_in(hit.passage.text, reference) for reference in one.references)
            passages.append((best[hit.rank].score if hit.rank in best else 0.0, right))
        probability = max((sentence.probability or 0.0 for sentence in said), default=0.0)
        whole = " ".join(sentence.text for sentence in said)
        retrieved = any(stands_in(hit.passage.text, reference) for hit in hits for reference in one.references)
        questions.append((probability, any(stands_in(whole, reference) for reference in one.references), retrieved))
    absent = []
    for one, hits in zip(asked, hybrid_search(index, texts, 20), strict=True):
        others = [hit for hit in hits if not is_of(hit, one.document)][:SOURCES]
        others = [replace(hit, rank=rank) for rank, hit in enumerate(others, 1)]
        (said,) = engine.answer([one.question], [others])
        absent.append(max((sentence.probability or 0.0 for sentence in said), default=0.0))
    probability_P, right_P = np.array([one for one, _ in passages]), np.array([right for _, right in passages])
    called_P = probability_P >= THRESHOLD
    probability_Q, holds_Q, retrieved_Q = (np.array(column) for column in zip(*questions, strict=True))
    absent_Q = np.array(absent)

    def share(values: Any, where: Any = None) -> dict[str, float]:
        kept = np.ones(len(values), bool) if where is None else where
        if not kept.any():
            return {}
        names = [group for group, each in zip(groups, kept, strict=True) if each]
        found = estimate(np.asarray(values, float)[kept], names)
        return {"score": round(found.value, 3), "low": round(found.low, 3), "high": round(found.high, 3), "n": found.n}

    return {
        "questions": len(asked),
        "documents": len(documents),
        "right_passage_among_retrieved": share(retrieved_Q),
        "passages": {
            "called_right": int(called_P.sum()),
            "precision": round(float(right_P[called_P].mean()), 3),
            "recall": round(float(called_P[right_P].mean()), 3),
        },
        "answer_holds_reference": share(holds_Q),
        "at": {
            f"{level:g}": {
                "called_answered": round(float((probability_Q >= level).mean()), 3),
                "answered_and_holds": share(holds_Q, probability_Q >= level),
                "partly_and_holds": share(holds_Q, (probability_Q >= THRESHOLD) & (probability_Q < level)),
                "called_answered_without_document": share(absent_Q >= level),
            }
            for level in LEVELS
        },
        "cited_without_document": share(absent_Q >= THRESHOLD),
    }


def groups(encoder: CachingEncoder) -> dict[str, Any]:
    """The adjusted Rand index with the intents of Banking77, and the stability of groups, at each distance."""
    with (SHARED / "banking77.test.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    order = np.random.default_rng(0).permutation(len(rows))[:BANKING]
    texts, intents = [rows[place]["text"] for place in order], [rows[place]["category"] for place in order]
    vectors = encoder.encode(texts)
    found = {}
    for distance in DISTANCES:
        made = group_questions(texts, vectors, distance=distance)
        code = np.zeros(len(texts), int)
        for number, group in enumerate(made):
            code[list(group.members)] = number
        stable = [group.stability for group in made if group.stability is not None]
        found[f"{distance:g}"] = {
            "groups": len(made),
            "adjusted_rand": round(float(adjusted_rand_score(intents, code)), 3),
            "stability_median": round(float(np.median(stable)), 3),
            "not_stable": round(float(np.mean(np.array(stable) < UNSTABLE)), 3),
        }
    return {"questions": len(texts), "intents": len(set(intents)), "at": found}


def facts(
    documents: Sequence[Document], asked: Sequence[Asked], encoder: CachingEncoder, folder: Path
) -> dict[str, Any]:
    """How well questions for one fact are brought together: pairs in one group that ask for one fact (precision), pairs
    for one fact that are in one group (recall)."""
    index = open_index(folder, encoder, documents)
    judge = SentenceJudge(index.passages, encoder)
    texts = [one.question for one in asked]
    retrieved = SimulatedAssistant(index, ExtractiveEngine(judge)).retrieve(texts)
    best = [judge.best(text, hits, k=1) for text, hits in zip(texts, retrieved, strict=True)]
    answers = [sentences[0][1] if sentences else None for sentences in best]
    numbers: dict[tuple[str | None, tuple[str, ...]], int] = {}
    fact_N = np.array([numbers.setdefault((one.document, one.references), len(numbers)) for one in asked])
    found: dict[str, Any] = {"questions": len(texts), "facts": len(numbers)}
    for part, places in (("chosen_on", np.flatnonzero(fact_N % 2 == 0)), ("others", np.flatnonzero(fact_N % 2))):
        names, vectors = [texts[place] for place in places], encoder.encode([texts[place] for place in places])
        plain = linked_codes(1.0 - np.clip(vectors.astype(float) @ vectors.T, -1, 1), DISTANCE)
        code = np.zeros(len(places), int)
        for number, group in enumerate(group_questions(names, vectors, answers=[answers[place] for place in places])):
            code[list(group.members)] = number
        found[part] = {
            "meaning": agreement_of_pairs(fact_N[places], plain),
            "meaning_and_facts": agreement_of_pairs(fact_N[places], code),
        }
    return found


def agreement_of_pairs(true_N: Any, code_N: Any) -> dict[str, float]:
    """Precision and recall of pairs of questions in one group, the adjusted Rand index, and the number of groups."""
    above = np.triu_indices(len(true_N), 1)
    same, joined = (true_N[:, None] == true_N)[above], (code_N[:, None] == code_N)[above]
    return {
        "groups": len(set(code_N)),
        "precision": round(float((same & joined).sum() / max(joined.sum(), 1)), 3),
        "recall": round(float((same & joined).sum() / max(same.sum(), 1)), 3),
        "adjusted_rand": round(float(adjusted_rand_score(true_N, code_N)), 3),
    }


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--questions", type=int, default=300, help="of each set")
    most = parser.parse_args().questions
    encoder = CachingEncoder(Embedder(resolve(EMBEDDING)))
    result: dict[str, Any] = {"threshold": THRESHOLD, "sure": SURE, "distance": DISTANCE, "k": SOURCES, "sets": {}}
    result["groups"] = groups(encoder)
    print(json.dumps(result["groups"], indent=1), flush=True)
    with tempfile.TemporaryDirectory() as home:
        for name, load in SETS.items():
            documents, asked = load(Path(home))
            folder = Path(home) / f"index-{name}"
            result["sets"][name] = judged(documents, drawn(asked, most), encoder, folder)
            if name != "xquad":  # where no two questions ask for one fact
                result["sets"][name]["facts"] = facts(documents, drawn(asked, FACTS_ASKED), encoder, folder)
            print(name, json.dumps(result["sets"][name], indent=1), flush=True)
    write_json(RESULT, {**result, "machine": describe_machine(), "versions": versions()})


if __name__ == "__main__":
    main()
