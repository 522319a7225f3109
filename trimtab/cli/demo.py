"""`trimtab demo`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trimtab.base.errors import EXIT_NO
from trimtab.cli.options import JsonOption
from trimtab.cli.output import Output


class Example(StrEnum):
    """The bundled examples."""

    handbook = "handbook"
    spam = "spam"
    style = "style"
    upkeep = "upkeep"


def command(
    name: Annotated[
        Example, typer.Argument(metavar="[NAME]", help="handbook, spam or style; or upkeep, a story.")
    ] = Example.handbook,
    cut: Annotated[bool, typer.Option("--cut", help="A smaller part of it, done within minutes.")] = False,
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="FOLDER", help="Where the example is copied to and worked in.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the main job on a bundled example.

    Exits 0 whatever the verdict is.
    upkeep plays how an arm is kept true: documents change, drift is told, a refresh passes its gate, a canary promotes
    it, and a bad version is taken back.

    \b
    Example:
      trimtab demo --cut
      trimtab demo upkeep
      trimtab demo spam --cut
      trimtab demo spam --folder /tmp/spam
    """
    if name is Example.upkeep:
        from trimtab.cli.upkeep_story import play

        with Output(as_json) as output:
            story = play(folder or Path("trimtab-demo-upkeep"))
            output.show(story, lambda console: console.print(f"\n{story.headline}\nPage: {story.page}", markup=False))
        if not (story.promoted and story.rolled_back and story.same_answers):
            raise typer.Exit(EXIT_NO)
        return
    with Output(as_json) as output:
        from trimtab.studies.demo import demo

        result = demo(name.value, cut=cut, folder=folder)
        output.study(result)
