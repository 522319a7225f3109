"""`trimtab init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.options import DEFAULT_TASK, JsonOption
from trimtab.cli.output import Output


def command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the data files are.")] = Path(),
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the task file instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a commented trimtab.toml from the data files.

    What was inferred from them is said; an existing file is never overwritten.

    \b
    Example:
      trimtab init tickets/
      trimtab init --schema > trimtab.schema.json
    """
    with Output(as_json or schema) as output:
        from trimtab.base.task import command as command_line
        from trimtab.studies.init import init

        text = init(folder, schema=schema)
        if schema:
            output.raw(text)
        else:
            file = folder / DEFAULT_TASK
            then = 'ask "…"' if "examples = []" in text else "check"
            told = f"{text}\nWrote {file}; next: {command_line(then, file)}"
            output.show(
                {"file": file, "text": text},
                lambda console: console.print(told, markup=False, highlight=False, soft_wrap=True),
            )
