"""The guard that keeps every test on this machine, and a whole study where the kernel counts what would leave it."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from study_tasks import QUICK, rows_of, write_task


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("example.invalid", 443)])
def test_other_machines_are_refused(address):
    for connect in (socket.socket.connect, socket.socket.connect_ex):
        with socket.socket() as client, pytest.raises(PermissionError, match="a test tried to reach"):
            connect(client, address)


def test_loopback_is_not():
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
        assert client.getpeername() == server.getsockname()


def test_the_hub_is_offline():
    from huggingface_hub import constants

    assert constants.HF_HUB_OFFLINE


def test_telemetry_of_the_hub_client_is_off():
    """In a process of its own, without the setting: whoever imports huggingface_hub first must find it."""
    code = "import trimtab, huggingface_hub.constants as hub; print(hub.HF_HUB_DISABLE_TELEMETRY)"
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "True"


def test_no_layer_is_replaced_by_a_kernel_of_the_hub(tiny_model_folder: Path) -> None:
    from trimtab.model.load import load_base

    assert not getattr(load_base(tiny_model_folder, "fp32").model, "use_kernels", False)


# Within a network namespace of its own a process reaches nothing, and the kernel counts every try, whichever language
# makes it.
COUNTS = """
import json, re
from pathlib import Path

def tries():
    rows = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines()]
    counts = {f"{a[0]}{name}": int(value) for a, b in zip(rows[::2], rows[1::2]) for name, value in zip(a[1:], b[1:])}
    return counts["Ip:OutNoRoutes"] + counts["Ip:OutRequests"] + counts["Tcp:ActiveOpens"]
"""
STUDY = """
import sys
import trimtab
from trimtab.arms import workspace
from trimtab.arms.planning import predict as timing
workspace.MIN_LATENCIES, timing.TIMED_SECONDS = 4, 0.02  # a tiny model tells its rate at once
task = sys.argv[1]
result = trimtab.study(task, listeners=[])
answer = trimtab.ask("Where is it?", task=task, arm="rag", listeners=[])
print(json.dumps({"arms": {arm.arm: arm.status for arm in result.arms}, "tries": tries()}))
"""
TRY = """
import subprocess, sys
subprocess.run(["bash", "-c", f"echo > /dev/{sys.argv[1]}/192.0.2.1/80"], stderr=subprocess.DEVNULL)
print(json.dumps({"tries": tries()}))
"""


def apart(code: str, argument: str) -> dict[str, object]:
    """What Python code prints that runs in a network namespace of its own."""
    command = ["unshare", "--map-root-user", "--net"]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system gives no namespace to an ordinary user")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_HUB")}
    command += [sys.executable, "-c", COUNTS + code, argument]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_the_kernel_sees_what_is_tried_in_another_language(protocol: str) -> None:
    """Names are looked up by udp; an address of IPv6 alone would not be counted."""
    assert apart(TRY, protocol)["tries"]


def test_a_whole_study_tries_to_reach_nothing(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path
) -> None:
    """Trained, retrieved, measured and asked; telemetry of any library would be a try."""
    (tmp_path / "documents").mkdir()
    for city in sorted({str(row["answer"]) for row in rows_of(30)}):
        (tmp_path / "documents" / f"{city.lower()}.md").write_text(f"# {city}\n{city} has it.\n")
    arms = ["linear", "rag", "quick"]
    task = write_task(
        tmp_path,
        tiny_model_folder,
        arms,
        rows=[{"question": str(row["question"])[:14], "answer": row["answer"]} for row in rows_of()],
        task='kind = "classify"',
        data='documents = ["documents/"]\nleakage = "report"\ncolumns = { input = "question", label = "answer" }',
        base=f'embedding = "{tiny_embedding_folder}"',
        more=QUICK,
    )
    assert apart(STUDY, str(task)) == {"arms": dict.fromkeys(arms, "done"), "tries": 0}
