"""The arm that needs no language model: TF-IDF or sentence embeddings, and logistic regression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from trimtab.base.files import read_json, write_json

Embed = Callable[[Sequence[str]], np.ndarray[Any, Any]]
PENALTIES = (1.0, 10.0, 100.0)  # scikit-learn's C: the larger, the weaker the penalty


@dataclass(frozen=True, kw_only=True)
class LinearModel:
    """Labels, and the weights `[C, F]` and offsets `[C]` over F features; `vocabulary` and `idf` for TF-IDF features."""

    labels: tuple[str, ...]
    features: str
    weights_CF: np.ndarray[Any, Any]
    offsets_C: np.ndarray[Any, Any]
    vocabulary: dict[str, int]
    idf_F: np.ndarray[Any, Any]
    dev_accuracy: float
    penalty: float

    def probabilities(self, texts: Sequence[str], embed: Embed | None) -> np.ndarray[Any, Any]:
        """Probability of each label for each text, `[N, C]`."""
        features_NF = (
            _tfidf(self.vocabulary, self.idf_F).transform(texts)
            if self.features == "tfidf"
            else _embedded(texts, embed)
        )
        scores_NC = np.asarray(features_NF @ self.weights_CF.T + self.offsets_C)
        scores_NC = np.exp(scores_NC - scores_NC.max(axis=1, keepdims=True))
        return np.asarray(scores_NC / scores_NC.sum(axis=1, keepdims=True))

    def save(self, folder: Path) -> None:
        """Write weights as safetensors and the rest as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"weights": self.weights_CF, "offsets": self.offsets_C, "idf": self.idf_F}
        # scikit-learn's weights lie column by column, and safetensors writes memory as it lies
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / "linear.safetensors")
        plain = {key: getattr(self, key) for key in ("features", "vocabulary", "dev_accuracy", "penalty")}
        write_json(folder / "linear.json", {**plain, "labels": list(self.labels)})


def load_linear(folder: Path) -> LinearModel:
    """Read a saved model."""
    tensors, plain = load_file(folder / "linear.safetensors"), read_json(folder / "linear.json")
    plain["labels"] = tuple(plain["labels"])
    return LinearModel(weights_CF=tensors["weights"], offsets_C=tensors["offsets"], idf_F=tensors["idf"], **plain)


def train_linear(
    texts: Sequence[str],
    labels: Sequence[str],
    dev_texts: Sequence[str],
    dev_labels: Sequence[str],
    embed: Embed | None,
) -> LinearModel:
    """Fit every choice of features and penalty on the training rows and keep the one most accurate on dev, the first of equals.

    Embeddings are a choice only where `embed` is given; without dev rows the first choice is kept.
    """
    vectorizer = word_vectorizer(max_features=50_000)
    tfidf_NF = vectorizer.fit_transform(texts)
    spaces: dict[str, tuple[Any, Any]] = {"tfidf": (tfidf_NF, vectorizer.transform(dev_texts))}
    if embed is not None:
        spaces["embedding"] = (embed(texts), embed(dev_texts))
    best: LinearModel | None = None
    for features, (train_NF, dev_NF) in spaces.items():
        for penalty in PENALTIES:
            fitted = _fit(train_NF, labels, penalty)
            accuracy = (
                float(np.mean([a == b for a, b in zip(fitted.predict(dev_NF), dev_labels, strict=True)]))
                if dev_texts
                else 0.0
            )
            if best is None or accuracy > best.dev_accuracy:
                weights, offsets = _per_class(fitted)
                best = LinearModel(
                    labels=tuple(str(label) for label in fitted.classes_),
                    features=features,
                    weights_CF=weights,
                    offsets_C=offsets,
                    vocabulary={word: int(place) for word, place in vectorizer.vocabulary_.items()}
                    if features == "tfidf"
                    else {},
                    idf_F=vectorizer.idf_.astype(np.float64) if features == "tfidf" else np.zeros(0),
                    dev_accuracy=accuracy,
                    penalty=penalty,
                )
    if best is None:
        raise ValueError("no feature space to fit")
    return best


def _fit(features_NF: Any, labels: Sequence[str], penalty: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=penalty, max_iter=1000, class_weight="balanced").fit(features_NF, list(labels))


def _per_class(fitted: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """One row of weights a class; scikit-learn keeps a single row for two classes."""
    weights, offsets = fitted.coef_.astype(np.float64), fitted.intercept_.astype(np.float64)
    if weights.shape[0] == 1:
        return np.vstack([np.zeros_like(weights), weights]), np.concatenate([np.zeros(1), offsets])
    return weights, offsets


def word_vectorizer(**settings: Any) -> Any:
    """TF-IDF of words and pairs of words, rows of length 1: the one way in which texts are compared by their words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, **settings)


def _tfidf(vocabulary: dict[str, int], idf_F: np.ndarray[Any, Any]) -> Any:
    vectorizer = word_vectorizer(vocabulary=vocabulary)
    vectorizer.idf_ = idf_F
    return vectorizer


def _embedded(texts: Sequence[str], embed: Embed | None) -> np.ndarray[Any, Any]:
    if embed is None:
        raise ValueError("this model was fitted on embeddings; pass the embedder")
    return embed(texts)
