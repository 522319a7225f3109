"""`trimtab canary`: one command a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.base.errors import EXIT_NO
from trimtab.cli.options import DEFAULT_TASK, AddressOption, ArtifactsOption, JsonOption, StoreOption, TaskOption, found
from trimtab.cli.output import Output

if TYPE_CHECKING:
    from rich.console import Console

    from trimtab.upkeep.canary import CanaryForecast, CanaryStatus

HELP = "A candidate beside production for a share of the users, promoted or rolled back by what they say."
ByOption = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who does it; the user of this machine.")]


def start(
    version: Annotated[
        int | None, typer.Option("--version", metavar="N", help="The candidate; what the alias candidate names.")
    ] = None,
    share: Annotated[float, typer.Option("--share", metavar="S", help="Share of the users who get it.")] = 0.1,
    days: Annotated[
        float, typer.Option("--days", metavar="N", help="After so many days without a result production stays.")
    ] = 14.0,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, which is kept.")] = "",
    by: ByOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    task: TaskOption = DEFAULT_TASK,
    registry: AddressOption = None,
    artifacts: ArtifactsOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have a candidate answer a share of the users, and say how many users it takes to show something.

    A running `trimtab serve --alias production` loads it beside within seconds. A user stays with one version. The canary
    ends by itself: promoted, rolled back, or undecided at its deadline, where production stays.

    \b
    Example:
      trimtab canary start
      trimtab canary start --version 4 --share 0.2 --days 7
    """
    with Output(as_json) as output:
        from trimtab.cli.canary_functions import canary_start

        begun = canary_start(
            found(task, None),
            version=version,
            share=share,
            days=days,
            why=why,
            by=by,
            dry_run=dry_run,
            address=registry,
            artifacts=artifacts,
            store=store,
        )
        output.show(begun, lambda console: _draw(console, begun))


def status(
    task: TaskOption = DEFAULT_TASK,
    registry: AddressOption = None,
    artifacts: ArtifactsOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is known of the open canary, or how the last one ended; end it where that is due.

    Exits 1 where it ended and the candidate was not promoted.

    \b
    Example:
      trimtab canary status
      trimtab canary status --json
    """
    with Output(as_json) as output:
        from trimtab.cli.canary_functions import canary_status

        stands = canary_status(found(task, None), address=registry, artifacts=artifacts, store=store)
        output.show(stands, lambda console: _draw(console, stands))
    if stands.record is not None and not stands.record.passed:
        raise typer.Exit(EXIT_NO)


def stop(
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, which is kept.")],
    by: ByOption = None,
    task: TaskOption = DEFAULT_TASK,
    registry: AddressOption = None,
    artifacts: ArtifactsOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Roll the open canary back: production answers everybody again.

    \b
    Example:
      trimtab canary stop --why "a customer complained"
    """
    with Output(as_json) as output:
        from trimtab.cli.canary_functions import canary_stop

        record = canary_stop(found(task, None), why=why, by=by, address=registry, artifacts=artifacts, store=store)
        output.show(record, lambda console: _line(console, record.headline))


COMMANDS: Mapping[str, Callable[..., None]] = {"start": start, "status": status, "stop": stop}


def _draw(console: Console, stands: CanaryStatus) -> None:
    for line in _lines(stands):
        _line(console, line)


def _lines(stands: CanaryStatus) -> Iterator[str]:
    yield stands.headline
    evidence = stands.evidence
    if evidence.quality is not None:
        yield f"right: {evidence.quality.figures}"
    elif stands.record is None:
        yield "right: too few users with judgements or labels yet"
    if evidence.errors is not None:
        yield f"failed: {evidence.errors.candidate:.2%} of the candidate's answers, {evidence.errors.production:.2%} of production's"
    if (one := evidence.latency) is not None:
        yield (
            f"95th percentile: {one.candidate_p95_ms:,.0f} ms, production {one.production_p95_ms:,.0f} ms; "
            f"limit {one.limit_ms:,.0f} ms, which {one.slow:.1%} of the candidate's answers are over"
        )
    if stands.forecast is not None:
        yield from _forecast_lines(stands.forecast, stands)


def _forecast_lines(forecast: CanaryForecast, stands: CanaryStatus) -> Iterator[str]:
    share, margin = stands.canary.share, stands.canary.margin
    most = "" if forecast.is_measured else " at most (nothing is known yet of how users differ)"

    def users(count: int) -> str:
        told = f"{count:,} users with a judgement or a label, {round(count * share):,} of them the candidate's{most}"
        if forecast.users_a_day:
            told += f"; {count / forecast.users_a_day:,.0f} days at {forecast.users_a_day:.1f} such users a day"
        return told

    yield f"a difference of 0.1 is shown with 80% chance by {users(forecast.clear_harm)}"
    if forecast.margin is not None:
        yield f"one of {margin:g}, or that it is not worse by {margin:g}, by {users(forecast.margin)}"


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
