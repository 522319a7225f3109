"""Processor and wall time of every test, written as JSON by `pytest --times FILE`; `benchmarks/test_times.py` reads it.

Processor time is that of the worker and of the child processes that it waited for; what a fixture shared by several
tests costs is charged to the test that made it.
"""

import json
import resource
import time
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import forked
import pytest


def processor_seconds() -> float:
    """What this process and its ended children have taken so far, and those that `forked` started."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages) + forked.spent


class TimesOfTests:
    """Measures in each worker, and writes the file where the workers' reports come together."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.began = time.perf_counter()
        self.by_test: dict[str, dict[str, list[float]]] = defaultdict(dict)
        self.of_processes: dict[str, float] = {}
        self.spent = (0.0, 0.0)

    def _measured(self) -> Generator[None, Any, Any]:
        processor, wall = processor_seconds(), time.perf_counter()
        try:
            return (yield)
        finally:
            self.spent = processor_seconds() - processor, time.perf_counter() - wall

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Generator[None, Any, Any]:
        return (yield from self._measured())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Generator[None, Any, Any]:
        return (yield from self._measured())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, Any, Any]:
        return (yield from self._measured())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, Any]:
        report = yield
        report.spent = [round(seconds, 3) for seconds in self.spent]
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.by_test[report.nodeid][report.when] = report.spent

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.of_processes[node.gateway.id] = node.workeroutput["processor_s"]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        taken = round(processor_seconds(), 1)
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["processor_s"] = taken
            return
        self.of_processes = self.of_processes or {"main": taken}
        everything = {
            "wall_s": round(time.perf_counter() - self.began, 1),
            "processor_s": self.of_processes,
            "tests": self.by_test,
        }
        Path(self.file).write_text(json.dumps(everything))
