"""Reading a page: each thing is found where it stands, and no content raises or takes the machine."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_pages import article, page

from trimtab.publishing.crawl import PAGE_CAP
from trimtab.publishing.pages import headed_passages, parse_time, read_pages, reader_count

TEXT = (
    "<h1>Tides</h1>\n<p>The sound fills from the north and empties to the south.</p>\n<h2>The bar</h2>\n"
    "<p>Cross between half flood and high water.</p>"
)


def test_headings_stand_on_the_lines_of_the_source_whatever_comments_and_scripts_hold() -> None:
    html = f"<!-- <h1>none</h1>\n -->\n<script>\n'<h2>'\n</script>\n{article(TEXT)}"
    lines = html.split("\n")
    found = page(html).headings
    assert [(one.level, one.text) for one in found] == [(1, "Tides"), (2, "The bar")]
    for one in found:
        assert f">{one.text}<" in lines[one.line - 1]


def test_passages_carry_their_headings_and_their_text_verbatim() -> None:
    assert list(headed_passages(page(article(TEXT, title="Harbour")))) == [
        ("Harbour > Tides", "The sound fills from the north and empties to the south."),
        ("Harbour > Tides > The bar", "Cross between half flood and high water."),
    ]


def test_menus_are_no_main_text_of_a_page_with_few_words() -> None:
    menu = "".join(f"<li><a href='/{n}'>Harbour number {n}</a></li>" for n in range(80))
    html = article("<h1>Chart</h1><p>See the picture.</p>").replace("<main>", f"<nav><ul>{menu}</ul></nav><main>")
    read = page(html)
    assert "See the picture." in read.text
    assert "Harbour number" not in read.text
    assert read.words > 200


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("noindex", {"*": ("noindex",)}),
        (
            "googlebot: nosnippet, max-snippet:20, otherbot: noindex",
            {"googlebot": ("nosnippet", "max-snippet:20"), "otherbot": ("noindex",)},
        ),
        ("unknown-word", {}),
    ],
)
def test_directives_of_the_header_are_for_the_agent_before_them(
    header: str, expected: dict[str, tuple[str, ...]]
) -> None:
    assert page(article(TEXT), x_robots_tag=header).directives == expected


def test_json_ld_is_taken_apart_and_what_does_not_parse_is_kept() -> None:
    head = (
        '<script type="application/ld+json">{"@graph": [{"@type": "Article", "author": {"name": "Ada Lunde"}}, '
        '{"@type": "Person"}]}</script><script type="application/ld+json">{"a": 1,}</script>'
    )
    read = page(article(TEXT, head=head))
    assert [one["@type"] for one in read.json_ld] == ["Article", "Person"]
    assert read.broken_json_ld == ('{"a": 1,}',)
    assert read.author == "Ada Lunde"


@pytest.mark.parametrize(
    ("written", "day"),
    [
        ("2026-03-12", date(2026, 3, 12)),
        ("12 March 2026", date(2026, 3, 12)),
        ("March 12, 2026", date(2026, 3, 12)),
        ("12. März 2026", date(2026, 3, 12)),
        ("12.03.2026", date(2026, 3, 12)),
        ("Thu, 12 Mar 2026 08:00:00 GMT", date(2026, 3, 12)),
        ("03/04/2026", None),
        ("soon", None),
        ("31 February 2026", None),
    ],
)
def test_a_date_is_read_or_left_open(written: str, day: date | None) -> None:
    found = parse_time(written)
    assert (found.date() if found else None) == day


@given(st.binary(max_size=400))
def test_no_content_raises(content: bytes) -> None:
    for media in ("text/html", "application/pdf", "text/plain"):
        assert page(content, content_type=media).status == 200


@pytest.mark.slow
def test_a_page_that_hangs_a_parser_is_told_and_the_next_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.publishing.pages.SECONDS", 1)
    monkeypatch.setattr("trimtab.publishing.pages.SECONDS_EACH", 1)
    hostile = page("<p " + " ".join(f"a{n}=1" for n in range(200_000)) + ">")
    assert hostile.unread is not None
    assert page(article(TEXT)).title == "A page"


def test_pages_read_side_by_side_are_in_their_order() -> None:
    from made_pages import answer

    answers = [answer(article(TEXT, title=f"Page {n}"), f"/{n}") for n in range(12)]
    assert [one.title for one in read_pages(answers)] == [f"Page {n}" for n in range(12)]


@pytest.mark.slow
def test_a_page_of_the_longest_that_is_read_takes_a_gigabyte_at_most_and_says_so() -> None:
    """A page of short elements takes 60 times its size."""
    hostile = page("<p a=1 b=2>x" * (PAGE_CAP // 12))
    assert hostile.unread == "takes more than 85 s of processor time or 1,024 MB of memory to read"


@pytest.mark.parametrize(("cores", "gigabytes", "expected"), [(2, 16, 2), (64, 16, 8), (8, 0.2, 1)])
def test_the_processes_that_read_pages_share_half_of_the_free_memory(
    cores: int, gigabytes: float, expected: int
) -> None:
    assert reader_count(cores, int(gigabytes * 2**30)) == expected
