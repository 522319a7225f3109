"""Starts studies on hosts in namespaces, watches their jobs, and takes power and network from the hosts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hosts import RAY, Host, Network, start_ray
from waiting import until

WORKING = ("quick", "slow")  # hosts that offer a core
CUT = 20.0  # seconds without a network
WRITES = 20  # a second that the slow disk does


def three_hosts(own: Path | None = None) -> list[Host]:
    """A head, on which studies are started, and two hosts to work, of which one has a slow disk. `own`: a folder that
    these two do not share.
    """
    slow = Host("slow", "10.77.0.3", slow_at=WRITES, own=own)
    return [Host("head", "10.77.0.1"), Host("quick", "10.77.0.2", own=own), slow]


def start_cluster(net: Network) -> None:
    """Start Ray on all hosts; those of WORKING offer a core each."""
    start_ray(net["head"], net["head"], cores=0)
    for name in WORKING:
        start_ray(net[name], net["head"])


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


def without_network(host: Host, process: subprocess.Popen[str], meanwhile: Callable[[], bool] = lambda: True) -> None:
    """Its network is cut for as long as CUT at least, and until something has happened meanwhile."""
    end = time.monotonic() + CUT
    host.link("down")
    until(meanwhile, process)
    time.sleep(max(0.0, end - time.monotonic()))
    host.link("up")


def start_ray_unless_up(host: Host, net: Network) -> None:
    """A node that the cluster gave up ends by itself once it learns so."""
    if "raylet" not in host.run("ps", "-eo", "comm"):
        start_ray(host, net["head"])


def restart_ray(net: Network) -> None:
    """What an operator does after the head was lost."""
    net.begin(net["head"])
    for name in WORKING:
        net[name].run(*RAY, "stop", "--force")
    start_cluster(net)
