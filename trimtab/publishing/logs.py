"""Reads access logs: which assistants' agents came, what they got, and which pages they never read."""

from __future__ import annotations

import csv
import ipaddress
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from trimtab.base.errors import InputError
from trimtab.base.sanitize import printable
from trimtab.data.sources import files_below, open_checked, read_bytes
from trimtab.publishing.addresses import canonical_address, path_of
from trimtab.publishing.agents import AssistantAgent, agent_of, assistant_agents
from trimtab.publishing.page_links import is_html, media_type
from trimtab.publishing.records import AgentVisits, LogSummary, Severity, Site, SurfaceFinding

LONGEST_LINE = 64 * 1024  # bytes; the rest of a longer one is left out
MOST_PATHS = 500_000  # different ones that are kept of one agent
_COMBINED = re.compile(
    r'(?:\S+ )?(?P<address>[0-9A-Fa-f.:]+) \S+ .*?\[(?P<time>[^\]]{10,40})\] "(?P<request>(?:[^"\\]'
    r'|\\.)*)" (?P<status>\d{3}) \S+'
    r' "(?:[^"\\]|\\.)*" "(?P<agent>(?:[^"\\]|\\.)*)"'
)
"""Apache's and nginx' combined format, also with the host in front and more fields behind."""
_NAMES: Mapping[str, tuple[str, ...]] = {
    "address": ("clientip", "c-ip", "client_ip", "client-ip", "remote_addr", "ip"),
    "time": ("edgestarttimestamp", "timestamp", "time", "start_time", "time_local", "time_iso8601", "datetime"),
    "date": ("date",),
    "target": ("clientrequesturi", "cs-uri-stem", "clientrequestpath", "url", "uri", "request_uri", "path"),
    "request": ("request",),
    "query": ("cs-uri-query",),
    "status": ("edgeresponsestatus", "sc-status", "status", "response_status", "status_code"),
    "agent": (
        "clientrequestuseragent",
        "cs(user-agent)",
        "user_agent",
        "user-agent",
        "request_user_agent",
        "http_user_agent",
    ),
}
"""Names of fields in Cloudflare's JSON lines, in W3C logs (CloudFront, IIS) and in common Fastly and nginx formats, in
small letters."""
_REFUSALS = (401, 403, 429)
_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRequest:
    """One request of a log: the client's IP address, time, path and query, status, and `User-Agent`."""

    address: str
    when: datetime
    target: str
    status: int
    agent: str


@dataclass(slots=True)
class _Visits:
    requests: int = 0
    verified: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    got: set[str] = field(default_factory=set)
    first: datetime = _LATEST
    last: datetime = _EARLIEST

    def add(self, request: LogRequest) -> None:
        """Count a request of this agent, and remember the path that it got, up to MOST_PATHS of them."""
        self.requests += 1
        self.statuses[request.status] += 1
        self.first, self.last = min(self.first, request.when), max(self.last, request.when)
        if request.status in (200, 206, 304) and len(self.got) < MOST_PATHS:
            self.got.add(_canonical_path(request.target))


def read_logs(
    paths: Sequence[Path], ranges: Path | None = None, site: Site | None = None
) -> tuple[LogSummary, tuple[SurfaceFinding, ...]]:
    """Summarise what the agents of assistants did, from access logs in the combined format or as CDNs export them;
    gzip is unpacked.

    `ranges`: the address ranges that vendors publish, by which a visitor is verified: a folder of their JSON files
    under the vendors' own names (`gptbot.json`), one such file, or one JSON object of tokens with their ranges.
    `site`: adds the pages that no agent for search or for users got. Raises InputError for a log of no known form,
    and for a file that holds no ranges.
    """
    networks = _networks(ranges) if ranges is not None else {}
    visits: dict[str, _Visits] = {}
    lines = unread = 0
    first, last = _LATEST, _EARLIEST

    @lru_cache(maxsize=100_000)
    def is_from(address: str, token: str) -> bool:
        try:
            number = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(number in network for network in networks[token] if network.version == number.version)

    named = lru_cache(maxsize=10_000)(agent_of)
    for path in _log_files(paths):
        read = failed = 0
        for request in _requests(path):
            if request is None:
                failed += 1
                continue
            read += 1
            first, last = min(first, request.when), max(last, request.when)
            agent = named(request.agent)
            if agent is None:
                continue
            counted = visits.setdefault(agent.token, _Visits())
            counted.add(request)
            if agent.token in networks:
                counted.verified += is_from(request.address, agent.token)
        lines, unread = lines + read + failed, unread + failed
        if failed and not read:
            remedy = "give the combined format, Cloudflare's JSON lines, or a table whose first line names its columns"
            raise InputError("is no access log of a known form", remedy, file=path)
    if not lines:
        raise InputError("holds no request", "give logs of days on which the site was visited", file=paths[0])
    summary = LogSummary(
        lines=lines,
        unread=unread,
        first=first if lines > unread else None,
        last=last if lines > unread else None,
        agents=tuple(_agent_visits(agent, visits, networks) for agent in assistant_agents() if agent.token in visits),
        never_read=_never_read(site, visits) if site is not None else (),
    )
    where = site.origin if site is not None else ", ".join(path.name for path in paths[:3])
    return summary, tuple(_findings(summary, where, site))


def _agent_visits(agent: AssistantAgent, visits: Mapping[str, _Visits], networks: Mapping[str, object]) -> AgentVisits:
    counted = visits[agent.token]
    return AgentVisits(
        agent=agent.token,
        vendor=agent.vendor,
        role=agent.role,
        requests=counted.requests,
        verified=counted.verified if agent.token in networks else None,
        statuses=dict(sorted(counted.statuses.items())),
        pages=len(counted.got),
        first=counted.first,
        last=counted.last,
    )


def _never_read(site: Site, visits: Mapping[str, _Visits]) -> tuple[str, ...]:
    """Return the pages that no agent for search or for users got, in the site's order."""
    roles = {agent.token: agent.role for agent in assistant_agents()}
    got = {path for token, counted in visits.items() if roles[token] != "training" for path in counted.got}
    pages = (page for page in site.pages if page.status == 200)
    readable = (page for page in pages if is_html(page) or media_type(page) == "application/pdf")
    return tuple(page.url for page in readable if path_of(page.url) not in got)


def _findings(summary: LogSummary, where: str, site: Site | None) -> Iterator[SurfaceFinding]:
    def finding(check: str, severity: Severity, evidence: str, remedy: str) -> SurfaceFinding:
        return SurfaceFinding(page=where, check=check, severity=severity, evidence=evidence, remedy=remedy)

    for visits in summary.agents:
        refused = {status: count for status, count in visits.statuses.items() if status in _REFUSALS or status >= 500}
        if refused and visits.role != "training":
            count = sum(refused.values())
            statuses = ", ".join(f"{status} {number:,} times" for status, number in refused.items())
            severity: Severity = "blocks" if count == visits.requests and visits.role == "search" else "hinders"
            evidence = f"{visits.agent} was turned away in {count:,} of {visits.requests:,} requests ({statuses})"
            yield finding("agent-refused", severity, evidence, "look at the bot rules of the server and of the CDN")
        if visits.verified is not None and visits.verified < visits.requests:
            unverified = f"{visits.requests - visits.verified:,} of {visits.requests:,} requests"
            evidence = f"{unverified} say that they are {visits.agent} and are not from its published addresses"
            yield finding("agent-unverified", "note", evidence, "do not count them as that agent's")
    came = {visits.agent for visits in summary.agents}
    absent = [agent.token for agent in assistant_agents() if agent.role == "search" and agent.token not in came]
    if absent and summary.first and summary.last:
        days = max(1, (summary.last - summary.first).days)
        evidence = f"in the logs of {days:,} days no request is from {', '.join(absent)}"
        yield finding("agent-absent", "note", evidence, "see whether robots.txt or a firewall keeps it away")
    if summary.never_read and site is not None:
        evidence = (
            f"{len(summary.never_read):,} pages were got by no agent for search or for users; for example "
            f"{summary.never_read[0]}"
        )
        yield finding(
            "never-read", "hinders", evidence, "link to them from pages that are read, and name them in the sitemap"
        )
    if summary.unread:
        evidence = f"{summary.unread:,} of {summary.lines:,} lines of the logs could not be read"
        yield finding("log-unread", "note", evidence, "give whole lines of one format")


def _log_files(paths: Sequence[Path]) -> list[Path]:
    files = [file for path in paths for file in (files_below(path) if path.is_dir() else [path])]
    if not files:
        raise InputError("no log is given", "give files, or a folder of them", field="logs")
    return files


def _requests(path: Path) -> Iterator[LogRequest | None]:
    """Yield each request of a log, None for a line that cannot be read; empty lines and comments are skipped."""
    parse: Callable[[str], LogRequest | None] | None = None
    with open_checked(path) as file:
        for line in _lines(file):
            if line.startswith("#"):
                if line.lower().startswith("#fields:"):  # W3C: CloudFront by tabs, others by spaces
                    parse = _columns(
                        line.partition(":")[2].split(), "\t" if "CloudFront" in line or "x-edge" in line else None
                    )
                continue
            if not line.strip():
                continue
            if parse is None:
                parse, is_header = _form_of(line)
                if is_header:
                    continue
            yield parse(line)


def _lines(file: BinaryIO) -> Iterator[str]:
    """Yield lines as text, whatever their bytes are, none longer than LONGEST_LINE."""
    while line := file.readline(LONGEST_LINE):
        whole = line.endswith(b"\n")
        yield line.decode("utf-8", "replace").rstrip("\r\n")
        while not whole and (rest := file.readline(LONGEST_LINE)):
            whole = rest.endswith(b"\n")


def _form_of(line: str) -> tuple[Callable[[str], LogRequest | None], bool]:
    """Return a parser for the lines of a log, chosen by its first line, and whether that line names the columns."""
    if line.lstrip().startswith("{"):
        return _json_line, False
    for mark in ("\t", ",", ";"):
        names = _cells(line, mark)
        if len(names) >= 4 and {_known(name) for name in names} >= {"address", "status", "agent"}:
            return _columns(names, mark), True
    return _combined_line, False


def _cells(line: str, mark: str) -> list[str]:
    """Return the values of a line of a table; none if it cannot be parsed."""
    try:
        return next(csv.reader([line], delimiter=mark), [])
    except csv.Error:
        return []


def _known(name: str) -> str | None:
    name = name.strip().lower()
    return next((what for what, names in _NAMES.items() if name in names), None)


def _columns(names: Sequence[str], mark: str | None) -> Callable[[str], LogRequest | None]:
    places: dict[str, int] = {}
    for number, name in enumerate(names):
        what = _known(name)
        if what is not None:
            places.setdefault(what, number)
    w3c = "cs(user-agent)" in (name.lower() for name in names)

    def parse(line: str) -> LogRequest | None:
        tabbed = mark or ("\t" if "\t" in line else " ")
        values = line.split(tabbed) if w3c else _cells(line, tabbed)
        if len(values) <= max(places.values(), default=0):
            return None
        found = {what: values[number] for what, number in places.items()}
        if w3c:
            found["agent"] = unquote(found["agent"].replace("+", " "))
            query = found.get("query", "-")
            if query not in ("-", ""):
                found["target"] = f"{found.get('target', '')}?{query}"
        return _request(found)

    return parse


def _json_line(line: str) -> LogRequest | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    found: dict[str, Any] = {}
    for name, value in row.items():
        what = _known(str(name))
        if what is not None and isinstance(value, str | int | float):
            found.setdefault(what, value)
    return _request(found)


def _combined_line(line: str) -> LogRequest | None:
    found = _COMBINED.match(line)
    return None if found is None else _request(found.groupdict())


def _request(values: Mapping[str, Any]) -> LogRequest | None:
    """Build a request from the text of its fields; None if one is missing or cannot be read."""
    target = str(values.get("target") or "")
    if not target and values.get("request"):
        target = str(values["request"]).partition(" ")[2].rpartition(" HTTP/")[0]
    time = f"{values['date']} {values['time']}" if "date" in values and "time" in values else values.get("time")
    when = _moment(time)
    try:
        status = int(values.get("status") or 0)
    except (ValueError, OverflowError):
        return None
    if when is None or not 100 <= status <= 599 or "agent" not in values or "address" not in values:
        return None
    return LogRequest(
        address=str(values["address"]),
        when=when,
        target=target,
        status=status,
        agent=str(values["agent"]),
    )


def _canonical_path(target: str) -> str:
    """Return path and query in canonical form, also of a whole address, as proxies write it; empty for anything
    else."""
    address = canonical_address(f"http://host.invalid{target}" if target.startswith("/") else target)
    return path_of(address) if address else ""


def _moment(written: Any) -> datetime | None:
    """Parse a time as logs write it: `30/Nov/2026:21:04:03 +0000`, ISO 8601, or seconds, milliseconds or nanoseconds
    since 1970."""
    try:
        if isinstance(written, int | float) or (
            isinstance(written, str) and re.fullmatch(r"\d{9,19}(\.\d+)?", written)
        ):
            number = float(written)
            while number > 1e11:  # the year 5138 in seconds
                number /= 1000
            return datetime.fromtimestamp(number, UTC)
        text = str(written)
        if "/" in text:
            return _second(text)
        found = datetime.fromisoformat(text)
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None


@lru_cache(maxsize=10_000)  # many requests have one second
def _second(text: str) -> datetime:
    return datetime.strptime(text, "%d/%b/%Y:%H:%M:%S %z")


_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(path: Path) -> dict[str, tuple[_Network, ...]]:
    """Read the published address ranges, by the token of their agent."""
    by_name = {Path(urlsplit(agent.ranges).path).name: agent.token for agent in assistant_agents() if agent.ranges}
    tokens = {agent.token.lower(): agent.token for agent in assistant_agents()}
    found: dict[str, tuple[_Network, ...]] = {}
    for file in files_below(path) if path.is_dir() else [path]:
        if file.suffix != ".json" and path.is_dir():
            continue
        try:
            value = json.loads(read_bytes(file))
        except (ValueError, RecursionError):
            raise InputError("is no JSON", "give address ranges as their vendors publish them", file=file) from None
        if isinstance(value, dict) and "prefixes" in value:
            token = by_name.get(file.name) or tokens.get(file.stem.lower())
            if token is not None:
                found[token] = _prefixes(value, file)
            elif not path.is_dir():
                names = ", ".join(sorted(by_name))
                raise InputError(
                    "has no name that a vendor gives to its ranges", f"name it as one of: {names}", file=file
                )
        elif isinstance(value, dict):
            known = {tokens[name.lower()]: ranges for name, ranges in value.items() if name.lower() in tokens}
            found |= {token: _prefixes(ranges, file) for token, ranges in known.items()}
    if not found:
        raise InputError(
            "holds no address ranges of an agent", "give them as their vendors publish them, in JSON", file=path
        )
    return found


def _prefixes(value: Any, file: Path) -> tuple[_Network, ...]:
    """Parse networks of `{"prefixes": [{"ipv4Prefix": …}]}`, as OpenAI, Google and others publish them, or of a list
    of them."""
    rows = value.get("prefixes") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise InputError("holds no list of prefixes", "give address ranges as their vendors publish them", file=file)
    networks = []
    for row in rows:
        written = (row.get("ipv4Prefix") or row.get("ipv6Prefix")) if isinstance(row, dict) else row
        try:
            networks.append(ipaddress.ip_network(str(written), strict=False))
        except ValueError:
            problem = f"{printable(str(written), 80)} is no range of addresses"
            raise InputError(problem, "download the file again", file=file) from None
    return tuple(networks)
