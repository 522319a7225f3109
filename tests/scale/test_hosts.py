"""A study on three hosts in namespaces of their own, which lose their power, their network and the speed of a disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hosts import RAY, Host, Network, network, start_ray, why_no_hosts
from same_study import SCORED, SLOW, in_folders, require_same
from study_tasks import events, folder_of
from waiting import WAIT, until

from trimtab.arms.store import read_result
from trimtab.studies.study import study

pytest.importorskip("ray", reason="Ray is not installed: pip install 'trimtab[ray]'")
pytestmark = pytest.mark.cluster

WORKING = ("quick", "slow")  # hosts that offer a core
CUT = 20.0  # seconds without a network
WRITES = 20  # a second that the slow disk does
# A node counts as lost after a few seconds, so that its job is begun elsewhere while it still runs there.
IMPATIENT = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
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
        for name in WORKING:
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

    def files(self, pattern: str) -> list[Path]:
        return list(self.task.parent.glob(f".trimtab/studies/2*/{pattern}"))

    def events_of(self, job: str) -> list[dict[str, Any]]:
        """The events of a job by time; a line may be half written."""
        found = []
        for file in self.files(f"workers/{job}/*.jsonl"):
            found += [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return sorted(found, key=lambda event: event["time"])

    def workers_at(self, job: str, stage: str) -> list[str]:
        """The workers of a job that came to a stage, the first one first."""
        return list(dict.fromkeys(event["worker"] for event in self.events_of(job) if event["stage"] == stage))

    def host_of(self, job: str, net: Network) -> Host:
        """The host on which a job runs."""
        (file,) = self.files(f"workers/{job}/.holder")
        return net[file.read_text().split()[-1]]


def without_power(net: Network, host: Host) -> None:
    """Power fails, comes back, and Ray is started."""
    host.kill()
    net.begin(host)
    start_ray(host, net["head"])


def without_network(host: Host, doubled: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Its network is cut for as long as CUT at least, and until its job is begun elsewhere, too."""
    end = time.monotonic() + CUT
    host.link("down")
    until(doubled, process)
    time.sleep(max(0.0, end - time.monotonic()))
    host.link("up")


def restart_ray(net: Network) -> None:
    """What an operator does after the head was lost."""
    net.begin(net["head"])
    start_ray(net["head"], net["head"], cores=0)
    for name in WORKING:
        net[name].run(*RAY, "stop", "--force")
        start_ray(net[name], net["head"])


MADE, ANSWERED = "make-slow-0", "answer-prompt-0"


def begin_and_break(net: Network, jobs: Jobs, process: subprocess.Popen[str]) -> None:
    """Power and network of hosts fail while a study runs on them; at last the power of the head."""
    hold = jobs.task.parent / "hold"  # jobs wait for the scorer as long as this is there, so that no time decides
    until(lambda: jobs.files("arms/prompt/run-0/built.json"), process)
    until(lambda: jobs.files("arms/slow/run-0/sft/checkpoints/step-*"), process)
    hold.touch()
    without_power(net, jobs.host_of(MADE, net))
    until(lambda: len(jobs.workers_at(MADE, "train")) == 2, process)
    cut = jobs.host_of(MADE, net)
    without_network(cut, lambda: len(jobs.files(f"workers/{MADE}/*.node")) == 3, process)
    hold.unlink()
    until(lambda: jobs.workers_at(ANSWERED, "begin"), process)
    hold.touch()
    start_ray_unless_up(cut, net)
    without_power(net, jobs.host_of(ANSWERED, net))
    until(lambda: len(jobs.workers_at(ANSWERED, "begin")) == 2, process)
    net["head"].kill()
    process.communicate(timeout=WAIT)
    hold.unlink()


def start_ray_unless_up(host: Host, net: Network) -> None:
    """A node that the cluster gave up ends by itself once it learns so."""
    if "raylet" not in host.run("ps", "-eo", "comm"):
        start_ray(host, net["head"])


def test_power_network_and_disk_of_hosts_fail_and_the_study_is_the_same(
    tmp_path: Path, tiny_model_folder: Path, net: Network
) -> None:
    plain, own = in_folders(tmp_path, tiny_model_folder, ["slow", "prompt"], more=SLOW, task=SCORED)
    expected = study(plain, allow_commands=True, listeners=[])
    jobs = Jobs(own)
    with started(net["head"], own) as process:
        begin_and_break(net, jobs, process)
    restart_ray(net)
    with started(net["quick"], own, "--resume") as process:
        _, told = process.communicate(timeout=WAIT)
    result = read_result(folder_of(own))
    assert result is not None, told
    require_same(own, result, plain, expected)
    require_nothing_twice(own, events(folder_of(own)))


def require_nothing_twice(task: Path, found: list[dict[str, Any]]) -> None:
    """What a lost worker saved is not done again, one worker at a time trains, and what is finished stays so."""
    assert len((task.parent / ".trimtab" / "openings.jsonl").read_text().splitlines()) == 1
    lost = [event["note"].partition(":")[0] for event in found if "begun again" in event.get("note", "")]
    assert lost == ["arm slow", "arm slow", "arm prompt"]
    by_workers = [event for event in found if "worker" in event]
    assert len({json.dumps(event) for event in by_workers}) == len(by_workers)  # passed on once
    begun = Counter(event["worker"].rpartition("-")[0] for event in by_workers if event["stage"] == "begin")
    assert begun["make-prompt-0"] == 1
    # the process without a network either ended with its node or finished the job, which the next one then found done
    assert begun[MADE] in (2, 3)
    assert 2 <= begun[ANSWERED] <= 3
    trained = [(event["worker"], event["step"]) for event in by_workers if event["stage"] == "train"]
    runs = [(worker, [step for _, step in of_one]) for worker, of_one in groupby(trained, key=lambda one: one[0])]
    assert len(runs) == len({worker for worker, _ in runs}) == begun[MADE]  # one after the other
    assert runs[0][1][0] == 1
    assert all(steps[0] > 1 for _, steps in runs[1:])  # from a checkpoint
