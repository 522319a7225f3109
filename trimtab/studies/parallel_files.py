"""Finds parallel files: two texts of which a line in one belongs to the same line in the other (`all.nl`, `all.cm`)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from trimtab.base.errors import InputError
from trimtab.data import documents
from trimtab.data.readers import row_suffixes

FEWEST_LINES = 20
"""From so many lines on, equal numbers are no accident."""
MOST_BYTES = 64 * 1024 * 1024
"""No larger file is looked through."""

_ASKED = frozenset(("text", "texts", "source", "src", "input", "inputs", "question", "questions"))
_LEARNT = frozenset(("label", "labels", "target", "targets", "tgt", "output", "outputs", "answer", "answers", "cm"))
"""Words of a file's name, also its ending, that say which of two files is asked and which is learnt."""


def find_parallel_files(paths: Iterable[Path]) -> tuple[frozenset[Path], tuple[InputError, ...]]:
    """Return the files that are half of a pair, and an error on the longest pair that is not yet joined, if any is
    not."""
    pairs = [
        (asked, learnt)
        for asked, learnt in _pairs_by_name(paths)
        if FEWEST_LINES <= _count_lines(asked) == _count_lines(learnt)
    ]
    apart = sorted((pair for pair in pairs if not _joined(*pair).exists()), key=lambda pair: -_count_lines(pair[0]))
    files = frozenset(path for pair in pairs for path in pair)
    return files, (_apart_error(*apart[0], len(apart) - 1),) if apart else ()


def _apart_error(asked: Path, learnt: Path, others: int) -> InputError:
    """Return the error for two parallel files, with a command that joins them whatever their lines hold."""
    role = "label" if _words(learnt) & {"label", "labels"} else "output"
    script = (
        f'import csv, sys; csv.writer(sys.stdout).writerows([("text", "{role}"), *((a.strip(), b.strip()) for a, b in '
        "zip(*map(open, sys.argv[1:])))])"
    )
    first, second, joined = (shlex.quote(str(path)) for path in (asked, learnt, _joined(asked, learnt)))
    more = f" (and {others} more pair{'s' * (others > 1)})" if others else ""
    return InputError(
        f"is parallel to {learnt.name}: each has {_count_lines(asked):,} lines, and a row is a line of both{more}",
        f"make one file of them: python3 -c '{script}' {first} {second} > {joined}",
        file=asked,
    )


def _joined(asked: Path, learnt: Path) -> Path:
    """Return the file that a pair is joined to: its name is what theirs have in common."""
    common = [word for word in re.findall(r"[^\W_]+", asked.stem) if word.lower() in _words(learnt)]
    return asked.with_name(f"{'_'.join(common) or 'rows'}.csv")


def _pairs_by_name(paths: Iterable[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield the files of one folder whose names differ in one word only, an ending or the side, the asked one first."""
    alike: dict[tuple[Path, str], list[Path]] = {}
    for path in sorted(paths):
        name = path.name.lower()
        if name.endswith(row_suffixes()) or not path.suffix:
            continue
        for word in re.finditer(r"[^\W_]+", name):
            is_ending = word.end() == len(name) and not name.endswith(documents.SUFFIXES)
            if is_ending or word[0] in _ASKED | _LEARNT:
                alike.setdefault((path.parent, f"{name[: word.start()]}*{name[word.end() :]}"), []).append(path)
    for beside in alike.values():
        if len(beside) == 2:
            first, second = sorted(beside, key=lambda path: bool(_words(path) & _LEARNT))
            yield first, second


def _words(path: Path) -> set[str]:
    return set(re.findall(r"[^\W_]+", path.name.lower()))


def _count_lines(path: Path) -> int:
    """Return the number of lines of a text, 0 for what is no text."""
    if path.stat().st_size > MOST_BYTES:
        return 0
    content = path.read_bytes()
    return 0 if b"\0" in content else content.count(b"\n") + (not content.endswith(b"\n"))
