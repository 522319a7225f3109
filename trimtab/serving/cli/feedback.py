"""The command `trimtab feedback export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.base.errors import EXIT_NO
from trimtab.cli.options import (
    DEFAULT_TASK,
    AllowOption,
    ExistingSourceArgument,
    JsonOption,
    StoreOption,
    TaskOption,
    existing_task,
)
from trimtab.cli.output import Output

if TYPE_CHECKING:
    from rich.console import Console

    from trimtab.serving.feedback_export import FeedbackExport

HELP = "Feedback of users on the answers, as rows to train on."


def export_feedback(
    source: ExistingSourceArgument = None,
    task: TaskOption = DEFAULT_TASK,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="The output folder; by default feedback/ beside the task file."),
    ] = None,
    store: StoreOption = None,
    allow: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export feedback as rows for study and train.

    Preferences become pairs, likes and dislikes single judged answers, corrections both pairs and examples. A
    correction of a dev or test question never becomes an example. The task-file lines that name the files are printed.
    Exits 1 if there is nothing to export.

    \b
    Example:
      trimtab feedback export
      trimtab feedback export --store postgresql://trimtab@db.example/feedback --out judged/
    """
    with Output(as_json) as output:
        own = existing_task(task, source)
        from trimtab.serving.feedback_export import feedback_export

        result = feedback_export(own, out=out, store=store, allow=allow or ())
        output.show(result, lambda console: _draw(result, console, own.command("serve")))
    if not result.files:
        raise typer.Exit(EXIT_NO)


def _draw(result: FeedbackExport, console: Console, serve: str) -> None:
    def print_line(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    if not result.judgements:
        print_line(f"no judgements yet; collect some on the page of: {serve}")
        return
    for name, count in result.files.items():
        print_line(f"{count:>7,} row{'s' * (count != 1)} {result.folder / name}")
    for reason, count in result.left_out.items():
        print_line(f"{count:>7,} left out: {reason}")
    if result.lines:
        print_line("\nUnder [data] of the task file:")
        for line in result.lines:
            print_line(f"  {line}")


app = typer.Typer(help=HELP, rich_markup_mode=None)
app.command("export")(export_feedback)
