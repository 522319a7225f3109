"""Seven public tasks, each as a stranger would bring it: its files, what `trimtab init` takes of them, a study within a
budget, and thirty-line baselines (`peers/thirty_lines.py`, no code shared) on the same questions and on fresh ones.

    python benchmarks/public_tasks.py write --clones CLONES --to TASKS   # TASKS/NAME/… and TASKS/NAME.fresh.jsonl
    python benchmarks/public_tasks.py init --to TASKS                    # what init takes
    python benchmarks/public_tasks.py study --to TASKS --budget 10m      # verdicts, minutes, fresh scores
    python benchmarks/public_tasks.py baselines --to TASKS               # the peers, and whether one beats the choice

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
    fresh = [{"nl": sentence, "cm": command} for sentence, command in pairs[::10]]
    known = [pair for number, pair in enumerate(pairs) if number % 10]
    files = {"all.nl": [sentence for sentence, _ in known], "all.cm": [command for _, command in known]}
    return {name: "\n".join(lines) + "\n" for name, lines in files.items()}, fresh


TASKS: Mapping[str, Callable[[Read], Written]] = {
    task.__name__: task for task in (tweets, clinc150, pubmedqa, grading, covidqa, snips, nl2bash)
}


def write(clones: Path, to: Path, names: Iterable[str]) -> None:
    """Write the files of each task to a folder of its own, and its fresh rows beside it."""
    for name in names:
        files, fresh = TASKS[name](_reader(clones / SOURCES[name].replace("/", "+")))
        (to / name).mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (to / name / file).write_text(text, encoding="utf-8")
        (to / f"{name}.fresh.jsonl").write_text(_as_lines(_shuffled(fresh)[:FRESH]), encoding="utf-8")


def _reader(clone: Path) -> Read:
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
    parser.add_argument("step", choices=("write",))
    parser.add_argument("--clones", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--task", action="append", choices=TASKS, help="this one alone; may be repeated")
    given = parser.parse_args()
    write(given.clones, given.to, given.task or TASKS)


if __name__ == "__main__":
    main()
