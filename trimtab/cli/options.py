"""Options that several verbs share, so that the same word means the same everywhere."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.base.errors import InputError

if TYPE_CHECKING:
    from trimtab.base.task import Task
    from trimtab.data.columns import ColumnsError

SourceArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="PATH",
        help="A task file, a folder, a data file or a Hugging Face dataset id; a task file is written where there is none.",
    ),
]
InputOption = Annotated[
    str | None, typer.Option("--input", metavar="COLUMN", help="The column that is the input, where it is not told.")
]
LabelOption = Annotated[
    str | None, typer.Option("--label", metavar="COLUMN", help="The column of the label, one of a closed set.")
]
OutputOption = Annotated[
    str | None, typer.Option("--output", metavar="COLUMN", help="The column of the answer, where it is no label.")
]
RowsOption = Annotated[
    int | None,
    typer.Option(
        "--rows", metavar="N", help="Use N rows only: a seeded sample of train, dev and test by label, groups whole."
    ),
]
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
StoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="A file, or postgresql://USER@HOST/DATABASE; .trimtab/feedback.db."),
]
AddressOption = Annotated[
    str | None,
    typer.Option("--registry", metavar="URL", help="A file, or postgresql://USER@HOST/DATABASE; .trimtab/registry.db."),
]
ArtifactsOption = Annotated[
    str | None,
    typer.Option(
        "--artifacts", metavar="PLACE", help="Files of versions: a folder, or s3://BUCKET/FOLDER; beside the registry."
    ),
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
ArmArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="[PATH] ARM",
        help="A task file, a folder or a data file first, if not the one here; then the arm: prompt, rag, lora, lora+rag. ./lora is a folder.",
    ),
]

DEFAULT_TASK = Path("trimtab.toml")
_TWICE = "the task is named twice"


def loaded(path: Path, source: str | None = None, **columns: str | None) -> Task:
    """The task, read before its verb is imported, so that what is wrong with it is told without loading torch.

    `source`: the verb's first argument, which may be data without a task file, `columns` those that are named by role. Raises
    InputError where the task is named twice.
    """
    if source is not None and path != DEFAULT_TASK:
        raise InputError(_TWICE, "leave out --task or the first argument", field="--task")
    named = {role: column for role, column in columns.items() if column is not None}
    if source is None and not named:
        from trimtab.base.task import load_task

        return load_task(path)
    from trimtab.data.columns import ColumnsError
    from trimtab.studies.sources import task_at

    place = str(path) if source is None else source
    try:
        return task_at(place, named, _tell)
    except ColumnsError as error:
        return task_at(place, {**named, **_asked(error)}, _tell)


def say_loading() -> None:
    """Say on standard error that the heavy libraries are imported next, which takes seconds and else looks like nothing."""
    if "torch" not in sys.modules:
        _tell("Trimtab: loading PyTorch and transformers…")


def _tell(line: str) -> None:
    from trimtab.base.sanitize import visible

    typer.echo(visible(line), err=True)


def _asked(error: ColumnsError) -> dict[str, str]:
    """The columns that the user names at the terminal; raises InputError with the options that name them where there is none."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        options = f"--input {shlex.quote(error.input or 'COLUMN')} --label {shlex.quote(error.output or 'COLUMN')}"
        remedy = f"name them, as in {options} (--output in place of --label where answers are no closed set)"
        raise InputError(error.problem, remedy, file=error.file) from None
    _tell(f"{error.file}: {error.problem}.")
    choice = typer.prompt("Which column is the input?", default=error.input or None, err=True)
    answer = typer.prompt("Which column is the answer?", default=error.output or None, err=True)
    return {"input": choice, "output": answer}


def split_source(words: Sequence[str], *, arms: bool = True) -> tuple[str | None, list[str]]:
    """The folder or file that stands before the arguments of a verb, if any, and the other words.

    Where `arms` follow: a first word with a slash or a dot in it, or the name of something here that is no name of an arm. Else (a
    question follows): the first of several words, or the only one where it names something here.
    """
    if not words:
        return None, []
    first, *rest = words
    if not arms:
        is_source = bool(rest) or Path(first).exists()
    else:
        from trimtab.base.grammar import is_name_of_the_grammar

        is_source = "/" in first or "." in first or (Path(first).exists() and not is_name_of_the_grammar(first))
    return (first, rest) if is_source else (None, [*words])


def arm_at_most(words: Sequence[str]) -> tuple[str | None, str | None]:
    """The folder or file and the arm that a verb is given, each if any."""
    source, arms = split_source(words)
    if len(arms) > 1:
        raise typer.BadParameter(
            f"several arms: {', '.join(arms)}; name one, behind the folder or file if there is any"
        )
    return source, arms[0] if arms else None


def one_arm(words: Sequence[str]) -> tuple[str | None, str]:
    """The folder or file, if any, and the one arm that a verb is given."""
    source, arm = arm_at_most(words)
    if arm is None:
        raise typer.BadParameter("no arm is named; name one behind the folder or file, as in lora+rag")
    return source, arm


def found(path: Path, source: str | None) -> Task:
    """The task that is there: for verbs that need what others made, and so write no task file."""
    if source is not None and path != DEFAULT_TASK:
        raise InputError(_TWICE, "leave out --task or the first argument", field="--task")
    if source is None or Path(source).suffix == ".toml" or Path(source).is_dir():
        return loaded(path if source is None else Path(source))
    from trimtab.base.task import task_file_for

    return loaded(task_file_for(source))


def loaded_unless(bundle: Path | None, signed_by: Path | None, path: Path, source: str | None) -> Task | Path:
    """The task, unless a bundle, or the key of one, is named in its place; raises InputError where both are."""
    if bundle is None and signed_by is None:
        return loaded(path, source)
    if path != DEFAULT_TASK or source is not None:
        raise InputError("a bundle needs no task", "leave out --task and the folder", field="--bundle")
    return path
