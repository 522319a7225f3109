"""`rag+quote` from a study to a server and a bundle: each answer stands in a passage, and is the same asked alone,
together or served."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from serving_tasks import Here, serving_here
from study_tasks import CITIES, QUICK, UNKNOWN, folder_of, rows_of, write_task

from trimtab import ask, export, study
from trimtab.arms import dev_eval as looks
from trimtab.arms import run
from trimtab.arms import trainer as weights
from trimtab.arms.answerers import ready_arm, score_on_dev
from trimtab.arms.contexts import PromptBuilder, context_for
from trimtab.arms.linear import Answerer
from trimtab.arms.session import Session, open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import InputError
from trimtab.base.records import Example
from trimtab.base.task import load_task, parse_arm
from trimtab.inference.quote import word_bounds
from trimtab.measurement.evaluate import load_answers
from trimtab.studies.export import Format

ARMS = ("rag+quote", "quoting")
QUOTING = QUICK.replace("quick", "quoting") + 'context = "rag+quote"\npassages = 2\n'
PLACES = ("über die Brücke (1.250 m).", "beside the “Café”, 5% off", "東京タワー at 10:30")


@pytest.fixture(scope="module")
def quoted(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, tiny_embedding_folder: Path) -> Path:
    """A study of both arms, one of which is trained."""
    task = quoting_task(tmp_path_factory.mktemp("quoting"), tiny_model_folder, tiny_embedding_folder)
    study(task, listeners=[])
    return task


def quoting_task(folder: Path, model: Path, embedding: Path, **more: Any) -> Path:
    """Questions about towns, and a document about each."""
    (folder / "docs").mkdir()
    for number, city in enumerate(CITIES):
        said = f"The town of {city} has a bridge {PLACES[number % 3]}"
        (folder / "docs" / f"{city}.md").write_text(f"# {city}\n\n{said}\n")
    return write_task(
        folder,
        model,
        ARMS,
        rows=rows_of(unknown=True),
        task=f'kind = "answer"\nunknown = "{UNKNOWN}"\noutput_tokens = 24',
        data='documents = ["docs"]',
        base=f'embedding = "{embedding}"',
        more=QUOTING,
        **more,
    )


@pytest.fixture(scope="module")
def here(quoted: Path) -> Iterator[Here]:
    with serving_here(quoted, *ARMS) as serving:
        yield serving


def spans(texts: list[str]) -> set[str]:
    found = set()
    for text in texts:
        starts, ends = word_bounds(text)
        found |= {text[start:end] for start in starts for end in ends if start < end}
    return found


def test_every_answer_of_a_study_stands_in_a_passage_it_was_shown(quoted: Path) -> None:
    session = open_session(open_workspace(load_task(quoted)))
    test = {row.id: row for row in session.workspace.splits["test"]}
    arm = parse_arm("rag+quote", session.task)
    with ready_arm(session, arm, context_for(arm), quoted.parent, [*test.values()]) as able:
        prompts = able.builder.prompts([*test.values()])
        together = able.answer_batch(prompts)
        assert [one.text for one in together] == [able.answer_one(prompt).text for prompt in prompts]
    for prompt, given in zip(prompts, together, strict=True):
        assert given.text in {UNKNOWN, *spans([hit.passage.text for hit in prompt.hits])}
        assert given.text
    kept = load_answers(folder_of(quoted) / "arms" / "rag+quote" / "answers.parquet")
    assert {row.item_id: row.answer for row in kept} == {one.id: one.text for one in together}


def test_dev_is_asked_as_the_test_is(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a search and the looks of a training score are quotes too."""
    stand: dict[str, list[bool]] = {}

    def checked(
        where: str, session: Session, rows: Sequence[Example], builder: PromptBuilder, answer: Answerer, *more: Any
    ) -> Any:
        prompts = builder.prompts(rows)
        for prompt, given in zip(prompts, answer(prompts), strict=True):
            found = given.text in {UNKNOWN, *spans([hit.passage.text for hit in prompt.hits])}
            stand.setdefault(where, []).append(found)
        return score_on_dev(session, rows, builder, answer, *more)

    for module in (run, looks, weights):
        monkeypatch.setattr(module, "score_on_dev", partial(checked, module.__name__))
    study(quoting_task(tmp_path, tiny_model_folder, tiny_embedding_folder, effort="standard"), listeners=[])
    assert {run.__name__, looks.__name__} <= set(stand)
    assert all(map(all, stand.values()))


@pytest.mark.parametrize("arm", ARMS)
def test_it_is_the_same_asked_served_streamed_and_from_a_bundle(
    arm: str, here: Here, quoted: Path, tmp_path: Path
) -> None:
    question = "Where is the bridge of Bonn?"
    asked = ask(question, task=quoted, arm=arm, listeners=[])
    body: dict[str, Any] = {"model": f"tiny:{arm}", "messages": [{"role": "user", "content": question}]}
    with here.client() as client:
        whole = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
        streamed = client.post("/v1/chat/completions", json={**body, "stream": True}).text
        hot = [
            client.post("/v1/chat/completions", json={**body, "temperature": 2, "seed": seed}).json()
            for seed in range(5)
        ]
    assert whole == asked.answer
    assert asked.answer in (answers := {UNKNOWN, *spans([hit.passage.text for hit in asked.hits])})
    assert "chat.completion.chunk" in streamed
    assert {one["choices"][0]["message"]["content"] for one in hot} <= answers
    assert not export(quoted, arm, format="bundle", out=tmp_path / "made", listeners=[]).failed
    bundle = Path(shutil.move(tmp_path / "made", tmp_path / "elsewhere"))
    assert ask(question, bundle=bundle, listeners=[]).answer == whole


def test_a_form_and_a_raw_prompt_are_refused_in_one_line(here: Here) -> None:
    form = {"response_format": {"type": "json_object"}}
    body = {"model": "tiny:rag+quote", "messages": [{"role": "user", "content": "Bonn?"}], **form}
    with here.client() as client:
        formed = client.post("/v1/chat/completions", json=body)
        raw = client.post("/v1/raw/completions", json={"model": "tiny:rag+quote", "prompt": "The town of"})
    assert (formed.status_code, raw.status_code) == (400, 400)
    assert "held to its passages already" in formed.json()["error"]["message"]
    assert "a raw prompt has none" in raw.json()["error"]["message"]


@pytest.mark.parametrize("format", ["merged", "peft", "gguf"])
def test_no_model_alone_quotes(format: Format, quoted: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="export it as bundle, or take lora"):
        export(quoted, "lora+rag+quote", format=format, out=tmp_path / "out", listeners=[])


def test_an_endpoint_and_a_closed_set_are_refused(quoted: Path) -> None:
    task = load_task(quoted)
    with pytest.raises(InputError, match="an endpoint writes cannot be held to passages; take quote out") as refused:
        parse_arm("api-big+rag+quote", task)
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="write rag\\+quote"):
        parse_arm("lora+quote", task)
    closed = task.model_copy(update={"task": task.task.model_copy(update={"kind": "classify"})})
    with pytest.raises(InputError, match="which are no label"):
        parse_arm("rag+quote", closed)
