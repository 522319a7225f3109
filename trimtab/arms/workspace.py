"""Workspace: an opened task with its rows read, split and checked, its documents, and its `.trimtab/` folder."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from trimtab.base.errors import DocumentsError, InputError, UnlabelledError
from trimtab.base.files import write_atomic
from trimtab.base.machine import release_memory
from trimtab.base.records import Document, Example, Preference, Refusal, Split
from trimtab.base.results import Sample
from trimtab.base.task import Task
from trimtab.data.audit import Audit, audit_rows
from trimtab.data.checks import Remark, by_level, check_examples, check_size
from trimtab.data.documents import empty_pages, read_documents, unread_files
from trimtab.data.draw import sample_groups, sample_rows
from trimtab.data.formats import ReadRows, read_examples
from trimtab.data.leakage import Overlap, drop_repeats, dropped_counts, dropped_refusal, find_overlaps, refuse_overlaps
from trimtab.data.ledger import SPLITS
from trimtab.data.preferences import read_preferences, split_preferences
from trimtab.data.privacy import Finding, count_private
from trimtab.data.row_store import are_stored, join_rows, split_off_test
from trimtab.data.split import assign_splits, time_notes
from trimtab.measurement.format_check import format_checker
from trimtab.measurement.latency import MIN_LATENCIES, latencies_needed, timing_seconds
from trimtab.measurement.mix import check_mix
from trimtab.model import process_group

FOLDER = ".trimtab"
LINEAR_ROWS = 20_000  # training rows of the arm `linear` where a sample has fewer


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The data of a task; what no rows were read for is empty. `folder`: `.trimtab/` beside the task file.

    `unsampled`: the splits before a sample was taken of them; None where all rows are used.
    """

    task: Task
    folder: Path
    splits: Mapping[Split, Sequence[Example]]
    documents: tuple[Document, ...]
    preferences: Mapping[Split, tuple[Preference, ...]] = field(default_factory=lambda: dict.fromkeys(SPLITS, ()))
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()
    audit: Audit = field(default_factory=lambda: audit_rows((), (), ()))
    overlaps: tuple[Overlap, ...] = ()
    findings: tuple[Finding, ...] = ()
    remarks: tuple[Remark, ...] = ()
    sample: Sample | None = None
    unsampled: Mapping[Split, Sequence[Example]] | None = None

    @property
    def all_splits(self) -> Mapping[Split, Sequence[Example]]:
        """Return every row by its split, including those that a sample leaves out."""
        return self.splits if self.unsampled is None else self.unsampled

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the closed set of a classification: the task's own labels, or every label of the training rows."""
        seen = Counter(example.references[0] for example in self.splits["train"])
        return self.task.task.labels or tuple(sorted(seen))

    def training_rows(self, weights: str) -> Sequence[Example]:
        """Return the rows that an arm of these weights learns from.

        These are the training rows of the sample. `linear` takes seconds with all of them, so it learns from those
        that the sample leaves out, too: LINEAR_ROWS where there are more.
        """
        rows, everything = self.splits["train"], self.all_splits["train"]
        if weights != "linear" or len(everything) == len(rows):
            return rows
        most = max(LINEAR_ROWS, len(rows))
        return sample_groups(everything, most, self.task.task.kind, every_label=True, seed=self.task.data.split.seed)

    def with_training_rows(self, rows: Sequence[Example]) -> Workspace:
        """Return a workspace whose arms learn from these rows alone."""
        return replace(self, splits={**self.splits, "train": tuple(rows)}, unsampled=None)

    def subset(self, split: Split, most: int) -> Sequence[Example]:
        """Return at most `most` examples of a split, drawn to represent all of it."""
        return sample_rows(self.splits[split], most, self.task.task.kind)

    @property
    def timed_count(self) -> int:
        """Return the number of questions each arm is timed on; with a latency limit, as many as its bound needs."""
        return MIN_LATENCIES if self.task.target.latency_p95_ms is None else latencies_needed(len(self.task.arms))

    def timed_questions(self, split: Split) -> Sequence[Example]:
        """Return the questions that are timed alone; with a latency limit also of dev if the split has too few."""
        asked = self.subset(split, self.timed_count)
        if split == "dev" or self.task.target.latency_p95_ms is None:
            return asked
        return (*asked, *self.subset("dev", self.timed_count - len(asked)))

    def timing_seconds(self, each: float) -> float:
        """Predict the seconds of timing an arm's questions alone, each of which takes `each`."""
        questions = len(self.timed_questions("test")) + 2
        return timing_seconds(each, questions) if self.task.target.latency_p95_ms is None else each * questions


def open_workspace(task: Task, *, refuse_leaks: bool = True) -> Workspace:
    """Read and split the rows, write the ledgers, and check for everything that would invalidate a study.

    Raises InputError for unusable files, and for overlap between splits if `leakage = "stop"`, unless `refuse_leaks`
    is False.
    """
    folder = task.folder / FOLDER
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file where Trimtab keeps its folder", "move it away", file=folder)
    format_checker(task.task.format, task.folder)  # refuses an unusable scorer before anything is read
    if not task.data.examples:
        workspace = open_for_answering(task, rows=False)
        unread = (*workspace.refusals, *unread_files(task))
        write_refusals(folder, unread)
        return replace(workspace, refusals=unread)
    documents = _documents(task, folder)
    examples, fixed_test, reads = _read_rows(task)
    judged = read_preferences(task)
    of_documents = (*empty_pages(task, documents), *unread_files(task))
    refusals = (*(refusal for read in reads for refusal in read.refusals), *judged.refusals, *of_documents)
    write_refusals(folder, refusals)
    _release_freed(examples)
    audit = audit_rows(examples, fixed_test, documents)
    _release_freed(examples)
    splits = _split_rows(task, examples, fixed_test, audit)
    _release_freed(examples)
    groups = _groups(examples, fixed_test, splits["test"]) if judged.preferences else {}
    preferences = split_preferences(judged.preferences, splits, task.data.split, folder / "splits.parquet", groups)
    notes = [*(note for read in reads for note in read.notes), *judged.notes]
    if task.data.leakage == "drop":
        splits, dropped = _without_repeats(task, audit, splits)
        refusals = (*refusals, *map(dropped_refusal, dropped))
        write_refusals(folder, refusals)
        if dropped:
            notes.append(f'data.leakage = "drop": {dropped_counts(dropped)} left out, which repeat rows held out')
    notes += time_notes(splits) if "time" in task.data.columns else []
    audit = audit.with_test_ids(splits["test"])
    used, sample = sampled_splits(splits, task)
    if sample:
        notes += describe_sample(sample, task)
    check_mix([row.slice for row in used["test"]], task.data.mix, task.file)
    overlaps = find_overlaps(audit, {**used, "train": splits["train"]})  # `linear` learns from all of them
    if refuse_leaks and overlaps:
        refuse_overlaps(overlaps, task, drop_repeats(audit, used)[1])
    _release_freed(examples)
    numbers = audit.row_numbers(used)
    private = (
        (part[at], audit.private[int(numbers[name][at])])
        for name, part in used.items()
        for at in np.flatnonzero(np.isin(numbers[name], list(audit.private))).tolist()
    )
    return Workspace(
        task=task,
        folder=folder,
        splits=used,
        preferences=preferences,
        documents=documents,
        refusals=refusals,
        notes=tuple(notes),
        audit=audit,
        overlaps=overlaps,
        findings=count_private(private),
        remarks=by_level([*check_size(used), *check_examples(audit, used, task)]),
        sample=sample,
        unsampled=splits if sample else None,
    )


def _release_freed(rows: Sequence[Example]) -> None:
    """Return to the system what a stage over many rows has freed, so that the next one does not add to it."""
    if are_stored(rows):
        release_memory()


def sampled_splits(
    splits: Mapping[Split, Sequence[Example]], task: Task, tests: int | None = None
) -> tuple[Mapping[Split, Sequence[Example]], Sample | None]:
    """Return the splits, or the sample that the task requests: `task.rows` of all, `study.test_rows` of test.

    `tests`: the number of test questions from a plan. Raises InputError for a sample with fewer training rows than
    labels.
    """
    sizes = {name: len(part) for name, part in splits.items()}
    share, most = min(1.0, (task.rows or math.inf) / max(1, sum(sizes.values()))), tests or task.study.test_rows
    wanted = {name: max(1, round(share * size)) for name, size in sizes.items()}
    if isinstance(most, int):
        wanted["test"] = min(wanted["test"], most)
    if all(wanted[name] >= size for name, size in sizes.items()):
        return splits, None
    kind, seed = task.task.kind, task.data.split.seed
    labels = len({row.references[0] for row in splits["train"]}) if kind == "classify" else 0
    if wanted["train"] < labels:
        least = math.ceil(labels / sizes["train"] * sum(sizes.values()))
        problem = f"a sample of {task.rows} rows has {wanted['train']} to train on, and there are {labels} labels"
        raise InputError(problem, f"take {least} rows or more", field="rows")
    found = {
        name: sample_groups(part, wanted[name], kind, every_label=name == "train", seed=seed)
        for name, part in splits.items()
    }
    used = {str(name): len(part) for name, part in found.items()}
    return found, Sample(rows=task.rows, used=used, of={str(name): size for name, size in sizes.items()})


def describe_sample(sample: Sample, task: Task) -> list[str]:
    """Return a sample in one line, and a second one if `linear` learns from more rows than it holds."""
    used, rows = sample.used["train"], sample.of["train"]
    if used == rows or all(arm.weights != "linear" for arm in task.arms):
        return [sample.sentence]
    learnt = min(rows, max(LINEAR_ROWS, used))
    return [sample.sentence, f"`linear` takes seconds, so it learns from {learnt:,} of {rows:,} training rows."]


def open_for_answering(task: Task, *, rows: bool) -> Workspace:
    """Return the workspace of a task for answering: its documents, and its split rows if `rows`. Nothing is audited."""
    splits: Mapping[Split, Sequence[Example]] = dict.fromkeys(SPLITS, ())
    if rows:
        examples, fixed_test, _ = _read_rows(task)
        if task.data.leakage == "drop":  # an arm's shots come from the rows it was measured with
            audit = audit_rows(examples, fixed_test, ())
            splits, _ = _without_repeats(task, audit, _split_rows(task, examples, fixed_test, audit))
        else:
            splits = _split_rows(task, examples, fixed_test)
        splits, _ = sampled_splits(splits, task)
    documents = read_documents(task)
    refusals = empty_pages(task, documents)
    return Workspace(task=task, folder=task.folder / FOLDER, splits=splits, documents=documents, refusals=refusals)


def _split_rows(
    task: Task, examples: Sequence[Example], fixed_test: Sequence[Example], audit: Audit | None = None
) -> Mapping[Split, Sequence[Example]]:
    """Return the rows in their splits by the ledger; the audit saves comparing them again."""
    return assign_splits(
        examples,
        fixed_test,
        task.data.split,
        task.folder / FOLDER / "splits.parquet",
        task.task.kind,
        unknown=task.task.unknown,
        duplicates=audit.examples if audit else None,
        test_parts=audit.rows.components[len(examples) :] if audit else None,
    )


def _without_repeats(
    task: Task, audit: Audit, splits: Mapping[Split, Sequence[Example]]
) -> tuple[Mapping[Split, Sequence[Example]], tuple[Overlap, ...]]:
    """Return the splits after `drop_repeats`. Raises InputError if it leaves no row of train, or none of dev."""
    kept, dropped = drop_repeats(audit, splits)
    for name in ("train", "dev"):
        if splits[name] and not kept[name]:
            raise InputError(
                f"every row of {name} repeats one that is held out",
                "add rows, or look whether the test set is a copy of them",
                file=task.file,
                field="data.leakage",
            )
    return kept, dropped


def _documents(task: Task, folder: Path) -> tuple[Document, ...]:
    """Return the documents. Unreadable ones are listed in `refused.jsonl` before the error is raised."""
    try:
        return read_documents(task)
    except DocumentsError as error:
        refusals = (
            Refusal(file=one.file or "", line=one.line or 0, reason=one.problem, remedy=one.remedy)
            for one in error.errors
        )
        write_refusals(folder, tuple(refusals))
        raise


def _groups(
    examples: Sequence[Example], fixed_test: Sequence[Example], test: Sequence[Example]
) -> dict[str, str | None]:
    """Return the group of each row by id: in the splits, groups that repeat each other have one name."""
    given = {row.id: row.group for row in examples if row.group is not None}
    # a separate test set is `test` in its order, with some rows renamed; otherwise `test` is part of the examples
    return given | {row.id: own.group for row, own in zip(test, fixed_test, strict=False)}


def _read_rows(task: Task) -> tuple[Sequence[Example], Sequence[Example], tuple[ReadRows, ...]]:
    """Return the examples, the separate test set, and the reading reports."""
    reads = [read_examples(task, patterns) for patterns in (task.data.examples, task.data.test) if patterns]
    first = reads[0].examples
    examples, fixed_test = split_off_test(first) if reads[0].has_test else (first, ())
    for read in reads[1:]:
        fixed_test = join_rows(fixed_test, read.examples)
    return examples, fixed_test, tuple(reads)


def require_sound(workspace: Workspace) -> None:
    """Raise InputError for the first remark that forbids a study."""
    for remark in workspace.remarks:
        if remark.level == "stop":
            raise InputError(
                remark.text.rstrip("."),
                f"correct it; {workspace.task.command('check')} shows everything",
                file=workspace.task.file,
            )
    if not workspace.splits["test"]:
        raise _without_labels(workspace)


def _without_labels(workspace: Workspace) -> InputError:
    """Return the error for a study without labelled rows; its notes say what works now, and how to label."""
    task, file, ask = workspace.task, "questions.jsonl", workspace.task.command('ask "…"')
    counted = len(workspace.documents)
    problem, here = "no labelled examples, so approaches cannot be compared", "label some and name the file here"
    if counted:
        remedy = f"draft some from the documents and approve them: {task.command('questions')}; or {here}"
        error: InputError = UnlabelledError(problem, remedy, file=task.file, field="data.examples")
    else:
        error = InputError(problem, here, file=task.file, field="data.examples")
    drafts = {task.command("questions"): "drafts questions from them, for you to approve"} if counted else {}
    works = {
        **drafts,
        ask: "answers a question and names its source",
        task.command("serve"): "the same behind an API, with a page where readers judge and correct answers",
        task.command("feedback export"): "writes what readers corrected as labelled rows",
    }
    if counted:
        width = max(map(len, works))
        error.add_note(f"With the {counted:,} document{'s' * (counted > 1)} alone these work now:")
        for command, what in works.items():
            error.add_note(f"  {command:{width}}   {what}")
    error.add_note("To compare approaches:")
    error.add_note(
        f"  1. write 100 or more questions with their right answers in {task.folder / file}, "
        'one per line: {"question": "…", "answer": "…"}'
    )
    error.add_note(f'  2. set examples = ["{file}"] in {task.file}')
    error.add_note(f"  3. run {task.command('study')}")
    return error


def write_refusals(folder: Path, refusals: tuple[Refusal, ...]) -> None:
    """Write `refused.jsonl` anew: one line for each unused row or unreadable document.

    Of a group of processes the first one writes.
    """
    if not process_group.is_main_process():
        return
    write_atomic(
        folder / "refused.jsonl",
        "".join(json.dumps(asdict(refusal), ensure_ascii=False) + "\n" for refusal in refusals),
    )
