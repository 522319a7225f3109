"""Worker process that compiles grammars under limits on memory and time, as constraints come from users.

The limits of this process keep a small text that unfolds into a large grammar from
exhausting the machine.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

import xgrammar

from trimtab.base.worker import limit_memory, limit_time

_SOURCE_LOCATION = re.compile(r"^\[[0-9:]+\] \S+:\d+: ")  # time, file and line before the library's message


def main(megabytes: int, seconds: int) -> None:
    """Compile the constraints from standard input, for the tokenizer of its first line; each gets `seconds` of
    processor time.

    The process gets `megabytes` beyond what it uses when it is ready.
    """
    tokenizer = json.loads(sys.stdin.buffer.readline())
    info = xgrammar.TokenizerInfo.from_vocab_and_metadata(tokenizer["vocabulary"], tokenizer["metadata"])
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    limit_memory(megabytes, beyond_present=True)
    _write_line({"ready": True})
    for line in sys.stdin.buffer:
        limit_time(seconds)
        try:
            answer = {"grammar": _compiled(compiler, json.loads(line)).serialize_json()}
        except Exception as error:  # noqa: BLE001 - the library's own, of several types
            message = _SOURCE_LOCATION.sub("", f"{error}")[:1000] or type(error).__name__
            out_of_memory = isinstance(error, MemoryError) or "bad_alloc" in message
            answer = {"over": f"takes more than {megabytes:,} MB of memory"} if out_of_memory else {"error": message}
        _write_line(answer)


def _compiled(compiler: Any, request: dict[str, Any]) -> Any:
    if request["kind"] == "regex":
        return compiler.compile_regex(request["text"])
    if request["kind"] == "ebnf":
        return compiler.compile_grammar(request["text"])
    if request["kind"] == "calls":
        return compiler.compile_structural_tag({"type": "structural_tag", "format": _calls_format(request)})
    return compiler.compile_json_schema(request["text"], max_whitespace_cnt=request["whitespace"])


def _calls_format(request: dict[str, Any]) -> dict[str, Any]:
    """Return the library's format of text and then perhaps a call, of constrained text or a call, or of a call."""
    calls = [
        {"type": "tag", "begin": start, "content": _schema_format(schema, request), "end": request["end"]}
        for start, schema in request["calls"]
    ]
    if request["mark"]:
        return {"type": "triggered_tags", "triggers": [request["mark"]], "tags": calls, "stop_after_first": True}
    return {"type": "or", "elements": [*([_text_format(request["text"])] if request["text"] else []), *calls]}


def _text_format(request: dict[str, Any]) -> dict[str, Any]:
    if request["kind"] == "regex":
        return {"type": "regex", "pattern": request["text"]}
    if request["kind"] == "ebnf":
        return {"type": "grammar", "grammar": request["text"]}
    return _schema_format(request["text"], request)


def _schema_format(schema: str, request: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": json.loads(schema),
        "max_whitespace_cnt": request["whitespace"],
    }


def _write_line(answer: dict[str, Any]) -> None:
    _out.write(json.dumps(answer).encode() + b"\n")
    _out.flush()


if __name__ == "__main__":
    _out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # prints of libraries must not mix with answers
    main(*(int(value) for value in sys.argv[1:]))
