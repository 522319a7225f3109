"""Builds every prompt and its loss mask, for training, evaluation and inference alike.

Text of rows and documents is encoded apart from the chat template, so it cannot produce special tokens, and the ids of
the prompt are a prefix of the ids that are trained on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trimtab.base.errors import InputError
from trimtab.base.records import Document, Encoded, Example, Hit, Message, Prompt
from trimtab.base.sanitize import one_line
from trimtab.data.function_calls import call_text
from trimtab.data.template import render_template

Shot = tuple[str, str]

_PRINTABLE_BYTES = {
    *range(0x21, 0x7F),
    *range(0xA1, 0xAD),
    *range(0xAE, 0x100),
}  # bytes that byte-level BPE writes as themselves
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE_BYTES]
_BYTE_TO_LETTER = [chr(byte if byte in _PRINTABLE_BYTES else 256 + _OTHERS.index(byte)) for byte in range(256)]
MOST_FRAMES = 512  # cached sequences of roles
_PLAIN_TEMPLATE = (
    "{{ bos }}{% for m in messages %}{{ '### ' + m['role'] + '\\n' + m['content'] }}"
    "{{ eos if m['role'] == 'assistant' else '' }}{{ '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant\\n' }}{% endif %}"
)


def build_prompt(example: Example, instruction: str, shots: Sequence[Shot] = (), hits: Sequence[Hit] = ()) -> Prompt:
    """Return the prompt: instruction, shots as earlier turns, and passages before the question.

    A row with a system turn of its own keeps it in place of the instruction.
    """
    messages = list(example.messages)
    if messages[0].role != "system" and instruction:
        messages.insert(0, Message(role="system", content=instruction))
    turns = [turn for shot in shots for turn in _as_turns(shot)]
    start = 1 if messages[0].role == "system" else 0
    messages[start:start] = turns
    if hits:
        messages[-1] = Message(role=messages[-1].role, content=with_passages(messages[-1].content, hits))
    return Prompt(id=example.id, messages=tuple(messages), hits=tuple(hits))


def with_passages(question: str, hits: Sequence[Hit]) -> str:
    """Return a question below its retrieved passages."""
    return f"{passages_text(hits)}\n\nQuestion: {question}"


def passages_text(hits: Sequence[Hit]) -> str:
    """Return passages as the model reads them: numbered, each below its title and headings."""
    return "Passages:\n" + "\n\n".join(f"[{number}] {hit.passage.shown}" for number, hit in enumerate(hits, 1))


def _as_turns(shot: Shot) -> tuple[Message, Message]:
    return Message(role="user", content=shot[0]), Message(role="assistant", content=shot[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateFrame:
    """The ids that the template puts between two contents, and the leading blank (if any) of the next content's first
    token."""

    ids: tuple[int, ...]
    lead: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _TokenLimits:
    """The most bytes and words that one token can stand for; `blanks` beside ASCII white space, `unknown` bytes without
    a token."""

    blanks: str
    unknown: bytes
    most_bytes: int
    most_words: int


class ChatEncoder:
    """Encodes conversations to token ids with a tokenizer's chat template, or a plain template if it has none.

    `stop_ids` are the tokens that end an answer. Raises InputError for a tokenizer without an end token.
    """

    def __init__(self, tokenizer: Any, stop_ids: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        self._encode_text = _without_added_tokens(tokenizer)
        ends = {*stop_ids, *([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])}
        if not ends:
            raise InputError(
                "the tokenizer has no end token, so an answer could never stop",
                "choose another base model",
                field="base.model",
            )
        self.stop_ids = frozenset(ends)
        self._end_id = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else min(ends)
        self._plain_template = None if tokenizer.chat_template else _PLAIN_TEMPLATE
        first = tokenizer("a")["input_ids"][:1]
        self._bos_ids = (tokenizer.bos_token_id,) if first == [tokenizer.bos_token_id] else ()
        self._frames: dict[tuple[tuple[str, ...], bool], tuple[TemplateFrame, ...]] = {}
        self._strips_blanks = " probe " not in self._render(["user"], [" probe "], True)
        # Some templates move a system turn before the last user turn.
        self._has_system_role = self._keeps_turns("system", "user", "assistant", "user")

    @property
    def chat_template(self) -> str:
        """The template of the prompts, in the form that transformers and llama.cpp read; a plain one contains its own
        tokens."""
        if self._plain_template is None:
            template: str = self.tokenizer.get_chat_template()
            return template
        begin, end = self.tokenizer.bos_token if self._bos_ids else "", self.tokenizer.eos_token or ""
        return f"{{% set bos = {json.dumps(begin)} %}}{{% set eos = {json.dumps(end)} %}}{self._plain_template}"

    @property
    def takes_system(self) -> bool:
        """True if the template supports a system turn."""
        return self._has_system_role

    def turns(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        """Return the turns as the template expects them, and as another program has to pass them."""
        return [{"role": role, "content": text} for role, text in zip(*self._prepare(messages), strict=True)]

    def prompt(self, messages: Sequence[Message], functions: Sequence[str] = ()) -> tuple[int, ...]:
        """Return the ids up to the beginning of the answer; `functions`: definitions (JSON) that `shows` is true of."""
        return self._encode_prompt(messages, functions)[0]

    def shows(self, functions: Sequence[str]) -> bool:
        """True if the template shows these functions, and writes calls as `call_text` does.

        Not if a definition contains a special or added token: the template's text is read with them.
        """
        tokens = {*self.tokenizer.all_special_tokens, *self.tokenizer.get_added_vocab()}
        spelled = any(token.strip() and token in text for token in tokens for text in functions)
        return self._has_calls and not spelled

    @cached_property
    def _has_calls(self) -> bool:
        """True if the template shows functions, and writes a call and what it returned in the form that we read."""
        definition = {"name": "\ue0002\ue001", "description": "\ue0003\ue001", "parameters": {"type": "object"}}
        call = {"name": "\ue0002\ue001", "arguments": {"\ue0004\ue001": 1}}
        turns: list[dict[str, Any]] = [
            {"role": "user", "content": "\ue0000\ue001"},
            {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]},
            {"role": "tool", "content": "\ue0001\ue001"},
        ]
        try:
            text = self._render_turns(turns, True, [json.dumps({"type": "function", "function": definition})])
        except InputError:
            return False
        written = call_text("\ue0002\ue001", '{"\ue0004\ue001": 1}')
        return all(part in text for part in ("\ue0003\ue001", "\ue0000\ue001", written, "\ue0001\ue001"))

    def fewest_tokens(self, messages: Sequence[Message]) -> int:
        """Return a lower bound of the tokens of these contents, by their words and bytes, without tokenizing.

        0 if the tokenizer may read any unknown word as one token or none.
        """
        limits = self._token_limits
        if limits is None:
            return 0
        normalizer = self.tokenizer.backend_tokenizer.normalizer
        texts = (message.content.encode(errors="replace").decode() for message in messages)
        read = (normalizer.normalize_str(text) if normalizer else text for text in texts)
        words = [word for text in read for word in _words(text, limits.blanks, limits.unknown)]
        return max(len(words) // limits.most_words, sum(map(len, words)) // limits.most_bytes)

    def most_tokens(self, messages: Sequence[Message], answer: str) -> float:
        """Return an upper bound of the tokens of a prompt and its answer, by their bytes, without tokenizing.

        A token stands for a byte or more, and tokenizers put at most one blank before each word. Infinite for a
        tokenizer in Python, which may do anything.
        """
        if not self.tokenizer.is_fast:
            return math.inf
        roles, contents = self._prepare(messages)
        around = sum(len(frame.ids) for frame in self._template_frames(roles, True)) + len(self._end_ids())
        normalizer = self.tokenizer.backend_tokenizer.normalizer
        texts = (f" {text}".encode(errors="replace").decode() for text in (*contents, answer))  # " ": a frame's lead
        return around + sum(
            2 * len((normalizer.normalize_str(text) if normalizer else text).encode()) for text in texts
        )

    @cached_property
    def _token_limits(self) -> _TokenLimits | None:
        """The limits of a token; None if one token may stand for any text."""
        vocabulary = self.tokenizer.get_vocab()
        if not self.tokenizer.is_fast:
            return None
        if "ByteLevel" in repr(self.tokenizer.backend_tokenizer.pre_tokenizer):
            blanks, written = "", "".join(_BYTE_TO_LETTER[byte] for byte in b" \t\n\v\f\r")
            unknown = bytes(byte for byte, letter in enumerate(_BYTE_TO_LETTER) if letter not in vocabulary)
        elif "<0xFF>" in vocabulary:
            blanks, written, unknown = "▁", "▁", b""  # U+2581, SentencePiece's blank
        else:
            return None
        spelled = [_words(token, written) for token in vocabulary.keys() - set(self.tokenizer.all_special_tokens)]
        most_bytes, most_words = max(sum(map(len, words)) for words in spelled), max(map(len, spelled))
        return _TokenLimits(blanks=blanks, unknown=unknown, most_bytes=most_bytes, most_words=most_words)

    def answer(self, text: str) -> tuple[int, ...]:
        """Return the ids of an answer with its end token, which are trained on, or scored for a label."""
        return (*self.text(text), *self._end_ids())

    def conversation(self, messages: Sequence[Message], answer: str, *, train_on: str = "last") -> Encoded:
        """Encode a prompt and its answer with the loss mask: the last answer, or `all` assistant turns, with end
        tokens."""
        ids, earlier = self._encode_prompt(messages)
        closing = self.answer(answer)
        before = earlier if train_on == "all" else (False,) * len(ids)
        return Encoded(ids=(*ids, *closing), trained=(*before, *(True,) * len(closing)))

    def document(self, document: Document) -> Encoded:
        """Encode a whole document as running text with its end token; every token is trained on."""
        parts = [document.title] if document.title else []
        for section in document.sections:
            heading = " › ".join(part for part in section.path if part != document.title)
            parts += [part for part in (heading, section.text) if part]
        ids = (*self._bos_ids, *self.text("\n\n".join(parts)), self._end_id)
        return Encoded(ids=ids, trained=(True,) * len(ids))

    def text(self, text: str, lead: str = "") -> tuple[int, ...]:
        """Return the ids of plain text after the blank `lead`; `<|im_start|>` or `<think>` in a text stay ordinary
        characters."""
        clean = lead + (text.strip() if self._strips_blanks else text)
        return tuple(self._encode_text(clean)) if clean else ()

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of an answer's ids, without end token and surrounding white space."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text.strip()

    def _end_ids(self) -> tuple[int, ...]:
        """Return the template's ids after an answer, up to and including the end token."""
        piece = self._template_frames(("user", "assistant"), False)[-1].ids
        for position, token in enumerate(piece):
            if token in self.stop_ids:
                return piece[: position + 1]
        return (self._end_id,)

    def _encode_prompt(
        self, messages: Sequence[Message], functions: Sequence[str] = ()
    ) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """Return the ids up to the beginning of the answer, and for each whether it belongs to an earlier answer or its
        end."""
        roles, contents = self._prepare(messages)
        first, *frames = self._template_frames(roles, True, functions)
        ids, in_answer, lead, ending = list(first.ids), [False] * len(first.ids), first.lead, self._end_ids()
        for role, content, frame in zip(roles, contents, frames, strict=True):
            content_ids = self.text(content, lead)
            end_length = len(ending) if frame.ids[: len(ending)] == ending else 0
            answer_length = len(content_ids) + end_length if role == "assistant" else 0
            ids += [*content_ids, *frame.ids]
            in_answer += [place < answer_length for place in range(len(content_ids) + len(frame.ids))]
            lead = frame.lead
        return tuple(ids), tuple(in_answer)

    def _prepare(self, messages: Sequence[Message]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return roles and contents for the template; a system turn that it does not take, first or later, goes before
        the next turn that is not the assistant's, or after the last."""
        turns: list[Message] = []
        waiting: list[str] = []
        for number, message in enumerate(messages):
            if message.role == "system" and not (self._has_late_system if number else self._has_system_role):
                waiting.append(message.content)
            elif waiting and message.role != "assistant":
                turns.append(Message(role=message.role, content="\n\n".join([*waiting, message.content])))
                waiting = []
            else:
                turns.append(message)
        if waiting and turns:
            turns[-1] = Message(role=turns[-1].role, content="\n\n".join([turns[-1].content, *waiting]))
        return tuple(message.role for message in turns), tuple(message.content for message in turns)

    def _template_frames(
        self, roles: tuple[str, ...], add_generation_prompt: bool, functions: Sequence[str] = ()
    ) -> tuple[TemplateFrame, ...]:
        """Return what the template puts before, between and after the contents of turns with these roles."""
        if functions:
            return self._made_frames(roles, add_generation_prompt, functions)
        if (roles, add_generation_prompt) not in self._frames:
            if len(self._frames) >= MOST_FRAMES:
                self._frames.clear()  # clients of a server choose the roles, so the cache must be bounded
            self._frames[roles, add_generation_prompt] = self._made_frames(roles, add_generation_prompt)
        return self._frames[roles, add_generation_prompt]

    def _made_frames(
        self, roles: tuple[str, ...], add_generation_prompt: bool, functions: Sequence[str] = ()
    ) -> tuple[TemplateFrame, ...]:
        pieces = self.pieces(roles, add_generation_prompt, functions)
        # The blank of "[INST] " belongs to the first word's token; the one before the answer stays.
        leads = [" " if piece.endswith(" ") else "" for piece in pieces[:-1]] + [""]
        return tuple(
            TemplateFrame(ids=self._ids(piece.removesuffix(lead)), lead=lead)
            for piece, lead in zip(pieces, leads, strict=True)
        )

    def pieces(
        self, roles: Sequence[str], add_generation_prompt: bool, functions: Sequence[str] = ()
    ) -> tuple[str, ...]:
        """Return the text before, between and after the contents of turns with these roles; raises InputError for a
        dropped turn."""
        marks = [f"\ue000{number}\ue001" for number in range(len(roles))]
        rest, pieces = self._render(roles, marks, add_generation_prompt, functions), []
        for mark in marks:
            piece, found, rest = rest.partition(mark)
            if not found:
                raise InputError(
                    f"the chat template drops a turn of the roles {', '.join(roles)}",
                    "use another base model or row layout",
                )
            pieces.append(piece)
        return (*pieces, rest)

    def _ids(self, piece: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(piece, add_special_tokens=False)["input_ids"]) if piece else ()

    def _render(
        self, roles: Sequence[str], contents: Sequence[str], add_generation_prompt: bool, functions: Sequence[str] = ()
    ) -> str:
        turns = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
        return self._render_turns(turns, add_generation_prompt, functions)

    def _render_turns(
        self, turns: Sequence[Mapping[str, Any]], add_generation_prompt: bool, functions: Sequence[str]
    ) -> str:
        tokens = self.tokenizer.special_tokens_map
        if self._plain_template:
            tokens = {"bos": self.tokenizer.bos_token if self._bos_ids else "", "eos": self.tokenizer.eos_token or ""}
        variables = {
            "messages": turns,
            "tools": [json.loads(text) for text in functions] or None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            template = self._plain_template or self.tokenizer.get_chat_template()
            return render_template(template, {**tokens, **variables}, cached=not functions)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(
                f"the chat template refuses turns of the roles {', '.join(turn['role'] for turn in turns)} "
                f"({one_line(error)})",
                "mend the row's roles",
            ) from error

    @cached_property
    def _has_late_system(self) -> bool:
        """True if the template keeps a later system turn where it stands."""
        return self._keeps_turns("system", "user", "assistant", "system", "user")

    def _keeps_turns(self, *roles: str) -> bool:
        """True if the template keeps turns with these roles in their order."""
        try:
            return bool(self._template_frames(roles, True))
        except InputError:
            return False


def _words(text: str, blanks: str, left_out: bytes = b"") -> list[bytes]:
    """Return the parts of a text between ASCII white space and further blanks; bytes in `left_out` are removed."""
    return text.translate(dict.fromkeys(map(ord, blanks), " ")).encode().translate(None, left_out).split()


def _without_added_tokens(tokenizer: Any) -> Callable[[str], Sequence[int]]:
    """Return a function that encodes text without recognising added tokens; runs of blanks, added for code, count as
    text.

    A tokenizer can be told to ignore special tokens, but not other added tokens (`<think>`), which are therefore
    removed from a copy.
    """
    added = [token for token in tokenizer.added_tokens_decoder.values() if not token.special and token.content.strip()]
    if not added or not tokenizer.is_fast:
        return lambda text: tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    parts |= {"truncation": None, "padding": None}
    blanks = [token for token in parts["added_tokens"] if not token["content"].strip()]
    copy = type(tokenizer.backend_tokenizer).from_str(json.dumps(parts | {"added_tokens": blanks}))
    numbers = {
        copy.token_to_id(token["content"]): token["id"] for token in blanks
    }  # without the others they are counted anew
    return lambda text: [numbers.get(token, token) for token in copy.encode(text, add_special_tokens=False).ids]
