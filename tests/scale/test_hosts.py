"""A study on three hosts in namespaces of their own, which lose their power, their network and the speed of a disk."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hosts import Network, network, why_no_hosts
from same_study import SCORED, SLOW, in_folders, require_same
from studies_on_hosts import (
    Jobs,
    restart_ray,
    start_cluster,
    start_ray_unless_up,
    started,
    three_hosts,
    without_network,
    without_power,
)
from study_tasks import events, folder_of
from waiting import WAIT, until

from trimtab.arms.store import read_result
from trimtab.studies.study import study

pytest.importorskip("ray", reason="Ray is not installed: pip install 'trimtab[ray]'")
pytestmark = pytest.mark.cluster

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
    with network(*three_hosts()) as made:
        start_cluster(made)
        yield made


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
    without_network(cut, process, lambda: len(jobs.files(f"workers/{MADE}/*.node")) == 3)  # it is begun elsewhere
    hold.unlink()
    until(lambda: jobs.workers_at(ANSWERED, "begin"), process)
    hold.touch()
    start_ray_unless_up(cut, net)
    without_power(net, jobs.host_of(ANSWERED, net))
    until(lambda: len(jobs.workers_at(ANSWERED, "begin")) == 2, process)
    net["head"].kill()
    process.communicate(timeout=WAIT)
    hold.unlink()


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
