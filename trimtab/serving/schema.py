"""Request bodies as pydantic models: the supported parts of OpenAI's API, and the two public APIs for decisions.

Fields without effect on the answer (`user`, `metadata`, `store`) are accepted; fields that would change it and are not
supported (`logit_bias`, a free choice of `tools`) are refused by name.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MOST_TURNS, MOST_LETTERS, MOST_STOPS, MOST_CHOICES, MOST_INPUTS = 256, 200_000, 4, 8, 256
MOST_TOOLS = 128
MOST_ANSWERS = 32  # of one request: prompts times choices
UNSUPPORTED = (
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
_UNSUPPORTED_EVEN_EMPTY = frozenset({"web_search_options"})  # `{}` asks for a search with default options
_NEUTRAL: tuple[Any, ...] = (None, 0, [], {}, "none", "auto", ["text"])

BoundedText = Annotated[str, Field(max_length=MOST_LETTERS)]
ShortName = Annotated[str, Field(max_length=200)]
StopText = Annotated[str, Field(max_length=200)]


class ApiRequest(BaseModel):
    """The base of all requests: the model, and the refusal of unsupported fields."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, strict=False)
    unsupported: ClassVar[tuple[str, ...]] = UNSUPPORTED
    model: ShortName

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for name in cls.unsupported:
                if value.get(name) not in ((None,) if name in _UNSUPPORTED_EVEN_EMPTY else _NEUTRAL):
                    raise ValueError(f"{name} is not supported here; leave it out")
        return value


class TextPart(BaseModel):
    """A text part of a turn's content; other kinds are refused."""

    type: Literal["text", "input_text", "output_text"]
    text: BoundedText


TurnContent = BoundedText | Annotated[list[TextPart], Field(min_length=1, max_length=64)]


def _joined_text(content: TurnContent) -> str:
    """Return the content of a turn as one text."""
    return content if isinstance(content, str) else "\n".join(part.text for part in content)


class ConversationTurn(BaseModel):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: TurnContent

    @property
    def text(self) -> str:
        """The content as one text."""
        return _joined_text(self.content)


class CalledFunction(BaseModel):
    """A function that was called, with its arguments as JSON."""

    name: ShortName
    arguments: BoundedText


class ToolCall(BaseModel):
    """An earlier call of a function."""

    type: Literal["function"] = "function"
    function: CalledFunction


class ChatTurn(BaseModel):
    """One turn of a chat. A tool call is read as the assistant's text, and a tool's result as a user turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: TurnContent | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=64)] | None = None

    @model_validator(mode="after")
    def _require_text(self) -> Self:
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise ValueError("a turn needs content")
        return self

    @property
    def turn(self) -> ConversationTurn:
        """The turn as the model reads it."""
        calls = [call.function.arguments for call in self.tool_calls or () if self.role == "assistant"]
        text = "\n".join([*([_joined_text(self.content)] if self.content else []), *calls])
        return ConversationTurn(role="user" if self.role == "tool" else self.role, content=text)


class SamplingRequest(ApiRequest):
    """The sampling settings of a request; greedy without a temperature, which is how the arm was measured."""

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
    """A named JSON schema; `strict` is ignored, as every schema is enforced."""

    name: ShortName = "answer"
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class AnswerFormat(BaseModel):
    """The format of an answer: OpenAI's three types, a regular expression, or a list of choices."""

    type: Literal["text", "json_object", "json_schema", "regex", "choice"]
    json_schema: JsonSchema | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None  # its place in the Responses API
    pattern: BoundedText | None = None
    choices: Annotated[list[BoundedText], Field(min_length=1, max_length=10_000)] | None = None

    @model_validator(mode="after")
    def _require_its_part(self) -> Self:
        part = {"json_schema": self.json_schema or self.schema_, "regex": self.pattern, "choice": self.choices}
        if self.type in part and part[self.type] is None:
            wanted = {"json_schema": "json_schema", "regex": "pattern", "choice": "choices"}[self.type]
            raise ValueError(f"a format of type {self.type} needs {wanted}")
        return self


class TextFormat(BaseModel):
    """The text format of a response."""

    format: AnswerFormat | None = None


class Function(BaseModel):
    """A function that a client can run: its name and the JSON schema of its arguments."""

    name: ShortName
    parameters: dict[str, Any] | None = None


class Tool(BaseModel):
    """A tool; only functions are supported."""

    type: Literal["function"]
    function: Function

    @field_validator("type", mode="before")
    @classmethod
    def _refuse_others(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "function":
            raise ValueError(f"the tool {value[:80]!r} is not supported here; leave it out")
        return value


class FunctionName(BaseModel):
    """A function by its name."""

    name: ShortName


class ToolChoice(BaseModel):
    """The one function that is to be called."""

    type: Literal["function"]
    function: FunctionName


class StreamOptions(BaseModel):
    """Options of a stream: whether its last chunk reports the token counts."""

    include_usage: bool = False


class CompletionOptions(SamplingRequest):
    """The fields that chat and plain completions have in common."""

    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=MOST_STOPS)] | None = None
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop texts."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatRequest(CompletionOptions):
    """`POST /v1/chat/completions`."""

    unsupported: ClassVar[tuple[str, ...]] = tuple(name for name in UNSUPPORTED if name not in ("tools", "tool_choice"))
    messages: Annotated[list[ChatTurn], Field(min_length=1, max_length=MOST_TURNS)]
    tools: Annotated[list[Tool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: AnswerFormat | None = None

    @property
    def forced(self) -> Function | None:
        """The function whose arguments are the answer; None if the answer is text."""
        tools = [] if self.tool_choice == "none" else self.tools or []
        name = self.tool_choice.function.name if isinstance(self.tool_choice, ToolChoice) else None
        return next((tool.function for tool in tools if name in (None, tool.function.name)), None)

    @model_validator(mode="after")
    def _refuse_a_choice_of_tools(self) -> Self:
        names = ", ".join(repr(tool.function.name[:80]) for tool in self.tools or ())
        if isinstance(self.tool_choice, ToolChoice):
            if self.forced is None:
                name = self.tool_choice.function.name[:80]
                raise ValueError(
                    f"tool_choice names {name!r}, which is none of the tools ({names or 'there are none'})"
                )
        elif self.tool_choice == "required" and not self.tools:
            raise ValueError("tool_choice is required, and there are no tools")
        elif self.tools and self.tool_choice != "none" and (self.tool_choice != "required" or len(self.tools) > 1):
            one = 'name one in tool_choice, send one alone with tool_choice "required", or leave tools out'
            raise ValueError(f"a choice among tools is not supported here ({names}); {one}")
        if self.forced and self.response_format and self.response_format.type != "text":
            raise ValueError("response_format and a forced function are two forms of one answer; leave one of them out")
        return self


class _Completion(CompletionOptions):
    """The fields that completions of questions and of raw prompts have in common."""

    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    best_of: Literal[1] | None = None
    prompt: Any

    @property
    def prompts(self) -> list[Any]:
        """The prompts, one or several."""
        several = isinstance(self.prompt, list) and not isinstance(self.prompt[0], int)
        return self.prompt if several else [self.prompt]

    @model_validator(mode="after")
    def _refuse_too_many(self) -> Self:
        asked = len(self.prompts) * (self.n or 1)
        if asked > MOST_ANSWERS:
            raise ValueError(f"{asked} answers in one request; ask for at most {MOST_ANSWERS}")
        return self


class CompletionRequest(_Completion):
    """`POST /v1/completions`: each prompt is one question to the arm."""

    prompt: BoundedText | Annotated[list[BoundedText], Field(min_length=1, max_length=32)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    echo: Literal[False] | None = None

    @field_validator("prompt", "echo", mode="before")
    @classmethod
    def _refuse_raw(cls, value: Any) -> Any:
        """Point requests that need a raw prompt to `/v1/raw/completions`."""
        if value is True or (isinstance(value, list) and any(isinstance(one, int | list) for one in value)):
            what = "echo" if value is True else "ids of tokens"
            where = "send it to /v1/raw/completions, where a prompt is read as it is"
            raise ValueError(f"{what}: a prompt here is a question, which the chat template is put around; {where}")
        return value


TokenId = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, max_length=MOST_LETTERS)]
RawPrompts = (
    Annotated[list[BoundedText], Field(min_length=1, max_length=32)]
    | Annotated[list[TokenIds], Field(min_length=1, max_length=32)]
)


class RawCompletionRequest(_Completion):
    """`POST /v1/raw/completions`: prompts as text or token ids, without template, instruction or passages."""

    prompt: BoundedText | TokenIds | RawPrompts
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    echo: bool | None = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _refuse_no_prompt(cls, value: Any) -> Any:
        if value in ([], [[]]):
            raise ValueError("an empty prompt; send text or ids of tokens, at least 1")
        return value

    @model_validator(mode="after")
    def _refuse_nothing(self) -> Self:
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens is 0 and echo is off, so nothing is asked for")
        if self.echo and self.stream:
            raise ValueError("a prompt is not echoed in a stream; leave echo or stream out")
        return self


class ResponseTurn(ConversationTurn):
    """One turn of the input of `/v1/responses`."""

    type: Literal["message"] = "message"


class ResponsesRequest(SamplingRequest):
    """`POST /v1/responses`: text in, text out; no response is stored, so none can be continued."""

    unsupported: ClassVar[tuple[str, ...]] = (*UNSUPPORTED, "conversation", "prompt", "top_logprobs")
    input: BoundedText | Annotated[list[ResponseTurn], Field(min_length=1, max_length=MOST_TURNS)]
    instructions: BoundedText | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    text: TextFormat | None = None
    previous_response_id: None = None


class EmbeddingsRequest(ApiRequest):
    """`POST /v1/embeddings`."""

    input: BoundedText | Annotated[list[BoundedText], Field(min_length=1, max_length=MOST_INPUTS)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: None = None

    @field_validator("input", mode="before")
    @classmethod
    def _refuse_tokens(cls, value: Any) -> Any:
        """Refuse token ids, which LangChain sends by default and which belong to OpenAI's tokenizer."""
        if isinstance(value, list) and any(isinstance(one, int | list) for one in value):
            remedy = "send text (LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False)"
            raise ValueError(f"ids of tokens, which only the tokenizer that made them can read; {remedy}")
        return value


class ChoiceQuestion(BaseModel):
    """A System One question: options by name, each with a description or null."""

    type: Literal["choice"]
    instructions: BoundedText | None = None
    criteria: dict[str, Any] | None = None


class SystemOneRequest(ApiRequest):
    """`POST /v1/systemone`: a state and questions by name."""

    state: Any
    questions: Annotated[dict[str, ChoiceQuestion], Field(min_length=1, max_length=16)]


class Option(BaseModel):
    """One option of a decision."""

    value: BoundedText


class DecisionQuestion(BaseModel):
    """A question of the Decisions API."""

    type: Literal["choice"]
    name: ShortName
    instructions: BoundedText | None = None
    choices: Annotated[list[Option], Field(max_length=10_000)] | None = None


class DecisionsRequest(ApiRequest):
    """`POST /v1/decisions`: an input and a list of questions."""

    input: BoundedText | Annotated[list[ResponseTurn], Field(min_length=1, max_length=MOST_TURNS)]
    questions: Annotated[list[DecisionQuestion], Field(min_length=1, max_length=16)]


class FeedbackAnswer(BaseModel):
    """An answer as the user saw it: its model, and the ids of the passages shown with it.

    `version`: the number in the registry from the reply (`trimtab.release.version`), if the server follows an alias.
    """

    model: ShortName
    version: Annotated[int, Field(ge=1)] | None = None
    text: BoundedText
    passages: Annotated[list[ShortName], Field(max_length=64)] = []


class FeedbackTurn(ConversationTurn):
    """A turn of the judged conversation; the task's instruction is not part of it."""

    role: Literal["user", "assistant"]


class FeedbackRequest(BaseModel):
    """`POST /feedback`: a judgement of one answer (like, dislike, correct) or of several (prefer).

    `chosen` is the index of the better answer, null if they are equally good; `blind`: the arms' names were hidden.
    `user`: who judges, if several share a key; only a hash is stored.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    kind: Literal["like", "dislike", "prefer", "correct"]
    messages: Annotated[list[FeedbackTurn], Field(min_length=1, max_length=MOST_TURNS)]
    answers: Annotated[list[FeedbackAnswer], Field(min_length=1, max_length=16)]
    chosen: Annotated[int, Field(ge=0)] | None = None
    correction: BoundedText | None = None
    blind: bool = False
    session: Annotated[str, Field(max_length=64)] | None = None
    user: Annotated[str, Field(min_length=1, max_length=1_000)] | None = None
