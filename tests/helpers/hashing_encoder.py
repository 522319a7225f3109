"""A tiny embedding for the logic of index and search: words hashed into buckets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from trimtab.base.files import sha256_text
from trimtab.base.records import Document, Section


class HashingEncoder:
    """Counts what it encodes, so that a test can see what was not encoded again."""

    def __init__(self, digest: str = "hashing", size: int = 64) -> None:
        self.digest, self.size = digest, size
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.encoded += texts
        vectors = np.zeros((len(texts), self.size), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split() or ["nothing"]:
                vectors[row, int(hashlib.sha256(word.encode()).hexdigest(), 16) % self.size] += 1
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    def encode_questions(self, texts: Sequence[str]) -> np.ndarray:
        return self.encode(texts)


@pytest.fixture(scope="session")
def encoder_type() -> type[HashingEncoder]:
    return HashingEncoder


@pytest.fixture
def encoder() -> HashingEncoder:
    return HashingEncoder()


@pytest.fixture(scope="session")
def make_document() -> Callable[..., Document]:
    def make(name: str, *texts: str, title: str = "") -> Document:
        parts = tuple(Section(path=(f"Part {at}",), text=text) for at, text in enumerate(texts))
        return Document(id=name, title=title or name, source=f"docs/{name}", sections=parts, digest=sha256_text(*texts))

    return make
