"""The retriever: what many questions share is looked up and embedded once."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from study_tasks import CITIES, rows_of, write_task

from trimtab import study
from trimtab.arms import retriever as retriever_module
from trimtab.arms.retriever import Retriever
from trimtab.arms.workspace import open_workspace
from trimtab.base.config import VECTOR_WEIGHT, RetrievalTable
from trimtab.base.records import Example
from trimtab.base.task import load_task
from trimtab.retrieval import index as index_module


@pytest.fixture(scope="module")
def opened(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, tiny_embedding_folder: Path
) -> tuple[Retriever, Sequence[Example]]:
    """Questions about towns, and two long documents about them."""
    folder = tmp_path_factory.mktemp("looking-up")
    (folder / "documents").mkdir()
    for name, towns in (("north", CITIES[:5]), ("south", CITIES[5:])):
        facts = [
            f"{town} has {7 * number + 3} bridges over {name} river {number}." for number, town in enumerate(towns)
        ]
        (folder / "documents" / f"{name}.md").write_text(f"# {name}\n" + " ".join(facts * 6) + "\n")
    base, data = f'embedding = "{tiny_embedding_folder}"', 'documents = ["documents/"]'
    task = write_task(folder, tiny_model_folder, ["rag"], rows=rows_of(40), data=data, base=base)
    workspace = open_workspace(load_task(task))
    return Retriever(workspace), workspace.splits["test"]


def test_each_size_of_passages_has_an_index_of_its_own_that_is_made_when_asked_for(
    opened: tuple[Retriever, Sequence[Example]],
) -> None:
    retriever, test = opened
    usual = retriever.hits(test)
    assert not retriever.index_folder(30).exists()
    assert len(retriever.texts_to_embed(30)) > len(retriever.index_of().passages)
    before = sorted(path for path in retriever.index_folder().rglob("*"))
    smaller = retriever.hits(test, chunk_words=30)
    assert retriever.texts_to_embed(30) == []
    assert sorted(path for path in retriever.index_folder().rglob("*")) == before
    assert retriever.index_folder(30) != retriever.index_folder()
    assert retriever.index_of() is retriever.index_of(120)
    for found, index in ((usual, retriever.index_of()), (smaller, retriever.index_of(30))):
        assert {hit.passage.id: hit.passage for hits in found for hit in hits}.items() <= index.passages.items()
    assert max(len(hit.passage.text.split()) for hits in smaller for hit in hits) <= 35
    assert retriever.hits(test) == usual


def test_passages_are_looked_up_once_for_each_question_and_setting(
    opened: tuple[Retriever, Sequence[Example]], monkeypatch: pytest.MonkeyPatch
) -> None:
    retriever, test = opened
    retriever.forget_hits()
    asked: list[float] = []
    real = retriever_module.hybrid_search

    def counted(index, questions, k, *, vector_weight):
        asked.extend([vector_weight] * len(questions))
        return real(index, questions, k, vector_weight=vector_weight)

    monkeypatch.setattr(retriever_module, "hybrid_search", counted)
    by_weight = {weight: retriever.hits([*test, *test], vector_weight=weight) for weight in (0.0, VECTOR_WEIGHT, 1.0)}
    assert {weight: retriever.hits(test, vector_weight=weight) for weight in by_weight} == {
        weight: hits[: len(test)] for weight, hits in by_weight.items()
    }
    assert retriever.hits(test) == by_weight[VECTOR_WEIGHT][: len(test)]
    assert by_weight[0.0] != by_weight[1.0]
    assert len(asked) == 3 * len({example.input for example in test})
    retriever.forget_hits()
    retriever.hits(test)
    assert len(asked) == 4 * len({example.input for example in test})


def test_the_task_file_weighs_vectors_against_words(opened: tuple[Retriever, Sequence[Example]]) -> None:
    retriever, test = opened
    found = {}
    for weight in (0.0, 1.0):
        task = retriever._task.model_copy(update={"retrieval": RetrievalTable(vector_weight=weight)})
        own = Retriever(replace(retriever._workspace, task=task))
        found[weight] = own.hits(test)
        assert found[weight] == retriever.hits(test, vector_weight=weight)
    assert found[0.0] != found[1.0]


def test_a_text_is_embedded_once(opened: tuple[Retriever, Sequence[Example]], monkeypatch: pytest.MonkeyPatch) -> None:
    retriever, _ = opened
    given: list[str] = []
    real = retriever.embedder.encode
    monkeypatch.setattr(retriever.embedder, "encode", lambda texts: given.extend(texts) or real(texts))
    first = retriever.embed(["north", "south", "north"])
    again = retriever.embed(["south", "west", "north"])
    assert given == ["north", "south", "west"]
    assert (first[0] == first[2]).all()
    assert (again[[0, 2]] == first[[1, 0]]).all()
    assert again == pytest.approx(real(["south", "west", "north"]), abs=1e-6)
    assert retriever.embed([]).shape == (0, first.shape[1])


def test_dev_questions_choose_how_a_large_index_is_searched_and_the_study_tells_what_it_finds(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "APPROXIMATE_FROM", 280)
    (tmp_path / "documents").mkdir()
    for number in range(300):
        text = f"{CITIES[number % len(CITIES)]} has {number} bridges."
        (tmp_path / "documents" / f"{number}.md").write_text(text)
    base, data = f'embedding = "{tiny_embedding_folder}"', 'documents = ["documents/"]'
    file = write_task(tmp_path, tiny_model_folder, ["rag"], rows=rows_of(40), data=data, base=base)
    result = study(file, listeners=[])
    folder = file.parent / ".trimtab" / "studies" / result.study
    manifest = json.loads((folder / "manifest.json").read_text())
    told = manifest["indexes"]["120"]
    assert told["passages"] == 300
    assert told["recall"]["questions"] == manifest["counts"]["splits"]["dev"]
    sentence = Retriever(open_workspace(load_task(file))).index_of().recall.sentence
    assert sentence in manifest["notes"]
    assert sentence in (folder / "events.jsonl").read_text()
    assert sentence.split(",")[0] in html.unescape((folder / "report.html").read_text())
    assert re.search(r"finds (9[5-9]|100)\.\d% of the 10 nearest passages", sentence)
