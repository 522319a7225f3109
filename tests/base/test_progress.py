"""Events: what stays on the screen, and the stop that no library can swallow."""

import io
import re
import signal
import sys

import pytest

from trimtab.base import progress
from trimtab.base.progress import Display, Progress
from trimtab.cli.main import _interrupt


def test_a_signal_that_was_lost_ends_the_work_at_the_next_event(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.unraisablehook", None)
    path = tmp_path / "events.jsonl"
    try:
        with pytest.raises(KeyboardInterrupt):
            _interrupt(signal.SIGTERM, None)
        with pytest.raises(KeyboardInterrupt):
            Progress(path=path).emit("train")
    finally:
        progress.stop_asked.clear()
    assert not path.exists()
    Progress(path=path).emit("train")
    assert path.exists()


def test_a_note_that_stays_is_a_line_of_its_own_each_time(capsys):
    events = Progress(listeners=[Display()])
    for note in ("one", "two"):
        events.emit("plan", note=note, stays=True)
    for note in ("three", "four"):
        events.emit("plan", note=note)  # of one kind within a moment: only the first is shown
    first, second, *others = capsys.readouterr().err.splitlines()
    assert (first, second) == ("one", "two")
    assert [line.split()[-1] for line in others] == ["three"]


def test_bytes_are_shown_in_megabytes(capsys):
    Progress(listeners=[Display()]).emit("pull", step=12_300_000, of=92_871_040, unit="bytes", note="a-package")
    assert capsys.readouterr().err.split() == ["pull", "12", "of", "93", "MB", "a-package"]


class Terminal(io.StringIO):
    """A standard error that is a terminal of 60 columns."""

    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch, kind: str = "xterm") -> Terminal:
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    return terminal


def screen(written: str) -> list[str]:
    """The lines that a terminal shows in the end: text goes where the cursor is, which may be moved up and the line cleared."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", written):
        if part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif part == "\x1b[1A":
            row -= 1
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part[0] not in "\x1b\r":
            lines[row] += part
    return lines


def test_on_a_terminal_one_line_is_rewritten_notes_stay_and_nothing_else_is_left(monkeypatch):
    terminal = on_terminal(monkeypatch)
    display = Display(every=0.0)
    events = Progress(listeners=[display])
    for step, stage in enumerate(("data", "train", "answer")):
        events.emit(stage, step=step, of=3, note="long " * 40)
        events.emit("plan", note=f"kept {step}", stays=True)
    display.close()
    display.close()
    assert screen(terminal.getvalue())[:3] == ["kept 0", "kept 1", "kept 2"]
    assert not any(screen(terminal.getvalue())[3:])
    assert "answer" in terminal.getvalue()
    events.emit("verdict", note="again after it was closed")
    assert "again after" in terminal.getvalue()
    display.close()
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h")  # the cursor is given back


def test_a_terminal_that_cannot_rewrite_gets_plain_lines(monkeypatch):
    terminal = on_terminal(monkeypatch, "dumb")
    Progress(listeners=[Display()]).emit("train", step=1, of=2)
    assert terminal.getvalue().split() == ["train", "1/2"]
    assert "\x1b" not in terminal.getvalue()
