"""A real S3 server on this machine (moto's), and the environment variables that a user of S3 sets, rightly or wrongly.

Tests of stores run against it, and against each server on this machine that TRIMTAB_TEST_STORES names, such as
`az://CONTAINER gs://BUCKET`: what their clients need is in the environment already. Fixtures for tests that read and
write by fsspec: `s3`, `bucket`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NEEDED = ("moto", "flask", "flask_cors")  # moto's server is an application of Flask
S3 = "s3"  # the server of moto
STORES = (S3, *os.environ.get("TRIMTAB_TEST_STORES", "").split())
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@contextmanager
def s3_server(bucket: str, *more: str) -> Iterator[str]:
    """Context manager: yields the address of a server that has this bucket. Skips the test where the server, or `more`
    packages, are not installed.
    """
    for name in (*NEEDED, *more):
        pytest.importorskip(name, reason=f"no S3 server here: {name} is not installed (pip install 'trimtab[dev]')")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    made = urllib.request.Request(f"{address}/{bucket}", method="PUT", headers={"Host": f"127.0.0.1:{port}"})
    try:
        until = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(made, timeout=5).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 server that has the bucket `kept`."""
    with s3_server("kept", "s3fs") as address:
        yield address


@pytest.fixture(params=STORES)
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An address below the bucket, with the surroundings that a user of S3 sets; an address below a named store."""
    if request.param != S3:
        return below(request.param)
    set_s3_variables(monkeypatch, request.getfixturevalue("s3"), tmp_path)
    forget_clients(S3)
    return f"s3://kept/{tmp_path.name}"


def below(store: str) -> str:
    """Return an address below a named store that no other test and no other run has."""
    return f"{store}/{uuid.uuid4().hex}"


def forget_clients(address: str) -> None:
    """Let fsspec make its client of such addresses anew, from the variables of now."""
    import fsspec

    fsspec.get_filesystem_class(address.partition("://")[0]).clear_instance_cache()


NO_SERVER = {  # by scheme, a variable with which the client finds no server
    "s3": ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
    "gs": ("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9"),
    "az": ("AZURE_STORAGE_CONNECTION_STRING", "nonsense"),
}
WRONG = ((S3, "no credentials"), *((store, wrong) for store in STORES for wrong in ("no bucket", "no server")))


def go_wrong(wrong: str, address: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Make one of WRONG so. Return the address to use, and a word of what is told of it."""
    forget_clients(address)
    scheme = address.partition("://")[0]
    if wrong == "no bucket":
        return f"{scheme}://nowhere/{address.rpartition('/')[2]}", "container" if scheme == "az" else "bucket"
    if wrong == "no credentials":
        for name in KEYS:
            monkeypatch.delenv(name)
        return address, "credentials"
    monkeypatch.setenv(*NO_SERVER[scheme])
    return address, "connect"


def set_s3_variables(monkeypatch: pytest.MonkeyPatch, address: str, folder: Path) -> None:
    """Set what a user of S3 sets, and keep settings of this machine away. `folder`: has no such settings."""
    for name in KEYS:
        monkeypatch.setenv(name, "anyone")
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(folder / "none"))
