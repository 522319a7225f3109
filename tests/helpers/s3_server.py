"""A real S3 server on this machine (moto's), and the environment variables that a user of S3 sets, rightly or wrongly.

Fixtures for tests that read and write by s3fs: `s3`, `bucket`.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NEEDED = ("moto", "flask", "flask_cors")  # moto's server is an application of Flask
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


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An address below the bucket, with the surroundings that a user of S3 sets."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    set_s3_variables(monkeypatch, s3, tmp_path)
    return f"s3://kept/{tmp_path.name}"


WRONG = ("no bucket", "no credentials", "no server")


def go_wrong(wrong: str, address: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Make one of WRONG so. Return the address to use, and a word of what is told of it."""
    if wrong == "no bucket":
        return f"s3://nowhere/{address.rpartition('/')[2]}", "bucket"
    if wrong == "no credentials":
        for name in KEYS:
            monkeypatch.delenv(name)
        return address, "credentials"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
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
