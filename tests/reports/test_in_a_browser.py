"""The page's script in a real browser: it finds what is asked for, and shows hostile text as text."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path
from urllib.parse import urlencode

import pytest

from trimtab.measurement.evaluate import load_answers
from trimtab.reports.page import write_report

Make = Callable[..., Path]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = " </script><img src=x onerror=\"document.title='owned'\"> <b>"

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


def opened(page: Path, profile: Path, **look: str) -> str:
    """The page's elements after its script has run, with a look in its address."""
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    quiet = ["--disable-gpu", "--disable-background-networking", "--no-first-run", f"--user-data-dir={profile}"]
    address = page.as_uri() + (f"#every?{urlencode(look)}" if look else "")
    command = [str(BROWSER), "--headless", *root, *quiet, "--dump-dom", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if "</html>" not in done.stdout:
        pytest.skip(f"the browser does not run here: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout


def test_a_look_finds_what_the_answers_hold_and_text_stays_text(make_study: Make, tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", hostile=HOSTILE)
    page = opened(
        write_report(folder), tmp_path / "profile", arm="rag", kind="misread", slice="benefits", words="BADGE lost"
    )
    due = [
        one
        for one in load_answers(folder / "arms" / "rag" / "answers.parquet")
        if one.failure == "misread" and one.slice == "benefits" and "badge" in one.input
    ]
    found = page.split('id="every-found"')[1].split('id="every-more"')[0]
    said = [unescape(text) for text in re.findall(r'class="said" dir="auto">(.*?)</div>', found)]
    assert due
    assert sorted(said) == sorted(one.answer for one in due)
    assert f">{len(due)} answers to {len(due)} questions</p>" in page
    assert re.search(r'id="every-without"[^>]*hidden', page)
    assert not re.search(r'id="every-look"[^>]*hidden', page)
    assert "<img" not in page
    assert "<title>owned" not in page


DRIVER = """
const at = (name) => document.getElementById(`every-${name}`);
const told = [];
const tell = () => told.push([at("count").textContent, at("found").children.length, at("more").hidden, location.hash]);
tell();
at("arm").value = "lora";
at("arm").dispatchEvent(new Event("input", { bubbles: true }));
tell();
at("more").click();
tell();
at("words").value = "CANTEEN card";
at("words").dispatchEvent(new Event("input", { bubbles: true }));
tell();
document.body.dataset.told = JSON.stringify(told);
"""


def test_a_look_follows_what_is_chosen_and_stands_in_the_address(make_study: Make, tmp_path: Path) -> None:
    """Driven by a second script, which the page's policy does not run before its hash is put there."""
    page = write_report(make_study(tmp_path / "study", items=50))
    driven, digest = tmp_path / "driven.html", base64.b64encode(hashlib.sha256(DRIVER.encode()).digest()).decode()
    barred = page.read_text().replace("</body>", f"<script>{DRIVER}</script></body>")
    driven.write_text(barred)
    assert "data-told" not in opened(driven, tmp_path / "profile")
    driven.write_text(barred.replace("script-src ", f"script-src 'sha256-{digest}' "))
    told = re.search(r'data-told="([^"]*)"', opened(driven, tmp_path / "profile"))
    assert told is not None
    cards = sum("canteen card" in one.input for one in load_answers(tmp_path / "study/arms/lora/answers.parquet"))
    assert cards > 1
    assert json.loads(unescape(told[1])) == [
        ["250 answers to 50 questions", 20, False, ""],
        ["50 answers to 50 questions", 20, False, "#every?arm=lora"],
        ["50 answers to 50 questions", 40, False, "#every?arm=lora"],
        [f"{cards} answers to {cards} questions", cards, True, "#every?arm=lora&words=CANTEEN+card"],
    ]
