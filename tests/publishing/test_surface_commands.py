"""`trimtab surface coverage`, `plan` and `try` as commands, with a tiny random embedding: files, pages and exit
codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trimtab.cli.main import run

QUESTIONS = "How long is the warranty on a lamp?\nWithin how many days can a lamp be returned?\n"
PAGES = {
    "returns.md": "# Returns\n\nA lamp can be returned within 30 days of delivery.\n",
    "warranty.md": "# Warranty\n\nThe warranty on every lamp is 24 months.\n",
}


@pytest.fixture
def site(tmp_path: Path, tiny_embedding_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    for name, text in PAGES.items():
        (tmp_path / "docs" / name).write_text(text, encoding="utf-8")
    (tmp_path / "q.txt").write_text(QUESTIONS, encoding="utf-8")
    (tmp_path / "q.jsonl").write_text('{"question": "How long?", "answer": "long"}\n', encoding="utf-8")
    (tmp_path / "trimtab.toml").write_text(
        '[task]\nname = "lamps"\nkind = "answer"\ninstruction = "Answer."\n'
        '[data]\nexamples = ["q.jsonl"]\ndocuments = ["docs/"]\n'
        f'[base]\nembedding = "{tiny_embedding_folder}"\n',
        encoding="utf-8",
    )
    return tmp_path


def called(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        run(["surface", *arguments])
    return int(end.value.code or 0)


def test_coverage_writes_its_page_and_is_compared_with_itself(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("coverage", "docs", "--questions", "q.txt", "--task", "trimtab.toml", "--json")
    assert called(*asked, "--page", "c.html") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["question"] for one in found["questions"]] == QUESTIONS.splitlines()
    assert found["limits"]
    assert "What this cannot say" in (site / "c.html").read_text(encoding="utf-8")
    (site / "before.json").write_text(json.dumps(found), encoding="utf-8")
    assert called(*asked, "--against", "before.json") == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["since"], again["changes"]) == (found["date"], [])


def test_a_plan_is_written_in_three_forms(site: Path) -> None:
    forms = {"--csv": "p.csv", "--markdown": "p.md", "--page": "p.html"}
    options = [word for pair in forms.items() for word in pair]
    assert called("plan", "docs", "--questions", "q.txt", "--task", "trimtab.toml", *options) == 0
    assert all((site / name).read_text(encoding="utf-8") for name in forms.values())


def test_an_edit_that_shows_nothing_exits_1_and_says_so(site: Path) -> None:
    (site / "edit").mkdir()
    (site / "edit" / "warranty.md").write_text(PAGES["warranty.md"] + "\nThank you.\n", encoding="utf-8")
    asked = ("try", "edit/warranty.md", "docs", "--questions", "q.txt", "--task", "trimtab.toml", "--seeds", "1")
    assert called(*asked, "--markdown", "t.md") == 1  # two questions show nothing
    assert "not shown" in (site / "t.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("coverage", "docs"), "no question is given"),
        (("coverage", "nowhere", "--questions", "q.txt"), "nowhere"),
        (("try", "docs/warranty.md", "docs", "--questions", "q.txt"), "what the present pages say"),
        (("coverage", "docs", "--questions", "q.txt", "--engine", "api.none"), "answers in text"),
    ],
)
def test_wrong_input_is_one_line(
    site: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], line: str
) -> None:
    assert called(*arguments, "--task", "trimtab.toml") == 2
    shown = capsys.readouterr().err
    assert line in shown
    assert sum(one.startswith("trimtab: ") for one in shown.splitlines()) == 1
