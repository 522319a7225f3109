"""Writes the pages of docs/reference that repeat what the code says; `--check` fails where one is stale.

cli.md is the help of every verb, task-file.md the JSON Schema of the task file, http.md the server's OpenAPI
description, rooms.md the public names of the rooms. In architecture/index.md the tables of files are written: each file
with the first sentence of its module.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from typer.testing import CliRunner

from trimtab import Task
from trimtab.cli.main import app
from trimtab.serving.app import AppParts, routes

ROOT = Path(__file__).parents[1]
FOLDER, ARCHITECTURE = ROOT / "docs" / "reference", ROOT / "docs" / "architecture" / "index.md"
ROOMS = ("model", "training", "inference", "retrieval", "measurement", "decision")
WRITTEN = "Written by `python docs/make_reference.py`; do not edit."


def cli() -> str:
    """The help of `trimtab`, then of each verb."""
    os.environ.update({"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"})
    runner = CliRunner()
    verbs = [command.name for command in app.registered_commands if command.name]
    for group in app.registered_groups:
        own = group.typer_instance.registered_commands if group.typer_instance else []
        verbs += [f"{group.name} {command.name}" for command in own]
    parts = [f"# Command line\n\nEvery command, with its options and an example. {WRITTEN}\n"]
    for verb in ("", *verbs):
        shown = runner.invoke(app, [*verb.split(), "--help"], prog_name="trimtab")
        if shown.exit_code != 0:
            raise SystemExit(f"trimtab {verb} --help failed: {shown.output}")
        lines = "\n".join(line.rstrip() for line in shown.output.strip().splitlines())
        parts.append(f"## {f'trimtab {verb}'.strip()}\n\n```text\n{lines}\n```\n")
    return "\n".join(parts)


def task_file() -> str:
    """Every table of `trimtab.toml`: keys, types, defaults and limits."""
    schema = Task.model_json_schema()
    known = schema["$defs"]
    parts = [
        f"# Task file\n\nEvery key of `trimtab.toml`, with its type, default and limits. {WRITTEN}",
        "[How to write one](../how-to/task-file.md) explains the choices. An unknown key is refused, and the "
        "nearest known one is named.",
    ]
    for name, entry in schema["properties"].items():
        table = _table_of(entry, known)
        if table is not None:
            heading = f"[{name}]" if entry.get("type") != "object" else f"[{name}.NAME]"
            parts.append(f"## `{heading}`\n\n{table.get('description', '')}\n\n{_keys(table, known)}")
            for key, inner in table["properties"].items():
                deeper = _table_of(inner, known)
                if deeper is not None:
                    parts.append(f"### `{name}.{key}`\n\n{deeper.get('description', '')}\n\n{_keys(deeper, known)}")
    return "\n\n".join(parts) + "\n"


def _table_of(entry: dict[str, Any], known: dict[str, Any]) -> dict[str, Any] | None:
    """The table that a key holds, or that each name under it holds; None where it holds a value."""
    found = [entry, *entry.get("anyOf", []), *([entry["additionalProperties"]] if _holds_names(entry) else [])]
    for one in found:
        table = known.get(one.get("$ref", "").rpartition("/")[2])
        if table and table.get("type") == "object":
            return cast(dict[str, Any], table)
    return None


def _holds_names(entry: dict[str, Any]) -> bool:
    return isinstance(entry.get("additionalProperties"), dict)


def _keys(table: dict[str, Any], known: dict[str, Any]) -> str:
    lines = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    required = table.get("required", [])
    for key, entry in table["properties"].items():
        default = "required" if key in required else _value(entry.get("default"))
        words = entry.get("description", "").replace("\n", " ").replace("|", "\\|")
        lines.append(f"| `{key}` | {_type(entry, known)} | {default} | {words} |")
    return "\n".join(lines)


def _value(value: Any) -> str:
    return "" if value is None or isinstance(value, dict) else f"`{json.dumps(value)}`"


def _type(entry: dict[str, Any], known: dict[str, Any]) -> str:
    """A type in words: its choices, its items, its limits."""
    if "anyOf" in entry:
        return " or ".join(dict.fromkeys(_type(one, known) for one in entry["anyOf"] if one.get("type") != "null"))
    if "$ref" in entry:
        target = known[entry["$ref"].rpartition("/")[2]]
        return "table" if target.get("type") == "object" else _type(target, known)
    if "enum" in entry:
        return " \\| ".join(f"`{one}`" for one in entry["enum"])
    if "const" in entry:
        return f"`{entry['const']}`"
    kind = str(entry.get("type", "any"))
    if kind == "array":
        return f"list{_most(entry, 'maxItems')} of {_type(entry.get('items', {}), known)}"
    if kind == "object":
        return f"table of {_type(entry['additionalProperties'], known)}" if _holds_names(entry) else "table"
    words = {"exclusiveMinimum": "above", "minimum": "from", "exclusiveMaximum": "below", "maximum": "to"}
    limits = [f"{word} {entry[key]:g}" for key, word in words.items() if key in entry]
    return " ".join([kind, *limits]) + _most(entry, "maxLength", " characters")


def _most(entry: dict[str, Any], key: str, unit: str = "") -> str:
    """The most items or characters that a value may have, in brackets; nothing without a limit."""
    return f" (at most {entry[key]:,}{unit})" if key in entry else ""


def http() -> str:
    """Every route of the server, with the fields of its requests."""
    parts = cast(AppParts, SimpleNamespace(dispatcher=None, embedding="", embed=None, store=None, limiter=None))
    described = routes(parts).openapi()
    known = described["components"]["schemas"]
    text = [
        "# HTTP API\n\nEvery route of `trimtab serve`, from its OpenAPI description (`/openapi.json` of a "
        f"running server). {WRITTEN}",
        'A request carries `Authorization: Bearer KEY`. Errors have OpenAI\'s form: `{"error": {"message", '
        '"type", "param", "code"}}`.'
        " [Serving](../how-to/serving.md) shows the routes in use, [Feedback](../how-to/feedback.md#send-a-judgement) "
        "that of judgements.",
    ]
    for path, methods in described["paths"].items():
        for method, route in methods.items():
            text.append(f"## `{method.upper()} {path}`\n\n{route.get('description', '').strip()}")
            text += _body(route, known)
    return "\n\n".join(text) + "\n"


def _body(route: dict[str, Any], known: dict[str, Any]) -> Iterator[str]:
    for content in route.get("requestBody", {}).get("content", {}).values():
        table = _table_of(content["schema"], known)
        if table is None:
            continue
        yield _keys(table, known)
        for key, entry in table["properties"].items():
            inner = _table_of(entry.get("items", {}), known)
            if inner and any("description" in value for value in inner["properties"].values()):
                yield f"Each of `{key}`:\n\n{_keys(inner, known)}"


def rooms() -> str:
    """Every public name of the rooms, with its signature and docstring."""
    text = [
        "# Rooms\n\nThe parts that `trimtab` is built of, for code of your own: models, training, inference, "
        f"retrieval, measurement, decision. {WRITTEN}",
        "Each room exports the names below, and imports a part when it is first used. `examples/` in the repository "
        "shows them at work. Other modules of a room are internal and may change.",
    ]
    for room in ROOMS:
        face = importlib.import_module(f"trimtab.{room}")
        values = {name: getattr(face, name) for name in face.__all__}
        rows = "\n".join(f"| `{name}` | {_first_sentence(inspect.getdoc(one) or '')} |" for name, one in values.items())
        text.append(f"## `{face.__name__}`\n\n{face.__doc__}\n\n| name | what it is |\n| --- | --- |\n{rows}")
        # A name that two rooms export is described once.
        text += [entry for one in values.values() if (entry := f"::: {one.__module__}.{one.__name__}") not in text]
    return "\n\n".join(text) + "\n"


def _first_sentence(docstring: str) -> str:
    """The first sentence of a docstring, as the cell of a table."""
    first = re.split(r"(?<=\.)\s", " ".join(docstring.split("\n\n")[0].split()))[0]
    return first.replace("|", "\\|")


PAGES = {"cli.md": cli, "task-file.md": task_file, "http.md": http, "rooms.md": rooms}


def architecture() -> str:
    """The page of the architecture with a table of files in the section of every room."""
    parts = re.split(r"(?m)^(?=## )", ARCHITECTURE.read_text(encoding="utf-8"))
    table = re.compile(r"(?m)^\| file \| what it does \|\n(?:^\|.*\n)+")
    for number, part in enumerate(parts):
        room = re.match(r"## `trimtab/(\w+)/`", part)
        if room:
            parts[number] = table.sub(lambda _, room=room[1]: files_of(room), part, count=1)  # type: ignore[misc]
    return "".join(parts)


def files_of(room: str) -> str:
    """The table of a room's files; C sources have their first comment."""
    rows = ["| file | what it does |", "| --- | --- |"]
    home = ROOT / "trimtab" / room
    for file in sorted((*home.rglob("*.py"), *home.rglob("*.c")), key=lambda one: (len(one.parts), one)):
        text = file.read_text(encoding="utf-8")
        if file.name == "__init__.py" or "example" in file.relative_to(home).parts:
            continue
        if file.suffix == ".c":
            said = re.sub(r"(?m)^// ?", "", re.match(r"(?:// ?.+\n)+", text)[0])  # type: ignore[index]
        else:
            said = ast.get_docstring(ast.parse(text)) or ""
        rows.append(f"| `{file.relative_to(home)}` | {_first_sentence(said)} |")
    return "\n".join(rows) + "\n"


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check only compare them."""
    code = 0
    for file, page in {**{FOLDER / name: page for name, page in PAGES.items()}, ARCHITECTURE: architecture}.items():
        text = page()
        if file.is_file() and file.read_text(encoding="utf-8") == text:
            continue
        if arguments == ["--check"]:
            print(f"{file.relative_to(ROOT)} is stale; run: python docs/make_reference.py", file=sys.stderr)
            code = 1
        else:
            file.write_text(text, encoding="utf-8")
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
