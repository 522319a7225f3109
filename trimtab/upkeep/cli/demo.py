"""The example `trimtab demo upkeep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.base.errors import InputError
from trimtab.upkeep.story import play

if TYPE_CHECKING:
    from trimtab.cli.output import Output


def demo(output: Output, folder: Path | None, *, cut: bool) -> bool:
    """Play the story of a version in use and print its end; return True if it ended as it should."""
    if cut:
        raise InputError("the story of a version has no smaller part", "leave it out", field="--cut")
    story = play(folder or Path("trimtab-demo-upkeep"))
    output.show(story, lambda console: console.print(f"\n{story.headline}\nPage: {story.page}", markup=False))
    return story.promoted and story.rolled_back and story.same_answers
