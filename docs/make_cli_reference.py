"""Writes docs/cli.md from the help of every verb; `--check` fails when the file is stale."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from typer.testing import CliRunner

from trimtab.cli.main import app

TARGET = Path(__file__).with_name("cli.md")
HEAD = "# Command line\n\nWritten by `python docs/make_cli_reference.py` from `--help`; do not edit.\n"


def reference() -> str:
    """The whole page: the help of `trimtab`, then of each verb."""
    os.environ.update({"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"})
    runner = CliRunner()
    verbs = [command.name for command in app.registered_commands if command.name]
    for group in app.registered_groups:
        own = group.typer_instance.registered_commands if group.typer_instance else []
        verbs += [f"{group.name} {command.name}" for command in own]
    parts = [HEAD]
    for verb in ("", *verbs):
        shown = runner.invoke(app, [*verb.split(), "--help"], prog_name="trimtab")
        if shown.exit_code != 0:
            raise SystemExit(f"trimtab {verb} --help failed: {shown.output}")
        lines = "\n".join(line.rstrip() for line in shown.output.strip().splitlines())
        parts.append(f"## {f'trimtab {verb}'.strip()}\n\n```text\n{lines}\n```\n")
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Write the page, or with --check only compare it."""
    page = reference()
    if arguments == ["--check"]:
        if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == page:
            return 0
        print(f"{TARGET.name} is stale; run: python docs/make_cli_reference.py", file=sys.stderr)
        return 1
    TARGET.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
