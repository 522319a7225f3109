"""A forced function is an answer that fits its schema, told as a call; what the model would have to choose is
refused by name."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import openai
import pytest
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
def client(writing: Here) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{writing.url}/v1", api_key=writing.key, max_retries=0)


def ask(client: openai.OpenAI, *turns: dict[str, Any], **more: Any) -> Any:
    return client.chat.completions.create(model="prompt", messages=list(turns) or [USER], max_tokens=64, **more)  # type: ignore[arg-type]


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
    form = {"type": "json_schema", "json_schema": {"name": "save", "schema": SCHEMA}}
    assert ask(client, response_format=form).choices[0].message.content == call.function.arguments
    with client.chat.completions.stream(
        model="prompt", messages=[USER], max_tokens=64, tools=tools, tool_choice=choice
    ) as stream:  # type: ignore[arg-type, call-overload]
        streamed = stream.get_final_completion().choices[0]
    (again,) = streamed.message.tool_calls
    assert (again.function.name, again.function.arguments) == ("save", call.function.arguments)
    assert streamed.finish_reason == finish
    assert not streamed.message.content


def test_a_call_that_is_cut_says_so_and_each_of_several_is_a_call(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "prompt", "messages": [USER], "tools": [TOOL], "tool_choice": "required"}
    assert client.chat.completions.create(**asked, max_tokens=2).choices[0].finish_reason == "length"
    drawn = client.chat.completions.create(**asked, max_tokens=64, n=2, temperature=1.0, seed=1).choices
    for choice in drawn:
        assert choice.message.tool_calls is not None
        jsonschema.validate(json.loads(choice.message.tool_calls[0].function.arguments), SCHEMA)  # type: ignore[union-attr]
    assert len({choice.message.tool_calls[0].id for choice in drawn if choice.message.tool_calls}) == 2


def test_a_function_without_parameters_is_called_with_an_empty_object(client: openai.OpenAI) -> None:
    (call,) = ask(client, tools=[OTHER], tool_choice="required").choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {}


def test_what_came_of_a_call_is_read_as_the_users_turn(client: openai.OpenAI) -> None:
    """As instructor sends an answer back that its validators refused."""
    call = {"id": "call-1", "type": "function", "function": {"name": "save", "arguments": '{"n": 3}'}}
    turns = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call-1", "name": "save", "content": "n is too small"},
    ]
    forced = {"tools": [TOOL], "tool_choice": NAMED}
    told = ask(client, *turns, **forced)
    plain = [USER, {"role": "assistant", "content": '{"n": 3}'}, {"role": "user", "content": "n is too small"}]
    same = ask(client, *plain, **forced)
    assert told.usage.prompt_tokens == same.usage.prompt_tokens
    assert told.choices[0].message.tool_calls[0].function == same.choices[0].message.tool_calls[0].function


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"tools": [TOOL]}, r"a choice among tools is not supported here \('save'\)"),
        ({"tools": [TOOL], "tool_choice": "auto"}, r"not supported here \('save'\)"),
        ({"tools": [TOOL, OTHER], "tool_choice": "required"}, r"not supported here \('save', 'search'\)"),
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
def test_langchains_structured_output(writing: Here, method: Any) -> None:
    chat = ChatOpenAI(
        model="tiny:prompt", base_url=f"{writing.url}/v1", api_key=writing.key, max_retries=0, max_completion_tokens=64
    )  # type: ignore[arg-type, call-arg]
    told = chat.with_structured_output(City, method=method).invoke("bridge of Bonn?")
    assert isinstance(told, City)


INSTRUCTOR: dict[str, Any] = {
    "messages": [USER],
    "model": "tiny:prompt",
    "max_tokens": 64,
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
    "max_completion_tokens": 64,
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
def test_the_requests_of_clients_that_are_not_installed_here(writing: Here, body: dict[str, Any]) -> None:
    """As they send them by default, recorded: they are no part of the development environment."""
    with writing.client() as http:
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
