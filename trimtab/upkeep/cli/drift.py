"""The command `trimtab drift`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.base.errors import EXIT_NO, MissingError
from trimtab.cli.options import (
    DEFAULT_TASK,
    AddressOption,
    AllowOption,
    ArtifactsOption,
    JsonOption,
    StoreOption,
    TaskOption,
    task_from_options,
)
from trimtab.cli.output import Output

if TYPE_CHECKING:
    from rich.console import Console

    from trimtab.base.task import Task
    from trimtab.upkeep.drift_report import DriftReport, UserJudgement

MAX_LISTED = 8  # documents and questions listed on the terminal; --json has all


def command(
    after: Annotated[
        int, typer.Option("--after", metavar="N", min=0, help="Ignore alarms of windows up to number N.")
    ] = 0,
    ask: Annotated[
        bool, typer.Option("--ask", help="Ask questions whose facts are gone again, with the present documents.")
    ] = False,
    page: Annotated[
        Path | None, typer.Option("--page", metavar="FILE", help="Also write an HTML page to this file.")
    ] = None,
    store: StoreOption = None,
    registry: AddressOption = None,
    artifacts: ArtifactsOption = None,
    task: TaskOption = DEFAULT_TASK,
    allow: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Report whether questions and answers in use have drifted, since when, how certain that is, and what to do.

    Windows of recorded answers are compared with the first ones of the version in production; labels with the target,
    or with the measured score; documents with those that the version was made from. Exits 1 if something must be done.

    \b
    Example:
      trimtab drift
      trimtab drift --page drift.html
      trimtab drift --after 12 --json
    """
    with Output(as_json) as output:
        own = task_from_options(task)
        from trimtab.upkeep.drift import drift

        report = drift(
            task=own,
            after=after,
            ask=ask,
            page=page,
            store=store,
            address=registry,
            artifacts=artifacts,
            judgements=_judgements(own, store),
            allow=allow or (),
        )
        output.show(report, lambda console: _draw(report, console))
    if report.must_act:
        raise typer.Exit(EXIT_NO)


def _judgements(task: Task, store: str | None) -> list[UserJudgement]:
    """Read the feedback of users on single answers, the oldest first."""
    from trimtab.serving.feedback import open_feedback_store
    from trimtab.upkeep.drift_report import UserJudgement

    with suppress(MissingError), open_feedback_store(task, store, make=False) as judgements:
        return [
            UserJudgement(arm=one.answers[0].arm, version=one.answers[0].version, good=one.kind == "like")
            for one in judgements.of_single_answers()
        ]
    return []


def _draw(report: DriftReport, console: Console) -> None:
    console.print("\n".join(_lines(report)), markup=False, highlight=False, soft_wrap=True)


def _lines(report: DriftReport) -> Iterator[str]:
    yield f"{report.arm}, version {report.version}: {report.answers:,} answers, in windows of {report.window:,}"
    yield report.sentence
    yield report.advice
    if report.examples:
        yield f"\nMost typical of the change, in window {report.examples[0].window}:"
        yield from (f"  {_short(one.question)} → {_short(one.answer)}" for one in report.examples)
    documents = report.documents or ()
    for one in documents[:MAX_LISTED]:
        gone = f", {one.facts:,} of its facts gone" if one.facts else ""
        same = ", it states what it did" if one.change == "changed" and not one.facts else ""
        yield f"{one.document}: {one.change}{gone}{same}"
    if len(documents) > MAX_LISTED:
        yield f"and {len(documents) - MAX_LISTED:,} documents more"
    for question in report.affected[:MAX_LISTED]:
        now = "" if question.now is None else f"; now: {_short(question.now)}"
        yield (
            f"  {_short(question.question)} → {_short(question.answer)}{now}  ({question.source}, {question.document})"
        )
    if report.windows:
        promised = f"Without drift a false alarm comes once in {report.alarm_free:,} windows or more, as expected."
        yield f"\n{promised} The next window lacks {report.missing:,} answers."
    yield from report.notes
    if report.page:
        yield f"\nPage: {report.page}"


def _short(text: str, length: int = 100) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"
