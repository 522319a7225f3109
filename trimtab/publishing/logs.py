"""Reads access logs: which assistants' agents came and what they got, which other bots did, which people assistants
sent, and what changed from month to month."""

from __future__ import annotations

import csv
import ipaddress
import json
import math
import re
from collections import Counter, defaultdict
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
from trimtab.publishing.agents import AssistantAgent, agent_of, assistant_agents, assistant_at
from trimtab.publishing.page_links import is_html, media_type
from trimtab.publishing.records import (
    AgentVisits,
    LogSummary,
    OtherBot,
    ReferredVisits,
    Severity,
    Site,
    SurfaceFinding,
)

LONGEST_LINE = 64 * 1024  # bytes; the rest of a longer one is left out
MOST_PATHS = 500_000  # different ones that are kept of one agent
MOST_NAMES = 10_000  # different names of other bots that are counted
MOST_BOTS = 20  # other bots that are told, those with most requests
MOST_PAGES = 10  # pages that are told for each assistant that sends people
CHANGED, UNLIKELY = 1.5, 3.0  # factor, and standard errors, from which the requests of two months differ
_COMBINED = re.compile(
    r'(?:\S+ )?(?P<address>[0-9A-Fa-f.:]+) \S+ .*?\[(?P<time>[^\]]{10,40})\] "(?P<request>(?:[^"\\]'
    r'|\\.)*)" (?P<status>\d{3}) \S+'
    r' "(?P<referrer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)"'
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
    "referrer": ("clientrequestreferer", "cs(referer)", "referer", "referrer", "http_referer", "request_referer"),
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
_GOT = (200, 206, 304)
_BOT_NAME = re.compile(r"[\w.-]*(?:bot|crawl|spider|slurp|scrap|archiv|fetch|monitor)[\w.-]*", re.I)
_CONTACT = re.compile(r"https?://|\w@\w")
_CAMPAIGN = re.compile(r"(?<=[?&])utm_\w+=[^&]*(?:&|$)", re.I)
_SOURCE = re.compile(r"[?&]utm_source=([^&#]+)", re.I)
_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRequest:
    """One request of a log: the client's IP address, time, path and query, status, `User-Agent` and `Referer`."""

    address: str
    when: datetime
    target: str
    status: int
    agent: str
    referrer: str


@dataclass(slots=True)
class _Visits:
    """The requests of one agent, bot or assistant. `got`: how often it got each path, up to MOST_PATHS of them."""

    false: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    months: Counter[str] = field(default_factory=Counter)
    got: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    first: datetime = _LATEST
    last: datetime = _EARLIEST

    @property
    def requests(self) -> int:
        """The number of requests that were added."""
        return self.statuses.total()

    def add(self, request: LogRequest) -> None:
        """Count a request."""
        self.statuses[request.status] += 1
        self.months[_month_of(request)] += 1
        self.first, self.last = min(self.first, request.when), max(self.last, request.when)
        if request.status in _GOT:
            path = _canonical_path(request.target)
            if path in self.got or len(self.got) < MOST_PATHS:
                self.got[path] += 1


@dataclass(slots=True)
class _Counts:
    """What is counted of the requests of all logs, by agent's token, by name of another bot, and by assistant."""

    days: set[str] = field(default_factory=set)
    agents: defaultdict[str, _Visits] = field(default_factory=lambda: defaultdict(_Visits))
    bots: defaultdict[str, _Visits] = field(default_factory=lambda: defaultdict(_Visits))
    people: defaultdict[str, _Visits] = field(default_factory=lambda: defaultdict(_Visits))
    first: datetime = _LATEST
    last: datetime = _EARLIEST

    def add(self, request: LogRequest, agent: AssistantAgent | None, bot: str | None, is_false: bool) -> None:
        """Count a request; one under the name of an agent that is not from its addresses (`is_false`) read nothing."""
        self.days.add(f"{request.when:%Y-%m-%d}")
        self.first, self.last = min(self.first, request.when), max(self.last, request.when)
        if agent is not None:
            if is_false:
                self.agents[agent.token].false += 1
            else:
                self.agents[agent.token].add(request)
        elif bot is not None:
            if bot in self.bots or len(self.bots) < MOST_NAMES:
                self.bots[bot].add(request)
                self.bots[bot].words[request.agent[:300]] += 1
        elif request.status in _GOT and (assistant := _sent_by(request)):
            self.people[assistant].add(request)


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
    counts = _Counts()
    lines = unread = 0

    @lru_cache(maxsize=100_000)
    def is_from(address: str, token: str) -> bool:
        try:
            number = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(number in network for network in networks[token] if network.version == number.version)

    @lru_cache(maxsize=10_000)
    def named(user_agent: str) -> tuple[AssistantAgent | None, str | None]:
        return agent_of(user_agent), _bot_name(user_agent)

    for path in _log_files(paths):
        read = failed = 0
        for request in _requests(path):
            if request is None:
                failed += 1
                continue
            read += 1
            agent, bot = named(request.agent)
            is_false = agent is not None and agent.token in networks and not is_from(request.address, agent.token)
            counts.add(request, agent, bot, is_false)
        lines, unread = lines + read + failed, unread + failed
        if failed and not read:
            remedy = "give the combined format, Cloudflare's JSON lines, or a table whose first line names its columns"
            raise InputError("is no access log of a known form", remedy, file=path)
    if not lines:
        raise InputError("holds no request", "give logs of days on which the site was visited", file=paths[0])
    agents = tuple(
        _agent_visits(agent, counts, networks) for agent in assistant_agents() if agent.token in counts.agents
    )
    people, bots = tuple(_referred(counts)), tuple(_other_bots(counts))
    days = Counter(day[:7] for day in sorted(counts.days))
    summary = LogSummary(
        lines=lines,
        unread=unread,
        first=counts.first if lines > unread else None,
        last=counts.last if lines > unread else None,
        agents=agents,
        never_read=_never_read(site, counts) if site is not None else (),
        people=people,
        other_bots=bots[:MOST_BOTS],
        more_bots=len(bots[MOST_BOTS:]),
        days=days,
        changes=tuple(_month_changes(days, agents, people, bots)),
    )
    where = site.origin if site is not None else ", ".join(path.name for path in paths[:3])
    return summary, tuple(_findings(summary, where, site))


def _agent_visits(agent: AssistantAgent, counts: _Counts, networks: Mapping[str, object]) -> AgentVisits:
    visits = counts.agents[agent.token]
    return AgentVisits(
        agent=agent.token,
        vendor=agent.vendor,
        role=agent.role,
        requests=visits.requests + visits.false,
        verified=visits.requests if agent.token in networks else None,
        statuses=dict(sorted(visits.statuses.items())),
        pages=len(visits.got),
        months=visits.months,
        first=visits.first if visits.requests else None,
        last=visits.last if visits.requests else None,
    )


def _referred(counts: _Counts) -> Iterator[ReferredVisits]:
    """Sum up the people that each assistant sent, the assistant of most of them first."""
    for assistant, visits in sorted(counts.people.items(), key=lambda item: (-item[1].requests, item[0])):
        pages = dict(visits.got.most_common(MOST_PAGES))
        yield ReferredVisits(assistant=assistant, visits=visits.requests, pages=pages, months=visits.months)


def _other_bots(counts: _Counts) -> Iterator[OtherBot]:
    """Sum up the bots that the table of agents does not know, the one with most requests first."""
    for bot, visits in sorted(counts.bots.items(), key=lambda item: (-item[1].requests, item[0])):
        ((words, _),) = visits.words.most_common(1)
        yield OtherBot(
            name=bot, words=words, requests=visits.requests, pages=len(visits.got), months=visits.months,
        )  # fmt: skip


def _month_changes(
    days: Mapping[str, int],
    agents: Sequence[AgentVisits],
    people: Sequence[ReferredVisits],
    bots: Sequence[OtherBot],
) -> Iterator[str]:
    """Say whose requests a day differ between the last two months, by more than chance makes."""
    if len(days) < 2:
        return
    before, now = sorted(days)[-2:]
    share = days[now] / (days[before] + days[now])
    named = (
        *((visits.agent, visits.months) for visits in agents),
        *((f"people from {visits.assistant}", visits.months) for visits in people),
        *((f"{bot.name} (in no list)", bot.months) for bot in bots[:MOST_BOTS]),
    )
    for name, months in named:
        old, new = months.get(before, 0), months.get(now, 0)
        z = (new - (old + new) * share) / math.sqrt(max(1, old + new) * share * (1 - share))
        old_rate, new_rate = old / days[before], new / days[now]
        if abs(z) >= UNLIKELY and max(old_rate, new_rate) >= CHANGED * min(old_rate, new_rate):
            yield f"{name}: {new_rate:,.1f} requests a day in {now}, {old_rate:,.1f} in {before}"


def _never_read(site: Site, counts: _Counts) -> tuple[str, ...]:
    """Return the pages that no agent for search or for users got, in the site's order."""
    roles = {agent.token: agent.role for agent in assistant_agents()}
    got = {path for token, visits in counts.agents.items() if roles[token] != "training" for path in visits.got}
    pages = (page for page in site.pages if page.status == 200)
    readable = (page for page in pages if is_html(page) or media_type(page) == "application/pdf")
    return tuple(page.url for page in readable if path_of(page.url) not in got)


def _bot_name(user_agent: str) -> str | None:
    """Return the name under which a bot asks; None for a browser, whose maker does not say that it is one."""
    is_browser = user_agent.startswith(("Mozilla/", "Opera/"))
    if is_browser and not (_CONTACT.search(user_agent) or "compatible;" in user_agent):
        return None
    match = _BOT_NAME.search(re.sub(r"https?://\S+|\S+@\S+", " ", user_agent))
    if match is not None:
        return match[0]
    if not is_browser:
        return re.split(r"[/ (;]", user_agent.strip(), maxsplit=1)[0][:60] or "-"
    return user_agent[:60] if _CONTACT.search(user_agent) else None


def _sent_by(request: LogRequest) -> str | None:
    """Return the assistant that sent a person, by the referrer's host or the campaign's source in the address."""
    source = _SOURCE.search(request.target)
    host = urlsplit(request.referrer).hostname if "//" in request.referrer else request.referrer
    return assistant_at(host or "") or (assistant_at(unquote(source[1])) if source else None)


def _month_of(request: LogRequest) -> str:
    return f"{request.when:%Y-%m}"


def _findings(summary: LogSummary, where: str, site: Site | None) -> Iterator[SurfaceFinding]:
    def finding(check: str, severity: Severity, evidence: str, remedy: str) -> SurfaceFinding:
        return SurfaceFinding(page=where, check=check, severity=severity, evidence=evidence, remedy=remedy)

    for visits in summary.agents:
        refused = {status: count for status, count in visits.statuses.items() if status in _REFUSALS or status >= 500}
        genuine = visits.requests if visits.verified is None else visits.verified
        if refused and visits.role != "training":
            count = sum(refused.values())
            statuses = ", ".join(f"{status} {number:,} times" for status, number in refused.items())
            severity: Severity = "blocks" if count == genuine and visits.role == "search" else "hinders"
            evidence = f"{visits.agent} was turned away in {count:,} of {genuine:,} requests ({statuses})"
            yield finding("agent-refused", severity, evidence, "look at the bot rules of the server and of the CDN")
        if visits.verified is not None and visits.verified < visits.requests:
            unverified = f"{visits.requests - visits.verified:,} of {visits.requests:,} requests"
            evidence = f"{unverified} say that they are {visits.agent} and are not from its published addresses"
            yield finding(
                "agent-unverified", "note", evidence, "they count as no visit here; block them if they cost you"
            )
    came = {visits.agent for visits in summary.agents if visits.verified != 0}
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
        if any(visits.verified is None and visits.role != "training" for visits in summary.agents):
            evidence += ". Visits under an agent's name may be others': --ranges tells them apart"
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
            found["referrer"] = unquote(found.get("referrer", ""))
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
        referrer=str(values.get("referrer") or ""),
    )


def _canonical_path(target: str) -> str:
    """Return path and query in canonical form and without the names of campaigns, also of a whole address, as proxies
    write it; empty for anything else."""
    target = _CAMPAIGN.sub("", target).rstrip("?&")
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
