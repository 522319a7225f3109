"""The command `trimtab traffic forget`."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from trimtab.base.errors import EXIT_NO, MissingError
from trimtab.cli.options import DEFAULT_TASK, JsonOption, StoreOption, TaskOption, task_from_options
from trimtab.cli.output import Output

HELP = "The answers that serve records if the task file has [traffic]."


def forget(
    user: Annotated[
        str, typer.Option("--user", metavar="KEY", help="The user named in requests, a key, or its SHA-256.")
    ],
    store: StoreOption = None,
    task: TaskOption = DEFAULT_TASK,
    as_json: JsonOption = False,
) -> None:
    """Delete a user's questions and answers, their labels, and the user's feedback.

    Exits 1 if there is nothing of this user.

    \b
    Example:
      trimtab traffic forget --user customer-1742
      trimtab traffic forget --user 5f0c…9ab1 --store postgresql://trimtab@db.example/feedback
    """
    with Output(as_json) as output:
        own = task_from_options(task)
        from trimtab.serving.feedback import open_feedback_store
        from trimtab.serving.traffic_store import traffic_of

        deleted = {"answers": 0, "judgements": 0}
        with suppress(MissingError), traffic_of(own, store, make=False) as traffic:
            deleted["answers"] = traffic.forget(user)
        with suppress(MissingError), open_feedback_store(own, store, make=False) as judgements:
            deleted["judgements"] = judgements.forget(user)
        output.show(deleted, lambda console: console.print(_sentence(deleted), markup=False, highlight=False))
    if not any(deleted.values()):
        raise typer.Exit(EXIT_NO)


def _sentence(deleted: dict[str, int]) -> str:
    return f"deleted {deleted['answers']:,} answers with their labels, and {deleted['judgements']:,} judgements"


app = typer.Typer(help=HELP, rich_markup_mode=None)
app.command("forget")(forget)
