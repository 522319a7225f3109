"""The guard that keeps every test on this machine."""

import os
import socket
import subprocess
import sys

import pytest


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
    code = "import trimtab.studies.study, huggingface_hub.constants as hub; print(hub.HF_HUB_DISABLE_TELEMETRY)"
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "True"
