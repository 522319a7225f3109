"""The command `trimtab demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.base.errors import EXIT_NO, InputError
from trimtab.base.plugins import plugin, plugin_names
from trimtab.cli.options import JsonOption, say_loading
from trimtab.cli.output import Output

STUDIES = ("handbook", "spam", "style")


def command(
    name: Annotated[
        str,
        typer.Argument(metavar="[NAME]", help="handbook, spam, style, upkeep or surface."),
    ] = "handbook",
    cut: Annotated[bool, typer.Option("--cut", help="A smaller part of the example, done within minutes.")] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", metavar="FOLDER", help="The folder that the example is copied to and run in."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a study on a bundled example; the example surface audits a site.

    Exits 0 whatever the verdict is. The example upkeep shows how an arm is maintained: documents change, drift is
    detected, a refresh passes its gate, users find it good in a canary, a person promotes it, and a bad version is
    rolled back.

    \b
    Example:
      trimtab demo --cut
      trimtab demo upkeep
      trimtab demo spam --cut
      trimtab demo spam --folder /tmp/spam
      trimtab demo surface
    """
    if name not in (*STUDIES, *plugin_names("demos")):
        examples = ", ".join((*STUDIES, *plugin_names("demos")))
        raise InputError(f"no bundled example {name[:80]!r}", f"use one of: {examples}")
    with Output(as_json) as output:
        say_loading()
        if name not in STUDIES:
            ended_well = plugin("demos", name, f"trimtab demo {name}")(output, folder, cut=cut)
            if not ended_well:
                raise typer.Exit(EXIT_NO)
            return
        from trimtab.studies.demo import demo

        output.study(demo(name, cut=cut, folder=folder))
