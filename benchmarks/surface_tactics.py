"""Measures the effect of GEO's tactics on how a simulated assistant finds and cites a page, on three public sets; and
of the passage's position.

python benchmarks/surface_tactics.py --work FOLDER [--model smollm2-135m-q4]          # →
results/surface_tactics.json

Tactics (Aggarwal et al. 2024) are made mechanically from each page's own sentences, no text is generated
(`TACTICS`). A fifth of the documents is edited at a time and asked its own questions, while none or all of the other
documents follow. Each question is paired with itself under no edit; intervals and tests are clustered by document,
p-values adjusted over all cells (Holm). Answers of each cell are kept in FOLDER, so that a run can go on.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from extract import SETS, Asked
from surface_coverage import EMBEDDING, drawn, is_of

from trimtab.base.files import append_line, read_json_lines, write_json
from trimtab.base.machine import describe_machine, versions
from trimtab.base.records import Document, Hit, Section
from trimtab.measurement.contains import sentences, stands_in
from trimtab.measurement.facts import read
from trimtab.measurement.statistics import compare_paired, estimate, holm
from trimtab.model.catalog import resolve
from trimtab.publishing.assistant import (
    SOURCES,
    CachingEncoder,
    ExtractiveEngine,
    SentenceJudge,
    SimulatedAssistant,
    local_engine,
    open_index,
)
from trimtab.publishing.coverage import shares
from trimtab.retrieval.embed import Embedder
from trimtab.retrieval.extract import content_stems, stems

RESULT = Path(__file__).resolve().parent / "results" / "surface_tactics.json"
FOLDS, ADOPTIONS = 5, (0.0, 1.0)
OUTCOMES = ("retrieved", "reciprocal rank", "cited", "share")
DRAWN_DOCUMENTS = {"endoflife": 50}  # of its 150, so that a run fits half an hour of a shared core
POSITIONED_SETS = ("handbook", "xquad")
POSITIONED = 60  # questions, each asked with its right passage in every place
Tactic = Callable[[Document, Sequence[Asked]], Document]


def _lines(document: Document) -> list[str]:
    """The sentences of a page that say something: no question, no row of a table, eight words or more."""
    found = [line for part in document.sections for line in sentences(part.text)]
    return [line for line in found if len(line.split()) >= 8 and not line.endswith("?") and "|" not in line]


def _facts(line: str) -> int:
    return sum(token.kind != "word" for token in read(line))


def _at_the_end(document: Document, text: str) -> Document:
    last = document.sections[-1]
    return replace(document, sections=(*document.sections[:-1], replace(last, text=f"{last.text}\n\n{text}")))


def _each(document: Document, change: Callable[[str], str]) -> Document:
    return replace(document, sections=tuple(replace(part, text=change(part.text)) for part in document.sections))


def placebo(document: Document, _: Sequence[Asked]) -> Document:
    """A closing sentence that says nothing about the page."""
    return _at_the_end(document, "Thank you for taking the time to read all of this.")


def quotations(document: Document, _: Sequence[Asked]) -> Document:
    """The two sentences with most figures and names again, in quotation marks and attributed to the page."""
    lines = sorted(_lines(document), key=_facts, reverse=True)[:2]
    said = document.title or "the article"
    return _at_the_end(document, "\n".join(f"As {said} puts it: “{line}”" for line in lines)) if lines else document


def statistics(document: Document, _: Sequence[Asked]) -> Document:
    """The sentences with figures again, the three with most of them, as a list of key figures at the top."""
    counted = [(sum(token.kind in ("number", "date") for token in read(line)), line) for line in _lines(document)]
    best = [line for count, line in sorted(counted, key=lambda pair: -pair[0])[:3] if count]
    if not best:
        return document
    first = document.sections[0]
    text = "Key figures:\n" + "\n".join(f"- {line}" for line in best) + f"\n\n{first.text}"
    return replace(document, sections=(replace(first, text=text), *document.sections[1:]))


def citations(document: Document, _: Sequence[Asked]) -> Document:
    """A source behind every sentence with a figure or a date: the page's own title, as in a footnote."""
    said = document.title or "own records"

    def change(text: str) -> str:
        lines = [
            line
            for line in dict.fromkeys(sentences(text))
            if len(line.split()) >= 8 and "|" not in line and _facts(line)
        ]
        for line in lines:
            end = line[-1] if line[-1] in ".!" else ""
            text = text.replace(line, f"{line.removesuffix(end)} (source: {said}){end}", 1)
        return text

    return _each(document, change)


def stuffing(document: Document, _: Sequence[Asked]) -> Document:
    """The page's ten most frequent content words behind every paragraph."""
    words = re.findall(r"[^\W\d_]{4,}", " ".join(part.text for part in document.sections).casefold())
    kept = content_stems(" ".join(words))
    common = [word for word, _ in Counter(word for word in words if stems(word) & kept).most_common(10)]
    tail = f" Keywords: {', '.join(common)}."
    return _each(document, lambda text: "\n\n".join(part + tail for part in text.split("\n\n")))


def fluency(document: Document, _: Sequence[Asked]) -> Document:
    """Connectives in front of sentences, each third one joined to the next: prose that runs on, with the same facts."""
    links = ("In addition, ", "Moreover, ", "As a matter of fact, ")

    def change(text: str) -> str:
        paragraphs = []
        for paragraph in text.split("\n\n"):
            lines = sentences(paragraph)
            if len(lines) < 2 or "|" in paragraph or "\n" in paragraph:
                paragraphs.append(paragraph)
                continue
            linked = [lines[0], *(links[place % 3] + line for place, line in enumerate(lines[1:]))]
            paragraphs.append(" ".join(linked))
        return "\n\n".join(paragraphs)

    return _each(document, change)


def question_and_answer(document: Document, asked: Sequence[Asked]) -> Document:
    """A control that should show: each question of the draw as a heading, and below it the sentence that holds its
    answer."""
    parts = []
    for one in asked:
        line = next(
            (line for line in _lines(document) if any(stands_in(line, right) for right in one.references)), None
        )
        if line:
            parts.append(Section(path=(one.question,), text=line))
    return replace(document, sections=(*document.sections, *parts))


TACTICS: dict[str, Tactic] = {
    "placebo": placebo,
    "quotations": quotations,
    "statistics": statistics,
    "citations": citations,
    "keyword stuffing": stuffing,
    "fluency": fluency,
    "question and answer (control)": question_and_answer,
}
Figures = dict[int, list[float]]  # OUTCOMES by the number of the question


def figures(
    documents: Sequence[Document], asked: Sequence[tuple[int, Asked]], encoder: CachingEncoder
) -> tuple[Figures, list[tuple[int, bool]]]:
    """The outcomes of each question for its own page, and of each own passage that was retrieved its rank and
    whether it was cited."""
    found: Figures = {}
    ranked: list[tuple[int, bool]] = []
    with tempfile.TemporaryDirectory() as folder:
        index = open_index(Path(folder), encoder, documents)
        assistant = SimulatedAssistant(index, ExtractiveEngine(SentenceJudge(index.passages, encoder)))
        answers = assistant.ask([one.question for _, one in asked])
    for (number, one), answer in zip(asked, answers, strict=True):
        own = [hit.rank for hit in answer.hits if is_of(hit, one.document)]
        cited = {rank for sentence in answer.sentences for rank in sentence.sources} & set(own)
        _, adjusted = shares(answer, lambda hit, name=one.document: is_of(hit, name))
        found[number] = [float(bool(own)), 1 / own[0] if own else 0.0, float(bool(cited)), adjusted]
        ranked += [(rank, rank in cited) for rank in own]
    return found, ranked


def edited(
    documents: Sequence[Document], asked: Sequence[Asked], tactic: Tactic, fold: set[str], adoption: float
) -> list[Document]:
    """All documents, those of the fold edited and of the others a seeded share."""
    questions: dict[str, list[Asked]] = {}
    for one in asked:
        questions.setdefault(one.document or "", []).append(one)
    names = [one.id.rpartition("/")[2] for one in documents]
    others = [name for name in names if name not in fold]
    order = np.random.default_rng(1).permutation(len(others))[: round(adoption * len(others))]
    chosen = fold | {others[place] for place in order}
    state = []
    for name, one in zip(names, documents, strict=True):
        new = tactic(one, questions.get(name, [])) if name in chosen else one
        state.append(replace(new, digest=f"{one.digest}{hash(new.sections)}") if new is not one else one)
    return state


def cell(
    name: str,
    documents: Sequence[Document],
    asked: Sequence[Asked],
    tactic: Tactic,
    adoption: float,
    encoder: CachingEncoder,
) -> Figures:
    """The outcomes of every question while its own document is edited, and a share of the others."""
    names = sorted({one.id.rpartition("/")[2] for one in documents})
    order = np.random.default_rng(0).permutation(len(names))
    folds = [{names[place] for place in order[number::FOLDS]} for number in range(FOLDS)]
    folds = [set(names)] if adoption == 1 else folds
    found: Figures = {}
    for fold in folds:
        mine = [(number, one) for number, one in enumerate(asked) if one.document in fold]
        found |= figures(edited(documents, asked, tactic, fold, adoption), mine, encoder)[0]
    print(name, flush=True)
    return found


def positions(
    documents: Sequence[Document], asked: Sequence[Asked], encoder: CachingEncoder, model: str
) -> dict[str, Any]:
    """A local model's answers with the right passage in each of the five places: does it cite it, and hold the
    reference?"""
    with tempfile.TemporaryDirectory() as folder:
        index = open_index(Path(folder), encoder, documents)
        judge = SentenceJudge(index.passages, encoder)
        hits = SimulatedAssistant(index, ExtractiveEngine(judge)).retrieve([one.question for one in asked])
    right = [
        next((hit for hit in found if any(stands_in(hit.passage.text, ref) for ref in one.references)), None)
        for one, found in zip(asked, hits, strict=True)
    ]
    kept = [place for place, hit in enumerate(right) if hit is not None and len(hits[place]) == SOURCES][:POSITIONED]
    rows: dict[int, list[tuple[bool, bool, bool]]] = {}
    began = time.perf_counter()
    with local_engine(model) as engine:
        for position in range(SOURCES):
            shown: list[list[Hit]] = []
            for place in kept:
                others = [hit for hit in hits[place] if hit is not right[place]]
                order = [*others[:position], right[place], *others[position:]]
                shown.append([replace(hit, rank=rank) for rank, hit in enumerate(order, 1) if hit is not None])
            answers = engine.answer([asked[place].question for place in kept], shown)
            rows[position + 1] = [
                (
                    any(position + 1 in sentence.sources for sentence in said),
                    any(stands_in(" ".join(one.text for one in said), ref) for ref in asked[place].references),
                    not said,
                )
                for place, said in zip(kept, answers, strict=True)
            ]
            print("position", position + 1, np.mean(rows[position + 1], axis=0), flush=True)
    first, last = rows[1], rows[SOURCES]
    gap = compare_paired([float(one[1]) for one in first], [float(one[1]) for one in last])
    return {
        "model": model,
        "questions": len(kept),
        "seconds": round(time.perf_counter() - began, 1),
        "at": {
            str(place): {
                "cited": _told(estimate([float(one[0]) for one in found])),
                "holds_reference": _told(estimate([float(one[1]) for one in found])),
                "abstained": round(float(np.mean([one[2] for one in found])), 3),
            }
            for place, found in rows.items()
        },
        "first_against_last": {
            "difference": round(gap.difference, 3),
            "low": round(gap.low, 3),
            "high": round(gap.high, 3),
            "p": gap.p,
        },
    }


def cut(
    name: str, documents: Sequence[Document], every: Sequence[Asked], most: int
) -> tuple[Sequence[Document], list[Asked]]:
    """The documents and the drawn questions of a set; where DRAWN_DOCUMENTS says so, of a seeded draw of its
    documents alone."""
    if name not in DRAWN_DOCUMENTS:
        return documents, drawn(every, most)
    names = sorted({one.document for one in every if one.document})
    order = np.random.default_rng(0).permutation(len(names))[: DRAWN_DOCUMENTS[name]]
    chosen = {names[place] for place in order}
    part = [one for one in documents if one.id.rpartition("/")[2] in chosen]
    return part, drawn([one for one in every if one.document in chosen], most)


def _told(found: Any) -> dict[str, float]:
    return {"score": round(found.value, 3), "low": round(found.low, 3), "high": round(found.high, 3)}


def main() -> None:
    """Measure what is not measured yet, sum up, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--work", type=Path, required=True, help="where the answers of each cell are kept")
    parser.add_argument("--questions", type=int, default=200, help="of each set")
    parser.add_argument("--only", choices=list(SETS), help="measure this set and write no result")
    parser.add_argument("--model", default="smollm2-135m-q4", help="the model of the positions; empty for none")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    kept = options.work / "cells.jsonl"
    known = {line["cell"]: line for line in read_json_lines(kept, "cell")} if kept.exists() else {}
    encoder = CachingEncoder(Embedder(resolve(EMBEDDING)))
    found: dict[str, dict[str, Any]] = {}
    clusters: dict[str, list[str]] = {}
    place: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as home:
        for name, load in SETS.items():
            if options.only not in (None, name):
                continue
            documents, asked = cut(name, *load(Path(home)), options.questions)
            clusters[name] = [f"{name}/{one.document}" for one in asked]
            cells: list[tuple[str, Tactic | None, float]] = [(f"{name}|present|0", None, 0.0)]
            cells += [
                (f"{name}|{tactic}|{share:g}", made, share) for tactic, made in TACTICS.items() for share in ADOPTIONS
            ]
            for title, made, share in cells:
                if title not in known:
                    if made is None:
                        rows, ranked = figures(documents, list(enumerate(asked)), encoder)
                    else:
                        rows, ranked = cell(title, documents, asked, made, share, encoder), []
                    line = {"cell": title, "rows": [rows[number] for number in range(len(asked))], "ranked": ranked}
                    append_line(kept, line)
                    known[title] = line
                found[title] = known[title]
            title = f"{name}|positions|{options.model}"
            if options.model and title not in known and name in POSITIONED_SETS:
                line = {"cell": title, "found": positions(documents, asked, encoder, options.model)}
                append_line(kept, line)
                known[title] = line
            if title in known:
                place[name] = known[title]["found"]
    if options.only is None:
        told = summed(found, clusters)
        write_json(RESULT, {**told, "positions": place, "machine": describe_machine(), "versions": versions()})


def summed(found: dict[str, dict[str, Any]], clusters: dict[str, list[str]]) -> dict[str, Any]:
    """Differences from the present pages by set, tactic, adoption and outcome, and over all sets; p-values adjusted
    over all cells of a kind."""
    gaps: list[dict[str, Any]] = []
    for where in (*SETS, "all"):
        sets = list(SETS) if where == "all" else [where]
        groups = [group for name in sets for group in clusters[name]]
        present = np.vstack([found[f"{name}|present|0"]["rows"] for name in sets])
        for tactic in TACTICS:
            for share in ADOPTIONS:
                now = np.vstack([found[f"{name}|{tactic}|{share:g}"]["rows"] for name in sets])
                for number, outcome in enumerate(OUTCOMES):
                    gap = compare_paired(now[:, number], present[:, number], groups)
                    gaps.append(
                        {
                            "set": where,
                            "tactic": tactic,
                            "adoption": share,
                            "outcome": outcome,
                            "present": round(float(present[:, number].mean()), 4),
                            "difference": round(gap.difference, 4),
                            "low": round(gap.low, 4),
                            "high": round(gap.high, 4),
                            "p": gap.p,
                        }
                    )
    for kind in (True, False):  # the cells by set, and those over all sets, are families of their own
        part = [gap for gap in gaps if (gap["set"] == "all") == kind]
        for gap, p in zip(part, holm([gap["p"] for gap in part]), strict=True):
            gap["p_holm"] = round(p, 4)
    ranked = [tuple(pair) for name in SETS for pair in found[f"{name}|present|0"]["ranked"]]
    return {
        "questions": {name: len(groups) for name, groups in clusters.items()},
        "documents": {name: len(set(groups)) for name, groups in clusters.items()},
        "engine": "extractive engine, sentences word for word",
        "embedding": EMBEDDING,
        "k": SOURCES,
        "cells": gaps,
        "cited_by_rank": {
            str(rank): _told(estimate([float(cited) for each, cited in ranked if each == rank]))
            for rank in range(1, SOURCES + 1)
        },
    }


if __name__ == "__main__":
    main()
