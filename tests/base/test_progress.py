"""Events: what stays on the screen, and the stop that no library can swallow."""

import signal

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
