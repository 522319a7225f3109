"""smolagents: the agent that calls tools, which has to."""

from checks import API_KEY, BASE_URL, MODEL, QUESTION, check
from smolagents import OpenAIModel, ToolCallingAgent, tool


@tool
def add(a: int, b: int) -> int:
    """Add two whole numbers.

    Args:
        a: the first
        b: the second
    """
    return a + b


@tool
def weather(city: str) -> str:
    """Say the weather of a city.

    Args:
        city: its name
    """
    return f"It is sunny in {city}."


model = OpenAIModel(model_id=MODEL, api_base=BASE_URL, api_key=API_KEY, max_tokens=200)


def agent():
    made = ToolCallingAgent(tools=[add, weather], model=model, max_steps=3, verbosity_level=0)
    made.run(QUESTION)
    return any(
        call.name in ("add", "weather", "final_answer")
        for step in made.memory.steps
        for call in getattr(step, "tool_calls", None) or ()
    )


check("text", lambda: model([{"role": "user", "content": [{"type": "text", "text": "Hello"}]}], max_tokens=20).content)
check("ToolCallingAgent with two tools", agent)
