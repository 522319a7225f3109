"""The clients that people have, unchanged, against our server: OpenAI's, LangChain's, LlamaIndex's."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_openai import OpenAI as PlainOpenAI
from llama_index.llms.openai_like import OpenAILike
from serving_tasks import Here

QUESTION = "bridge 12nnob of Bonn?"


@pytest.fixture(scope="module")
def client(writing: Here) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{writing.url}/v1", api_key=writing.key, max_retries=0)


def ask(client: openai.OpenAI, model: str = "tiny:prompt", text: str = QUESTION, **more: Any) -> Any:
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **more)


@pytest.mark.parametrize("arm", ["prompt", "rag", "quick"])
def test_a_stream_is_the_whole_answer_in_pieces(client: openai.OpenAI, arm: str) -> None:
    whole = ask(client, arm, max_tokens=40)
    assert (whole.model, whole.object) == (f"tiny:{arm}", "chat.completion")
    chunks = list(ask(client, arm, max_tokens=40, stream=True, stream_options={"include_usage": True}))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    cached = whole.usage.prompt_tokens_details.cached_tokens
    assert (0 < cached < whole.usage.prompt_tokens) == (arm == "rag")  # other prompts have too little in common
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_models_are_the_arms_and_the_embedding(client: openai.OpenAI, writing: Here) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["tiny:prompt", "tiny:rag", "tiny:quick", writing.parts.embedding]
    assert client.models.retrieve(writing.parts.embedding).id == writing.parts.embedding
    one = client.models.retrieve("tiny:quick")
    assert one.id == "tiny:quick"
    measured = one.model_extra["trimtab"]["measured"]
    check = measured["self_check"]  # what is served is what was measured
    assert check["equal"] >= 0.95 * (check["equal"] + check["tied"] + check["different"])
    assert measured["score"]["low"] <= measured["score"]["value"] <= measured["score"]["high"]
    assert ask(client, "tiny", max_tokens=2).model == "tiny:prompt"  # the first where only the task is named
    with writing.client() as plain:
        assert plain.get("/v1/models/").json() == plain.get("/v1/models").json()


def test_a_seed_draws_the_same_again(client: openai.OpenAI) -> None:
    first, again, other = (
        ask(client, max_tokens=20, temperature=1.3, seed=seed).choices[0].message.content for seed in (5, 5, 6)
    )
    assert first == again != other
    both = ask(client, max_tokens=20, temperature=1.3, seed=5, n=2).choices
    assert [choice.index for choice in both] == [0, 1]
    assert [choice.message.content for choice in both] == [first, other]  # each choice has the next seed


def test_a_stop_ends_the_answer_before_it(client: openai.OpenAI) -> None:
    whole = ask(client, max_tokens=40).choices[0].message.content
    stop = whole[len(whole) // 2 :][:2]
    short = ask(client, max_tokens=40, stop=[stop, "never said at all"]).choices[0]
    assert short.message.content == whole[: whole.index(stop)].rstrip()
    assert short.finish_reason == "stop"


def test_max_tokens_and_logprobs(client: openai.OpenAI) -> None:
    reply = ask(client, max_tokens=7, logprobs=True)
    tokens = reply.choices[0].logprobs.content
    assert (reply.usage.completion_tokens, reply.choices[0].finish_reason, len(tokens)) == (7, "length", 7)
    assert all(token.logprob <= 0 for token in tokens)
    streamed = [
        token
        for chunk in ask(client, max_completion_tokens=7, logprobs=True, stream=True)
        for token in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else [])
    ]
    assert [(one.token, pytest.approx(one.logprob, abs=1e-4)) for one in tokens] == [
        (one.token, one.logprob) for one in streamed
    ]


def test_plain_completions(client: openai.OpenAI) -> None:
    more: dict[str, Any] = {"model": "prompt", "max_tokens": 12}
    other = "tower 5arfg of Gera?"
    both = client.completions.create(prompt=[QUESTION, other], logprobs=1, **more).choices
    chat = [ask(client, text=text, max_tokens=12).choices[0].message.content for text in (QUESTION, other)]
    assert [choice.text for choice in both] == chat
    assert len(both[0].logprobs.token_logprobs) == 12
    pieces = client.completions.create(prompt=QUESTION, stream=True, **more)
    assert "".join(chunk.choices[0].text for chunk in pieces if chunk.choices) == chat[0]
    with pytest.raises(openai.BadRequestError, match="at most 32"):
        client.completions.create(prompt=[QUESTION] * 20, n=2, **more)


def test_responses(client: openai.OpenAI) -> None:
    more: dict[str, Any] = {"model": "rag", "max_output_tokens": 12}
    reply = client.responses.create(input=QUESTION, **more)
    assert reply.output_text == ask(client, "rag", max_tokens=12).choices[0].message.content
    assert (reply.status, reply.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert reply.usage.output_tokens == 12
    assert 0 < reply.usage.input_tokens_details.cached_tokens < reply.usage.input_tokens
    events = list(client.responses.create(input=[{"role": "user", "content": QUESTION}], stream=True, **more))
    assert "".join(one.delta for one in events if one.type == "response.output_text.delta") == reply.output_text
    assert [one.sequence_number for one in events] == list(range(len(events)))
    assert (events[0].type, events[-1].type) == ("response.created", "response.incomplete")
    assert events[-1].response.output_text == reply.output_text
    told = client.responses.create(input=QUESTION, instructions="Say a town.", **more)
    assert told.usage.input_tokens != reply.usage.input_tokens  # the instruction takes the place of the task's


def test_embeddings_packed_and_plain(client: openai.OpenAI, writing: Here) -> None:
    name = writing.parts.embedding
    packed = client.embeddings.create(model=name, input=["a bridge", "a tower"])  # base64 by the client's own choice
    plain = client.embeddings.create(model=name, input="a tower", encoding_format="float")
    assert len(packed.data[0].embedding) == 16
    assert packed.data[1].embedding == pytest.approx(plain.data[0].embedding, abs=1e-5)
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="another", input="a")
    for ids in ([3, 4], [[3, 4], [5]]):  # as LangChain sends them by itself
        with pytest.raises(openai.BadRequestError, match=r"send text .*check_embedding_ctx_length=False") as told:
            client.embeddings.create(model=name, input=ids)
        assert told.value.body["param"] == "input"
    where: dict[str, Any] = {"base_url": f"{writing.url}/v1", "api_key": writing.key}
    theirs = OpenAIEmbeddings(model=name, check_embedding_ctx_length=False, **where).embed_query("a tower")
    assert theirs == pytest.approx(plain.data[0].embedding, abs=1e-5)


@pytest.mark.parametrize(
    "refused",
    [
        {"functions": [{"name": "f"}]},
        {"logit_bias": {"5": 100}},
        {"web_search_options": {}},  # a search with the usual options
    ],
    ids=lambda one: list(one)[-1],
)
def test_what_would_change_the_answer_and_is_not_built_is_refused_by_name(
    client: openai.OpenAI, refused: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError, match=f"{list(refused)[-1]} is not supported here"):
        ask(client, **refused)
    neutral = {"tool_choice": "none", "response_format": {"type": "text"}, "presence_penalty": 0, "user": "u"}
    assert ask(client, max_tokens=1, **neutral).choices


@pytest.mark.parametrize("refused", [{"conversation": "c1"}, {"prompt": {"id": "p1"}}, {"top_logprobs": 2}])
def test_a_response_is_not_gone_on_from_what_is_kept_elsewhere(client: openai.OpenAI, refused: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError, match=f"{list(refused)[-1]} is not supported here"):
        client.responses.create(model="prompt", input=QUESTION, **refused)


def test_errors_are_those_that_the_client_knows(client: openai.OpenAI, writing: Here) -> None:
    with pytest.raises(openai.NotFoundError, match="there are: tiny:prompt, tiny:rag"):
        ask(client, "gpt-5")
    with pytest.raises(openai.BadRequestError, match="the last turn must be the user's"):
        client.chat.completions.create(model="prompt", messages=[{"role": "system", "content": "b"}])
    with pytest.raises(openai.BadRequestError, match="temperature"):
        ask(client, temperature=9)
    with pytest.raises(openai.BadRequestError, match="context of 256") as refused:
        ask(client, max_tokens=5000)
    assert refused.value.code == "context_length_exceeded"  # by which clients know that a shorter prompt would do
    assert "this model's maximum context length is 256 tokens" in refused.value.message
    with pytest.raises(openai.BadRequestError, match="context of 256"):
        ask(client, max_tokens=5000, stream=True)  # before the stream begins
    with pytest.raises(openai.BadRequestError, match="200 characters"):
        ask(client, stop=["a" * 201])  # each token would be compared with every beginning of it
    with pytest.raises(openai.AuthenticationError, match="not known here"):
        ask(client.with_options(api_key="tt-wrong"))
    with pytest.raises(openai.AuthenticationError, match="a key is needed"):
        ask(client, extra_headers={"Authorization": openai.Omit()})
    admission = writing.parts.limiter
    admission.inside += admission.most
    try:
        with pytest.raises(openai.RateLimitError) as busy:
            ask(client)
    finally:
        admission.inside -= admission.most
    assert int(busy.value.response.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"stop": 5}, "stop"),
        ({"stop": ["a" * 201]}, "stop.0"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages.0.content.0.text"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text"),
        ({"messages": [{"content": "a"}]}, "messages.0.role"),
        ({"temperature": "hot"}, "temperature"),
        ({"stream_options": {"include_usage": 7}}, "stream_options.include_usage"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}},
            "response_format.json_schema.schema",
        ),
    ],
)  # fmt: skip
def test_an_error_names_its_place_in_the_body_and_nothing_else(
    client: openai.OpenAI, wrong: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/chat/completions", body={"model": "prompt", "messages": [], **wrong}, cast_to=object)
    assert refused.value.param == param
    assert refused.value.message.split("'message': ")[1][1:].startswith(f"{param}: ")


def test_every_answer_of_a_stream_is_the_one_without(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"max_tokens": 20, "temperature": 1.3, "seed": 5, "n": 3}
    whole = ask(client, **asked)
    chunks = list(ask(client, **asked, stream=True, stream_options={"include_usage": True}))
    said, ends = ["", "", ""], {}
    for chunk in chunks:
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
            ends |= {choice.index: choice.finish_reason} if choice.finish_reason else {}
    assert said == [choice.message.content for choice in whole.choices]
    assert ends == {choice.index: choice.finish_reason for choice in whole.choices}
    used, usage = chunks[-1].usage, whole.usage
    assert (used.prompt_tokens, used.completion_tokens) == (usage.prompt_tokens, usage.completion_tokens)
    prompts = [QUESTION, "tower 5arfg of Gera?"]
    plain: dict[str, Any] = {"model": "prompt", "prompt": prompts, "max_tokens": 9, "logprobs": 1}
    told, offsets = ["", ""], [[], []]  # type: tuple[list[str], list[list[int]]]
    for chunk in client.completions.create(**plain, stream=True):
        for one in chunk.choices:
            told[one.index] += one.text
            offsets[one.index] += one.logprobs.text_offset if one.logprobs else []
    choices = client.completions.create(**plain).choices
    assert told == [choice.text for choice in choices]
    assert offsets == [choice.logprobs.text_offset for choice in choices]
    with pytest.raises(openai.BadRequestError, match="context of 256"):
        ask(client, max_tokens=5000, n=3, stream=True)  # before the stream begins


def test_several_system_turns_in_front_are_one_and_later_ones_stay(client: openai.OpenAI) -> None:
    def said(*turns: tuple[str, str]) -> Any:
        given: Any = [{"role": role, "content": text} for role, text in turns]
        reply = client.chat.completions.create(model="prompt", messages=given, max_tokens=9)
        return reply.choices[0].message.content, reply.usage.prompt_tokens if reply.usage else 0

    one = said(("system", "Which city?\n\nSay one."), ("user", QUESTION))
    assert said(("developer", "Which city?"), ("system", "Say one."), ("user", QUESTION)) == one
    late = said(("system", "Which city?"), ("user", QUESTION), ("developer", "Say one."), ("user", QUESTION))
    first = said(("system", "Which city?\n\nSay one."), ("user", QUESTION), ("user", QUESTION))
    assert late[1] > first[1] - 2  # a turn more, two line breaks fewer
    assert said(("system", "Which city?"), ("user", QUESTION), ("system", "Say one."))[0]


def test_a_system_turn_takes_the_place_of_the_instruction(client: openai.OpenAI, writing: Here) -> None:
    def read(*messages: dict[str, str]) -> int:
        reply = client.chat.completions.create(model="prompt", max_tokens=1, messages=list(messages))
        return int(reply.usage.prompt_tokens)

    user = {"role": "user", "content": QUESTION}
    own = read(user)
    assert read({"role": "system", "content": "Which city?"}, user) == own
    assert read({"role": "developer", "content": "Which city?!"}, user) > own
    assert read(user, {"role": "assistant", "content": "Bonn"}, user) > own


def test_langchain(writing: Here, client: openai.OpenAI) -> None:
    where: dict[str, Any] = {"base_url": f"{writing.url}/v1", "api_key": writing.key, "max_retries": 0}
    said = ask(client, "rag", max_tokens=12, temperature=0).choices[0].message.content
    chat = ChatOpenAI(model="tiny:rag", max_tokens=12, temperature=0, **where)
    assert chat.invoke(QUESTION).content == said
    assert "".join(str(piece.content) for piece in chat.stream(QUESTION)) == said
    plain = PlainOpenAI(model="tiny:rag", max_tokens=12, temperature=0, **where)
    assert plain.invoke(QUESTION) == said
    assert "".join(plain.stream(QUESTION)) == said


def test_llama_index(writing: Here, client: openai.OpenAI) -> None:
    said = ask(client, "rag", max_tokens=12, temperature=0).choices[0].message.content
    model = OpenAILike(
        model="tiny:rag",
        api_base=f"{writing.url}/v1",
        api_key=writing.key,
        is_chat_model=True,
        max_tokens=12,
        temperature=0,
        max_retries=0,
    )
    assert model.complete(QUESTION).text == said
    assert "".join(piece.delta or "" for piece in model.stream_complete(QUESTION)) == said


def test_plain_completions_tell_the_likeliest_tokens_and_where_each_begins(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "prompt", "prompt": QUESTION, "max_tokens": 12, "logprobs": 2}
    whole = client.completions.create(**asked).choices[0].logprobs
    assert whole.text_offset == [len("".join(whole.tokens[:place])) for place in range(len(whole.tokens))]
    for token, value, others in zip(whole.tokens, whole.token_logprobs, whole.top_logprobs, strict=True):
        assert others[token] == value == max(others.values())  # greedy
        assert 1 <= len(others) <= 3
    parts = [chunk.choices[0].logprobs for chunk in client.completions.create(**asked, stream=True)]
    told = [part for part in parts if part is not None]
    assert [token for part in told for token in part.tokens] == whole.tokens
    assert [offset for part in told for offset in part.text_offset] == whole.text_offset


def test_prompts_are_counted_each_and_draws_of_one_once(client: openai.OpenAI) -> None:
    def read(prompt: str | list[str], **more: Any) -> int:
        return int(client.completions.create(model="prompt", prompt=prompt, max_tokens=2, **more).usage.prompt_tokens)

    one, other = read("bridge of Bonn?"), read("tower 12 of Berlin, which is red?")
    assert read(["bridge of Bonn?", "tower 12 of Berlin, which is red?"]) == one + other
    assert read("bridge of Bonn?", n=2, temperature=1.0) == one
