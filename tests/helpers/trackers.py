"""Stand-ins for experiment trackers: modules that keep what they are told in `runs`, each with `given`, `logged` and
`closed`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

RUN = """
class Run:
    url, dir, fails_at, order, wait = None, "here", None, [], None

    def __init__(self, **given):
        self.given, self.logged, self.closed = given, [], 0
        runs.append(self)
        self.order.append(f"open {given.get('name')}")

    @property
    def steps(self):
        return [step for step, _ in self.logged]

    def log(self, figures, step):
        if type(self).wait:
            type(self).wait()
        if step == self.fails_at:
            raise ConnectionError("gone")
        self.logged.append((step, dict(figures)))

    def finish(self):
        self.closed += 1
        self.order.append(f"end {self.given.get('name')}")

runs = []
"""
LIKE_WANDB = RUN + "def init(**given):\n    return Run(**given)\n"
FILES = {
    "tensorboard": {
        "tensorboard/compat/proto/event_pb2.py": """
from types import SimpleNamespace
class Event(SimpleNamespace): pass
class SessionLog(SimpleNamespace): START = 1
""",
        "tensorboard/compat/proto/summary_pb2.py": """
from types import SimpleNamespace
class Summary(SimpleNamespace):
    Value = SimpleNamespace
""",
        "tensorboard/summary/writer/event_file_writer.py": RUN
        + """
class EventFileWriter(Run):
    def __init__(self, folder, flush_secs):
        super().__init__(folder=folder)

    def add_event(self, event):
        if hasattr(event, "summary"):
            self.log({one.tag: one.simple_value for one in event.summary.value}, event.step)

    def close(self):
        self.finish()
""",
    },
    "wandb": {"wandb/__init__.py": LIKE_WANDB + "from types import SimpleNamespace as Settings\n"},
    "mlflow": {
        "mlflow/__init__.py": RUN
        + """
from types import SimpleNamespace
class MlflowClient:
    tracking_uri = "here"

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        return name

    def search_runs(self, experiments, where, max_results):
        return []

    def create_run(self, experiment, run_name, tags):
        return SimpleNamespace(info=SimpleNamespace(run_id=Run(name=run_name)))

    def log_batch(self, run, metrics=(), params=()):
        if metrics:
            (step,) = {one.step for one in metrics}
            run.log({one.key: one.value for one in metrics}, step)

    def set_terminated(self, run):
        run.finish()
""",
        "mlflow/entities.py": """
from collections import namedtuple
Metric, Param = namedtuple("Metric", "key value timestamp step"), namedtuple("Param", "key value")
""",
    },
    "trackio": {"trackio/__init__.py": LIKE_WANDB},
}
KEEPS_RUNS = {"tensorboard": "tensorboard.summary.writer.event_file_writer"}


def put_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every tracker be installed as its stand-in, not imported yet."""
    for tracker, files in FILES.items():
        for name in [name for name in sys.modules if name.partition(".")[0] == tracker]:
            monkeypatch.delitem(sys.modules, name)
        for name, source in files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source)
            for above in (*file.relative_to(folder).parents,)[:-1]:
                (folder / above / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(folder))


def runs_of(tracker: str) -> list[Any]:
    """The runs that a stand-in was told of."""
    runs: list[Any] = importlib.import_module(KEEPS_RUNS.get(tracker, tracker)).runs
    return runs
