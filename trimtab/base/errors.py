"""Every error that Trimtab raises on purpose: one base class, each also a standard type, each with what to do."""

from __future__ import annotations

from pathlib import Path

EXIT_DONE, EXIT_NO, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 3


class TrimtabError(Exception):
    """Base of all errors raised on purpose; `str()` is one line fit for a user, `exit_code` what the command returns."""

    exit_code = EXIT_BAD_INPUT


class InputError(TrimtabError, ValueError):
    """A file, row, setting or argument that cannot be used.

    Prints as `file:line:field: what is wrong; what to do`, leaving out the parts that are not known.
    """

    def __init__(
        self,
        problem: str,
        remedy: str,
        *,
        file: str | Path | None = None,
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        self.problem, self.remedy = problem, remedy
        self.file, self.line, self.field = (str(file) if file is not None else None), line, field
        place = ":".join(str(part) for part in (self.file, line, field) if part is not None)
        super().__init__(f"{place}: {problem}; {remedy}" if place else f"{problem}; {remedy}")


class MissingError(TrimtabError, FileNotFoundError):
    """A file, model, run or study that should exist and does not."""


class PackageError(TrimtabError, ImportError):
    """An optional library that is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package}; install it with: pip install 'trimtab[{extra}]'")


class BusyError(TrimtabError, BlockingIOError):
    """A run folder that another process is writing."""


class ConsentError(TrimtabError, PermissionError):
    """Something that runs a program and was not allowed by the person at the keyboard."""


class RemoteError(TrimtabError, ConnectionError):
    """An endpoint that could not be reached or answered with an error."""


class DivergedError(TrimtabError, ArithmeticError):
    """Training whose loss is no longer a number; the last good checkpoint is intact."""

    exit_code = EXIT_NO


class StoppedError(TrimtabError, InterruptedError):
    """Stopped by a signal after everything was saved; the message names the command that goes on."""

    exit_code = EXIT_INTERRUPTED
