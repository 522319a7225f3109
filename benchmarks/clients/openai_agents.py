"""OpenAI's Agents SDK, over chat completions and over responses."""

from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool
from agents.exceptions import MaxTurnsExceeded
from checks import API_KEY, BASE_URL, MODEL, QUESTION, check
from checks import add as plain_add
from checks import weather as plain_weather
from openai import AsyncOpenAI

client = AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0)
TOOLS = [function_tool(plain_add), function_tool(plain_weather)]


def ran(kind, **settings):
    model = kind(model=MODEL, openai_client=client)
    agent = Agent(
        name="helper", instructions="Be brief.", model=model, tools=TOOLS, model_settings=ModelSettings(**settings)
    )
    try:
        return Runner.run_sync(agent, QUESTION, max_turns=3).new_items
    except MaxTurnsExceeded:
        return True  # the model went on calling, which is its right


check("chat, tools, auto", lambda: ran(OpenAIChatCompletionsModel, max_tokens=60))
check("chat, tools, required", lambda: ran(OpenAIChatCompletionsModel, tool_choice="required"))
check("responses, tools, auto", lambda: ran(OpenAIResponsesModel, max_tokens=60))
check("responses, tools, required", lambda: ran(OpenAIResponsesModel, tool_choice="required"))
