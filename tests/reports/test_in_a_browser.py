"""The page's script in a real browser: it finds what is asked for, and shows hostile text as text."""

from __future__ import annotations

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
    address = f"{page.as_uri()}#every?{urlencode(look)}"
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
