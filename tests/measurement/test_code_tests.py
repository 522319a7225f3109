"""Code of a model against tests: what is right passes, and nothing that it does reaches out of its process, its
folder or its time."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from rewarding import TOKENS, row, said, task_with

from trimtab.base.errors import InputError
from trimtab.measurement import code_tests
from trimtab.measurement.code_tests import passed
from trimtab.measurement.rewards import reward_of

RIGHT = "def double(x):\n    return 2 * x"
TESTS = "assert double(2) == 4\n\ndef test_negative():\n    assert double(-1) == -2\n"
on_linux = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine not in ("x86_64", "aarch64"), reason="elsewhere limits alone hold"
)


def test_what_is_right_passes_and_what_is_wrong_does_not() -> None:
    fenced = f"Here it is:\n```python\n{RIGHT}\n```\nIt doubles."
    record = (
        "from dataclasses import dataclass\n@dataclass\nclass One:\n    x: int = 1\n"
        "def double(x): return 2 * x * One().x"
    )
    wrong = ["def double(x):\n    return x + 2", "def double(x)\n    return", "", "def half(x): return x"]
    assert passed([(text, TESTS) for text in (RIGHT, fenced, record, *wrong)]) == [True] * 3 + [False] * 4


@pytest.mark.parametrize(
    "code",
    [
        "raise SystemExit(0)",
        "import sys; sys.exit()",
        "import os; os._exit(0)",
        "raise KeyboardInterrupt",
        "def double(x): return double(x)",
        "import os; os.kill(os.getpid(), 9)",
        "import ctypes; ctypes.string_at(0)",
        "def test_negative(): pass",
        "'''",
        "if False:\n    '''",
    ],
)
def test_an_answer_that_ends_the_run_or_swallows_the_tests_has_not_passed(code: str) -> None:
    assert passed([(code, "assert double(2) == 4 or '''")]) == [False]


def test_an_answer_that_prints_megabytes_is_not_heard() -> None:
    loud = f"import sys\nprint('x' * 10**8)\nsys.stderr.write('x' * 10**8)\n{RIGHT}"
    assert passed([(loud, TESTS)]) == [True]


def test_a_report_that_is_flooded_is_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_tests, "WALL_SECONDS", 1.0)
    flood = (
        "import os\nwhile True:\n    for pipe in range(3, 30):\n        try: os.write(pipe, b'x' * 100000)\n"
        "        except OSError: pass"
    )
    some = "import os\nfor pipe in range(3, 30):\n    try: os.write(pipe, b'x')\n    except OSError: pass\n" + RIGHT
    assert passed([(flood, ""), (some, TESTS)]) == [False, False]


def test_sleep_and_loops_end_with_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_tests, "WALL_SECONDS", 1.0)
    assert passed([("import time; time.sleep(3600)", ""), ("while True: pass", "")]) == [False, False]
    monkeypatch.setattr(code_tests, "WALL_SECONDS", 60.0)
    monkeypatch.setattr(code_tests, "SECONDS", 1)
    assert passed([("while True: pass", "")]) == [False]  # by processor time


@on_linux
def test_memory_has_a_limit() -> None:
    big = "memory = bytearray(3 << 30)"
    assert passed([(big, ""), (f"try:\n    {big}\nexcept MemoryError:\n    small = 1", "assert small")]) == [
        False,
        True,
    ]


@on_linux
@pytest.mark.parametrize(
    "act",
    [
        "import os; os.fork()",
        "import subprocess, sys; subprocess.run([sys.executable, '-c', ''])",
        "import os, sys; os.execv(sys.executable, [sys.executable, '-c', ''])",
        "import threading; threading.Thread(target=print).start()",
        "import socket; socket.socket()",
        "import os; os.kill(os.getppid(), 0)",
        "open({outside!r}, 'w')",
        "open({there!r}, 'a')",
        "import os; os.unlink({there!r})",
        "import os; os.rename({there!r}, 'mine')",
        "import os; os.chmod({there!r}, 0)",
        "import os; os.mkdir({outside!r})",
        "open('big', 'wb').write(bytes(2 << 20))",
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        "import os; assert os.environ['SECRET_KEY']",
    ],
)
def test_nothing_is_started_sent_or_changed_outside(act: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "hush")
    there, outside = tmp_path / "there", tmp_path / "outside"
    there.write_text("as it was")
    mode = there.stat().st_mode
    done = act.format(there=str(there), outside=str(outside))
    assert passed([(f"{done}\ndone = True", "assert done")]) == [False]
    assert there.read_text() == "as it was"
    assert there.stat().st_mode == mode
    assert list(tmp_path.iterdir()) == [there]


def test_files_of_its_own_go_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    writes = "import pathlib\npathlib.Path('deep').mkdir()\npathlib.Path('deep/own').write_text('x')"
    assert passed([(writes, "assert open('deep/own').read() == 'x'")]) == [True]
    assert list(tmp_path.iterdir()) == []


def test_endless_text_is_not_run() -> None:
    assert passed([(RIGHT + "\n#" + "x" * code_tests.LONGEST, TESTS)]) == [False]


def test_as_a_part_of_the_reward() -> None:
    rows = [row(RIGHT, id="a", tests=TESTS), row("x", id="b")]
    reward = reward_of(task_with({"tests": 1.0}, kind="generate"), rows, TOKENS)
    items = [said(rows[0], RIGHT), said(rows[1], RIGHT), said(rows[0], "def double(x): return 4")]
    assert [one.total for one in reward(items)] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("tests", "said_"),
    [
        (TESTS.replace("double", "triple"), "none is passed by its row's answer and failed by an empty one"),
        ("def check(f): assert f(1) == 2", "none is passed by its row's answer and failed by an empty one"),
        ("", "no row has tests; fill the column"),
    ],
)
def test_a_column_that_holds_no_tests_is_refused_in_one_line(tests: str, said_: str) -> None:
    with pytest.raises(InputError, match=r"reward\.tests: ") as caught:
        reward_of(task_with({"tests": 1.0}, kind="generate"), [row(RIGHT, tests=tests)], TOKENS)
    assert said_ in str(caught.value)
    assert "\n" not in str(caught.value)
