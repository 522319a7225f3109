"""Display of events on a terminal: one line, notes that stay, the curve of the training loss and when it ends."""

import io
import re
import sys

import pytest

from trimtab.base import display as shown_by
from trimtab.base.display import BLOCKS, LETTERS, Display, sparkline
from trimtab.base.progress import Progress


def test_a_note_that_stays_is_a_line_of_its_own_each_time(capsys):
    events = Progress(listeners=[Display()])
    for note in ("one", "two"):
        events.emit("plan", note=note, stays=True)
    for note in ("three", "four"):
        events.emit("plan", note=note)  # of one kind within a moment: only the first is shown
    first, second, *others = capsys.readouterr().err.splitlines()
    assert (first, second) == ("one", "two")
    assert [line.split()[-1] for line in others] == ["three"]


def test_the_end_of_a_fetch_is_shown_however_soon_it_comes(capsys):
    display = Display()
    events = Progress(listeners=[display])
    for done in (0, 40_000_000, 93_000_000):
        events.emit("pull", step=done, of=93_000_000, unit="bytes")
    told = capsys.readouterr().err.splitlines()
    assert [line.split()[1:] for line in told] == [["0", "of", "93", "MB"], ["93", "of", "93", "MB"]]


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
    """The lines that a terminal shows in the end: text goes where the cursor is, which may be moved up and the line
    cleared."""
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


def test_a_curve_has_a_mark_for_each_share_of_the_values():
    falling = [float(value) for value in range(100, 0, -1)]
    assert sparkline(falling, 8) == BLOCKS[::-1]
    assert sparkline(falling, 6, LETTERS) == LETTERS[::-1]
    assert sparkline([3.0, 1.0, 2.0], 8) == "█▁▅"
    assert sparkline([2.0, 2.0, 2.0], 8) == "▁▁▁"
    assert sparkline([2.0], 8) == ""


class Clock:
    """A clock that is a second further with every event that is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(shown_by.time, "monotonic", lambda: self.now)

    def tell(self, events: Progress, step: int, of: int = 400, **figures: object) -> None:
        self.now += 60.0
        stage = "dev" if "dev_loss" in figures else "train"
        events.emit(stage, step=step, of=of, run="sft", **figures)


def last_line(terminal: Terminal) -> str:
    """Return the present text of the rewritten line."""
    return (
        re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", terminal.getvalue()).replace("\r", "\n").strip().split("\n")[-1].rstrip()
    )


def trained_on(monkeypatch: pytest.MonkeyPatch, display: Display) -> None:
    clock, events = Clock(monkeypatch), Progress(listeners=[display], arm="lora", seed=0)
    for step in range(1, 9):
        clock.tell(events, step, loss=9.0 - step)
    clock.tell(events, 8, train_loss=4.5, dev_loss=0.75, dev_metric=0.5)
    clock.tell(events, 9, loss=0.5)


def test_a_terminal_shows_the_curve_the_last_look_at_dev_and_the_end(monkeypatch):
    terminal = on_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "120")
    trained_on(monkeypatch, Display())
    # nine minutes for the eight steps since the first one, so 440 for the 391 that are left
    end = "loss 0.5 █▇▆▅▄▃▂▁▁  dev loss 0.75  dev metric 0.5  ends in about 440 min"
    assert last_line(terminal) == f"lora       train   9/400  {end}"


def test_a_narrow_terminal_leaves_out_the_curve_first_and_one_without_blocks_has_letters(monkeypatch):
    terminal = on_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "84")
    trained_on(monkeypatch, Display())
    assert last_line(terminal).startswith("lora       train   9/400  loss 0.5  dev loss 0.75  dev metric 0.5")
    terminal = on_terminal(monkeypatch)
    monkeypatch.setattr(Terminal, "encoding", "ascii", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    trained_on(monkeypatch, Display())
    assert "loss 0.5 #**=--.__" in last_line(terminal)
    terminal.getvalue().encode("ascii")


def test_the_plan_of_a_study_knows_better_when_it_ends(monkeypatch):
    terminal = on_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "120")
    display = Display()
    display.seconds_left = lambda: 300.0
    trained_on(monkeypatch, display)
    assert last_line(terminal).endswith("dev metric 0.5  about 5 min left")


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(4.0, "10 s"), (44.0, "40 s"), (100.0, "100 s"), (149.0, "150 s"), (151.0, "3 min"), (3000.0, "50 min")],
)
def test_what_is_left_is_told_within_a_quarter(monkeypatch, seconds, told):
    terminal = on_terminal(monkeypatch)
    display = Display()
    display.seconds_left = lambda: seconds
    Progress(listeners=[display], arm="lora").emit("choose")
    assert last_line(terminal).endswith(f"about {told} left")


def test_where_the_plan_is_over_nothing_is_said_but_when_the_training_ends(monkeypatch, capsys):
    display = Display(every=0.0)
    display.seconds_left = lambda: None
    Progress(listeners=[display], arm="lora").emit("choose", note="instructions")
    trained_on(monkeypatch, display)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert "left" not in first
    assert last.endswith("ends in about 440 min")


def test_another_run_begins_a_curve_of_its_own(monkeypatch):
    terminal = on_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "120")
    display = Display(every=0.0)
    trained_on(monkeypatch, display)
    Progress(listeners=[display], arm="dora", seed=0).emit("train", step=1, of=4, run="sft", loss=2.0)
    assert last_line(terminal).strip() == "dora       train   1/4  loss 2"


def test_elsewhere_a_line_now_and_then_is_short_and_has_the_loss_and_the_last_look_at_dev(monkeypatch, capsys):
    trained_on(monkeypatch, Display())
    *_, last = capsys.readouterr().err.splitlines()
    assert last == "lora       train   9/400  loss 0.5  dev loss 0.75  dev metric 0.5  ends in about 440 min"
