"""The command `trimtab init`."""

from __future__ import annotations

from typing import Annotated

import typer

from trimtab.cli.options import InputOption, JsonOption, LabelOption, OutputOption
from trimtab.cli.output import Output


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

    Prints what was inferred from them. An existing file is never overwritten.

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
            next_verb = 'ask "…"' if "examples = []" in text else "check"
            message = f"{text}\n{_base_models()}Wrote {file}; next: {command_line(next_verb, file)}"
            out.show(
                {"file": file, "text": text},
                lambda console: console.print(message, markup=False, highlight=False, soft_wrap=True),
            )


def _base_models() -> str:
    """Return what the base model of the new task file is for, and larger models that fit this machine, one per line."""
    from trimtab.model.instruct import advice, free_memory, models_that_fit

    free = free_memory()
    return "".join(f"{line}\n" for line in advice(models_that_fit(free), free.bytes / 1e9))
