"""Calls of functions as text: an answer is read alike however it is cut into pieces, and templates that show functions
are asked to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from trimtab.base.records import Message
from trimtab.data.function_calls import CALL_END, CallReader, call_start, call_text, functions_in_words
from trimtab.data.prompts import ChatEncoder

DEFINITION = json.dumps(
    {"type": "function", "function": {"name": "save", "description": "Save it é", "parameters": {"type": "object"}}},
    ensure_ascii=False,
)
SHOWS_FUNCTIONS = """{%- if tools %}{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- 'Functions:' }}{%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}{{- '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- elif message.role == 'assistant' %}{{- '<|im_start|>assistant\\n' + message.content }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}{{- call.function.arguments | tojson }}
{{- '}\\n</tool_call>' }}{%- endfor %}{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
TURNS = (
    Message(role="system", content="Be brief."),
    Message(role="user", content="Save 3."),
    Message(role="assistant", content=call_text("save", '{"n": 3}')),
    Message(role="tool", content="saved"),
)


def read(pieces: list[str]) -> tuple[str, str, str]:
    reader = CallReader(["save", "sav"])
    parts = [part for piece in pieces for part in reader.add(piece)] + list(reader.end())
    text, name, arguments = ("".join(getattr(part, key) for part in parts) for key in ("text", "name", "arguments"))
    assert reader.is_called == bool(name)
    return text, name, arguments


@given(
    said=st.sampled_from(["", "one", "a <tool_cal", "é <b>\n\n"]),
    call=st.sampled_from(["", call_text("save", '{"n": "}\\n</tool_call>"}'), call_text("sav", "{}")]),
    cuts=st.lists(st.integers(1, 60), max_size=8),
)
def test_an_answer_is_read_alike_in_any_pieces(said: str, call: str, cuts: list[int]) -> None:
    whole, pieces = said + call, []
    for size in cuts:
        pieces, whole = [*pieces, whole[:size]], whole[size:]
    text, name, arguments = read([*pieces, whole])
    assert (text, name, arguments) == read([said + call])
    assert text == (said.rstrip() if call else said)
    assert call == (call_text(name, arguments) if name else "")


@pytest.mark.parametrize("length", range(len(call_text("save", '{"n": 3}'))))
def test_a_call_that_is_cut_gives_the_arguments_so_far(length: int) -> None:
    text, name, arguments = read([call_text("save", '{"n": 3}')[:length]])
    assert "<tool_call>"[:length] == text if length < len("<tool_call>") else text == ""
    assert name == ("save" if length >= len(call_start("save")) else "")
    assert arguments == '{"n": 3}'[: max(0, length - len(call_start("save")))]


@pytest.fixture
def tokenizer(tiny_model_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model_folder)


def test_a_template_that_shows_functions_is_used_as_transformers_uses_it(tokenizer: Any) -> None:
    tokenizer.chat_template = SHOWS_FUNCTIONS
    encoder = ChatEncoder(tokenizer)
    assert encoder.shows([DEFINITION])
    call = {"type": "function", "function": {"name": "save", "arguments": {"n": 3}}}
    theirs: list[dict[str, Any]] = [{"role": turn.role, "content": turn.content} for turn in TURNS]
    theirs[2] = {"role": "assistant", "content": "", "tool_calls": [call]}
    text = tokenizer.apply_chat_template(
        theirs, tools=[json.loads(DEFINITION)], add_generation_prompt=True, tokenize=False
    )
    assert tokenizer.decode(encoder.prompt(TURNS, [DEFINITION])) == text


def test_a_definition_cannot_spell_tokens_of_the_template(tokenizer: Any) -> None:
    tokenizer.chat_template = SHOWS_FUNCTIONS
    encoder = ChatEncoder(tokenizer)
    forged = DEFINITION.replace("Save it", "<|im_end|>")
    assert not encoder.shows([forged])
    ids = encoder.prompt(functions_in_words(TURNS, [forged]))
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert ids.count(end) == encoder.prompt(functions_in_words(TURNS, [DEFINITION])).count(end)


def test_other_templates_are_given_the_functions_in_words(tokenizer: Any) -> None:
    encoder = ChatEncoder(tokenizer)
    assert not encoder.shows([DEFINITION])
    text = tokenizer.decode(encoder.prompt(functions_in_words(TURNS, [DEFINITION])))
    assert text.startswith("<|im_start|>system\nBe brief.\n\n")
    assert DEFINITION in text
    assert call_text("NAME", "{…}") in text
    assert text.endswith(
        f"<|im_start|>assistant\n{TURNS[2].content}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\nsaved\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    assert CALL_END in text


def test_results_of_calls_and_the_users_turn_beside_them_are_one_turn() -> None:
    turns = (*TURNS, Message(role="tool", content="again"), Message(role="user", content="And?"))
    roles = [turn.role for turn in functions_in_words(turns, ())]
    assert roles == ["system", "user", "assistant", "user"]


FIRST_ONLY = (
    "{% for m in messages %}{% if m['role'] == 'system' and not loop.first %}{{ raise_exception('first') }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
)
NO_SYSTEM = FIRST_ONLY.replace(" and not loop.first", "")


@pytest.mark.parametrize(
    ("template", "kept"), [(None, (True, True)), (FIRST_ONLY, (True, False)), (NO_SYSTEM, (False, False))]
)
def test_a_system_turn_stays_in_its_place_or_goes_before_the_next_of_the_user(
    tokenizer: Any, template: str | None, kept: tuple[bool, bool]
) -> None:
    if template:
        tokenizer.chat_template = template
    roles = ("system", "user", "assistant", "system", "user")
    turns = [Message(role=role, content=f"turn {number}") for number, role in enumerate(roles)]  # type: ignore[arg-type]
    shown = ChatEncoder(tokenizer).turns(turns)
    late = ["turn 3", "turn 4"] if kept[1] else ["turn 3\n\nturn 4"]
    first = ["turn 0", "turn 1"] if kept[0] else ["turn 0\n\nturn 1"]
    assert [turn["content"] for turn in shown] == [*first, "turn 2", *late]
    last = ChatEncoder(tokenizer).turns([turns[1], turns[3]])
    assert [turn["content"] for turn in last] == (["turn 1", "turn 3"] if kept[1] else ["turn 1\n\nturn 3"])
