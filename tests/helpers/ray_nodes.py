"""A real Ray cluster on this machine, and nodes of it that see another file system."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from waiting import WAIT

SMALL = {"num_cpus": 1, "object_store_memory": 80 << 20}  # a node: a core, and the least store that Ray takes
MOUNT = 'mount -t tmpfs tmpfs "$0"'
HIDING = f"""{MOUNT} &&
exec "$1" -c 'from ray.scripts.scripts import main; main()' start --address="$2" --num-cpus=1 --block
"""


@contextmanager
def ray_nodes(count: int, head_cores: int = 1) -> Iterator[Any]:
    """Context manager: yields a cluster of so many nodes, the head among them, which `auto` finds. Others have a core
    each.
    """
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        head = {**SMALL, "num_cpus": head_cores, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(count - 1):
                made.add_node(**SMALL)
            patch.setenv("RAY_ADDRESS", f"127.0.0.1:{made.address.rpartition(':')[2]}")
            yield made
        finally:
            made.shutdown()


@contextmanager
def node_without(hidden: Path, address: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Context manager: yields one more node, which has another file system at the place of `hidden`. Skips the test
    where this user may not mount one.
    """
    import ray

    apart = ["unshare", "--mount", "sh", "-c"]
    if subprocess.run([*apart, MOUNT, str(hidden)], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    before = len(ray.nodes())
    process = subprocess.Popen(
        [*apart, HIDING, str(hidden), sys.executable, address],
        env={**os.environ, **environment},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + WAIT
        while len(ray.nodes()) == before:
            assert process.poll() is None, "the node ended as it began"
            assert time.monotonic() < end, "the node does not join"
            time.sleep(0.1)
        yield process
    finally:
        kill_all(process)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it started."""
    own = psutil.Process(process.pid) if process.poll() is None else None
    for one in [*(own.children(recursive=True) if own else ()), *([own] if own else ())]:
        one.kill()
    process.wait()
