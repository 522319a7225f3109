"""A study on three hosts in namespaces of their own, which lose their power, their network and the speed of a disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hosts import RAY, Host, Network, network, start_ray, why_no_hosts
from same_study import SCORED, SCORER, SLOW, in_folders, require_same
from study_tasks import events, folder_of

from trimtab.arms.store import read_result
from trimtab.studies.study import study

pytest.importorskip("ray", reason="Ray is not installed: pip install 'trimtab[ray]'")
pytestmark = pytest.mark.cluster

WAIT = 600.0  # seconds for what takes seconds on a quiet machine
CUT = 20.0  # seconds without a network
WRITES = 20  # a second that the slow disk does
# A node counts as lost after a few seconds, so that its job is begun elsewhere while it still runs there.
IMPATIENT = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    """A head, on which studies are started, and two hosts with a core each, of which one has a slow disk."""
    if reason := why_no_hosts():
        pytest.skip(reason)
    for name, value in {**IMPATIENT, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.urandom(16).hex()}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    hosts = [Host("head", "10.77.0.1"), Host("quick", "10.77.0.2"), Host("slow", "10.77.0.3", slow_at=WRITES)]
    with network(*hosts) as made:
        start_ray(made["head"], made["head"], cores=0)
        for name in ("quick", "slow"):
            start_ray(made[name], made["head"])
        yield made


@contextmanager
def started(host: Host, task: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A study that is started on a host."""
    command = [sys.executable, "-c", "from trimtab.cli.main import run; run()", "study", "--task", str(task)]
    whole = host.command(*command, "--allow-commands", "--on", "auto", *more)
    with subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


class Jobs:
    """What can be seen of the jobs of a study in its folder."""

    def __init__(self, task: Path) -> None:
        self.task = task

    def events_of(self, job: str) -> list[dict[str, Any]]:
        """The events of a job by time; a line may be half written."""
        found = []
        for file in self.task.parent.glob(f".trimtab/studies/*/workers/{job}/*.jsonl"):
            found += [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return sorted(found, key=lambda event: event["time"])

    def count(self, job: str, stage: str) -> int:
        return sum(event["stage"] == stage for event in self.events_of(job))

    def host_of(self, job: str, net: Network) -> Host:
        """The host on which a job runs."""
        (file,) = self.task.parent.glob(f".trimtab/studies/*/workers/{job}/.holder")
        return net[file.read_text().split()[-1]]

    def is_there(self, file: str) -> bool:
        return any(self.task.parent.glob(f".trimtab/studies/*/{file}"))

    def until(self, found: Callable[[], Any], process: subprocess.Popen[str]) -> None:
        end = time.monotonic() + WAIT
        while not found():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end, found
            time.sleep(0.05)


def with_power(net: Network, host: Host) -> None:
    """Power comes back, and Ray is started."""
    net.begin(host)
    start_ray(host, net["head"])


def test_power_network_and_disk_of_hosts_fail_and_the_study_is_the_same(
    tmp_path: Path, tiny_model_folder: Path, net: Network
) -> None:
    plain, own = in_folders(tmp_path, tiny_model_folder, ["slow", "prompt"], more=SLOW, task=SCORED)
    for task in (plain, own):
        (task.parent / "scorer.py").write_text(SCORER)
    began = time.time()

    def say(*w):
        print(round(time.time() - began, 1), *w, flush=True)

    jobs, hold = Jobs(own), own.parent / "hold"
    made, answered = "make-slow-0", "answer-prompt-0"
    with started(net["head"], own) as process:
        jobs.until(lambda: jobs.is_there("arms/prompt/run-0/built.json"), process)
        say("prompt built")
        jobs.until(lambda: jobs.count(made, "dev"), process)  # then a checkpoint is there
        hold.touch()
        say("kill", jobs.host_of(made, net).name, jobs.count(made, "train"))
        victim = jobs.host_of(made, net)
        victim.kill()
        with_power(net, victim)
        say("power again")
        jobs.until(lambda: jobs.count(made, "begin") == 2, process)
        before = jobs.count(made, "train")
        say("begun again", jobs.host_of(made, net).name)
        jobs.until(lambda: jobs.count(made, "train") > before, process)
        cut = jobs.host_of(made, net)
        say("cut", jobs.host_of(made, net).name)
        cut.link("down")
        time.sleep(CUT)
        cut.link("up")
        say("up")
        time.sleep(10)
        say(cut.run("ps", "ax"))
        say(net["head"].run(*RAY, "status"))
        hold.unlink()
        jobs.until(lambda: jobs.count(answered, "begin") >= 1, process)
        hold.touch()
        say("answering", jobs.host_of(answered, net).name)
        victim = jobs.host_of(answered, net)
        victim.kill()
        with_power(net, victim)
        say("power again")
        jobs.until(lambda: jobs.count(answered, "begin") >= 2, process)
        say("head killed")
        net["head"].kill()
        hold.unlink()
        print(process.communicate(timeout=WAIT))
    print(*[json.dumps(event) for event in events(folder_of(own)) if event.get("note")], sep="\n")
    assert 0
