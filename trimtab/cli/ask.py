"""`trimtab ask`."""

from __future__ import annotations

from typing import Annotated

import typer

from trimtab.cli.options import DEFAULT_TASK, AllowOption, JsonOption, TaskOption, loaded
from trimtab.cli.output import Output


def command(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="In quotes.")],
    task: TaskOption = DEFAULT_TASK,
    arm: Annotated[
        str | None,
        typer.Option(
            "--arm", metavar="ARM", help="The winner of the newest study unless given, else rag, else prompt."
        ),
    ] = None,
    allow: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer one question, with its sources.

    Works as soon as there are documents, with no labels at all.

    \b
    Example:
      trimtab ask "How many days of leave do I have?"
      trimtab ask "How many days of leave do I have?" --arm rag --json
    """
    with Output(as_json) as output:
        own = loaded(task)
        from trimtab.studies.ask import ask

        output.answer(ask(question, task=own, arm=arm, allow=allow or ()))
