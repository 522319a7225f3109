"""The tools of the tests: `make test ROOM=` leaves out nothing that a room decides, and forked processes end as
others."""

import subprocess
import sys

import pytest
from forked import Forked, run
from tests_of_room import PACKAGE, ROOT, TESTS, files_of, main

# Which tests reach a room through several imports, a helper or a string.
DEPEND = {
    "decision": {"studies/test_study.py", "reports/test_page.py", "cli/test_cli.py"},
    "serving": {"upkeep/test_canary_server.py"},
}


@pytest.mark.parametrize("room", ["decision", pytest.param("serving", marks=pytest.mark.rooms("serving", "upkeep"))])
def test_rooms_are_tested_with_what_depends_on_them(room):
    found = {str(path.relative_to(TESTS)) for path in files_of(room)}
    assert found >= DEPEND[room] | {str(path.relative_to(TESTS)) for path in (TESTS / room).glob("test_*.py")}
    assert "data/test_encodings.py" not in found


def test_rooms_that_are_not_there_are_told(capsys):
    with pytest.raises(SystemExit, match="there is no room 'kitchen'; name one of arms, base"):
        main("kitchen")
    main("cli")
    assert all((ROOT / path).is_file() for path in capsys.readouterr().out.split())
    assert (PACKAGE / "cli").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "status"),
    [("", 0), ("sys.exit(3)", 3), ("1 / 0", 1), ("sys.exit('no')", 1), ("os.kill(os.getpid(), 9)", -9),
     ("raise KeyboardInterrupt", -2)],
)  # fmt: skip
def test_forked_processes_end_as_python_does(tmp_path, code, status):
    words = [sys.executable, "-c", f"import os, sys\nprint(sys.argv[1], os.getcwd(), os.environ['X'])\n{code}", "a"]
    for process in (run, lambda words, **more: subprocess.run(words, capture_output=True, text=True, **more)):
        done = process(words, cwd=tmp_path, env={"X": "b"})
        assert done.returncode == status
        assert done.stdout == ("" if status == -9 else f"a {tmp_path} b\n")
        assert done.stderr.splitlines()[-1:] == {
            "1 / 0": ["ZeroDivisionError: division by zero"],
            "sys.exit('no')": ["no"],
            "raise KeyboardInterrupt": ["KeyboardInterrupt"],
        }.get(code, [])


@pytest.mark.slow
def test_forked_processes_read_and_are_waited_for():
    with Forked([sys.executable, "-c", "print(input())"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        assert process.communicate("said\n") == ("said\n", "")
    assert process.poll() == process.returncode == 0
