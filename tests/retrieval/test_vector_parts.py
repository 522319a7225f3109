"""Vectors that others computed for an index: it takes them, in any order, and embeds only what lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.base.records import Document
from trimtab.retrieval import index as index_module
from trimtab.retrieval.index import Index, SaveVectors
from trimtab.retrieval.search import hybrid_search


@pytest.fixture
def documents(make_document: Callable[..., Document]) -> list[Document]:
    """A hundred passages of different lengths; one text occurs twice."""
    texts = [f"word{n} of group{n % 7} {'and more ' * (n % 5)}" for n in range(99)]
    return [make_document(f"{n}.md", text, title="t") for n, text in enumerate([*texts, texts[3]])]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "BATCH", 40)
    monkeypatch.setattr(index_module, "PART", 16)


class Elsewhere:
    """Embeds in another order than it is given, as several processes do; stops after so many batches."""

    def __init__(self, encoder: Any, stop_after: int | None = None) -> None:
        self.encoder, self.stop_after, self.count = encoder, stop_after, 0

    def __call__(self, batches: Iterator[list[str]], count: int, keep: SaveVectors) -> None:
        self.count = count
        for number, texts in enumerate(reversed(list(batches))):
            if number == self.stop_after:
                raise KeyboardInterrupt
            keep(texts, self.encoder.encode(texts), 0.5)


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


def test_an_index_takes_vectors_that_were_computed_elsewhere(tmp_path: Path, encoder_type: Any, documents: Any) -> None:
    plain, own, there = encoder_type(), encoder_type(), encoder_type()
    right = Index.open(tmp_path / "plain", plain)
    right.update(documents)
    index = Index.open(tmp_path / "own", own)
    elsewhere = Elsewhere(there)
    assert index.embed_ahead(documents, elsewhere) == elsewhere.count == 99
    assert sorted(there.encoded) == sorted(set(plain.encoded))  # each text once
    assert index.texts_to_embed(documents) == []
    index.update(documents)
    assert own.encoded == []
    assert index.passages == right.passages
    names = list(right.passages)
    for name, vector in index.vectors(names).items():
        assert np.array_equal(vector, right.vectors([name])[name])
    assert hybrid_search(index, ["word7 of group3"], 9) == hybrid_search(right, ["word7 of group3"], 9)
    assert files_in(tmp_path) == []  # they are in the table now
    assert index.seconds >= 7 * 0.5  # the seconds of seven batches, whoever spent them
    assert index.embed_ahead(documents, elsewhere) == 0


def test_what_was_cut_off_goes_on_with_what_lacks(tmp_path: Path, encoder_type: Any, documents: Any) -> None:
    first, second, last = encoder_type(), encoder_type(), encoder_type()
    with pytest.raises(KeyboardInterrupt):
        Index.open(tmp_path, last).embed_ahead(documents, Elsewhere(first, stop_after=3))
    assert Index.open(tmp_path, last).embed_ahead(documents, Elsewhere(second)) == 99 - len(first.encoded)
    assert not set(first.encoded) & set(second.encoded)
    Index.open(tmp_path, last).update(documents)
    assert last.encoded == []


def test_a_damaged_part_is_embedded_again(tmp_path: Path, encoder_type: Any, documents: Any) -> None:
    there, own = encoder_type(), encoder_type()
    Index.open(tmp_path, own).embed_ahead(documents, Elsewhere(there))
    file = files_in(tmp_path)[2]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1  # a bit in the middle, where the vectors are
    file.write_bytes(content)
    index = Index.open(tmp_path, own)
    index.update(documents)
    assert 0 < len(own.encoded) <= 16
    right = Index.open(tmp_path / "plain", encoder_type())
    right.update(documents)
    for name, vector in index.vectors(list(right.passages)).items():
        assert np.array_equal(vector, right.vectors([name])[name])


def test_few_texts_are_left_to_the_update(tmp_path: Path, encoder: Any, documents: Any) -> None:
    def embed(*_: object) -> None:
        raise AssertionError

    index = Index.open(tmp_path, encoder)
    assert index.embed_ahead(documents, embed, least=100) == 0
    index.update(documents)
    assert len(encoder.encoded) == 99


def test_another_embedding_model_takes_none_of_them(tmp_path: Path, encoder_type: Any, documents: Any) -> None:
    Index.open(tmp_path, encoder_type()).embed_ahead(documents, Elsewhere(encoder_type()))
    other = encoder_type("other", 32)
    Index.open(tmp_path, other).update(documents)
    assert len(other.encoded) == 99
