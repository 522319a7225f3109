"""Events: the stop that no library can swallow."""

import signal

import pytest

from trimtab.base import progress
from trimtab.base.progress import Progress
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
