"""Probe `typing`: what a slip may change, and what becomes of arms that do and do not stand it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from probed import probed_task, question, subject_of

from trimtab.arms.probing.probe import adjusted, run_probes
from trimtab.arms.probing.typing_errors import in_lower_case, with_slips

ROWS = [question(n, f"When does the number {n} bus leave the station of Aalen?", f"{n}") for n in range(40)]


@given(st.text(max_size=80), st.text(max_size=4))
def test_slips_keep_numbers_and_capitalised_words(text: str, seed: str) -> None:
    slipped = with_slips(text, seed)
    kept = [word for word in text.split() if word.isdigit()]
    assert [word for word in slipped.split() if word.isdigit()] == kept
    assert slipped == with_slips(text, seed)


def test_a_slip_changes_one_word_in_six_and_no_first_letter_of_it() -> None:
    text = "please tell me whether the shop opens before nine on sundays in Bonn at user@host.example"
    for seed in range(50):
        before, after = text.split(), with_slips(text, str(seed)).split()
        changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
        assert len(changed) == 1
        ((old, new),) = changed
        assert old[0] == new[0]
        assert old not in ("Bonn", "user@host.example")


@pytest.mark.parametrize(
    ("text", "lower"),
    [("What is Node.js 3.5, please?", "what is node.js 3.5 please"), ("¿Dónde está Bonn?", "dónde está bonn")],
)
def test_lower_case_keeps_marks_within_numbers_and_names(text: str, lower: str) -> None:
    assert in_lower_case(text) == lower


def test_an_arm_that_knows_only_the_exact_text_is_found_and_one_that_does_not_is_not(tmp_path: Path) -> None:
    task, texts = probed_task(tmp_path), {row.input: row.references[0] for row in ROWS}
    brittle = adjusted(
        run_probes(subject_of(task, ROWS, lambda one: texts.get(one.messages[-1].content, "no")), ["typing"]), 0.02
    )
    assert [(one.before, one.after, one.found) for one in brittle] == [(1, 0, True)] * 2
    assert brittle[0].examples[0].before != brittle[0].examples[0].after == "no"
    clean = adjusted(run_probes(subject_of(task, ROWS, lambda one: one.id.removeprefix("row")), ["typing"]), 0.02)
    assert [(one.before, one.after, one.found) for one in clean] == [(1, 1, False)] * 2


def test_too_few_questions_show_nothing_and_are_told(tmp_path: Path) -> None:
    notes: list[str] = []
    few = subject_of(probed_task(tmp_path), ROWS[:19], lambda _: "no", tell=lambda note, **_: notes.append(note))
    assert run_probes(few, ["typing"]) == ()
    assert notes == ["the probe typing was left out: it does not apply to this arm, or to at least 20 of its questions"]
