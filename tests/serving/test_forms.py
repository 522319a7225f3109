"""Forms, penalties and likeliest tokens, asked for as OpenAI's client does and as it lets one add."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest
from hostile_server import answering, chat, reply
from serving_tasks import Here, serving_here
from study_tasks import write_task

from trimtab.arms.online import WritingArm

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["n"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def client(writing: Here) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{writing.url}/v1", api_key=writing.key, max_retries=0)


def ask(client: openai.OpenAI, model: str = "prompt", **more: Any) -> Any:
    turn = [{"role": "user", "content": "bridge of Bonn?"}]
    return client.chat.completions.create(model=model, messages=turn, max_tokens=64, **more)


def test_an_answer_fits_a_schema_whole_streamed_and_as_a_response(client: openai.OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "number", "schema": SCHEMA}}
    said = ask(client, response_format=form).choices[0].message.content
    jsonschema.validate(json.loads(said), SCHEMA)
    streamed = "".join(
        chunk.choices[0].delta.content or ""
        for chunk in ask(client, response_format=form, stream=True)
        if chunk.choices
    )
    assert streamed == said
    asked = {"format": {"type": "json_schema", "name": "number", "schema": SCHEMA}}
    response = client.responses.create(model="prompt", input="bridge of Bonn?", text=asked, max_output_tokens=64)
    assert response.output_text == said


def test_an_answer_fits_an_expression_or_is_one_of_several(client: openai.OpenAI) -> None:
    said = ask(client, response_format={"type": "regex", "pattern": "[a-c]{3}"}).choices[0].message.content
    assert re.fullmatch("[a-c]{3}", said)
    chosen = ask(client, response_format={"type": "choice", "choices": ["red", "green"]})
    assert chosen.choices[0].message.content in ("red", "green")


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"type": "json_schema"}, "needs json_schema"),
        ({"type": "regex", "pattern": "("}, "not a regular expression"),
        ({"type": "choice", "choices": [""]}, "empty choice"),
        ({"type": "json_schema", "json_schema": {"schema": {"type": "nothing"}}}, "nothing"),
        (
            {"type": "json_schema", "json_schema": {"schema": {"type": "string", "pattern": "a{4294967296}"}}},
            "too large",
        ),
    ],
)
def test_a_form_that_is_none_is_refused_in_one_line(client: openai.OpenAI, form: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said) as told:
        ask(client, response_format=form)
    assert "\n" not in told.value.body["message"]


def test_a_response_with_a_form_that_is_none_is_refused_too(client: openai.OpenAI) -> None:
    asked = {"format": {"type": "json_schema", "name": "a", "schema": {"type": "string", "pattern": "a{4294967296}"}}}
    with pytest.raises(openai.BadRequestError, match="the repetition number is too large"):
        client.responses.create(model="prompt", input="bridge of Bonn?", text=asked)


def test_whatever_a_form_makes_raise_is_answered_and_logged(
    client: openai.OpenAI, writing: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(*_: Any) -> None:
        raise KeyError("private")

    log = io.StringIO()
    monkeypatch.setattr(writing.parts.log, "_stream", log)
    monkeypatch.setattr(WritingArm, "prepare", prepare)
    with pytest.raises(openai.InternalServerError, match="could not be answered"):
        ask(client, response_format={"type": "regex", "pattern": "[d-f]{3}"})
    (fault,) = (line for line in map(json.loads, log.getvalue().splitlines()) if line["what"] == "fault")
    assert (fault["model"], fault["error"]) == ("tiny:prompt", "KeyError")
    assert "private" not in log.getvalue()


def test_a_token_that_is_a_part_of_a_letter_has_its_bytes(client: openai.OpenAI) -> None:
    form = {"type": "regex", "pattern": "[äöü]{4}"}
    choice = ask(client, response_format=form, logprobs=True, top_logprobs=2).choices[0]
    tokens = choice.logprobs.content
    assert any(token.token == "\ufffd" for token in tokens)
    assert bytes(byte for token in tokens for byte in token.bytes).decode() == choice.message.content
    assert all(other.bytes for token in tokens for other in token.top_logprobs)


def test_the_likeliest_tokens_hold_the_one_that_was_said(client: openai.OpenAI) -> None:
    told = ask(client, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert told
    for one in told:
        values = [other.logprob for other in one.top_logprobs]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert one.logprob == pytest.approx(values[0], abs=1e-4)  # greedy


def test_penalties_change_what_is_said(client: openai.OpenAI) -> None:
    plain = ask(client).choices[0].message.content
    for more in ({"frequency_penalty": 2.0}, {"presence_penalty": 2.0}, {"extra_body": {"repetition_penalty": 5.0}}):
        assert ask(client, **more).choices[0].message.content != plain, more
    narrow = ask(client, temperature=2.0, seed=1, extra_body={"min_p": 1.0}).choices[0].message.content
    assert narrow == plain  # only the likeliest is left


def test_arms_that_choose_have_a_form_already(deciding: Here) -> None:
    client = openai.OpenAI(base_url=f"{deciding.url}/v1", api_key=deciding.key, max_retries=0)
    with pytest.raises(openai.BadRequestError, match="form already"):
        ask(client, response_format={"type": "json_object"})


@pytest.mark.parametrize("arm", ["prompt", "linear"])
def test_what_an_arm_that_chooses_cannot_heed_is_refused_by_name(deciding: Here, arm: str) -> None:
    client = openai.OpenAI(base_url=f"{deciding.url}/v1", api_key=deciding.key, max_retries=0)

    def said(**more: Any) -> list[str]:
        turn = [{"role": "user", "content": "bridge of Bonn?"}]
        asked = client.chat.completions.create(model=arm, messages=turn, **more)
        return [choice.message.content for choice in asked.choices]

    usual = said()
    refusals: tuple[dict[str, Any], ...] = (
        {"temperature": 1.5},
        {"temperature": 0.5, "n": 2},
        {"stop": ["o"]},
        {"frequency_penalty": 1.0},
        {"presence_penalty": -1.0},
        {"extra_body": {"repetition_penalty": 2.0}},
    )
    for refused in refusals:
        name = list(refused.get("extra_body", refused))[-1]
        for stream in (False, True) if name != "n" else (False,):
            with pytest.raises(openai.BadRequestError, match=f"{name} would change nothing.*leave {name} out"):
                said(**refused, stream=stream)
    usual_words: tuple[dict[str, Any], ...] = ({"temperature": 0.7}, {"temperature": 0, "seed": 5}, {"max_tokens": 1})
    for harmless in usual_words:
        assert said(**harmless) == usual  # what clients send by themselves, and a label is never cut
    assert said(n=2) == usual * 2


def test_the_answers_of_an_endpoint_have_the_room_that_was_measured(tmp_path: Path, tiny_model_folder: Path) -> None:
    with answering(lambda connection, _: connection.sendall(reply(chat("Bonn")))) as url:
        table = f'[api.far]\nurl = "{url}"\nmodel = "x"\n'
        task = write_task(tmp_path, tiny_model_folder, ["api-far"], more=table)  # 6 tokens
        with serving_here(task, "api-far", allow=[url]) as here:
            client = openai.OpenAI(base_url=f"{here.url}/v1", api_key=here.key, max_retries=0)
            turn: Any = [{"role": "user", "content": "bridge of Bonn?"}]
            with pytest.raises(openai.BadRequestError, match="max_tokens would change nothing"):
                client.chat.completions.create(model="api-far", messages=turn, max_tokens=5)
            told = client.chat.completions.create(model="api-far", messages=turn, max_tokens=6)
            assert told.choices[0].message.content == "Bonn"
