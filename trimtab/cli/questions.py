"""The command `trimtab questions`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimtab.base.errors import EXIT_NO
from trimtab.cli.options import (
    DEFAULT_TASK,
    AllowOption,
    JsonOption,
    SourceArgument,
    TaskOption,
    say_loading,
    task_from_options,
)
from trimtab.cli.output import Output

if TYPE_CHECKING:
    from trimtab.base.task import Task
    from trimtab.studies.questions import QuestionsResult


def command(
    source: SourceArgument = None,
    n: Annotated[
        int, typer.Option("--n", min=1, metavar="N", help="Draft until so many questions wait for a person.")
    ] = 100,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="facts|base|api-NAME",
            help="What drafts: facts in the text (English), the base model, or an endpoint, which is sent passages.",
        ),
    ] = "facts",
    asked: Annotated[
        Path | None,
        typer.Option(
            "--asked",
            metavar="FILE",
            help="Questions that people asked, one a line; each gets the sentence that answers it best.",
        ),
    ] = None,
    page: Annotated[bool, typer.Option("--page", help="Read on a page in the browser, on this machine only.")] = False,
    who: Annotated[
        str | None, typer.Option("--who", metavar="NAME", help="Who reads; the user of this machine.")
    ] = None,
    task_file: TaskOption = DEFAULT_TASK,
    allow: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draft questions from documents, and approve, mend or refuse them.

    Type a to approve, r to refuse, m and then the right answer or a better question, s to skip, u to undo, q to stop:
    what was said is kept, and the next call goes on from there. Only approved questions count; `study` and `check`
    take them where the task has no others, and every figure says that they are drafted. Exits 1 while none is approved.

    \b
    Example:
      trimtab questions handbook/
      trimtab questions --page
      trimtab questions --by api-big --n 50
      trimtab questions --asked searches.txt
    """
    with Output(as_json) as output:
        task = task_from_options(task_file, source)
        say_loading()
        result = draft_and_read(task, page=page, count=n, by=by, asked=asked, who=who, allow=allow or ())
        output.show(result, lambda console: console.print(result.headline, markup=False, highlight=False))
    if not result.usable:
        raise typer.Exit(EXIT_NO)


def draft_and_read(task: Task, *, page: bool = False, **options: Any) -> QuestionsResult:
    """Draft questions (`options`: those of `trimtab.questions`) and let a person read them, here or on a page."""
    from trimtab.cli.judging import ask_in_terminal, write_stderr
    from trimtab.cli.judging_page import AuditPage
    from trimtab.measurement.judging_session import REVIEW_FORM
    from trimtab.studies.questions import questions

    review = questions(task, **options)
    notes = list(review.notes)
    for note in notes:
        write_stderr(note)
    if page and review.pending:
        AuditPage(review, review.correct, notes=notes, form=REVIEW_FORM).serve(write_stderr)
    else:
        ask_in_terminal(review, review.correct, form=REVIEW_FORM)
    return review.finish()
