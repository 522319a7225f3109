"""The command `trimtab`: each verb is a file beside this one; heavy libraries are imported only when a verb runs."""

from __future__ import annotations

import _thread
import functools
import io
import itertools
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any, TextIO

import typer

from trimtab.base.errors import (
    EXIT_BAD_INPUT,
    EXIT_INTERRUPTED,
    NO_MEMORY,
    TrimtabError,
    is_out_of_memory,
    is_write_failure,
    os_error_message,
)
from trimtab.base.plugins import failed_plugins, plugins, refuse_plugin
from trimtab.base.progress import STOP_SIGNALS, stop_asked
from trimtab.base.sanitize import visible
from trimtab.base.version import __version__
from trimtab.cli import (
    ask,
    audit,
    check,
    compare,
    demo,
    doctor,
    eval,
    export,
    init,
    pull,
    questions,
    runs,
    study,
    test,
    train,
)

EPILOG = (
    "Exit codes: 0 done, 1 ran and the answer is no, 2 bad input or setting, 3 interrupted and resumable. "
    "With --json standard output is one JSON object, its `error` the line that says why where a verb failed; "
    "everything else goes to standard error."
)
# Raised for every wrong option, argument or verb; typer exports no name for it.
WrongUse: Any = typer.BadParameter.__base__
TYPER_INTERRUPTED = 130

app = typer.Typer(
    name="trimtab",
    help=(
        "Measures which is the lightest approach that does your task well enough: prompting, retrieval, "
        "fine-tuning or a blend."
    ),
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    for number in STOP_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)
    sys.stdout, sys.stderr = (_writable_stream(stream) for stream in (sys.stdout, sys.stderr))
    _print_failed_plugins("commands", verb=words[0])
    try:
        code = app(_with_resume_value(words), prog_name="trimtab", standalone_mode=False)
        code = EXIT_INTERRUPTED if code == TYPER_INTERRUPTED else code  # interrupted before a verb began
    except WrongUse as error:
        message = re.sub(r"\b(Value error, |Input (?=should))", "", error.format_message()).rstrip(".")
        verb = error.ctx.command_path if error.ctx else "trimtab"
        _print_error(f"{message}; see: {verb} --help", EXIT_BAD_INPUT, as_json="--json" in words)
        code = EXIT_BAD_INPUT
    if "trimtab.base.task" in sys.modules:  # which needs these
        _print_failed_plugins("tables", "records")
    sys.exit(code)


def _print_failed_plugins(*kinds: str, verb: str = "") -> None:
    """Print a line for each plugin that failed; of one whose room is not installed, only where it is the verb."""
    for failed in (failed for kind in kinds for failed in failed_plugins(kind).values()):
        if not failed.is_absent or failed.name == verb:
            _print_error(failed.line, EXIT_BAD_INPUT, as_json=False)


def _interrupt(number: int, _: object) -> None:
    def interrupt_again(dropped: sys.UnraisableHookArgs) -> None:
        if dropped.exc_type is KeyboardInterrupt:
            threading.Timer(0.1, _thread.interrupt_main, (number,)).start()

    stop_asked.set()
    sys.unraisablehook = interrupt_again  # Python drops an exception raised in the callback of a weak reference
    raise KeyboardInterrupt


def _writable_stream(stream: TextIO | None) -> TextIO:
    """Return a standard stream that accepts any text; a closed one becomes the null device."""
    if stream is None:
        return open(os.devnull, "w")
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream


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
    """Parse the options before a verb."""


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that ends with one line and an exit code instead of a traceback, unless TRIMTAB_DEBUG is set."""

    @functools.wraps(command)
    def guarded(**options: Any) -> None:
        if os.environ.get("TRIMTAB_DEBUG"):
            return command(**options)
        try:
            return command(**options)
        except typer.Exit:
            raise
        except (KeyboardInterrupt, Exception) as error:
            message, code = _error_line(error)
            _print_error(message, code, _notes(error), as_json=options.get("as_json", False))
            raise typer.Exit(code) from error

    return guarded


def _error_line(error: BaseException) -> tuple[str, int]:
    """Return an error as one line, and the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", EXIT_INTERRUPTED
    if isinstance(error, TrimtabError):
        return " ".join(str(error).splitlines()), error.exit_code
    if isinstance(error, OSError):
        return os_error_message(error), EXIT_BAD_INPUT
    found = " ".join(f"{type(error).__name__}: {error}".split())
    if is_out_of_memory(error):
        return f"{NO_MEMORY}; study and train then go on with --resume", EXIT_BAD_INPUT
    if is_write_failure(error):
        return f"{found}; free disk space, or work in a folder that can be written", EXIT_BAD_INPUT
    return f"internal error, {found}; run it with TRIMTAB_DEBUG=1 and report what it prints", EXIT_BAD_INPUT


def _notes(error: BaseException) -> Sequence[str]:
    """Return the additional lines of one of our errors (PEP 678)."""
    return getattr(error, "__notes__", ()) if isinstance(error, TrimtabError) else ()


def _print_error(message: str, code: int, notes: Sequence[str] = (), *, as_json: bool) -> None:
    """Print one line on standard error, with notes below it; in JSON mode also an object on standard output."""
    with suppress(OSError):  # the terminal may be gone; the exit code remains
        for line in (f"trimtab: {message}", *notes):
            typer.echo(visible(line), err=True)
    if as_json:
        typer.echo(json.dumps({"error": message, "exit_code": code}))


def _with_resume_value(arguments: list[str]) -> list[str]:
    """Give `--resume` without an ID, before an option or a folder, the value `latest`."""
    pairs = itertools.pairwise([*arguments, "-"])
    return [
        f"{word}=latest" if word == "--resume" and (after.startswith("-") or "/" in after) else word
        for word, after in pairs
    ]


for _verb in (init, pull, questions, check, study, audit, test, train, eval, ask, export, runs, compare, demo, doctor):
    app.command(_verb.__name__.rpartition(".")[2])(_guarded(_verb.command))
for _name, _plugin in plugins("commands").items():
    if _name in {_command.name for _command in app.registered_commands}:
        refuse_plugin("commands", _name, "the core has a command of this name")
    elif isinstance(_plugin, typer.Typer):
        for _command in _plugin.registered_commands:
            _command.callback = _command.callback and _guarded(_command.callback)
        app.add_typer(_plugin, name=_name)
    else:
        app.command(_name)(_guarded(_plugin))
