"""Judges answers on the terminal: questions go to standard error, replies are one letter and Enter."""

from __future__ import annotations

import sys

import typer

from trimtab.base.sanitize import visible
from trimtab.measurement.judging_session import Correct, Judgements, Judging, JudgingForm, Outlook


def ask_in_terminal(
    session: Judgements,
    correct: Correct | None = None,
    outlook: Outlook | None = None,
    form: JudgingForm | None = None,
) -> None:
    """Ask for judgements of all pending answers, until the end or a stop; parameters as for `Judging`."""
    judging = Judging(session, correct, outlook, form)
    value_of = {word: choice.value for choice in judging.choices for word in (choice.key, choice.value)}
    keys = ", ".join(f"{choice.key} {choice.name.lower()}" for choice in judging.choices)
    while judging.asked is not None:
        width = max(10, *(len(name) + 1 for name, _ in judging.parts))
        parts = "\n".join(f"{name + ':':{width}} {visible(' | '.join(texts))}" for name, texts in judging.parts)
        write_stderr(f"\n{judging.progress}\n{parts}")
        reply = ""
        while not reply:
            reply = value_of.get(_line(f"{judging.question} [{keys}] ", at_end="stop").casefold(), "")
        judging.take(reply, _line(f"{judging.form.text}: ", at_end="") if reply == "answer" else "")


def _line(question: str, *, at_end: str) -> str:
    sys.stderr.write(question)
    sys.stderr.flush()
    line = sys.stdin.readline()
    return line.strip() if line else at_end


def write_stderr(text: str) -> None:
    """Write a line to standard error."""
    typer.echo(text, err=True)
