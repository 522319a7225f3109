"""The command `trimtab demo`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.base.errors import EXIT_NO
from trimtab.cli.options import JsonOption, say_loading
from trimtab.cli.output import Output

if TYPE_CHECKING:
    from rich.console import Console


class BundledExample(StrEnum):
    """The bundled examples."""

    handbook = "handbook"
    spam = "spam"
    style = "style"
    upkeep = "upkeep"
    surface = "surface"


def command(
    name: Annotated[
        BundledExample, typer.Argument(metavar="[NAME]", help="handbook, spam, style, upkeep or surface.")
    ] = BundledExample.handbook,
    cut: Annotated[bool, typer.Option("--cut", help="A smaller part of the example, done within minutes.")] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", metavar="FOLDER", help="The folder that the example is copied to and run in."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a study on a bundled example; the example surface audits a site.

    Exits 0 whatever the verdict is. The example upkeep shows how an arm is maintained: documents change, drift is
    detected, a refresh passes its gate, a canary promotes it, and a bad version is rolled back.

    \b
    Example:
      trimtab demo --cut
      trimtab demo upkeep
      trimtab demo spam --cut
      trimtab demo spam --folder /tmp/spam
      trimtab demo surface
    """
    if name is BundledExample.upkeep:
        from trimtab.cli.upkeep_story import play

        with Output(as_json) as output:
            say_loading()
            story = play(folder or Path("trimtab-demo-upkeep"))
            output.show(story, lambda console: console.print(f"\n{story.headline}\nPage: {story.page}", markup=False))
        if not (story.promoted and story.rolled_back and story.same_answers):
            raise typer.Exit(EXIT_NO)
        return
    with Output(as_json) as output:
        if name is BundledExample.surface:
            _surface(output, folder, cut=cut)
            return
        say_loading()
        from trimtab.studies.demo import demo

        result = demo(name.value, cut=cut, folder=folder)
        output.study(result)


def _surface(output: Output, folder: Path | None, *, cut: bool) -> None:
    from trimtab.base.errors import InputError

    if cut:
        raise InputError("the audit of a site takes seconds and has no smaller part", "leave it out", field="--cut")
    say_loading()
    from trimtab.base.display import Display
    from trimtab.base.progress import Progress
    from trimtab.cli.surface import draw_site_audit
    from trimtab.cli.surface_coverage import draw_coverage
    from trimtab.publishing.demo import demo_surface

    display = Display()
    try:
        result = demo_surface(folder, progress=Progress(listeners=[display]))
    finally:
        display.close()

    def draw(console: Console) -> None:
        draw_site_audit(console, result.audit)
        console.print("")
        draw_coverage(console, result.coverage)

    output.show(result, draw)
