"""The command `trimtab serve`."""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.base.errors import InputError, PackageError
from trimtab.base.plugins import plugin
from trimtab.base.sanitize import visible
from trimtab.cli.options import (
    DEFAULT_TASK,
    AddressOption,
    AllowOption,
    ArtifactsOption,
    BundleOption,
    EightBitOption,
    JsonOption,
    SignedByOption,
    TaskOption,
    say_loading,
    split_source,
    takes_options,
    task_from_options,
    task_unless_bundle,
)
from trimtab.cli.output import Output
from trimtab.serving.options import DEFAULT_OPTIONS, ServerOptions

if TYPE_CHECKING:
    from trimtab.base.task import Task
    from trimtab.serving.releases import Followed, OpenFollowed
    from trimtab.serving.serve import RunningServer

ArmsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PATH] [ARM]...",
        help=(
            "A task file or its folder, by default the one here; arms, by default the winner of the newest "
            "study; all for all its arms."
        ),
    ),
]
RunOption = Annotated[
    str | None, typer.Option("--run", metavar="ID", help="Use the weights of this training run or study.")
]
NewKeyOption = Annotated[
    str | None,
    typer.Option("--new-key", metavar="NAME", help="Add a key to the file of --keys, print it once, and exit."),
]
NamesUsersOption = Annotated[
    bool,
    typer.Option(
        "--names-users",
        help="Of a new key: its owner gives out users' names, each one voter of a canary; else the key is one voter.",
    ),
]
UnequalOption = Annotated[bool, typer.Option("--unequal", help="Serve even if answers differ from the measured ones.")]
FollowAliasOption = Annotated[
    str | None,
    typer.Option(
        "--alias", metavar="NAME", help="Serve the version that this registry alias names, and follow the alias."
    ),
]

PACKAGES = ("fastapi", "uvicorn", "prometheus_client")  # without which there is no server


@takes_options("server", ServerOptions)
def command(
    words: ArmsArgument = None,
    task: TaskOption = DEFAULT_TASK,
    bundle: BundleOption = None,
    signed_by: SignedByOption = None,
    run: RunOption = None,
    server: ServerOptions = DEFAULT_OPTIONS,
    new_key: NewKeyOption = None,
    names_users: NamesUsersOption = False,
    unequal: UnequalOption = False,
    eight_bit: EightBitOption = False,
    alias: FollowAliasOption = None,
    registry: AddressOption = None,
    artifacts: ArtifactsOption = None,
    allow: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve arms behind an OpenAI-compatible API, with a page to try them and give feedback.

    With --eight-bit arms answer with 8-bit weights, once eval --eight-bit has measured the loss on test.
    With --alias the server follows an alias of the registry: a new version is loaded beside the old one, checked, and
    takes over between two requests; if that fails the old one goes on. With --alias production a canary's candidate
    answers its share of the users.
    With --json the server's address, token and arms are printed once it answers.

    \b
    Example:
      trimtab serve
      trimtab serve all --port 8080
      trimtab serve tickets/ lora
      trimtab serve --bundle winner/
      trimtab serve --alias production
      trimtab serve --new-key team-a --keys keys.json
      trimtab serve lora+rag --host 0.0.0.0 --name support.example.org --keys keys.json
    """
    if new_key is not None:
        _print_new_key(server.keys, new_key, names_users=names_users, as_json=as_json)
        return
    source, arms = split_source(words or ())
    served_task = _task_to_follow(task, source) if alias else task_unless_bundle(bundle, signed_by, task, source)
    for package in PACKAGES:
        if find_spec(package) is None:
            raise PackageError(package, "serve", "trimtab serve")
    say_loading()
    try:
        from trimtab.serving.serve import serve
        from trimtab.serving.worker import THREAD_NAME
    except ModuleNotFoundError as error:
        raise PackageError(error.name or "fastapi", "serve", "trimtab serve") from None

    with Output(as_json) as output, _open_followed(served_task, alias, registry, artifacts, server.store) as followed:
        serve(
            arms,
            task=served_task,
            bundle=bundle,
            signed_by=signed_by,
            follow=followed.follow if followed else None,
            canaries=followed.canaries if followed else None,
            run=run,
            server=server,
            unequal=unequal,
            eight_bit=eight_bit,
            allow=allow or (),
            on_ready=output.record if as_json else _print_ready,
        )
    _exit_if_hanging(THREAD_NAME)


def _task_to_follow(path: Path, source: str | None) -> Task:
    """Return the task of an alias; its rows and documents need not be here, since each version brings what it needs."""
    from trimtab.base.task import load_task

    task = Path(source or path)
    if (source is not None and path != DEFAULT_TASK) or not (task.is_dir() or task.suffix == ".toml"):
        return task_from_options(path, source)  # named twice, or a data file
    return load_task(task, needs_data=False)


def _open_followed(
    task: Task | Path, alias: str | None, address: str | None, artifacts: str | None, store: str | None
) -> AbstractContextManager[Followed | None]:
    """Context manager: the alias that is followed, None if none is named."""
    if alias is not None:
        follow: OpenFollowed = plugin("releases", "registry", f"--alias {alias}")
        return follow(task, alias, address, artifacts=artifacts, store=store)
    if address is not None or artifacts is not None:
        raise InputError("a registry, and no alias of it", "name it with --alias", field="--alias")
    return nullcontext()


def _exit_if_hanging(thread_name: str) -> None:
    """End the process if a worker thread still runs: a hanging endpoint holds connections, for which Python would
    wait."""
    if any(thread.name == thread_name for thread in threading.enumerate()):
        sys.stderr.flush()
        os._exit(0)


def _print_new_key(keys: Path | None, name: str, *, names_users: bool, as_json: bool) -> None:
    if keys is None:
        raise InputError("no file for the key", "name one with --keys FILE", field="--new-key")
    from trimtab.serving.access import add_key

    key = add_key(keys, name, names_users=names_users)
    typer.echo(json.dumps({"name": name, "key": key}) if as_json else key)


def _print_ready(serving: RunningServer) -> None:
    """Print the models, their self-check, and the address."""
    if serving.release:
        typer.echo(f"{serving.release.alias} names version {serving.release.version}", err=True)
    for model, (arm, check) in zip(serving.models, serving.checks.items(), strict=True):
        text = check.sentence if check else "not measured by a study yet"
        if arm in serving.silent:
            text = f"does not answer now: {visible(serving.silent[arm])}"
        cost = serving.eight_bit.get(arm)
        typer.echo(f"{model:<24} {text}{'; ' + cost.sentence if cost else ''}", err=True)
    token = serving.token
    typer.echo(f"Page: {serving.url}/" + (f"?token={token}" if token else ""), err=True)
    typer.echo(f"API:  {serving.url}/v1" + (f"   key: {token}" if token else ""), err=True)
