"""Who may come in: keys that are kept as hashes, each with its limit, and the hosts that a browser may have asked for."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.base.errors import InputError
from trimtab.base.files import read_object, write_json

PREFIX = "tt-"
PER_MINUTE = 600  # requests of a key, unless its entry says otherwise


def cookie_name(scope: Mapping[str, Any]) -> str:
    """Of the page's cookie: cookies know no ports, so that of the server stands in its name, and servers on one host keep theirs apart."""
    _, port = scope.get("server") or ("", None)
    return f"trimtab-{port}" if port else "trimtab"


@dataclass(slots=True, kw_only=True)
class ApiKey:
    """A key as it is kept: the SHA-256 of what its owner sends. `tokens` are requests that it may still make at once."""

    name: str
    sha256: str
    per_minute: int = PER_MINUTE
    tokens: float = field(default=0.0, repr=False)
    filled_at: float = field(default=0.0, repr=False)

    def take(self, now: float) -> float:
        """Take one request off; seconds to wait where there is none left (a bucket that fills evenly, a sixth of a minute deep)."""
        depth = max(1.0, self.per_minute / 6)
        self.tokens = (
            depth if not self.filled_at else min(depth, self.tokens + (now - self.filled_at) * self.per_minute / 60)
        )
        self.filled_at = now
        if self.tokens < 1:
            return (1 - self.tokens) * 60 / self.per_minute
        self.tokens -= 1
        return 0.0


class ApiKeys:
    """The keys that open the server. What is looked up is a hash, so the time it takes says nothing about a key."""

    def __init__(self, keys: Iterable[ApiKey], clock: Callable[[], float] = time.monotonic) -> None:
        self._keys, self._clock = {key.sha256: key for key in keys}, clock

    def find(self, sent: str) -> ApiKey | None:
        """Whose key this is, None for nobody's."""
        return self._keys.get(key_digest(sent)) if sent else None

    def seconds_to_wait(self, key: ApiKey) -> float:
        """Seconds until this key may ask again, 0 for now."""
        return key.take(self._clock())


def key_digest(sent: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(sent.encode()).hexdigest()


def start_token() -> tuple[str, ApiKeys]:
    """A key that holds as long as the server runs."""
    token = new_key()
    return token, ApiKeys([ApiKey(name="start token", sha256=key_digest(token), per_minute=60_000)])


def new_key() -> str:
    """A key that nobody guesses: 256 bits."""
    return PREFIX + secrets.token_urlsafe(32)


def read_keys(file: Path) -> ApiKeys:
    """The keys of a file `{"keys": [{"name", "sha256", "per_minute"}]}`; raises InputError for a file that holds none."""
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
    """Whether somebody else, root aside, may write the file, or put another in its place."""
    if os.name != "posix":
        return False
    mode, folder = file.stat(), file.resolve().parent.stat()
    is_open_folder = (
        folder.st_mode & stat.S_IWOTH and not folder.st_mode & stat.S_ISVTX
    )  # sticky, as /tmp: names stay their owner's
    is_own = mode.st_uid in (os.geteuid(), 0)
    return not is_own or bool(mode.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or is_open_folder)


def add_key(file: Path, name: str) -> str:
    """Make a key, keep its hash in the file (readable by its owner alone), and give it back: it is shown this once."""
    if not name.strip() or len(name) > 80:
        raise InputError(f"{name[:80]!r} names no key", "give a name of up to 80 letters", field="--new-key")
    entries = _entries(file) if file.exists() else []
    if any(entry.get("name") == name for entry in entries if isinstance(entry, dict)):
        raise InputError(
            f"a key is named {name!r} already", "choose another name, or take it out of the file", file=file
        )
    key = new_key()
    write_json(file, {"keys": [*entries, {"name": name, "sha256": key_digest(key), "per_minute": PER_MINUTE}]})
    file.chmod(0o600)
    return key


def _entries(file: Path) -> list[Any]:
    entries = read_object(file).get("keys")
    if not isinstance(entries, list):
        raise InputError("has no list of keys", 'it is {"keys": [{"name": …, "sha256": …}]}', file=file, field="keys")
    return entries


def _key(entry: Any, file: Path) -> ApiKey:
    try:
        key = ApiKey(name=entry["name"], sha256=entry["sha256"].lower(), per_minute=entry.get("per_minute", PER_MINUTE))
        is_valid = isinstance(key.name, str) and len(bytes.fromhex(key.sha256)) == 32 and type(key.per_minute) is int
    except (KeyError, TypeError, ValueError, AttributeError):
        is_valid = False
    if not is_valid or key.per_minute < 1:
        raise InputError(
            "an entry is no key", "each has a name, the sha256 of the key in hex, and per_minute from 1 on", file=file
        )
    return key


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class AllowedHosts:
    """The names that a request may have been sent to: a page of another site cannot make a browser send one of these."""

    def __init__(self, host: str, port: int, names: Iterable[str] = ()) -> None:
        own = ("127.0.0.1", "localhost", "[::1]", f"[{host}]" if ":" in host else host)
        self._allowed = {f"{name.lower()}:{port}" for name in (*own, *names)} | {name.lower() for name in names}
        if port in (80, 443):
            self._allowed |= {name.lower() for name in own}

    def allows(self, host: str) -> bool:
        """Whether a Host header names this server."""
        return host.lower() in self._allowed

    def is_sent_by_another_site(self, headers: Mapping[str, str]) -> bool:
        """Whether a page of another site made the browser open an address: by Sec-Fetch-Site, else by Origin or Referer.

        An address that was typed, or opened by another program, has none of these.
        """
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site not in ("none", "same-origin")
        source = headers.get("origin") or headers.get("referer")
        return bool(source) and not self.is_same_origin("/".join(str(source).split("/")[:3]))

    def is_same_origin(self, origin: str) -> bool:
        """Whether an Origin header is a page of this server."""
        scheme, _, host = origin.partition("://")
        return scheme in ("http", "https") and self.allows(host)
