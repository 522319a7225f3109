"""Every error that Trimtab raises on purpose: one base class, each also a standard type, each with what to do."""

from __future__ import annotations

import errno
from collections.abc import Sequence
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


class OptionError(TrimtabError, TypeError):
    """A keyword argument that a function does not take, or an argument of a type that it cannot use."""


class ContextLengthError(InputError):
    """A prompt that does not fit the model's context together with its answer."""


class VersionError(InputError):
    """A file that another version of Trimtab wrote."""


class DocumentsError(InputError):
    """Documents that cannot be read: the first as a line for the user, with how many more there are; `errors` has each."""

    def __init__(self, errors: Sequence[InputError]) -> None:
        self.errors = tuple(errors)
        first, more = errors[0], len(errors) - 1
        remedy = f"{first.remedy} ({more:,} more cannot be read: see .trimtab/refused.jsonl)" if more else first.remedy
        super().__init__(first.problem, remedy, file=first.file, line=first.line, field=first.field)


class MissingError(TrimtabError, FileNotFoundError):
    """A file, model, run or study that should exist and does not."""


class UnknownModelError(MissingError):
    """A model's name that is no folder and that `trimtab pull` cannot fetch either: it has to be corrected."""


class PackageError(TrimtabError, ImportError):
    """An optional library that is not installed; `extra` is ours that brings it, None where it is installed by its own name."""

    def __init__(self, package: str, extra: str | None, purpose: str) -> None:
        what = f"'trimtab[{extra}]'" if extra else package
        super().__init__(f"{purpose} needs the package {package}; install it with: pip install {what}")


class BusyError(TrimtabError, BlockingIOError):
    """A run folder that another process is writing."""


class ConsentError(TrimtabError, PermissionError):
    """What a task file asks for beyond its own folder, and the person at the keyboard has not allowed."""


class RemoteError(TrimtabError, ConnectionError):
    """An endpoint that could not be reached or answered with an error."""


class DivergedError(TrimtabError, ArithmeticError):
    """Training whose loss is no longer a number; the last good checkpoint is intact."""

    exit_code = EXIT_NO


class MemoryRanOutError(TrimtabError, MemoryError):
    """Training that found no memory left; the last good checkpoint is intact."""


class StoppedError(TrimtabError, InterruptedError):
    """Stopped by a signal after everything was saved; the message names the command that goes on."""

    exit_code = EXIT_INTERRUPTED


_FOLDER_WANTED = ("a file stands where a folder should be", "move it away")
_DENIED = ("access is denied", "change the permissions, or work in another folder")
_PLAIN = {
    errno.ENOSPC: ("no space left on the disk", "make room; study and train then go on with --resume"),
    errno.EDQUOT: ("the disk quota is used up", "make room; study and train then go on with --resume"),
    errno.EROFS: ("the file system is read-only", "work in a folder that can be written"),
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EISDIR: ("a folder stands where a file should be", "move it away"),
    errno.ENOTDIR: _FOLDER_WANTED,
    errno.EEXIST: _FOLDER_WANTED,
    errno.ELOOP: ("is a symbolic link", "take it away"),
    errno.ENOENT: ("does not exist", "check the path"),
}
_NO_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


def in_words(error: OSError) -> str:
    """An error of the operating system as one line for a user: where, what, what to do."""
    place = error.filename if error.filename2 is None else error.filename2
    problem, remedy = _PLAIN.get(
        error.errno or 0,
        (error.strerror or " ".join(str(error).split()), "check the path, its permissions and the disk"),
    )
    return f"{place}: {problem}; {remedy}" if place is not None else f"{problem}; {remedy}"


def memory_ran_out(error: BaseException) -> bool:
    """Whether there was no memory left: Python's own error, that of a graphics card, or torch's words."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    said = str(error).lower()
    named = any(words in said for words in ("can't allocate memory", "out of memory"))
    return named or bool({"MemoryError", "OutOfMemoryError"} & kinds)


NO_MEMORY = 'the memory ran out; close other programs, set base.precision = "bf16", or choose a smaller base.model'


def cannot_write(error: BaseException) -> bool:
    """Whether the disk is full, read-only or broken, so that whatever comes next would fail too.

    Libraries written in Rust give the number in their text only.
    """
    link: BaseException | None = error
    while link is not None:
        if getattr(link, "errno", None) in _NO_WRITING or any(f"os error {code})" in str(link) for code in _NO_WRITING):
            return True
        link = link.__cause__ or link.__context__
    return False
