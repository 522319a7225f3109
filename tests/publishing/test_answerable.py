"""Pages that are not there, and questions on pages as the headings of their answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.base.errors import InputError
from trimtab.base.records import Document, Section
from trimtab.data.html_text import html_markdown
from trimtab.publishing.answerable import why_not_there, with_questions_as_headings
from trimtab.publishing.content import content_of


def document(text: str, title: str = "Bikes", source: str = "bikes.html", path: tuple[str, ...] = ()) -> Document:
    return Document(id=source, title=title, source=source, sections=(Section(path=path, text=text),), digest="")


@pytest.mark.parametrize(
    ("title", "source", "text"),
    [
        ("Page not found", "x.html", "Sorry. Try the prices of electric bikes, or the home page."),
        ("404 | Bikes", "x.html", "Nothing is here."),
        ("Error 404", "x.html", "Search for opening hours."),
        ("Bikes", "404.html", "Go home, look at our prices or write to us."),
        ("Bikes", "https://bikes.example/old/", "Oops! We could not find this page about kayaks."),
        ("Seite nicht gefunden", "x.html", "Zur Startseite."),
    ],
)
def test_what_a_server_shows_where_no_page_is_is_no_page(title: str, source: str, text: str) -> None:
    assert why_not_there(document(text, title, source))


@pytest.mark.parametrize(
    ("title", "text"),
    [
        ("404 Not Found", "The status 404 means that a server has no page at an address. " * 20),
        ("Lost things", "What was not found on the bikes is at the desk."),
        ("Searching", "Filters narrow a search. If the page cannot be found by its name, its number helps. " * 5),
        ("Route 404", "The bus 404 stops at the lake."),
    ],
)
def test_a_page_about_something_missing_is_a_page(title: str, text: str) -> None:
    assert why_not_there(document(text, title)) is None


def test_a_folder_leaves_out_its_error_pages_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "404.html").write_text("<title>Page not found</title><p>No page about lamps is here.", "utf-8")
    with pytest.raises(InputError, match="no page but error pages"):
        content_of(tmp_path)
    (tmp_path / "lamps.html").write_text("<title>Lamps</title><p>A lamp costs 40 euros.", "utf-8")
    content = content_of(tmp_path)
    assert [page.source for page in content.documents] == ["lamps.html"]
    assert content.unread[0].startswith("404.html: it is what the server shows")


@pytest.mark.parametrize(
    "text",
    [
        "**May I bring a dog?**\n\nYes, in a trailer.",
        "Q: May I bring a dog?\nA: Yes, in a trailer.",
        "- May I bring a dog?\n- Yes, in a trailer.",
        "May I bring a dog?\nYes, in a trailer.",
    ],
)
def test_a_question_on_a_page_heads_its_answer(text: str) -> None:
    (section,) = with_questions_as_headings(document(text, path=("Riding",))).sections
    assert section.path == ("Riding", "May I bring a dog?")
    assert "Yes, in a trailer." in section.text
    assert "dog" not in section.text


def test_no_word_is_lost_where_questions_become_headings() -> None:
    text = "Before.\n\nIs it far?\n\nWho knows?\n\nIt is.\n\n```\nWhere?\n```\n\nShould we go, or stay? We stay."
    sections = with_questions_as_headings(document(text)).sections
    assert [(section.path, section.text) for section in sections] == [
        ((), "Before."),
        ((), "Is it far?"),
        (("Who knows?",), "It is.\n\n```\nWhere?\n```\n\nShould we go, or stay? We stay."),
    ]


@pytest.mark.parametrize("ends", [("</dt>", "</dd>"), ("", "")])
def test_a_term_heads_its_description(ends: tuple[str, str]) -> None:
    term, description = ends
    html = (
        f"<h1>Words</h1><dl><dt class=x>Pannier{term}<dd>A bag on the rack.{description}<dt>Dogs{term}<dd>Ride along."
    )
    text = html_markdown(f"<html><body><article>{html}{description}</dl></article></body></html>")
    assert text.split("\n\n") == ["# Words", "###### Pannier", "A bag on the rack.", "###### Dogs", "Ride along."]


def test_a_short_page_keeps_its_structure() -> None:
    page = (
        "<article><h1>Prices</h1><p>By Ada Lunde</p><p>A day costs 18 euros.</p><h2>Late</h2><p>5 euros.</p></article>"
    )
    assert {"# Prices", "## Late", "5 euros."} <= set(html_markdown(page).split("\n\n"))
