"""Request bodies as pydantic models: the supported parts of OpenAI's API, and the two public APIs for decisions.

Fields without effect on the answer (`user`, `metadata`, `store`) are accepted; fields that would change it and are not
supported (`logit_bias`, `functions`) are refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trimtab.base.records import Message
from trimtab.data.function_calls import call_text
from trimtab.serving.replies import CallableFunctions

MOST_TURNS, MOST_LETTERS, MOST_STOPS, MOST_CHOICES, MOST_INPUTS = 256, 200_000, 4, 8, 256
MOST_TOOLS = 128
MOST_ANSWERS = 32  # of one request: prompts times choices
UNSUPPORTED = (
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
    def message(self) -> Message:
        """The turn as the model reads it; `developer` means `system`."""
        role = "system" if self.role == "developer" else self.role
        return Message(role=role, content=_joined_text(self.content))


class CalledFunction(BaseModel):
    """A function that was called, with its arguments as JSON."""

    name: ShortName
    arguments: BoundedText


class ToolCall(BaseModel):
    """An earlier call of a function."""

    type: Literal["function"] = "function"
    function: CalledFunction


class ChatTurn(BaseModel):
    """One turn of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: TurnContent | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=64)] | None = None

    @model_validator(mode="after")
    def _require_text(self) -> Self:
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise ValueError("a turn needs content")
        return self

    @property
    def message(self) -> Message:
        """The turn as the model reads it; calls stand below the text."""
        calls = [call.function for call in self.tool_calls or () if self.role == "assistant"]
        parts = [_joined_text(self.content)] if self.content else []
        parts += [call_text(call.name, call.arguments) for call in calls]
        return Message(role="system" if self.role == "developer" else self.role, content="\n".join(parts))


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


def _nested(value: Any, key: str) -> Any:
    """Return an object of the Responses API, which is flat, as one of chat completions: below the name of its type."""
    if isinstance(value, dict) and value.get("type") == key and key not in value:
        return {"type": key, key: {name: part for name, part in value.items() if name != "type"}}
    return value


class Function(BaseModel):
    """A function that a client can run: its name and the JSON schema of its arguments."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    description: BoundedText | None = None
    parameters: dict[str, Any] | None = None

    @property
    def arguments_schema(self) -> str:
        """The JSON schema of its arguments; without parameters an empty object."""
        return json.dumps(self.parameters or {"type": "object", "properties": {}}, ensure_ascii=False)

    @property
    def definition(self) -> str:
        """The definition as templates and models read it."""
        shown = self.model_dump(exclude_none=True) | {"parameters": json.loads(self.arguments_schema)}
        return json.dumps({"type": "function", "function": shown}, ensure_ascii=False)


class Tool(BaseModel):
    """A tool; only functions are supported. Every schema is enforced, so `strict` is ignored."""

    type: Literal["function"]
    function: Function

    @field_validator("type", mode="before")
    @classmethod
    def _refuse_others(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "function":
            raise ValueError(f"the tool {value[:80]!r} is not supported here; leave it out")
        return value

    @model_validator(mode="before")
    @classmethod
    def _nest(cls, value: Any) -> Any:
        return _nested(value, "function")


class FunctionName(BaseModel):
    """A function by its name."""

    name: ShortName


class ToolChoice(BaseModel):
    """The one function that is to be called."""

    type: Literal["function"]
    function: FunctionName

    @model_validator(mode="before")
    @classmethod
    def _nest(cls, value: Any) -> Any:
        return _nested(value, "function")


class AllowedTools(BaseModel):
    """Some of the functions, of which one may or must be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[ToolChoice], Field(min_length=1, max_length=MOST_TOOLS)]


class AllowedToolsChoice(BaseModel):
    """A choice among some of the functions."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools

    @model_validator(mode="before")
    @classmethod
    def _nest(cls, value: Any) -> Any:
        return _nested(value, "allowed_tools")


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


class ToolOptions(BaseModel):
    """The functions that an answer may call: the fields that chat and responses have in common."""

    tools: Annotated[list[Tool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | AllowedToolsChoice | None = None
    parallel_tool_calls: bool | None = None  # an answer has one call at most

    @property
    def answer_format(self) -> AnswerFormat | None:
        """The format of an answer that is no call."""
        return None

    @property
    def functions(self) -> list[Function]:
        """The functions that the model is shown."""
        return [] if self.tool_choice == "none" else [tool.function for tool in self.tools or ()]

    @property
    def must_call(self) -> bool:
        """True if the answer must be a call."""
        choice = self.tool_choice
        if isinstance(choice, AllowedToolsChoice):
            return choice.allowed_tools.mode == "required"
        return isinstance(choice, ToolChoice) or choice == "required"

    @property
    def offered(self) -> list[Function]:
        """The functions that the answer may call."""
        names = self._chosen_names
        return [function for function in self.functions if names is None or function.name in names]

    @property
    def callable_functions(self) -> CallableFunctions:
        """The names of the functions that the answer may call."""
        names = tuple(function.name for function in self.offered)
        return CallableFunctions(names, is_named=isinstance(self.tool_choice, ToolChoice))

    @property
    def definitions(self) -> tuple[str, ...]:
        """The definitions of the functions that the model is shown."""
        return tuple(function.definition for function in self.functions)

    @property
    def _chosen_names(self) -> list[str] | None:
        """The names in `tool_choice`, None for all functions."""
        if isinstance(self.tool_choice, AllowedToolsChoice):
            return [tool.function.name for tool in self.tool_choice.allowed_tools.tools]
        return [self.tool_choice.function.name] if isinstance(self.tool_choice, ToolChoice) else None

    @model_validator(mode="after")
    def _refuse_impossible_calls(self) -> Self:
        names = [tool.function.name for tool in self.tools or ()]
        listed = ", ".join(repr(name[:80]) for name in names) or "there are none"
        unknown = next((name for name in self._chosen_names or () if name not in names), None)
        if unknown is not None:
            raise ValueError(f"tool_choice names {unknown[:80]!r}, which is none of the tools ({listed})")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two tools have the name {twice[:80]!r}; give each its own")
        if self.must_call and not names:
            raise ValueError("tool_choice is required, and there are no tools")
        form = self.answer_format
        if self.must_call and form and form.type != "text":
            raise ValueError("response_format and a forced function are two forms of one answer; leave one of them out")
        return self


class ChatRequest(ToolOptions, CompletionOptions):
    """`POST /v1/chat/completions`."""

    unsupported: ClassVar[tuple[str, ...]] = UNSUPPORTED
    messages: Annotated[list[ChatTurn], Field(min_length=1, max_length=MOST_TURNS)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: AnswerFormat | None = None

    @property
    def answer_format(self) -> AnswerFormat | None:
        """The format of an answer that is no call."""
        return self.response_format


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


class ResponseCall(CalledFunction):
    """An earlier call of a function in the input of `/v1/responses`."""

    type: Literal["function_call"]

    @property
    def message(self) -> Message:
        """The call as the model reads it."""
        return Message(role="assistant", content=call_text(self.name, self.arguments))


class ResponseCallOutput(BaseModel):
    """The output of a function that the client has run."""

    type: Literal["function_call_output"]
    output: TurnContent

    @property
    def message(self) -> Message:
        """The result as the model reads it."""
        return Message(role="tool", content=_joined_text(self.output))


ResponseItem = ResponseTurn | ResponseCall | ResponseCallOutput


class ResponsesRequest(ToolOptions, SamplingRequest):
    """`POST /v1/responses`: text or a call of a function; no response is stored, so none can be continued."""

    unsupported: ClassVar[tuple[str, ...]] = (*UNSUPPORTED, "conversation", "prompt", "top_logprobs")
    input: BoundedText | Annotated[list[ResponseItem], Field(min_length=1, max_length=MOST_TURNS)]
    instructions: BoundedText | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    text: TextFormat | None = None
    previous_response_id: None = None

    @property
    def turns(self) -> Sequence[ResponseItem]:
        """The input as turns."""
        return [ResponseTurn(role="user", content=self.input)] if isinstance(self.input, str) else self.input

    @property
    def answer_format(self) -> AnswerFormat | None:
        """The format of an answer that is no call."""
        return self.text.format if self.text else None


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
    """An answer as the user saw it."""

    receipt: Annotated[str, Field(max_length=2_000)] = Field(
        description="What the reply gave in `trimtab.receipts`, one for each choice or answer. It proves that this "
        "server gave this answer to this user."
    )
    text: BoundedText = Field(description="The answer as it was given, at most 200,000 bytes.")
    passages: Annotated[list[ShortName], Field(max_length=64)] = Field(
        [], description="The ids of the passages that were shown with it."
    )


class FeedbackTurn(ConversationTurn):
    """A turn of the judged conversation."""

    role: Literal["user", "assistant"] = Field(description="Who wrote it. The task's instruction is no turn.")
    content: TurnContent = Field(description="Its text, at most 200,000 bytes; or a list of parts of text, joined.")


class FeedbackRequest(BaseModel):
    """`POST /feedback`: a judgement of one answer (like, dislike, correct) or of several (prefer)."""

    model_config = ConfigDict(extra="forbid", strict=True)
    kind: Literal["like", "dislike", "prefer", "correct"] = Field(
        description="`like`, `dislike` and `correct` judge one answer, `prefer` compares several."
    )
    messages: Annotated[list[FeedbackTurn], Field(min_length=1, max_length=MOST_TURNS)] = Field(
        description="The conversation up to the question that was answered, which is the last turn. The user's turns "
        "must be those that were sent."
    )
    answers: Annotated[list[FeedbackAnswer], Field(min_length=1, max_length=16)] = Field(
        description="The judged answer; for `prefer` at least two, in the order shown. All texts of a judgement "
        "together have at most 900,000 bytes."
    )
    chosen: Annotated[int, Field(ge=0)] | None = Field(
        None, description="For `prefer`: the place of the better answer, from 0; null if they are equally good."
    )
    correction: BoundedText | None = Field(
        None,
        description="For `correct` alone, which needs it: the right answer, other than the one given; for a closed set "
        "one of its labels.",
    )
    blind: bool = Field(False, description="True if the arms' names were hidden from the user.")
    session: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Any name of a visit, which groups judgements."
    )
    user: Annotated[str, Field(min_length=1, max_length=1_000)] | None = Field(
        None, description="Who judges, where several share a key: only a hash is kept. By default the key's owner."
    )
