"""AutoGen's client and its agent."""

import asyncio

from autogen_agentchat.agents import AssistantAgent
from autogen_core.models import UserMessage
from autogen_core.tools import FunctionTool
from autogen_ext.models.openai import OpenAIChatCompletionClient
from checks import API_KEY, BASE_URL, MODEL, QUESTION, add, check, is_call, weather

INFO = {"vision": False, "function_calling": True, "json_output": True, "family": "unknown", "structured_output": True}
TOOLS = [FunctionTool(run, description=run.__doc__) for run in (add, weather)]


def client(**more):
    return OpenAIChatCompletionClient(model=MODEL, base_url=BASE_URL, api_key=API_KEY, model_info=INFO, **more)


def required():
    async def run():
        result = await client().create(
            [UserMessage(content=QUESTION, source="user")], tools=TOOLS, tool_choice="required"
        )
        (call,) = result.content
        return result.finish_reason == "function_calls" and is_call(call.name, call.arguments)

    return asyncio.run(run())


def streamed():
    async def run():
        message = UserMessage(content=QUESTION, source="user")
        async for part in client().create_stream([message], tools=TOOLS, tool_choice="required"):
            last = part
        (call,) = last.content
        return is_call(call.name, call.arguments)

    return asyncio.run(run())


def agent():
    async def run():
        made = AssistantAgent("helper", client(max_tokens=60), tools=TOOLS, reflect_on_tool_use=True)
        return (await made.run(task=QUESTION)).messages[-1].to_text()

    return asyncio.run(run())


check("tools, required", required)
check("tools, streamed", streamed)
check("AssistantAgent with two tools", agent)
