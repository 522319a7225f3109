"""The command `trimtab study`."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.base.errors import EXIT_NO
from trimtab.cli.options import (
    DEFAULT_TASK,
    AllowOption,
    CommandsOption,
    InputOption,
    JsonOption,
    LabelOption,
    NodeLabelOption,
    OutputOption,
    ResumeOption,
    RowsOption,
    SourceArgument,
    TaskOption,
    TrackOption,
    machines_at,
    say_loading,
    task_from_options,
)
from trimtab.cli.output import Output
from trimtab.cli.questions import draft_and_read

if TYPE_CHECKING:
    from trimtab.base.task import Task


def _checked_budget(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"\d+(\.\d+)?([smh]| ?[A-Z]{3})", value):
        raise typer.BadParameter("a number and a unit, for example 90s, 30m, 2h or '20 USD'")
    return value


def _with_drafts(task: Task) -> Task:
    """Offer to draft questions, for a task of documents alone on a terminal, and return the task with those approved.

    Exits 1 while too few are approved to show something.
    """
    from trimtab.base.task import load_task

    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return task
    if not task.data.documents or task.data.examples or task.data.test or task.task.kind == "classify":
        return task
    offer = "No labelled questions, so nothing can be compared. Draft some from the documents now, for you to approve?"
    if not typer.confirm(offer, err=True):
        return task
    result = draft_and_read(task)
    typer.echo(result.headline, err=True)
    if not result.suffices:
        raise typer.Exit(EXIT_NO)
    return load_task(task.file)


def command(
    source: SourceArgument = None,
    task_file: TaskOption = DEFAULT_TASK,
    resume: ResumeOption = None,
    allow: AllowOption = None,
    allow_commands: CommandsOption = False,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="TIME|AMOUNT",
            callback=_checked_budget,
            help="For example 90s, 30m, 2h, or '20 USD' if the task file has prices; instead of the task's.",
        ),
    ] = None,
    arms: Annotated[
        str | None,
        typer.Option("--arms", metavar="A,B", help="Run these arms, for example prompt,rag; instead of the task's."),
    ] = None,
    rows: RowsOption = None,
    input: InputOption = None,
    label: LabelOption = None,
    output: OutputOption = None,
    track: TrackOption = None,
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="ADDRESS",
            help="Build the arms on other machines: local (processes here), auto (this machine's Ray cluster), or "
            "ray://HOST:PORT.",
        ),
    ] = None,
    node_label: NodeLabelOption = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="ADDRESS",
            help="With --on, for machines without a shared folder: the object store for the study's files, such as "
            "s3://BUCKET/FOLDER.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run every arm, print the verdict, write the report.

    Given a file or a folder without a task file, it inspects the data, writes trimtab.toml beside them, prints what it
    inferred, and goes on. All arms answer the same questions. For documents without questions it offers to draft some.
    Exits 1 if the data cannot show a winner; the report then says what would settle it.

    \b
    Example:
      trimtab study
      trimtab study tickets.csv --budget 10m
      trimtab study tickets/ --budget 20m
      trimtab study --arms prompt,rag
      trimtab study --rows 1000
      trimtab study --on local
      trimtab study --resume
    """
    with Output(as_json) as out:
        task = task_from_options(task_file, source, input=input, label=label, output=output)
        say_loading()
        if not as_json:
            task = _with_drafts(task)
        from trimtab.studies.study import study

        chosen = None if arms is None else [name.strip() for name in arms.split(",") if name.strip()]
        with machines_at(on, store, node_label) as machines:
            result = study(
                task,
                resume=resume,
                allow=allow or (),
                allow_commands=allow_commands,
                budget=budget,
                arms=chosen,
                rows=rows,
                track=track,
                machines=machines,
            )
        out.study(result)
    if result.verdict.status == "not_shown":
        raise typer.Exit(EXIT_NO)
