"""Logistic regression (scikit-learn) on TF-IDF features, embeddings or hidden states; features and penalty are chosen
on dev.
"""

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
from trimtab.base.files import read_own, replacing, write_own
from trimtab.base.sanitize import one_line

Featurizer = Callable[[Sequence[str]], np.ndarray[Any, Any]]
"""Texts to features `[N, F]`."""
WORDS, HIDDEN = "tfidf", "hidden"
KINDS = (WORDS, "embedding", HIDDEN)  # of features, cheapest first
PENALTIES = (1.0, 10.0, 100.0)  # scikit-learn's C: the larger, the weaker the penalty
MAX_TERMS = 50_000  # most words and word pairs in the vocabulary


@dataclass(frozen=True, kw_only=True)
class LinearTrial:
    """One choice of features and penalty: its accuracy on dev, and the seconds of fitting and predicting.

    The first trial of a kind of features includes the seconds of computing them for all rows.
    """

    features: str
    penalty: float
    dev_accuracy: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class LinearModel:
    """Labels, and weights `[C, F]` and offsets `[C]` over F features; `vocabulary` and `idf` for TF-IDF.

    `made_by`: given on saving, a digest of the model that computes the features.
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
        """Return the probability of each label for each text, `[N, C]`; `featurize` computes features other than
        TF-IDF.
        """
        vectorizer = _fixed_vectorizer(self.vocabulary, self.idf_F) if self.features == WORDS else None
        features_NF = _features(texts, vectorizer, featurize)
        scores_NC = np.asarray(features_NF @ self.weights_CF.T + self.offsets_C)
        scores_NC = np.exp(scores_NC - scores_NC.max(axis=1, keepdims=True))
        return np.asarray(scores_NC / scores_NC.sum(axis=1, keepdims=True))

    def save(self, folder: Path, *, made_by: str = "") -> None:
        """Write the weights as safetensors and the rest as JSON."""
        tensors = {"weights": self.weights_CF, "offsets": self.offsets_C, "idf": self.idf_F}
        # scikit-learn's weights are column-major, and safetensors writes memory as it is
        with replacing(folder / "linear.safetensors") as beside:
            save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, beside)
        plain = {key: getattr(self, key) for key in ("features", "vocabulary", "dev_accuracy", "penalty")}
        write_own(folder / "linear.json", {**plain, "labels": list(self.labels), "made_by": made_by})


def load_linear(folder: Path) -> LinearModel:
    """Load a saved model; raises InputError if it is damaged or its parts do not fit each other."""
    settings = read_own(folder / "linear.json")
    try:
        plain = from_plain(_Settings, settings)
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
    """Raise ValueError if the sizes of weights, labels and vocabulary do not match."""
    arrays = (model.weights_CF, model.offsets_C, model.idf_F)
    if not all(array.dtype.kind == "f" and np.isfinite(array).all() for array in arrays) or model.weights_CF.ndim != 2:
        raise ValueError("its weights are not finite numbers")
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
    """Fit every choice of features and penalty; return the model with the best dev accuracy (the first of equals) and
    all trials.

    `fixed_choice`: features and penalty if they are already chosen. Embeddings and hidden states are tried only if
    `embed` and `hidden` compute them; without dev rows the first choice is used.
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
    """Standardises features by mean and standard deviation over the training rows `[N, F]`, scaled to rows of length
    about 1.

    A few dimensions of a hidden state are a hundred times as large as the others; without scaling, the penalty would
    see nothing else.
    """

    def __init__(self, train_NF: np.ndarray[Any, Any]) -> None:
        self.mean_F = train_NF.mean(axis=0)
        self.spread_F = np.maximum(train_NF.std(axis=0), 1e-6) * train_NF.shape[1] ** 0.5

    def __call__(self, features_NF: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.asarray((features_NF - self.mean_F) / self.spread_F)

    def fold_into(self, weights_CF: np.ndarray[Any, Any], offsets_C: np.ndarray[Any, Any]) -> tuple[Any, Any]:
        """Return weights and offsets that give the same scores on unscaled features."""
        weights_CF = weights_CF / self.spread_F
        return weights_CF, offsets_C - weights_CF @ self.mean_F


def _model(
    fitted: Any, features: str, vectorizer: Any, standardizer: _Standardizer | None, accuracy: float, penalty: float
) -> LinearModel:
    """Return the model of a fit; `vectorizer` is None for features other than TF-IDF."""
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
    """Fit scikit-learn's logistic regression on features `[N, F]`, with balanced label weights."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=penalty, max_iter=1000, class_weight="balanced").fit(features_NF, list(labels))


def _class_weights(fitted: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return one row of weights per class; scikit-learn stores a single row for two classes."""
    weights, offsets = fitted.coef_.astype(np.float64), fitted.intercept_.astype(np.float64)
    if weights.shape[0] == 1:
        return np.vstack([np.zeros_like(weights), weights]), np.concatenate([np.zeros(1), offsets])
    return weights, offsets


def word_vectorizer(**settings: Any) -> Any:
    """Return the TF-IDF vectorizer of words and word pairs, rows of length 1; all comparisons of words use it."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, **settings)


def _fixed_vectorizer(vocabulary: dict[str, int], idf_F: np.ndarray[Any, Any]) -> Any:
    vectorizer = word_vectorizer(vocabulary=vocabulary)
    vectorizer.idf_ = idf_F
    return vectorizer


def _features(texts: Sequence[str], vectorizer: Any, featurize: Featurizer | None) -> Any:
    """Return features `[N, F]` of texts, from the vectorizer if there is one."""
    if vectorizer is not None:
        return vectorizer.transform(texts)
    if featurize is None:
        raise ValueError("this model was fitted on features of another model; pass their featurizer")
    return featurize(texts)
