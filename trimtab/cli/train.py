"""The command `trimtab train`."""

from __future__ import annotations

import os
from functools import partial
from typing import Annotated

import typer

from trimtab.base.plugins import plugin
from trimtab.cli.options import (
    DEFAULT_TASK,
    AllowOption,
    ArmArgument,
    CommandsOption,
    JsonOption,
    NodeLabelOption,
    ResumeOption,
    TaskOption,
    TrackOption,
    machines_at,
    required_arm,
    task_from_options,
)
from trimtab.cli.output import Output


def command(
    words: ArmArgument,
    task_file: TaskOption = DEFAULT_TASK,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="The seed of the initial values and the order of the rows.")
    ] = 0,
    resume: ResumeOption = None,
    allow: AllowOption = None,
    allow_commands: CommandsOption = False,
    track: TrackOption = None,
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="ADDRESS",
            help="Train with all GPUs of a Ray cluster, or all its machines if none has a GPU: local, auto (this "
            "machine's cluster), or ray://HOST:PORT.",
        ),
    ] = None,
    node_label: NodeLabelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train one arm's weights and store them as a run.

    Under torchrun, or with --on, several processes train them together.

    \b
    Example:
      trimtab train lora
      trimtab train tickets/ lora+rag --seed 1
      trimtab train lora --resume
      trimtab train lora --track tensorboard
      torchrun --nproc-per-node 8 -m trimtab train full
      trimtab train full --on auto
    """
    with Output(as_json) as output:
        source, arm = required_arm(words)
        task = task_from_options(task_file, source)
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch logs stacks of lost connections, which we report
        from trimtab.model.process_group import launch_of
        from trimtab.studies.train import train

        launch = launch_of(os.environ)
        with machines_at(on, node_labels=node_label) as machines:
            if machines is None:
                train_once = train
            else:
                train_once = partial(plugin("trainers", "ray", f"--on {on}"), machines)
            run = train_once(
                task, arm, seed=seed, resume=resume, allow=allow or (), allow_commands=allow_commands, track=track
            )
        if launch is None or launch.rank == 0:
            output.record(run)
