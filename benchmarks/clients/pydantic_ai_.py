"""pydantic-ai: functions, unions of output types, streams."""

from typing import Literal

from checks import API_KEY, BASE_URL, MODEL, QUESTION, add, check, weather
from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=BASE_URL, api_key=API_KEY)
model = OpenAIChatModel(MODEL, provider=provider)
SHORT = {"max_tokens": 60}


class Sum(BaseModel):
    result: int = Field(ge=0, le=99)


class Refusal(BaseModel):
    reason: Literal["no numbers", "not a question"]


def union():
    return isinstance(Agent(model, output_type=[Sum, Refusal]).run_sync(QUESTION).output, Sum | Refusal)


def functions():
    return (
        Agent(model, tools=[add, weather], system_prompt=("Be brief.", "Be polite."))
        .run_sync(QUESTION, model_settings=SHORT)
        .output
    )


def streamed():
    import asyncio

    async def run():
        async with Agent(model, output_type=[Sum, Refusal]).run_stream(QUESTION) as result:
            return await result.get_output()

    return asyncio.run(run())


check("text", lambda: Agent(model).run_sync("Hello", model_settings=SHORT).output)
check("functions, text as output", functions)
check("a union of output types", union)
check("a union of output types, streamed", streamed)
check(
    "a union with text",
    lambda: Agent(model, output_type=[Sum, Refusal, str]).run_sync(QUESTION, model_settings=SHORT).output,
)
check(
    "NativeOutput of a union", lambda: Agent(model, output_type=NativeOutput([Sum, Refusal])).run_sync(QUESTION).output
)
check(
    "responses, a union of output types",
    lambda: Agent(OpenAIResponsesModel(MODEL, provider=provider), output_type=[Sum, Refusal]).run_sync(QUESTION).output,
)
