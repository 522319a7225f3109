"""The command `trimtab ask`."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.base.errors import InputError, RemoteError
from trimtab.base.progress import stop_asked
from trimtab.base.sanitize import visible
from trimtab.cli.options import (
    DEFAULT_TASK,
    AllowOption,
    BundleOption,
    JsonOption,
    SignedByOption,
    TaskOption,
    split_source,
    task_unless_bundle,
)
from trimtab.cli.output import Output

if TYPE_CHECKING:
    from trimtab.studies.ask import Conversation

HELP = "Type a question and Enter; /new starts a new conversation, /end or Ctrl-D ends."


def command(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH] [QUESTION]",
            help=(
                "The question in quotes; without one a conversation, or one question per line from a pipe. Of "
                "two arguments the first is the folder or file; a single argument is, if it exists."
            ),
        ),
    ] = None,
    task_file: TaskOption = DEFAULT_TASK,
    bundle: BundleOption = None,
    signed_by: SignedByOption = None,
    arm: Annotated[
        str | None,
        typer.Option(
            "--arm",
            metavar="ARM",
            help=(
                "The arm, with the documents as they are now; by default the version in production, else the winner of "
                "the newest study, else the arm that scored highest in it. Without a study: extract if the task has "
                "documents (rag if answers are labels), else prompt."
            ),
        ),
    ] = None,
    allow: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question with its sources, hold a conversation, or answer the questions of a pipe.

    It needs documents, and no labels. In a conversation every question is asked with the turns before it;
    in a pipe each line is a separate question, answered by a line of JSON with --json.

    \b
    Example:
      trimtab ask "How many days of leave do I have?"
      trimtab ask handbook/ "How many days of leave do I have?"
      trimtab ask --arm rag
      trimtab ask --json < questions.txt
      trimtab ask --bundle winner/
    """
    with Output(as_json) as output:
        source, asked = split_source(words or (), arms=False)
        if len(asked) > 1:
            raise typer.BadParameter("several questions; write one, in quotes")
        question = asked[0] if asked else None
        task = task_unless_bundle(bundle, signed_by, task_file, source)
        if question is None and sys.stdin.isatty() and as_json:
            raise InputError("a conversation is not JSON", "give a question, or questions by a pipe", field="--json")
        if question is not None:
            from trimtab.studies.ask import ask

            output.answer(ask(question, task=task, bundle=bundle, signed_by=signed_by, arm=arm, allow=allow or ()))
            return
        from trimtab.studies.ask import conversation

        with conversation(task=task, bundle=bundle, signed_by=signed_by, arm=arm, allow=allow or ()) as talk:
            if sys.stdin.isatty():
                _talk(talk, output)
                return
            for line in _lines():
                talk.forget()
                output.answer(talk.ask(line), indent=None)


def _lines() -> Iterator[str]:
    """Yield the questions of a pipe as they come; invalid UTF-8 is refused when the question is asked."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    for line in sys.stdin:
        if line.strip():
            yield line.strip()


def _talk(talk: Conversation, output: Output) -> None:
    """Hold a conversation until the user ends it; Ctrl-C stops an answer, and at the prompt the conversation."""
    typer.echo(f"{talk.task.task.name}, {talk.arm.name}. {HELP}", err=True)
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            typer.echo(err=True)
            return
        if question in ("/end", "/new", "/help"):
            if question == "/end":
                return
            if question == "/new":
                talk.forget()
            typer.echo(HELP if question == "/help" else "(begun anew)", err=True)
        elif question:
            try:
                result = talk.ask(question, lambda piece: typer.echo(visible(piece), nl=False))
            except KeyboardInterrupt:
                stop_asked.clear()  # only this answer was to stop
                typer.echo(" …")
            except (InputError, RemoteError) as error:  # the next question may be answered; the conversation stays
                typer.echo(f"trimtab: {visible(str(error))}", err=True)
            else:
                typer.echo()
                output.sources(result)
