"""`trimtab serve`."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.base.errors import InputError, PackageError
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
    loaded_unless,
    say_loading,
    split_source,
)
from trimtab.cli.output import Output

if TYPE_CHECKING:
    from trimtab.base.task import Task
    from trimtab.serving.follow import CanarySource, Follow
    from trimtab.serving.serve import Serving

ArmsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PATH] [ARM]...",
        help="A task file or its folder, if not the one here; arms: the winner of the newest study unless given, all for every arm of it.",
    ),
]
RunOption = Annotated[str | None, typer.Option("--run", metavar="ID", help="Weights of this training run or study.")]
HostOption = Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Where to listen.")]
PortOption = Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help="0 takes a free one.")]
KeysOption = Annotated[
    Path | None,
    typer.Option("--keys", metavar="FILE", help="Hashes of the keys that open it, in place of a start token."),
]
NewKeyOption = Annotated[
    str | None, typer.Option("--new-key", metavar="NAME", help="Add a key to FILE, print it once, and end.")
]
NamesOption = Annotated[
    list[str] | None, typer.Option("--name", metavar="HOST", help="A further host name that it goes by.")
]
CertificateOption = Annotated[
    Path | None, typer.Option("--certificate", metavar="FILE", help="PEM file, for https; --private-key beside it.")
]
PrivateKeyOption = Annotated[
    Path | None, typer.Option("--private-key", metavar="FILE", help="PEM file of the certificate's key.")
]
MostOption = Annotated[
    int,
    typer.Option(
        "--most", metavar="N", min=1, help="Requests that may run or wait at most; a slow machine takes fewer."
    ),
]
UnequalOption = Annotated[
    bool, typer.Option("--unequal", help="Serve even where answers do not come out as they were measured.")
]
LogTextsOption = Annotated[bool, typer.Option("--log-texts", help="Write questions and answers into the log.")]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="URL", help="Judgements: a file, or postgresql://USER@HOST/DATABASE; .trimtab/feedback.db."
    ),
]
AliasOption = Annotated[
    str | None,
    typer.Option("--alias", metavar="NAME", help="What this alias of the registry names, now and from then on."),
]

PACKAGES = ("fastapi", "uvicorn", "prometheus_client")  # without which there is no server


def command(
    words: ArmsArgument = None,
    task: TaskOption = DEFAULT_TASK,
    bundle: BundleOption = None,
    signed_by: SignedByOption = None,
    run: RunOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    keys: KeysOption = None,
    new_key: NewKeyOption = None,
    names: NamesOption = None,
    certificate: CertificateOption = None,
    private_key: PrivateKeyOption = None,
    most: MostOption = 128,
    unequal: UnequalOption = False,
    eight_bit: EightBitOption = False,
    log_texts: LogTextsOption = False,
    store: StoreOption = None,
    alias: AliasOption = None,
    registry: AddressOption = None,
    artifacts: ArtifactsOption = None,
    allow: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve arms behind an OpenAI-compatible API, with a page to try and judge them.

    With --eight-bit arms answer in 8 bits, once eval --eight-bit has measured on test what that costs them.
    With --alias the server follows an alias of the registry: another version that it comes to name is loaded beside,
    tried, and takes over between two requests; where that fails the old one goes on. With --alias production a canary's
    candidate answers its share of the users.
    With --json standard output is the server's address, token and arms, once it answers.

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
        _print_new_key(keys, new_key, as_json=as_json)
        return
    secured = _pair(certificate, private_key)
    source, arms = split_source(words or ())
    own = loaded_unless(bundle, signed_by, task, source)
    for package in PACKAGES:
        if find_spec(package) is None:
            raise PackageError(package, "serve", "trimtab serve")
    say_loading()
    try:
        from trimtab.serving.serve import serve
        from trimtab.serving.worker import ROOM
    except ModuleNotFoundError as error:
        raise PackageError(error.name or "fastapi", "serve", "trimtab serve") from None

    with Output(as_json) as output, _followed(own, alias, registry, artifacts, store) as (follow, canaries):
        serve(
            arms,
            task=own,
            bundle=bundle,
            signed_by=signed_by,
            follow=follow,
            canaries=canaries,
            run=run,
            host=host,
            port=port,
            keys=keys,
            names=names or (),
            certificate=secured,
            most=most,
            unequal=unequal,
            eight_bit=eight_bit,
            log_texts=log_texts,
            store=store,
            allow=allow or (),
            on_ready=output.record if as_json else _tell,
        )
    _end(ROOM)


@contextmanager
def _followed(
    task: Task | Path, alias: str | None, address: str | None, artifacts: str | None, store: str | None
) -> Iterator[tuple[Follow | None, CanarySource | None]]:
    """Open the registry whose alias is to be followed, if any; and its canaries, if the alias is production."""
    if alias is None:
        if address is not None or artifacts is not None:
            raise InputError("a registry, and no alias of it", "name it with --alias", field="--alias")
        yield None, None
        return
    from trimtab.cli.canary import opened
    from trimtab.upkeep.registry import PRODUCTION, registry

    with registry(task, address, artifacts=artifacts, make=False) as versions:
        if alias != PRODUCTION:
            yield versions.follow(alias), None
            return
        with opened(versions.task, address, artifacts, store) as canaries:
            yield versions.follow(alias), canaries


def _pair(certificate: Path | None, private_key: Path | None) -> tuple[Path, Path] | None:
    if certificate and private_key:
        return certificate, private_key
    if certificate or private_key:
        raise InputError("one half of a certificate", "give --certificate and --private-key", field="--certificate")
    return None


def _end(room: str) -> None:
    """End the process where a room is still at work: an endpoint that hangs holds connections, and Python would wait for them."""
    if any(one.name == room for one in threading.enumerate()):
        sys.stderr.flush()
        os._exit(0)


def _print_new_key(keys: Path | None, name: str, *, as_json: bool) -> None:
    if keys is None:
        raise InputError("no file for the key", "name one with --keys FILE", field="--new-key")
    from trimtab.serving.access import add_key

    key = add_key(keys, name)
    typer.echo(json.dumps({"name": name, "key": key}) if as_json else key)


def _tell(serving: Serving) -> None:
    """Say what answers, how like what was measured, and where."""
    if serving.release:
        typer.echo(f"{serving.release.alias} names version {serving.release.version}", err=True)
    for model, (arm, share) in zip(serving.models, serving.equal.items(), strict=True):
        same = "not measured by a study yet" if share is None else f"{share:.0%} of stored answers came out the same"
        if arm in serving.silent:
            same = f"does not answer now: {visible(serving.silent[arm])}"
        cost = serving.eight_bit.get(arm)
        typer.echo(f"{model:<24} {same}{'; ' + cost.sentence if cost else ''}", err=True)
    token = serving.token
    typer.echo(f"Page: {serving.url}/" + (f"?token={token}" if token else ""), err=True)
    typer.echo(f"API:  {serving.url}/v1" + (f"   key: {token}" if token else ""), err=True)
