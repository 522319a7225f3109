"""Parses conversations in rows: roles and their order, tool calls, text parts; the last assistant turn is the
reference."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from trimtab.base.records import Message, Role
from trimtab.data.function_calls import call_text
from trimtab.data.raw_rows import RawRow
from trimtab.data.strict_json import parse_json, type_name

ROLES: tuple[str, ...] = get_args(Role)
SPEAKERS: Mapping[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}
"""The values of `from` in the layout conversations."""


class SkipRow(Exception):  # noqa: N818  not an error: the row goes to the ledger and reading goes on
    """A row that cannot be used, but does not stop the reading."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


def read_turns(row: RawRow, field: str, *, is_from_value: bool) -> tuple[tuple[Message, ...], str]:
    """Return the turns up to the last answer, and that answer; with `is_from_value` turns have from/value, else
    role/content.

    Raises SkipRow for a row without a usable answer, InputError for a malformed conversation.
    """
    turns = row.fields[field]
    if not isinstance(turns, list) or not turns:
        raise row.error(
            f"is {type_name(turns) if turns != [] else 'empty'}, not a list of turns", "mend the row", field
        )
    messages: list[Message] = []
    roles: list[Role] = []
    open_call_ids: set[str] | None = None  # ids of the calls that tool turns may answer; None: no calls were made
    for index, turn in enumerate(turns):
        where = f"{field}[{index}]"
        if not isinstance(turn, dict):
            raise row.error(f"is {type_name(turn)}, not an object", "write role and content", where)
        role = _role(row, turn, where, is_from_value)
        _check_order(row, roles, role, open_call_ids, turn, where)
        roles.append(role)
        content = _content(row, turn, "value" if is_from_value else "content", where)
        if role == "assistant":
            calls = _tool_calls(row, turn, where)
            open_call_ids = {str(call["id"]) for call in turn["tool_calls"] if call.get("id")} if calls else None
            content = "\n".join(part for part in (content, *calls) if part.strip())
            if not content:
                raise SkipRow(f"turn {index + 1} of the assistant is empty", "write the answer, or leave the row out")
        messages.append(Message(role=role, content=content))
    return _split_answer(messages)


def _split_answer(messages: list[Message]) -> tuple[tuple[Message, ...], str]:
    if all(message.role != "assistant" for message in messages):
        raise SkipRow("no turn of the assistant", "add the answer, or leave the row out")
    if messages[-1].role != "assistant":
        raise SkipRow("the last turn is not the assistant's", "add the answer, or remove the turns after the last one")
    return tuple(messages[:-1]), messages[-1].content


def _role(row: RawRow, turn: dict[str, Any], where: str, is_from_value: bool) -> Role:
    key = "from" if is_from_value else "role"
    name = turn.get(key)
    known = SPEAKERS if is_from_value else {role: cast(Role, role) for role in ROLES}
    if not isinstance(name, str) or name not in known:
        raise row.error(f"unknown role {name!r}", f"use one of: {', '.join(known)}", f"{where}.{key}")
    return known[name]


def _check_order(
    row: RawRow,
    roles_before: Sequence[Role],
    role: Role,
    open_call_ids: set[str] | None,
    turn: dict[str, Any],
    where: str,
) -> None:
    """Require the system turn first, user and assistant alternating, and tool results only after calls."""
    last = roles_before[-1] if roles_before else None
    if role == "system":
        if roles_before and roles_before[0] == "system":
            raise row.error("a second system turn", "join the two into one", where)
        if roles_before:
            raise row.error("the system turn is not the first", "move it to the front", where)
        return
    if role == "tool":
        if open_call_ids is None or last not in ("assistant", "tool"):
            raise row.error("a tool result with no tool call before it", "add the call, or remove the result", where)
        answered = turn.get("tool_call_id")
        if answered is not None and open_call_ids and str(answered) not in open_call_ids:
            raise row.error(f"answers the tool call {answered!r}, which was not made", "mend tool_call_id", where)
        return
    allowed = (None, "system", "assistant") if role == "user" else ("user", "tool")
    if last not in allowed:
        where_it_stands = f"follows {last}" if last else "comes first"
        raise row.error(f"a turn of {role} {where_it_stands}", "turns must alternate: user, assistant, user …", where)


def _content(row: RawRow, turn: dict[str, Any], key: str, where: str) -> str:
    """Return the text of a turn, with text parts joined; null is allowed only beside tool calls."""
    content = turn.get(key)
    if isinstance(content, str):
        return content
    if content is None and (turn.get("tool_calls") or turn.get("role") == "assistant" or turn.get("from") == "gpt"):
        return ""
    if not isinstance(content, list):
        raise row.error(f"is {type_name(content)}, not text", "write text", f"{where}.{key}")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise row.error(
                f"holds a part of type {kind!r}; the model reads text only", "leave the row out", f"{where}.{key}"
            )
        texts.append(part["text"])
    return "".join(texts)


def _tool_calls(row: RawRow, turn: dict[str, Any], where: str) -> list[str]:
    """Return each call as text, as the server reads and writes it, so that nothing is lost."""
    calls = turn.get("tool_calls")
    if not calls:
        return []
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise row.error("is not a list of calls", 'write [{"function": {"name", "arguments"}}]', f"{where}.tool_calls")
    calls_text = []
    for index, call in enumerate(calls):
        place = f"{where}.tool_calls[{index}]"
        function = call.get("function", call)
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str):
            raise row.error("a call without the name of its function", "add it", place)
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            arguments = _parsed_arguments(row, arguments, f"{place}.arguments")
        if not isinstance(arguments, dict):
            raise row.error(
                f"tool arguments are {type_name(arguments)}, not an object", "write a JSON object", f"{place}.arguments"
            )
        calls_text.append(call_text(name, json.dumps(arguments, ensure_ascii=False)))
    return calls_text


def _parsed_arguments(row: RawRow, text: str, field: str) -> Any:
    try:
        value, end = parse_json(text.strip(), row.file, row.line)
    except ValueError as error:
        raise row.error(
            f"tool arguments are {getattr(error, 'problem', 'not valid JSON')}", "write a JSON object", field
        ) from None
    if end < len(text.strip()):
        raise row.error("tool arguments hold more than one JSON value", "write a JSON object", field)
    return value
