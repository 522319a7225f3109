"""`demo`: runs a study on a bundled example, in a folder of the user."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from trimtab.base.display import Display
from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import write_atomic
from trimtab.base.grammar import describe_arm as in_words
from trimtab.base.progress import Listener
from trimtab.base.results import StudyResult
from trimtab.base.task import Task, load_task
from trimtab.model.catalog import pull, resolve
from trimtab.studies.study import study

# Not copied: files that generate the data, and files that runs leave.
LEFT_BEHIND = {"make.py", "source", "__pycache__", ".trimtab"}
CUT = "demo.toml"
LATER = "2026-10"  # the later edition of an example: its documents and new questions


def demo(
    name: str,
    *,
    cut: bool = False,
    folder: str | Path | None = None,
    listeners: Sequence[Listener] | None = None,
) -> StudyResult:
    """Copy a bundled example (handbook, spam, style) to a folder, fetch the models it needs, and run the study there.

    `cut`: run its smaller task file, done within minutes. `folder`: default `trimtab-demo-NAME` here; a file there
    that is not the example's is never overwritten. `listeners` get every event; None shows progress on standard
    error. Raises InputError for a folder with other content.
    """
    place = Path(folder) if folder is not None else Path(f"trimtab-demo-{name}")
    file = copy_demo(name, place, cut=cut)
    task = load_task(file)
    sys.stderr.write(describe_demo(task, place))
    for model in (task.base.model, task.base.embedding):
        fetch_model(model, place, listeners)
    # Its scorer is the bundled one: `copy_demo` verified that.
    return study(task, allow_commands=True, listeners=listeners)


def describe_demo(task: Task, place: Path) -> str:
    """Return what will be done and how long it may take, in plain words."""
    arms = "".join(f"  {arm.name:<14} {in_words(arm)}\n" for arm in task.arms)
    budget = task.budget_seconds
    consent = " --allow-commands" if task.task.scorer else ""
    limit = f"at most about {budget / 60:.0f} minutes; what does not fit is cut, with a note" if budget else "no limit"
    return (
        f"Trimtab demo in {place}: {len(task.arms)} ways to do one task, on the same questions "
        f"(base model {task.base.model}).\n"
        f"{arms}Time: {limit}. The data are made up; the models are real. Ctrl-C saves; "
        f"trimtab study --task {task.file} --resume{consent} goes on.\n"
    )


def fetch_model(model: str, near: Path, listeners: Sequence[Listener] | None = None) -> None:
    """Download a model that is not in the cache. `near`: the folder that relative names start from."""
    try:
        resolve(model, near=near)
    except MissingError:
        display = Display()
        sys.stderr.write(f"Fetching {model}, once\n")
        try:
            pull(model, listeners=[display] if listeners is None else listeners)
        finally:
            display.close()


def copy_demo(name: str, place: Path, *, cut: bool) -> Path:
    """Copy an example to `place` and return its task file. An earlier copy of the same example is reused. Raises as
    `demo`.
    """
    with as_file(files("trimtab.demos") / name) as source:
        if not (source / "trimtab.toml").is_file():
            raise MissingError(f"no bundled example {name!r}; use one of: handbook, spam, style")
        copy_example(source, place)
    return place / (CUT if cut else "trimtab.toml")


def copy_example(source: Path, folder: Path) -> None:
    """Copy the folder of a bundled example to `folder`; an earlier copy is reused. Raises InputError for a file there
    that is not the example's.
    """
    items = {
        item.relative_to(source): item
        for item in source.rglob("*")
        if item.is_file() and not LEFT_BEHIND & set(item.relative_to(source).parts)
    }
    for relative, item in items.items():
        copy = folder / relative
        if copy.exists() and copy.read_bytes() != item.read_bytes():
            raise InputError(
                "is there already and is not the example's", "choose another place with --folder", file=copy
            )
    for relative, item in items.items():
        copy = folder / relative
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists():
            shutil.copyfile(item, copy)


def update_demo(name: str, place: Path) -> tuple[str, ...]:
    """Update a copy of an example (made by `copy_demo`) to its later edition. Return the names of the changed
    documents, sorted.

    Documents are replaced, added and removed so that `documents/` is the later edition; its questions are appended
    to `questions.jsonl` and `questions-cut.jsonl`, and the old rows stay. Repeating it changes nothing. Raises
    MissingError for an example with one edition or a folder without the example, InputError for a document of
    neither edition; nothing is then written.
    """
    with as_file(files("trimtab.demos") / name) as source:
        questions = source / f"questions-{LATER}.jsonl"
        if not questions.is_file():
            raise MissingError(f"no bundled example {name!r} with a later edition; use handbook")
        former, later = _texts(source / "documents"), _texts(source / f"documents-{LATER}")
        new_rows = questions.read_text(encoding="utf-8").splitlines(keepends=True)
        sheets = [path.name for path in (source / "questions.jsonl", source / "questions-cut.jsonl")]
    for missing in (path for path in (place / "documents", *(place / sheet for sheet in sheets)) if not path.exists()):
        raise MissingError(f"{missing} is not there; copy the example with `trimtab demo {name}` first")
    own = _texts(place / "documents")
    for path in sorted(former.keys() | later.keys()):
        if path in own and own[path] not in (former.get(path), later.get(path)):
            raise InputError(
                "is of neither edition of the example", "choose another folder", file=place / "documents" / path
            )
    for path, text in later.items():
        if own.get(path) != text:
            write_atomic(place / "documents" / path, text)
    for path in former.keys() - later.keys():
        (place / "documents" / path).unlink(missing_ok=True)
    for sheet in sheets:
        rows = (place / sheet).read_text(encoding="utf-8")
        there = set(rows.splitlines(keepends=True))
        write_atomic(place / sheet, rows + "".join(row for row in new_rows if row not in there))
    return tuple(sorted(path for path in former.keys() | later.keys() if former.get(path) != later.get(path)))


def _texts(folder: Path) -> dict[str, bytes]:
    """Return the contents of a folder's files by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
