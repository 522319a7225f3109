"""The command `trimtab label`."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.base.errors import EXIT_NO
from trimtab.cli.options import DEFAULT_TASK, JsonOption, StoreOption, TaskOption, task_from_options
from trimtab.cli.output import Output

if TYPE_CHECKING:
    from rich.console import Console

    from trimtab.base.results import Estimate
    from trimtab.serving.traffic_store import Drawing
    from trimtab.upkeep.labels import LabelSummary
    from trimtab.upkeep.production import ProductionQuality


class DrawMethod(StrEnum):
    """The ways to sample answers for labelling."""

    random = "random"
    uncertain = "uncertain"


def command(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="Rows with question, answer and, if known, probability; by default the answers that serve recorded.",
        ),
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, metavar="N", help="Number of answers of this draw.")] = 100,
    by: Annotated[
        str | None, typer.Option("--by", metavar="NAME", help="Who labels; the user of this machine.")
    ] = None,
    draw: Annotated[
        DrawMethod | None,
        typer.Option("--draw", help="Draw at random (default), or more often where the arm is uncertain."),
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="Start a new draw, of the answers since the last one.")] = False,
    page: Annotated[bool, typer.Option("--page", help="Label on a page in the browser, on this machine only.")] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Ask nothing; print the estimate from the labels so far.")
    ] = False,
    store: StoreOption = None,
    task: TaskOption = DEFAULT_TASK,
    as_json: JsonOption = False,
) -> None:
    """Let people label which recorded answers are right, and estimate the quality in production.

    Type r for right, w for wrong, a and then the right answer, c for cannot tell, u to undo, q to stop: labels are
    kept, and the next call goes on from there. A second person labels the same answers with --by NAME; their agreement
    is printed. Exits 1 with too few labels for an estimate.

    \b
    Example:
      trimtab label
      trimtab label --draw uncertain --n 60
      trimtab label --by maria --page
      trimtab label answers.jsonl
      trimtab label --estimate --json
    """
    with Output(as_json) as output:
        own = task_from_options(task)
        from trimtab.cli.judging import ask_in_terminal, write_stderr
        from trimtab.upkeep.labels import label

        drawing: Drawing | None = "random" if draw is DrawMethod.random else "uncertain" if draw else None
        with label(file, task=own, questions=n, by=by, drawing=drawing, new=new, store=store) as session:
            if estimate:
                pass
            elif page and session.pending:
                from trimtab.cli.judging_page import AuditPage

                AuditPage(session, session.correct).serve(write_stderr)
            else:
                ask_in_terminal(session, session.correct)
            result = session.finish()
        output.show(result, lambda console: _draw(result, console))
    if result.quality is None:
        raise typer.Exit(EXIT_NO)


def _draw(summary: LabelSummary, console: Console) -> None:
    console.print("\n".join(_lines(summary)), markup=False, highlight=False, soft_wrap=True)


def _lines(summary: LabelSummary) -> Iterator[str]:
    unsure = f", {summary.unsure:,} that nobody can tell" if summary.unsure else ""
    yield f"{summary.labels:,} of {summary.answers:,} answers labelled{unsure}"
    if summary.unused:
        yield f"{summary.unused:,} labels wait for an answer drawn before them that is not labelled"
    yield from _quality_lines("", summary.quality)
    for one in summary.versions if len(summary.versions) > 1 else ():
        yield from _quality_lines(f"{one.arm} ({one.version}): ", one.quality)
    if summary.agreement is not None:
        from trimtab.measurement.raters import agreement_words

        yield agreement_words(summary.agreement)


def _quality_lines(name: str, quality: ProductionQuality | None) -> Iterator[str]:
    from trimtab.upkeep.production import FEWEST

    if quality is None:
        yield f"{name}from {FEWEST} labels on there is an estimate"
        return
    yield f"{name}right, by the labels alone: {_figure(quality.plain)}"
    if quality.powered is None:
        yield f"{name}the arm gives no probabilities of these answers, so the labels stand alone"
    else:
        saved = f"as with {quality.labels_saved:,} more labels" if quality.labels_saved else "no narrower"
        yield f"{name}with the arm's confidence:  {_figure(quality.powered)}, {saved}"


def _figure(figure: Estimate) -> str:
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"
