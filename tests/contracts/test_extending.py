"""The examples of docs/architecture/extending.md run, and what they add works in a study; what the pages of the
architecture name exists."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from judged import served_answer
from serving_tasks import serving_here
from study_tasks import CLASSIFY, LABELLED, folder_of, rows_of, write_task
from typer.testing import CliRunner

from trimtab.arms.session import open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.codec import read_record
from trimtab.base.errors import EXIT_DONE, EXIT_NO
from trimtab.base.grammar import METHODS, PARTS, STAGES
from trimtab.base.metrics import METRICS
from trimtab.base.results import ArmRecord
from trimtab.base.task import load_task
from trimtab.cli.main import app
from trimtab.data.readers import FILE_KINDS
from trimtab.serving.traffic_store import traffic_of

ROOT = Path(__file__).parents[2]
ARCHITECTURE = ROOT / "docs" / "architecture"
EXTENDING = ARCHITECTURE / "extending.md"
KINDS = ["metric", "method", "training stage", "context", "data layout", "kind of file", "server route", "command"]
LONGEST = 40  # lines of an example, imports and blanks among them
TABLES = (METRICS, METHODS, STAGES, PARTS, FILE_KINDS)  # what the examples add to
# The only sentences in which a study of a graded metric may say "right".
NOT_TOLD = ("does not say which are right", "not whether it is right", "no answer counts as right or wrong")
NOT_WATCHED = "in a metric whose score is a share of right answers"


def sections() -> dict[str, str]:
    """The sections of the page by their heading, without the article."""
    parts = re.split(r"^## ", EXTENDING.read_text(encoding="utf-8"), flags=re.M)[1:]
    return {heading.removeprefix("A "): text for heading, _, text in (part.partition("\n") for part in parts)}


def example(kind: str) -> str:
    (block,) = re.findall(r"^```python\n(.*?)^```", sections()[kind], re.M | re.S)
    return block


def run(kind: str, **given: Any) -> None:
    """Run the example of a kind as it stands on the page, with these names."""
    exec(compile(example(kind), f"{EXTENDING.name}: {kind}", "exec"), {"__name__": "example", **given})


@cache
def names_in(file: Path) -> frozenset[str]:
    """Functions, classes, methods (`Class.method`) and constants of a module."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)}
            found |= methods | {f"{node.name}.{name}" for name in methods}
    return frozenset(found)


@pytest.fixture(autouse=True)
def tables_as_before() -> Iterator[None]:
    """Takes out what an example added."""
    with ExitStack() as stack:
        for table in TABLES:
            stack.enter_context(patch.dict(table))
        yield


@pytest.fixture
def a_task(tmp_path: Path, tiny_model_folder: Path) -> Callable[..., Path]:
    """Writes a small task for the tiny model."""

    def written(*arms: str, **more: Any) -> Path:
        return write_task(tmp_path, tiny_model_folder, arms or ("prompt",), **more)

    return written


def test_each_kind_has_one_example_of_fewer_lines_than_promised():
    assert list(sections()) == [*KINDS, "package of your own"]
    assert all(len(example(kind).splitlines()) < LONGEST for kind in KINDS)


@pytest.mark.parametrize("kind", ["metric", "data layout", "kind of file", "command"])
def test_an_example_on_data_runs(kind: str, tmp_path: Path) -> None:
    run(kind, folder=tmp_path)


@pytest.mark.parametrize(
    ("kind", "table", "told"),
    [
        ("method", 'weights = "lora-fa"', "the model tuned by half an adapter (LoRA-FA), with the instruction alone"),
        ("training stage", 'weights = "lora"\nstages = ["sft", "focal"]', "on the examples, then with a focal loss"),
        ("context", 'context = "lexical-shots"', "shown worked examples that share words with the question"),
    ],
)
def test_an_example_on_models_runs_and_an_arm_of_it_is_studied_and_bundled(
    kind: str, table: str, told: str, a_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = f"[arm.own]\n{table}\n" + ("epochs = 1\nbatch = 16\n" if "weights" in table else "")
    task = a_task("prompt", "own", more=own)
    before = task.read_text()
    task.write_text(before.replace(own, "").replace(', "own"', ""))
    run(kind, session=open_session(open_workspace(load_task(task))), folder=tmp_path / "arm")

    task.write_text(before)
    monkeypatch.chdir(tmp_path)
    trimtab("study")
    record = read_record(folder_of(task) / "arms" / "own" / "arm.json", ArmRecord)
    assert record.result.status == "done"
    assert told in (folder_of(task) / "report.md").read_text()
    trimtab("export", "own", "--format", "bundle", "--out", "bundle")
    assert "trimtab" not in trimtab("ask", "--bundle", "bundle", "bridge 0nelaa of Aalen?")
    if kind == "context":
        assert record.usage.labels == len(open_workspace(load_task(task)).splits["train"]), "all rows can be shown"


def test_the_example_of_a_route_runs(a_task: Callable[..., Path]) -> None:
    rows = [{"question": f"{number} below zero?", "answer": ("cold", "warm")[number % 2]} for number in range(30)]
    with serving_here(a_task(rows=rows, task=CLASSIFY, data=LABELLED), "prompt") as server:
        run("server route", server=server)


def trimtab(*words: str) -> str:
    """What a command prints here, also where its answer is no."""
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code in (EXIT_DONE, EXIT_NO), (words, ran.output)
    return ran.output


def claims(text: str) -> list[str]:
    """The sentences of a page or a screen that call something right or wrong."""
    plain = re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", text, flags=re.S))
    sentences = re.split(r"[.;:]\s", " ".join(plain.split()))
    called = [
        sentence for sentence in sentences if re.search(r"\b(right|wrong|wrongly|correct|correctly)\b", sentence, re.I)
    ]
    return [sentence for sentence in called if not any(words in sentence for words in (*NOT_TOLD, NOT_WATCHED))]


def test_nothing_calls_an_answer_right_that_a_metric_of_the_page_grades(
    a_task: Callable[..., Path], tiny_embedding_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page").mkdir()
    run("metric", folder=tmp_path / "page")
    (tmp_path / "documents").mkdir()
    for row in rows_of()[:10]:
        (tmp_path / "documents" / f"{row['id']}.md").write_text(f"# {row['id']}\n{row['question']} {row['answer']}.\n")
    task = a_task(
        *("extract", "prompt"),
        task='kind = "generate"\nmetric = "letters_shared"\noutput_tokens = 6',
        data='documents = ["documents"]',
        base=f'embedding = "{tiny_embedding_folder}"',
    )
    monkeypatch.chdir(tmp_path)
    told = {words: trimtab(*words.split()) for words in ("check", "study", "eval prompt --json")}
    files = folder_of(task)
    told |= {name: (files / name).read_text() for name in ("report.html", "report.md", "study.json")}
    told |= {name: (files / "arms" / name / "arm.json").read_text() for name in ("extract", "prompt")}
    trimtab("export", "prompt", "--format", "bundle", "--out", "winner")
    told["card"] = Path("winner/README.md").read_text()
    task.write_text(
        f"{task.read_text()}\n[target]\nquality = 0.2\n[upkeep]\ndrift = {{ window = 40, alarm_free = 20 }}\n"
    )
    told["with a target"] = trimtab("study", "--json")
    trimtab("registry", "register", "prompt")
    trimtab("registry", "promote", "1", "--why", "first")
    with traffic_of(load_task(task)) as traffic:
        traffic.add([served_answer(number, arm="prompt", version="1") for number in range(90)])
    told["drift"] = trimtab("drift")

    assert {name: found for name, text in told.items() if (found := claims(text))} == {}
    assert "has the score (shared letters)" in told["report.md"]
    assert "Scores (shared letters: the share of the letters of a reference that an answer has" in told["report.md"]
    for page in ("report.html", "report.md"):
        assert "How the scores spread" in told[page]
        assert all(words in told[page] for words in NOT_TOLD)
    assert "letters_shared on test: " in told["card"]
    assert json.loads(told["study.json"])["metric"] == "letters_shared"
    assert NOT_WATCHED in " ".join(told["drift"].split()), "labels are right or wrong, and the score is neither"


def test_tables_and_files_that_the_pages_name_exist():
    rows = re.findall(r"^\| .* \| `(\w+)` \| `(trimtab/[\w/]+\.py)` \|$", EXTENDING.read_text(encoding="utf-8"), re.M)
    inline = [
        (name, file)
        for page in ARCHITECTURE.glob("*.md")
        for name, file in re.findall(
            r"`([A-Za-z_][\w.]*)` \(`(trimtab/[\w/]+\.py)`\)", page.read_text(encoding="utf-8")
        )
    ]
    assert len(rows) >= 7
    assert len(inline) >= 40
    for name, file in [*rows, *inline]:
        assert name in names_in(ROOT / file), f"{file}: {name}"
    for page in ARCHITECTURE.glob("*.md"):
        for file in re.findall(r"`((?:trimtab|tests|examples|docs)/[\w./-]+)`", page.read_text(encoding="utf-8")):
            assert (ROOT / file).exists(), f"{page.name}: {file}"


def test_files_in_the_tables_of_the_rooms_exist():
    rooms = re.findall(
        r"^## `(trimtab/\w+)/`\n(.*?)(?=^## )", (ARCHITECTURE / "index.md").read_text("utf-8"), re.M | re.S
    )
    assert len(rooms) == 17
    for room, text in rooms:
        files = [name for cell in re.findall(r"^\| (`.*?) \|", text, re.M) for name in re.findall(r"`([^`]+)`", cell)]
        assert files
        assert not [name for name in files if not (ROOT / room / name).exists()], room
