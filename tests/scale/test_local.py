"""A study in processes of this machine: no other user reaches them, and nothing of Ray is left, whatever ends it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from same_study import SLOW
from started_study import started_study
from study_tasks import folder_of, write_task
from waiting import WAIT, until

from trimtab.arms.store import read_result

pytest.importorskip("ray", reason="Ray is not installed: pip install 'trimtab[ray]'")
pytestmark = pytest.mark.cluster

# Asks the records of the cluster for its nodes, as the first call of every client does.
CLIENT = """
import grpc, sys
headers = [("authorization", f"Bearer {sys.argv[2]}")] if sys.argv[2] else []
with grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}") as channel:
    try:
        channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetAllNodeInfo")(b"", timeout=60, metadata=headers)
        print("OK")
    except grpc.RpcError as error:
        print(error.code().name)
"""
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def ray_folder(head: psutil.Process) -> Path:
    """The folder of the Ray that a study started, which is named to its cleaner."""
    lines = [child.cmdline() for child in head.children()]
    (line,) = (line for line in lines if any(word.endswith("ray_cleaner.py") for word in line))
    return Path(line[-2])


def is_training(task: Path) -> bool:
    files = task.parent.glob(".trimtab/studies/*/workers/make-slow-0/*.jsonl")
    return any('"stage": "train"' in file.read_text() for file in files)


def is_denied(command: Sequence[str]) -> bool:
    done = subprocess.run([*NOBODY, *command], capture_output=True, text=True)
    return done.returncode != 0 and "Permission denied" in done.stderr


def answer_to_client(port: str, token: str) -> str:
    return subprocess.run([sys.executable, "-c", CLIENT, port, token], capture_output=True, text=True).stdout.strip()


def test_no_other_user_reaches_it_and_nothing_is_left(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, own = tmp_path / "home", tmp_path / "own"
    home.mkdir()
    own.mkdir()
    monkeypatch.setenv("HOME", str(home))
    task = write_task(own, tiny_model_folder, ["slow"], more=SLOW)
    with started_study(task, "--on", "local") as head:
        until(lambda: is_training(task), head)
        process = psutil.Process(head.pid)
        folder, processes = ray_folder(process), process.children(recursive=True)
        sockets = [each for one in [process, *processes] for each in one.net_connections() if each.status == "LISTEN"]
        assert len(sockets) > 4
        assert {each.laddr.ip.removeprefix("::ffff:") for each in sockets} == {"127.0.0.1"}
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o600
        (port,) = folder.glob("ray/session_latest/gcs_server_port*")
        token = (folder / "token").read_text()
        assert answer_to_client(port.read_text(), token) == "OK"
        for wrong in ("", "0" * len(token)):
            assert answer_to_client(port.read_text(), wrong) == "UNAUTHENTICATED"
        if os.getuid() == 0 and subprocess.run([*NOBODY, "true"], capture_output=True).returncode == 0:
            assert is_denied(["cat", str(folder / "token")])
            assert is_denied(["ls", str(folder / "ray")])
        _, told = head.communicate(timeout=WAIT)
    assert read_result(folder_of(task)) is not None, told
    assert not folder.exists()
    until(lambda: not any(one.is_running() for one in processes))
    assert not (home / ".ray").exists()


def test_nothing_is_left_of_a_study_that_is_killed(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["slow"], more=SLOW)
    with started_study(task, "--on", "local") as head:
        until(lambda: is_training(task), head)
        process = psutil.Process(head.pid)
        folder, processes = ray_folder(process), process.children(recursive=True)
        head.kill()
    until(lambda: not folder.exists())
    until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes))


def test_a_cluster_that_was_open_before_changes_nothing(tmp_path: Path) -> None:
    """Ray reads its variables once in a process, and so has read them before."""
    code = """
import os, ray
from trimtab.scale.cluster import open_cluster
variables = dict(os.environ)
ray.init(num_cpus=1, include_dashboard=False, object_store_memory=80 << 20)
ray.shutdown()
with open_cluster("local") as machines:
    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]
    assert ray.get(ray.remote(lambda: os.environ["RAY_AUTH_TOKEN_PATH"]).remote()) != variables["RAY_AUTH_TOKEN_PATH"]
assert {name: os.environ.get(name) for name in variables} == variables
"""
    token = tmp_path / "token"
    token.write_text("0" * 64)
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # for paths of sockets
        theirs = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_TMPDIR": short}
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **theirs}, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
