"""The command `trimtab`: one verb a file beside this one, the heavy libraries imported only when a verb runs."""

from __future__ import annotations

import functools
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from trimtab import __version__
from trimtab.base.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, TrimtabError
from trimtab.cli import ask, check, demo, doctor, eval, init, pull, runs, study, train

EPILOG = (
    "Exit codes: 0 done, 1 ran and the answer is no, 2 bad input or setting, 3 interrupted and resumable. "
    "With --json standard output is one JSON object; everything else goes to standard error."
)

app = typer.Typer(
    name="trimtab",
    help="Measures which is the lightest approach that does your task well enough: prompting, retrieval, fine-tuning or a blend.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    app(_with_resume_value(given), prog_name="trimtab")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trimtab {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Take the options that stand before a verb."""


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """End in one line and an exit code, never in a traceback, unless TRIMTAB_DEBUG asks for it."""

    @functools.wraps(command)
    def guarded(**options: Any) -> None:
        if os.environ.get("TRIMTAB_DEBUG"):
            return command(**options)
        try:
            return command(**options)
        except typer.Exit:
            raise
        except KeyboardInterrupt:
            message, code = "interrupted", EXIT_INTERRUPTED
        except TrimtabError as error:
            message, code = str(error), error.exit_code
        except OSError as error:
            message, code = f"{error}; check the path, its permissions and the free space", EXIT_BAD_INPUT
        except Exception as error:
            found = " ".join(f"{type(error).__name__}: {error}".split())
            typer.echo(
                f"trimtab: internal error, {found}; run it with TRIMTAB_DEBUG=1 and report what it prints", err=True
            )
            raise typer.Exit(EXIT_BAD_INPUT) from error
        typer.echo(f"trimtab: {message}", err=True)
        raise typer.Exit(code)

    return guarded


def _with_resume_value(arguments: list[str]) -> list[str]:
    """`--resume` may stand without an ID: it then means the newest."""
    pairs = itertools.pairwise([*arguments, "-"])
    return [f"{word}=latest" if word == "--resume" and after.startswith("-") else word for word, after in pairs]


for _verb in (init, pull, check, study, train, eval, ask, runs, demo, doctor):
    app.command(_verb.__name__.rpartition(".")[2])(_guarded(_verb.command))
