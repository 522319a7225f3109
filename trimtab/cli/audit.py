"""The command `trimtab audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.base.errors import EXIT_NO, InputError
from trimtab.cli.options import DEFAULT_TASK, JsonOption, TaskOption
from trimtab.cli.output import Output

if TYPE_CHECKING:
    from rich.console import Console

    from trimtab.base.results import Estimate, HumanAudit
    from trimtab.studies.audit import StudyAudit


def command(
    study: Annotated[
        str,
        typer.Argument(metavar="[STUDY]", help="The ID or the folder of a finished study; by default the newest."),
    ] = "latest",
    n: Annotated[
        int | None,
        typer.Option(
            "--n",
            min=1,
            metavar="N",
            help="Number of test questions, of which all arms' answers are judged; by default as many as should settle "
            "the choice, and 100 at least.",
        ),
    ] = None,
    page: Annotated[bool, typer.Option("--page", help="Judge on a page in the browser, on this machine only.")] = False,
    by: Annotated[
        str | None, typer.Option("--by", metavar="NAME", help="Who judges; the user of this machine.")
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option(
            "--rows",
            metavar="FILE",
            help="Write what people graded as rows that teach a judge, with a task file beside them; nobody is asked.",
        ),
    ] = None,
    imported: Annotated[
        Path | None,
        typer.Option("--import", metavar="FILE", help="Take judgements from a file (CSV, JSON lines); ask nothing."),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option("--scale", metavar="WORST,BEST", help="Of imported grades that are numbers, such as 1,5."),
    ] = None,
    drawn_at_random: Annotated[
        bool, typer.Option("--drawn-at-random", help="Imported questions were drawn at random; else they count less.")
    ] = False,
    task: TaskOption = DEFAULT_TASK,
    as_json: JsonOption = False,
) -> None:
    """Let people judge which answers of a study are right, and decide the study again by their judgements.

    Answers are shown one by one, without the name of their arm; equal ones once. Type the key of a choice: r for right,
    w for wrong (y, p, n for the degrees of a judge), s to skip, u to undo, q to stop. Judgements are kept, and the next
    call goes on from there. From 60 questions on, scores and differences are corrected for the errors of the metric.
    Exits 1 while fewer are judged.

    A second person gives --by NAME, and is asked what is left, and one in five of the questions before. How far both
    agree is told.

    \b
    Example:
      trimtab audit
      trimtab audit 20261124T101500Z-3f2a9b --n 150
      trimtab audit --by maria --page
      trimtab audit --rows judging/graded.jsonl
      trimtab audit --import grades.csv --scale 1,5
    """
    with Output(as_json) as output:
        _require_file(imported, scale, drawn_at_random)
        if rows is not None:
            from trimtab.studies.graded_rows import write_graded_rows

            written = write_graded_rows(study, rows, task=task)
            output.show(written, lambda console: console.print(written.headline))
            return
        from trimtab.decision.caveats import still_needed
        from trimtab.studies.audit import audit

        session = audit(study, questions=n, by=by, task=task)
        if imported is not None:
            _import(session, imported, scale, drawn_at_random)
        else:
            _ask(session, page)
        result = session.finish()
        output.show(result, lambda console: _draw(result.headline, result.audit, console))
    if result.audit is None or still_needed(result.audit):
        raise typer.Exit(EXIT_NO)


def _require_file(imported: Path | None, scale: str | None, drawn_at_random: bool) -> None:
    """Refuse options that are about imported judgements, where none are imported."""
    given = "--scale" if scale is not None else "--drawn-at-random" if drawn_at_random else None
    if given and imported is None:
        raise InputError("says how judgements of a file are read", "name the file: --import FILE", field=given)


def _import(session: StudyAudit, file: Path, scale: str | None, drawn_at_random: bool) -> None:
    """Take judgements from a file, and say on standard error what was read."""
    from trimtab.cli.judging import write_stderr
    from trimtab.studies.audit_import import scale_from_text

    ends = None if scale is None else scale_from_text(scale)
    for note in session.import_judgements(file, scale=ends, drawn_at_random=drawn_at_random).notes:
        write_stderr(note)


def _ask(session: StudyAudit, page: bool) -> None:
    """Ask for judgements in the terminal or on a page, and say before how many are needed."""
    from trimtab.cli.judging import ask_in_terminal, write_stderr
    from trimtab.cli.judging_page import AuditPage

    notes = list(session.notes)
    for note in notes:
        write_stderr(note)
    if page and session.pending:
        AuditPage(session, outlook=session.outlook, notes=notes).serve(write_stderr)
    else:
        ask_in_terminal(session, outlook=session.outlook)


def _draw(headline: str, found: HumanAudit | None, console: Console) -> None:
    from rich.table import Table

    from trimtab.measurement.raters import agreement_words

    console.print(headline)
    if found is None or not found.arms:
        return
    for agreement in found.agreement:
        console.print(agreement_words(agreement), markup=False, highlight=False)
    table = Table(
        "arm", "sensitivity", "specificity", "kappa", "score by the metric", "corrected", title="The metric and people"
    )
    for arm in found.arms:
        figures = (arm.sensitivity, arm.specificity, arm.kappa, arm.metric_score, arm.corrected)
        table.add_row(arm.arm, *map(_figure, figures))
    console.print(table)


def _figure(figure: Estimate | None) -> str:
    return "" if figure is None else f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"
