"""The store through which the processes of a training find each other: where it listens."""

from __future__ import annotations

import socket

import psutil
import pytest

from trimtab.model.process_group import Launch, _store


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost"])
def test_the_store_of_a_training_on_one_machine_listens_on_loopback_alone(address: str) -> None:
    """Where the address is a name, it may stand for another one elsewhere, so it listens as torch does."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    store = _store(Launch(rank=0, size=2, local_rank=0, address=address, port=port))
    listening = {one.laddr.ip for one in psutil.Process().net_connections() if one.laddr.port == port and not one.raddr}
    assert (listening == {"127.0.0.1"}) is (address == "127.0.0.1")
    store.set("key", "value")
    assert store.get("key") == b"value"
