"""Texts to vectors with a sentence-transformers model from a local folder, on the CPU, without any network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import read_json, sha256_file, sha256_text
from trimtab.base.records import Passage


class Encoder(Protocol):
    """What an index needs of an embedding model; `digest` changes whenever the vectors would."""

    @property
    def digest(self) -> str:
        """A hash of everything that the vectors depend on."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [N, D] of length 1."""
        ...


def embedded_text(passage: Passage) -> str:
    """What is embedded and searched of a passage: title, headings, text; a piece of text alone often does not say what it is about."""
    headings = [heading for heading in passage.path if heading != passage.title]
    return "\n".join(part for part in (passage.title, " > ".join(headings), passage.text) if part)


class Embedder:
    """A sentence-transformers model; the weights are loaded at the first `encode`."""

    def __init__(self, folder: Path, *, batch: int = 32) -> None:
        """Raises MissingError without a model, InputError for a folder whose weights or modules are not safe to load."""
        self.folder, self.batch = folder, batch
        if not (folder / "modules.json").is_file():
            raise MissingError(f"{folder} holds no sentence-transformers model; fetch one with: trimtab pull minilm-l6")
        for module in read_json(folder / "modules.json"):
            place = folder / module.get("path", "")
            if not str(module.get("type", "")).startswith("sentence_transformers."):
                raise InputError(
                    f"module {module.get('type')!r} is code from elsewhere", "use another model", file=folder
                )
            if (place / "pytorch_model.bin").exists() and not (place / "model.safetensors").exists():
                raise InputError("the weights are a pickle", "convert them to safetensors", file=place)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the hashes of the model's files; the note of when it was pulled is left out."""
        files = sorted(path for path in self.folder.rglob("*") if path.suffix in (".json", ".txt", ".safetensors"))
        named = ((str(path.relative_to(self.folder)), path) for path in files if path.name != "trimtab-model.json")
        return sha256_text(*(part for name, path in named for part in (name, sha256_file(path))))

    @cached_property
    def _model(self) -> Any:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()
        return SentenceTransformer(
            str(self.folder),
            device="cpu",
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "trust_remote_code": False},
        )

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [N, D] of length 1, float32; texts are batched by length, and cut at the model's longest input."""
        if not texts:
            size = int(self._model.get_embedding_dimension())
            return np.zeros((0, size), dtype=np.float32)
        vectors = self._model.encode(
            list(texts), batch_size=self.batch, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)
