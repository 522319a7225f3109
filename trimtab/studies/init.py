"""`init`: detects the data files of a folder and writes a commented task file for them."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from trimtab.base.config import BASE_MODEL, EMBEDDING
from trimtab.base.errors import InputError
from trimtab.base.metrics import suited_metrics
from trimtab.base.records import Kind, Split
from trimtab.base.sanitize import printable
from trimtab.base.task import AT_RUN_TIME, Task, check_task, default_arms, name_after, task_file_for, toml_string
from trimtab.data.columns import ColumnRequest, RequestedColumns
from trimtab.data.encodings import UTF8
from trimtab.data.formats import NO_REQUEST, DetectedFormat
from trimtab.data.nested import split_of
from trimtab.data.readers import row_suffixes
from trimtab.data.sources import files_below
from trimtab.studies.detect import FolderContents, detect_folder, detect_hub_dataset

FEW_ROWS = 200
"""Below this many rows the test share is too small to show much; the task file says so."""
LISTED_LABELS = 12
"""As many labels as the instruction names one by one."""

NAMED = 3
"""Files that are named where a folder holds no data."""

ChooseColumn = Callable[[str, Mapping[str, str]], str]
"""Chooses the column that is learnt, of the guess and of its rivals, which come with an example each."""

_TEST = frozenset(("test", "eval", "heldout", "holdout"))
_GROUP_COLUMNS = ("document", "article", "page", "customer", "user", "author", "conversation", "thread", "session")


def init(
    folder: str | Path = Path(),
    *,
    columns: Mapping[str, RequestedColumns] | None = None,
    schema: bool = False,
    choose: ChooseColumn | None = None,
) -> str:
    """Write a commented `trimtab.toml` for the data files in `folder`, and return its text.

    `folder` may also be a single data file, or a Hugging Face dataset id, for which a folder is created here.
    `columns`: the known columns by role (`input`, `label`, `output`). With `schema`, return the JSON Schema of the
    task file and write nothing. `choose` is asked what is learnt where several columns could be. Raises InputError if
    there is a task file already, or no usable data.
    """
    if schema:
        shape = Task.model_json_schema()
        for name in AT_RUN_TIME:
            shape["properties"].pop(name, None)
        return json.dumps(shape, indent=2) + "\n"
    target = task_file_for(folder)
    if target.exists():
        raise InputError("there is a task file already", "edit it, or move it away first", file=target)
    found = detect_source(folder, wish_for(columns or {}))
    if choose is not None and not columns:
        found = _settled(folder, found, choose)
    text = task_file_text(target, found)
    write_task(target, text)
    return text


def _settled(folder: str | Path, found: FolderContents, choose: ChooseColumn) -> FolderContents:
    """Return the contents with the column that `choose` takes of those that could be learnt in the largest file."""
    seen = max(found.rows.values(), key=lambda seen: seen.rows, default=None)
    if seen is None or not seen.rivals or "output" not in seen.columns:
        return found
    guess = str(seen.columns["output"])
    chosen = choose(guess, seen.rivals)
    return found if chosen == guess else detect_source(folder, wish_for({"output": chosen}))


def wish_for(columns: Mapping[str, RequestedColumns], kind: Kind | None = None) -> ColumnRequest:
    """Return what named columns imply about the rows: a label column is of a closed set."""
    return ColumnRequest(columns=columns, kind="classify" if "label" in columns else kind)


def detect_source(source: str | Path, wish: ColumnRequest = NO_REQUEST) -> FolderContents:
    """Return the contents of a folder, a data file or a Hugging Face dataset. `wish`: what is already known of the
    rows.
    """
    path = Path(source)
    if path.is_dir():
        return detect_folder(path, wish=wish)
    return detect_folder(path.parent, path, wish) if path.is_file() else detect_hub_dataset(str(source), wish)


def write_task(target: Path, text: str) -> Task:
    """Write a new task file once it has passed every check, and return the task."""
    task = Task(**{**tomllib.loads(text), "file": target})
    try:
        target.parent.mkdir(exist_ok=True)  # the folder of a dataset; any other exists
        check_task(task)
        with open(target, "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InputError(
            f"cannot be written ({error.strerror})", "check the folder's permissions", file=target
        ) from None
    return task


def task_file_text(target: Path, found: FolderContents) -> str:
    """Return the text of the task file `target` for the detected contents. Raises InputError if they make no task."""
    folder = target.parent
    examples, tests = _parts(found)
    squad = [name for name in (*examples, *tests) if found.rows[name].layout == "squad"]
    listed = [*found.documents, *squad]
    if not examples and not listed:
        if found.errors:
            raise found.errors[0]
        only = f"only preferences here ({', '.join(found.preferences)}), " if found.preferences else ""
        raise InputError(
            f"{only}no examples and no documents" + ("" if only else f" here{_instead(folder)}"),
            "put a .csv, .xlsx or .jsonl file of questions and answers here (or documents: .md, .txt, .html, .pdf, "
            ".docx)",
            file=folder,
        )
    main = _main([found.rows[name] for name in examples])
    kind: Kind = main.kind if main else "answer"
    rows = sum(found.rows[name].rows for name in examples)
    sections = (
        _header(found, examples, tests, listed, rows),
        _task_table(folder, kind, main, bool(listed)),
        _data_table(found, examples, tests, listed, main),
        _rest(kind, examples, listed),
    )
    return "\n".join(sections)


def _instead(folder: Path) -> str:
    """Return what a folder without data holds: files of rows too deep in it, or others."""
    names = [path.relative_to(folder).as_posix() for path in files_below(folder)]
    deeper = [name for name in names if name.lower().endswith(row_suffixes())]
    if not names:
        return ""
    shown = ", ".join((deeper or names)[:NAMED]) + ", …" * (len(deeper or names) > NAMED)
    return f", but deeper: {shown}; name a folder at most one level above them" if deeper else f", but {shown}"


def _main(examples: Sequence[DetectedFormat]) -> DetectedFormat | None:
    """Return the file with the most rows, which determines the kind, with the labels of all files."""
    if not examples:
        return None
    largest = max(examples, key=lambda seen: seen.rows)
    return replace(largest, labels=tuple(sorted({label for seen in examples for label in seen.labels})))


def _parts(found: FolderContents) -> tuple[list[str], list[str]]:
    """Return example files and test files: the largest set of files with the same columns; the others are left out. A
    file with a train and a test split is a data set by itself."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, seen in found.rows.items():
        is_whole = seen.splits >= {"train", "test"}
        groups.setdefault((seen.layout, is_whole and name, *sorted(seen.columns.items())), []).append(name)

    def size(names: Sequence[str]) -> tuple[bool, int]:
        guess = any(found.rows[name].is_guess for name in names)
        return not guess, sum(found.rows[name].rows for name in names)

    chosen = max(groups.values(), key=size, default=[])
    largest = max(chosen, key=lambda name: found.rows[name].rows, default="")
    for name in found.rows:
        if name not in chosen:
            seen, taken = found.rows[name], found.rows[largest]
            rows, alike = seen.rows, (seen.layout, seen.columns) == (taken.layout, taken.columns)
            why = f"splits of its own beside {largest}" if alike else f"other columns than {largest}, so another task"
            found.left_out.append(
                f"{name} ({rows:,} row{'s' * (rows != 1)}): {why}: run trimtab init on it in a folder of its own"
            )
    tests = [name for name in chosen if _split_of_file(name) == "test"]
    if found.tests:  # of a hub dataset, whose parts share one name
        return chosen, found.tests
    if len(tests) == len(chosen):
        return chosen, []
    return [name for name in chosen if name not in tests], tests


def _split_of_file(name: str) -> Split | None:
    """Return the split that a file is by its name, or by that of its folder; None for neither."""
    path = Path(name)
    if _TEST & set(re.split(r"[^a-z]+", path.name.lower())):
        return "test"
    return split_of(path.name) or (split_of(path.parent.name) if path.parent.name.isalpha() else None)


def _header(found: FolderContents, examples: list[str], tests: list[str], listed: list[str], rows: int) -> str:
    lines = ["# Written by `trimtab init`. What it found here:"]
    for name in (*examples, *tests):
        what = "the test set" if name in tests else "examples"
        if name not in tests and _split_of_file(name) == "dev":
            what = "examples (a dev set by its name; it joins the others, and dev is drawn from all)"
        lines += [f"#   {what}: {note}" for note in found.rows[name].notes]
    lines += [f"#   documents: {name}" for name in listed]
    if found.encoding != UTF8:
        words = f", which gives words such as {', '.join(found.words)}" if found.words else ""
        lines.append(f"#   encoding: {found.encoding}, a guess{words}; if that is wrong, set data.encoding")
    lines += [f"#   left out: {printable(note, 600)}" for note in found.left_out]
    labels = {label for name in examples for label in found.rows[name].labels}
    if len(labels) == 1:
        lines.append(
            f"# Every row has the label {printable(min(labels), 60)}: name another column, or add rows of others."
        )
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


def _task_table(folder: Path, kind: Kind, main: DetectedFormat | None, has_documents: bool) -> str:
    metric, *others = (metric.name for metric in suited_metrics(kind, main.form if main else "words"))
    lines = [
        "[task]",
        f"name = {toml_string(name_after(folder))}",
        f"kind = {toml_string(kind)}   # a guess. classify: one of a closed set; answer: short, may abstain; "
        "generate: free text",
        "# Say here what you want; the model reads it before every question.",
        f"instruction = {toml_string(_instruction(kind, main, has_documents))}",
        f"metric = {toml_string(metric)}   # or: {', '.join(others)}",
    ]
    if kind == "answer":
        lines.append('unknown = "I don\'t know"   # how an answer says that it does not know')
    if kind == "classify" and main is not None:
        lines.append(f"labels = []   # empty: the {len(main.labels)} labels of the data")
    return "\n".join(lines) + "\n"


def _instruction(kind: Kind, main: DetectedFormat | None, has_documents: bool) -> str:
    if kind == "classify":
        labels = main.labels if main is not None else ()
        choices = (
            f"one of: {', '.join(labels)}" if len(labels) <= LISTED_LABELS else "the name of its class and nothing else"
        )
        return f"Which class does this text belong to? Answer with {choices}."
    if main is not None and main.form == "json":
        return "Answer the request with JSON and nothing else."
    if kind == "generate":
        return "Answer the request from the documents." if has_documents else "Answer the request."
    if has_documents:
        return "Answer the question from the documents in a few words. If they do not say, answer: I don't know."
    return "Answer the question in a few words. If you do not know, answer: I don't know."


def _data_table(
    found: FolderContents, examples: list[str], tests: list[str], listed: list[str], main: DetectedFormat | None
) -> str:
    lines = ["[data]", f"examples = {_array(examples)}" if examples else "examples = []   # none yet"]
    if tests:
        lines.append(f"test = {_array(tests)}   # the test set as it is")
    lines.append(
        f"documents = {_array(listed)}"
        if listed
        else "documents = []   # md, txt, html, pdf, docx, xlsx, pptx: folders or files"
    )
    if found.preferences:
        lines.append(
            f"preferences = {_array(found.preferences)}   # judged answers: pairs for lora-dpo, single ones for "
            "lora-kto"
        )
    if found.encoding != UTF8:
        lines.append(f"encoding = {toml_string(found.encoding)}   # of all files")
    if main is not None:
        lines += _column_lines(main)
    given = main.splits if main is not None else frozenset()
    if tests or given:
        lines.append(
            'leakage = "drop"   # examples that repeat held-out rows leave the examples; "stop": refuse them, '
            '"report": keep them'
        )
    shares = [] if "dev" in given else ["dev = 0.15"]
    shares += [] if tests or "test" in given else ["test = 0.25", "seed = 0"]
    if examples and shares:
        lines.append(f"split = {{ {', '.join(shares)} }}   # shares of the examples that are held out")
    return "\n".join(lines) + "\n"


def _column_lines(main: DetectedFormat) -> Iterator[str]:
    """Yield the lines on columns: which is which, which are not used, and which could be group and slice."""
    if main.layout == "table":
        target = "label" if main.kind == "classify" else "output"
        pair = f"input = {_value(main.columns['input'])}, {target} = {_value(main.columns['output'])}"
        yield f"columns = {{ {pair} }}   # which column is which"
    elif main.rivals and "output" in main.columns:
        other = next(iter(main.rivals))
        pair = f"input = {_value(main.columns['input'])}, output = {toml_string(other)}"
        yield f"# columns = {{ {pair} }}   # if `{other}` is to be learnt instead"
    if main.unused:
        yield f"# not used: {printable(', '.join(main.unused), 100)}"
    if main.layout != "squad":
        group = next((name for name in main.grouping if name.lower() in _GROUP_COLUMNS), "…")
        if "group" not in main.columns:
            yield (
                f"# group = {toml_string(group)}   # a column: rows of one group (a person, a document) are never "
                "split apart"
            )
        if "slice" not in main.columns:
            other = next((name for name in main.grouping if name != group), "…")
            yield f"# slice = {toml_string(other)}   # a column: scores are also given for each of its values"


def _rest(kind: Kind, examples: list[str], listed: list[str]) -> str:
    tables = {
        "task": {"name": "x", "kind": kind},
        "data": {"examples": examples, "documents": listed},
        "base": {"model": BASE_MODEL},
    }
    arms = _array(list(default_arms(Task.model_validate(tables))))
    return f"""[base]
# small enough for two processor cores; or a catalogue name, a folder, a Hugging Face id
model = {toml_string(BASE_MODEL)}
embedding = {toml_string(EMBEDDING)}   # finds passages and similar examples

[target]
# quality = 0.85   # what is good enough, in the metric; without it, the best is the measure
margin = 0.02   # how much worse than the best still counts as not worse

[study]
# arms = {arms}   # what is compared; unless set, all usual ones of the kind and the data
budget = "30m"   # what does not fit is cut, with a note; empty: no limit
effort = "standard"   # what each arm may search on dev, in the same time: none, standard, thorough
"""


def _value(asked: RequestedColumns) -> str:
    return toml_string(asked) if isinstance(asked, str) else _array(asked)


def _array(texts: Sequence[str]) -> str:
    return f"[{', '.join(toml_string(text) for text in texts)}]"
