"""`trimtab demo`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.options import JsonOption
from trimtab.cli.output import Output


class Example(StrEnum):
    """The bundled examples."""

    handbook = "handbook"
    spam = "spam"
    style = "style"


def command(
    name: Annotated[Example, typer.Argument(metavar="[NAME]", help="handbook, spam or style.")] = Example.handbook,
    cut: Annotated[bool, typer.Option("--cut", help="A smaller part of it, done within minutes.")] = False,
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="FOLDER", help="Where the example is copied to and worked in.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the main job on a bundled example.

    Exits 0 whatever the verdict is.

    \b
    Example:
      trimtab demo --cut
      trimtab demo spam --cut
      trimtab demo spam --folder /tmp/spam
    """
    with Output(as_json) as output:
        from trimtab.studies.demo import demo

        result = demo(name.value, cut=cut, folder=folder)
        output.study(result)
