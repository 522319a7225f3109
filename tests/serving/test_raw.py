"""Raw prompts: read as they are, echoed with the log-probabilities of their tokens, as harnesses for multiple choice
ask for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from serving_tasks import Here
from transformers import AutoModelForCausalLM, AutoTokenizer

QUESTION = "bridge 12nnob of Bonn?"


@pytest.fixture(scope="module")
def client(writing: Here) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{writing.url}/v1/raw", api_key=writing.key, max_retries=0)


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model_folder)


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32)


def expected(model: Any, ids: list[int]) -> torch.Tensor:
    """The log-probabilities over the vocabulary behind each token."""
    with torch.inference_mode():
        out: torch.Tensor = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return out


@pytest.mark.parametrize("arm", ["prompt", "rag"])  # passages are not looked up
@pytest.mark.parametrize("new", [0, 1])
def test_an_echo_has_the_log_probabilities_of_the_prompt(
    client: openai.OpenAI, tokenizer: Any, model: Any, arm: str, new: int
) -> None:
    prompts = [tokenizer(text)["input_ids"] for text in ("Which city is it? Bonn", "Which city is it? Aachen über")]
    asked: dict[str, Any] = {"model": arm, "max_tokens": new, "echo": True, "logprobs": 2, "temperature": 0}
    reply = client.completions.create(prompt=prompts, **asked)
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == sum(map(len, prompts))
    assert reply.usage.completion_tokens <= 2 * new
    for ids, choice in zip(prompts, reply.choices, strict=True):
        logs_NV, told = expected(model, ids), choice.logprobs
        assert told is not None
        assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(ids) + new
        assert told.token_logprobs[0] is told.top_logprobs[0] is None
        values = logs_NV[range(len(ids) - 1), ids[1:]].tolist()
        assert told.token_logprobs[1 : len(ids)] == pytest.approx(values, abs=1e-4)
        best = [max(others.values()) for others in told.top_logprobs[1:]]
        assert best == pytest.approx(logs_NV.amax(-1)[: len(ids) - 1 + new].tolist(), abs=1e-4)
        assert told.text_offset == [len("".join(told.tokens[:place])) for place in range(len(told.tokens))]
        assert choice.text.startswith(tokenizer.decode(ids))
        assert choice.finish_reason in ("stop", "length")
    one = client.completions.create(prompt=prompts[0], **asked).choices[0]
    text = client.completions.create(prompt="Which city is it? Bonn", **asked).choices[0]
    for other in (text, reply.choices[0]):
        assert one.logprobs.tokens == other.logprobs.tokens
        assert one.logprobs.token_logprobs[1:] == pytest.approx(other.logprobs.token_logprobs[1:], abs=1e-4)
    assert one.text == text.text == reply.choices[0].text


def test_what_stands_behind_a_raw_prompt_is_the_models_own_whole_and_streamed(
    client: openai.OpenAI, tokenizer: Any, model: Any
) -> None:
    ids = tokenizer(QUESTION)["input_ids"]
    with torch.inference_mode():
        out = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :]
    said = tokenizer.decode(out, skip_special_tokens=True)
    asked: dict[str, Any] = {"model": "rag", "prompt": ids, "max_tokens": 12}
    assert client.completions.create(**asked).choices[0].text == said
    pieces = client.completions.create(**asked, stream=True)
    assert "".join(chunk.choices[0].text for chunk in pieces if chunk.choices) == said
    echoed = client.completions.create(**asked, echo=True).choices[0]
    assert (echoed.text, echoed.logprobs) == (QUESTION + said, None)


def test_a_token_that_ends_the_answer_is_among_its_log_probabilities(
    client: openai.OpenAI, tokenizer: Any, writing: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Harnesses drop the last one, since they ask for one token more than they score."""
    arm = writing.parts.dispatcher.models["tiny:prompt"].worker.arms["prompt"]
    engine: Any = arm._engine  # type: ignore[attr-defined]
    ids = tokenizer(QUESTION)["input_ids"]
    asked: dict[str, Any] = {"model": "prompt", "prompt": ids, "max_tokens": 1, "echo": True, "logprobs": 1}
    last = client.completions.create(**asked).choices[0].logprobs
    assert last is not None
    assert len(last.tokens) == len(ids) + 1
    monkeypatch.setattr(engine, "stop_ids", frozenset(range(len(tokenizer))))
    choice = client.completions.create(**asked).choices[0]
    assert choice.finish_reason == "stop"
    assert choice.logprobs == last


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"prompt": [5, 10_000]}, "10000 is no id of this model's tokenizer"),
        ({"prompt": [-1]}, "greater than or equal to 0"),
        ({"prompt": []}, "at least 1"),
        ({"prompt": [5], "max_tokens": 0}, "nothing is asked for"),
        ({"prompt": [5], "echo": True, "stream": True}, "not echoed in a stream"),
        ({"prompt": [[5]] * 20, "n": 2}, "at most 32"),
        ({"prompt": [5] * 300, "max_tokens": 0, "echo": True}, "maximum context length is 256 tokens"),
    ],
)
def test_what_cannot_be_read_raw_is_refused_in_one_line(client: openai.OpenAI, more: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said) as refused:
        client.completions.create(**{"model": "prompt", "max_tokens": 1, **more})
    assert "\n" not in refused.value.body["message"]  # type: ignore[index]


@pytest.mark.parametrize("more", [{"prompt": [[5, 6]]}, {"prompt": [5, 6]}, {"prompt": "a", "echo": True}])
def test_where_a_template_is_put_around_prompts_raw_ones_are_sent_on(writing: Here, more: dict[str, Any]) -> None:
    client = openai.OpenAI(base_url=f"{writing.url}/v1", api_key=writing.key, max_retries=0)
    with pytest.raises(openai.BadRequestError, match=r"template is put around; send it to /v1/raw/completions"):
        client.completions.create(**{"model": "prompt", "max_tokens": 1, **more})


def test_arms_that_choose_read_no_raw_prompt(deciding: Here) -> None:
    client = openai.OpenAI(base_url=f"{deciding.url}/v1/raw", api_key=deciding.key, max_retries=0)
    with pytest.raises(openai.BadRequestError, match="chooses its answers whole"):
        client.completions.create(model="linear", prompt="a", max_tokens=1)


def test_the_requests_of_a_harness_for_multiple_choice(writing: Here, tokenizer: Any, model: Any) -> None:
    """As lm-evaluation-harness 0.4.13 sends them with `local-completions` and reads their replies (its
    `parse_logprobs`)."""
    context = tokenizer("Which city is it?\nAnswer:")["input_ids"]
    choices = [tokenizer(f" {city}")["input_ids"] for city in ("Bonn", "Aachen", "name")]
    inputs = [[*context, *choice] for choice in choices]
    body = {
        **{"model": "tiny:prompt", "prompt": inputs, "temperature": 0, "seed": 1234},
        **{"max_tokens": 1, "logprobs": 1, "echo": True},
    }
    with writing.client() as http:
        reply = http.post("/v1/raw/completions", json=body).json()
    for ids, choice in zip(inputs, sorted(reply["choices"], key=lambda one: one["index"]), strict=True):
        logprobs = choice["logprobs"]
        scored = logprobs["token_logprobs"][len(context) : -1]
        likeliest = [max(top.values()) for top in logprobs["top_logprobs"][len(context) : -1]]
        logs_NV = expected(model, ids)[len(context) - 1 : -1]
        assert sum(scored) == pytest.approx(logs_NV[range(len(logs_NV)), ids[len(context) :]].sum().item(), abs=1e-3)
        is_greedy = logs_NV.argmax(-1).tolist() == ids[len(context) :]
        assert all(one == best for one, best in zip(scored, likeliest, strict=True)) == is_greedy
    generate = {
        **{"model": "tiny:prompt", "prompt": [context], "temperature": 0, "seed": 1234},
        **{"max_tokens": 8, "stop": ["\n", "<|im_end|>"]},
    }
    with writing.client() as http:
        told = http.post("/v1/raw/completions", json=generate).json()
    assert isinstance(told["choices"][0]["text"], str)
