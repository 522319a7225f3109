"""`trimtab drift`."""

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
    loaded,
)
from trimtab.cli.output import Output

if TYPE_CHECKING:
    from rich.console import Console

    from trimtab.base.drift import DriftReport, UserJudgement
    from trimtab.base.task import Task

SHOWN = 8  # documents and questions that are listed in the terminal; --json has all


def command(
    after: Annotated[
        int, typer.Option("--after", metavar="N", min=0, help="Leave out alarms of windows up to number N.")
    ] = 0,
    ask: Annotated[
        bool, typer.Option("--ask", help="Ask questions whose passages changed again, with the documents as they are.")
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
    """Say whether what is asked and answered in use has changed, since when, how sure that is, and what to do.

    Windows of answers that serve kept are compared with the first ones of the version in production; labels are held
    to the target, or to the measured score; documents to those that the version was made from. Exits 1 when something
    must be done.

    \b
    Example:
      trimtab drift
      trimtab drift --page drift.html
      trimtab drift --after 12 --json
    """
    with Output(as_json) as output:
        own = loaded(task)
        from trimtab.upkeep.drift import drift

        found = drift(
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
        output.show(found, lambda console: _draw(found, console))
    if found.must_act:
        raise typer.Exit(EXIT_NO)


def _judgements(task: Task, store: str | None) -> list[UserJudgement]:
    """Read what users said of single answers on the server's page, the oldest first."""
    from trimtab.base.drift import UserJudgement
    from trimtab.serving.feedback import store_of

    with suppress(MissingError), store_of(task, store, make=False) as kept:
        return [
            UserJudgement(arm=one.answers[0].arm, version=one.answers[0].version, good=one.kind == "like")
            for one in kept.of_single_answers()
        ]
    return []


def _draw(found: DriftReport, console: Console) -> None:
    console.print("\n".join(_lines(found)), markup=False, highlight=False, soft_wrap=True)


def _lines(found: DriftReport) -> Iterator[str]:
    yield f"{found.arm}, version {found.version}: {found.answers:,} answers, in windows of {found.window:,}"
    yield found.sentence
    yield found.advice
    if found.examples:
        yield f"\nMost typical of the change, in window {found.examples[0].window}:"
        yield from (f"  {_short(one.question)} → {_short(one.answer)}" for one in found.examples)
    documents = found.documents or ()
    for one in documents[:SHOWN]:
        gone = f", {one.passages:,} of its passages gone" if one.passages else ""
        yield f"{one.document}: {one.change}{gone}"
    if len(documents) > SHOWN:
        yield f"and {len(documents) - SHOWN:,} documents more"
    for question in found.affected[:SHOWN]:
        now = "" if question.now is None else f"; now: {_short(question.now)}"
        yield f"  {_short(question.question)} → {_short(question.answer)}{now}  ({question.source}, {question.document})"
    if found.windows:
        promised = f"Without drift a false alarm comes once in {found.alarm_free:,} windows or more, as expected."
        yield f"\n{promised} The next window lacks {found.missing:,} answers."
    yield from found.notes
    if found.page:
        yield f"\nPage: {found.page}"


def _short(text: str, length: int = 100) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"
