"""The command `trimtab check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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
    say_loading,
    task_from_options,
)
from trimtab.cli.output import Output

if TYPE_CHECKING:
    from trimtab.studies.check import CheckResult

NoTimingOption = Annotated[
    bool, typer.Option("--no-timing", help="Audit only: run no arm, and predict no time and memory.")
]


def command(
    source: SourceArgument = None,
    task_file: TaskOption = DEFAULT_TASK,
    rows: RowsOption = None,
    input: InputOption = None,
    label: LabelOption = None,
    output: OutputOption = None,
    allow: AllowOption = None,
    no_timing: NoTimingOption = False,
    as_json: JsonOption = False,
) -> None:
    """Audit data and task before anything is trained.

    Prints refused rows, duplicates, leakage and the smallest difference that the test set can show; then the loss mask
    in colour, and predicted time and memory of each arm. Exits 1 if something must be fixed first.

    \b
    Example:
      trimtab check
      trimtab check tickets.csv
      trimtab check --no-timing
      trimtab check tickets/ --json
    """
    with Output(as_json) as out:
        task = task_from_options(task_file, source, input=input, label=label, output=output)
        say_loading()
        from trimtab.cli.check_page import draw_data_audit, draw_rest
        from trimtab.studies.check import check

        audits: list[CheckResult] = []

        def audited(audit: CheckResult) -> None:
            audits.append(audit)
            out.draw(lambda console: draw_data_audit(audit, console))

        result = check(task, rows=rows, allow=allow or (), timing=not no_timing, audited=audited)
        out.show(result, lambda console: draw_rest(audits[0], result, console, task.command("study")))
    if any(remark.level == "stop" for remark in result.remarks):
        raise typer.Exit(EXIT_NO)
