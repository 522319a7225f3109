"""No test reaches the network: what is not loopback is refused, and the hub's libraries are told that they are offline."""

import ipaddress
import os
import socket
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub

_connect, _connect_ex = socket.socket.connect, socket.socket.connect_ex


def _is_here(family: int, address: Any) -> bool:
    if family not in (socket.AF_INET, socket.AF_INET6):
        return True
    try:
        return address[0] == "localhost" or ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        return False


def _refuse(self: socket.socket, address: Any) -> None:
    if not _is_here(self.family, address):
        raise PermissionError(f"a test tried to reach {address[0]}")


def _guarded_connect(self: socket.socket, address: Any) -> None:
    _refuse(self, address)
    _connect(self, address)


def _guarded_connect_ex(self: socket.socket, address: Any) -> int:
    _refuse(self, address)
    return _connect_ex(self, address)


socket.socket.connect = _guarded_connect  # type: ignore[method-assign]
socket.socket.connect_ex = _guarded_connect_ex  # type: ignore[method-assign]
