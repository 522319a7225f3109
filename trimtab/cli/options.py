"""Options that several verbs share, so that the same name means the same everywhere."""

from __future__ import annotations

import functools
import inspect
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from trimtab.base.errors import InputError
from trimtab.base.plugins import plugin

if TYPE_CHECKING:
    from trimtab.base.task import Task
    from trimtab.data.columns import ColumnsError
    from trimtab.studies.jobs import Machines

SourceArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="PATH",
        help=(
            "A task file, a folder, a data file or a Hugging Face dataset id; a task file is written if there is none."
        ),
    ),
]
ExistingSourceArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="PATH",
        help="A task file, its folder, or a data file beside it; by default the task file here. None is written.",
    ),
]
InputOption = Annotated[
    str | None, typer.Option("--input", metavar="COLUMN", help="The input column, if it cannot be detected.")
]
LabelOption = Annotated[
    str | None,
    typer.Option("--label", metavar="COLUMN", help="The label column, if answers are labels of a closed set."),
]
OutputOption = Annotated[
    str | None, typer.Option("--output", metavar="COLUMN", help="The answer column, if answers are free text.")
]
NodeLabelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--node-label",
        metavar="KEY=VALUE",
        help="With --on: use only machines that have this label in Ray; several times for several labels.",
    ),
]
RowsOption = Annotated[
    int | None,
    typer.Option(
        "--rows",
        metavar="N",
        help="Use N rows only: a seeded, stratified sample of train, dev and test; groups stay whole.",
    ),
]
TaskOption = Annotated[
    Path, typer.Option("--task", "-t", metavar="PATH", help="The task file, or the folder it is in.")
]
EightBitOption = Annotated[
    bool, typer.Option("--eight-bit", help="Answer with 8-bit weights: faster on a CPU, at some loss.")
]
BundleOption = Annotated[
    Path | None, typer.Option("--bundle", metavar="FOLDER", help="An exported bundle instead of a task file.")
]
SignedByOption = Annotated[
    Path | None,
    typer.Option("--signed-by", metavar="KEY", help="The public key (PEM) that must have signed the bundle."),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="The feedback store: a file, or postgresql://USER@HOST/DATABASE; by default .trimtab/feedback.db.",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--registry",
        metavar="URL",
        help="The registry: a file, or postgresql://USER@HOST/DATABASE; by default .trimtab/registry.db.",
    ),
]
ArtifactsOption = Annotated[
    str | None,
    typer.Option(
        "--artifacts",
        metavar="PLACE",
        help="Files of versions: a folder, or s3://BUCKET/FOLDER; by default beside the registry.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
CommandsOption = Annotated[
    bool,
    typer.Option(
        "--allow-commands",
        help=(
            "Allow programs of the task file to run (its scorer, its reward), and code that a model writes, against "
            "the tests of the rows."
        ),
    ),
]
AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="WHAT",
        help=(
            "Allow the task file to send questions to this address (VARIABLE@ADDRESS: with this key), to keep its "
            "documents in this store, or to read this file or folder."
        ),
    ),
]
ByOption = Annotated[
    str | None, typer.Option("--by", metavar="NAME", help="Who does it; by default the user of this machine.")
]
RunOption = Annotated[
    str | None,
    typer.Option("--run", metavar="ID", help="Use the weights of this training run or study; by default the newest."),
]
ResumeOption = Annotated[
    str | None,
    typer.Option("--resume", metavar="[ID]", help="Resume an unfinished one: by default the newest."),
]
TrackOption = Annotated[
    str | None,
    typer.Option(
        "--track",
        metavar="NAME",
        help="Send training metrics to tensorboard, wandb, mlflow or trackio, which must be installed.",
    ),
]
ArmArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="[PATH] ARM",
        help=(
            "A task file, a folder or a data file first, by default the task here; then the arm: prompt, rag, "
            "lora, lora+rag. ./lora is a folder."
        ),
    ),
]

DEFAULT_TASK = Path("trimtab.toml")


def takes_options(parameter: str, record: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator of a command: an option for every field of a dataclass, in place of the parameter that takes one.

    The fields are annotated as the parameters of a command are.
    """
    hints = get_type_hints(record, include_extras=True)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    options = [
        inspect.Parameter(item.name, kind, default=item.default, annotation=hints[item.name]) for item in fields(record)
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_record(**values: Any) -> None:
            given = {option.name: values.pop(option.name) for option in options}
            command(**values, **{parameter: record(**given)})

        signature = inspect.signature(command, eval_str=True)
        named = [options if item.name == parameter else [item] for item in signature.parameters.values()]
        parameters = [item for group in named for item in group]
        with_record.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        with_record.__annotations__ = {item.name: item.annotation for item in parameters}
        return with_record

    return decorate


def task_from_options(path: Path, source: str | None = None, **columns: str | None) -> Task:
    """Return the task, read before its verb is imported, so that errors in it are reported without loading torch.

    `source`: the verb's first argument, which may be data without a task file; `columns`: columns named by role. Raises
    InputError if the task is named twice.
    """
    _require_one_task(path, source)
    columns_given = {role: column for role, column in columns.items() if column is not None}
    if source is None and not columns_given:
        from trimtab.base.task import load_task

        return load_task(path)
    from trimtab.data.columns import ColumnsError
    from trimtab.studies.sources import task_at

    location = str(path) if source is None else source
    try:
        return task_at(location, columns_given, _print_note)
    except ColumnsError as error:
        return task_at(location, {**columns_given, **_ask_columns(error)}, _print_note)


def _require_one_task(path: Path, source: str | None) -> None:
    if source is not None and path != DEFAULT_TASK:
        raise InputError("the task is named twice", "leave out --task or the first argument", field="--task")


def machines_at(
    address: str | None, store: str | None = None, node_labels: Sequence[str] | None = None
) -> AbstractContextManager[Machines | None]:
    """Return a context manager that connects to the machines at an address; it yields None if no address is given.

    `store`: an object store for their files. `node_labels`: as `KEY=VALUE`, those that a machine must have.
    """
    if address is None:
        for option, given in (("--node-label", node_labels), ("--store", store)):
            if given:
                raise typer.BadParameter("is for the machines that --on names; add it", param_hint=option)
        return nullcontext()
    labels: dict[str, str] = {}
    for label in node_labels or ():
        key, equals, value = label.partition("=")
        if not key or not equals or key in labels:
            problem = f"gives two values to {key}" if key in labels else f"{label!r} is not KEY=VALUE"
            raise typer.BadParameter(problem, param_hint="--node-label")
        labels[key] = value
    connect: Callable[..., AbstractContextManager[Machines]] = plugin("machines", "ray", f"--on {address}")
    return connect(address, store, labels)


def say_loading() -> None:
    """Print on standard error that the heavy libraries are imported next, which takes seconds without other output."""
    if "torch" not in sys.modules:
        _print_note("Trimtab: loading PyTorch and transformers…")


def _print_note(line: str) -> None:
    from trimtab.base.sanitize import visible

    typer.echo(visible(line), err=True)


def _ask_columns(error: ColumnsError) -> dict[str, str]:
    """Ask for the columns on the terminal; raises InputError with the options that name them without one."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        options = f"--input {shlex.quote(error.input or 'COLUMN')} --label {shlex.quote(error.output or 'COLUMN')}"
        remedy = f"name them, as in {options} (--output in place of --label where answers are no closed set)"
        raise InputError(error.problem, remedy, file=error.file) from None
    _print_note(f"{error.file}: {error.problem}.")
    choice = typer.prompt("Which column is the input?", default=error.input or None, err=True)
    answer = typer.prompt("Which column is the answer?", default=error.output or None, err=True)
    return {"input": choice, "output": answer}


def split_source(words: Sequence[str], *, arms: bool = True) -> tuple[str | None, list[str]]:
    """Split the arguments of a verb into the leading folder or file, if any, and the other words.

    If `arms` follow: a first word with a slash or a dot, or the name of an existing file that is no name of an arm.
    Otherwise (a question follows): the first of several words, or the only one if it names an existing file.
    """
    if not words:
        return None, []
    first, *rest = words
    if not arms:
        is_source = bool(rest) or Path(first).exists()
    else:
        from trimtab.base.grammar import is_grammar_name

        is_source = "/" in first or "." in first or (Path(first).exists() and not is_grammar_name(first))
    return (first, rest) if is_source else (None, [*words])


def optional_arm(words: Sequence[str]) -> tuple[str | None, str | None]:
    """Return the folder or file and the arm of a verb's arguments, each None if missing."""
    source, arms = split_source(words)
    if len(arms) > 1:
        raise typer.BadParameter(
            f"several arms: {', '.join(arms)}; name one, behind the folder or file if there is any"
        )
    return source, arms[0] if arms else None


def required_arm(words: Sequence[str]) -> tuple[str | None, str]:
    """Return the folder or file (None if missing) and the arm of a verb's arguments."""
    source, arm = optional_arm(words)
    if arm is None:
        raise typer.BadParameter("no arm is named; name one behind the folder or file, as in lora+rag")
    return source, arm


def existing_task(path: Path, source: str | None) -> Task:
    """Return an existing task, for verbs that need the results of others, and so write no task file."""
    _require_one_task(path, source)
    if source is None or Path(source).suffix == ".toml" or Path(source).is_dir():
        return task_from_options(path if source is None else Path(source))
    from trimtab.base.task import task_file_for

    return task_from_options(task_file_for(source))


def task_unless_bundle(bundle: Path | None, signed_by: Path | None, path: Path, source: str | None) -> Task | Path:
    """Return the task, unless a bundle or its key is named instead; raises InputError if both are."""
    if bundle is None and signed_by is None:
        return task_from_options(path, source)
    if path != DEFAULT_TASK or source is not None:
        raise InputError("a bundle needs no task", "leave out --task and the folder", field="--bundle")
    return path
