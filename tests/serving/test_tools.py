"""An answer is text or a call of one of the functions, whose arguments fit its schema, whole or in pieces."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import jsonschema
import openai
import pytest
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field
from serving_tasks import Here

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}, "city": {"enum": ["Bonn", "Gera"]}},
    "required": ["n", "city"],
    "additionalProperties": False,
}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "save", "parameters": SCHEMA, "strict": True}}
OTHER: dict[str, Any] = {"type": "function", "function": {"name": "search", "description": "Look it up"}}
NAMED: dict[str, Any] = {"type": "function", "function": {"name": "save"}}
USER: dict[str, Any] = {"role": "user", "content": "bridge of Bonn?"}


@pytest.fixture(scope="module")
def client(calling: Here) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{calling.url}/v1", api_key=calling.key, max_retries=0)


def ask(client: openai.OpenAI, *turns: dict[str, Any], **more: Any) -> Any:
    more = {"max_tokens": 200, **more}
    return client.chat.completions.create(model="prompt", messages=list(turns) or [USER], **more)  # type: ignore[arg-type]


def calls_of(reply: Any) -> list[tuple[str, Any]]:
    return [(call.function.name, json.loads(call.function.arguments)) for call in reply.message.tool_calls or ()]


@pytest.mark.parametrize(
    ("tools", "choice", "finish"),
    [([TOOL], NAMED, "stop"), ([OTHER, TOOL], NAMED, "stop"), ([TOOL], "required", "tool_calls")],
)
def test_a_forced_function_is_called_with_arguments_of_its_schema(
    client: openai.OpenAI, tools: list[dict[str, Any]], choice: Any, finish: str
) -> None:
    asked: dict[str, Any] = {"tools": tools, "tool_choice": choice}
    reply = ask(client, **asked, parallel_tool_calls=False).choices[0]
    (call,) = reply.message.tool_calls
    jsonschema.validate(json.loads(call.function.arguments), SCHEMA)
    assert (call.type, call.function.name, reply.message.content, reply.finish_reason) == (
        "function",
        "save",
        None,
        finish,
    )
    with client.chat.completions.stream(
        model="prompt", messages=[USER], max_tokens=200, tools=tools, tool_choice=choice
    ) as stream:  # type: ignore[arg-type, call-overload]
        streamed = stream.get_final_completion().choices[0]
    (again,) = streamed.message.tool_calls
    assert (again.function.name, again.function.arguments) == ("save", call.function.arguments)
    assert streamed.finish_reason == finish
    assert not streamed.message.content


def test_a_call_that_is_cut_says_so_and_each_of_several_is_a_call(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "prompt", "messages": [USER], "tools": [TOOL], "tool_choice": "required"}
    assert client.chat.completions.create(**asked, max_tokens=2).choices[0].finish_reason == "length"
    assert client.chat.completions.create(**asked).choices[0].finish_reason == "tool_calls"  # longer than measured
    drawn = client.chat.completions.create(**asked, max_tokens=200, n=2, temperature=1.0, seed=1).choices
    for choice in drawn:
        assert choice.message.tool_calls is not None
        jsonschema.validate(json.loads(choice.message.tool_calls[0].function.arguments), SCHEMA)  # type: ignore[union-attr]
    assert len({choice.message.tool_calls[0].id for choice in drawn if choice.message.tool_calls}) == 2


def test_a_function_without_parameters_is_called_with_an_empty_object(client: openai.OpenAI) -> None:
    (call,) = ask(client, tools=[OTHER], tool_choice="required").choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {}


def test_any_of_several_functions_may_be_called_and_only_allowed_ones(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"tools": [TOOL, OTHER], "temperature": 2.0}
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "search"}}]}
    called = set()
    for seed in range(6):
        ((name, arguments),) = calls_of(ask(client, **asked, tool_choice="required", seed=seed).choices[0])
        jsonschema.validate(arguments, SCHEMA if name == "save" else {"type": "object", "maxProperties": 0})
        called.add(name)
    assert called == {"save", "search"}
    reply = ask(client, **asked, tool_choice={"type": "allowed_tools", "allowed_tools": allowed}).choices[0]
    assert calls_of(reply) == [("search", {})]
    assert reply.finish_reason == "tool_calls"


@pytest.mark.parametrize("choice", [{}, {"tool_choice": "auto"}])
def test_text_is_an_answer_where_no_call_is_asked_for(client: openai.OpenAI, choice: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"tools": [TOOL, OTHER], "max_tokens": 12, **choice}
    whole = ask(client, **asked).choices[0]
    assert (whole.message.tool_calls, whole.finish_reason) == (None, "length")
    parts = [chunk.choices[0].delta.content or "" for chunk in ask(client, **asked, stream=True)]
    assert "".join(parts) == whole.message.content


def test_beside_functions_a_format_holds_for_text(client: openai.OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": ["Bonn", "Gera"]}}}
    reply = ask(client, tools=[TOOL], response_format=form).choices[0]
    assert reply.message.tool_calls or json.loads(reply.message.content) in ("Bonn", "Gera")


def test_results_of_calls_go_back_to_the_model(client: openai.OpenAI) -> None:
    call = {"id": "call-1", "type": "function", "function": {"name": "save", "arguments": '{"n": 3}'}}
    turns = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call-1", "name": "save", "content": "n is too small"},
    ]
    told = ask(client, *turns, max_tokens=2)
    plain = [
        USER,
        {"role": "assistant", "content": '<tool_call>\n{"name": "save", "arguments": {"n": 3}}\n</tool_call>'},
        {"role": "user", "content": "<tool_response>\nn is too small\n</tool_response>"},
    ]
    assert told.usage.prompt_tokens == ask(client, *plain, max_tokens=2).usage.prompt_tokens
    ((name, _),) = calls_of(ask(client, *turns, tools=[TOOL], tool_choice="required").choices[0])
    assert name == "save"


def test_passages_are_those_of_the_question_also_after_a_call(client: openai.OpenAI) -> None:
    def passages(*turns: dict[str, Any]) -> list[str]:
        reply = client.chat.completions.create(model="rag", messages=list(turns), max_tokens=2)  # type: ignore[arg-type]
        return [hit["id"] for hit in reply.model_extra["trimtab"]["passages"]]  # type: ignore[index]

    call = {"id": "1", "type": "function", "function": {"name": "save", "arguments": "{}"}}
    later = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "1", "content": "Gera Gera"}]
    assert passages(USER, *later) == passages(USER) != []


def test_responses_call_functions_too(client: openai.OpenAI) -> None:
    flat = {"type": "function", **TOOL["function"]}
    asked: dict[str, Any] = {"model": "prompt", "tools": [flat], "tool_choice": "required", "max_output_tokens": 200}
    reply = client.responses.create(input="bridge of Bonn?", **asked)
    (call,) = reply.output
    assert (call.type, call.name, reply.status) == ("function_call", "save", "completed")  # type: ignore[union-attr]
    jsonschema.validate(json.loads(call.arguments), SCHEMA)  # type: ignore[union-attr]
    with client.responses.stream(input="bridge of Bonn?", **asked) as stream:
        events = list(stream)
        (again,) = stream.get_final_response().output
    assert again.arguments == call.arguments  # type: ignore[union-attr]
    assert [event.sequence_number for event in events] == list(range(len(events)))  # type: ignore[union-attr]
    given: Any = [
        {"role": "user", "content": "bridge of Bonn?"},
        call.model_dump(),
        {"type": "function_call_output", "call_id": call.call_id, "output": "saved"},  # type: ignore[union-attr]
    ]
    after = client.responses.create(input=given, model="prompt", tools=[flat], max_output_tokens=3)  # type: ignore[list-item]
    assert (after.output_text != "", after.status) == (True, "incomplete")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"tools": [TOOL, TOOL]}, "two tools have the name 'save'"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}]},
            r"function 'f': answers cannot be constrained to 'not'",
        ),
        (
            {"tools": [OTHER], "tool_choice": NAMED},
            r"tool_choice names 'save', which is none of the tools \('search'\)",
        ),
        ({"tool_choice": "required"}, "there are no tools"),
        ({"tools": [{"type": "web_search"}]}, "the tool 'web_search' is not supported here"),
        (
            {"tools": [TOOL], "tool_choice": NAMED, "response_format": {"type": "json_object"}},
            "two forms of one answer",
        ),
        ({"functions": [{"name": "save"}]}, "functions is not supported here"),
    ],
)  # fmt: skip
def test_other_tools_are_refused_by_name_in_one_line(client: openai.OpenAI, more: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **more)
    message = refused.value.body["message"]  # type: ignore[index]
    assert re.search(said, message)
    assert "\n" not in message


def test_tools_that_may_not_be_called_change_nothing(client: openai.OpenAI) -> None:
    told = ask(client, tools=[TOOL, OTHER], tool_choice="none").choices[0].message
    assert (told.content, told.tool_calls) == (ask(client).choices[0].message.content, None)


def test_an_arm_that_chooses_calls_no_function(deciding: Here) -> None:
    client = openai.OpenAI(base_url=f"{deciding.url}/v1", api_key=deciding.key, max_retries=0)
    with pytest.raises(openai.BadRequestError, match="leave response_format and tools out"):
        ask(client, tools=[TOOL], tool_choice="required")


class City(BaseModel):
    """A city."""

    n: int = Field(ge=0, le=9)


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_langchains_structured_output(calling: Here, method: Any) -> None:
    chat = ChatOpenAI(
        model="tiny:prompt",
        base_url=f"{calling.url}/v1",
        api_key=calling.key,
        max_retries=0,
        max_completion_tokens=200,
    )  # type: ignore[arg-type, call-arg]
    told = chat.with_structured_output(City, method=method).invoke("bridge of Bonn?")
    assert isinstance(told, City)


@tool
def save(n: Literal[1, 2], city: Literal["Bonn", "Gera"]) -> str:
    """Save a number of a city."""
    return f"{n} {city}"


def test_langchains_bound_tools(calling: Here) -> None:
    chat = ChatOpenAI(model="tiny:prompt", base_url=f"{calling.url}/v1", api_key=calling.key, max_retries=0)  # type: ignore[call-arg, arg-type]
    called = chat.bind_tools([save], tool_choice="any").invoke("bridge of Bonn?")
    (call,) = called.tool_calls  # type: ignore[attr-defined]
    answer = save.invoke(call)
    after = chat.bind_tools([save]).bind(max_completion_tokens=3).invoke(["bridge of Bonn?", called, answer])
    assert (call["name"], bool(after.content)) == ("save", True)


INSTRUCTOR: dict[str, Any] = {
    "messages": [USER],
    "model": "tiny:prompt",
    "max_tokens": 200,
    "tool_choice": {"type": "function", "function": {"name": "City"}},
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "City",
                "description": "Correctly extracted `City` with all the required parameters with correct types",
                "parameters": {
                    "properties": {"n": {"maximum": 9, "minimum": 0, "title": "N", "type": "integer"}},
                    "required": ["n"],
                    "type": "object",
                },
            },
        }
    ],
}
PYDANTIC_AI: dict[str, Any] = {
    "messages": [{"role": "system", "content": "Say one."}, {"role": "system", "content": "Which city?"}, USER],
    "model": "tiny:prompt",
    "max_completion_tokens": 200,
    "stream": False,
    "tool_choice": "required",
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "final_result",
                "description": "The final response which ends this conversation",
                "parameters": {
                    "properties": {"n": {"maximum": 9, "minimum": 0, "type": "integer"}},
                    "required": ["n"],
                    "type": "object",
                    "additionalProperties": False,
                },
                "strict": True,
            },
        }
    ],
}


@pytest.mark.parametrize("body", [INSTRUCTOR, PYDANTIC_AI], ids=["instructor 1.17", "pydantic-ai 2.38"])
def test_the_requests_of_clients_that_are_not_installed_here(calling: Here, body: dict[str, Any]) -> None:
    """As they send them by default, recorded: they are no part of the development environment."""
    with calling.client() as http:
        choice = http.post("/v1/chat/completions", json=body).json()["choices"][0]
        events = http.post(
            "/v1/chat/completions", json={**body, "stream": True, "stream_options": {"include_usage": True}}
        ).text
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == body["tools"][0]["function"]["name"]
    assert City.model_validate_json(call["function"]["arguments"])
    chunks = [json.loads(line[6:]) for line in events.splitlines() if line.startswith("data: {")]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    calls = [one["function"] for delta in deltas for one in delta.get("tool_calls", ())]
    assert "".join(one.get("name", "") for one in calls) == call["function"]["name"]
    assert "".join(one["arguments"] for one in calls) == call["function"]["arguments"]
