"""The command `trimtab surface audit`, and helpers of the other surface commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.base.errors import EXIT_NO
from trimtab.cli.options import JsonOption
from trimtab.cli.output import Output
from trimtab.publishing import CACHE

if TYPE_CHECKING:
    from rich.console import Console

    from trimtab.base.progress import Progress
    from trimtab.publishing.records import SurfaceAudit


def audit_site(
    source: Annotated[
        str, typer.Argument(metavar="SITE", help="An address that begins with https://, or a folder as it is served.")
    ],
    pages: Annotated[int, typer.Option("--pages", metavar="N", min=1, help="At most N pages.")] = 10_000,
    depth: Annotated[
        int, typer.Option("--depth", metavar="N", min=0, help="At most N links from the first page.")
    ] = 20,
    rate: Annotated[float, typer.Option("--rate", metavar="N", help="At most N requests a second.")] = 5.0,
    base: Annotated[
        str | None, typer.Option("--base", metavar="URL", help="The URL of a folder's pages when they are served.")
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Allow hosts with addresses of a private network.")
    ] = False,
    render: Annotated[
        int,
        typer.Option(
            "--render", metavar="N", min=0, help="Render N pages in Chromium, to find content that needs scripts."
        ),
    ] = 0,
    as_agents: Annotated[
        int,
        typer.Option(
            "--as-agents", metavar="N", min=0, help="Ask for N pages again under the name of each assistant's agent."
        ),
    ] = 0,
    logs: Annotated[
        list[Path] | None,
        typer.Option(
            "--logs",
            metavar="FILE",
            help="Access logs, to count visits of agents and people by month. Several may be given.",
        ),
    ] = None,
    ranges: Annotated[
        Path | None,
        typer.Option(
            "--ranges",
            metavar="PATH",
            help="Address ranges that vendors publish (JSON), by which visitors are verified.",
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="FILE", help="An earlier result of --json, to list changes."),
    ] = None,
    cache: Annotated[Path, typer.Option("--cache", metavar="FOLDER", help="The folder for fetched pages.")] = CACHE,
    page: Annotated[
        Path | None, typer.Option("--page", metavar="FILE", help="Also write an HTML page to this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find what keeps assistants from reading, finding and citing a site: facts by severity, no total score.

    robots.txt is obeyed, and the crawl is slow by default. Exits 1 if something blocks assistants.

    \b
    Example:
      trimtab surface audit https://example.com --page audit.html
      trimtab surface audit site/ --base https://example.com/ --json > audit.json
      trimtab surface audit site/ --against audit.json
    """
    with Output(as_json) as output:
        from trimtab.publishing.audit import surface_audit

        with progress_display() as progress:
            result = surface_audit(
                source,
                pages=pages,
                depth=depth,
                rate=rate,
                base=base,
                private=private,
                render=render,
                as_agents=as_agents,
                logs=logs or (),
                ranges=ranges,
                against=against,
                page=page,
                cache=cache,
                progress=progress,
            )
        output.show_read_back(result, lambda console: draw_site_audit(console, result))
    if result.blocks:
        raise typer.Exit(EXIT_NO)


@contextmanager
def progress_display() -> Iterator[Progress]:
    """Context manager: shows progress on the terminal; the progress line is ended at the exit."""
    from trimtab.base.display import Display
    from trimtab.base.progress import Progress

    display = Display()
    try:
        yield Progress(listeners=[display])
    finally:
        display.close()


def print_plain(console: Console, text: str) -> None:
    """Print text without markup and without wrapping."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def draw_site_audit(console: Console, result: SurfaceAudit) -> None:
    """Print an audit for people: each kind of finding with an example, then findings on the whole site."""
    from trimtab.base.show import text_table

    print_plain(console, f"{result.headline}\n{text_table(result.screen())}")
    for note in result.notes:
        print_plain(console, f"- {note}")
    if result.logs is not None:
        for sent in result.logs.people:
            page = next(iter(sent.pages))
            print_plain(
                console, f"- {sent.visits:,} visits of people came from {sent.assistant}, most of them to {page}."
            )
        for sentence in result.logs.changes:
            print_plain(console, f"- {sentence}.")
    changed = result.changes
    if changed is not None:
        print_plain(
            console,
            f"\nSince {changed.since:%Y-%m-%d}: {len(changed.new):,} findings are new, {len(changed.gone):,} are gone.",
        )
        for sentence in changed.agents:
            print_plain(console, f"- {sentence}.")
        for finding in changed.new[:20]:
            print_plain(console, f"+ {finding.severity}  {finding.check}  {finding.page}  {finding.evidence}")
    print_plain(console, f"\nPage: {result.page}" if result.page else "\nEach finding: --page FILE, or --json.")
