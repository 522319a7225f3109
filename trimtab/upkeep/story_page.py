"""The HTML page of a sequence of commands: what happened, the command, its output, and its duration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.reports.page import render_page


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryLine:
    """One step of the page."""

    title: str
    command: str
    output: str
    seconds: str


def render_story(title: str, headline: str, steps: Sequence[tuple[str, str, str, float]]) -> str:
    """Return the page as HTML, without scripts and requests; each step has title, command, output and seconds."""
    lines = tuple(
        StoryLine(title=name, command=command, output=output, seconds=f"{seconds:,.0f} s" if seconds >= 1 else "")
        for name, command, output, seconds in steps
    )
    return render_page(
        "story.html.j2", package="trimtab.upkeep", title=title, script="", headline=headline, steps=lines
    )
