"""A study of open answers from an empty folder to its verdict, with grades that are checked against known content.

120 notes of customers of an invented lamp shop, with the reply that the shop's rules ask for, are made here
(Apache-2.0, as this repository). A note has a customer, an order, an article and a trouble, and each trouble has one
remedy, so that what a reply has to say is known. `trimtab study` compares three arms by the metric `judged`; the base
model is the judge. Then the answers that `trimtab audit` draws for 60 questions are graded twice and imported, and the
study is decided again.

No people took part: two rules stand in for them, which read in different ways. The strict one looks for the four facts
as they are written, and for remedies that are not the right one. The lenient one counts how many of the words that
matter in the reference the reply has, in any order.

    python benchmarks/open_answers.py [--work FOLDER] [--out FILE]

FOLDER is empty or new; by default one that is removed afterwards.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import random
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trimtab
from trimtab.base.files import write_json
from trimtab.base.machine import describe_machine
from trimtab.base.results import Estimate, StudyResult
from trimtab.base.task import TASK_FILE
from trimtab.measurement.audit import ENOUGH, audited_answers
from trimtab.measurement.judge import DEGREES
from trimtab.measurement.statistics import estimate
from trimtab.studies.audit import StudyAudit

RESULT = Path(__file__).parent / "results" / "open_answers.json"
ROWS, READ = 120, 10  # rows; answers of each arm that are written out to be read
INSTRUCTION = (
    "You answer notes to a lamp shop in one or two sentences. Name the customer, the order and the article, and "
    "promise what our rules say. Broken: we send a new one free of charge. Late: we refund the delivery fee. Wrong "
    "article: we send the right one with a return label. A part is missing: we post the part within two days. Charged "
    "twice: we refund the second payment within five days."
)
CRITERION = "The reply names the customer, the order and the article, and promises what the reference promises."
# Each trouble: what customers write, what the reply says of it, and its remedy.
TROUBLES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "broken": (
        ("the {article} does not light up", "the switch of the {article} snapped off", "the {article} came in pieces"),
        "that the {article} is broken",
        "we send a new one free of charge",
    ),
    "late": (
        ("the {article} is a week late", "I still wait for the {article}", "nobody has delivered the {article} yet"),
        "that the {article} is late",
        "we refund the delivery fee",
    ),
    "wrong": (
        ("you sent me something else than the {article}", "the box held another model, not the {article}"),
        "that you did not get the {article}",
        "we send the right one with a return label",
    ),
    "part": (
        (
            "the {article} has no plug in the box",
            "a screw for the {article} is missing",
            "the {article} lacks its shade",
        ),
        "that a part of the {article} is missing",
        "we post the part within two days",
    ),
    "twice": (
        ("I was charged twice for the {article}", "my card shows two payments for the {article}"),
        "that you paid twice for the {article}",
        "we refund the second payment within five days",
    ),
}
OPENINGS = ("Hello, {name} here. About {order}: {trouble}.", "Order {order}: {trouble}. Please help. {name}")
REPLY = "Dear {name}, we are sorry {trouble} (order {order}): {remedy}."
NAMES = ("Ada Brandt", "Ben Okoro", "Carla Ruiz", "Dev Anand", "Elif Kaya", "Finn Larsen", "Gita Rao", "Hugo Weiss")
ARTICLES = ("desk lamp", "floor lamp", "wall light", "reading lamp", "ceiling light", "night light")
REMEDIES = {  # of which a reply may promise one
    "broken": r"\bnew (one|lamp|light)\b.*\bfree\b",
    "late": r"\brefund\b.*\bdelivery fee\b",
    "wrong": r"\bright (one|article|lamp|light)\b.*\breturn label\b",
    "part": r"\bpost\b.*\bpart\b.*\btwo days\b",
    "twice": r"\brefund\b.*\bsecond payment\b.*\bfive days\b",
}
COMMON = set(re.findall(r"\w+", "dear we are sorry that the a an you your with within of for it is order"))
TASK = f"""[task]
name = "replies"
kind = "generate"
metric = "judged"
instruction = {json.dumps(INSTRUCTION)}
output_tokens = 64
[judge]
criteria = {{ right = {json.dumps(CRITERION)} }}
[data]
examples = ["notes.jsonl"]
leakage = "report"
split = {{ dev = 0.1, test = 0.6, seed = 0 }}
[base]
model = "smollm2-135m-q4"
[study]
arms = ["prompt", "few-shot", "lora"]
effort = "none"
"""


@dataclass(frozen=True, kw_only=True)
class Note:
    """A customer's note, the reply that the rules ask for, and the facts that it has to say."""

    text: str
    reply: str
    name: str
    order: str
    article: str
    trouble: str


def made_notes() -> list[Note]:
    """Return the rows, no two with the same customer, article and trouble; the same each time."""
    draw = random.Random(0)
    notes = []
    for name, article, trouble in draw.sample(list(itertools.product(NAMES, ARTICLES, TROUBLES)), ROWS):
        written, named, remedy = TROUBLES[trouble]
        order = f"LK-{draw.randrange(1000, 10000)}"
        said = draw.choice(written).format(article=article)
        notes.append(
            Note(
                text=draw.choice(OPENINGS).format(name=name, order=order, trouble=said),
                reply=REPLY.format(name=name, order=order, trouble=named.format(article=article), remedy=remedy),
                name=name,
                order=order,
                article=article,
                trouble=trouble,
            )
        )
    return notes


def strict(note: Note, reply: str) -> str:
    """Return the degree by the facts as they are written: yes with all four, partly without the name or the article; no
    without the order or the right remedy, or with another remedy or order beside it."""
    flat = " ".join(reply.lower().split())
    promised = {trouble for trouble, pattern in REMEDIES.items() if re.search(pattern, flat)}
    if promised != {note.trouble} or set(re.findall(r"lk-\d+", flat)) != {note.order.lower()}:
        return "no"
    return "yes" if note.name.lower() in flat and note.article in flat else "partly"


def lenient(note: Note, reply: str) -> str:
    """Return the degree by the share of the reference's words that the reply has, common ones aside: yes from 80%,
    partly from 50%."""
    wanted, said = (set(re.findall(r"\w+", text.lower())) - COMMON for text in (note.reply, reply))
    share = len(wanted & said) / len(wanted)
    return "yes" if share >= 0.8 else "partly" if share >= 0.5 else "no"


PASSES: Mapping[str, Callable[[Note, str], str]] = {"strict": strict, "lenient": lenient}


def graded(session: StudyAudit, notes: Mapping[str, Note], file: Path) -> int:
    """Write what both passes say of the answers that an audit asks about; return the number of grades."""
    lines = [
        {"id": asked.item_id, "answer": asked.answer, "grade": grade(notes[asked.question], asked.answer), "rater": by}
        for by, grade in PASSES.items()
        for asked in session.drawn
    ]
    with file.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, list(lines[0]))
        table.writeheader()
        table.writerows(lines)
    return len(lines)


def scores(result: StudyResult) -> dict[str, Any]:
    """Return the score of each arm that was measured."""
    return {arm.arm: figures(arm.score) for arm in result.arms if arm.score}


def figures(found: Estimate) -> dict[str, float]:
    """Return a score with its interval."""
    return {"value": found.value, "low": found.low, "high": found.high}


def to_read(session: StudyAudit, notes: Mapping[str, Note]) -> dict[str, list[dict[str, str]]]:
    """Return each arm's answers to the first questions of the draw, with the judge's mark and both grades."""
    items = list(dict.fromkeys(asked.item_id for asked in session.drawn))[:READ]
    words = {value: word for word, value in DEGREES.items()}
    found = {}
    for arm, answers in audited_answers(session.answers).items():
        found[arm] = [
            {
                "note": answers[item].input,
                "answer": answers[item].answer,
                "judge": words[answers[item].score],
                **{by: grade(notes[answers[item].input], answers[item].answer) for by, grade in PASSES.items()},
            }
            for item in items
        ]
    return found


def all_graded(session: StudyAudit, notes: Mapping[str, Note]) -> dict[str, Any]:
    """Return what both passes say of all test answers of each arm on average, which people would not have graded."""
    found = {}
    for arm, answers in audited_answers(session.answers).items():
        means = [
            sum(DEGREES[grade(notes[one.input], one.answer)] for grade in PASSES.values()) / len(PASSES)
            for one in answers.values()
        ]
        found[arm] = figures(estimate(means))
    return found


def whole_story() -> dict[str, Any]:
    """Run the study in the present folder, grade, decide again, and return the result."""
    made = made_notes()
    notes = {note.text: note for note in made}
    lines = [json.dumps({"input": note.text, "output": note.reply}) for note in made]
    Path("notes.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    Path(TASK_FILE).write_text(TASK, encoding="utf-8")
    began = time.perf_counter()
    before = trimtab.study()
    session = trimtab.audit(questions=ENOUGH, by="rules")
    file = Path("grades.csv")
    grades = graded(session, notes, file)
    session.import_judgements(file, drawn_at_random=True)
    after = session.finish()
    audit = after.audit
    if audit is None:
        raise SystemExit("the study was decided without the grades")
    return {
        "machine": describe_machine(),
        "rows": len(made),
        "questions": {arm.arm: arm.score.n for arm in before.arms if arm.score},
        "graded questions": audit.questions,
        "grades": grades,
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "before": {"status": before.verdict.status, "says": before.verdict.sentence, "scores": scores(before)},
        "after": {
            "status": after.verdict.status,
            "says": after.verdict.sentence,
            "details": after.verdict.details,
            "why not corrected": audit.why_not,
            "scores": {arm.arm: figures(arm.corrected) for arm in audit.arms},
        },
        "agreement of the passes": [asdict(agreement) for agreement in audit.agreement],
        "both passes on all answers": all_graded(session, notes),
        "read": to_read(session, notes),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it all and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    out = options.out.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        if any(work.iterdir()):
            parser.error(f"{work} is not empty")
        with chdir(work):
            result = whole_story()
    write_json(out, result)
    print(json.dumps({name: part for name, part in result.items() if name != "read"}, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
