"""Exceptions: every deliberate error has one base class, is also a standard exception, and states what to do."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

EXIT_DONE, EXIT_NO, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 3


class TrimtabError(Exception):
    """Base class of all deliberate errors. `str()` is one line for users; `exit_code` is what the command returns."""

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
    """A keyword argument that a function does not accept, or an argument of a wrong type."""


class UnlabelledError(InputError):
    """Documents without labelled questions: nothing is wrong, but nothing can be compared."""

    exit_code = EXIT_NO


class ContextLengthError(InputError):
    """A prompt that does not fit the model's context together with its answer."""


class VersionError(InputError):
    """A file that another version of Trimtab wrote."""


class EmptyDocumentError(InputError):
    """A readable document without text: in a listed folder it is left out, and a list that names it is wrong."""


class DocumentsError(InputError):
    """Documents that cannot be read: the message has the first and the number of the others; `errors` has each."""

    def __init__(self, errors: Sequence[InputError]) -> None:
        self.errors = tuple(errors)
        first, more = errors[0], len(errors) - 1
        remedy = f"{first.remedy} ({more:,} more cannot be read: see .trimtab/refused.jsonl)" if more else first.remedy
        super().__init__(first.problem, remedy, file=first.file, line=first.line, field=first.field)


class MissingError(TrimtabError, FileNotFoundError):
    """A file, model, run or study that does not exist."""


class UnknownModelError(MissingError):
    """A model's name that is no folder and that `trimtab pull` cannot fetch either: it has to be corrected."""


class PackageError(TrimtabError, ImportError):
    """An optional library that is not installed. `extra`: Trimtab's extra that installs it, if one does."""

    def __init__(self, package: str, extra: str | None, purpose: str) -> None:
        what = f"'trimtab[{extra}]'" if extra else package
        super().__init__(f"{purpose} needs the package {package}; install it with: pip install {what}")


class BusyError(TrimtabError, BlockingIOError):
    """A run folder that another process is writing."""


class ConsentError(TrimtabError, PermissionError):
    """A task file asks for something outside its folder that the user has not allowed."""


class RemoteError(TrimtabError, ConnectionError):
    """An endpoint that could not be reached or answered with an error."""


class DivergedError(TrimtabError, ArithmeticError):
    """Training diverged: the loss is not a number. The last good checkpoint is intact."""

    exit_code = EXIT_NO


class MemoryRanOutError(TrimtabError, MemoryError):
    """Training ran out of memory. The last good checkpoint is intact."""


class StoppedError(TrimtabError, InterruptedError):
    """Stopped by a signal after everything was saved. The message names the command that resumes."""

    exit_code = EXIT_INTERRUPTED


_FOLDER_WANTED = ("a file is where a folder should be", "move it away")
_DENIED = ("access is denied", "change the permissions, or work in another folder")
_PLAIN = {
    errno.ENOSPC: ("no space left on the disk", "free disk space; study and train then continue with --resume"),
    errno.EDQUOT: ("the disk quota is used up", "free disk space; study and train then continue with --resume"),
    errno.EROFS: ("the file system is read-only", "work in a folder that can be written"),
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EISDIR: ("a folder is where a file should be", "move it away"),
    errno.ENOTDIR: _FOLDER_WANTED,
    errno.EEXIST: _FOLDER_WANTED,
    errno.ELOOP: ("is a symbolic link", "delete it"),
    errno.ENOENT: ("does not exist", "check the path"),
}
_NO_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


def os_error_message(error: OSError) -> str:
    """Return an error of the operating system as one line for users: where, what, and what to do."""
    place = error.filename if error.filename2 is None else error.filename2
    problem, remedy = _PLAIN.get(
        error.errno or 0,
        (error.strerror or " ".join(str(error).split()), "check the path, its permissions and the disk"),
    )
    return f"{place}: {problem}; {remedy}" if place is not None else f"{problem}; {remedy}"


def is_out_of_memory(error: BaseException) -> bool:
    """True if memory ran out: Python's own error, the GPU's, or torch's message."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    message = str(error).lower()
    named = any(words in message for words in ("can't allocate memory", "out of memory"))
    return named or bool({"MemoryError", "OutOfMemoryError"} & kinds)


NO_MEMORY = 'the memory ran out; close other programs, set base.precision = "bf16", or choose a smaller base.model'


def is_write_failure(error: BaseException) -> bool:
    """True if the disk is full, read-only or broken, so that every later write would fail too.

    Libraries written in Rust give the error number in their message only.
    """
    link: BaseException | None = error
    while link is not None:
        if getattr(link, "errno", None) in _NO_WRITING or any(f"os error {code})" in str(link) for code in _NO_WRITING):
            return True
        link = link.__cause__ or link.__context__
    return False
