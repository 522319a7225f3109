"""Brings web addresses into one canonical form, so that two spellings of a page are one page."""

from __future__ import annotations

import re
from urllib.parse import quote, urljoin, urlsplit

LONGEST = 4_000  # characters of an address; sitemaps allow 2,048
_PLAIN = re.compile(r"(?!.*/\.)/(?!/)[\w.~/-]*", re.ASCII)  # needs no change: no escapes, no dot segments
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_NOT_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SPACES = re.compile(r"[\t\n\r]")
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*|\[[0-9a-f:.]+\]")
_PORTS = {"http": 80, "https": 443}
_KEPT = "/!$&'()*+,;=:@?-._~%"  # what a path or a query may hold unescaped (RFC 3986, section 3.3)
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def canonical_address(address: str, base: str | None = None) -> str | None:
    """Return an http or https address without fragment, default port and trailing dot of the host, its host in small
    letters.

    Escapes are in capitals, and only where they are needed (RFC 3986, section 6.2.2). `address` may be relative to
    `base`, an address in canonical form. None for anything else: another scheme, a user name in it, an impossible
    host or port, or too long.
    """
    if base is not None and _PLAIN.fullmatch(address):
        return origin_of(base) + address
    if len(address) > LONGEST:
        return None
    address = _SPACES.sub("", address.strip(" \t\n\r\f"))
    try:
        parts = urlsplit(urljoin(base, address) if base is not None else address)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    if scheme not in _PORTS or "@" in parts.netloc:
        return None
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            return None
    host = f"[{host}]" if ":" in host else host
    if not _HOST.fullmatch(host) or port == 0:
        return None
    netloc = host if port in (None, _PORTS[scheme]) else f"{host}:{port}"
    path = _without_dots(_escaped(parts.path)) or "/"
    query = f"?{_escaped(parts.query)}" if parts.query else ""
    canonical = f"{scheme}://{netloc}{path}{query}"
    return canonical if len(canonical) <= LONGEST else None


def origin_of(address: str) -> str:
    """Return scheme and host (and port) of a canonical address: `https://example.com`."""
    end = address.find("/", address.index("://") + 3)
    return address if end < 0 else address[:end]


def path_of(address: str) -> str:
    """Return path and query of a canonical address: `/guide/?page=2`."""
    return address[len(origin_of(address)) :] or "/"


def host_of(address: str) -> str:
    """Return the host of a canonical address, without port; an IPv6 address without brackets."""
    return urlsplit(address).hostname or ""


def same_site(one: str, other: str) -> bool:
    """Return True if two hosts are equal, or one is the `www.` twin of the other."""
    return one.removeprefix("www.") == other.removeprefix("www.")


def _escaped(text: str) -> str:
    """Escape the letters that need it, in capitals, and unescape the others."""
    text = _NOT_ESCAPE.sub("%25", text)
    text = _ESCAPE.sub(_least, text)
    return quote(text.encode("utf-8", "replace"), safe=_KEPT)


def _least(escape: re.Match[str]) -> str:
    letter = chr(int(escape[1], 16))
    return letter if letter in _UNRESERVED else escape[0].upper()


def _without_dots(path: str) -> str:
    """Return the path without its `.` and `..` segments (RFC 3986, section 5.2.4)."""
    if "/." not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == "..":
            if len(kept) > 1:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/".join(kept)
