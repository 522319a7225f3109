"""The command `trimtab test`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.cli.options import DEFAULT_TASK, ExistingSourceArgument, JsonOption, TaskOption, existing_task
from trimtab.cli.output import Output

if TYPE_CHECKING:
    from rich.console import Console

    from trimtab.studies.held_out import HeldOut


def command(
    source: ExistingSourceArgument = None,
    task_file: TaskOption = DEFAULT_TASK,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Draw a new test set first; the old test rows become training rows.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Report how many studies have used the test questions, or draw new ones.

    Each further study on the same questions is tested more strictly. A fresh test set is drawn from training rows that
    no study has tested on.

    \b
    Example:
      trimtab test
      trimtab test --fresh
    """
    with Output(as_json) as output:
        task = existing_task(task_file, source)
        from trimtab.studies.held_out import held_out

        result = held_out(task, fresh=fresh)
        output.show(result, lambda console: _draw(result, console))


def _draw(result: HeldOut, console: Console) -> None:
    times = {0: "no study has", 1: "1 study has"}.get(result.looks, f"{result.looks} studies have")
    console.print(
        f"{result.questions:,} test questions; {times} opened them; the next is tested at {result.next_level:.2g}.",
        soft_wrap=True,
    )
