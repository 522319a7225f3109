"""Seven public tasks, each as a stranger would bring it: its files, what `trimtab init` takes of them, a study within a
budget, and thirty-line baselines (`peers/thirty_lines.py`, no code shared) on the same questions and on fresh ones.

    python benchmarks/public_tasks.py write --clones CLONES --to TASKS   # TASKS/NAME/… and TASKS/NAME.fresh.jsonl
    python benchmarks/public_tasks.py init --to TASKS                    # what init takes
    python benchmarks/public_tasks.py study --to TASKS --budget 10m      # a study of each, and what `compare` does
    python benchmarks/public_tasks.py compare --to TASKS                 # its verdict, minutes, baselines, fresh scores

CLONES holds a bare or plain clone of each repository of SOURCES (https://github.com/OWNER/NAME), in folders OWNER+NAME
or OWNER+NAME/repo. Nothing of them is committed; results go to `results/public_tasks.json`.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from trimtab import open_study
from trimtab.arms.linear import input_template
from trimtab.arms.store import ANSWERS
from trimtab.arms.workspace import Workspace, open_workspace
from trimtab.base.errors import MissingError
from trimtab.base.grammar import SENTENCE
from trimtab.base.records import Example, Message
from trimtab.base.task import Task
from trimtab.measurement.evaluate import load_answers, score_all
from trimtab.measurement.metrics import aggregate
from trimtab.measurement.statistics import compare_paired
from trimtab.model.catalog import resolve
from trimtab.retrieval.chunk import chunk_document
from trimtab.studies.open_study import OpenedStudy
from trimtab.training.linear import split_columns

TRIMTAB = (sys.executable, "-m", "trimtab")
RESULT = Path(__file__).parent / "results" / "public_tasks.json"
PEER = Path(__file__).parent / "peers" / "thirty_lines.py"

SOURCES = {
    "tweets": "cardiffnlp/tweeteval",
    "clinc150": "clinc/oos-eval",
    "pubmedqa": "pubmedqa/pubmedqa",
    "grading": "ashudeep/Student-Response-Analysis",
    "covidqa": "deepset-ai/COVID-QA",
    "snips": "sonos/nlu-benchmark",
    "nl2bash": "TellinaTool/nl2bash",
}
INTENTS = (  # of Snips
    "AddToPlaylist",
    "BookRestaurant",
    "GetWeather",
    "PlayMusic",
    "RateBook",
    "SearchCreativeWork",
    "SearchScreeningEvent",
)
FRESH = 1000  # at most, questions behind the study's own test set

Read = Callable[[str], str]
"""The text of a file of the task's repository."""
Rows = Sequence[Mapping[str, Any]]
Written = tuple[Mapping[str, str], Rows]
"""The files of a task by name, and its fresh rows."""


def tweets(read: Read) -> Written:
    """Tweets marked offensive: a CSV of text and label; the original test set is fresh."""

    def rows(part: str) -> list[dict[str, str]]:
        names = dict(line.split("\t") for line in read("datasets/offensive/mapping.txt").splitlines())
        texts = read(f"datasets/offensive/{part}_text.txt").splitlines()
        labels = read(f"datasets/offensive/{part}_labels.txt").split()
        return [{"text": text, "label": names[label]} for text, label in zip(texts, labels, strict=True)]

    return {"tweets.csv": _as_csv([*rows("train"), *rows("val")][:4000])}, rows("test")


def clinc150(read: Read) -> Written:
    """150 intents and out-of-scope questions: JSON lines of text and intent."""
    parts = json.loads(read("data/data_full.json"))

    def rows(*names: str) -> list[dict[str, str]]:
        return [{"text": text, "intent": intent} for name in names for text, intent in parts[name]]

    known = _shuffled(rows("train", "oos_train", "val", "oos_val"))
    return {"clinc.jsonl": _as_lines(known)}, _shuffled(rows("test", "oos_test"))


def pubmedqa(read: Read) -> Written:
    """Questions about abstracts, answered yes, no or maybe: one JSON object of papers by number, as published."""
    papers = json.loads(read("data/ori_pqal.json"))
    held = set(json.loads(read("data/test_ground_truth.json")))
    fresh = [
        {"QUESTION": paper["QUESTION"], "CONTEXTS": paper["CONTEXTS"], "final_decision": paper["final_decision"]}
        for number, paper in papers.items()
        if number in held
    ]
    known = {number: paper for number, paper in papers.items() if number not in held}
    return {"ori_pqal.json": json.dumps(known)}, fresh


def grading(read: Read) -> Written:
    """Answers of students, graded in five ways: a CSV of question, answer, reference answer and grade."""
    answers = csv.reader(
        io.StringIO(read("semevalFormatProcessing-2way/answers.csv")), delimiter="\t", quoting=csv.QUOTE_NONE
    )
    by_id = {row[0]: row[1:4] for row in answers}

    def rows(gold: str) -> list[dict[str, str]]:
        graded = csv.DictReader(io.StringIO(read(f"evaluationScripts/{gold}")), delimiter="\t")
        return [
            dict(zip(("question", "student_answer", "reference_answer"), by_id[row["id"]], strict=True))
            | {"grade": row["accuracy"]}
            for row in graded
            if row["id"] in by_id
        ]

    return {"answers.csv": _as_csv(rows("trainingGold.txt"))}, rows("testGold-UA.txt")


def covidqa(read: Read) -> Written:
    """Questions over papers in the form of SQuAD, papers included; every fifth paper is fresh."""
    papers = json.loads(read("data/question-answering/200423_covidQA.json"))["data"]
    fresh = [
        {"question": pair["question"], "answers": [answer["text"] for answer in pair["answers"]]}
        for paper in papers[::5]
        for paragraph in paper["paragraphs"]
        for pair in paragraph["qas"]
    ]
    known = [paper for number, paper in enumerate(papers) if number % 5]
    return {"covid-qa.json": json.dumps({"data": known})}, fresh


def snips(read: Read) -> Written:
    """Spoken requests with their intent and slots: JSON lines of text and an object."""
    folder, requests = "2017-06-custom-intent-engines", []
    for intent in INTENTS:
        for request in json.loads(read(f"{folder}/{intent}/train_{intent}.json"))[intent]:
            slots = {part["entity"]: part["text"].strip() for part in request["data"] if "entity" in part}
            text = "".join(part["text"] for part in request["data"])
            requests.append({"text": text, "output": {"intent": intent, "slots": slots}})
    requests = _shuffled(requests)
    return {"requests.jsonl": _as_lines(requests[:1600])}, requests[1600:]


def nl2bash(read: Read) -> Written:
    """Sentences and shell commands in two parallel files, as published; every tenth pair is fresh."""
    sentences, commands = read("data/bash/all.nl").splitlines(), read("data/bash/all.cm").splitlines()
    pairs = list(zip(sentences, commands, strict=True))
    fresh = [{"text": sentence, "output": command} for sentence, command in pairs[::10]]
    known = [pair for number, pair in enumerate(pairs) if number % 10]
    files = {"all.nl": [sentence for sentence, _ in known], "all.cm": [command for _, command in known]}
    return {name: "\n".join(lines) + "\n" for name, lines in files.items()}, fresh


TASKS: Mapping[str, Callable[[Read], Written]] = {
    task.__name__: task for task in (tweets, clinc150, pubmedqa, grading, covidqa, snips, nl2bash)
}


def write(clones: Path, to: Path, names: Iterable[str]) -> None:
    """Write the files of each task to a folder of its own, and its fresh rows beside it."""
    for name in names:
        files, fresh = TASKS[name](reader(clones / SOURCES[name].replace("/", "+")))
        (to / name).mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (to / name / file).write_text(text, encoding="utf-8")
        (to / f"{name}.fresh.jsonl").write_text(_as_lines(_shuffled(fresh)[:FRESH]), encoding="utf-8")


def init(to: Path, names: Iterable[str]) -> None:
    """Run `trimtab init` in each task's folder as a stranger would, and print what it says."""
    for name in names:
        folder = to / name
        if name == "nl2bash" and not (folder / "all.csv").exists():  # as the refusal of parallel files says
            pairs = zip(*((folder / file).read_text().splitlines() for file in ("all.nl", "all.cm")), strict=True)
            (folder / "all.csv").write_text(_as_csv([{"text": nl, "output": cm} for nl, cm in pairs]))
            (folder / "all.nl").unlink()
            (folder / "all.cm").unlink()
        if not (folder / "trimtab.toml").exists():
            done = subprocess.run([*TRIMTAB, "init", "."], cwd=folder, capture_output=True, text=True, check=False)
            print(f"## {name}\n{done.stdout}{done.stderr}")


def study(to: Path, names: Iterable[str], budget: str) -> None:
    """Run a study of each task within the budget, and compare it."""
    for name in names:
        words = [*TRIMTAB, "study", "--budget", budget, "--json"]
        done = subprocess.run(words, cwd=to / name, capture_output=True, text=True, check=False)
        try:
            compare(to, (name,))
        except MissingError:
            _keep(name, {"budget": budget, "problem": done.stderr.strip().splitlines()[-1]})


def compare(to: Path, names: Iterable[str]) -> None:
    """Compare the arms of each task's latest study with the baselines on the same test questions, and its choice on
    fresh ones, and keep the figures."""
    for name in names:
        _keep(name, _figures(to, name))


def _keep(name: str, found: Mapping[str, Any]) -> None:
    kept = (json.loads(RESULT.read_text()) if RESULT.exists() else {}) | {name: found}
    ordered = {one: kept[one] for one in TASKS if one in kept}
    RESULT.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps({name: found}, indent=1, ensure_ascii=False))


def _figures(to: Path, name: str) -> dict[str, Any]:
    """Return the verdict, the score of each arm and baseline, and whether a baseline beats the arm that is used."""
    opened = open_study(task=to / name / "trimtab.toml")
    task, spent = opened.task, opened.result.spent
    workspace = open_workspace(task, refuse_leaks=False)
    by_id = {
        arm.arm: {one.item_id: one.score for one in load_answers(opened.folder / "arms" / arm.arm / ANSWERS)}
        for arm in opened.arms
        if arm.status == "done"
    }
    asked = set.intersection(*map(set, by_id.values()))  # a plan may ask fewer than all
    train, test = workspace.splits["train"], [row for row in workspace.all_splits["test"] if row.id in asked]
    scores = {arm: [own[row.id] for row in test] for arm, own in by_id.items()}
    used = opened.verdict.arm or max(scores, key=lambda arm: fmean(scores[arm]))
    given = {one: score_all(test, texts, task, None) for one, texts in _baselines(task, workspace, test).items()}
    compared = {one: compare_paired(scores[used], values) for one, values in given.items()}
    fresh = [json.loads(line) for line in (to / f"{name}.fresh.jsonl").read_text().splitlines()]
    return {
        "budget": spent.budget if spent else None,
        "minutes": round(spent.seconds / 60, 1) if spent else None,
        "rows": {"train": len(train), "test": len(test)},
        "metric": task.metric,
        "verdict": opened.headline,
        "choice": opened.verdict.arm,
        "used": used,
        "arms": {arm: round(fmean(values), 3) for arm, values in scores.items()},
        "not measured": {arm.arm: arm.why for arm in opened.arms if arm.status != "done"},
        "trivial": {one.arm: round(one.score.value, 3) for one in opened.result.trivial},
        "baselines": {
            one: {"score": round(fmean(given[one]), 3), "behind": round(found.difference, 3), "p": round(found.p, 4)}
            for one, found in compared.items()
        },
        "beaten by": [one for one, found in compared.items() if found.difference < 0 and found.p < 0.05],
        "fresh": _fresh_score(opened, used, fresh),
    }


def _baselines(task: Task, workspace: Workspace, test: Sequence[Example]) -> dict[str, list[str]]:
    """Return the answers of the peers to the test questions."""
    template = input_template(task)

    def rows(examples: Sequence[Example]) -> list[dict[str, Any]]:
        columns = zip(*split_columns([row.input for row in examples], template), strict=True)
        return [
            {"columns": list(texts), "answer": row.references[0]} for texts, row in zip(columns, examples, strict=True)
        ]

    sentences = [passage.text for page in workspace.documents for passage in chunk_document(page, words=SENTENCE)]
    kind = "json" if task.metric == "json_f1" else "text" if task.task.kind == "generate" else task.task.kind
    embedding = str(resolve(task.base.embedding, near=task.folder))
    train = rows(workspace.splits["train"])
    given = {"kind": kind, "embedding": embedding, "train": train, "test": rows(test), "sentences": sentences}
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(given, file)
        file.flush()
        done = subprocess.run([sys.executable, str(PEER), file.name], check=True, capture_output=True, text=True)
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def _fresh_score(opened: OpenedStudy, arm: str, fresh: Rows) -> float | None:
    """Return the score of an arm on questions behind the study; None where a row has no text of its own."""
    columns = opened.task.data.columns.get("input") or next(iter(fresh[0]))
    names = [columns] if isinstance(columns, str) else list(columns)
    output = opened.task.data.columns.get("output") or opened.task.data.columns.get("label") or list(fresh[0])[-1]
    if any(not isinstance(row.get(name), str) for row in fresh for name in names):
        return None
    texts = ["\n\n".join(row[name] for name in names) for row in fresh]
    references = [row[output] for row in fresh]
    examples = [
        Example(
            id=str(number),
            messages=(Message(role="user", content=text),),
            references=tuple(right)
            if isinstance(right, list)
            else (right if isinstance(right, str) else json.dumps(right),),
        )
        for number, (text, right) in enumerate(zip(texts, references, strict=True))
    ]
    given = [str(answer) for answer in opened.arm(arm).predict(texts)]
    scores = score_all(examples, given, opened.task, None)
    return round(aggregate(opened.task.metric, given, [example.references for example in examples], scores), 3)


def reader(clone: Path) -> Read:
    folder = clone / "repo" if (clone / "repo").exists() else clone

    def read(path: str) -> str:
        words = ["git", "-C", str(folder), "show", f"HEAD:{path}"]
        return subprocess.run(words, check=True, capture_output=True).stdout.decode("utf-8", errors="replace")

    return read


def _shuffled(rows: Sequence[Any]) -> list[Any]:
    return random.Random(0).sample(rows, len(rows))


def _as_csv(rows: Rows) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _as_lines(rows: Rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("write", "init", "study", "compare"))
    parser.add_argument("--clones", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--task", action="append", choices=TASKS, help="this one alone; may be repeated")
    parser.add_argument("--budget", default="10m")
    given = parser.parse_args()
    names = given.task or TASKS
    if given.step == "write":
        write(given.clones, given.to, names)
    elif given.step == "init":
        init(given.to, names)
    elif given.step == "study":
        study(given.to, names, given.budget)
    else:
        compare(given.to, names)


if __name__ == "__main__":
    main()
