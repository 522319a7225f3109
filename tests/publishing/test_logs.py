"""Access logs of several forms: which agents came, whether it was they, and what they got."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.errors import InputError
from trimtab.publishing import logs
from trimtab.publishing.crawl import crawl
from trimtab.publishing.logs import read_logs
from trimtab.publishing.records import LogSummary

GPT, SEARCH = (
    "Mozilla/5.0 (compatible; GPTBot/1.3; +https://openai.com/gptbot)",
    "Mozilla/5.0 (compatible; OAI-SearchBot/1.3)",
)
PEOPLE = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/140"
VISITS = (
    ("203.0.113.7", datetime(2026, 11, 1, 10, 0, 0, tzinfo=UTC), "/a?x=1", 200, GPT),
    ("203.0.113.8", datetime(2026, 11, 2, 10, 0, 1, tzinfo=UTC), "/b", 403, SEARCH),
    ("198.51.100.9", datetime(2026, 11, 3, 10, 0, 2, tzinfo=UTC), "/c", 200, PEOPLE),
    ("2001:db8::1", datetime(2026, 11, 4, 10, 0, 3, tzinfo=UTC), "/b", 200, SEARCH),
)


def combined(host: str = "") -> bytes:
    return "".join(
        f'{host}{address} - - [{when:%d/%b/%Y:%H:%M:%S} +0000] "GET {target} HTTP/1.1" {status} 12 "-" "{agent}"\n'
        for address, when, target, status, agent in VISITS
    ).encode()


def cloudflare(nanoseconds: bool) -> bytes:
    return "".join(
        json.dumps(
            {
                "ClientIP": address,
                "EdgeStartTimestamp": int(when.timestamp()) * 10**9
                if nanoseconds
                else when.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "ClientRequestURI": target,
                "EdgeResponseStatus": status,
                "ClientRequestUserAgent": agent,
                "RayID": "1",
            }
        )
        + "\n"
        for address, when, target, status, agent in VISITS
    ).encode()


def cloudfront() -> bytes:
    fields = (
        "date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status cs(Referer) cs(User-Agent) "
        "cs-uri-query"
    )
    lines = ["#Version: 1.0", f"#Fields: {fields}"]
    for address, when, target, status, agent in VISITS:
        path, _, query = target.partition("?")
        written = agent.replace(" ", "%20")
        lines.append(
            "\t".join(
                [
                    f"{when:%Y-%m-%d}",
                    f"{when:%H:%M:%S}",
                    "FRA",
                    "1",
                    address,
                    "GET",
                    "h",
                    path,
                    str(status),
                    "-",
                    written,
                    query or "-",
                ]
            )
        )
    return "\n".join(lines).encode()


def table(mark: str) -> bytes:
    lines = [mark.join(("timestamp", "client_ip", "url", "status", "user_agent"))]
    lines += [
        mark.join((when.isoformat(), address, target, str(status), f'"{agent}"'))
        for address, when, target, status, agent in VISITS
    ]
    return "\n".join(lines).encode()


FORMS = {
    "access.log": combined(),
    "vhosts.log": combined("example.com:443 "),
    "access.log.gz": gzip.compress(combined()),
    "cloudflare.json": cloudflare(nanoseconds=False),
    "cloudflare-ns.json.gz": gzip.compress(cloudflare(nanoseconds=True)),
    "cloudfront.gz": gzip.compress(cloudfront()),
    "fastly.csv": table(","),
    "fastly.tsv": table("\t"),
}


def read(tmp_path: Path, name: str, content: bytes) -> LogSummary:
    (tmp_path / name).write_bytes(content)
    return read_logs([tmp_path / name])[0]


@pytest.mark.parametrize("name", FORMS)
def test_the_same_visits_in_every_form(tmp_path: Path, name: str) -> None:
    found = read(tmp_path, name, FORMS[name])
    assert (found.lines, found.unread) == (4, 0)
    assert (found.first, found.last) == (VISITS[0][1], VISITS[3][1])
    by_agent = {one.agent: one for one in found.agents}
    assert {name: (one.requests, one.statuses, one.pages) for name, one in by_agent.items()} == {
        "OAI-SearchBot": (2, {200: 1, 403: 1}, 1),
        "GPTBot": (1, {200: 1}, 1),
    }
    assert by_agent["OAI-SearchBot"].first == VISITS[1][1]
    assert by_agent["GPTBot"].verified is None


def test_visitors_are_verified_by_published_ranges(tmp_path: Path) -> None:
    (tmp_path / "access.log").write_bytes(combined())
    ranges = tmp_path / "ranges"
    ranges.mkdir()
    (ranges / "searchbot.json").write_text(
        json.dumps(
            {"creationTime": "x", "prefixes": [{"ipv4Prefix": "203.0.113.0/29"}, {"ipv6Prefix": "2001:db8::/32"}]}
        )
    )
    summary, findings = read_logs([tmp_path / "access.log"], ranges)
    verified = {one.agent: one.verified for one in summary.agents}
    assert verified == {"OAI-SearchBot": 1, "GPTBot": None}
    (told,) = (one for one in findings if one.check == "agent-unverified")
    assert told.evidence.startswith("1 of 2 requests say that they are OAI-SearchBot")
    by_token = tmp_path / "all.json"
    by_token.write_text(json.dumps({"gptbot": ["203.0.113.7"], "other": []}))
    assert {one.agent: one.verified for one in read_logs([tmp_path / "access.log"], by_token)[0].agents} == {
        "OAI-SearchBot": None,
        "GPTBot": 1,
    }


def line(when: str, target: str, agent: str, *, address: str = "198.51.100.9", referrer: str = "-") -> str:
    return f'{address} - - [{when}:10:00:00 +0000] "GET {target} HTTP/1.1" 200 12 "{referrer}" "{agent}"\n'


def written(tmp_path: Path, *lines: str, name: str = "access.log") -> Path:
    (tmp_path / name).write_text("".join(lines), encoding="utf-8")
    return tmp_path / name


def test_what_a_fake_agent_fetched_is_no_reading_and_its_refusal_no_fault(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "index.html").write_text("<p>text")
    (folder / "b.html").write_text("<p>text")
    site = crawl(str(folder), cache=tmp_path / "cache", base="https://example.com/")
    log = written(
        tmp_path,
        line("01/Nov/2026", "/", SEARCH, address="203.0.113.8"),
        line("02/Nov/2026", "/b.html", SEARCH),
        line("03/Nov/2026", "/b.html", SEARCH).replace('" 200', '" 403'),
    )
    ranges = tmp_path / "all.json"
    ranges.write_text(json.dumps({"OAI-SearchBot": ["203.0.113.0/24"]}))
    summary, findings = read_logs([log], ranges, site)
    assert summary.never_read == ("https://example.com/b.html",)
    (visits,) = summary.agents
    assert (visits.requests, visits.verified, visits.pages, visits.statuses) == (3, 1, 1, {200: 1})
    assert "agent-refused" not in {finding.check for finding in findings}


@pytest.mark.parametrize(
    ("target", "referrer", "assistant"),
    [
        ("/a", "https://chatgpt.com/", "ChatGPT"),
        ("/a?utm_source=chatgpt.com", "-", "ChatGPT"),
        ("/a?x=1&utm_source=perplexity", "-", "Perplexity"),
        ("/a", "https://www.perplexity.ai/search/x", "Perplexity"),
        ("/a", "https://claude.ai/chat/1", "Claude"),
        ("/a", "https://notchatgpt.com/", None),
        ("/a?utm_source=newsletter", "https://www.google.com/", None),
    ],
)
def test_people_whom_an_assistant_sent(tmp_path: Path, target: str, referrer: str, assistant: str | None) -> None:
    log = written(
        tmp_path,
        line("01/Nov/2026", target, PEOPLE, referrer=referrer),
        line("01/Nov/2026", target, GPT, referrer=referrer),
    )
    people = read_logs([log])[0].people
    assert [(sent.assistant, sent.visits) for sent in people] == ([(assistant, 1)] if assistant else [])
    assert all("utm" not in page for sent in people for page in sent.pages)


def test_bots_that_no_list_knows_are_told_in_their_own_words(tmp_path: Path) -> None:
    odd = "Mozilla/5.0 (compatible; QuarryBot/2.1; +https://quarry.example/bot)"
    phone = "Mozilla/5.0 (Linux; Android 9; CUBOT_X19) Chrome/140"
    agents = [odd, odd, "python-requests/2.32", PEOPLE, phone, GPT, odd.replace("2.1", "2.2")]
    summary, _ = read_logs([written(tmp_path, *(line("01/Nov/2026", "/a", agent) for agent in agents))])
    told = [(bot.name, bot.requests, bot.words) for bot in summary.other_bots]
    assert told == [("QuarryBot", 3, odd), ("python-requests", 1, "python-requests/2.32")]


def test_months_of_several_files_are_one_series_and_say_what_changed(tmp_path: Path) -> None:
    def month(name: str, days: int, gpt: int, search: int) -> Path:
        lines = [line(f"{day:02d}/{name}/2026", "/a", PEOPLE) for day in range(1, days + 1)]
        return written(
            tmp_path,
            *lines,
            *[line(f"01/{name}/2026", "/a", GPT)] * gpt,
            *[line(f"01/{name}/2026", "/b", SEARCH)] * search,
            name=f"{name}.log",
        )

    summary, _ = read_logs([month("Oct", 30, 30, 30), month("Nov", 10, 10, 90)])
    assert summary.days == {"2026-10": 30, "2026-11": 10}
    by_agent = {visits.agent: visits.months for visits in summary.agents}
    assert by_agent == {"GPTBot": {"2026-10": 30, "2026-11": 10}, "OAI-SearchBot": {"2026-10": 30, "2026-11": 90}}
    # as many requests a day as before are no change, though the month is not over
    assert summary.changes == ("OAI-SearchBot: 9.0 requests a day in 2026-11, 1.0 in 2026-10",)


def test_what_no_agent_has_read_of_the_site(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    for name in ("index.html", "b", "d"):
        (folder / name if name.endswith(".html") else folder / f"{name}.html").write_text("<p>text")
    (tmp_path / "access.log").write_bytes(combined().replace(b" /b ", b" /b.html ").replace(b"/a?x=1", b"/d.html"))
    site = crawl(str(folder), cache=tmp_path / "cache", base="https://example.com/")
    summary, findings = read_logs([tmp_path / "access.log"], None, site)
    # an agent that trains got d.html, one that searches b.html
    assert summary.never_read == ("https://example.com/d.html", "https://example.com/")
    assert "never-read" in {one.check for one in findings}


def test_agents_that_are_turned_away(tmp_path: Path) -> None:
    (tmp_path / "access.log").write_bytes(combined())
    refused = {
        one.severity: one.evidence for one in read_logs([tmp_path / "access.log"])[1] if one.check == "agent-refused"
    }
    assert refused == {"hinders": "OAI-SearchBot was turned away in 1 of 2 requests (403 1 times)"}
    (tmp_path / "access.log").write_bytes(combined().replace(b'" 200', b'" 503'))
    refused = {
        one.severity: one.evidence for one in read_logs([tmp_path / "access.log"])[1] if one.check == "agent-refused"
    }
    assert list(refused) == ["blocks"]


def test_lines_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    odd = (
        b'\x00\xff\n\n{"a": 1}\n1.1.1.1 - - [99/Foo/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 1 "-" "GPTBot"\n'
        + b"x" * 300_000
        + b"\n"
    )
    found = read(tmp_path, "access.log", combined() + odd)
    assert (found.lines, found.unread) == (8, 4)


@pytest.mark.parametrize("content", [b"hello\nworld\n", b"a,b,c\n1,2,3\n", b"{}\n", b'{"a":' * 100_000 + b"\n"])
def test_what_is_no_log(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match="no access log of a known form"):
        read(tmp_path, "some.txt", content)


def test_a_log_of_a_quiet_hour_is_passed_over_beside_others(tmp_path: Path) -> None:
    (tmp_path / "quiet.log").write_bytes(b"".join(cloudfront().splitlines(keepends=True)[:2]))
    with pytest.raises(InputError, match="holds no request"):
        read_logs([tmp_path / "quiet.log"])
    (tmp_path / "busy.log").write_bytes(combined())
    assert read_logs([tmp_path])[0].lines == len(VISITS)


def test_a_bomb(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="decompression bomb"):
        read(tmp_path, "access.log.gz", gzip.compress(b" " * 30_000_000))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("gptbot.json", "no json", "is no JSON"),
        ("gptbot.json", '{"prefixes": [{"ipv4Prefix": "300.1.1.1/8"}]}', "no range of addresses"),
        ("gptbot.json", '{"prefixes": 3}', "no list of prefixes"),
        ("mine.json", '{"prefixes": []}', "no name that a vendor gives"),
        ("mine.json", '{"nobody": []}', "no address ranges of an agent"),
    ],
)
def test_ranges_that_are_none(tmp_path: Path, name: str, content: str, problem: str) -> None:
    (tmp_path / "access.log").write_bytes(combined())
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=problem):
        read_logs([tmp_path / "access.log"], tmp_path / name)


@given(
    st.text(max_size=200),
    st.sampled_from(["", '1.1.1.1 - - [01/Nov/2026:10:00:00 +0000] "GET ', '{"status": 200, "time": ']),
)
def test_any_line_is_read_or_counted(text: str, head: str) -> None:
    parse, _ = logs._form_of(head + text)
    parse(head + text)
