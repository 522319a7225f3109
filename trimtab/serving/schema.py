"""What clients send: the parts of OpenAI's requests that are answered here, and the two public APIs for decisions.

Fields that change nothing about the answer (`user`, `metadata`, `store`) may stand there; those that would change it and are
not built (`tools`, `logit_bias`) are refused by name.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MOST_TURNS, MOST_LETTERS, MOST_STOPS, MOST_CHOICES, MOST_INPUTS = 256, 200_000, 4, 8, 256
MOST_ANSWERS = 32  # of one request: prompts times choices
NOT_BUILT = (
    "tools",
    "tool_choice",
    "functions",
    "function_call",
    "logit_bias",
    "audio",
    "modalities",
    "prediction",
    "suffix",
    "web_search_options",
)
_ASKS_EVEN_EMPTY = frozenset({"web_search_options"})  # `{}` is a search with the usual options
_EMPTY: tuple[Any, ...] = (None, 0, [], {}, "none", "auto", ["text"])

Text = Annotated[str, Field(max_length=MOST_LETTERS)]
Name = Annotated[str, Field(max_length=200)]
Stop = Annotated[str, Field(max_length=200)]


class Asked(BaseModel):
    """What all requests have in common."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, strict=False)
    not_built: ClassVar[tuple[str, ...]] = NOT_BUILT
    model: Name

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_not_built(cls, given: Any) -> Any:
        if isinstance(given, dict):
            for name in cls.not_built:
                if given.get(name) not in ((None,) if name in _ASKS_EVEN_EMPTY else _EMPTY):
                    raise ValueError(f"{name} is not supported here; leave it out")
        return given


class TextPart(BaseModel):
    """A piece of a turn's content; other kinds than text are refused."""

    type: Literal["text", "input_text", "output_text"]
    text: Text


class Turn(BaseModel):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(min_length=1, max_length=64)]

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


Turns = Annotated[list[Turn], Field(min_length=1, max_length=MOST_TURNS)]


class Drawing(Asked):
    """How tokens are drawn; greedy unless a temperature is given, as the arm was measured."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = None


class JsonSchema(BaseModel):
    """A schema by its name; whether it is kept strictly is not a question here."""

    name: Name = "answer"
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class Form(BaseModel):
    """What an answer has to fit: OpenAI's three, and an expression or choices."""

    type: Literal["text", "json_object", "json_schema", "regex", "choice"]
    json_schema: JsonSchema | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None  # where Responses have it
    pattern: Text | None = None
    choices: Annotated[list[Text], Field(min_length=1, max_length=10_000)] | None = None

    @model_validator(mode="after")
    def _require_its_part(self) -> Self:
        part = {"json_schema": self.json_schema or self.schema_, "regex": self.pattern, "choice": self.choices}
        if self.type in part and part[self.type] is None:
            wanted = {"json_schema": "json_schema", "regex": "pattern", "choice": "choices"}[self.type]
            raise ValueError(f"a format of type {self.type} needs {wanted}")
        return self


class TextForm(BaseModel):
    """The form of the text of a response."""

    format: Form | None = None


class StreamOptions(BaseModel):
    """Whether the last chunk of a stream tells the tokens."""

    include_usage: bool = False


class Written(Drawing):
    """What chat and plain completions have in common."""

    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop texts."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatRequest(Written):
    """`POST /v1/chat/completions`."""

    messages: Turns
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: Form | None = None


class CompletionRequest(Written):
    """`POST /v1/completions`: each prompt is one question to the arm."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=32)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None

    @model_validator(mode="after")
    def _refuse_too_many(self) -> Self:
        asked = (1 if isinstance(self.prompt, str) else len(self.prompt)) * (self.n or 1)
        if asked > MOST_ANSWERS:
            raise ValueError(f"{asked} answers in one request; ask for at most {MOST_ANSWERS}")
        return self


class ResponseTurn(Turn):
    """One turn of the input of `/v1/responses`."""

    type: Literal["message"] = "message"


class ResponsesRequest(Drawing):
    """`POST /v1/responses`: text in, text out; nothing is kept here, so none can be gone on from."""

    not_built: ClassVar[tuple[str, ...]] = (*NOT_BUILT, "conversation", "prompt", "top_logprobs")
    input: Text | Annotated[list[ResponseTurn], Field(min_length=1, max_length=MOST_TURNS)]
    instructions: Text | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    text: TextForm | None = None
    previous_response_id: None = None


class EmbeddingsRequest(Asked):
    """`POST /v1/embeddings`."""

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_INPUTS)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: None = None

    @field_validator("input", mode="before")
    @classmethod
    def _refuse_tokens(cls, given: Any) -> Any:
        """Say what to do about ids of tokens, which LangChain sends unless told otherwise: of OpenAI's tokenizer, not of this model's."""
        if isinstance(given, list) and any(isinstance(one, int | list) for one in given):
            remedy = "send text (LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False)"
            raise ValueError(f"ids of tokens, which only the tokenizer that made them can read; {remedy}")
        return given


class ChoiceQuestion(BaseModel):
    """A System One question: options by name, each with a description or null."""

    type: Literal["choice"]
    instructions: Text | None = None
    criteria: dict[str, Any] | None = None


class SystemOneRequest(Asked):
    """`POST /v1/systemone`: a state and questions by name."""

    state: Any
    questions: Annotated[dict[str, ChoiceQuestion], Field(min_length=1, max_length=16)]


class Option(BaseModel):
    """One option of a decision."""

    value: Text


class DecisionQuestion(BaseModel):
    """A question of the Decisions API."""

    type: Literal["choice"]
    name: Name
    instructions: Text | None = None
    choices: Annotated[list[Option], Field(max_length=10_000)] | None = None


class DecisionsRequest(Asked):
    """`POST /v1/decisions`: an input and a list of questions."""

    input: Text | Annotated[list[ResponseTurn], Field(min_length=1, max_length=MOST_TURNS)]
    questions: Annotated[list[DecisionQuestion], Field(min_length=1, max_length=16)]


class JudgedAnswer(BaseModel):
    """An answer as it was shown: the model that gave it, and the ids of the passages that stood beside it."""

    model: Name
    text: Text
    passages: Annotated[list[Name], Field(max_length=64)] = []


class FeedbackTurn(Turn):
    """A turn of what was judged; the task's instruction is no part of it."""

    role: Literal["user", "assistant"]


class FeedbackRequest(BaseModel):
    """`POST /feedback`: what a user says of one answer (like, dislike, correct) or of several beside each other (prefer).

    `chosen` is the number of the better answer, null where they are equally good; `blind`: nobody saw who gave them.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    kind: Literal["like", "dislike", "prefer", "correct"]
    messages: Annotated[list[FeedbackTurn], Field(min_length=1, max_length=MOST_TURNS)]
    answers: Annotated[list[JudgedAnswer], Field(min_length=1, max_length=16)]
    chosen: Annotated[int, Field(ge=0)] | None = None
    correction: Text | None = None
    blind: bool = False
    session: Annotated[str, Field(max_length=64)] | None = None
