"""Closed questions over both public APIs: the public client, and one Trimtab asking another, with the probabilities
that were measured."""

from __future__ import annotations

import pytest
from serving_tasks import Here
from study_tasks import CITIES, rows_of
from systemone import Choice, Client
from systemone.client import SystemOneError

from trimtab.base.records import Message, Prompt
from trimtab.inference.remote import RemoteModel
from trimtab.measurement.evaluate import Answer, load_answers

QUESTION = "bridge 12nnob of Bonn?"


def measured(here: Here, arm: str) -> list[tuple[Answer, str]]:
    """What the study stored of the test questions, and the questions."""
    folder = next((here.folder / ".trimtab" / "studies").glob("2*"))
    rows = {row["id"]: row["question"] for row in rows_of()}
    answers = load_answers(folder / "arms" / arm / "answers.parquet")
    return [(one, rows[one.item_id]) for one in answers if one.split == "test"]


@pytest.mark.parametrize("arm", ["prompt", "linear"])
def test_the_public_client(deciding: Here, arm: str) -> None:
    with Client(deciding.url, api_key=deciding.key, model=f"tiny:{arm}") as client:
        asked = {
            "all": Choice("Which city?", dict.fromkeys(CITIES)),
            "two": Choice("Which?", {"Bonn": None, "Gera": None}),
        }
        reply = client.system_one(QUESTION, asked)
        every, two = reply.choices["all"].probabilities, reply.choices["two"].probabilities
        assert sum(every.values()) == pytest.approx(1)
        assert max(every, key=every.__getitem__) == reply.choices["all"].choice
        assert two["Bonn"] == pytest.approx(every["Bonn"] / (every["Bonn"] + every["Gera"]))
        assert 0 <= reply.choices["two"].confidence <= 1
        for wrong in ({"Bonn": None, "Rome": None}, {"Bonn": "x", "": None}):
            with pytest.raises(SystemOneError, match="400"):
                client.system_one(QUESTION, {"a": Choice("Which?", wrong)})
        with pytest.raises(SystemOneError, match="400"):
            client.system_one(QUESTION, {"a": {"type": "noul", "instructions": "Is it?"}})
        turns = [{"role": "system", "content": "x"}, {"role": "user", "content": QUESTION}]
        assert client.system_one(turns, asked).choices["all"].probabilities == pytest.approx(every)
        as_json = client.system_one({"ticket": QUESTION}, asked).choices["all"].probabilities  # any JSON is a state
        assert sum(as_json.values()) == pytest.approx(1)


@pytest.mark.parametrize("arm", ["prompt", "linear"])
@pytest.mark.parametrize("api", ["systemone", "decisions"])
def test_one_trimtab_asks_another_and_gets_what_was_measured(
    deciding: Here, arm: str, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_KEY", deciding.key)
    model = RemoteModel(f"{deciding.url}/v1", f"tiny:{arm}", "TINY_KEY", api=api)
    stored = measured(deciding, arm)[:8]
    prompts = [Prompt(id=one.item_id, messages=(Message(role="user", content=text),)) for one, text in stored]
    given = model.generate(prompts, 0, deciding.parts.dispatcher.find_model(arm).labels)
    assert [one.text for one in given] == [one.answer for one, _ in stored]
    assert [one.probability for one in given] == pytest.approx([one.probability for one, _ in stored], abs=1e-4)


def test_a_chosen_answer_is_chat_too(deciding: Here) -> None:
    with deciding.client() as client:
        body = {"model": "linear", "messages": [{"role": "user", "content": QUESTION}]}
        reply = client.post("/v1/chat/completions", json=body).json()
        assert reply["choices"][0]["message"]["content"] in CITIES
        assert sum(reply["trimtab"]["probabilities"].values()) == pytest.approx(1)
        refused = client.post("/v1/chat/completions", json={**body, "logprobs": True})
        assert refused.status_code == 400
        long = client.post(
            "/v1/systemone", json={"model": "linear", "state": "a" * 300_000, "questions": {"a": {"type": "choice"}}}
        )
        assert (long.status_code, "longer than" in long.json()["error"]["message"]) == (400, True)


def test_an_arm_that_writes_does_not_decide(writing: Here) -> None:
    with writing.client() as client:
        body = {"model": "prompt", "input": QUESTION, "questions": [{"type": "choice", "name": "a"}]}
        reply = client.post("/v1/decisions", json=body)
        assert (reply.status_code, "writes its answers" in reply.json()["error"]["message"]) == (400, True)
