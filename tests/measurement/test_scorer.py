from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from trimtab.base.errors import InputError
from trimtab.measurement.scorer import ScorerProgram

HEAD = (
    "import json, sys, time\nlines = (json.loads(line) for line in sys.stdin)\n"
    "def put(id, score): print(json.dumps({'id': id, 'score': score}))\n"
)
RIGHT = "for row in lines: put(row['id'], float(row['answer'] == row['reference']))\n"


def program(folder: Path, body: str, seconds: float = 20.0) -> ScorerProgram:
    (folder / "score.py").write_text(HEAD + body)
    return ScorerProgram([sys.executable, "score.py"], folder, seconds)


def rows(count: int, answer: str = "x") -> list[tuple[str, str, tuple[str, ...], str]]:
    return [(str(index), "q", ("x",), answer if index % 2 else "x") for index in range(count)]


def test_it_is_started_once_in_its_folder_and_scores_several_sets(tmp_path) -> None:
    body = "open('started', 'a').write('x')\n" + RIGHT
    with program(tmp_path, body) as scorer:
        assert scorer.score(rows(4, "y")) == {"0": 1, "1": 0, "2": 1, "3": 0}
        assert scorer.score([("ä", "q", ("é", "e"), "é")]) == {"ä": 0}  # several references arrive as a list
        assert scorer.score([]) == {}
    assert (tmp_path / "started").read_text() == "x"


def test_scores_come_in_any_order(tmp_path) -> None:
    body = "rows = [next(lines) for _ in range(3)]\nfor row in reversed(rows): put(row['id'], int(row['id']) / 4)\n"
    with program(tmp_path, body) as scorer:
        assert scorer.score(rows(3)) == {"0": 0.0, "1": 0.25, "2": 0.5}


def test_full_pipes_in_both_directions_do_not_lock(tmp_path) -> None:
    body = (
        "for row in lines:\n    sys.stderr.write('e' * 2000 + '\\n'); print(json.dumps({'id': row['id'], 'score': 1, "
        "'note': 'n' * 2000}))\n"
    )
    many = [(str(index), "q" * 2000, ("x",), "x") for index in range(1000)]
    with program(tmp_path, body) as scorer:
        assert len(scorer.score(many)) == 1000


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit('no compiler here')", r"ended \(exit code 1\) with 2 answers left.*no compiler here"),
        ("next(lines); put('0', 1)", r"ended \(exit code 0\) with 1 answers left"),
        ("print('loading model')", "wrote 'loading model'"),
        ("print('[1]')", "wrote"),
        ("print('[' * 100000)", "wrote"),
        ("put('7', 1)", "answered the id '7' unasked"),
        ("put('0', 1); put('0', 1)", "answered the id '0' twice"),
        ("put(0, 1)", "gave the id 0"),
        ("put('0', 1.5)", "gave the score 1.5"),
        ("put('0', float('nan'))", "gave the score nan"),
        ("put('0', True)", "gave the score True"),
        ("put('0', '1')", "gave the score '1'"),
    ],
)
def test_every_fault_is_one_line_that_names_the_program_and_is_started_anew(tmp_path, body: str, message: str) -> None:
    with program(tmp_path, body) as scorer:
        with pytest.raises(InputError, match=message) as caught:
            scorer.score(rows(2))
        (tmp_path / "score.py").write_text(HEAD + RIGHT)
        assert scorer.score(rows(2)) == {"0": 1, "1": 1}
    with pytest.raises(InputError, match="not running"):
        scorer.score(rows(2))
    assert "score.py" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_slow_program_is_stopped_with_what_it_started(tmp_path) -> None:
    body = (
        "import subprocess\nchild = subprocess.Popen(['sleep', '60']); print(child.pid, file=open('pid', 'w'), "
        "flush=True)\ntime.sleep(60)\n"
    )
    begin = time.monotonic()
    with (
        program(tmp_path, body, seconds=1.0) as scorer,
        pytest.raises(InputError, match="2 answers without a score after 1 s"),
    ):
        scorer.score(rows(2))
    assert time.monotonic() - begin < 10
    child = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 5  # a killed process takes a moment to go
    while _runs(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_program_that_does_not_start(tmp_path) -> None:
    for argv in ([], ["./missing"], ["a\0b"]):
        with pytest.raises(InputError, match="does not start"):
            ScorerProgram(argv, tmp_path).__enter__()


def test_nothing_is_a_shell(tmp_path) -> None:
    (tmp_path / "score.py").write_text(HEAD + "open('argv', 'w').write(sys.argv[1])\n" + RIGHT)
    with ScorerProgram([sys.executable, "score.py", "$(touch pwned); `id`"], tmp_path) as scorer:
        scorer.score(rows(1))
    assert (tmp_path / "argv").read_text() == "$(touch pwned); `id`"
    assert not os.path.exists(tmp_path / "pwned")


def test_ids_must_differ(tmp_path) -> None:
    with program(tmp_path, RIGHT) as scorer, pytest.raises(InputError, match="one id"):
        scorer.score([("1", "q", ("x",), "x")] * 2)
    with pytest.raises(InputError, match="not running"):
        program(tmp_path, RIGHT).score(rows(1))
