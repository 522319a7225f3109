"""litellm, by its provider of OpenAI-compatible servers."""

import litellm
from checks import API_KEY, BASE_URL, MODEL, QUESTION, TOOLS, check, is_call

USER = {"role": "user", "content": QUESTION}
WHERE = {"model": f"openai/{MODEL}", "api_base": BASE_URL, "api_key": API_KEY, "num_retries": 0}


def auto():
    message = litellm.completion(messages=[USER], tools=TOOLS, max_tokens=60, **WHERE).choices[0].message
    return message.content or is_call(message.tool_calls[0].function.name, message.tool_calls[0].function.arguments)


def loop():
    first = litellm.completion(messages=[USER], tools=TOOLS, tool_choice="required", **WHERE).choices[0]
    (call,) = first.message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "5"}
    after = litellm.completion(messages=[USER, first.message, result], tools=TOOLS, max_tokens=30, **WHERE)
    return is_call(call.function.name, call.function.arguments) and after.choices[0].message


def streamed():
    chunks = list(litellm.completion(messages=[USER], tools=TOOLS, tool_choice="required", stream=True, **WHERE))
    (call,) = litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls
    return is_call(call.function.name, call.function.arguments)


check("completion", lambda: litellm.completion(messages=[USER], max_tokens=20, **WHERE).choices[0].message.content)
check("tools, auto", auto)
check("tools, required, result sent back", loop)
check("tools, streamed", streamed)
