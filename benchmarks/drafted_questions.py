"""How far drafted questions may be believed: on five sets with documents and questions that people asked, settings of
retrieval and arms are put in order once by questions that `trimtab questions` drafts, and once by the real ones.

    python benchmarks/drafted_questions.py retrieval --clones CLONES --to FOLDER    # minutes: no language model
    python benchmarks/drafted_questions.py arms --clones CLONES --to FOLDER         # two studies of each set

CLONES holds deepset-ai/COVID-QA, wasiahmad/PolicyQA and pubmedqa/pubmedqa as `public_tasks.py` reads them; the handbook
comes with Trimtab, XQuAD lies in the public data. Every draft is approved, as nobody reads them here. Nothing of the
data is committed; results go to `results/drafted_questions.json`.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from public_tasks import Read, reader
from scipy.stats import kendalltau
from shared import ROOT, SHARED, machine

from trimtab import load_task, questions, study
from trimtab.arms.retriever import Retriever
from trimtab.arms.workspace import open_for_answering
from trimtab.base.records import Example, Message
from trimtab.data.drafted_questions import DRAFTED_QUESTIONS, read_drafts, write_drafts
from trimtab.measurement.contains import match

HANDBOOK = ROOT / "trimtab" / "demos" / "handbook"
RESULT = Path(__file__).parent / "results" / "drafted_questions.json"
ROWS = 240  # real questions of a set, and drafted ones, at most
SETTINGS = [(words, weight, k) for words in (60, 120, 240) for weight in (0.0, 0.25, 0.5, 1.0) for k in (1, 3)]
TASK = """[task]
name = "{name}"
kind = "answer"
instruction = "Answer the question from the documents in a few words. If they do not say, answer: I don't know."
metric = "contains"
[data]
examples = {rows}
documents = ["documents/"]
leakage = "report"
split = {{ dev = 0.1, test = 0.6, seed = 0 }}
[base]
model = "smollm2-135m-q4"
embedding = "minilm-l6"
"""
ARMS = """[study]
arms = ["prompt", "extract", "rag", "lora", "lora+rag"]
effort = "none"
[arm.lora]
epochs = 1
[arm."lora+rag"]
epochs = 1
"""
PAIRS = {  # arms that differ in one thing
    "reads passages": (("prompt", "rag"), ("lora", "lora+rag")),
    "generator": (("rag", "extract"), ("prompt", "extract")),
    "tuned": (("prompt", "lora"), ("rag", "lora+rag")),
}
Pairs = list[tuple[str, list[str]]]
"""Questions with their right answers."""


def handbook(_: Callable[[str], Read]) -> tuple[dict[str, str], Pairs]:
    """The bundled handbook, whose questions its author wrote."""
    texts = {path.name: path.read_text() for path in sorted((HANDBOOK / "documents").glob("*.md"))}
    rows = [json.loads(line) for line in (HANDBOOK / "questions.jsonl").read_text().splitlines()]
    return texts, [(row["question"], _list(row["answer"])) for row in rows]


def xquad(_: Callable[[str], Read]) -> tuple[dict[str, str], Pairs]:
    """Articles of Wikipedia with the questions of crowd workers who saw the paragraph."""
    return _squad(json.loads((SHARED / "xquad.en.json").read_text())["data"], 48)


def covidqa(clone: Callable[[str], Read]) -> tuple[dict[str, str], Pairs]:
    """Scientific papers with questions of experts."""
    read = clone("deepset-ai/COVID-QA")
    return _squad(json.loads(read("data/question-answering/200423_covidQA.json"))["data"], 24)


def policyqa(clone: Callable[[str], Read]) -> tuple[dict[str, str], Pairs]:
    """Privacy policies of web sites with questions of experts."""
    return _squad(json.loads(clone("wasiahmad/PolicyQA")("data/dev.json"))["data"], 40)


def pubmedqa(clone: Callable[[str], Read]) -> tuple[dict[str, str], Pairs]:
    """Abstracts with the question in the paper's title; answers are yes, no and maybe, and none is a span."""
    papers = json.loads(clone("pubmedqa/pubmedqa")("data/ori_pqal.json"))
    chosen = list(papers.items())[:ROWS]
    texts = {
        f"{number}.md": "\n\n".join(
            f"## {label}\n\n{text}" for label, text in zip(one["LABELS"], one["CONTEXTS"], strict=True)
        )
        for number, one in chosen
    }
    return texts, [(one["QUESTION"], [one["final_decision"]]) for _, one in chosen]


SETS = {one.__name__: one for one in (handbook, xquad, covidqa, policyqa, pubmedqa)}


def _task(name: str, rows: str, *, arms: bool) -> str:
    """Return a task file; `arms`: False where there are no rows yet for some of them."""
    return TASK.format(name=name, rows=rows) + (ARMS if arms else "")


def _squad(articles: Sequence[Any], most: int) -> tuple[dict[str, str], Pairs]:
    texts: dict[str, str] = {}
    pairs: Pairs = []
    for number, article in enumerate(articles[:most]):
        title = str(article.get("title") or f"document {number}").replace("_", " ")
        name = "".join(char if char.isalnum() else "-" for char in title)[:60]
        body = "\n\n".join(dict.fromkeys(part["context"] for part in article["paragraphs"]))
        texts[f"{number:03}-{name}.md"] = f"# {title}\n\n{body}\n"
        for part in article["paragraphs"]:
            for asked in part["qas"]:
                if answers := list(dict.fromkeys(answer["text"] for answer in asked["answers"])):
                    pairs.append((asked["question"], answers))
    return texts, pairs


def _list(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def lay_out(name: str, clones: Path, to: Path) -> Path:
    """Write documents, real questions and drafted ones of a set, each with a task file, and return their folder."""
    folder = to / name
    if (folder / "drafted" / DRAFTED_QUESTIONS).exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    texts, pairs = SETS[name](lambda repository: reader(clones / repository.replace("/", "+")))
    pairs = random.Random(0).sample(pairs, min(ROWS, len(pairs)))
    for kind, rows in (("real", '["rows.jsonl"]'), ("drafted", "[]")):
        own = folder / kind
        (own / "documents").mkdir(parents=True)
        for file, text in texts.items():
            (own / "documents" / file).write_text(text)
        (own / "trimtab.toml").write_text(_task(f"{name}-{kind}", rows, arms=kind == "real"))
    lines = (json.dumps({"question": question, "answer": answers}) for question, answers in pairs)
    (folder / "real" / "rows.jsonl").write_text("".join(f"{line}\n" for line in lines))
    task = folder / "drafted" / "trimtab.toml"
    review = questions(task, count=ROWS, listeners=())
    (folder / "left_out.json").write_text(json.dumps(review.finish().left_out))
    write_drafts(task.parent, [replace(one, state="approved") for one in read_drafts(task.parent)])
    task.write_text(_task(f"{name}-drafted", "[]", arms=True))
    return folder


def retrieval(folder: Path) -> dict[str, Any]:
    """Return the share of questions for whose answer stands in the first k passages, by setting, for both kinds of
    questions, and how far they order the settings alike."""
    found: dict[str, list[float]] = {}
    counts = {}
    for kind in ("drafted", "real"):
        task = load_task(folder / kind)
        retriever = Retriever(open_for_answering(task, rows=False))
        pairs = _pairs(folder, kind)
        counts[kind] = len(pairs)
        asked = [
            Example(id=str(number), messages=(Message(role="user", content=question),), references=())
            for number, (question, _) in enumerate(pairs)
        ]
        found[kind] = []
        for words, weight, k in SETTINGS:
            hits = retriever.hits(asked, chunk_words=words, vector_weight=weight)
            found[kind].append(
                fmean(
                    any(_holds(hit.passage.text, answers, question) for hit in own[:k])
                    for own, (question, answers) in zip(hits, pairs, strict=True)
                )
            )
    best = max(range(len(SETTINGS)), key=lambda place: found["drafted"][place])
    return {
        "questions": counts,
        "left out": json.loads((folder / "left_out.json").read_text()),
        "settings": [
            {"words": words, "vector_weight": weight, "k": k, "drafted": round(one, 3), "real": round(other, 3)}
            for (words, weight, k), one, other in zip(SETTINGS, found["drafted"], found["real"], strict=True)
        ],
        "order": round(float(kendalltau(found["drafted"], found["real"]).statistic), 3),
        "lost by the choice": round(max(found["real"]) - found["real"][best], 3),
        "lost by the default": round(max(found["real"]) - found["real"][SETTINGS.index((120, 0.25, 3))], 3),
    }


def _holds(text: str, answers: Sequence[str], question: str) -> bool:
    return any(answer in text or match(text, answer, question) == "right" for answer in answers)


def _pairs(folder: Path, kind: str) -> Pairs:
    if kind == "drafted":
        return [(one.question, [one.answer]) for one in read_drafts(folder / kind) if one.passage]
    rows = [json.loads(line) for line in (folder / kind / "rows.jsonl").read_text().splitlines()]
    return [(row["question"], row["answer"]) for row in rows]


def arms(folder: Path) -> dict[str, Any]:
    """Return the score of each arm on both kinds of questions, how often two arms stand in the same order by kind of
    difference, what a study of each would use, and what the choice by drafted questions scores on real ones."""
    studies = {kind: _studied(folder / kind) for kind in ("drafted", "real")}
    names = sorted(studies["drafted"]["scores"].keys() & studies["real"]["scores"].keys())
    drafted, real = ([studies[kind]["scores"][one] for one in names] for kind in ("drafted", "real"))
    scores = {one: {kind: found["scores"][one] for kind, found in studies.items()} for one in names}
    chosen = {kind: found["chosen"] for kind, found in studies.items()}
    return {
        "questions": {kind: found["questions"] for kind, found in studies.items()},
        "scores": scores,
        "order": round(float(kendalltau(drafted, real).statistic), 3),
        "pairs": {kind: [_in_order(scores, *pair) for pair in pairs] for kind, pairs in PAIRS.items()},
        "chosen": chosen,
        "shown": {kind: found["shown"] for kind, found in studies.items()},
        "lost by the choice": round(max(real) - scores[chosen["drafted"]]["real"], 3),
        "score of the choice": scores[chosen["drafted"]],
    }


def _studied(folder: Path) -> dict[str, Any]:
    """Return what a study said, of one that ran before if there is one."""
    said = folder / "said.json"
    if not said.exists():
        result = study(folder, listeners=())
        scored = [arm for arm in result.arms if arm.score is not None]
        today = result.verdict.today
        found = {
            "questions": scored[0].score.n,
            "scores": {arm.arm: round(arm.score.value, 3) for arm in scored},
            "chosen": today.arm if today else result.verdict.arm,
            "shown": result.verdict.status,
        }
        said.write_text(json.dumps(found))
    return dict(json.loads(said.read_text()))


def _in_order(scores: dict[str, dict[str, float]], one: str, other: str) -> dict[str, Any]:
    """Return by how much the second of two arms is ahead, by both kinds of questions."""
    ahead = {kind: round(scores[other][kind] - scores[one][kind], 3) for kind in ("drafted", "real")}
    return {"arms": [one, other], **ahead}


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("retrieval", "arms"))
    parser.add_argument("names", nargs="*", default=list(SETS))
    parser.add_argument("--clones", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    given = parser.parse_args(list(words) if words is not None else None)
    for name in given.names:
        folder = lay_out(name, given.clones, given.to)
        found = (retrieval if given.what == "retrieval" else arms)(folder)
        kept = json.loads(RESULT.read_text()) if RESULT.exists() else {"machine": machine(), "rows": ROWS}
        kept.setdefault(given.what, {})[name] = found
        RESULT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
        print(name, json.dumps({key: value for key, value in found.items() if key != "settings"}, ensure_ascii=False))


if __name__ == "__main__":
    main()
