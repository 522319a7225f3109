"""The command `trimtab refresh`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.base.errors import EXIT_NO
from trimtab.cli.options import (
    DEFAULT_TASK,
    AddressOption,
    AllowOption,
    ArtifactsOption,
    CommandsOption,
    JsonOption,
    StoreOption,
    TaskOption,
    task_from_options,
)
from trimtab.cli.output import Output

if TYPE_CHECKING:
    from rich.console import Console

    from trimtab.upkeep.refresh_plan import RefreshResult
    from trimtab.upkeep.versions import GateTest

_KINDS = "cron, systemd, github or kubernetes"


def command(
    task: TaskOption = DEFAULT_TASK,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Stop after the plan: what is new, and what a refresh could show.")
    ] = False,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="TIME", help="Time for making the candidate: 30m, 2h.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the refresh that was interrupted.")] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Make the candidate even if no improvement could be shown.")
    ] = False,
    documents: Annotated[
        bool, typer.Option("--documents", help="Update the index alone: production's arm with today's documents.")
    ] = False,
    schedule: Annotated[
        str | None,
        typer.Option("--schedule", metavar="KIND", help=f"Print a weekly schedule of this command for {_KINDS}."),
    ] = None,
    registry: AddressOption = None,
    artifacts: ArtifactsOption = None,
    store: StoreOption = None,
    by: Annotated[
        str | None, typer.Option("--by", metavar="NAME", help="Who does it; the user of this machine.")
    ] = None,
    allow: AllowOption = None,
    allow_commands: CommandsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make the next version of the arm in production from new rows, labels and documents, and test it against
    production.

    The candidate must be better on new or changed test questions, and not worse by the margin on the old ones. Only
    then the alias candidate names it, and with [upkeep] promote = "if-better" production too. Where only documents
    changed, and the arm reads them, its index alone is updated: it must be not worse on the questions that still hold,
    and with [upkeep] documents = "if-not-worse" production names it then. Exits 1 otherwise.

    \b
    Example:
      trimtab refresh --dry-run
      trimtab refresh --budget 30m
      trimtab refresh --documents
      trimtab refresh --schedule systemd
    """
    if schedule is not None:
        from trimtab.upkeep.schedule import scheduled

        typer.echo(scheduled(schedule, task), nl=False)
        return
    with Output(as_json) as output:
        own = task_from_options(task)
        from trimtab.upkeep.refresh import refresh

        result = refresh(
            own,
            budget=budget,
            resume=resume,
            anyway=anyway,
            documents=documents,
            dry_run=dry_run,
            address=registry,
            artifacts=artifacts,
            store=store,
            by=by,
            allow=allow or (),
            allow_commands=allow_commands,
        )
        output.show(result, lambda console: _draw(console, result))
    hopeless = result.outcome == "planned" and result.plan is not None and not result.plan.worth_it
    if hopeless or result.outcome in ("not passed", "not worth it"):
        raise typer.Exit(EXIT_NO)


def _draw(console: Console, result: RefreshResult) -> None:
    def line(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    if result.outcome != "nothing new":
        line(result.changes.sentence)
    for reason, count in result.changes.labelled.left_out.items():
        line(f"{count:,} labels left out: {reason}")
    if result.gate is not None:
        for name, test in (
            ("old questions", result.gate.old_test),
            ("old questions, first version", result.gate.first_test),
            ("new questions", result.gate.new_test),
        ):
            if test is not None:
                line(f"{name}: {_test_sentence(test)}")
        if (forgetting := result.gate.forgetting) is not None:
            line(
                f"general text: {forgetting.difference:+.3f} [{forgetting.low:+.3f}, {forgetting.high:+.3f}] "
                "nats a token against production, "
                f"on {forgetting.passages} passages"
            )
    line(result.sentence)


def _test_sentence(test: GateTest) -> str:
    claim = f"{'shown' if test.shown else 'not shown'} to be {test.claim}"
    look = f", look {test.look} at these questions" if test.look > 1 else ""
    return (
        f"candidate {test.candidate:.3f}, production {test.production:.3f}, difference {test.difference:+.3f} "
        f"[{test.low:+.3f}, {test.high:+.3f}] on {test.questions:,}: {claim} (tested at {test.level:.3g}{look})"
    )
