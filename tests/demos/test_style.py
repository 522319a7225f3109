"""The style example: it is what its script writes, every reference is perfect, and each broken rule costs."""

import importlib.util
import json
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trimtab.demos

FOLDER = Path(trimtab.demos.__file__).parent / "style"
ROWS: list[dict[str, Any]] = [
    json.loads(line) for line in (FOLDER / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
]
GOOD = '''LIMIT = 7

def pick(words: list[str], *, end: str) -> str:
    """Join the words."""
    if not words:
        return end
    body = "-".join(words[:LIMIT])
    result = f"{body}{end}."
    return result
'''
BROKEN = {
    "a parameter without a type": GOOD.replace("end: str", "end"),
    "no result type": GOOD.replace(" -> str", ""),
    "no docstring": GOOD.replace('    """Join the words."""\n', ""),
    "docstring without a period": GOOD.replace('words."', 'words"'),
    "docstring in lower case": GOOD.replace("Join the", "join the"),
    "docstring of two lines": GOOD.replace("Join the words.", "Join the words.\n\n    All of them."),
    "positional parameters": GOOD.replace("*, ", ""),
    "an else": GOOD.replace("    body =", "    else:\n        pass\n    body ="),
    "a bare return": GOOD.replace("    result = f", "    return f").replace("    return result\n", ""),
    "another name for the result": GOOD.replace("result", "answer"),
    "text put together with +": GOOD.replace('f"{body}{end}."', 'body + end + "."'),
    "text put together with format": GOOD.replace('f"{body}{end}."', '"{}{}.".format(body, end)'),
    "a number in the function": GOOD.replace("LIMIT = 7\n\n", "").replace("LIMIT", "7"),
    "a constant in lower case": GOOD.replace("LIMIT", "limit"),
}
CHANGED = {
    "another function name": GOOD.replace("pick", "take"),
    "another parameter name": GOOD.replace("end", "tail"),
    "another number": GOOD.replace("= 7", "= 8"),
    "another text": GOOD.replace('{end}."', '{end}!"'),
    "a test turned round": GOOD.replace("if not", "if"),
    "a statement less": GOOD.replace("    if not words:\n        return end\n", ""),
}
GARBAGE = [
    "",
    "def",
    "I don't know",
    "x = 1",
    "\x00",
    "\ud800",
    "(" * 5000,
    "x" + "+1" * 9000,
    "def f(x):\n    return 0x" + "f" * 5000,
    "def f(x):\n    return " + "-" * 3000 + "x",
    "import os\ndef f():\n    os.abort()",
    GOOD + GOOD,
    "```python\ndef f(",
]


def load_scorer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("style_score", FOLDER / "score.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCORER = load_scorer()


def test_the_script_writes_the_same_bytes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(FOLDER / "make.py"), str(tmp_path)], check=True, timeout=60)
    assert (tmp_path / "pairs.jsonl").read_bytes() == (FOLDER / "pairs.jsonl").read_bytes()


def test_the_counts_that_the_readme_states() -> None:
    assert len(ROWS) == 344
    assert Counter(Counter(row["body"] for row in ROWS).values()) == {4: 86}
    for field in ("id", "input", "output"):
        assert max(Counter(row[field] for row in ROWS).values()) == 1, field


def test_outputs_are_short() -> None:
    assert max(len(row["output"]) for row in ROWS) < 300


def test_a_reference_is_perfect_and_its_input_is_the_same_function() -> None:
    for row in ROWS:
        reference = row["output"]
        assert SCORER.score(reference, reference) == 1.0, reference
        assert SCORER.score(f"```python\n{reference}\n```", reference) == 1.0, reference
        assert SCORER.score(row["input"], reference) < 0.72, row
        assert SCORER.canonical(*SCORER.parse(row["input"])) == SCORER.canonical(*SCORER.parse(reference)), row


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_rule_costs(name: str) -> None:
    assert BROKEN[name] != GOOD
    assert SCORER.score(GOOD, GOOD) == 1.0
    assert 0 < SCORER.score(BROKEN[name], GOOD) < 1


@pytest.mark.parametrize("name", CHANGED)
def test_a_change_of_behaviour_costs_half_at_least(name: str) -> None:
    assert CHANGED[name] != GOOD
    assert 0 < SCORER.score(CHANGED[name], GOOD) <= 0.5


def test_names_of_locals_and_constants_are_free() -> None:
    assert SCORER.score(GOOD.replace("body", "joined").replace("LIMIT", "MOST"), GOOD) == 1.0


@pytest.mark.parametrize("answer", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_scores_nothing(answer: str) -> None:
    assert SCORER.score(answer, GOOD) == 0.0


@given(st.text())
def test_any_text_gets_a_score(answer: str) -> None:
    assert 0.0 <= SCORER.score(answer, GOOD) <= 1.0


def test_the_program_answers_line_by_line_and_survives_garbage() -> None:
    task = tomllib.loads((FOLDER / "trimtab.toml").read_text(encoding="utf-8"))
    argv = [sys.executable, *task["task"]["scorer"][1:]]
    with subprocess.Popen(
        argv, cwd=FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        for junk in (b"\xff\xfe\n", b"[1]\n", b"{}\n", b"\n", b"[" * 100_000 + b"\n"):
            program.stdin.write(junk)
        for place, answer in enumerate([*GARBAGE, GOOD]):
            line = {"id": place, "input": "", "reference": [GOOD], "answer": answer}
            program.stdin.write(json.dumps(line).encode() + b"\n")
            program.stdin.flush()
            reply = json.loads(program.stdout.readline())
            assert reply["id"] == place
        assert reply["score"] == 1.0
        program.stdin.write(b'{"id": "x", "answer": 3}\n')
        program.stdin.close()
        assert json.loads(program.stdout.readline()) == {"id": "x", "score": 0.0}
        assert program.wait(timeout=30) == 0


def test_an_answer_is_never_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    answer = f"def f(x=open({str(trace)!r}, 'w')):\n    return x\n"
    SCORER.score(answer, GOOD)
    assert not trace.exists()


def test_the_cut_asks_the_same_question_of_the_same_data() -> None:
    whole, cut = (tomllib.loads((FOLDER / name).read_text(encoding="utf-8")) for name in ("trimtab.toml", "demo.toml"))
    for table in ("base", "target"):
        assert cut[table] == whole[table]
    for table, own in (("task", "name"), ("data", "split")):
        assert {key: value for key, value in cut[table].items() if key != own} == {
            key: value for key, value in whole[table].items() if key != own
        }
    assert cut["data"]["split"]["test"] == whole["data"]["split"]["test"]
    assert set(cut["study"]["arms"]) < set(whole["study"]["arms"])
