"""Logistic regression on what is counted or computed of a text: its words, a sentence embedding, hidden states of the base."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from trimtab.base.codec import from_plain
from trimtab.base.errors import InputError
from trimtab.base.files import read_json, replacing, write_json
from trimtab.base.sanitize import one_line

Featurizer = Callable[[Sequence[str]], np.ndarray[Any, Any]]
"""Texts to features `[N, F]`."""
WORDS, HIDDEN = "tfidf", "hidden"
KINDS = (WORDS, "embedding", HIDDEN)  # of features, the cheap ones first
PENALTIES = (1.0, 10.0, 100.0)  # scikit-learn's C: the larger, the weaker the penalty
MAX_TERMS = 50_000  # words and pairs of them that are looked at


@dataclass(frozen=True, kw_only=True)
class LinearTrial:
    """One choice of features and penalty: its accuracy on dev, and the seconds of fitting and asking it.

    The first trial of a kind of features also has the seconds of making them for all rows.
    """

    features: str
    penalty: float
    dev_accuracy: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class LinearModel:
    """Labels, and the weights `[C, F]` and offsets `[C]` over F features; `vocabulary` and `idf` where words are counted.

    `made_by`: what was given on saving, a digest of the model that the features come from.
    """

    labels: tuple[str, ...]
    features: str
    weights_CF: np.ndarray[Any, Any]
    offsets_C: np.ndarray[Any, Any]
    vocabulary: dict[str, int]
    idf_F: np.ndarray[Any, Any]
    dev_accuracy: float
    penalty: float
    made_by: str = ""

    def probabilities(self, texts: Sequence[str], featurize: Featurizer | None) -> np.ndarray[Any, Any]:
        """Probability of each label for each text, `[N, C]`; `featurize` makes the features where they are not counted words."""
        vectorizer = _fixed_vectorizer(self.vocabulary, self.idf_F) if self.features == WORDS else None
        features_NF = _features(texts, vectorizer, featurize)
        scores_NC = np.asarray(features_NF @ self.weights_CF.T + self.offsets_C)
        scores_NC = np.exp(scores_NC - scores_NC.max(axis=1, keepdims=True))
        return np.asarray(scores_NC / scores_NC.sum(axis=1, keepdims=True))

    def save(self, folder: Path, *, made_by: str = "") -> None:
        """Write weights as safetensors and the rest as JSON."""
        tensors = {"weights": self.weights_CF, "offsets": self.offsets_C, "idf": self.idf_F}
        # scikit-learn's weights lie column by column, and safetensors writes memory as it lies
        with replacing(folder / "linear.safetensors") as beside:
            save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, beside)
        plain = {key: getattr(self, key) for key in ("features", "vocabulary", "dev_accuracy", "penalty")}
        write_json(folder / "linear.json", {**plain, "labels": list(self.labels), "made_by": made_by})


def load_linear(folder: Path) -> LinearModel:
    """Read a saved model; raises InputError for one that is damaged, or whose parts do not fit each other."""
    try:
        plain = from_plain(_Settings, read_json(folder / "linear.json"))
        tensors = load_file(folder / "linear.safetensors")
        model = LinearModel(
            **vars(plain), weights_CF=tensors["weights"], offsets_C=tensors["offsets"], idf_F=tensors["idf"]
        )
        _require_fit(model)
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise InputError(
            f"the linear classifier is damaged ({one_line(error)})", "train it again", file=folder
        ) from None
    return model


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """`linear.json`."""

    labels: tuple[str, ...]
    features: Literal["tfidf", "embedding", "hidden"]
    vocabulary: dict[str, int]
    dev_accuracy: float
    penalty: float
    made_by: str = ""


def _require_fit(model: LinearModel) -> None:
    """Raise ValueError where weights, labels and words are not as many as belong together."""
    arrays = (model.weights_CF, model.offsets_C, model.idf_F)
    if not all(array.dtype.kind == "f" and np.isfinite(array).all() for array in arrays) or model.weights_CF.ndim != 2:
        raise ValueError("its weights are no numbers")
    labels, features = model.weights_CF.shape
    if not labels or len(model.labels) != labels or model.offsets_C.shape != (labels,):
        raise ValueError(f"{len(model.labels)} labels, and weights for {labels}")
    words = sorted(model.vocabulary.values())
    if model.features == WORDS and (words != list(range(features)) or model.idf_F.shape != (features,)):
        raise ValueError(f"{len(words)} words, and weights for {features}")


def train_linear(
    texts: Sequence[str],
    labels: Sequence[str],
    dev_texts: Sequence[str],
    dev_labels: Sequence[str],
    embed: Featurizer | None,
    hidden: Featurizer | None = None,
    *,
    fixed_choice: tuple[str, float] | None = None,
) -> tuple[LinearModel, tuple[LinearTrial, ...]]:
    """Fit every choice of features and penalty on the training rows; the model most accurate on dev, the first of equals, and all trials.

    `fixed_choice`: the features and the penalty where these are chosen already. Embeddings and hidden states are choices only where `embed` and `hidden` make them; without dev rows the first choice is kept.
    """
    featurizers = {"embedding": embed, HIDDEN: hidden}
    kinds, penalties = ((fixed_choice[0],), (fixed_choice[1],)) if fixed_choice else (KINDS, PENALTIES)
    best: LinearModel | None = None
    trials: list[LinearTrial] = []
    for features in (kind for kind in kinds if kind == WORDS or featurizers[kind] is not None):
        began = time.perf_counter()
        vectorizer = word_vectorizer(max_features=MAX_TERMS).fit(texts) if features == WORDS else None
        train_NF = _features(texts, vectorizer, featurizers.get(features))
        dev_NF = _features(dev_texts, vectorizer, featurizers.get(features)) if dev_texts else None
        standardizer = _Standardizer(train_NF) if features == HIDDEN else None
        if standardizer is not None:
            train_NF, dev_NF = standardizer(train_NF), None if dev_NF is None else standardizer(dev_NF)
        for penalty in penalties:
            fitted = fit_logistic(train_NF, labels, penalty)
            right = [a == b for a, b in zip(fitted.predict(dev_NF), dev_labels, strict=True)] if dev_texts else []
            accuracy = float(np.mean(right)) if right else 0.0
            if best is None or accuracy > best.dev_accuracy:
                best = _model(fitted, features, vectorizer, standardizer, accuracy, penalty)
            ended = time.perf_counter()
            trials.append(LinearTrial(features=features, penalty=penalty, dev_accuracy=accuracy, seconds=ended - began))
            began = ended
    if best is None:
        raise ValueError("no feature space to fit")
    return best, tuple(trials)


class _Standardizer:
    """Features shifted and scaled by their means and spreads over the training rows `[N, F]`, so that a row has a length of about 1.

    A few numbers of a hidden state are a hundred times as large as the others, and a penalty would see nothing else.
    """

    def __init__(self, train_NF: np.ndarray[Any, Any]) -> None:
        self.mean_F = train_NF.mean(axis=0)
        self.spread_F = np.maximum(train_NF.std(axis=0), 1e-6) * train_NF.shape[1] ** 0.5

    def __call__(self, features_NF: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.asarray((features_NF - self.mean_F) / self.spread_F)

    def fold_into(self, weights_CF: np.ndarray[Any, Any], offsets_C: np.ndarray[Any, Any]) -> tuple[Any, Any]:
        """Weights and offsets that say of features as they were what these say of the changed ones."""
        weights_CF = weights_CF / self.spread_F
        return weights_CF, offsets_C - weights_CF @ self.mean_F


def _model(
    fitted: Any, features: str, vectorizer: Any, standardizer: _Standardizer | None, accuracy: float, penalty: float
) -> LinearModel:
    """What is kept of a fit; `vectorizer` is the vectorizer, None for features that are not counted."""
    weights_CF, offsets_C = _class_weights(fitted)
    if standardizer is not None:
        weights_CF, offsets_C = standardizer.fold_into(weights_CF, offsets_C)
    return LinearModel(
        labels=tuple(str(label) for label in fitted.classes_),
        features=features,
        weights_CF=weights_CF,
        offsets_C=offsets_C,
        vocabulary={} if vectorizer is None else {term: int(place) for term, place in vectorizer.vocabulary_.items()},
        idf_F=np.zeros(0) if vectorizer is None else vectorizer.idf_.astype(np.float64),
        dev_accuracy=accuracy,
        penalty=penalty,
    )


def fit_logistic(features_NF: Any, labels: Sequence[str], penalty: float) -> Any:
    """scikit-learn's logistic regression on features `[N, F]`, every label counting the same however rare."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=penalty, max_iter=1000, class_weight="balanced").fit(features_NF, list(labels))


def _class_weights(fitted: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """One row of weights a class; scikit-learn keeps a single row for two classes."""
    weights, offsets = fitted.coef_.astype(np.float64), fitted.intercept_.astype(np.float64)
    if weights.shape[0] == 1:
        return np.vstack([np.zeros_like(weights), weights]), np.concatenate([np.zeros(1), offsets])
    return weights, offsets


def word_vectorizer(**settings: Any) -> Any:
    """TF-IDF of words and pairs of words, rows of length 1: the one way in which texts are compared by their words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, **settings)


def _fixed_vectorizer(vocabulary: dict[str, int], idf_F: np.ndarray[Any, Any]) -> Any:
    vectorizer = word_vectorizer(vocabulary=vocabulary)
    vectorizer.idf_ = idf_F
    return vectorizer


def _features(texts: Sequence[str], vectorizer: Any, featurize: Featurizer | None) -> Any:
    """Features `[N, F]` of texts, counted by a vectorizer where there is one."""
    if vectorizer is not None:
        return vectorizer.transform(texts)
    if featurize is None:
        raise ValueError("this model was fitted on features of another model; pass what makes them")
    return featurize(texts)
