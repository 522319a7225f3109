"""`feedback export`: writes judgements as files of training rows, and returns the task-file lines that name them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from trimtab.arms.workspace import FOLDER, open_for_answering
from trimtab.base.codec import read_record, write_record
from trimtab.base.errors import InputError
from trimtab.base.files import sha256_file, write_atomic
from trimtab.base.records import Example, Split
from trimtab.base.show import Shown
from trimtab.base.task import Task
from trimtab.data.ledger import find_ledger_rows, read_ledger_table, update_ledger
from trimtab.data.split import SPLITS
from trimtab.serving.corrections import CorrectedRow
from trimtab.serving.feedback import FILE, open_feedback_store
from trimtab.serving.feedback_rows import FeedbackRows, feedback_rows
from trimtab.serving.feedback_schema import Judgement
from trimtab.studies.run_context import resolve_task, run_context

PREFERENCES, JUDGED, EXAMPLES = "preferences.jsonl", "judged.jsonl", "examples.jsonl"
RECORD = "export.json"
OUT = "feedback"


@dataclass(frozen=True, kw_only=True, repr=False)
class FeedbackExport(Shown):
    """The result of an export: rows by file, skipped judgements by reason, and the lines of [data] that name the
    files."""

    judgements: int
    folder: Path
    files: Mapping[str, int]
    left_out: Mapping[str, int]
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Exported:
    """The record `export.json`: SHA-256 of the files that an export wrote, so that the next one replaces only these."""

    ours: tuple[str, ...]


def feedback_export(
    task: str | Path | Task = "trimtab.toml",
    *,
    out: str | Path | None = None,
    store: str | None = None,
    allow: Sequence[str] = (),
) -> FeedbackExport:
    """Write the judgements of a store as rows into `out` (by default `feedback/` beside the task file).

    `store`: a file or a `postgresql://` URL, by default `.trimtab/feedback.db`. A former export in `out` is replaced.
    InputError is raised, before anything is written, for a file there that no export wrote or that was changed since.
    `allow` as for `study`. Raises MissingError if the store does not exist. Without judgements nothing is written, and
    `judgements` is 0.
    """
    own_task = resolve_task(task)
    folder = Path(out) if out is not None else own_task.folder / OUT
    with run_context(own_task, listeners=(), allow=allow, scores=False):
        judgements = _judgements(own_task, store)
        if not judgements:
            return FeedbackExport(judgements=0, folder=folder, files={}, left_out={}, lines=())
        _refuse_others(folder)
        splits = open_for_answering(own_task, rows=True).splits if own_task.data.examples else dict.fromkeys(SPLITS, ())
        rows = feedback_rows(judgements, own_task, splits)
        _add_to_train_ledger(rows, own_task, splits)
    parts = {PREFERENCES: rows.preferences, JUDGED: rows.judged, EXAMPLES: rows.examples}
    files = {name: part for name, part in parts.items() if part}
    _write(folder, files, own_task.data.encoding)
    return FeedbackExport(
        judgements=len(judgements),
        folder=folder,
        files={name: len(part) for name, part in files.items()},
        left_out=rows.left_out,
        lines=_task_file_lines(own_task, folder, files),
    )


def _judgements(task: Task, where: str | None) -> tuple[Judgement, ...]:
    if where is None and not (task.folder / FOLDER / FILE).exists():
        return ()
    with open_feedback_store(task, where, make=False) as store:
        return store.all()


def _add_to_train_ledger(rows: FeedbackRows, task: Task, splits: Mapping[Split, Sequence[Example]]) -> None:
    """Record in the split ledger that the examples are training rows: they are biased towards wrong answers, so no test
    sample.

    If a task has no other examples, they are split like any.
    """
    ledger = task.folder / FOLDER / "splits.parquet"
    table = read_ledger_table(ledger)
    known = find_ledger_rows(table, (place.id for place in rows.places))
    new = [place for place in rows.places if place.id not in known]
    if new and splits["test"]:
        update_ledger(ledger, table, new)


def _refuse_others(folder: Path) -> None:
    """Raise InputError for a symbolic link in place of the folder or a file, and for a file that no export wrote."""
    files = [folder / name for name in (PREFERENCES, JUDGED, EXAMPLES)]
    link = next((path for path in (folder, folder / RECORD, *files) if path.is_symlink()), None)
    if link is not None:
        raise InputError("is a symbolic link", "name another folder with --out", file=link)
    own_hashes = _own_hashes(folder)
    for path in files:
        if path.exists() and (not path.is_file() or sha256_file(path) not in own_hashes):
            problem = "is no export of judgements, or was changed since"
            raise InputError(problem, "move it away, or name another folder with --out", file=path)


def _own_hashes(folder: Path) -> tuple[str, ...]:
    record = folder / RECORD
    return read_record(record, _Exported).ours if record.exists() else ()


def _write(folder: Path, files: Mapping[str, Sequence[CorrectedRow]], encoding: str) -> None:
    """Write the files and delete those of a former export that have no rows now; safe to repeat after a crash."""
    plain = encoding.lower() not in ("utf-8", "utf8")  # JSON's escapes fit every encoding
    texts = {
        name: "".join(json.dumps(row, ensure_ascii=plain) + "\n" for row in part).encode(encoding)
        for name, part in files.items()
    }
    new = tuple(sha256(text).hexdigest() for text in texts.values())
    write_record(folder / RECORD, _Exported(ours=(*_own_hashes(folder), *new)))
    for name in (PREFERENCES, JUDGED, EXAMPLES):
        if name in texts:
            write_atomic(folder / name, texts[name])
        else:
            (folder / name).unlink(missing_ok=True)
    write_record(folder / RECORD, _Exported(ours=new))


def _task_file_lines(task: Task, folder: Path, files: Mapping[str, Sequence[CorrectedRow]]) -> tuple[str, ...]:
    """Return the lines of [data] with the files added; none if it names them already."""
    own, place = task.folder.resolve(), folder.resolve()
    relative = place.relative_to(own) if place.is_relative_to(own) else place
    lines = []
    for key, names in (("examples", (EXAMPLES,)), ("preferences", (PREFERENCES, JUDGED))):
        before: tuple[str, ...] = getattr(task.data, key)
        wanted = dict.fromkeys((*before, *((relative / name).as_posix() for name in names if name in files)))
        if len(wanted) > len(before):
            lines.append(f"{key} = {json.dumps(list(wanted), ensure_ascii=False)}")
    return tuple(lines)
