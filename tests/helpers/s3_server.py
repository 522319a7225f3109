"""A real S3 server on this machine (moto's), and the environment variables that a user of S3 sets."""

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


def set_s3_variables(monkeypatch: pytest.MonkeyPatch, address: str, folder: Path) -> None:
    """Set what a user of S3 sets, and keep settings of this machine away. `folder`: has no such settings."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "anyone")
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(folder / "none"))
