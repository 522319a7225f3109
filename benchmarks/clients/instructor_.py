"""instructor, in its modes of tools and of schemas."""

from typing import Literal

import instructor
import openai
from checks import API_KEY, BASE_URL, MODEL, QUESTION, check
from pydantic import BaseModel, Field

plain = openai.OpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0)
client = instructor.from_openai(plain)
USER = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}]}


class Sum(BaseModel):
    kind: Literal["sum"]
    result: int = Field(ge=0, le=99, multiple_of=5)


class Refusal(BaseModel):
    kind: Literal["refusal"]
    reason: Literal["no numbers", "not a question"]


class Answer(BaseModel):
    answer: Sum | Refusal = Field(discriminator="kind")


check("tools, its default", lambda: client.chat.completions.create(response_model=Sum, **USER))
check("tools, a discriminated union", lambda: client.chat.completions.create(response_model=Answer, **USER))
check("partial stream", lambda: list(client.chat.completions.create_partial(response_model=Sum, **USER)))
check(
    "JSON_SCHEMA",
    lambda: instructor.from_openai(plain, mode=instructor.Mode.JSON_SCHEMA).chat.completions.create(
        response_model=Answer, **USER
    ),
)
