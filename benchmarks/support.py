"""Measures what documents alone answer: `trimtab ask` over three public documentations, with questions of users.

python benchmarks/support.py mkdocs=FOLDER pipx=FOLDER paperless-ngx=FOLDER   # → results/support.json

Each FOLDER is the folder `docs` of the repository at the commit in support_questions.json. Of the questions of each,
ten have an answer there and five have none. The retrieval was tuned with the first two; the third shows what it is
worth.
An answer is right if the sentence that is given, with the sentences beside it that are shown with it, holds the
distinctive words of a sentence that answers (`gold`).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtab.base.files import write_json
from trimtab.base.machine import describe_machine, versions
from trimtab.data.documents import read_below
from trimtab.studies.ask import AskResult, conversation

HOME = Path(__file__).resolve().parent
QUESTIONS, RESULT = HOME / "support_questions.json", HOME / "results" / "support.json"


def squeezed(text: str) -> str:
    """Return a text without line breaks and double spaces."""
    return " ".join(text.split())


def holds(text: str, gold: Sequence[str]) -> bool:
    """True if a text holds one of the golden phrases."""
    return any(squeezed(phrase) in squeezed(text) for phrase in gold)


def require_gold(folder: Path, questions: Sequence[dict[str, Any]]) -> None:
    """Exit if the documents do not hold a golden phrase: another commit, or a question that is wrong."""
    documents, _ = read_below(folder)
    texts = [squeezed(section.text) for document in documents for section in document.sections]
    for row in questions:
        missing = [phrase for phrase in row["gold"] if not any(squeezed(phrase) in text for text in texts)]
        if missing:
            raise SystemExit(f"{folder}: no document holds {missing[0]!r}; check out the commit of {QUESTIONS.name}")


def outcome(result: AskResult, gold: Sequence[str]) -> str:
    """Return what a reply is worth: refused, or right or wrong and whether it is said to hold the answer or to be able
    to."""
    if not result.found:
        return "refused"
    return f"{'right' if holds(result.contexts[0], gold) else 'wrong'}, {'holds' if result.is_sure else 'may hold'}"


def measure(folder: Path, questions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Ask all questions of a folder, each alone."""
    require_gold(folder, questions)
    rows = []
    with tempfile.TemporaryDirectory() as home:
        task = Path(home) / "trimtab.toml"
        task.write_text(
            f'[task]\nname = "support"\nkind = "answer"\ninstruction = "Answer."\n'
            f"[data]\ndocuments = [{json.dumps(str(folder.resolve()))}]\n",
            "utf-8",
        )
        with conversation(task=task, arm="extract", allow=[str(folder.resolve())]) as talk:
            for row in questions:
                talk.forget()
                result = talk.ask(row["question"])
                rows.append(
                    {
                        "question": row["question"],
                        "has_an_answer": bool(row["gold"]),
                        "outcome": outcome(result, row["gold"]),
                        "probability": result.hits[0].score if result.hits else 0.0,
                        "sentence_is_right": bool(result.found) and holds(result.answer, row["gold"]),
                        "one_of_three_is_right": any(holds(context, row["gold"]) for context in result.contexts),
                        "reply": squeezed(result.answer),
                        "first": squeezed(result.contexts[0] if result.contexts else result.hits[0].passage.text),
                    }
                )
    return {"counts": counts(rows), "rows": rows}


def counts(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Count the outcomes of the questions with and without an answer."""
    there = [row["outcome"] for row in rows if row["has_an_answer"]]
    nowhere = [row["outcome"] for row in rows if not row["has_an_answer"]]
    return {
        "with_an_answer": len(there),
        "right": sum(outcome.startswith("right") for outcome in there),
        "sentence_is_right": sum(row["sentence_is_right"] for row in rows),
        "right_said_to_hold": there.count("right, holds"),
        "wrong_said_to_hold": there.count("wrong, holds"),
        "wrong_said_that_it_may": there.count("wrong, may hold"),
        "falsely_refused": there.count("refused"),
        "one_of_three_is_right": sum(row["one_of_three_is_right"] for row in rows),
        "without_an_answer": len(nowhere),
        "refused_without_an_answer": nowhere.count("refused"),
        "said_to_hold_without_an_answer": nowhere.count("wrong, holds"),
    }


def main() -> None:
    """Ask, count, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folders", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--show", action="store_true", help="print every reply, too")
    chosen = parser.parse_args()
    listed = json.loads(QUESTIONS.read_text("utf-8"))
    result: dict[str, Any] = {"sets": {}}
    for named in chosen.folders:
        name, _, folder = named.partition("=")
        own = listed[name]
        measured = measure(Path(folder), own["questions"])
        about = {key: own[key] for key in ("repository", "commit", "use")}
        print(name, measured["counts"], flush=True)
        if chosen.show:
            for row in measured["rows"]:
                print(f"  {row['outcome']:16}{row['probability']:.2f} {row['question']}\n      {row['first'][:400]}")
        # The documentation itself is not ours: its sentences stay out of the result.
        rows = [{key: row[key] for key in row if key not in ("reply", "first")} for row in measured["rows"]]
        result["sets"][name] = {**about, "counts": measured["counts"], "rows": rows}
    write_json(RESULT, {**result, "machine": describe_machine(), "versions": versions()})


if __name__ == "__main__":
    main()
