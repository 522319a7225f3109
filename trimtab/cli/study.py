"""The command `trimtab study`."""

from __future__ import annotations

import re
from typing import Annotated

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


def _checked_budget(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"\d+(\.\d+)?([smh]| ?[A-Z]{3})", value):
        raise typer.BadParameter("a number and a unit, for example 90s, 30m, 2h or '20 USD'")
    return value


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
    inferred, and goes on. All arms answer the same questions. Exits 1 if the data cannot show a winner; the report then
    says what would settle it.

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
