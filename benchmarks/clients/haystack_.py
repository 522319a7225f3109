"""Haystack's chat generator and agent."""

from checks import API_KEY, BASE_URL, MODEL, PARAMETERS, QUESTION, add, check, is_call, weather
from haystack.components.agents import Agent
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import Tool
from haystack.utils import Secret

TOOLS = [
    Tool(name=run.__name__, description=run.__doc__, parameters=PARAMETERS[run.__name__], function=run)
    for run in (add, weather)
]


def generator(**settings):
    return OpenAIChatGenerator(
        model=MODEL,
        api_base_url=BASE_URL,
        api_key=Secret.from_token(API_KEY),
        max_retries=0,
        generation_kwargs=settings,
    )


def required():
    (reply,) = generator(tool_choice="required").run([ChatMessage.from_user(QUESTION)], tools=TOOLS)["replies"]
    (call,) = reply.tool_calls
    result = ChatMessage.from_tool("5", origin=call)
    after = generator(max_tokens=30).run([ChatMessage.from_user(QUESTION), reply, result], tools=TOOLS)
    return is_call(call.tool_name, call.arguments) and after["replies"]


def streamed():
    chunks = []
    maker = generator(tool_choice="required")
    (reply,) = maker.run([ChatMessage.from_user(QUESTION)], tools=TOOLS, streaming_callback=chunks.append)["replies"]
    (call,) = reply.tool_calls
    return chunks and is_call(call.tool_name, call.arguments)


def agent():
    made = Agent(chat_generator=generator(max_tokens=60), tools=TOOLS, system_prompt="Be brief.", max_agent_steps=3)
    return made.run([ChatMessage.from_user(QUESTION)])["messages"]


check("text", lambda: generator(max_tokens=20).run([ChatMessage.from_user("Hello")])["replies"][0].text)
check("tools, required, result sent back", required)
check("tools, streamed", streamed)
check("Agent with two tools", agent)
