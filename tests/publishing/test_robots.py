"""robots.txt against RFC 9309's own examples, the cases of Google's open test set, and a literal matcher."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.publishing.addresses import canonical_address, path_of
from trimtab.publishing.records import Fetched
from trimtab.publishing.robots import MOST_BYTES, Robots, comparable, robots_of

HOST = "http://foo.bar"
EVERYTHING = "user-agent: FooBot\ndisallow: /\n"
GROUPS = (
    "allow: /foo/bar/\n\nuser-agent: FooBot\ndisallow: /\nallow: /x/\nuser-agent: BarBot\ndisallow: /\nallow: /y/\n\n\n"
    "allow: /w/\nuser-agent: BazBot\n\nuser-agent: FooBot\nallow: /z/\ndisallow: /\n"
)
GLOBAL = "user-agent: *\nallow: /\nuser-agent: FooBot\ndisallow: /\n"
OTHERS = "user-agent: FooBot\nallow: /\nuser-agent: BarBot\ndisallow: /\nuser-agent: BazBot\ndisallow: /\n"
TWO_GROUPS = "User-agent: *\nDisallow: /x/\nUser-agent: FooBot\nDisallow: /y/\n"
RFC_EXAMPLE = (
    "User-Agent: *\nDisallow: *.gif$\nDisallow: /example/\nAllow: /publications/\n\nUser-Agent: foobot\nDisallow:/\n"
    "Allow:/example/page.html\nAllow:/example/allowed.gif\n\nUser-Agent: barbot\nUser-Agent: bazbot\n"
    "Disallow: /example/page.html\n\nUser-Agent: quxbot\n"
)


def only(*rules: str) -> str:
    return "user-agent: FooBot\n" + "\n".join(rules) + "\n"


# robots.txt, agent, allowed paths, forbidden paths
CASES: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...]]] = {
    # RFC 9309, section 5.1
    "rfc: everybody": (
        RFC_EXAMPLE,
        "other",
        ("/publications/a", "/", "/a.gif?x"),
        ("/a.gif", "/example/x", "/publications.gif"),
    ),
    "rfc: foobot": (
        RFC_EXAMPLE,
        "foobot",
        ("/example/page.html", "/example/allowed.gif"),
        ("/", "/publications/", "/example/page"),
    ),
    "rfc: barbot": (RFC_EXAMPLE, "barbot", ("/", "/example/", "/a.gif"), ("/example/page.html",)),
    "rfc: bazbot": (RFC_EXAMPLE, "bazbot", ("/", "/example/", "/a.gif"), ("/example/page.html",)),
    "rfc: quxbot": (RFC_EXAMPLE, "quxbot", ("/", "/example/page.html", "/a.gif"), ()),
    # section 5.2: the longest match
    "rfc: longest": (
        "User-Agent: foobot\nAllow: /example/page/\nDisallow: /example/page/disallowed.gif\n",
        "foobot",
        ("/example/page/", "/example/page/a.gif"),
        ("/example/page/disallowed.gif",),
    ),
    # section 2.2.2: percent-encoded addresses
    "rfc: query": (only("disallow: /foo/bar?baz=quz"), "FooBot", ("/foo/bar",), ("/foo/bar?baz=quz",)),
    "rfc: reserved": (
        only("disallow: /foo/bar?baz=https://foo.bar"),
        "FooBot",
        ("/foo/bar?baz=",),
        ("/foo/bar?baz=https://foo.bar", "/foo/bar?baz=https:%2F%2Ffoo.bar".replace("%2F", "/")),
    ),
    "rfc: letters": (
        only("disallow: /foo/bar/ツ"),
        "FooBot",
        ("/foo/bar/",),
        ("/foo/bar/%E3%83%84", "/foo/bar/%e3%83%84"),
    ),
    "rfc: escaped letters": (only("disallow: /foo/bar/%E3%83%84"), "FooBot", ("/foo/bar/",), ("/foo/bar/%E3%83%84",)),
    "rfc: needless escapes": (
        only("disallow: /foo/bar/%62%61%7A"),
        "FooBot",
        ("/foo/bar/",),
        ("/foo/bar/baz", "/foo/bar/%62%61%7A"),
    ),
    # section 2.2.3
    "rfc: special verbatim": (
        only("disallow: /path/file-with-a-%2A.html", "disallow: /path/foo-%24"),
        "FooBot",
        ("/path/file-with-a-b.html", "/path/foo-"),
        ("/path/file-with-a-*.html", "/path/foo-$"),
    ),
    "rfc: merged groups": (
        "user-agent: a\ndisallow: /c\nuser-agent: *\ndisallow: /e\nuser-agent: a\ndisallow: /d\n",
        "a",
        ("/e",),
        ("/c", "/d"),
    ),
    "rfc: robots.txt names no group": ("disallow: /\nallow: /x\n", "FooBot", ("/", "/x"), ()),
    # Google's open test set
    "empty": ("", "FooBot", ("/",), ()),
    "line": (EVERYTHING, "FooBot", (), ("/x/y",)),
    "line of other names": ("foo: FooBot\nbar: /\n", "FooBot", ("/x/y",), ()),
    "groups: foo": (GROUPS, "FooBot", ("/x/b", "/z/d"), ("/y/c", "/foo/bar/")),
    "groups: bar": (GROUPS, "BarBot", ("/y/c", "/w/a"), ("/z/d", "/foo/bar/")),
    "groups: baz": (GROUPS, "BazBot", ("/z/d",), ("/foo/bar/",)),
    "sitemap does not end a group": (
        "User-agent: BarBot\nSitemap: https://foo.bar/sitemap\nUser-agent: *\nDisallow: /\n",
        "BarBot",
        (),
        ("/",),
    ),
    "nor for all": (
        "User-agent: BarBot\nSitemap: https://foo.bar/sitemap\nUser-agent: *\nDisallow: /\n",
        "FooBot",
        (),
        ("/",),
    ),
    "unknown line does not end a group": (
        "User-agent: FooBot\nInvalid-Unknown-Line: x\nUser-agent: *\nDisallow: /\n",
        "FooBot",
        (),
        ("/",),
    ),
    "names in capitals": ("USER-AGENT: FooBot\nALLOW: /x/\nDISALLOW: /\n", "FooBot", ("/x/y",), ("/a/b",)),
    "names in mixed letters": ("uSeR-aGeNt: FooBot\nAlLoW: /x/\ndIsAlLoW: /\n", "FooBot", ("/x/y",), ("/a/b",)),
    "agents in capitals": ("User-Agent: FOO BAR\nAllow: /x/\nDisallow: /\n", "foo", ("/x/y",), ("/a/b",)),
    "agents in mixed letters": ("User-Agent: FoO bAr\nAllow: /x/\nDisallow: /\n", "Foo", ("/x/y",), ("/a/b",)),
    "agent up to the first space": (
        "User-Agent: *\nDisallow: /\nUser-Agent: Foo Bar\nAllow: /x/\nDisallow: /\n",
        "Foo",
        ("/x/y",),
        ("/a",),
    ),
    "group for all": (GLOBAL, "FooBot", (), ("/x/y",)),
    "group for all, another": (GLOBAL, "BarBot", ("/x/y",), ()),
    "only others": (OTHERS, "QuxBot", ("/x/y",), ()),
    "case of paths": (only("disallow: /x/"), "FooBot", ("/X/y",), ("/x/y",)),
    "longest, disallow": (only("disallow: /x/page.html", "allow: /x/"), "FooBot", ("/x/",), ("/x/page.html",)),
    "longest, allow": (only("allow: /x/page.html", "disallow: /x/"), "FooBot", ("/x/page.html",), ("/x/",)),
    "empty rules": (only("disallow: ", "allow: "), "FooBot", ("/x/page.html",), ()),
    "equal rules": (only("disallow: /", "allow: /"), "FooBot", ("/x/page.html",), ()),
    "with and without slash": (only("disallow: /x", "allow: /x/"), "FooBot", ("/x/",), ("/x",)),
    "equal pages": (only("disallow: /x/page.html", "allow: /x/page.html"), "FooBot", ("/x/page.html",), ()),
    "longest with a star": (only("allow: /page", "disallow: /*.html"), "FooBot", ("/page",), ("/page.html",)),
    "longest against a star": (
        only("allow: /x/page.", "disallow: /*.html"),
        "FooBot",
        ("/x/page.html",),
        ("/x/y.html",),
    ),
    "own group alone": (TWO_GROUPS, "FooBot", ("/x/page",), ("/y/page",)),
    "address in a query": (
        "User-agent: FooBot\nDisallow: /\nAllow: /foo/bar?qux=taz&baz=http://foo.bar?tar&par\n",
        "FooBot",
        ("/foo/bar?qux=taz&baz=http://foo.bar?tar&par",),
        ("/foo/bar?qux=taz",),
    ),
    "star in a path": (
        only("Disallow: /foo/bar/quz", "Allow: /foo/*/qux"),
        "FooBot",
        ("/foo/quz", "/foo//quz", "/foo/bax/quz"),
        ("/foo/bar/quz",),
    ),
    "end of a path": (
        only("Disallow: /foo/bar$", "Allow: /foo/bar/qux"),
        "FooBot",
        ("/foo/bar/qux", "/foo/bar/", "/foo/bar/baz"),
        ("/foo/bar",),
    ),
    "comments": (only("# Disallow: /", "Disallow: /foo/quz#qux", "Allow: /"), "FooBot", ("/foo/bar",), ("/foo/quz",)),
    "fish": (
        only("disallow: /", "allow: /fish"),
        "FooBot",
        ("/fish", "/fish.html", "/fish/salmon.html", "/fishheads", "/fishheads/yummy.html", "/fish.html?id=anything"),
        ("/bar", "/Fish.asp", "/catfish", "/?id=fish"),
    ),
    "fish*": (
        only("disallow: /", "allow: /fish*"),
        "FooBot",
        ("/fish", "/fish.html", "/fish/salmon.html", "/fishheads", "/fish.html?id=anything"),
        ("/bar", "/Fish.bar", "/catfish", "/?id=fish"),
    ),
    "fish/": (
        only("disallow: /", "allow: /fish/"),
        "FooBot",
        ("/fish/", "/fish/salmon", "/fish/?salmon", "/fish/salmon.html", "/fish/?id=anything"),
        ("/bar", "/fish", "/fish.html", "/Fish/Salmon.html"),
    ),
    "*.php": (
        only("disallow: /", "allow: /*.php"),
        "FooBot",
        (
            "/filename.php",
            "/folder/filename.php",
            "/folder/filename.php?parameters",
            "//folder/any.php.file.html",
            "/index?f=filename.php/",
        ),
        ("/bar", "/php/", "/index?php", "/windows.PHP"),
    ),
    "*.php$": (
        only("disallow: /", "allow: /*.php$"),
        "FooBot",
        ("/filename.php", "/folder/filename.php"),
        (
            "/filename.php?parameters",
            "/filename.php/",
            "/filename.php5",
            "/php/",
            "/filename?php",
            "/aaaphpaaa",
            "//windows.PHP",
        ),
    ),
    "fish*.php": (
        only("disallow: /", "allow: /fish*.php"),
        "FooBot",
        ("/fish.php", "/fishheads/catfish.php?parameters"),
        ("/bar", "/Fish.PHP"),
    ),
    "precedence: longer": (only("allow: /p", "disallow: /"), "FooBot", ("/page",), ("/x",)),
    "precedence: equal": (only("allow: /folder", "disallow: /folder"), "FooBot", ("/folder/page",), ()),
    "precedence: star": (only("allow: /page", "disallow: /*.htm"), "FooBot", ("/page",), ("/page.htm",)),
    "precedence: home alone": (only("allow: /$", "disallow: /"), "FooBot", ("/",), ("/page.html",)),
    "byte order mark": ("\ufeffUser-Agent: foo\nDisallow: /a\n", "foo", ("/",), ("/a",)),
    "line ends of DOS": ("User-Agent: foo\r\nAllow: /a\r\n\r\nDisallow: /\r\n", "foo", ("/a",), ("/",)),
    "line ends of old Macs": ("User-Agent: foo\rAllow: /a\r\rDisallow: /\r", "foo", ("/a",), ("/",)),
    "no line end": ("User-Agent: foo\nDisallow: /", "foo", (), ("/",)),
    # ours: what protego reads otherwise
    "a token is a whole word": (
        "User-agent: Applebot\nAllow: /\nUser-agent: *\nDisallow: /\n",
        "Applebot-Extended",
        (),
        ("/",),
    ),
    "a version is no part of a token": ("User-agent: GPTBot/1.2\nDisallow: /\n", "GPTBot", (), ("/",)),
}
# Google's own leniency, which RFC 9309 does not ask for: these lines are no rules here, and are told.
LENIENT = ("user-agent FooBot\ndisallow /\n", "user-agent: FooBot\ndissallow: /\n", "useragent: FooBot\ndisallow: /\n")


@pytest.mark.parametrize("name", CASES)
def test_cases_of_the_rfc_and_of_google(name: str) -> None:
    text, agent, allowed, forbidden = CASES[name]
    robots = Robots(text.encode())
    said = {path: robots.decide(agent, HOST + path).allowed for path in (*allowed, *forbidden)}
    assert said == dict.fromkeys(allowed, True) | dict.fromkeys(forbidden, False)


@pytest.mark.parametrize("text", LENIENT)
def test_misspelt_lines_are_no_rules_and_are_told(text: str) -> None:
    robots = Robots(text.encode())
    assert robots.decide("FooBot", HOST + "/x").allowed
    assert robots.unknown


def test_the_line_that_decides_is_given() -> None:
    robots = Robots(
        b"# a comment\r\nUser-agent: GPTBot\r\nUser-agent: Foo\r\nDisallow: /a # why\r\n\r\nAllow: /a/b\r\n"
    )
    forbidden, allowed = robots.decide("gptbot", HOST + "/a"), robots.decide("foo", HOST + "/a/b/c")
    assert forbidden.rule is not None
    assert (forbidden.rule.line, forbidden.rule.written) == (4, "Disallow: /a # why")
    assert allowed.rule is not None
    assert allowed.rule.line == 6


def answer(status: int, content: bytes = b"") -> Fetched:
    from datetime import UTC, datetime

    address = HOST + "/robots.txt"
    return Fetched(url=address, asked=address, status=status, headers={}, content=content, when=datetime.now(UTC))


@pytest.mark.parametrize(
    ("robots", "allowed"),
    [
        (None, False),
        *[(answer(status), False) for status in (500, 503, 599)],
        *[(answer(status), True) for status in (400, 401, 404, 429)],
    ],
)
def test_a_robots_txt_that_was_not_read(robots: Fetched | None, allowed: bool) -> None:
    decision = robots_of(robots).decide("FooBot", HOST + "/x")
    assert decision.allowed is allowed
    assert decision.why
    assert robots_of(robots).decide("FooBot", HOST + "/robots.txt").allowed


def test_the_first_500_kib_are_read_and_no_half_line() -> None:
    head = b"User-agent: FooBot\nDisallow: /a\n"
    filling = b"# " + b"x" * 96 + b"\n"
    long = head + filling * (MOST_BYTES // len(filling)) + b"Disallow: /b\n" * 100_000
    robots = Robots(long)
    assert robots.cut
    assert not robots.decide("FooBot", HOST + "/a").allowed
    cut_rule = head + b"Disallow: /" + b"z" * MOST_BYTES
    assert Robots(cut_rule).decide("FooBot", HOST + "/zzz").allowed


paths = st.text("abc/*$.%?=é2A", max_size=12).map(lambda text: "/" + text)


@given(rules=st.lists(st.tuples(st.booleans(), paths), max_size=6), path=paths)
def test_the_same_as_a_literal_reading_by_regular_expressions(rules: list[tuple[bool, str]], path: str) -> None:
    """Every rule as a regular expression over the escaped path; the longest decides, Allow among equals."""
    text = "User-agent: x\n" + "".join(f"{'Allow' if allows else 'Disallow'}: {rule}\n" for allows, rule in rules)
    asked = comparable(path.replace("*", "%2A").replace("$", "%24"))
    best = (0, True)
    for allows, rule in rules:
        body = rule[:-1] if rule.endswith("$") else rule
        pattern = ".*".join(re.escape(comparable(part)) for part in body.split("*")) + (
            "$" if rule.endswith("$") else ""
        )
        if re.match(pattern, asked):
            octets = sum(3 * len(letter.encode()) if ord(letter) > 126 else 1 for letter in rule)
            best = max(best, (octets, allows))
    address = canonical_address(HOST + path.replace("*", "%2A").replace("$", "%24"))
    if (
        address is None or comparable(path_of(address)) != asked
    ):  # a lone % or a dot segment: the address has another path
        return
    assert Robots(text.encode()).decide("x", address).allowed is best[1]


@given(st.binary(max_size=300))
def test_any_bytes_are_read(content: bytes) -> None:
    Robots(b"User-agent: x\nDisallow: /a\n" + content).decide("x", HOST + "/a")
