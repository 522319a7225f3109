"""Constrained decoding with xgrammar: answers that match a JSON schema, any JSON object, a regular expression or one of
several texts.

Source: Dong et al. 2024 (arXiv 2411.15100). Shapes: B rows, R of them constrained, V vocabulary, W words of 32 bits of
it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from trimtab.base.errors import InputError, PackageError
from trimtab.base.sanitize import one_line
from trimtab.base.worker import Worker
from trimtab.data.function_calls import CALL_END, CALL_MARK, call_start
from trimtab.inference.json_schemas import require_linear, supported_schema
from trimtab.inference.kv_cache import small_tensor

MAX_CHARACTERS = 65_536  # characters of a constraint
MEGABYTES, SECONDS = 1024, 10
"""Limits of compiling a constraint: memory beyond that of the ready process, and processor time."""
WALL_SECONDS = 60.0  # until the process is killed, whatever it waits for
MAX_GRAMMAR_BYTES = 64 << 20  # bytes of JSON in a reply
MATCHING_SECONDS = 10.0  # processor time of matching one answer
MAX_COMPILED = 64  # compiled constraints cached per tokenizer
WHITESPACE = 1  # most characters between two parts of a JSON value: with more, small models waste tokens on blanks
_SIMPLIFY = "simplify it"
_VALID_SECOND_BYTES = {0xE0: range(0xA0, 0xC0), 0xED: range(0x80, 0xA0), 0xF0: range(0x90, 0xC0)}
"""Second bytes that UTF-8 allows after these first ones (RFC 3629); the library allows any of 0x80 to 0xBF."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A constraint on the whole answer, from its first token to its last; one of the first four, or `calls`, or both.

    `schema`: the text of a JSON schema; properties come in its order, and only those that it names unless it has
    `additionalProperties`. `regex`: a regular expression for the whole answer. `choices`: the answer is one of these
    texts. `json_object`: any JSON object. `calls`: functions that the answer may call, by name with the schema of their
    arguments, as `call_text` writes it; beside another constraint that one is for an answer without a call, else text
    may come before the call. `must_call`: the answer is a call. Raises InputError if none or several are given, or more
    than MAX_CHARACTERS characters.
    """

    schema: str = ""
    regex: str = ""
    choices: tuple[str, ...] = ()
    json_object: bool = False
    calls: tuple[tuple[str, str], ...] = ()
    must_call: bool = False

    def __post_init__(self) -> None:
        given = [bool(self.schema), bool(self.regex), bool(self.choices), self.json_object]
        if sum(given) > 1 or not (any(given) or self.calls):
            problem = f"a constraint of {sum(given)} kinds"
            raise InputError(problem, "give one of schema, regex, choices and json_object", field="constraint")
        if not all(self.choices):
            raise InputError("an empty choice", "leave it out", field="constraint")
        letters = sum(
            map(len, (self.schema, self.regex, *self.choices, *(text for call in self.calls for text in call)))
        )
        if letters > MAX_CHARACTERS:
            raise InputError(
                f"a constraint of {letters:,} letters", f"up to {MAX_CHARACTERS:,} are read", field="constraint"
            )

    def worker_request(self) -> dict[str, Any]:
        """Return the request to `grammar_worker.py`; raises InputError for a schema that cannot be enforced
        completely.
        """
        if not self.calls:
            return self._text_request()
        calls = [(call_start(name), _parameters(name, schema)) for name, schema in self.calls]
        has_text = not self.must_call and (self.schema or self.regex or self.choices or self.json_object)
        return {
            "kind": "calls",
            "calls": calls,
            "end": CALL_END,
            "mark": None if self.must_call or has_text else CALL_MARK,
            "text": self._text_request() if has_text else None,
            "whitespace": WHITESPACE,
        }

    def _text_request(self) -> dict[str, Any]:
        """Return the request for an answer that is no call."""
        if self.regex:
            require_linear(self.regex)
            return {"kind": "regex", "text": self.regex}
        if self.choices:
            return {"kind": "ebnf", "text": "root ::= " + " | ".join(map(_quoted, dict.fromkeys(self.choices)))}
        text = supported_schema(self.schema or '{"type": "object"}')
        return {"kind": "schema", "text": text, "whitespace": WHITESPACE}


class Matcher(Protocol):
    """Protocol of the state of one constrained answer: which tokens may come next."""

    def fill(self, bits_RW: Tensor, row: int) -> None:
        """Set the bits of the tokens that may come next, in one row."""

    def accept(self, token: int) -> bool:
        """Advance by one token; False if it does not match."""


class GrammarMatcher:
    """The state of one answer in its grammar.

    An ambiguous grammar can take as long as a forward pass for each token, and all sequences wait for it: after
    MATCHING_SECONDS nothing matches any more.
    """

    def __init__(self, matcher: Any, letters: _Utf8Rules) -> None:
        self._matcher, self._utf8 = matcher, letters
        self._seconds = 0.0
        self._unfinished: int | None = None  # the first byte of a character whose second is missing

    def fill(self, bits_RW: Tensor, row: int) -> None:
        """Set the bits of the tokens that may come next, in one row."""
        began = time.thread_time()
        self._matcher.fill_next_token_bitmask(bits_RW, row)
        if self._unfinished is not None:
            bits_RW[row] &= self._utf8.allowed_after[self._unfinished]
        self._seconds += time.thread_time() - began

    def accept(self, token: int) -> bool:
        """Advance by one token; False if it does not match."""
        fits = self._seconds < MATCHING_SECONDS and bool(self._matcher.accept_token(token))
        self._unfinished = self._utf8.unfinished_byte(token)
        return fits


class _Utf8Rules:
    """Characters that are spelled over several tokens: `allowed_after` has the bits of tokens that may follow a first
    byte.
    """

    def __init__(self, spelled: Sequence[bytes]) -> None:
        self._spelled = spelled
        self.allowed_after: dict[int, Tensor] = {}
        for first, second in _VALID_SECOND_BYTES.items():
            words = [0] * -(-len(spelled) // 32)
            for number, text in enumerate(spelled):
                if text[:1] and text[0] in second:
                    words[number // 32] |= 1 << number % 32
            self.allowed_after[first] = torch.tensor(words, dtype=torch.int64).to(torch.int32)

    def unfinished_byte(self, token: int) -> int | None:
        """Return the first byte that a token ends with, if only some second bytes may follow it."""
        last = self._spelled[token][-1:]
        return last[0] if last and last[0] in self.allowed_after else None


class Grammars:
    """Compiled constraints of one tokenizer, the MAX_COMPILED used last; threads may share it.

    Tokens of `stop_ids` may come where an answer may end; other special tokens never.
    """

    def __init__(self, tokenizer: Any, stop_ids: frozenset[int], vocabulary: int) -> None:
        if find_spec("xgrammar") is None:
            raise PackageError("xgrammar", "structured", "an answer constrained to a schema, an expression or choices")
        if not stop_ids:
            raise InputError("a constrained answer without an end token", "choose a model that has one")
        import xgrammar

        self._library: Any = xgrammar
        plain = self._library.TokenizerInfo.from_huggingface(
            tokenizer, vocab_size=vocabulary, stop_token_ids=sorted(stop_ids)
        )
        tokens = vocabulary_tokens(tokenizer, vocabulary, stop_ids)
        metadata = plain.dump_metadata()
        self._tokenizer = self._library.TokenizerInfo.from_vocab_and_metadata(tokens, metadata)
        self._utf8 = _Utf8Rules(self._tokenizer.decoded_vocab)
        self._worker = Worker(
            Path(__file__).with_name("grammar_worker.py"),
            [str(MEGABYTES), str(SECONDS)],
            seconds=WALL_SECONDS,
            longest=MAX_GRAMMAR_BYTES,
            first=json.dumps({"vocabulary": tokens, "metadata": metadata}),
        )
        self._known: dict[Constraint, Any] = {}  # compiled, or the error; in order of use, the latest last
        self._lock = threading.Lock()

    def is_compiled(self, constraint: Constraint) -> bool:
        """True if `matcher` returns or raises without waiting."""
        with self._lock:
            return constraint in self._known

    def matcher(self, constraint: Constraint) -> GrammarMatcher:
        """Return a matcher for a new answer; raises InputError for a constraint that cannot be compiled within the
        limits.
        """
        with self._lock:
            found = self._known.pop(constraint, None)
            if found is not None:
                self._known[constraint] = found
        if found is None:
            found = self._compiled(constraint)  # without the lock, so that compiled ones do not wait
            with self._lock:
                self._known[constraint] = found
                if len(self._known) > MAX_COMPILED:
                    del self._known[next(iter(self._known))]
        if isinstance(found, str):
            raise InputError(found, _SIMPLIFY, field="constraint")
        return GrammarMatcher(self._library.GrammarMatcher(found), self._utf8)

    def _compiled(self, constraint: Constraint) -> Any:
        answer = self._worker.ask(json.dumps(constraint.worker_request()))
        if answer is None:
            return f"takes more than {SECONDS} s of processor time or {MEGABYTES:,} MB of memory to prepare"
        if "grammar" not in answer:
            return str(answer.get("over") or f"cannot be used ({one_line(ValueError(answer['error']))})")
        return self._library.CompiledGrammar.deserialize_json(answer["grammar"], self._tokenizer)


@lru_cache(maxsize=4)
def grammars_of(tokenizer: Any, stop_ids: frozenset[int], vocabulary: int) -> Grammars:
    """Return the grammars of a tokenizer, cached for all engines; raises PackageError if xgrammar is not installed."""
    return Grammars(tokenizer, stop_ids, vocabulary)


def mask_disallowed(scores_BV: Tensor, matchers: Sequence[Matcher | None]) -> Tensor:
    """Return scores with -inf for tokens that a row's matcher does not allow, float32; the same tensor if no row has
    one.
    """
    asked = [(row, matcher) for row, matcher in enumerate(matchers) if matcher is not None]
    if not asked:
        return scores_BV
    vocabulary, device = scores_BV.shape[1], scores_BV.device
    bits_RW = torch.zeros(len(asked), -(-vocabulary // 32), dtype=torch.int32)
    for place, (_, matcher) in enumerate(asked):
        matcher.fill(bits_RW, place)
    bits_RW = bits_RW.to(device, non_blocking=True)
    allowed_RV = (bits_RW[:, :, None] >> torch.arange(32, dtype=torch.int32, device=device)).flatten(1) & 1
    rows_R = small_tensor([row for row, _ in asked], device)
    scores_BV = scores_BV.float()
    some_RV = scores_BV[rows_R].masked_fill(allowed_RV[:, :vocabulary] == 0, float("-inf"))
    return scores_BV.index_put((rows_R,), some_RV)


def vocabulary_tokens(tokenizer: Any, vocabulary: int, stop_ids: frozenset[int]) -> list[str]:
    """Return the tokens by id as the tokenizer writes them; special ones are empty, as no text can be spelled with
    them.

    Tokens that end an answer are empty too and known by id: since 0.2.9 xgrammar lets them spell their own text.
    """
    tokens = [""] * vocabulary
    special = set(tokenizer.all_special_ids) | stop_ids
    special |= {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    for token, number in tokenizer.get_vocab().items():
        if number < vocabulary and number not in special:
            tokens[number] = token
    return tokens


def _parameters(name: str, schema: str) -> str:
    """Return the schema of a function's arguments for the library; raises InputError that names the function."""
    try:
        return supported_schema(schema)
    except InputError as error:
        problem = f"function {name[:80]!r}: {error.problem}"
        raise InputError(problem, error.remedy, field="constraint") from None


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
