"""Options of a server: where it listens, who may ask, how much, and what it writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from trimtab.base.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Options of `trimtab.serve`, each an option of `trimtab serve` too.

    Without `keys` (a file of hashes) a start token opens the server, which then listens on this machine only. `names`
    are further host names that clients use. `most`: the requests that may run or wait. `log_texts`: write questions and
    answers into the log. `store`: where feedback, and the sample of answers, are kept. Raises InputError for one half
    of a certificate.
    """

    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="The address to listen on.")] = "127.0.0.1"
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="The port; 0 takes a free one.")
    ] = 8000
    keys: Annotated[
        Path | None, typer.Option("--keys", metavar="FILE", help="A file of key hashes, instead of a start token.")
    ] = None
    names: Annotated[
        list[str] | None, typer.Option("--name", metavar="HOST", help="An additional host name of the server.")
    ] = None
    certificate: Annotated[
        Path | None, typer.Option("--certificate", metavar="FILE", help="PEM file for https; needs --private-key.")
    ] = None
    private_key: Annotated[
        Path | None, typer.Option("--private-key", metavar="FILE", help="PEM file of the certificate's key.")
    ] = None
    most: Annotated[
        int,
        typer.Option(
            "--most", metavar="N", min=1, help="Most requests that may run or wait; a slow machine accepts fewer."
        ),
    ] = 128
    log_texts: Annotated[bool, typer.Option("--log-texts", help="Write questions and answers into the log.")] = False
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="URL",
            help="The feedback store: a file, or postgresql://USER@HOST/DATABASE; by default .trimtab/feedback.db.",
        ),
    ] = None

    def __post_init__(self) -> None:
        """Refuse one half of a certificate."""
        if (self.certificate is None) != (self.private_key is None):
            raise InputError("one half of a certificate", "give --certificate and --private-key", field="--certificate")

    @property
    def key_pair(self) -> tuple[Path, Path] | None:
        """The files of the certificate and its key; None without https."""
        return (self.certificate, self.private_key) if self.certificate and self.private_key else None

    @property
    def url(self) -> str:
        """The address of the server, without a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.certificate else 'http'}://{host}:{self.port}"


DEFAULT_OPTIONS = ServerOptions()
