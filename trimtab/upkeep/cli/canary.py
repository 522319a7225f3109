"""The commands of `trimtab canary`, one function each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.base.errors import EXIT_NO
from trimtab.cli.options import (
    DEFAULT_TASK,
    AddressOption,
    ArtifactsOption,
    ByOption,
    JsonOption,
    StoreOption,
    TaskOption,
    existing_task,
)
from trimtab.cli.output import Output

if TYPE_CHECKING:
    from rich.console import Console

    from trimtab.upkeep.canary import CanaryForecast, CanaryStatus

FEW_ASK_MOST = 1.5  # times the users that the bound by user takes, from which on it is said why there are more
HELP = "Canaries: a candidate answers a share of the users, and is promoted or rolled back by their feedback."


def start(
    version: Annotated[
        int | None,
        typer.Option(
            "--version", metavar="N", help="The candidate; by default the version that the alias candidate names."
        ),
    ] = None,
    share: Annotated[
        float, typer.Option("--share", metavar="S", help="Share of the users who get the candidate.")
    ] = 0.1,
    days: Annotated[
        float, typer.Option("--days", metavar="N", help="Without a result after N days production stays.")
    ] = 14.0,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, which is recorded.")] = "",
    by: ByOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and change nothing.")] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Also a candidate that was measured to be worse than production.")
    ] = False,
    task: TaskOption = DEFAULT_TASK,
    registry: AddressOption = None,
    artifacts: ArtifactsOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a canary: a candidate answers a share of the users. Prints how many users a result needs.

    A running `trimtab serve --alias production` loads it within seconds. A user stays with one version. The canary ends
    by itself: rolled back, undecided at its deadline, or shown to be good. Then it waits for you, or with [upkeep]
    promote = "if-better" goes into production.

    \b
    Example:
      trimtab canary start
      trimtab canary start --version 4 --share 0.2 --days 7
    """
    with Output(as_json) as output:
        from trimtab.upkeep.canary_functions import canary_start

        begun = canary_start(
            existing_task(task, None),
            version=version,
            share=share,
            days=days,
            why=why,
            by=by,
            dry_run=dry_run,
            anyway=anyway,
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
    """Show the state of the open canary, or how the last one ended; end it if it is due.

    Exits 1 if it ended and the candidate was not shown to be good.

    \b
    Example:
      trimtab canary status
      trimtab canary status --json
    """
    with Output(as_json) as output:
        from trimtab.upkeep.canary_functions import canary_status

        stands = canary_status(existing_task(task, None), address=registry, artifacts=artifacts, store=store)
        output.show(stands, lambda console: _draw(console, stands))
    if stands.record is not None and stands.record.outcome not in ("promoted", "held"):
        raise typer.Exit(EXIT_NO)


def stop(
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, which is recorded.")],
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
        from trimtab.upkeep.canary_functions import canary_stop

        record = canary_stop(
            existing_task(task, None), why=why, by=by, address=registry, artifacts=artifacts, store=store
        )
        output.show(record, lambda console: _line(console, record.headline))


app = typer.Typer(help=HELP, rich_markup_mode=None)
app.command("start")(start)
app.command("status")(status)
app.command("stop")(stop)


def _draw(console: Console, stands: CanaryStatus) -> None:
    for line in _lines(stands):
        _line(console, line)


def _lines(state: CanaryStatus) -> Iterator[str]:
    yield state.headline
    evidence = state.evidence
    if evidence.quality is not None:
        yield f"right: {evidence.quality.figures}"
        named = evidence.by_question.figures if evidence.by_question else "nothing yet, as a few users ask most of them"
        yield f"by question: {named}"
    elif state.record is None:
        yield "right: too few users with judgements or labels yet"
    if (newcomers := evidence.newcomers) is not None and newcomers.candidate + newcomers.production:
        yield newcomers.sentence
    if evidence.errors is not None:
        yield (
            f"failed: {evidence.errors.candidate:.2%} of the candidate's answers, "
            f"{evidence.errors.production:.2%} of production's"
        )
    if (one := evidence.latency) is not None:
        yield (
            f"95th percentile: {one.candidate_p95_ms:,.0f} ms, production {one.production_p95_ms:,.0f} ms; "
            f"limit {one.limit_ms:,.0f} ms, which {one.slow:.1%} of the candidate's answers are over"
        )
    if state.forecast is not None:
        yield from _forecast_lines(state.forecast, state)


def _forecast_lines(forecast: CanaryForecast, state: CanaryStatus) -> Iterator[str]:
    share, margin = state.canary.share, state.canary.margin
    at_most = "" if forecast.is_measured else " at most (nothing is known yet of how users differ)"

    def users(count: int) -> str:
        text = f"{count:,} users with a judgement or a label, {round(count * share):,} of them the candidate's{at_most}"
        if forecast.users_a_day:
            text += f"; {count / forecast.users_a_day:,.0f} days at {forecast.users_a_day:.1f} such users a day"
        return text

    if not forecast.is_measured:
        yield "a name that nobody knew before decides only in usual numbers: have production judged for some days first"
    yield f"a difference of 0.1 is shown with 80% chance by {users(forecast.clear_harm)}"
    if forecast.margin is not None and forecast.margin_by_user is not None:
        yield f"that it is not worse by {margin:g}, by user and by question, by {users(forecast.margin)}"
        if forecast.margin >= FEW_ASK_MOST * forecast.margin_by_user:
            yield f"by user alone {forecast.margin_by_user:,} would do: a few users ask most of the questions"


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
