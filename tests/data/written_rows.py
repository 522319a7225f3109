"""Files of rows as the reading tests write them, and what reading one gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trimtab.base.task import Task
from trimtab.data.formats import ReadRows, read_examples

GOOD = [{"question": f"What is {n} plus one?", "answer": f"It is {n + 1}."} for n in range(40)]
ASK, SAY = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q": "x"}'}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}


def read(path: Path, kind: str = "answer", **data: Any) -> ReadRows:
    """What reading one file gives."""
    task = Task(
        task={"name": "t", "kind": kind, **data.pop("task", {})},
        data={"examples": [path.name], **data},
        base={"model": "m"},
        file=path.parent / "trimtab.toml",
    )
    return read_examples(task, task.data.examples)


def lines(*rows: Any) -> bytes:
    """JSON lines; text stands as it is."""
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()


def after_good(*rows: Any) -> bytes:
    """The rows after forty good ones: the first stands in line 41."""
    return lines(*GOOD, *rows)


def chat(*turns: Any) -> bytes:
    """A conversation in line 3, after two good ones."""
    return lines({"messages": [ASK, SAY]}, {"messages": [ASK, SAY]}, {"messages": list(turns)})


def csv(*rows: str) -> bytes:
    """A table of questions and answers."""
    return "\n".join(("question,answer", *rows, "")).encode()
