"""Options that several verbs share, so that the same word means the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.base.errors import InputError

if TYPE_CHECKING:
    from trimtab.base.task import Task

TaskOption = Annotated[
    Path, typer.Option("--task", "-t", metavar="PATH", help="The task file, or the folder it is in.")
]
EightBitOption = Annotated[
    bool, typer.Option("--eight-bit", help="Answer with weights of 8 bits: faster on a processor, at some loss.")
]
BundleOption = Annotated[
    Path | None, typer.Option("--bundle", metavar="FOLDER", help="An exported bundle, in place of a task file.")
]
SignedByOption = Annotated[
    Path | None,
    typer.Option("--signed-by", metavar="KEY", help="The public key (PEM) that must have signed the bundle."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
CommandsOption = Annotated[bool, typer.Option("--allow-commands", help="Let the task file's scorer program run.")]
AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="WHAT",
        help="Let the task file send questions to this address (VARIABLE@ADDRESS: with this key), or read this file or folder.",
    ),
]
ResumeOption = Annotated[
    str | None,
    typer.Option("--resume", metavar="[ID]", help="Go on with an unfinished one: the newest unless an ID is given."),
]
TrackOption = Annotated[
    str | None,
    typer.Option(
        "--track",
        metavar="NAME",
        help="Hand the figures of training to tensorboard, wandb, mlflow or trackio, which is installed apart.",
    ),
]
ArmArgument = Annotated[str, typer.Argument(metavar="ARM", help="For example prompt, rag, lora, lora+rag.")]

DEFAULT_TASK = Path("trimtab.toml")


def loaded(path: Path) -> Task:
    """The task, read before its verb is imported, so that what is wrong with it is told without loading torch."""
    from trimtab.base.task import load_task

    return load_task(path)


def loaded_unless(bundle: Path | None, signed_by: Path | None, path: Path) -> Task | Path:
    """The task, unless a bundle, or the key of one, is named in its place; raises InputError where both are."""
    if bundle is None and signed_by is None:
        return loaded(path)
    if path != DEFAULT_TASK:
        raise InputError("a bundle needs no task", "leave out --task", field="--bundle")
    return path
