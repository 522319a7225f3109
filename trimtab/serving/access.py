"""Access control of the server: hashed API keys with rate limits, and the host names that requests may be addressed
to."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.base.errors import InputError
from trimtab.base.files import read_object, write_json

PREFIX = "tt-"
PER_MINUTE = 600  # requests a minute for each key, unless its entry sets another limit


def cookie_name(scope: Mapping[str, Any]) -> str:
    """Return the name of the session cookie; it holds the server's port, as browsers share cookies between ports."""
    _, port = scope.get("server") or ("", None)
    return f"trimtab-{port}" if port else "trimtab"


@dataclass(slots=True, kw_only=True)
class ApiKey:
    """An API key: its name, the SHA-256 of the key, and the token bucket of its rate limit (`tokens`: requests left,
    below 0 where other servers have taken more than there were).

    `names_users`: True if its owner gives out the names of users, so that each counts as one voter of a canary; else
    all of the key's users are one. `taken`: the requests that this server has let through.
    """

    name: str
    sha256: str
    per_minute: int = PER_MINUTE
    names_users: bool = False
    tokens: float = field(default=0.0, repr=False)
    filled_at: float = field(default=0.0, repr=False)
    taken: int = field(default=0, repr=False)

    def take(self, now: float) -> float:
        """Take one request from the bucket; return 0, or the seconds to wait until one is there.

        The bucket refills evenly and holds a sixth of a minute's requests.
        """
        self._refill(now)
        if self.tokens < 1:
            return (1 - self.tokens) * 60 / self.per_minute
        self.tokens -= 1
        self.taken += 1
        return 0.0

    def deduct(self, count: int, now: float) -> None:
        """Take requests that other servers have let through; at most a minute's requests are owed."""
        self._refill(now)
        self.tokens = max(-float(self.per_minute), self.tokens - count)

    def _refill(self, now: float) -> None:
        depth = max(1.0, self.per_minute / 6)
        self.tokens = (
            depth if not self.filled_at else min(depth, self.tokens + (now - self.filled_at) * self.per_minute / 60)
        )
        self.filled_at = now


class ApiKeys:
    """The API keys of a server. Keys are found by their hash, so the time of a lookup reveals nothing about a key.

    Thread-safe.
    """

    def __init__(self, keys: Iterable[ApiKey], clock: Callable[[], float] = time.monotonic) -> None:
        self._keys, self._clock = {key.sha256: key for key in keys}, clock
        self._lock = threading.Lock()

    def find(self, sent: str) -> ApiKey | None:
        """Return the key that a client sent, or None if it is unknown."""
        return self._keys.get(key_digest(sent)) if sent else None

    def seconds_to_wait(self, key: ApiKey) -> float:
        """Take one request of a key; return the seconds until it may send again, 0 for now."""
        with self._lock:
            return key.take(self._clock())

    def taken(self) -> dict[str, int]:
        """Return how many requests of each key, by its hash, this server has let through."""
        with self._lock:
            return {sha256: key.taken for sha256, key in self._keys.items()}

    def deduct(self, sha256: str, count: int) -> None:
        """Take requests of a key that other servers have let through; a key that is unknown here is ignored."""
        with self._lock:
            if sha256 in self._keys:
                self._keys[sha256].deduct(count, self._clock())


def key_digest(sent: str) -> str:
    """Return the SHA-256 (hex) of a key, which is all that is stored of it."""
    return hashlib.sha256(sent.encode()).hexdigest()


def start_token() -> tuple[str, ApiKeys]:
    """Return a random key that is valid as long as the server runs, and the `ApiKeys` that hold it."""
    token = new_key()
    return token, ApiKeys([ApiKey(name="start token", sha256=key_digest(token), per_minute=60_000, names_users=True)])


def new_key() -> str:
    """Return a random key of 256 bits."""
    return PREFIX + secrets.token_urlsafe(32)


def read_keys(file: Path) -> ApiKeys:
    """Read the keys of a file `{"keys": [{"name", "sha256", "per_minute"}]}`; raises InputError if it has none."""
    if not file.is_file():
        raise InputError("does not exist", "make it with: trimtab serve --new-key NAME --keys FILE", file=file)
    if _others_can_write(file):
        problem = "can be written by others, who could let themselves in"
        raise InputError(problem, "make it yours alone: chown it to yourself and chmod 600", file=file)
    keys = [_key(entry, file) for entry in _entries(file)]
    if not keys:
        raise InputError("holds no key", "add one with: trimtab serve --new-key NAME --keys FILE", file=file)
    return ApiKeys(keys)


def _others_can_write(file: Path) -> bool:
    """True if another user than the owner and root can write the file or replace it."""
    if os.name != "posix":
        return False
    mode, folder = file.stat(), file.resolve().parent.stat()
    is_open_folder = (
        folder.st_mode & stat.S_IWOTH and not folder.st_mode & stat.S_ISVTX
    )  # with the sticky bit, as in /tmp, only the owner can rename or delete
    is_own = mode.st_uid in (os.geteuid(), 0)
    return not is_own or bool(mode.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or is_open_folder)


def add_key(file: Path, name: str, *, names_users: bool = False) -> str:
    """Make a key, store its hash in the file (readable by its owner only), and return the key; `names_users` as in
    `ApiKey`."""
    if not name.strip() or len(name) > 80:
        raise InputError(f"{name[:80]!r} names no key", "give a name of up to 80 letters", field="--new-key")
    entries = _entries(file) if file.exists() else []
    if any(entry.get("name") == name for entry in entries if isinstance(entry, dict)):
        raise InputError(
            f"a key is named {name!r} already", "choose another name, or take it out of the file", file=file
        )
    key = new_key()
    entry = {"name": name, "sha256": key_digest(key), "per_minute": PER_MINUTE, "names_users": names_users}
    write_json(file, {"keys": [*entries, entry]})
    file.chmod(0o600)
    return key


def _entries(file: Path) -> list[Any]:
    entries = read_object(file).get("keys")
    if not isinstance(entries, list):
        raise InputError("has no list of keys", 'it is {"keys": [{"name": …, "sha256": …}]}', file=file, field="keys")
    return entries


def _key(entry: Any, file: Path) -> ApiKey:
    try:
        more = {name: entry[name] for name in ("per_minute", "names_users") if name in entry}
        key = ApiKey(name=entry["name"], sha256=entry["sha256"].lower(), **more)
        is_valid = isinstance(key.name, str) and len(bytes.fromhex(key.sha256)) == 32
        is_valid = is_valid and (type(key.per_minute), type(key.names_users)) == (int, bool)
    except (KeyError, TypeError, ValueError, AttributeError):
        is_valid = False
    if not is_valid or key.per_minute < 1:
        raise InputError(
            "an entry is no key",
            "each has a name, the sha256 of the key in hex, per_minute from 1 on, and names_users, true or false",
            file=file,
        )
    return key


def is_loopback(host: str) -> bool:
    """True if the address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class AllowedHosts:
    """The host names that requests may be addressed to, which protects against DNS rebinding."""

    def __init__(self, host: str, port: int, names: Iterable[str] = ()) -> None:
        own = ("127.0.0.1", "localhost", "[::1]", f"[{host}]" if ":" in host else host)
        self._allowed = {f"{name.lower()}:{port}" for name in (*own, *names)} | {name.lower() for name in names}
        if port in (80, 443):
            self._allowed |= {name.lower() for name in own}

    def allows(self, host: str) -> bool:
        """True if a Host header names this server."""
        return host.lower() in self._allowed

    def is_sent_by_another_site(self, headers: Mapping[str, str]) -> bool:
        """True if a page of another site made the browser open an address, by Sec-Fetch-Site, else Origin or Referer.

        An address that was typed, or opened by another program, has none of these headers.
        """
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site not in ("none", "same-origin")
        source = headers.get("origin") or headers.get("referer")
        return bool(source) and not self.is_same_origin("/".join(str(source).split("/")[:3]))

    def is_same_origin(self, origin: str) -> bool:
        """True if an Origin header names this server."""
        scheme, _, host = origin.partition("://")
        return scheme in ("http", "https") and self.allows(host)
