"""The page of an audit: one answer at a time, its judgement kept; nobody without the address, and no text is markup."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from browsing import chromium, watched
from playwright.sync_api import expect

from trimtab.cli.judging_page import AuditPage
from trimtab.measurement.audit import AuditItem


class Session:
    """An audit that keeps its judgements in memory."""

    def __init__(self) -> None:
        answers = ("112 euros", "<script>alert(1)</script>", "\x1b[31mred\u202e")
        self.pending = [
            AuditItem(item_id=str(place), question="How much?", references=("112 euros",), answer=text)
            for place, text in enumerate(answers)
        ]
        self.judged: list[tuple[str, bool]] = []

    def judge(self, asked: AuditItem, right: bool) -> None:
        self.judged.append((asked.item_id, right))


@pytest.fixture
def served() -> Iterator[tuple[Session, str, threading.Thread]]:
    session = Session()
    page = AuditPage(session)  # type: ignore[arg-type]
    told: list[str] = []
    thread = threading.Thread(target=page.serve, args=(told.append,), daemon=True)
    thread.start()
    yield session, page.address, thread
    assert page.address in told[0]
    if thread.is_alive():
        ask(page.address, "place=0&said=stop")
        ask(page.address, "place=1&said=stop")
    thread.join(20)
    assert not thread.is_alive()


def ask(address: str, body: str | None = None, **headers: str) -> tuple[int, str]:
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=20)
    try:
        connection.request("GET" if body is None else "POST", url.path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except ConnectionError:  # the page is closed
        return 0, ""
    finally:
        connection.close()


def test_answers_are_judged_one_after_the_other_and_the_page_ends(
    served: tuple[Session, str, threading.Thread],
) -> None:
    session, address, thread = served
    status, html = ask(address)
    assert status == 200
    assert "1 of 3" in html
    assert "112 euros" in html
    assert "2 of 3" in ask(address, "place=0&said=right")[1]
    _, html = ask(address, "place=0&said=wrong")  # sent twice
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert session.judged == [("0", True)]
    _, html = ask(address, "place=1&said=skip")
    assert not {"\x1b", "\u202e"} & set(html)
    assert "closed" in ask(address, "place=2&said=wrong")[1]
    thread.join(20)
    assert session.judged == [("0", True), ("2", False)]


def test_only_who_has_the_address_is_answered(served: tuple[Session, str, threading.Thread]) -> None:
    session, address, _ = served
    root = address.rpartition("/")[0]
    assert ask(f"{root}/")[0] == 404
    assert ask(f"{root}/else", "place=0&said=right")[0] == 404
    assert ask(address, Host="attacker.example")[0] == 404
    assert ask(address, "x" * 2_000)[0] == 413
    ask(address, "place=0&said=perhaps")
    ask(address, "said=right")
    assert session.judged == []


class Labels(Session):
    """Labels that are kept in memory, with right answers."""

    def __init__(self) -> None:
        super().__init__()
        self.corrected: list[tuple[str, str]] = []

    def correct(self, asked: AuditItem, text: str) -> None:
        self.corrected.append((asked.item_id, text))

    def undo(self, asked: AuditItem) -> None:
        self.judged.pop()


def test_labels_are_given_and_taken_back_by_keys_alone() -> None:
    session = Labels()
    page = AuditPage(session, session.correct)  # type: ignore[arg-type]
    thread = threading.Thread(target=page.serve, args=(lambda _: None,), daemon=True)
    thread.start()
    with chromium() as browser:
        tab = browser.new_page()
        seen = watched(tab)
        tab.goto(page.address)
        place = tab.locator("p").first
        tab.keyboard.press("w")
        expect(place).to_contain_text("2 of 3")
        tab.keyboard.press("u")
        expect(place).to_contain_text("1 of 3")
        tab.keyboard.press("R")
        expect(place).to_contain_text("2 of 3")
        tab.keyboard.press("a")  # goes into the field first
        tab.keyboard.type("right or wrong")
        expect(place).to_contain_text("2 of 3")
        tab.keyboard.press("Control+Enter")
        expect(place).to_contain_text("3 of 3")
        tab.keyboard.press("c")
        expect(place).to_contain_text("closed")
        complaints = [line for line in seen.complaints if "favicon" not in line and "404" not in line]
    thread.join(20)
    assert not thread.is_alive()
    assert complaints == []
    assert session.judged == [("0", True), ("2", None)]
    assert session.corrected == [("1", "right or wrong")]


def test_a_right_answer_is_bounded_and_an_empty_one_changes_nothing() -> None:
    session = Labels()
    page = AuditPage(session, session.correct)  # type: ignore[arg-type]
    thread = threading.Thread(target=page.serve, args=(lambda _: None,), daemon=True)
    thread.start()
    assert ask(page.address, "place=0&said=answer&correction=" + "x" * 200_000)[0] == 413
    assert "1 of 3" in ask(page.address, "place=0&said=answer&correction=+")[1]
    assert "1 of 3" in ask(page.address, "place=0&said=undo")[1]
    assert "2 of 3" in ask(page.address, "place=0&said=answer&correction=two%0D%0Alines")[1]
    ask(page.address, "place=1&said=stop")
    thread.join(20)
    assert not thread.is_alive()
    assert session.corrected == [("0", "two\nlines")]


def test_the_page_says_how_many_are_needed_and_how_far_people_agree() -> None:
    session = Session()
    page = AuditPage(
        session,  # type: ignore[arg-type]
        outlook=lambda asked: f"about {9 - int(asked.item_id)} more",
        notes=["anna & ben agree in 9 of 12 answers"],
    )
    thread = threading.Thread(target=page.serve, args=(lambda _: None,), daemon=True)
    thread.start()
    assert "1 of 3 (about 9 more)" in ask(page.address)[1]
    _, html = ask(page.address, "place=0&said=right")
    assert "2 of 3 (about 8 more)" in html
    assert "<p>anna &amp; ben agree in 9 of 12 answers</p>" in html
    ask(page.address, "place=1&said=stop")
    thread.join(20)
    assert not thread.is_alive()
