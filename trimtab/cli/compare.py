"""The command `trimtab compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.options import DEFAULT_TASK, JsonOption, TaskOption
from trimtab.cli.output import Output


def command(
    first: Annotated[str, typer.Argument(metavar="STUDY", help="A study's ID, its folder, or latest.")],
    second: Annotated[str, typer.Argument(metavar="STUDY", help="The study to compare it with.")],
    task: TaskOption = DEFAULT_TASK,
    page: Annotated[
        Path | None, typer.Option("--page", metavar="FILE", help="Also write an HTML page to this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two studies: what changed, both verdicts, and every arm's paired difference.

    \b
    Example:
      trimtab compare latest 20261124T101500Z-3f2a9b
      trimtab compare latest 20261124T101500Z-3f2a9b --page changes.html
    """
    with Output(as_json) as output:
        from trimtab.studies.compare import compare

        output.comparison(compare(first, second, task=task, page=page))
