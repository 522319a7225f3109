"""The command `trimtab doctor`."""

from __future__ import annotations

import typer

from trimtab.base.errors import EXIT_NO
from trimtab.cli.options import JsonOption
from trimtab.cli.output import Output


def command(as_json: JsonOption = False) -> None:
    """Report what this machine has and what is missing.

    Everything that is missing is listed with the command that installs it. Exits 1 if something is missing.

    \b
    Example:
      trimtab doctor
      trimtab doctor --json
    """
    with Output(as_json) as output:
        from trimtab.studies.doctor import doctor

        report = doctor()
        output.show(report, report.render)
    if report.missing:
        raise typer.Exit(EXIT_NO)
