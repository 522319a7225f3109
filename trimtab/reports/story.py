"""A story of commands on one HTML page: what happened, what was typed, what it printed, and how long it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.reports.page import render_page


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryLine:
    """A step as the page shows it."""

    title: str
    command: str
    output: str
    seconds: str


def render_story(title: str, headline: str, steps: Sequence[tuple[str, str, str, float]]) -> str:
    """The page as HTML, without a script and without a request; of each step title, command, output and seconds."""
    lines = tuple(
        StoryLine(title=name, command=command, output=output, seconds=f"{seconds:,.0f} s" if seconds >= 1 else "")
        for name, command, output, seconds in steps
    )
    return render_page("story.html.j2", title=title, script="", headline=headline, steps=lines)
