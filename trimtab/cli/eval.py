"""The command `trimtab eval`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from trimtab.cli.options import (
    DEFAULT_TASK,
    AllowOption,
    ArmArgument,
    CommandsOption,
    EightBitOption,
    JsonOption,
    RunOption,
    TaskOption,
    required_arm,
    task_from_options,
)
from trimtab.cli.output import Output


class HeldOutSplit(StrEnum):
    """The splits that an arm can be scored on."""

    dev = "dev"
    test = "test"


def command(
    words: ArmArgument,
    task_file: TaskOption = DEFAULT_TASK,
    split: Annotated[
        HeldOutSplit, typer.Option("--split", help="The split to score on; scores on test are counted in the manifest.")
    ] = HeldOutSplit.dev,
    run: RunOption = None,
    eight_bit: EightBitOption = False,
    allow: AllowOption = None,
    allow_commands: CommandsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Score one arm, with the 95% interval.

    With --eight-bit the arm answers twice, with its own weights and with 8-bit weights; the loss, its interval and the
    speed-up are printed.

    \b
    Example:
      trimtab eval rag
      trimtab eval tickets/ rag
      trimtab eval lora --split test --run 20261124T101500Z-3f2a9b
      trimtab eval lora+rag --split test --eight-bit
    """
    with Output(as_json) as output:
        source, arm = required_arm(words)
        task = task_from_options(task_file, source)
        from trimtab.studies.eval import eval

        result = eval(
            task,
            arm,
            split=split.value,
            run=run,
            eight_bit=eight_bit,
            allow=allow or (),
            allow_commands=allow_commands,
        )
        output.arm(result)
