"""Measures how often the right passage is retrieved, on five public sets, by size of a passage and weight of vectors.

python benchmarks/retrieval_sets.py --covid 200423_covidQA.json --pubmed ori_pqal.json   # → results/retrieval_sets.json

Right is a passage of the document that a question belongs to, which holds the answer where the set names one. The files
are `data/question-answering/200423_covidQA.json` of deepset-ai/COVID-QA and `data/ori_pqal.json` of pubmedqa/pubmedqa.
Every setting is compared, question by question, with the former default: 120 words, equal weights.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from extract import EMBEDDING, Asked, endoflife, handbook, xquad

from trimtab.base.config import VECTOR_WEIGHT
from trimtab.base.files import write_json
from trimtab.base.machine import describe_machine, versions
from trimtab.base.records import Document, Passage, Section
from trimtab.measurement.contains import stands_in
from trimtab.model.catalog import resolve
from trimtab.retrieval.chunk import WORDS
from trimtab.retrieval.embed import Embedder
from trimtab.retrieval.index import Index
from trimtab.retrieval.search import DEPTH, EQUAL_WEIGHT, RRF_CONSTANT, hybrid_search

RESULT = Path(__file__).resolve().parent / "results" / "retrieval_sets.json"
SIZES, WEIGHTS = (120, 240, 400), (0.0, 0.25, 0.5, 0.75, 1.0)
MOST_QUESTIONS = 500  # of a set, drawn
Array = np.ndarray[Any, Any]
Loaded = tuple[Sequence[Document], Sequence[Asked]]
Load = Callable[[Path], Loaded]


def covid(file: Path) -> Load:
    """98 articles on the corona virus, some thousand words each, and 1,380 questions of experts, in SQuAD's form."""

    def load(_: Path) -> Loaded:
        documents, asked = [], []
        for number, article in enumerate(json.loads(file.read_text("utf-8"))["data"]):
            for place, paragraph in enumerate(article["paragraphs"]):
                name = f"{number}-{place}"
                documents.append(_document(name, paragraph["context"]))
                for row in paragraph["qas"]:
                    references = tuple(answer["text"] for answer in row["answers"])
                    asked.append(Asked(question=row["question"], references=references, document=name))
        return documents, asked

    return load


def pubmed(file: Path) -> Load:
    """1,000 abstracts of medicine, each with the question that its title asks."""

    def load(_: Path) -> Loaded:
        documents, asked = [], []
        for name, row in json.loads(file.read_text("utf-8")).items():
            documents.append(_document(name, "\n\n".join(row["CONTEXTS"])))
            asked.append(Asked(question=row["QUESTION"], references=(), document=name))
        return documents, asked

    return load


def _document(name: str, text: str) -> Document:
    return Document(id=name, title="", source=name, sections=(Section(path=(), text=text),), digest=name)


def is_right(passage: Passage, asked: Asked) -> bool:
    """True if a passage is of the question's document and holds its answer."""
    if asked.document not in (passage.document, passage.document.rpartition("/")[2]):
        return False
    return not asked.references or any(
        text in passage.text or stands_in(passage.text, text) for text in asked.references
    )


def fused(lists: Sequence[Sequence[str]], weight: float) -> list[str]:
    """Return the ids of two ranked lists, of vectors and of words, as `hybrid_search` orders them."""
    scores: defaultdict[str, float] = defaultdict(float)
    for share, ranked in zip((2 * weight, 2 * (1 - weight)), lists, strict=True):
        for rank, name in enumerate(ranked, 1):
            scores[name] += share / (RRF_CONSTANT + rank) if share else 0.0
    return sorted((name for name in scores if scores[name]), key=lambda name: (-scores[name], name))


def first_right(index: Index, asked: Sequence[Asked]) -> dict[float, Array]:
    """Return, for each weight, the rank of the first right passage of each question [N]; infinite without one."""
    questions = [one.question for one in asked]
    found = [hybrid_search(index, questions, DEPTH, vector_weight=weight) for weight in (1.0, 0.0)]
    ranks: dict[float, list[float]] = {weight: [] for weight in WEIGHTS}
    for one, vectors, words in zip(asked, *found, strict=True):
        lists = [[hit.passage.id for hit in hits] for hits in (vectors, words)]
        right = {name for names in lists for name in names if is_right(index.passages[name], one)}
        for weight in WEIGHTS:
            order = enumerate(fused(lists, weight), 1)
            ranks[weight].append(next((float(rank) for rank, name in order if name in right), float("inf")))
    return {weight: np.array(values) for weight, values in ranks.items()}


def figures(ranks_N: Array) -> dict[str, float]:
    """Return recall at 1 and at 3, and the mean reciprocal rank."""
    return {
        "recall_1": float(np.mean(ranks_N <= 1)),
        "recall_3": float(np.mean(ranks_N <= 3)),
        "mrr": float(np.mean(1 / ranks_N)),
    }


def compared(ranks: Mapping[str, Mapping[tuple[int, float], Array]], setting: tuple[int, float]) -> dict[str, Any]:
    """Return the mean figures of a setting over the sets, and the mean difference of its reciprocal ranks from those
    of the former default, with its standard error."""
    default = (WORDS, EQUAL_WEIGHT)  # what it was before this was measured
    differences = [1 / own[setting] - 1 / own[default] for own in ranks.values()]
    each = [figures(own[setting]) for own in ranks.values()]
    return {
        **{key: float(np.mean([one[key] for one in each])) for key in each[0]},
        "mrr_above": float(np.mean([np.mean(values) for values in differences])),
        "standard_error": float(sum(np.var(values) / len(values) for values in differences) ** 0.5 / len(differences)),
    }


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--covid", type=Path, required=True)
    parser.add_argument("--pubmed", type=Path, required=True)
    chosen = parser.parse_args()
    sets: dict[str, Load] = {
        "xquad": xquad,
        "covid": covid(chosen.covid),
        "pubmed": pubmed(chosen.pubmed),
        "handbook": handbook,
        "endoflife": endoflife,
    }
    ranks: dict[str, dict[tuple[int, float], Array]] = {}
    about: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as home:
        for name, load in sets.items():
            documents, listed = load(Path(home))
            known = [one for one in listed if one.document]
            asked = random.Random(0).sample(known, min(MOST_QUESTIONS, len(known)))
            ranks[name], about[name] = {}, {"questions": len(asked), "documents": len(documents)}
            for words in SIZES:
                index = Index.open(Path(home) / f"index-{name}", Embedder(resolve(EMBEDDING)), words=words)
                index.update(documents)
                about[name][f"passages_of_{words}"] = len(index.passages)
                for weight, ranks_N in first_right(index, asked).items():
                    ranks[name][words, weight] = ranks_N
                    print(name, words, weight, figures(ranks_N), flush=True)
    result = {
        "default": {"words": WORDS, "vector_weight": VECTOR_WEIGHT},
        "sets": {
            name: {
                **about[name],
                "settings": {f"{words}, {weight:g}": figures(values) for (words, weight), values in own.items()},
            }
            for name, own in ranks.items()
        },
        "mean": {f"{words}, {weight:g}": compared(ranks, (words, weight)) for words in SIZES for weight in WEIGHTS},
        "machine": describe_machine(),
        "versions": versions(),
    }
    write_json(RESULT, result)
    print(json.dumps(result["mean"], indent=1))


if __name__ == "__main__":
    main()
