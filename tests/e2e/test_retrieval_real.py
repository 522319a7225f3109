"""Retrieval with the real MiniLM: equal to plain transformers with mean pooling, and good enough to find what words
do not share."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest

from trimtab.base.files import sha256_text
from trimtab.base.records import Document, Section
from trimtab.model.catalog import resolve
from trimtab.retrieval.embed import Embedder
from trimtab.retrieval.index import Index
from trimtab.retrieval.search import hybrid_search

FACTS = {
    "leave.md": "Employees get twenty-five days of annual leave.",
    "pay.md": "Salaries are transferred on the last working day of the month.",
    "bikes.md": "The company pays half of a bicycle up to 900 euros.",
    "badge.md": "A lost badge is reported to the front desk at once.",
}
QUESTIONS = {
    "When do I receive my wages?": "pay.md",
    "How much vacation am I entitled to?": "leave.md",
    "Is there a subsidy for cycling?": "bikes.md",
    "I cannot find my access card": "badge.md",
}


@pytest.fixture(scope="module")
def folder() -> Path:
    return resolve("minilm-l6", near=Path())


@pytest.fixture(scope="module")
def embedder(folder) -> Embedder:
    return Embedder(folder)


def document(name: str, text: str) -> Document:
    sections = (Section(path=(), text=text),)
    return Document(id=name, title=name.removesuffix(".md"), source=name, sections=sections, digest=sha256_text(text))


def test_vectors_are_those_of_the_model_with_mean_pooling(folder, embedder) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = [*FACTS.values(), "short", "long " * 400]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    wanted = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
        with torch.no_grad():
            mean = model(**inputs).last_hidden_state[0].mean(dim=0)
        wanted.append((mean / mean.norm()).numpy())
    vectors = embedder.encode(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (6, 384)
    np.testing.assert_allclose(vectors, np.stack(wanted), atol=1e-5)
    assert embedder.encode([]).shape == (0, 384)


def test_questions_find_facts_that_share_no_words_with_them_and_an_edit_at_once(
    embedder, tmp_path, monkeypatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    index = Index.open(tmp_path, embedder)
    index.update([document(name, text) for name, text in FACTS.items()])
    found = hybrid_search(index, list(QUESTIONS), 1)
    assert [hits[0].passage.document for hits in found] == list(QUESTIONS.values())
    changed = {**FACTS, "pay.md": "Salaries are transferred on the 15th."}
    index.update([document(name, text) for name, text in changed.items()])
    (hits,) = hybrid_search(index, ["When do I receive my wages?"], 1)
    assert hits[0].passage.text == changed["pay.md"]
