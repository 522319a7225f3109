"""`trimtab init`: looks at the data files of a folder and writes a commented task file for them."""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from trimtab.base.errors import InputError, MissingError
from trimtab.base.records import Kind
from trimtab.base.tables import METRICS
from trimtab.base.task import TASK_FILE, Task, check_task, default_arms
from trimtab.data import documents
from trimtab.data.formats import Detected, detect
from trimtab.data.readers import SUFFIXES, RawRow, printable, read_rows

BASE_MODEL, EMBEDDING = "smollm2-135m-q4", "minilm-l6"
FEW_ROWS = 200
"""Below this many rows the test share is too small to show much; the task file says so."""
MANY_DOCUMENTS = 4
"""From so many documents of one kind on, a pattern names them."""
LISTED_LABELS = 12
"""As many labels as the instruction names one by one."""

_TEST, _ROWS_LEFT_OUT = frozenset(("test", "eval", "heldout", "holdout")), frozenset(("package", "tsconfig", "config"))
_FOREIGN = re.compile(r"\.|node_modules$|venv$|env$|__pycache__$|.*\.egg-info$")
"""Folders that are not the user's data."""
_NO_DOCUMENT = re.compile(r"(readme|licen[cs]e|changelog|contributing|security|notice|authors|requirements)\b", re.I)
_PREFERENCES = (frozenset(("chosen", "rejected")), frozenset(("prompt", "answer", "good")))
_GROUP_COLUMNS = ("document", "article", "page", "customer", "user", "author", "conversation", "thread", "session")
_DOCUMENT_FOLDERS = ("documents", "docs", "handbook", "kb", "knowledge", "pages", "content")


@dataclass(slots=True)
class _Survey:
    """What lies in a folder, by the part it can play; paths are relative to it."""

    rows: dict[str, Detected] = field(default_factory=dict)
    preferences: list[str] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    errors: list[InputError] = field(default_factory=list)


def init(folder: Path = Path(), *, schema: bool = False) -> str:
    """Write a commented `trimtab.toml` for the data files in `folder`, and return its text.

    With `schema`, return the JSON Schema of the task file instead and write nothing. Raises InputError when there is a task file
    already, or nothing to make one of.
    """
    if schema:
        shape = Task.model_json_schema()
        shape["properties"].pop("file", None)
        return json.dumps(shape, indent=2) + "\n"
    folder = Path(folder)
    if folder.is_file():
        raise InputError("is a file", f"name the folder that it is in: trimtab init {folder.parent}", file=folder)
    if not folder.is_dir():
        raise MissingError(f"{folder}: no such folder; name the one that holds your data files")
    target = folder / TASK_FILE
    if target.exists():
        raise InputError("there is a task file already", "edit it, or move it away first", file=target)
    text = _compose(folder, _survey(folder))
    check_task(Task(**{**tomllib.loads(text), "file": target}))
    try:
        with open(target, "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InputError(
            f"cannot be written ({error.strerror})", "check the folder's permissions", file=target
        ) from None
    return text


def _survey(folder: Path) -> _Survey:
    found = _Survey()
    for path in _data_files(folder):
        name = path.relative_to(folder).as_posix()
        try:
            if _holds_preferences(path):
                found.preferences.append(name)
            else:
                found.rows[name] = detect(path)
        except InputError as error:
            found.errors.append(error)
            found.left_out.append(f"{name}: {error.problem}; {error.remedy}")
    found.documents = list(_document_places(folder, found.left_out))
    return found


def _data_files(folder: Path) -> list[Path]:
    """Files of rows in the folder and in the folders directly below, sorted; one that links lead to twice is listed once."""
    near = (path for pattern in ("*", "*/*") for path in sorted(folder.glob(pattern)))
    once: dict[Path, Path] = {}
    for path in near:
        if (
            path.is_file()
            and path.name.lower().endswith(SUFFIXES)
            and not any(_FOREIGN.match(part) for part in path.relative_to(folder).parts)
            and path.name.isprintable()
            and path.name.split(".")[0] not in _ROWS_LEFT_OUT
        ):
            once.setdefault(path.resolve(), path)
    return list(once.values())


def _leads_back(path: Path) -> bool:
    """Whether a link leads to the folder that it stands in, or above: everything there would be seen twice."""
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def _holds_preferences(path: Path) -> bool:
    first = next((row for row in itertools.islice(read_rows(path), 20) if isinstance(row, RawRow)), None)
    return first is not None and any(names <= first.fields.keys() for names in _PREFERENCES)


def _document_places(folder: Path, left_out: list[str]) -> Iterator[str]:
    """Folders that hold documents, then loose documents; a folder whose file names another has too is left out."""
    taken: set[str] = set()
    places = [
        path for path in folder.iterdir() if path.is_dir() and not _FOREIGN.match(path.name) and not _leads_back(path)
    ]
    for place in sorted(places, key=lambda path: (path.name.lower() not in _DOCUMENT_FOLDERS, path.name)):
        names = {
            path.relative_to(place).as_posix()
            for path in place.rglob("*")
            if path.is_file() and path.name.lower().endswith(documents.SUFFIXES) and not _NO_DOCUMENT.match(path.name)
        }
        if not names or not place.name.isprintable():
            continue
        if names & taken:
            left_out.append(
                f"{place.name}/: documents of the same names stand in another folder, is it another version?"
            )
            continue
        taken |= names
        yield f"{place.name}/"
    yield from _loose_documents(folder, taken)


def _loose_documents(folder: Path, taken: set[str]) -> Iterator[str]:
    """Documents that stand beside the task file: one by one, or as a pattern where it names many and nothing else."""
    named = sorted(path for path in folder.iterdir() if path.is_file() and path.name.isprintable())
    loose = {
        path.name
        for path in named
        if path.name.lower().endswith(documents.SUFFIXES)
        and not _NO_DOCUMENT.match(path.name)
        and path.name not in taken
    }
    for suffix in sorted({Path(name).suffix for name in loose}):
        alike = sorted(name for name in loose if name.endswith(suffix))
        if len(alike) >= MANY_DOCUMENTS and len(alike) == len(list(folder.glob(f"*{suffix}"))):
            yield f"*{suffix}"
        else:
            yield from alike


def _compose(folder: Path, found: _Survey) -> str:
    examples, tests = _parts(found)
    squad = [name for name in (*examples, *tests) if found.rows[name].layout == "squad"]
    listed = [*found.documents, *squad]
    if not examples and not listed:
        if found.errors:
            raise found.errors[0]
        only = f"only preferences here ({', '.join(found.preferences)}), " if found.preferences else ""
        raise InputError(
            f"{only}no examples and no documents" + ("" if only else " here"),
            "put a .csv or .jsonl file of questions and answers here (or documents: .md, .txt, .html, .pdf)",
            file=folder,
        )
    main = _main([found.rows[name] for name in examples])
    kind: Kind = main.kind if main else "answer"
    rows = sum(found.rows[name].rows for name in examples)
    sections = (
        _header(found, examples, tests, listed, rows),
        _task_table(folder, kind, main, bool(listed)),
        _data_table(examples, tests, listed, found.preferences, main),
        _rest(kind, examples, listed),
    )
    return "\n".join(sections)


def _main(examples: Sequence[Detected]) -> Detected | None:
    """The file with the most rows, which the kind is told from, with the labels of all."""
    if not examples:
        return None
    largest = max(examples, key=lambda seen: seen.rows)
    return replace(largest, labels=tuple(sorted({label for seen in examples for label in seen.labels})))


def _parts(found: _Survey) -> tuple[list[str], list[str]]:
    """Example files and test files: the largest set of files with the same columns; what else there is, is left out."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, seen in found.rows.items():
        groups.setdefault((seen.layout, *sorted(seen.columns.items())), []).append(name)

    def size(names: Sequence[str]) -> tuple[bool, int]:
        guess = any("a guess" in note for name in names for note in found.rows[name].notes)
        return not guess, sum(found.rows[name].rows for name in names)

    chosen = max(groups.values(), key=size, default=[])
    largest = max(chosen, key=lambda name: found.rows[name].rows, default="")
    for name in found.rows:
        if name not in chosen:
            rows = found.rows[name].rows
            found.left_out.append(
                f"{name} ({rows:,} row{'s' * (rows != 1)}): other columns than {largest}, so another task: run trimtab init on it in a folder of its own"
            )
    tests = [name for name in chosen if _TEST & set(re.split(r"[^a-z]+", Path(name).name.lower()))]
    if len(tests) == len(chosen):
        return chosen, []
    return [name for name in chosen if name not in tests], tests


def _header(found: _Survey, examples: list[str], tests: list[str], listed: list[str], rows: int) -> str:
    lines = ["# Written by `trimtab init`. What it found here:"]
    for name in (*examples, *tests):
        what = "the test set" if name in tests else "examples"
        lines += [f"#   {what}: {note}" for note in found.rows[name].notes]
    lines += [f"#   documents: {name}" for name in listed]
    lines += [f"#   left out: {printable(note, 200)}" for note in found.left_out]
    if not examples:
        lines.append(
            "# No labelled examples yet: `trimtab ask` answers from the documents. To compare approaches, collect some"
        )
        lines.append('# hundred lines of {"question": "…", "answer": "…"} and name the file under data.examples.')
    elif rows < FEW_ROWS:
        few = "1 example is" if rows == 1 else f"{rows} examples are"
        lines.append(f"# {few} few: differences between approaches will hardly show. Some hundred would help.")
    then = "`trimtab check`, then: `trimtab study`." if examples else '`trimtab ask "…"`.'
    lines.append(f"# Read it through, above all the instruction. Then: {then}")
    return "\n".join(lines) + "\n"


def _task_table(folder: Path, kind: Kind, main: Detected | None, has_documents: bool) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")[:64] or "task"
    metric, *others = sorted(METRICS[kind], key=lambda item: item not in ("accuracy", "contains", "rouge_l"))
    lines = [
        "[task]",
        f"name = {_quoted(name)}",
        f"kind = {_quoted(kind)}   # a guess. classify: one of a closed set; answer: short, may abstain; generate: free text",
        "# Say here what you want; the model reads it before every question.",
        f"instruction = {_quoted(_instruction(kind, main, has_documents))}",
        f"metric = {_quoted(metric)}   # or: {', '.join(others)}",
    ]
    if kind == "answer":
        lines.append('unknown = "I don\'t know"   # how an answer says that it does not know')
    if kind == "classify" and main is not None:
        lines.append(f"labels = []   # empty: the {len(main.labels)} labels of the data")
    return "\n".join(lines) + "\n"


def _instruction(kind: Kind, main: Detected | None, has_documents: bool) -> str:
    if kind == "classify":
        labels = main.labels if main is not None else ()
        choices = (
            f"one of: {', '.join(labels)}" if len(labels) <= LISTED_LABELS else "the name of its class and nothing else"
        )
        return f"Which class does this text belong to? Answer with {choices}."
    if kind == "generate":
        return "Answer the request from the documents." if has_documents else "Answer the request."
    if has_documents:
        return "Answer the question from the documents in a few words. If they do not say, answer: I don't know."
    return "Answer the question in a few words. If you do not know, answer: I don't know."


def _data_table(
    examples: list[str], tests: list[str], listed: list[str], preferences: list[str], main: Detected | None
) -> str:
    lines = ["[data]", f"examples = {_array(examples)}" if examples else "examples = []   # none yet"]
    if tests:
        lines.append(f"test = {_array(tests)}   # the test set as it is")
    lines.append(
        f"documents = {_array(listed)}" if listed else "documents = []   # md, txt, html, pdf: files or folders"
    )
    if preferences:
        lines.append(f"preferences = {_array(preferences)}")
    if main is not None and main.layout == "table":
        target = "label" if main.kind == "classify" else "output"
        pair = f"input = {_quoted(main.columns['input'])}, {target} = {_quoted(main.columns['output'])}"
        lines.append(f"columns = {{ {pair} }}   # which column is which")
    if main is not None and main.unused:
        lines.append(f"# not used: {printable(', '.join(main.unused), 100)}")
    if main is not None and main.layout != "squad":
        group = next((name for name in main.unused if name.lower() in _GROUP_COLUMNS), "…")
        if "group" not in main.columns:
            lines.append(
                f"# group = {_quoted(group)}   # a column: rows of one group (a person, a document) are never split apart"
            )
        if "slice" not in main.columns:
            other = next((name for name in main.unused if name != group), "…")
            lines.append(f"# slice = {_quoted(other)}   # a column: scores are also given for each of its values")
    if examples:
        shares = "dev = 0.15 }" if tests else "dev = 0.15, test = 0.25, seed = 0 }"
        lines.append(f"split = {{ {shares}   # shares of the examples that are held out")
    return "\n".join(lines) + "\n"


def _rest(kind: Kind, examples: list[str], listed: list[str]) -> str:
    tables = {
        "task": {"name": "x", "kind": kind},
        "data": {"examples": examples, "documents": listed},
        "base": {"model": BASE_MODEL},
    }
    probe = Task.model_validate(tables)
    return f"""[base]
model = {_quoted(BASE_MODEL)}   # small enough for two processor cores; or a catalogue name, a folder, a Hugging Face id
embedding = {_quoted(EMBEDDING)}   # finds passages and similar examples

[target]
# quality = 0.85   # what is good enough, in the metric; without it, the best is the measure
margin = 0.02   # how much worse than the best still counts as not worse

[study]
arms = {_array(list(default_arms(probe)))}   # what is compared
seeds = 1
budget = "30m"   # what does not fit is cut, and told; empty: no limit
"""


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are TOML's, but for the delete character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _array(texts: Sequence[str]) -> str:
    return f"[{', '.join(_quoted(text) for text in texts)}]"
