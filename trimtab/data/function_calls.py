"""Function calls as text: how a call is written, how functions are shown to a model without a template for them, and
how an answer is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trimtab.base.records import Message

CALL_MARK = "<tool_call>"
CALL_END = "}\n</tool_call>"
"""A call as the templates of Hermes and Qwen models write it, and as rows with calls are trained on."""
_FUNCTIONS = """You can call functions. These are their definitions, one a line:
{definitions}

To call a function, write this and nothing after it:
{call}
What it returns comes back between <tool_response> and </tool_response>. Answer in words if no function is needed."""


def call_start(name: str) -> str:
    """Return the text of a call before its arguments."""
    return f'{CALL_MARK}\n{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": '


def call_text(name: str, arguments: str) -> str:
    """Return the text of a call; `arguments` is JSON."""
    return f"{call_start(name)}{arguments}{CALL_END}"


def functions_in_words(messages: Sequence[Message], definitions: Sequence[str]) -> tuple[Message, ...]:
    """Return a conversation for a template that shows no functions.

    Their definitions (JSON) stand in the system turn; results of calls become user turns, joined with the user turns
    beside them.
    """
    turns: list[Message] = []
    for message in messages:
        content = message.content
        if message.role == "tool":
            content = f"<tool_response>\n{content}\n</tool_response>"
        role = "user" if message.role == "tool" else message.role
        if role == "user" and turns and turns[-1].role == "user":
            content = f"{turns.pop().content}\n{content}"
        turns.append(Message(role=role, content=content))
    if definitions:
        shown = _FUNCTIONS.format(definitions="\n".join(definitions), call=call_text("NAME", "{…}"))
        first = f"{turns.pop(0).content}\n\n" if turns[0].role == "system" else ""
        turns.insert(0, Message(role="system", content=first + shown))
    return tuple(turns)


def turns_as_text(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return a conversation for a model that sees no turns of tools: what they returned is the user's, and system turns
    are joined in front.
    """
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    turns = (
        Message(role="user" if message.role == "tool" else message.role, content=message.content)
        for message in messages
        if message.role != "system"
    )
    return (*([Message(role="system", content=system)] if system else []), *turns)


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """A piece of an answer: text, the name of the function that is called, or a piece of its arguments."""

    text: str = ""
    name: str = ""
    arguments: str = ""


class CallReader:
    """Reads an answer piece by piece: text, then perhaps a call of one of the functions `names`.

    `is_called` is true once a call has begun.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.is_called = False
        self._starts = {call_start(name): name for name in names}
        self._held = ""  # not yet known to be text, or perhaps the end of the call
        self._arguments = ""

    def add(self, piece: str) -> Iterator[AnswerPart]:
        """Yield what a new piece adds."""
        self._held += piece
        if not self.is_called:
            place = self._held.find(CALL_MARK)
            end = place if place >= 0 else self._text_end()
            text, self._held = self._held[:end], self._held[end:]
            if text := text.rstrip() if place >= 0 else text:
                yield AnswerPart(text=text)
            start = next((start for start in self._starts if self._held.startswith(start)), None)
            if start is None:
                return
            self.is_called, self._held = True, self._held[len(start) :]
            yield AnswerPart(name=self._starts[start])
        yield from self._more_arguments(len(self._held) - len(CALL_END))

    def end(self) -> Iterator[AnswerPart]:
        """Yield what is left once the answer has ended; a call that was cut has incomplete arguments."""
        if self.is_called:
            whole = self._arguments + self._held
            yield from self._more_arguments(_json_length(whole) - len(self._arguments))
        elif self._held and not self._held.startswith(CALL_MARK):
            yield AnswerPart(text=self._held)

    def _text_end(self) -> int:
        """Return the length of the held text that no call can begin in; blanks before a call are not part of it."""
        sizes = (size for size in range(len(CALL_MARK), 0, -1) if self._held.endswith(CALL_MARK[:size]))
        return len(self._held[: len(self._held) - next(sizes, 0)].rstrip())

    def _more_arguments(self, length: int) -> Iterator[AnswerPart]:
        if length > 0:
            piece, self._held = self._held[:length], self._held[length:]
            self._arguments += piece
            yield AnswerPart(arguments=piece)


def _json_length(text: str) -> int:
    """Return the length of the JSON value that a text begins with; all of it if that is incomplete."""
    try:
        return json.JSONDecoder().raw_decode(text)[1]
    except (ValueError, RecursionError):
        return len(text)
