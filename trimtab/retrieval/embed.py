"""Embeds texts with a sentence-transformers model from a local folder, on the CPU, without network access."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import read_json, sha256_text
from trimtab.base.records import Passage
from trimtab.model.load import build_config, raise_for_tensors, raw_config, require_tokenizer, wrap_library_errors
from trimtab.model.model_files import AGAIN, SINGLE, file_hashes, find_weights, inside
from trimtab.model.threads import limit_to_free_cores
from trimtab.retrieval.sentences import plain_text

# Modules that only read configurations and weights, and whether they have weights. A router, for example, names classes
# to import.
_MODULE_KINDS = {"Transformer": True, "Pooling": False, "Normalize": False, "Dense": True, "LayerNorm": True}
_PASSAGE, _QUESTION = ("document", "passage", "corpus"), ("query",)  # the prompt names that published models use


class Encoder(Protocol):
    """The interface of an embedding model for an index; `digest` changes whenever the vectors would."""

    @property
    def digest(self) -> str:
        """A hash of everything that the vectors depend on."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors [N, D] of passages, or of texts that are compared with each other."""
        ...

    def encode_questions(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors [N, D] of questions for retrieval."""
        ...


def embedded_text(passage: Passage) -> str:
    """Return the text of a passage that is embedded and searched: title, headings and text, as a text alone often lacks
    its topic; without marks of Markdown and the targets of links."""
    headings = [plain_text(heading) for heading in passage.path if heading != passage.title]
    parts = (passage.title, " > ".join(headings), plain_text(passage.text))
    return "\n".join(part for part in parts if part)


class Embedder:
    """A sentence-transformers model; the weights are loaded at the first `encode`."""

    def __init__(self, folder: Path, *, batch: int = 32) -> None:
        """Check the folder; raises MissingError without a model, InputError for unsafe weights or modules."""
        self.folder, self.batch = folder, batch
        if not (folder / "modules.json").is_file():
            raise MissingError(f"{folder} holds no sentence-transformers model; fetch one with: trimtab pull minilm-l6")
        self._transformer_folders = [module_folder for kind, module_folder in _modules(folder) if kind == "Transformer"]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the hashes of the model's files."""
        return files_digest(self.folder)

    @cached_property
    def _model(self) -> Any:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        from trimtab.model.threads import limit_threads_to_quota

        limit_threads_to_quota()
        logging.disable_progress_bar()
        for module_folder in self._transformer_folders:
            _check_transformer(module_folder)
        with wrap_library_errors(self.folder, "the embedding model cannot be loaded", AGAIN):
            return SentenceTransformer(
                str(self.folder),
                device="cpu",
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True, "trust_remote_code": False},
            )

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors [N, D], float32; texts are batched by length, and truncated to the model's longest input.

        The model's passage prompt (`prompts` of `config_sentence_transformers.json`) is put before each text. Raises
        InputError for a model that cannot be loaded, or gives no vectors.
        """
        return self._encode(texts, _PASSAGE)

    def encode_questions(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors [N, D] as `encode` does, with the model's query prompt before each text."""
        return self._encode(texts, _QUESTION)

    def tokens(self, texts: Sequence[str]) -> int:
        """Return the number of tokens that the model reads of the texts."""
        ids = self._model.tokenizer(list(texts), truncation=True)["input_ids"] if texts else []
        return sum(map(len, ids))

    @limit_to_free_cores()
    def _encode(self, texts: Sequence[str], names: Sequence[str]) -> NDArray[np.float32]:
        model = self._model
        with wrap_library_errors(self.folder, "the embedding model gives no vectors", AGAIN):
            if not texts:
                return np.zeros((0, int(model.get_embedding_dimension())), dtype=np.float32)
            prompt = next((model.prompts[name] for name in names if model.prompts.get(name)), "")
            vectors = np.asarray(
                model.encode(
                    list(texts),
                    prompt=prompt,  # empty, to override the model's default prompt
                    batch_size=self.batch,
                    normalize_embeddings=True,
                    show_progress_bar=False,
                ),
                dtype=np.float32,
            )
        if vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise InputError("the embedding model gives vectors that are no numbers", AGAIN, file=self.folder)
        return vectors


def _modules(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the modules of a sentence-transformers folder with their folders; raises for modules that could run other
    code."""
    file = inside(folder, "modules.json")
    with wrap_library_errors(file, "is damaged", AGAIN):
        listed = read_json(file)
    if not isinstance(listed, list) or not all(isinstance(module, dict) for module in listed) or not listed:
        raise InputError("does not list modules", AGAIN, file=file)
    for module in listed:
        kind, path = str(module.get("type", "")), module.get("path", "")
        name = kind.rpartition(".")[2]
        if not kind.startswith("sentence_transformers.") or name not in _MODULE_KINDS:
            raise InputError(f"module {kind[:80]!r} is code from elsewhere", "use another model", file=folder)
        if not isinstance(path, str) or Path(path).is_absolute() or ".." in Path(path).parts:
            raise InputError(f"module {str(path)[:80]!r} lies outside the folder", "use another model", file=file)
        module_folder = folder / path
        if (module_folder / "pytorch_model.bin").exists() and not (module_folder / SINGLE).exists():
            raise InputError("the weights are a pickle", "convert them to safetensors", file=module_folder)
        if _MODULE_KINDS[name]:
            find_weights(module_folder)
        yield name, module_folder


def files_digest(folder: Path) -> str:
    """Return SHA-256 over the hashes of a model's files, without the note of when it was pulled."""
    return sha256_text(*(part for named in file_hashes(folder, below=True).items() for part in named))


def _check_transformer(module_folder: Path) -> None:
    from transformers import AutoModel

    require_complete_weights(module_folder, AutoModel, ignored="pooler.")


def require_complete_weights(module_folder: Path, kind: Any, *, ignored: str | None = None) -> Any:
    """Return the configuration of a model that a transformers class (`kind`) loads.

    Raises InputError if the weights lack a tensor or have another shape, which transformers would silently initialise
    at random. Tensors with `ignored` in their names are not checked.
    """
    config = build_config(raw_config(module_folder), module_folder, find_weights(module_folder))
    require_tokenizer(module_folder)
    with wrap_library_errors(module_folder, "the weights cannot be loaded", AGAIN):
        _, info = kind.from_pretrained(
            module_folder,
            device_map="meta",  # names and shapes only
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    raise_for_tensors(
        module_folder, "lack", (name for name in info["missing_keys"] if ignored is None or ignored not in name)
    )
    raise_for_tensors(module_folder, "have another shape for", (name for name, *_ in info["mismatched_keys"]))
    return config
