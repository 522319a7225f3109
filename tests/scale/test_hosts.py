"""A study on three hosts in namespaces of their own, which lose their power, their network and the speed of a disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hosts import Host, Network, network, why_no_hosts
from s3_server import NEEDED, set_s3_variables
from same_study import SCORED, SLOW, in_folders, require_same
from studies_on_hosts import (
    WORKING,
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
from trimtab.base.results import StudyResult
from trimtab.studies.study import study

pytest.importorskip("ray", reason="Ray is not installed: pip install 'trimtab[ray]'")
pytestmark = pytest.mark.cluster

S3_PORT = 5000
# A node counts as lost after a few seconds, so that its job is begun elsewhere while it still runs there.
IMPATIENT = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}


PATIENT: dict[str, str] = {}  # Ray's own time: about a minute


@contextmanager
def cluster(patch: pytest.MonkeyPatch, hosts: Sequence[Host], patience: Mapping[str, str]) -> Iterator[Network]:
    """Hosts on which Ray runs."""
    if reason := why_no_hosts():
        pytest.skip(reason)
    for name, value in {**patience, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.urandom(16).hex()}.items():
        patch.setenv(name, value)
    patch.setenv("OMP_NUM_THREADS", "1")
    with network(*hosts) as made:
        start_cluster(made)
        yield made


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Network]:
    """A head, on which studies are started, and two hosts with a core each, of which one has a slow disk."""
    with cluster(monkeypatch, three_hosts(), getattr(request, "param", IMPATIENT)) as made:
        yield made


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Network]:
    """The same where the hosts share no folder; on the head is an S3 server that has the bucket `studies`."""
    for name in (*NEEDED, "s3fs"):
        pytest.importorskip(name, reason=f"no S3 server here: {name} is not installed (pip install 'trimtab[dev]')")
    hosts = three_hosts(own=tmp_path)
    set_s3_variables(monkeypatch, f"http://{hosts[0].address}:{S3_PORT}", tmp_path)
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    with cluster(monkeypatch, hosts, IMPATIENT) as made, s3_on(made["head"]):
        yield made


@contextmanager
def s3_on(host: Host) -> Iterator[None]:
    command = host.command(sys.executable, "-m", "moto.server", "-H", str(host.address), "-p", str(S3_PORT))
    bucket = host.command(sys.executable, "-c", "import s3fs; s3fs.S3FileSystem().mkdir('studies')")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: subprocess.run(bucket, stderr=subprocess.DEVNULL).returncode == 0)
            yield
        finally:
            process.kill()


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
    plain, own, expected = studied(tmp_path, tiny_model_folder)
    jobs = Jobs(own)
    with started(net["head"], own) as process:
        begin_and_break(net, jobs, process)
    restart_ray(net)
    with started(net["quick"], own, "--resume") as process:
        _, told = process.communicate(timeout=WAIT)
    require_same(own, result_of(own, told), plain, expected)
    require_nothing_twice(own, events(folder_of(own)))


def result_of(task: Path, told: str) -> StudyResult:
    """The result of a study that told so much."""
    result = read_result(folder_of(task))
    assert result is not None, told
    return result


def require_nothing_twice(task: Path, found: list[dict[str, Any]]) -> None:
    """What a lost worker saved is not done again, one worker at a time trains, and what is finished stays so."""
    assert len((task.parent / ".trimtab" / "openings.jsonl").read_text().splitlines()) == 1
    assert lost_in(found) == ["arm slow", "arm slow", "arm prompt"]
    by_workers = [event for event in found if "worker" in event]
    assert len({json.dumps(event) for event in by_workers}) == len(by_workers)  # passed on once
    begun = begun_of(found)
    assert begun["make-prompt-0"] == 1
    # the process without a network either ended with its node or finished the job, which the next one then found done
    assert begun[MADE] in (2, 3)
    assert 2 <= begun[ANSWERED] <= 3
    require_from_checkpoint(found)


def studied(folder: Path, model: Path) -> tuple[Path, Path, StudyResult]:
    """Two task files alike, and the study of the first on one machine."""
    plain, own = in_folders(folder, model, ["slow", "prompt"], more=SLOW, task=SCORED)
    return plain, own, study(plain, allow_commands=True, listeners=[])


def begun_of(found: list[dict[str, Any]]) -> dict[str, int]:
    """How often the jobs of a study were begun, by its events."""
    return Counter(
        event["worker"].rpartition("-")[0] for event in found if event["stage"] == "begin" and "worker" in event
    )


def lost_in(found: list[dict[str, Any]]) -> list[str]:
    """The arms whose jobs were begun again, by the events of a study."""
    return [event["note"].partition(":")[0] for event in found if "begun again" in event.get("note", "")]


NONE_LEFT = "no machine of the cluster is left; finished work is kept, go on with --resume"
ONCE = {f"{stage}-{arm}-0": 1 for stage in ("make", "answer") for arm in ("slow", "prompt")}


@pytest.mark.parametrize("net", [PATIENT], indirect=True)
def test_a_head_without_a_network_for_a_while_loses_nothing(
    tmp_path: Path, tiny_model_folder: Path, net: Network
) -> None:
    plain, own, expected = studied(tmp_path, tiny_model_folder)
    jobs, hold = Jobs(own), own.parent / "hold"
    with started(net["head"], own) as process:
        until(lambda: jobs.files("arms/slow/run-0/sft/checkpoints/step-*"), process)
        hold.touch()
        without_network(net["head"], process)
        hold.unlink()
        _, told = process.communicate(timeout=WAIT)
    require_same(own, result_of(own, told), plain, expected)
    assert begun_of(events(folder_of(own))) == ONCE
    assert lost_in(events(folder_of(own))) == []


def test_a_head_that_gave_up_all_hosts_says_so_and_the_study_goes_on(
    tmp_path: Path, tiny_model_folder: Path, net: Network
) -> None:
    plain, own, expected = studied(tmp_path, tiny_model_folder)
    jobs, hold = Jobs(own), own.parent / "hold"
    with started(net["head"], own) as process:
        until(lambda: jobs.files("arms/prompt/run-0/built.json"), process)
        until(lambda: jobs.files("arms/slow/run-0/sft/checkpoints/step-*"), process)
        hold.touch()
        without_network(net["head"], process, lambda: "begun again" in jobs.files("events.jsonl")[0].read_text())
        hold.unlink()
        _, told = process.communicate(timeout=WAIT)
    assert process.returncode not in (0, 1)
    assert told.splitlines()[-1].endswith(NONE_LEFT)
    for name in WORKING:
        start_ray_unless_up(net[name], net)
    with started(net["head"], own, "--resume") as process:
        _, told = process.communicate(timeout=WAIT)
    require_same(own, result_of(own, told), plain, expected)
    assert begun_of(events(folder_of(own))) == {**ONCE, MADE: 2}
    require_from_checkpoint(events(folder_of(own)))


def require_from_checkpoint(found: list[dict[str, Any]]) -> None:
    """One worker at a time trains, and each but the first goes on from a checkpoint."""
    trained = [(event["worker"], event["step"]) for event in found if event["stage"] == "train" and "worker" in event]
    runs = [(worker, [step for _, step in of_one]) for worker, of_one in groupby(trained, key=lambda one: one[0])]
    assert len(runs) == len({worker for worker, _ in runs}) == begun_of(found)[MADE]
    assert runs[0][1][0] == 1
    assert all(steps[0] > 1 for _, steps in runs[1:])


def test_a_host_that_shares_no_folder_loses_power_and_its_job_goes_on_from_the_store(
    tmp_path: Path, tiny_model_folder: Path, apart: Network
) -> None:
    plain, own, expected = studied(tmp_path, tiny_model_folder)
    jobs = Jobs(own)
    with started(apart["head"], own, "--store", "s3://studies/all") as process:
        # this event went through the store, and with it the checkpoint
        (worker,) = until(lambda: jobs.workers_at(MADE, "dev"), process)
        (host,) = (apart[name] for name in WORKING if worker in copies_on(apart[name], tmp_path))
        without_power(apart, host)
        _, told = process.communicate(timeout=WAIT)
    require_same(own, result_of(own, told), plain, expected, apart=True)
    found = events(folder_of(own))
    assert lost_in(found) == ["arm slow"]
    assert begun_of(found) == {**ONCE, MADE: 2}
    assert len((own.parent / ".trimtab" / "openings.jsonl").read_text().splitlines()) == 1
    require_from_checkpoint(found)


def copies_on(host: Host, folder: Path) -> list[str]:
    """The workers that have a copy of the study on a host."""
    return host.run("find", str(folder), "-path", "*/cache/studies/*", "-maxdepth", "4", "-printf", "%f\n").splitlines()
