"""`trimtab check`."""

from __future__ import annotations

import typer

from trimtab.base.errors import EXIT_NO
from trimtab.cli.options import DEFAULT_TASK, AllowOption, JsonOption, TaskOption, loaded
from trimtab.cli.output import Output


def command(task: TaskOption = DEFAULT_TASK, allow: AllowOption = None, as_json: JsonOption = False) -> None:
    """Audit data and task before anything is trained.

    Refused rows, duplicates, leakage, the loss mask in colour, the smallest difference that the test set can show,
    predicted minutes and memory of each arm. Exits 1 when something must be mended first.

    \b
    Example:
      trimtab check
      trimtab check --task tickets/trimtab.toml --json
    """
    with Output(as_json) as output:
        own = loaded(task)
        from trimtab.cli.check_page import draw
        from trimtab.studies.check import check

        result = check(own, allow=allow or ())
        output.show(result, lambda console: draw(result, console, own.command("study")))
    if any(remark.level == "stop" for remark in result.remarks):
        raise typer.Exit(EXIT_NO)
