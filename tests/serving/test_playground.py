"""The page in a real browser, in front of a real server with a tiny model: from the door to an arm that learned from
what was said."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from safetensors.torch import load_file, save_file
from serving_tasks import serving_here
from study_tasks import CITIES, rows_of, write_task
from typer.testing import CliRunner

from trimtab import train
from trimtab.base.task import load_task
from trimtab.cli.main import app
from trimtab.inference.engine import Engine
from trimtab.serving.feedback import open_feedback_store
from trimtab.serving.feedback_schema import Judgement

pytest.importorskip("playwright", reason="playwright is not installed")
from browsing import Served, chromium, served, watched
from playwright.sync_api import Browser, Page, Route, expect

NOTES = "".join(f"# {city}\n\nThe harbour of {city} is old.\n\n" for city in CITIES)
DPO = """
[arm.judged]
weights = "lora"
stages = ["dpo"]
rank = 2
epochs = 1
"""
FIRST = "What is the name of that city?"


@pytest.fixture(scope="module")
def writing_model(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """The tiny model, which then says letters alone and never ends by itself: a random one says NUL, which no
    judgement may hold."""
    folder = tmp_path_factory.mktemp("writing") / "model"
    shutil.copytree(tiny_model_folder, folder)
    weights = load_file(folder / "model.safetensors")
    for token, number in json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"].items():
        if not re.fullmatch("[A-Za-z]+", token):
            weights["model.embed_tokens.weight"][number] *= 0.01
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}))
    return folder


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory, writing_model: Path, tiny_embedding_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("playground")
    (folder / "notes.md").write_text(NOTES)
    kind = 'kind = "answer"\nmetric = "exact_match"\nunknown = "unknown"\noutput_tokens = 100'
    base = f'embedding = "{tiny_embedding_folder}"'
    return write_task(
        folder,
        writing_model,
        ["prompt", "rag"],
        rows=rows_of(60),
        task=kind,
        data='documents = ["notes.md"]',
        base=base,
    )


@pytest.fixture(scope="module")
def server(task: Path) -> Iterator[Served]:
    with served(task, "prompt", "rag") as one:
        yield one


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def labelling(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    rows = [{**row, "answer": row["topic"]} for row in rows_of(60)]
    data = 'columns = { input = "question", label = "answer" }'
    folder = tmp_path_factory.mktemp("labels")
    return write_task(folder, tiny_model_folder, ["prompt"], rows=rows, task='kind = "classify"', data=data)


@pytest.fixture
def page(browser: Browser, server: Served) -> Iterator[Page]:
    with browser.new_context() as context:
        page = context.new_page()
        seen = watched(page)
        page.goto(server.page)
        expect(page.get_by_role("row")).to_have_count(3)
        yield page
        assert seen.complaints == []
        assert {url for url in seen.requests if not url.startswith((server.url, "blob:"))} == set()


def put(page: Page, question: str) -> Any:
    """Ask with the keyboard alone; the turn."""
    page.get_by_label("Question").fill(question)
    page.keyboard.press("Enter")
    return page.get_by_role("region", name=question)


def asked(page: Page, question: str) -> Any:
    """Ask, and wait until all have answered; the turn."""
    turn = put(page, question)
    expect(page.get_by_role("button", name="Ask")).to_be_visible()
    return turn


def kept(task: Path) -> tuple[Judgement, ...]:
    with open_feedback_store(load_task(task)) as store:
        return store.all()


def said(turn: Any, place: int) -> str:
    return str(turn.locator(".said").nth(place).text_content())


def test_the_door_lets_in_who_has_the_key(browser: Browser, server: Served) -> None:
    key = server.page.partition("token=")[2]
    with browser.new_context() as context:
        page = context.new_page()
        assert page.goto(server.url).status == 401  # type: ignore[union-attr]
        expect(page.get_by_label("Key")).to_be_focused()
        page.get_by_label("Key").fill("tt-other")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("This key is not known here.")
        page.get_by_label("Key").fill(key)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Ask, compare, judge")).to_be_visible()
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(server.page)
        expect(page.get_by_role("row")).to_have_count(3)
        assert page.url == server.url
        assert key not in page.evaluate("document.cookie + document.documentElement.outerHTML")


def test_a_question_streams_from_all_arms_and_can_be_stopped(page: Page) -> None:
    long = {"max_tokens": 3000}  # so that it is stopped long before its end
    page.route(
        "**/v1/chat/completions", lambda route: route.continue_(post_data={**route.request.post_data_json, **long})
    )
    turn = put(page, FIRST)
    expect(turn.get_by_role("article")).to_have_count(2)
    expect(turn.locator(".said").first).not_to_be_empty()
    assert turn.locator(".said[aria-busy=true]").count() > 0  # text is there before the answer has ended
    page.keyboard.press("Escape")
    expect(turn.get_by_text("Stopped; no part of the conversation.")).not_to_have_count(0)
    expect(page.get_by_role("button", name="Ask")).to_be_visible()
    assert turn.get_by_role("button").count() == 0  # nothing to judge
    page.unroute_all()
    whole = asked(page, FIRST + " Again.")  # the slots are free, and the next question is answered
    expect(whole.get_by_role("button", name="Good answer")).to_have_count(2)
    assert re.search(r"\d tokens/s", whole.inner_text())
    assert re.search(r"[123] passages? read, none used", whole.get_by_role("article", name="rag").inner_text())


def test_a_like_is_no_duel_and_blind_hides_what_tells_an_arm(page: Page, task: Path) -> None:
    before = len(kept(task))
    page.get_by_label("Blind").check()
    turn = put(page, FIRST)
    expect(turn.get_by_role("article", name="Answer A")).to_be_visible()
    expect(page.get_by_role("button", name="Ask")).to_be_visible()
    shown = turn.inner_text()
    for telling in ("prompt", "rag", "tokens/s", "passages", "In all"):
        assert telling not in shown
    turn.get_by_role("button", name="Good answer").first.click()
    expect(turn.get_by_text("Kept: Answer A is good.")).to_be_visible()
    assert "tokens/s" not in turn.inner_text()  # the comparison is still to come
    turn.get_by_role("button", name="B is better").click()
    expect(turn.get_by_text(re.compile("Kept: (prompt|rag) is better"))).to_be_visible()
    first, second = [heading.inner_text().split()[0] for heading in turn.get_by_role("heading", level=3).all()]
    like, prefer = kept(task)[before:]
    assert (like.kind, [one.arm for one in like.answers], like.blind) == ("like", [first], True)
    assert (prefer.kind, [one.arm for one in prefer.answers]) == ("prefer", [first, second])
    assert (prefer.chosen, prefer.blind, prefer.session) == (1, True, like.session)
    assert [one.text for one in prefer.answers] == [said(turn, 0), said(turn, 1)]


def test_the_conversation_goes_on_with_each_arms_own_answers(page: Page, task: Path) -> None:
    first = asked(page, FIRST)
    answers = [said(first, place) for place in (0, 1)]
    assert answers[0] != answers[1]
    second = asked(page, "And the other?")
    assert second.get_by_role("button", name=re.compile("is better")).count() == 0  # what was said before differs
    second.get_by_role("button", name="Bad answer").nth(1).click()
    expect(second.get_by_text("Kept: rag is bad.")).to_be_visible()
    one = kept(task)[-1]
    assert [turn.content for turn in one.messages] == [FIRST, answers[1], "And the other?"]
    page.get_by_role("button", name="New conversation").click()
    third = asked(page, "And the third?")
    expect(third.get_by_role("button", name="prompt is better")).to_be_visible()


def test_what_was_said_becomes_rows_and_an_arm(page: Page, task: Path) -> None:
    before = len(kept(task))
    for number in range(4):
        page.get_by_role("button", name="New conversation").click(force=True) if number else None
        turn = asked(page, f"Which city is number {number}?")
        turn.get_by_role("button", name="rag is better").click()
        expect(turn.get_by_text("Kept: rag is better.")).to_be_visible()
    opener = turn.get_by_role("button", name="Fix").first
    opener.click()
    field = turn.get_by_label("What it should say")
    expect(field).to_be_focused()
    assert field.input_value() == said(turn, 0)
    field.fill("Husum")
    page.keyboard.press("Control+Enter")
    expect(turn.get_by_text("Kept: the correction of prompt.")).to_be_visible()
    expect(opener).to_be_focused()
    *_, prefer, correct = kept(task)
    assert len(kept(task)) == before + 5
    assert (correct.kind, correct.correction, correct.answers[0].arm) == ("correct", "Husum", "prompt")
    assert [bool(one.passages) for one in prefer.answers] == [False, True]
    done = CliRunner().invoke(app, ["feedback", "export", "--task", str(task), "--json"])
    assert done.exit_code == 0, done.output
    exported = json.loads(done.stdout)
    assert exported["files"]["examples.jsonl"] == 1
    assert exported["files"]["preferences.jsonl"] >= 5
    rows = [json.loads(line) for line in (task.parent / "feedback" / "preferences.jsonl").read_text().splitlines()]
    assert any(row["chosen"] == "Husum" for row in rows)
    text = task.read_text() + DPO
    for line in exported["lines"]:
        text = re.sub(rf"^{line.partition(' = ')[0]} = .*\n", "", text, flags=re.M).replace(
            "[data]\n", f"[data]\n{line}\n"
        )
    learning = task.with_name("learning.toml")
    learning.write_text(text)
    assert train(learning, "judged", listeners=[]).steps > 0


def test_a_classifier_shows_what_it_weighed_and_takes_a_label(browser: Browser, labelling: Path) -> None:
    with served(labelling, "prompt") as server, browser.new_context() as context:
        page = context.new_page()
        seen = watched(page)
        page.goto(server.page)
        expect(page.get_by_role("heading", name="Ask, judge")).to_be_visible()  # one arm alone: nothing to compare
        expect(page.get_by_label("Blind")).to_be_hidden()
        expect(page.get_by_text("Every ticked arm")).to_be_hidden()
        for text in ("harbour of Emden?", "harbour of Fulda?"):
            page.get_by_label("Text to label").fill(text)
            page.keyboard.press("Enter")
            turn = page.get_by_role("region", name=text)
            expect(turn.get_by_role("listitem")).to_have_count(2)
        shares = [float(one[:-1]) for one in turn.locator(".share").all_inner_texts()]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(100, abs=0.2)
        answer = said(turn, 0)
        assert turn.locator(".label").first.inner_text() == answer
        other = ({"rare", "usual"} - {answer}).pop()
        turn.get_by_role("button", name="Fix").click()
        turn.get_by_role("combobox", name="What it should say").select_option(other)
        turn.get_by_role("button", name="Keep").click()
        expect(turn.get_by_text("Kept: the correction of prompt.")).to_be_visible()
        (one,) = kept(labelling)
        assert (one.correction, [turn.content for turn in one.messages]) == (other, [text])
        assert seen.complaints == []


def test_an_answer_that_fails_once_it_has_begun_says_why(
    browser: Browser, task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, passes = Engine._decode, 0

    def decode(self: Engine) -> Any:
        nonlocal passes
        passes += 1
        if passes == 3:
            raise RuntimeError("odd")
        return sound(self)

    with serving_here(task, "prompt") as here, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{here.url}/?token={here.key}")
        monkeypatch.setattr(Engine, "_decode", decode)
        turn = put(page, FIRST)
        expect(turn.get_by_text("No answer: the question could not be answered (RuntimeError)")).to_be_visible()


def test_what_is_asked_before_the_arms_are_known_is_asked_once_they_are(browser: Browser, server: Served) -> None:
    held: list[Route] = []
    with browser.new_context() as context:
        page = context.new_page()
        page.route("**/v1/models", lambda route: held.append(route))
        page.goto(server.page)
        turn = put(page, FIRST)
        page.keyboard.press("Enter")
        expect(page.get_by_label("Question")).to_have_value(FIRST)
        held[0].continue_()
        expect(turn.get_by_role("article")).to_have_count(2)
        expect(page.locator(".turn")).to_have_count(1)


def test_texts_of_models_and_questions_are_never_markup(page: Page) -> None:
    turn = asked(page, "<img src=x onerror=alert(1)><b>bold</b>?")
    assert turn.locator("img, b").count() == 0
    assert turn.get_by_role("heading", level=2).inner_text().startswith("<img")


def test_a_judgement_is_of_an_answer_that_was_given_and_fits_its_kind(server: Served, task: Path) -> None:
    before = len(kept(task))
    key = server.page.partition("token=")[2]
    asking = {"model": "tiny:rag", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
    reply = json.loads(posted(server, "v1/chat/completions", asking, key)[1])
    (receipt,), (choice,) = reply["trimtab"]["receipts"], reply["choices"]
    answer = {"receipt": receipt, "text": choice["message"]["content"], "passages": ["p"]}
    good = {"kind": "like", "messages": asking["messages"], "answers": [answer]}
    wrong: list[tuple[int, dict[str, Any]]] = [
        (404, {"answers": [{**answer, "text": "another"}]}),
        (400, {"answers": [{**answer, "arm": "x", "passages": [1]}]}),
        (400, {"kind": "prefer"}),
        (400, {"chosen": True}),
        (400, {"messages": [{"role": "system", "content": "a"}]}),
        (400, {"arm": "prompt"}),
    ]
    for status, change in wrong:
        assert post(server, {**good, **change}, key) == status, change
    assert post(server, good, "") == 401
    assert len(kept(task)) == before
    assert post(server, good, key) == 200
    (one,) = kept(task)[before:]
    assert (one.answers[0].arm, one.answers[0].version, one.answers[0].passages) == ("rag", "unmeasured", ("p",))


def post(server: Served, body: dict[str, Any], key: str) -> int:
    return posted(server, "feedback", body, key)[0]


def posted(server: Served, path: str, body: dict[str, Any], key: str) -> tuple[int, bytes]:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    try:
        with urlopen(Request(f"{server.url}{path}", json.dumps(body).encode(), headers)) as response:
            return int(response.status), response.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.parametrize("width", [320, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_width_and_its_text_stands_out(page: Page, width: int, scheme: Any) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    turn = asked(page, FIRST)
    turn.get_by_role("button", name="Good answer").first.click()
    expect(turn.get_by_text("Kept: prompt is good.")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []


CONTRAST = """() => {  // texts that stand out less than 4.5 to 1 (WCAG 2, 1.4.3), but for controls that are off
  const light = (color) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = color.match(/[\\d.]+/g).map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(color)) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const faint = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !node.checkVisibility() || node.closest(":disabled, .unseen")) continue;
    const [one, other] = [light(getComputedStyle(node).color), light(behind(node))].sort((a, b) => b - a);
    if ((one + 0.05) / (other + 0.05) < 4.5) faint.push(texts.currentNode.data);
  }
  return faint;
}"""
