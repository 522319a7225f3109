"""Plays how new documents reach production, with real parts: facts of January are served, July's come, and are served.

    python benchmarks/new_documents.py [--products 100] [--out FILE]

Release facts of products that `staleness.py` does not ask about (endoflife.date), from January to July 2026; the
questions keep January's answers throughout, so that July's documents are all that is new. Commands are run as a user
types them, beside a server that follows production: study, register, promote, drift, register again (refused), refresh,
promote, ask, rollback, and forth. The answers of the server and of `ask` are compared with what is right in July; the
questions that the refresh leaves out, with those whose right answer is another in July.

The weights and the calibration of `extract` were chosen on samples of July's documents, among others (`extract.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from shared import SHARED, machine

from trimtab.base.files import read_json_lines, write_json
from trimtab.measurement.contains import stands_in

RESULT = Path(__file__).parent / "results" / "new_documents.json"
SOURCE = SHARED / "endoflife"
BEFORE, NOW = "2026-01", "2026-07"
ASKED = 30  # questions to the server whose answer changed, and as many whose did not
TASK = """[task]
name = "releases"
kind = "answer"
instruction = "Answer with the version or the date (YYYY-MM-DD) alone. \
If the documents do not say, answer: I don't know."
unknown = "I don't know"
output_tokens = 32
[data]
examples = ["questions.jsonl"]
documents = ["documents/"]
columns = { input = "question", output = "answer" }
group = "product"
leakage = "report"
split = { dev = 0.1, test = 0.4, seed = 0 }
[base]
model = "smollm2-135m-q4"
embedding = "minilm-l6"
[study]
arms = ["extract"]
effort = "none"
[target]
quality = 0.7
margin = 0.05
[traffic]
share = 1.0
"""
Row = dict[str, Any]


def drawn_products(count: int) -> list[str]:
    """Return products of which no staleness run asked a question."""
    runs = read_json_lines(Path(__file__).parent / "results" / "staleness_runs.jsonl")
    asked = {name.partition("/")[0] for run in runs for name in run["answers"]}
    known = sorted({row["group"] for row in read_json_lines(SOURCE / "questions.jsonl")} - asked)
    return sorted(random.Random(20261203).sample(known, min(count, len(known))))


def write_documents(folder: Path, products: Sequence[str], month: str) -> None:
    """Write the pages of the products as they stood at a month's end."""
    (folder / "documents").mkdir(exist_ok=True)
    for page in read_json_lines(SOURCE / f"documents-{month}.jsonl"):
        if page["name"].removesuffix(".md") in products:
            (folder / "documents" / page["name"]).write_text(page["text"], "utf-8")


class Story:
    """The commands in a folder, with what they said."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.steps = folder, list[Row]()

    def run(self, *words: str) -> Any:
        """Run a command with --json; return what it printed, None where it was refused."""
        began = time.monotonic()
        command = [sys.executable, "-m", "trimtab", *words, "--json"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        said = json.loads(done.stdout) if done.stdout.strip() else {}
        line = said.get("sentence") or said.get("error") or said.get("advice") or done.stderr.strip()[-300:]
        seconds = round(time.monotonic() - began, 1)
        self.steps.append({"command": " ".join(words), "code": done.returncode, "said": line, "seconds": seconds})
        print(f"[{seconds} s] {' '.join(words)} → {done.returncode}: {line}", flush=True)
        return said

    def asked(self, rows: Sequence[Row], month: str) -> float:
        """Return the share of `ask`'s answers that are right in a month."""
        lines = "\n".join(row["question"] for row in rows)
        done = subprocess.run(
            [sys.executable, "-m", "trimtab", "ask", "--json"],
            cwd=self.folder,
            input=lines,
            capture_output=True,
            text=True,
            check=True,
        )
        answers = [json.loads(line)["answer"] for line in done.stdout.splitlines()]
        return share_right(rows, answers, month)


def share_right(rows: Sequence[Row], answers: Sequence[str], month: str) -> float:
    """Return the share of answers that state what was right in a month."""
    pairs = zip(rows, answers, strict=True)
    return round(sum(stands_in(answer, row["answers"][month]) for row, answer in pairs) / len(rows), 4)


@contextmanager
def serving(folder: Path) -> Iterator[httpx.Client]:
    """Context manager: a client of a server that follows production."""
    words = ["serve", "--alias", "production", "--port", "0", "--json"]
    log = (folder / "server.log").open("w")
    with (
        log,
        subprocess.Popen(
            [sys.executable, "-m", "trimtab", *words], cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        text = ""
        for line in process.stdout or ():
            text += line
            if line == "}\n":
                break
        begun = json.loads(text)
        headers = {"Authorization": f"Bearer {begun['token']}"}
        try:
            with httpx.Client(base_url=begun["url"], headers=headers, timeout=120) as client:
                yield client
        finally:
            process.terminate()


def served(client: httpx.Client, rows: Sequence[Row], month: str, version: int) -> float:
    """Return the share of the server's answers that are right in a month, once it answers by a version."""
    until = time.monotonic() + 120
    while (reply := _reply(client, rows[0]))["trimtab"]["release"]["version"] != version:
        if time.monotonic() > until:
            raise RuntimeError(f"the server answers by {reply['trimtab']['release']}, not by version {version}")
        time.sleep(1)
    answers = [_reply(client, row)["choices"][0]["message"]["content"] for row in rows]
    return share_right(rows, answers, month)


def _reply(client: httpx.Client, row: Row) -> Row:
    body = {"model": "production", "messages": [{"role": "user", "content": row["question"]}]}
    reply = client.post("/v1/chat/completions", json=body)
    reply.raise_for_status()
    found: Row = reply.json()
    return found


def play(folder: Path, count: int) -> Row:
    """Play the story; return its figures."""
    products = drawn_products(count)
    rows = [row for row in read_json_lines(SOURCE / "questions.jsonl") if row["group"] in products]
    kept = (
        {"id": row["id"], "question": row["question"], "answer": row["answers"][BEFORE], "product": row["group"]}
        for row in rows
    )
    (folder / "questions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in kept), "utf-8")
    (folder / "trimtab.toml").write_text(TASK, "utf-8")
    write_documents(folder, products, BEFORE)
    changed = {row["id"] for row in rows if row["answers"][BEFORE] != row["answers"][NOW]}
    draw = random.Random(0)
    parts = ([row for row in rows if (row["id"] in changed) is differs] for differs in (True, False))
    asked = [row for part in parts for row in draw.sample(part, ASKED)]
    story, right = Story(folder), {}
    story.run("study")
    story.run("registry", "register", "extract")
    story.run("registry", "promote", "1", "--why", "January")
    with serving(folder) as client:
        right["served before"] = served(client, asked, NOW, 1)
        write_documents(folder, products, NOW)
        right["asked before"] = story.asked(asked, NOW)
        drift = story.run("drift")
        refused = story.run("registry", "register", "extract")
        plan = story.run("refresh", "--dry-run")
        done = story.run("refresh")
        story.run("registry", "promote", str(done["candidate"]), "--why", "July")
        right["served after"], right["asked after"] = served(client, asked, NOW, 2), story.asked(asked, NOW)
        story.run("registry", "rollback", "--why", "a try")
        right["served after the rollback"] = served(client, asked, NOW, 1)
        story.run("registry", "promote", "2", "--why", "after all")
        right["served at last"] = served(client, asked, NOW, 2)
        again = story.run("refresh")
    versions = {one["version"]: one["score"] for one in story.run("registry", "list")["versions"]}
    left_out, test_rows = set(plan["outdated"]), _test_rows(folder)
    known = story.run("registry", "show", "2")
    in_test = changed & test_rows
    return {
        "products": len(products),
        "questions": len(rows),
        "test questions": len(test_rows),
        "their answer changed": len(in_test),
        "left out": len(left_out),
        "left out though right": len(left_out - in_test),
        "asked though outdated": len(in_test - left_out),
        "facts gone": sum(one["facts"] for one in drift["documents"]),
        "register refused": "error" in refused or refused == {},
        "plan": plan["plan"],
        "outcome": done["outcome"],
        "gate": done["gate"],
        "score": {"version 1": versions[1], "version 2": versions[2], "questions of version 2": known["score"]["n"]},
        "right in July": right,
        "last refresh": again["outcome"],
        "steps": story.steps,
    }


def _test_rows(folder: Path) -> set[str]:
    from trimtab.arms.workspace import open_workspace
    from trimtab.base.task import load_task

    return {row.id for row in open_workspace(load_task(folder), refuse_leaks=False).splits["test"]}


def main() -> None:
    """Play the story and write its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--products", type=int, default=100)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    with tempfile.TemporaryDirectory() as folder:
        figures = play(Path(folder), options.products)
    write_json(options.out, {"machine": machine(), **figures})
    print(json.dumps({name: value for name, value in figures.items() if name != "steps"}, indent=2))


if __name__ == "__main__":
    main()
