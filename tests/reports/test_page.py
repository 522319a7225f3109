"""The page: what it shows, what it never shows, and that nothing in the data can break out of its place."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from arm_files import write_arm_file
from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.errors import InputError, MissingError
from trimtab.base.results import Classes, ClassRow
from trimtab.reports.folder import read_study
from trimtab.reports.formatting import elide_middle, format_money, shorten
from trimtab.reports.page import write_report
from trimtab.reports.study_view import build_view

Make = Callable[..., Path]
VOID = {"meta", "link", "br", "input"}


class Reader(HTMLParser):
    """Collects tags, attributes and text; notes every tag that is closed out of order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(folder: Path) -> Reader:
    return Reader(write_report(folder).read_text(encoding="utf-8"))


def answers_of(folder: Path) -> Any:
    """The data that the script of a page reads."""
    written = (folder / "report.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="every-data">(.*?)</script>', written, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def edit(folder: Path, change: Callable[[dict[str, Any]], object], file: str = "study.json") -> Path:
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))
    return folder


def test_every_section_is_there_and_linked(make_study: Make, tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    page = read(folder)
    ids = [attributes.get("id") for tag, attributes in page.tags if tag == "section"]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    due = [section.heading.id for section in build_view(read_study(folder)).sections]
    assert len(due) == 15  # all but the classes: these answers are none
    assert ids == due
    assert links == [f"#{name}" for name in due]
    assert not page.wrong
    assert not page.open


def test_verdict_and_its_basis_come_first(make_study: Make, tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    study = json.loads((folder / "study.json").read_text())
    text = read(folder).text
    head = text[text.index("Shown") : text.index("Trade-offs Quality")]
    best = next(arm for arm in study["arms"] if arm["arm"] == "lora+rag")
    assert study["verdict"]["sentence"] in head
    assert "300 test questions" in head
    assert "test set opened once" in head
    assert "seed 17" in head
    assert f"{best['score']:.3f}" in head
    assert "Ahead of rag, the best other arm" in head
    assert "812 USD" in head


HOSTILE = "</td></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp;{{7*7}}\x00\u202e|"


def test_text_from_data_stays_text(make_study: Make, tmp_path: Path) -> None:
    plain, hostile = read(make_study(tmp_path / "a")), read(make_study(tmp_path / "b", hostile=HOSTILE))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert not {"img", "iframe", "object"} & {tag for tag, _ in hostile.tags}
    assert [tag for tag, _ in hostile.tags].count("script") == 2, "our own, and its data"
    assert "<script>alert(1)</script>" in hostile.text
    written = [(tmp_path / "b" / name).read_text() for name in ("report.html", "report.md")]
    assert all("\x00" not in text and "\ufffd" in text for text in written), "no page may hold such a character"
    assert not hostile.wrong


def test_hostile_names_stay_text(make_study: Make, tmp_path: Path) -> None:
    def rename(study: dict[str, Any]) -> None:
        study["task"] = HOSTILE
        study["arms"][0]["why"] = HOSTILE
        study["arms"][0]["status"] = "failed"
        study["arms"][1]["slices"] = {HOSTILE: {"score": 0.5, "low": 0.4, "high": 0.6, "n": 9}}
        study["arms"][1]["extras"] = {HOSTILE: 0.5}
        study["arms"][1]["chosen"] = {HOSTILE: HOSTILE}
        study["verdict"]["flips"] = [{"what": HOSTILE, "above": 2, "then": HOSTILE}]

    page = read(edit(make_study(tmp_path), rename))
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert not page.wrong


def test_page_loads_nothing_and_runs_its_own_script_alone(make_study: Make, tmp_path: Path) -> None:
    page = read(make_study(tmp_path))
    for tag, attributes in page.tags:
        assert tag not in {"iframe", "img", "object", "embed", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name != "style"
            if name in {"src", "href", "srcset", "action", "data", "poster"}:
                assert value is not None
                assert value.startswith(("#", "data:"))
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    written = (tmp_path / "report.html").read_text()
    style = written.split("<style>")[1].split("</style>")[0]
    script = written.split("<script>")[1].split("</script>")[0]
    directives = dict(one.strip().split(" ", 1) for one in policy.split(";"))
    for name, text in (("style-src", style), ("script-src", script)):
        assert directives[name] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    assert (directives["default-src"], directives["trusted-types"]) == ("'none'", "'none'")
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [
        {"type": "application/json", "id": "every-data"},
        {},
    ]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function|fetch|import", script)
    assert not re.search(r"url\(|@import", style)


def test_no_direction_mark_of_a_stranger_turns_the_page_around(make_study: Make, tmp_path: Path) -> None:
    """Each is shown as an escape; letters that are written from right to left stay."""
    marks = "".join(map(chr, (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))))
    folder = make_study(tmp_path, hostile=f"{marks}שלום|")
    page = read(folder)
    texts = [page.text, (folder / "report.md").read_text(), json.dumps(answers_of(folder), ensure_ascii=False)]
    for text in texts:
        assert not set(marks) & set(text)
        assert r"\u202e" in text
        assert "שלום" in text


def test_a_cut_text_says_how_much_is_missing() -> None:
    assert shorten("x" * 701, 600) == "x" * 600 + " … (101 more characters)"
    assert shorten("x" * 600) == "x" * 600


@given(st.text(max_size=80), st.integers(3, 30))
def test_a_long_name_keeps_its_ends(name: str, length: int) -> None:
    short = elide_middle(name, length)
    assert len(short) <= length
    before, dots, after = short.partition("…")
    assert short == name or (name.startswith(before) and dots and name.endswith(after))


def test_small_amounts_of_money_are_not_nothing() -> None:
    assert format_money(0.0004, "USD") == "under 0.01 USD"
    assert format_money(0.0, "USD") == "0.00 USD"
    assert format_money(12.346, "USD") == "12.35 USD"


def test_many_long_names_fit(make_study: Make, tmp_path: Path) -> None:
    """Of many arms the scatter names those that no other one beats both ways; long names are cut in the middle."""

    def add(study: dict[str, Any]) -> None:
        for number in range(12):
            one = {**study["arms"][0], "arm": f"{'a-variant-of-our-own-' * 3}{number:02}", "score": 0.1 + 0.01 * number}
            study["arms"].append({**one, "latency_p95_ms": 2000 - number, "low": one["score"], "high": one["score"]})

    page = write_report(edit(make_study(tmp_path), add)).read_text()
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", page)
    assert max(map(len, texts)) <= 48
    assert len([text for text in texts if text.startswith("a-variant")]) == 2 * 12, "in the charts of scores alone"
    assert page.count("a-variant-of-our-own-" * 3 + "07: the model") == 1, "the whole name stands where it is explained"


def test_size_with_long_texts(make_study: Make, tmp_path: Path) -> None:
    folder = make_study(tmp_path, items=300, hostile="ä<&\u4e2d" * 3000)
    assert write_report(folder).stat().st_size < 3_000_000


def test_arms_without_score_say_why_and_show_no_score(make_study: Make, tmp_path: Path) -> None:
    def fail(study: dict[str, Any]) -> None:
        scored = {"score": 0.98765, "low": 0.98, "high": 0.99, "n": 300}
        study["arms"][3] = {"arm": "lora", "status": "failed", "why": "loss is no longer a number", **scored}
        study["arms"][1] = {"arm": "few-shot", "status": "not_run", "why": "lacks 14 minutes"}

    folder = edit(make_study(tmp_path), fail)
    shutil.rmtree(folder / "arms" / "few-shot")
    page = read(folder)
    assert "lora failed : loss is no longer a number" in page.text
    assert "few-shot did not run : lacks 14 minutes" in page.text
    assert "0.988" not in page.text
    assert "Do they help each other" not in page.text


@pytest.mark.parametrize("missing", ["events.jsonl", "manifest.json", "task.toml", "arms"])
def test_survives_what_is_missing(make_study: Make, tmp_path: Path, missing: str) -> None:
    folder = make_study(tmp_path)
    place = folder / missing
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    gone = {"events.jsonl": "training", "manifest.json": "manifest", "arms": "failures"}.get(missing)
    page = read(folder)
    assert gone not in [attributes.get("id") for tag, attributes in page.tags if tag == "section"]
    assert "None" not in page.text
    assert "nan" not in page.text.lower().split()


def test_one_arm_with_only_required_fields(make_study: Make, tmp_path: Path) -> None:
    def strip(study: dict[str, Any]) -> None:
        study["arms"] = [{"arm": "prompt", "status": "done", "score": 0.4, "low": 0.3, "high": 0.5, "n": 8}]
        study["verdict"] = {"status": "not_shown", "arm": None, "sentence": "Nothing is shown.", "needs": "80 more"}
        study["comparisons"], study["target"] = [], None

    folder = edit(make_study(tmp_path, arms=("prompt",), items=8), strip)
    for name in ("manifest.json", "events.jsonl", "task.toml"):
        (folder / name).unlink()
    page = read(folder)
    assert "What would settle it: 80 more." in page.text
    assert "None" not in page.text
    assert not {"USD", "measured of", "p95"} & set(page.text.split())


def test_no_arm_at_all(make_study: Make, tmp_path: Path) -> None:
    def fail(study: dict[str, Any]) -> None:
        study["arms"] = [{"arm": arm["arm"], "status": "not_run", "why": "no time"} for arm in study["arms"]]
        study["verdict"] = {"status": "not_shown", "arm": None, "sentence": "No arm ran.", "flips": [], "needs": None}
        study["comparisons"] = []

    assert "No arm has a score" in read(edit(make_study(tmp_path), fail)).text


def test_predictions_carry_their_error_and_cuts_are_told(make_study: Make, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["figures"] = {"lora.seconds": {"value": 240, "provenance": "predicted", "error": 0.12}}
        content["figures"]["lora+rag.seconds"] = {"value": 240, "whole": 360, "provenance": "predicted"}
        content["cuts"] = ["2 of 3 seeds"]

    text = read(edit(make_study(tmp_path), change, "manifest.json")).text
    assert "lora.seconds 240 predicted came out 12% too high" in text
    assert "To fit the budget: 2 of 3 seeds" in text
    assert "lora 4.0 min – +12%" in text
    assert "lora+rag 4.0 min (6.0 min, had dev not ended it) –" in text


def test_interval_and_openings_are_told(make_study: Make, tmp_path: Path) -> None:
    folder = edit(make_study(tmp_path), lambda content: content.update(test_openings=3), "manifest.json")
    text = read(folder).text
    assert "test set opened 3 times" in text
    assert "unadjusted 95% intervals" in text
    assert "Holm" in text


def test_markdown_carries_the_verdict_and_every_arm(make_study: Make, tmp_path: Path) -> None:
    folder = make_study(tmp_path, hostile=" <script>|x")
    write_report(folder)
    markdown = (folder / "report.md").read_text()
    study = json.loads((folder / "study.json").read_text())
    assert markdown.startswith("# Use lora+rag: it reaches 0.80 token F1")
    assert "<script>" not in markdown.replace("\\<script\\>", "")
    for arm in study["arms"]:
        assert re.search(rf"\| \**{re.escape(arm['arm'])}\** \| {arm['score']:.3f} \|", markdown)
    assert "With questions a month below 12,000 (now 100,000) the verdict would be rag." in markdown
    assert "Costs are worked out with 100,000 questions a month for 12 months; 0.4 USD a machine hour" in markdown


def test_markdown_says_what_the_page_says(make_study: Make, tmp_path: Path) -> None:
    """Headings and tables of the page, but for the charts, the answers and the raw manifest, stand in the Markdown
    too."""
    folder = make_study(tmp_path)
    for arm in (folder / "arms").iterdir():
        row = ClassRow(label="a|b", precision=0.5, recall=0.25, f1=0.333, support=8)
        write_arm_file(arm, arm.name, classes=Classes(rows=(row,), selective={}))
    text = read(folder).text
    markdown = (folder / "report.md").read_text()
    assert re.search(r"gains [+−]0\.\d{3} \(", text)
    for found in (re.findall(r"tuning and retrieved passages [^.]*\.", text)[0].split("(")[0], "passage not found"):
        assert found in text
        assert found in markdown
    for line in (
        r"| a\|b | 8 | 0.500 | 0.250 | 0.333 |",
        "| security | ",
        "- Rows: 720 in train, 180 in dev, 300 in test",
    ):
        assert line in markdown


def test_same_folder_gives_the_same_page(make_study: Make, tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


def test_refuses_what_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="trimtab study"):
        write_report(tmp_path)
    for content in ("[]", "{", '{"study": "x"}'):
        (tmp_path / "study.json").write_text(content)
        with pytest.raises(InputError, match=r"study\.json"):
            write_report(tmp_path)


def test_no_name_of_a_class_stands_on_the_page(make_study: Callable[..., Path], tmp_path: Path) -> None:
    html = write_report(make_study(tmp_path)).read_text(encoding="utf-8")
    page = re.sub(r"<(style|script)\b.*?</\1>", " ", html, flags=re.S)
    assert ">Comparisons<" in page
    assert not re.findall(r"\b(?:[A-Z][a-z]+){2,}\b", re.sub(r"<[^>]*>", " ", page))
