"""The command `trimtab doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from trimtab.base.errors import EXIT_NO
from trimtab.cli.options import JsonOption
from trimtab.cli.output import Output


def command(
    device: Annotated[
        bool, typer.Option("--device", help="Compare this device with plain float32, part by part; takes some seconds.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Report what this machine has and what is missing.

    Everything that is missing is listed with the command that installs it. Exits 1 if something is missing.

    With --device, Trimtab computes on tiny models what a study computes, on this device and by plain float32 on the
    processor. What differs by more than rounding is switched off from then on: the C kernels, bf16, or the device. A
    machine's first study does the same by itself. The output with --json is what a bug report needs.

    \b
    Example:
      trimtab doctor
      trimtab doctor --device
      trimtab doctor --device --json
    """
    with Output(as_json) as output:
        from trimtab.studies.doctor import doctor

        report = doctor(device=device)
        output.show(report, report.render)
        for check in report.checks if device else ():
            output.draw(check.render)
    if report.missing:
        raise typer.Exit(EXIT_NO)
