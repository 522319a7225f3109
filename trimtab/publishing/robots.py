"""Reads robots.txt by RFC 9309, and gives the line that decides on an address
(https://www.rfc-editor.org/rfc/rfc9309.html)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from trimtab.publishing.addresses import path_of
from trimtab.publishing.records import Fetched

MOST_BYTES = 500 * 1024  # that are read: the least that section 2.5 asks for, and what Google reads
LONGEST_DELAY = 24 * 3600.0  # seconds; a longer Crawl-delay is ignored
_LINE_END = re.compile(r"\r\n|\r|\n")
_TOKEN = re.compile(r"[A-Za-z_-]+")
_PLAIN = re.compile(r"[A-Za-z0-9_.~/-]*", re.ASCII)
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_KEPT = frozenset(b"/%*$")  # whose escapes mean something else than they do
_ASCII = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotsRule:
    """A line `Allow` or `Disallow`: its number from 1, its text, and its length in octets, by which the longest
    match is found.

    `parts`: what stands between its wildcards. `anchored`: it ends with `$`.
    """

    line: int
    written: str
    allows: bool
    octets: int
    parts: tuple[str, ...] = field(repr=False)
    anchored: bool = field(repr=False)

    def matches(self, path: str) -> bool:
        """Return True if the rule matches a path in comparable form."""
        if not path.startswith(self.parts[0]):
            return False
        at = len(self.parts[0])
        for part in self.parts[1:-1]:
            at = path.find(part, at)
            if at < 0:
                return False
            at += len(part)
        if len(self.parts) == 1:
            return not self.anchored or at == len(path)
        last = self.parts[-1]
        if self.anchored:
            return len(path) - len(last) >= at and path.endswith(last)
        return path.find(last, at) >= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotsDecision:
    """A decision on an address: allowed or not, and the rule that decides; without a rule, `why` in words."""

    allowed: bool
    rule: RobotsRule | None = None
    why: str = ""


class _Group:
    """The merged rules of one agent, the longest first, and of equal ones those that allow."""

    def __init__(self) -> None:
        self.rules: list[RobotsRule] = []
        self.delay: float | None = None
        self._prefixes: tuple[str, ...] | None = None
        self._others: list[RobotsRule] = []

    def decide(self, path: str) -> RobotsRule | None:
        if self._prefixes is None:
            self.rules.sort(key=lambda rule: (-rule.octets, not rule.allows, rule.line))
            plain = [rule for rule in self.rules if len(rule.parts) == 1 and not rule.anchored]
            self._prefixes = tuple(rule.parts[0] for rule in plain)
            self._others = [rule for rule in self.rules if len(rule.parts) > 1 or rule.anchored]
        rules = self.rules if path.startswith(self._prefixes) else self._others
        return next((rule for rule in rules if rule.matches(path)), None)


class Robots:
    """A parsed robots.txt. Groups of one agent are merged.

    `sitemaps`: the values of its Sitemap lines. `unknown`: number and text of lines that are no rule. `cut`: it had
    more than MOST_BYTES.
    """

    def __init__(self, content: bytes = b"") -> None:
        self.cut = len(content) > MOST_BYTES
        if self.cut:  # a line that is cut in two would mean something else
            content = content[:MOST_BYTES]
            content = content[: max(content.rfind(b"\n"), content.rfind(b"\r")) + 1]
        self.sitemaps: list[str] = []
        self.unknown: list[tuple[int, str]] = []
        self._groups: dict[str, _Group] = {}
        self._read(content.decode("utf-8-sig", "surrogateescape"))

    def _read(self, text: str) -> None:
        current: list[_Group] = []
        naming = False  # inside the User-agent lines that begin a group
        for number, whole in enumerate(_LINE_END.split(text), 1):
            line = whole.partition("#")[0].strip()
            name, colon, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            if name == "user-agent" and colon:
                if not naming:
                    current = []
                naming = True
                current += [self._groups.setdefault(token, _Group()) for token in _tokens(value)]
            elif name in ("allow", "disallow") and colon:
                naming = False
                rules = [_rule(number, whole.strip(), name == "allow", value)] if value else []
                for group in current:
                    group.rules += rules
            elif name == "crawl-delay" and colon:
                for group in current:
                    group.delay = _seconds(value) if group.delay is None else group.delay
            elif name == "sitemap" and colon:
                self.sitemaps.append(value)
            elif line and not (colon and name in ("host", "request-rate", "visit-time", "content-signal")):
                self.unknown.append((number, whole.strip()))

    def group_of(self, agent: str) -> str | None:
        """Return the token of the group that holds for an agent: its own, else `*`, else None."""
        return next((token for token in (agent.lower(), "*") if token in self._groups), None)

    def decide(self, agent: str, address: str) -> RobotsDecision:
        """Decide whether `agent`, a product token, may read a canonical address."""
        token = self.group_of(agent)
        if token is None:
            return RobotsDecision(allowed=True, why="no group of robots.txt is for it")
        rule = self._groups[token].decide(comparable(path_of(address)))
        if rule is None:
            return RobotsDecision(allowed=True, why=f"no rule of the group {token} holds for it")
        return RobotsDecision(allowed=rule.allows, rule=rule)

    def crawl_delay(self, agent: str) -> float | None:
        """Return the Crawl-delay of an agent's group in seconds, None without one; RFC 9309 does not know it, some
        agents obey it."""
        token = self.group_of(agent)
        return None if token is None else self._groups[token].delay

    def rules_for(self, agent: str) -> Sequence[RobotsRule]:
        """Return the rules that hold for an agent."""
        token = self.group_of(agent)
        return () if token is None else self._groups[token].rules


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotsAnswer:
    """The answer to a request for robots.txt.

    `everything`: None if it was read; else True if everything is allowed, False if everything is forbidden, for the
    reason `why`.
    """

    rules: Robots
    everything: bool | None
    why: str = ""

    def decide(self, agent: str, address: str) -> RobotsDecision:
        """Decide whether `agent` may read an address, by RFC 9309 also where robots.txt was not read."""
        if path_of(address) == "/robots.txt":
            return RobotsDecision(allowed=True, why="robots.txt itself may always be read")
        if self.everything is not None:
            return RobotsDecision(allowed=self.everything, why=self.why)
        return self.rules.decide(agent, address)


def robots_of(answer: Fetched | None) -> RobotsAnswer:
    """Read the answer to a request for robots.txt: 2xx is read, 4xx allows everything, 5xx and no answer forbid it
    (sections 2.3.1.3, 2.3.1.4)."""
    if answer is None:
        return RobotsAnswer(
            rules=Robots(), everything=False, why="robots.txt could not be fetched, which forbids everything"
        )
    if 200 <= answer.status < 300:
        return RobotsAnswer(rules=Robots(answer.content), everything=None)
    if answer.status >= 500:
        why = f"robots.txt answers {answer.status}, which forbids everything"
        return RobotsAnswer(rules=Robots(), everything=False, why=why)
    why = f"robots.txt answers {answer.status}, which allows everything"
    return RobotsAnswer(rules=Robots(), everything=True, why=why)


def comparable(path: str) -> str:
    """Return a path in the form in which two spellings compare as equal: escaped where an escape is needed only
    (section 2.2.2)."""
    if _PLAIN.fullmatch(path):
        return path
    decoded = _ESCAPE.sub(_decoded, path.encode("utf-8", "surrogateescape"))
    return quote(decoded, safe="/%")


def _decoded(escape: re.Match[bytes]) -> bytes:
    letter = int(escape[1], 16)
    return escape[0].upper() if letter in _KEPT else bytes([letter])


def _tokens(value: str) -> Sequence[str]:
    """Return the product token of a User-agent line in small letters, without version; `*` for all, nothing without
    one."""
    if value == "*" or re.match(r"\*\s", value):
        return ("*",)
    match = _TOKEN.match(value)
    return (match[0].lower(),) if match else ()


def _rule(number: int, written: str, allows: bool, value: str) -> RobotsRule:
    anchored = value.endswith("$")
    pattern = value[:-1] if anchored else value
    return RobotsRule(
        line=number,
        written=written,
        allows=allows,
        octets=len(quote(value.encode("utf-8", "surrogateescape"), safe=_ASCII)),
        parts=tuple(comparable(part) for part in re.sub(r"\*+", "*", pattern).split("*")),
        anchored=anchored,
    )


def _seconds(value: str) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if 0 <= seconds <= LONGEST_DELAY else None
