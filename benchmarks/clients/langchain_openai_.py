"""LangChain's chat class and agent."""

from checks import API_KEY, BASE_URL, MODEL, QUESTION, add, check, is_call, weather
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

chat = ChatOpenAI(model=MODEL, base_url=BASE_URL, api_key=API_KEY, max_retries=0)
short = ChatOpenAI(model=MODEL, base_url=BASE_URL, api_key=API_KEY, max_retries=0, max_completion_tokens=60)


class Sum(BaseModel):
    result: int = Field(ge=0, le=99)


def auto():
    answer = short.bind_tools([add, weather]).invoke(QUESTION)
    return answer.content or all(is_call(call["name"], call["args"]) for call in answer.tool_calls)


def loop():
    bound = chat.bind_tools([add, weather], tool_choice="any")
    called = bound.invoke(QUESTION)
    (call,) = called.tool_calls
    from langchain_core.messages import ToolMessage

    result = ToolMessage(content="5", tool_call_id=call["id"])
    after = short.bind_tools([add, weather]).invoke([HumanMessage(QUESTION), called, result])
    return is_call(call["name"], call["args"]) and (after.content or after.tool_calls)


def streamed():
    whole = None
    for chunk in chat.bind_tools([add, weather], tool_choice="any").stream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    (call,) = whole.tool_calls
    return is_call(call["name"], call["args"])


def agent():
    made = create_agent(short, [add, weather], system_prompt="Be brief.")
    return made.invoke({"messages": [HumanMessage(QUESTION)]}, {"recursion_limit": 50})["messages"][-1].content


check("invoke and stream", lambda: short.invoke("Hello").content and list(short.stream("Hello")))
check("bind_tools, auto", auto)
check("bind_tools, any, result sent back", loop)
check("bind_tools, streamed", streamed)
check("create_agent with two tools", agent)
check("with_structured_output", lambda: chat.with_structured_output(Sum).invoke(QUESTION))
check(
    "with_structured_output, function_calling",
    lambda: chat.with_structured_output(Sum, method="function_calling").invoke(QUESTION),
)
check("a late system turn", lambda: short.invoke([HumanMessage("Hello"), SystemMessage("Be brief.")]).content)
check(
    "use_responses_api, bind_tools",
    lambda: (
        ChatOpenAI(model=MODEL, base_url=BASE_URL, api_key=API_KEY, use_responses_api=True)
        .bind_tools([add, weather], tool_choice="any")
        .invoke(QUESTION)
        .tool_calls
    ),
)
