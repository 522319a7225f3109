"""The command `trimtab init`."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from typing import Annotated

import typer

from trimtab.base.sanitize import printable, visible
from trimtab.cli.options import InputOption, JsonOption, LabelOption, OutputOption
from trimtab.cli.output import Output

EXAMPLE = 60  # characters of a value that are printed
FOUND = 6  # lines of what was found that are printed; a guess always is


def command(
    source: Annotated[
        str,
        typer.Argument(metavar="PATH", help="The folder of the data files, one file, or a Hugging Face dataset id."),
    ] = ".",
    input: InputOption = None,
    label: LabelOption = None,
    output: OutputOption = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the task file instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a commented trimtab.toml from the data files.

    Prints a short summary of what was inferred; the file begins with all of it. An existing file is never overwritten.

    \b
    Example:
      trimtab init tickets/
      trimtab init tickets.csv --input body --label queue
      trimtab init --schema > trimtab.schema.json
    """
    with Output(as_json or schema) as out:
        from trimtab.base.task import command as command_line
        from trimtab.base.task import task_file_for
        from trimtab.studies.init import init

        roles = {"input": input, "label": label, "output": output}
        asks = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
        text = init(
            source,
            columns={role: column for role, column in roles.items() if column},
            schema=schema,
            choose=_choose if asks else None,
        )
        if schema:
            out.raw(text)
        else:
            file = task_file_for(source)
            next_verb = 'ask "…"' if "examples = []" in text else "check"
            edit = f"Wrote {file}. Edit the instruction in it first: every arm reads it."
            message = "\n".join(
                [*_inferred_lines(text), edit, *_base_models(), f"Next: {command_line(next_verb, file)}"]
            )
            out.show(
                {"file": file, "text": text},
                lambda console: console.print(message, soft_wrap=True),
            )


def _inferred_lines(text: str) -> list[str]:
    """Return what was inferred, from the comment at the top of a new task file: FOUND lines of it, and every guess."""
    comment = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    lines = [line.removeprefix("#").strip() for line in comment][1:-1]  # without who wrote it, and what comes next
    guesses = [line for line in lines[FOUND:] if "a guess" in line]
    lines = [*lines[:FOUND], *guesses, *(line for line in lines[FOUND:] if line not in guesses)]
    shown = FOUND + len(guesses)
    more = [f"… and {len(lines) - shown} more lines at the top of the file"] if len(lines) > shown else []
    return [*lines[:shown], *more]


def _choose(guess: str, rivals: Mapping[str, str]) -> str:
    """Ask on the terminal which column is to be learnt; the guess is the default."""
    names = [guess, *rivals]
    notes = ["the guess", *(f"“{printable(value, EXAMPLE)}”" for value in rivals.values())]
    for number, (name, note) in enumerate(zip(names, notes, strict=True), start=1):
        typer.echo(visible(f"  [{number}] {name} ({note})"))
    number = 0
    while not 1 <= number <= len(names):
        number = typer.prompt("Which column is to be learnt?", default=1, type=int)
    return names[number - 1]


def _base_models() -> list[str]:
    """Return what the base model is for, and the larger ones that fit a fast machine, one per line."""
    from trimtab.model.suggestions import advice, free_memory, is_fast, models_that_fit

    if not is_fast():
        return [
            *advice((), 0.0),
            "Larger base models answer better and take longer here; trimtab doctor lists those that fit.",
        ]
    free = free_memory()
    return advice(models_that_fit(free), free.bytes / 1e9)
