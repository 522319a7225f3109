"""The commands of `trimtab registry`, one function each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.cli.options import (
    DEFAULT_TASK,
    AddressOption,
    AllowOption,
    ArtifactsOption,
    ByOption,
    JsonOption,
    TaskOption,
    existing_task,
)
from trimtab.cli.output import Output

if TYPE_CHECKING:
    from rich.console import Console

    from trimtab.base.show import ShownRow
    from trimtab.upkeep.registry import Registry
    from trimtab.upkeep.versions import GateRecord, Lineage, Move, Version

HELP = "The registry: versions of arms, which one is in production, and the history."
AliasOption = Annotated[str, typer.Option("--alias", metavar="NAME", help="The alias: production, candidate, any.")]
WhyOption = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, which is recorded.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and change nothing.")]
VersionArgument = Annotated[str, typer.Argument(metavar="VERSION", help="A number, or an alias that names one.")]


def register(
    arm: Annotated[
        str | None, typer.Argument(metavar="[ARM]", help="The arm; by default the winner of the newest study.")
    ] = None,
    task: TaskOption = DEFAULT_TASK,
    run: Annotated[
        str | None, typer.Option("--run", metavar="ID", help="Use the weights of this training run or study.")
    ] = None,
    parent: Annotated[
        int | None,
        typer.Option("--parent", metavar="N", help="The version that it follows; by default the one in production."),
    ] = None,
    by: ByOption = None,
    dry_run: DryRunOption = False,
    registry: AddressOption = None,
    artifacts: ArtifactsOption = None,
    allow: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register a version of a measured arm: its bundle, which is verified first, and everything it was made from.

    A version never changes. No alias names it until it is promoted.

    \b
    Example:
      trimtab registry register
      trimtab registry register lora+rag --run 20261124T101500Z-3f2a9b
    """
    with Output(as_json) as output, _open_registry(task, registry, artifacts, make=not dry_run) as own:
        version_record = own.register(arm, run=run, parent=parent, by=by, allow=allow or (), dry_run=dry_run)
        output.show(version_record, lambda console: _draw_version(console, version_record, own))


def promote(
    version: VersionArgument,
    why: WhyOption,
    alias: AliasOption = "production",
    evidence: Annotated[
        Path | None,
        typer.Option("--evidence", metavar="FILE", help="A gate's record, as JSON; it must say passed: true."),
    ] = None,
    task: TaskOption = DEFAULT_TASK,
    by: ByOption = None,
    dry_run: DryRunOption = False,
    registry: AddressOption = None,
    artifacts: ArtifactsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Point an alias to a version. A server of that alias switches without a restart.

    Every file of the version is verified first. Exits 1 if the gate of --evidence was not passed.

    \b
    Example:
      trimtab registry promote 4 --why "better on new questions"
      trimtab registry promote candidate --alias production --why "the gate was passed" --evidence gate.json
    """
    with Output(as_json) as output, _open_registry(task, registry, artifacts) as own:
        number = own.show(version).number or 0
        moved = own.promote(number, alias, why=why, evidence=_gate(evidence), by=by, dry_run=dry_run)
        output.show(moved, lambda console: _draw_move(console, moved, own))


def rollback(
    why: WhyOption,
    alias: AliasOption = "production",
    task: TaskOption = DEFAULT_TASK,
    by: ByOption = None,
    dry_run: DryRunOption = False,
    registry: AddressOption = None,
    artifacts: ArtifactsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Point an alias back to the version before its last promotion; a second time, to the one before that.

    \b
    Example:
      trimtab registry rollback --why "it invents prices"
    """
    with Output(as_json) as output, _open_registry(task, registry, artifacts) as own:
        moved = own.rollback(alias, why=why, by=by, dry_run=dry_run)
        output.show(moved, lambda console: _line(console, moved.headline))


def history(
    alias: Annotated[str | None, typer.Argument(metavar="[ALIAS]", help="One alias; by default all.")] = None,
    task: TaskOption = DEFAULT_TASK,
    registry: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """List every move of an alias, the newest first: which version, when, who, why, on what evidence.

    \b
    Example:
      trimtab registry history production
    """
    with Output(as_json) as output, _open_registry(task, registry) as own:
        moves = own.history(alias)
        none = f"no moves yet; put a version into production: {own.task.command('registry promote VERSION --why …')}"
        output.show({"moves": moves}, lambda console: _table(console, [move.row for move in moves], none))


def show(
    version: VersionArgument,
    task: TaskOption = DEFAULT_TASK,
    registry: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a version: its arm, its origins, and its measured figures.

    \b
    Example:
      trimtab registry show production
      trimtab registry show 4 --json
    """
    with Output(as_json) as output, _open_registry(task, registry) as own:
        output.record(own.show(version))


def list_versions(
    task: TaskOption = DEFAULT_TASK,
    registry: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the versions of a task, the newest first, with their present aliases.

    \b
    Example:
      trimtab registry list
    """
    with Output(as_json) as output, _open_registry(task, registry) as own:
        versions = own.list()
        none = f"no versions yet; make one of a measured arm: {own.task.command('registry register')}"
        output.show({"versions": versions}, lambda console: _table(console, [one.row for one in versions], none))


def lineage(
    task: TaskOption = DEFAULT_TASK,
    page: Annotated[
        Path | None, typer.Option("--page", metavar="FILE", help="Also write an HTML page to this file.")
    ] = None,
    registry: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the lineage: from rows and feedback to the versions made from them, and to the aliases that named these.

    \b
    Example:
      trimtab registry lineage --page lineage.html
    """
    with Output(as_json) as output, _open_registry(task, registry) as own:
        lineage_record = own.lineage(page)
        output.show(lineage_record, lambda console: _draw(console, lineage_record))


def gc(
    keep: Annotated[
        int,
        typer.Option(
            "--keep",
            metavar="N",
            min=1,
            help="Keep the versions of the last N moves of each alias, and the N newest versions.",
        ),
    ] = 5,
    task: TaskOption = DEFAULT_TASK,
    by: ByOption = None,
    dry_run: DryRunOption = False,
    registry: AddressOption = None,
    artifacts: ArtifactsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete the files of versions that are no longer needed; their records stay.

    Files are kept for versions that an alias names, that one of its last N moves involved, and for the N newest.

    \b
    Example:
      trimtab registry gc --keep 3 --dry-run
    """
    with Output(as_json) as output, _open_registry(task, registry, artifacts) as own:
        collected = own.gc(keep, dry_run=dry_run, by=by)
        output.show(collected, lambda console: _line(console, collected.headline))


app = typer.Typer(help=HELP, rich_markup_mode=None)
app.command("register")(register)
app.command("list")(list_versions)
app.command("show")(show)
app.command("promote")(promote)
app.command("rollback")(rollback)
app.command("history")(history)
app.command("lineage")(lineage)
app.command("gc")(gc)


def _open_registry(task: Path, address: str | None, artifacts: str | None = None, *, make: bool = False) -> Registry:
    own = existing_task(task, None)
    from trimtab.upkeep.registry import registry

    return registry(own, address, artifacts=artifacts, make=make)


def _gate(file: Path | None) -> GateRecord | None:
    """Return the record of a gate from its file, None without a file."""
    if file is None:
        return None
    from trimtab.base.codec import read_record
    from trimtab.upkeep.versions import GateRecord

    return read_record(file, GateRecord)


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _table(console: Console, rows: Sequence[ShownRow], none: str) -> None:
    """Print lines of a table, whose columns stay apart in a pipe, too; `none`: what to do where there are none."""
    from trimtab.base.show import text_table

    _line(console, text_table(rows) if rows else none)


def _draw_version(console: Console, made: Version, own: Registry) -> None:
    """Print a version, and how it comes into production."""
    _line(console, made.headline)
    if made.number is not None:
        promote = own.task.command(f'registry promote {made.number} --why "…"')
        _line(console, f"Put it into production: {promote}")


def _draw_move(console: Console, moved: Move, own: Registry) -> None:
    """Print a move, and how the version is served or tried."""
    _line(console, moved.headline)
    follow = {
        "production": ("Servers that follow it switch; else:", "serve --alias production"),
        "candidate": ("Try it on a share of the users:", "canary start"),
    }
    if moved.number is not None and moved.alias in follow:
        what, words = follow[moved.alias]
        _line(console, f"{what} {own.task.command(words)}")


def _draw(console: Console, lineage_record: Lineage) -> None:
    from trimtab.base.show import text_table

    _line(console, f"{lineage_record.headline}\n{text_table(lineage_record.screen())}")
    if lineage_record.page:
        _line(console, f"\nPage: {lineage_record.page}")
