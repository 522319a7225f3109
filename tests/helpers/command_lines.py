"""Command lines that pages and manifests show, parsed as `trimtab` parses them."""

from __future__ import annotations

from collections.abc import Sequence

from typer.main import get_command

from trimtab.cli.main import _with_resume_value as with_resume_value
from trimtab.cli.main import app


def understand(arguments: Sequence[str]) -> None:
    """Parse a command line as `trimtab` does, and run nothing."""
    command, name, words = get_command(app), "trimtab", list(with_resume_value(list(arguments)))
    while hasattr(command, "commands"):
        name = words.pop(0)
        command = command.commands[name]
    command.make_context(name, words)
