"""`trimtab check`."""

from __future__ import annotations

import typer

from trimtab.base.errors import EXIT_NO
from trimtab.cli.options import (
    DEFAULT_TASK,
    AllowOption,
    InputOption,
    JsonOption,
    LabelOption,
    OutputOption,
    RowsOption,
    SourceArgument,
    TaskOption,
    loaded,
)
from trimtab.cli.output import Output


def command(
    source: SourceArgument = None,
    task: TaskOption = DEFAULT_TASK,
    rows: RowsOption = None,
    input: InputOption = None,
    label: LabelOption = None,
    output: OutputOption = None,
    allow: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Audit data and task before anything is trained.

    Refused rows, duplicates, leakage, the loss mask in colour, the smallest difference that the test set can show,
    predicted minutes and memory of each arm. Exits 1 when something must be mended first.

    \b
    Example:
      trimtab check
      trimtab check tickets.csv
      trimtab check tickets/ --json
    """
    with Output(as_json) as out:
        own = loaded(task, source, input=input, label=label, output=output)
        from trimtab.cli.check_page import draw
        from trimtab.studies.check import check

        result = check(own, rows=rows, allow=allow or ())
        out.show(result, lambda console: draw(result, console, own.command("study")))
    if any(remark.level == "stop" for remark in result.remarks):
        raise typer.Exit(EXIT_NO)
