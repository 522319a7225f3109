"""An address that cannot be used is told in one line, before a task is planned."""

from __future__ import annotations

import socket
import sys

import pytest
from forked import run

from trimtab.base.errors import InputError, PackageError
from trimtab.scale.cluster import open_cluster


@pytest.fixture
def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_without_ray_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PackageError, match=r"needs the package ray; install it with: pip install 'trimtab\[ray\]'"):
        open_cluster("local").__enter__()


def test_nothing_of_a_cluster_is_imported_without_the_option() -> None:
    code = "import sys, trimtab.studies.study, trimtab.cli.main; print({'ray', 'grpc'} & set(sys.modules))"
    assert run([sys.executable, "-c", code]).stdout == "set()\n"  # begun with these two and more, and without others


@pytest.mark.parametrize("address", ["here", "ray://", "ray://host", "ray://host:port", "http://127.0.0.1:80", "a:1"])
def test_what_is_no_address_is_told(address: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(InputError, match=r"is not an address of a cluster; use local, auto, or ray://HOST:PORT"):
        open_cluster(address).__enter__()


def test_an_address_where_nothing_listens_is_told(free_port: int) -> None:
    pytest.importorskip("ray")
    with pytest.raises(InputError, match=rf"nothing answers at ray://127\.0\.0\.1:{free_port} .*start Ray there"):
        open_cluster(f"ray://127.0.0.1:{free_port}").__enter__()


def test_the_address_of_the_environment_is_tried_too(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port}")
    with pytest.raises(InputError, match=rf"nothing answers at 127\.0\.0\.1:{free_port}"):
        open_cluster("auto").__enter__()
