"""`trimtab init`."""

from __future__ import annotations

import itertools
from typing import Annotated

import typer

from trimtab.cli.options import InputOption, JsonOption, LabelOption, OutputOption
from trimtab.cli.output import Output

FOUND = 3  # lines of what was found that are printed


def command(
    source: Annotated[
        str,
        typer.Argument(metavar="PATH", help="Where the data files are, one of them, or a Hugging Face dataset id."),
    ] = ".",
    input: InputOption = None,
    label: LabelOption = None,
    output: OutputOption = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the task file instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a commented trimtab.toml from the data files.

    What was found is said in a few lines, and in full at the top of the file; an existing file is never overwritten.

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
        text = init(source, columns={role: column for role, column in roles.items() if column}, schema=schema)
        if schema:
            out.raw(text)
        else:
            file = task_file_for(source)
            then = 'ask "…"' if "examples = []" in text else "check"
            edit = f"Wrote {file}. Edit the instruction in it first: every arm reads it."
            told = "\n".join([*_found(text), edit, *_base_models(), f"Next: {command_line(then, file)}"])
            out.show(
                {"file": file, "text": text},
                lambda console: console.print(told, markup=False, highlight=False, soft_wrap=True),
            )


def _found(text: str) -> list[str]:
    """What was found, from the comment that a new task file begins with: FOUND lines, and how many more it has."""
    comment = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    lines = [line.removeprefix("#").strip() for line in comment][1:-1]  # without who wrote it, and what comes next
    more = [f"… and {len(lines) - FOUND} more lines at the top of the file"] if len(lines) > FOUND else []
    return [*lines[:FOUND], *more]


def _base_models() -> list[str]:
    """What the base model of the new task file is for; larger ones that fit this machine, a line each, where it is fast enough for them."""
    from trimtab.model.instruct import advice, free_memory, is_fast, models_that_fit

    if not is_fast():
        return [
            *advice((), 0.0),
            "Larger base models answer better and take longer here; trimtab doctor lists those that fit.",
        ]
    free = free_memory()
    return advice(models_that_fit(free), free.bytes / 1e9)
