"""Re-ranks passages with a cross-encoder, which reads question and passage together, from a local folder, on the
CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trimtab.base.errors import InputError
from trimtab.base.records import Hit
from trimtab.model.load import wrap_library_errors
from trimtab.model.model_files import AGAIN, find_weights
from trimtab.retrieval.embed import embedded_text, files_digest, require_complete_weights

RERANK_DEPTH = 20  # best passages of a search that are re-ranked; lower ones keep their rank


class Reranker:
    """A sequence classifier with one output, which is higher the better a passage answers; loaded at its first use.

    Source: Nogueira and Cho 2019 (arXiv 1901.04085).
    """

    def __init__(self, folder: Path, *, batch: int = 32) -> None:
        """Check the folder; raises InputError if its weights are damaged or outside it."""
        self.folder, self.batch = folder, batch
        find_weights(folder)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the hashes of the model's files."""
        return files_digest(self.folder)

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        config = require_complete_weights(self.folder, AutoModelForSequenceClassification)
        if config.num_labels != 1:
            problem = f"the re-ranking model has {config.num_labels} outputs, and one is wanted"
            raise InputError(problem, "use a cross-encoder for passages", file=self.folder, field="base.reranker")
        local = {"local_files_only": True, "trust_remote_code": False}
        with wrap_library_errors(self.folder, "the re-ranking model cannot be loaded", AGAIN):
            model = AutoModelForSequenceClassification.from_pretrained(self.folder, use_safetensors=True, **local)
            return model.eval(), AutoTokenizer.from_pretrained(self.folder, **local)

    def scores(self, question: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return how well each text answers the question [N]; long texts are truncated, and a question at half of the
        model's length.

        Raises InputError for a model that cannot be loaded, or gives no numbers.
        """
        model, tokenizer = self._model
        max_length = min(int(tokenizer.model_max_length), int(model.config.max_position_embeddings))
        truncated_question = _truncate(tokenizer, question, max_length // 2)  # a passage gets at least half
        batches: list[NDArray[np.float32]] = []
        with wrap_library_errors(self.folder, "the re-ranking model gives no scores", AGAIN), torch.inference_mode():
            for start in range(0, len(texts), self.batch):
                part = list(texts[start : start + self.batch])
                inputs = tokenizer(
                    [truncated_question] * len(part),
                    part,
                    padding=True,
                    truncation="only_second",
                    max_length=max_length,
                    return_tensors="pt",
                )
                batches.append(model(**inputs).logits[:, 0].float().numpy())
        scores = np.concatenate(batches) if batches else np.zeros(0, dtype=np.float32)
        if not np.isfinite(scores).all():
            raise InputError("the re-ranking model gives scores that are no numbers", AGAIN, file=self.folder)
        return scores

    def rerank(self, question: str, hits: Sequence[Hit]) -> tuple[Hit, ...]:
        """Return the hits with the first twenty in the order of this model's scores, which they take over; equal ones
        keep their order."""
        first = hits[:RERANK_DEPTH]
        scores = self.scores(question, [embedded_text(hit.passage) for hit in first])
        order = np.argsort(-scores, kind="stable")
        ranked = (replace(first[index], score=float(scores[index])) for index in order)
        return tuple(replace(hit, rank=rank) for rank, hit in enumerate([*ranked, *hits[RERANK_DEPTH:]], 1))


def _truncate(tokenizer: Any, text: str, max_tokens: int) -> str:
    """Return the beginning of a text with at most `max_tokens` tokens."""
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return text if len(offsets) <= max_tokens else text[: offsets[max_tokens - 1][1]]
