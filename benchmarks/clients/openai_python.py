"""The official Python client."""

import json

import openai
from checks import API_KEY, BASE_URL, MODEL, PARAMETERS, QUESTION, TOOLS, check, is_call
from pydantic import BaseModel, Field

client = openai.OpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0)
USER = {"role": "user", "content": QUESTION}
chat = client.chat.completions


class Sum(BaseModel):
    result: int = Field(ge=0, le=99)


def auto():
    message = chat.create(model=MODEL, messages=[USER], tools=TOOLS, max_tokens=60).choices[0].message
    return message.content or is_call(message.tool_calls[0].function.name, message.tool_calls[0].function.arguments)


def auto_after_examples():
    """Return whether the model, which has seen three calls, calls by its own choice, whole and streamed."""
    turns = []
    for a, b in ((1, 2), (4, 4), (7, 1)):
        function = {"name": "add", "arguments": json.dumps({"a": a, "b": b})}
        turns.append({"role": "user", "content": f"What is {a} plus {b}?"})
        turns.append({"role": "assistant", "tool_calls": [{"id": f"c{a}", "type": "function", "function": function}]})
        turns.append({"role": "tool", "tool_call_id": f"c{a}", "content": str(a + b)})
        turns.append({"role": "assistant", "content": str(a + b)})
    turns.append({"role": "user", "content": "What is 2 plus 3?"})
    (call,) = chat.create(model=MODEL, messages=turns, tools=TOOLS).choices[0].message.tool_calls
    with chat.stream(model=MODEL, messages=turns, tools=TOOLS) as events:
        (again,) = events.get_final_completion().choices[0].message.tool_calls
    return is_call(call.function.name, call.function.arguments) and again.function.arguments == call.function.arguments


def loop():
    first = chat.create(model=MODEL, messages=[USER], tools=TOOLS, tool_choice="required").choices[0]
    (call,) = first.message.tool_calls
    assert first.finish_reason == "tool_calls"
    assert is_call(call.function.name, call.function.arguments)
    result = {"role": "tool", "tool_call_id": call.id, "content": "5"}
    after = chat.create(model=MODEL, messages=[USER, first.message, result], tools=TOOLS, max_tokens=30).choices[0]
    return after.message.content or after.message.tool_calls


def stream():
    with chat.stream(model=MODEL, messages=[USER], tools=TOOLS, tool_choice="required") as events:
        kinds = {event.type for event in events}
        (call,) = events.get_final_completion().choices[0].message.tool_calls
    return "tool_calls.function.arguments.delta" in kinds and is_call(call.function.name, call.function.arguments)


def responses():
    flat = [{"type": "function", **tool["function"]} for tool in TOOLS]
    first = client.responses.create(model=MODEL, input=QUESTION, tools=flat, tool_choice="required")
    (call,) = first.output
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "5"}
    items = [USER, call, result]
    after = client.responses.create(model=MODEL, input=items, tools=flat, max_output_tokens=30)
    with client.responses.stream(model=MODEL, input=QUESTION, tools=flat, tool_choice="required") as events:
        (again,) = list(events)[-1].response.output
    return is_call(call.name, call.arguments) and is_call(again.name, again.arguments) and after.output


def system_turns():
    turns = [{"role": "system", "content": "Be brief."}, USER, {"role": "assistant", "content": "5"}]
    turns += [{"role": "developer", "content": "Be polite."}, USER]
    return chat.create(model=MODEL, messages=turns, max_tokens=20).choices[0].message.content


def text_stream():
    chunks = chat.create(model=MODEL, messages=[USER], tools=TOOLS, max_tokens=40, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) or True


def named():
    choice = {"type": "function", "function": {"name": "weather"}}
    (call,) = chat.create(model=MODEL, messages=[USER], tools=TOOLS, tool_choice=choice).choices[0].message.tool_calls
    return call.function.name == "weather" and set(json.loads(call.function.arguments)) == set(
        PARAMETERS["weather"]["required"]
    )


check("chat", lambda: chat.create(model=MODEL, messages=[USER], max_tokens=20).choices[0].message.content)
check("chat, tools, auto", auto)
check("chat, tools, auto, streamed", text_stream)
check("chat, tools, auto, a call after examples", auto_after_examples)
check("chat, tools, required, result sent back", loop)
check("chat, a named tool", named)
check("chat, tools, streamed", stream)
check(
    "chat.parse, pydantic",
    lambda: chat.parse(model=MODEL, messages=[USER], response_format=Sum).choices[0].message.parsed,
)
check("responses, tools, result, stream", responses)
check("system turns at any place", system_turns)
