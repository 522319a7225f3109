"""LlamaIndex, by its class for servers that speak as OpenAI's do."""

from checks import API_KEY, BASE_URL, MODEL, QUESTION, add, check, is_call, weather
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, Field

WHERE = {"model": MODEL, "api_base": BASE_URL, "api_key": API_KEY, "is_chat_model": True, "max_retries": 0}
llm = OpenAILike(**WHERE, is_function_calling_model=True)
short = OpenAILike(**WHERE, is_function_calling_model=True, max_tokens=60)
TOOLS = [FunctionTool.from_defaults(add), FunctionTool.from_defaults(weather)]


class Sum(BaseModel):
    result: int = Field(ge=0, le=99)


def auto():
    answer = short.chat_with_tools(TOOLS, user_msg=QUESTION)
    calls = short.get_tool_calls_from_response(answer, error_on_no_tool_call=False)
    return answer.message.content or all(is_call(call.tool_name, call.tool_kwargs) for call in calls)


def required():
    answer = llm.chat_with_tools(TOOLS, user_msg=QUESTION, tool_required=True)
    (call,) = llm.get_tool_calls_from_response(answer)
    return is_call(call.tool_name, call.tool_kwargs)


def streamed():
    *_, last = llm.stream_chat_with_tools(TOOLS, user_msg=QUESTION, tool_required=True)
    (call,) = llm.get_tool_calls_from_response(last)
    return is_call(call.tool_name, call.tool_kwargs)


check("complete and stream", lambda: short.complete("Hello").text and list(short.stream_complete("Hello")))
check("chat_with_tools, auto", auto)
check("chat_with_tools, required", required)
check("stream_chat_with_tools", streamed)
check("predict_and_call", lambda: llm.predict_and_call(TOOLS, QUESTION, tool_required=True).sources)
check("as_structured_llm", lambda: llm.as_structured_llm(Sum).complete(QUESTION).raw)
check(
    "several system turns",
    lambda: (
        short.chat(
            [ChatMessage("Be brief.", role="system"), ChatMessage("Be polite.", role="system"), ChatMessage("Hello")]
        ).message.content
    ),
)
