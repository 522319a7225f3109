"""Escape sequences in what others wrote are shown, never obeyed: answers, titles, file names, error bodies, notes,
remarks."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from trimtab.base.display import Display
from trimtab.base.errors import InputError
from trimtab.base.progress import Progress
from trimtab.base.records import Hit, Passage, Refusal
from trimtab.base.results import ArmResult, StudyResult, Verdict
from trimtab.base.sanitize import one_line, visible
from trimtab.cli.check_page import draw_data_audit, draw_rest
from trimtab.cli.main import run
from trimtab.cli.output import Output
from trimtab.studies.ask import AskResult
from trimtab.studies.check import CheckResult

CLEAR, TITLE, CSI = "\x1b[2J", "\x1b]0;owned\x07", "\x9b31m"
EVIL = f"a{CLEAR}b{TITLE}c{CSI}d"


def require_tame(shown: str) -> None:
    assert CLEAR not in shown
    assert "\x1b]" not in shown
    assert "\x9b" not in shown
    assert "a␛[2Jb" in shown


def answer() -> AskResult:
    passage = Passage(id="p", document="d", title=EVIL, path=(EVIL, f"h{EVIL}"), text="t", source=f"{EVIL}.md")
    return AskResult(answer=EVIL, arm="rag", seconds=0.1, hits=(Hit(passage=passage, rank=1, score=1.0),), cited=(1,))


def study() -> StudyResult:
    arms = (ArmResult(arm="api-x", status="failed", why=EVIL),)
    verdict = Verdict(status="not_shown", arm=None, sentence=f"Not shown {EVIL}")
    named: dict[str, Any] = {"study": "S", "task": "t", "metric": "m", "target": None, "comparisons": ()}
    return StudyResult(**named, verdict=verdict, arms=arms, report=f"{EVIL}/r.html")


def checked() -> CheckResult:
    refused = (Refusal(file=EVIL, line=3, reason=EVIL, remedy="r"),)
    none: dict[str, Any] = dict.fromkeys(("example_arm", "tokens", "smallest_difference", "minutes", "currency"))
    empty: dict[str, Any] = dict.fromkeys(("private", "remarks", "example", "forecasts", "cuts"), ())
    named: dict[str, Any] = {"task": "t", "kind": "classify", "metric": "m", "documents": 0, "comparisons": 1}
    return CheckResult(
        **named,
        **none,
        **empty,
        notes=(EVIL,),
        splits={"train": 2},
        labels={EVIL: 2},
        refused=refused,
        overlaps=(EVIL,),
    )


def draw_check(console):
    draw_data_audit(checked(), console)
    draw_rest(checked(), checked(), console, "trimtab study")


PRINTED = {
    "answer": lambda output: output.answer(answer()),
    "study": lambda output: output.study(study()),
    "record": lambda output: output.record({"name": EVIL}),
    "rows": lambda output: output.rows("runs", [{"task": EVIL, "id": 1}]),
    "check": lambda output: output.show(checked(), draw_check),
}


class Terminal(io.StringIO):
    """A terminal that takes colours, so that the sequences of our own are there beside what is drawn."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("name", PRINTED)
def test_what_is_printed_for_people(monkeypatch: pytest.MonkeyPatch, name: str, terminal: bool) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(sys, "stdout", shown := Terminal() if terminal else io.StringIO())
    with Output(as_json=False) as output:
        PRINTED[name](output)
    require_tame(shown.getvalue())
    if terminal and name in ("answer", "study", "check"):
        assert "\x1b[1m" in shown.getvalue()  # our own styles are still obeyed


def test_json_holds_the_same_text_and_no_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", shown := Terminal())
    with Output(as_json=True) as output:
        output.answer(answer())
    assert not {"\x1b", "\x07", "\x9b"} & set(shown.getvalue())
    assert json.loads(shown.getvalue())["answer"] == EVIL


@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize("terminal", [True, False])
def test_notes_of_progress(monkeypatch: pytest.MonkeyPatch, terminal: bool, stays: bool) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(sys, "stderr", shown := Terminal() if terminal else io.StringIO())
    display = Display()
    Progress(listeners=[display]).emit("failed", note=EVIL, stays=stays)
    display.close()
    require_tame(shown.getvalue())


def test_errors(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise InputError(EVIL, "mend it", file=f"{EVIL}.toml")

    monkeypatch.delenv("TRIMTAB_DEBUG", raising=False)
    monkeypatch.setattr("trimtab.studies.ask.ask", refuse)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    (tmp_path / "t.toml").write_text('[task]\nkind = "answer"\n[data]\ndocuments = ["t.toml"]\n')
    with pytest.raises(SystemExit):
        run(["ask", "where?", "--task", str(tmp_path / "t.toml")])
    require_tame(capsys.readouterr().err)


def test_line_ends_tabs_and_letters_of_any_script_stay() -> None:
    text = "a\tb\nשלום 👩‍👩‍👧 é\u202f␛"
    assert visible(text) == text
    assert visible("\0\x1b\x7f\x85\r") == "␀␛␡\\x85␍"
    assert visible("invoice\u202egpj.exe") == r"invoice\u202egpj.exe"
    assert one_line(ValueError("\n  first\nsecond")) == "first"
    assert one_line(ValueError()) == "ValueError"
