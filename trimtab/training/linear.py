"""Logistic regression (scikit-learn) on words, letters, embeddings or hidden states; features, penalty and class
weights are chosen on dev by the task's metric.
"""

from __future__ import annotations

import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from trimtab.base.codec import from_plain
from trimtab.base.errors import InputError
from trimtab.base.files import read_own, replacing, write_own
from trimtab.base.sanitize import one_line

Array = np.ndarray[Any, Any]
Featurizer = Callable[[Sequence[str]], Array]
"""Texts to features `[N, F]`."""
LabelScore = Callable[[Sequence[str], Sequence[str]], float]
"""Labels given and right labels to a score, the higher the better."""
WORDS, LETTERS, EMBEDDING, HIDDEN = "words", "letters", "embedding", "hidden"
KINDS = (  # of features, cheapest first; several are put side by side
    WORDS,
    f"{WORDS}+{LETTERS}",
    EMBEDDING,
    f"{WORDS}+{EMBEDDING}",
    f"{WORDS}+{LETTERS}+{EMBEDDING}",
    HIDDEN,
)
PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0)  # scikit-learn's C: the larger, the weaker the penalty
FIRST_PENALTY = 10.0
MAX_TERMS = 50_000  # most terms in a vocabulary
CHOICE_ROWS = 4_000  # most training rows on which choices are fitted; the chosen one is fitted on all
MAX_ITERATIONS = 200
_VECTORIZERS: Mapping[str, Mapping[str, Any]] = {
    WORDS: {"ngram_range": (1, 2)},
    LETTERS: {"analyzer": "char_wb", "ngram_range": (2, 5)},
}


@dataclass(frozen=True, kw_only=True)
class LinearChoice:
    """What is chosen on dev: features, penalty, and whether rare labels weigh more (`class_weight="balanced"`)."""

    features: str
    penalty: float = FIRST_PENALTY
    balanced: bool = False


@dataclass(frozen=True, kw_only=True)
class LinearTrial:
    """One choice: its score on dev, and the seconds of fitting and predicting.

    The first trial of a kind of features includes the seconds of computing them for all rows.
    """

    choice: LinearChoice
    dev_score: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TermWeights:
    """TF-IDF of one column of the input: its terms (`unit`: words or letters) with their places, and weights `[F]`."""

    column: int
    unit: str
    vocabulary: dict[str, int]
    idf_F: Array = field(default_factory=lambda: np.zeros(0))

    def features(self, texts: Sequence[str]) -> Any:
        """Return the sparse features of the texts of the column, `[N, F]`, rows of length 1."""
        vectorizer = term_vectorizer(self.unit, vocabulary=self.vocabulary)
        vectorizer.idf_ = self.idf_F
        return vectorizer.transform(texts)


@dataclass(frozen=True, kw_only=True)
class LinearModel:
    """Labels, and weights `[C, F]` and offsets `[C]` over F features.

    `template`: the texts around the columns of an input, by which they are read apart; empty for one column.
    `made_by`: given on saving, a digest of the model that computes the features.
    """

    labels: tuple[str, ...]
    choice: LinearChoice
    dev_score: float
    template: tuple[str, ...]
    terms: tuple[TermWeights, ...]
    weights_CF: Array
    offsets_C: Array
    made_by: str = ""

    def probabilities(self, texts: Sequence[str], featurize: Featurizer | None) -> Array:
        """Return the probability of each label for each text, `[N, C]`; `featurize` computes embeddings or hidden
        states.
        """
        features_NF = _features(texts, self.choice.features, self.template, self.terms, featurize)
        scores_NC = np.asarray(features_NF @ self.weights_CF.T + self.offsets_C)
        scores_NC = np.exp(scores_NC - scores_NC.max(axis=1, keepdims=True))
        return np.asarray(scores_NC / scores_NC.sum(axis=1, keepdims=True))

    def save(self, folder: Path, *, made_by: str = "") -> None:
        """Write the weights as safetensors and the rest as JSON."""
        tensors = {"weights": self.weights_CF, "offsets": self.offsets_C}
        tensors |= {f"idf.{place}": terms.idf_F for place, terms in enumerate(self.terms)}
        # scikit-learn's weights are column-major, and safetensors writes memory as it is
        with replacing(folder / "linear.safetensors") as beside:
            save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, beside)
        plain = {
            "labels": list(self.labels),
            "choice": vars(self.choice),
            "dev_score": self.dev_score,
            "template": list(self.template),
            "terms": [
                {"column": terms.column, "unit": terms.unit, "vocabulary": terms.vocabulary} for terms in self.terms
            ],
            "made_by": made_by,
        }
        write_own(folder / "linear.json", plain)


def load_linear(folder: Path) -> LinearModel:
    """Load a saved model; raises InputError if it is damaged or its parts do not fit each other."""
    settings = read_own(folder / "linear.json")
    try:
        saved = from_plain(_Settings, settings)
        tensors = load_file(folder / "linear.safetensors")
        model = LinearModel(
            labels=saved.labels,
            choice=LinearChoice(**vars(saved.choice)),
            dev_score=saved.dev_score,
            template=saved.template,
            terms=tuple(
                TermWeights(**vars(terms) | {"idf_F": tensors[f"idf.{place}"]})
                for place, terms in enumerate(saved.terms)
            ),
            weights_CF=tensors["weights"],
            offsets_C=tensors["offsets"],
            made_by=saved.made_by,
        )
        _require_fit(model)
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise InputError(
            f"the linear classifier is damaged ({one_line(error)})", "train it again", file=folder
        ) from None
    return model


@dataclass(frozen=True, kw_only=True)
class _SavedTerms:
    column: int
    unit: Literal["words", "letters"]
    vocabulary: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class _SavedChoice:
    features: Literal["words", "words+letters", "embedding", "words+embedding", "words+letters+embedding", "hidden"]
    penalty: float
    balanced: bool


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """`linear.json`."""

    labels: tuple[str, ...]
    choice: _SavedChoice
    dev_score: float
    template: tuple[str, ...]
    terms: tuple[_SavedTerms, ...]
    made_by: str = ""


def _require_fit(model: LinearModel) -> None:
    """Raise ValueError if the sizes of weights, labels and vocabularies do not match."""
    arrays = (model.weights_CF, model.offsets_C, *(terms.idf_F for terms in model.terms))
    if not all(array.dtype.kind == "f" and np.isfinite(array).all() for array in arrays) or model.weights_CF.ndim != 2:
        raise ValueError("its weights are not finite numbers")
    labels, features = model.weights_CF.shape
    if not labels or len(model.labels) != labels or model.offsets_C.shape != (labels,):
        raise ValueError(f"{len(model.labels)} labels, and weights for {labels}")
    columns = max(1, len(model.template) - 1)
    kinds = model.choice.features.split("+")
    expected = [(unit, column) for unit in kinds if unit in _VECTORIZERS for column in range(columns)]
    if [(terms.unit, terms.column) for terms in model.terms] != expected or len(model.template) in (1, 2):
        raise ValueError("its terms are not those of its features and columns")
    for terms in model.terms:
        places = sorted(terms.vocabulary.values())
        if places != list(range(len(terms.idf_F))):
            raise ValueError(f"{len(places)} terms of column {terms.column}, and weights for {len(terms.idf_F)}")
    counted = sum(len(terms.idf_F) for terms in model.terms) + columns * (columns - 1)
    if model.choice.features != HIDDEN and (counted > features if EMBEDDING in kinds else counted != features):
        raise ValueError(f"{counted} terms, and weights for {features}")


def train_linear(
    texts: Sequence[str],
    labels: Sequence[str],
    dev_texts: Sequence[str],
    dev_labels: Sequence[str],
    embed: Featurizer | None,
    hidden: Featurizer | None = None,
    *,
    template: Sequence[str] = (),
    score: LabelScore | None = None,
    fixed_choice: LinearChoice | None = None,
) -> tuple[LinearModel, tuple[LinearTrial, ...]]:
    """Choose features, then the penalty, then class weights on dev; return the best model (the first of equals) and
    all trials.

    Each step keeps what the step before it chose; the ladder of penalties is climbed each way until dev falls. Choices
    are fitted on at most CHOICE_ROWS rows, the chosen one then on all, which is the last trial. `score`:
    of labels on dev, accuracy by default. `template`: the texts around the columns of an input (`split_columns`).
    `fixed_choice`: already chosen. Embeddings and hidden states are tried only if `embed` and `hidden` compute them;
    without dev rows the first choice is used.
    """
    search = partial(
        _Search,
        dev_texts=dev_texts,
        dev_labels=dev_labels,
        featurizers={EMBEDDING: embed, HIDDEN: hidden},
        template=tuple(template),
        score=score or _accuracy,
    )
    trials: list[LinearTrial] = []
    if fixed_choice is None:
        drawn = np.sort(np.random.default_rng(0).permutation(len(texts))[:CHOICE_ROWS])
        of_some = search(texts=[texts[place] for place in drawn], labels=[labels[place] for place in drawn])
        best = of_some.run()
        trials += of_some.trials
        if len(drawn) == len(texts):
            return best, tuple(trials)
        fixed_choice = best.choice
    of_all = search(texts=texts, labels=labels)
    of_all.try_out(fixed_choice)
    return of_all.require_best(), (*trials, *of_all.trials)


def _accuracy(given: Sequence[str], right: Sequence[str]) -> float:
    return float(np.mean([a == b for a, b in zip(given, right, strict=True)]))


@dataclass(kw_only=True)
class _Search:
    """The trials of one fit, and the best model so far."""

    texts: Sequence[str]
    labels: Sequence[str]
    dev_texts: Sequence[str]
    dev_labels: Sequence[str]
    featurizers: Mapping[str, Featurizer | None]
    template: tuple[str, ...]
    score: LabelScore
    best: LinearModel | None = None
    trials: list[LinearTrial] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._kept: tuple[str, _Computed] | None = None  # features of the last kind that was asked for

    def require_best(self) -> LinearModel:
        """Return the best model so far. Raises ValueError before any trial."""
        if self.best is None:
            raise ValueError("no feature space to fit")
        return self.best

    def run(self) -> LinearModel:
        """Try kinds of features, then penalties, then class weights; return the best model."""
        kinds = [
            kind for kind in KINDS if all(self.featurizers.get(part, True) is not None for part in kind.split("+"))
        ]
        for kind in kinds if self.dev_texts else kinds[:1]:
            self.try_out(LinearChoice(features=kind))
        best = self.require_best()
        if not self.dev_texts:
            return best
        features, middle = best.choice.features, PENALTIES.index(FIRST_PENALTY)
        for ladder in (PENALTIES[middle + 1 :], PENALTIES[:middle][::-1]):
            reached = best.dev_score
            for penalty in ladder:
                found = self.try_out(LinearChoice(features=features, penalty=penalty))
                if found < reached:
                    break
                reached = found
        if len(set(Counter(self.labels).values())) > 1:
            self.try_out(replace(self.require_best().choice, balanced=True))
        return self.require_best()

    def try_out(self, choice: LinearChoice) -> float:
        """Fit one choice, keep it if it is the best so far, and return its score on dev."""
        began = time.perf_counter()
        if self._kept is None or self._kept[0] != choice.features:
            self._kept = choice.features, self._compute(choice.features)
        computed = self._kept[1]
        fitted = fit_logistic(computed.train_NF, self.labels, choice.penalty, balanced=choice.balanced)
        found = 0.0
        if computed.dev_NF is not None:
            found = self.score([str(label) for label in fitted.predict(computed.dev_NF)], self.dev_labels)
        if self.best is None or found > self.best.dev_score:
            self.best = self._model(fitted, computed, choice, found)
        self.trials.append(LinearTrial(choice=choice, dev_score=found, seconds=time.perf_counter() - began))
        return found

    def _compute(self, kind: str) -> _Computed:
        columns = split_columns(self.texts, self.template)
        terms = tuple(
            _fit_terms(unit, place, column)
            for unit in kind.split("+")
            if unit in _VECTORIZERS
            for place, column in enumerate(columns)
        )
        featurize = next((self.featurizers[part] for part in kind.split("+") if part in self.featurizers), None)
        features = partial(_features, kind=kind, template=self.template, terms=terms, featurize=featurize)
        train_NF, dev_NF = features(self.texts), features(self.dev_texts) if self.dev_texts else None
        if kind != HIDDEN:
            return _Computed(train_NF=train_NF, dev_NF=dev_NF, terms=terms)
        standardizer = _Standardizer(train_NF)
        dev_NF = None if dev_NF is None else standardizer(dev_NF)
        return _Computed(train_NF=standardizer(train_NF), dev_NF=dev_NF, terms=terms, standardizer=standardizer)

    def _model(self, fitted: Any, computed: _Computed, choice: LinearChoice, score: float) -> LinearModel:
        weights_CF, offsets_C = _class_weights(fitted)
        if computed.standardizer is not None:
            weights_CF, offsets_C = computed.standardizer.fold_into(weights_CF, offsets_C)
        return LinearModel(
            labels=tuple(str(label) for label in fitted.classes_),
            choice=choice,
            dev_score=score,
            template=self.template,
            terms=computed.terms,
            weights_CF=weights_CF,
            offsets_C=offsets_C,
        )


class _Standardizer:
    """Standardises features by mean and standard deviation over the training rows `[N, F]`, scaled to rows of length
    about 1.

    A few dimensions of a hidden state are a hundred times as large as the others; without scaling, the penalty would
    see nothing else.
    """

    def __init__(self, train_NF: Array) -> None:
        self.mean_F = train_NF.mean(axis=0)
        self.spread_F = np.maximum(train_NF.std(axis=0), 1e-6) * train_NF.shape[1] ** 0.5

    def __call__(self, features_NF: Array) -> Array:
        return np.asarray((features_NF - self.mean_F) / self.spread_F)

    def fold_into(self, weights_CF: Array, offsets_C: Array) -> tuple[Array, Array]:
        """Return weights and offsets that give the same scores on unscaled features."""
        weights_CF = weights_CF / self.spread_F
        return weights_CF, offsets_C - weights_CF @ self.mean_F


@dataclass(frozen=True, kw_only=True)
class _Computed:
    """Features of one kind for the rows of train and dev, and what computes them."""

    train_NF: Any
    dev_NF: Any
    terms: tuple[TermWeights, ...]
    standardizer: _Standardizer | None = None


def fit_logistic(features_NF: Any, labels: Sequence[str], penalty: float, *, balanced: bool) -> Any:
    """Fit scikit-learn's logistic regression on features `[N, F]`; `balanced`: every label weighs alike."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    weighting = "balanced" if balanced else None
    model = LogisticRegression(C=penalty, max_iter=MAX_ITERATIONS, class_weight=weighting)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # dev says how good what was reached is
        return model.fit(features_NF, list(labels))


def _class_weights(fitted: Any) -> tuple[Array, Array]:
    """Return one row of weights per class; scikit-learn stores a single row for two classes."""
    weights, offsets = fitted.coef_.astype(np.float64), fitted.intercept_.astype(np.float64)
    if weights.shape[0] == 1:
        return np.vstack([np.zeros_like(weights), weights]), np.concatenate([np.zeros(1), offsets])
    return weights, offsets


def split_columns(texts: Sequence[str], template: Sequence[str]) -> list[list[str]]:
    """Read the columns of inputs apart: one list of texts per column.

    `template`: the texts before, between and after the columns; one column if it is empty. An input that is not made
    by the template stands whole in the first column.
    """
    if len(template) <= 2:
        return [list(texts)]
    pattern = re.compile("(.*?)".join(map(re.escape, template)), re.DOTALL)
    columns: list[list[str]] = [[] for _ in template[1:]]
    for text in texts:
        found = pattern.fullmatch(text)
        for place, column in enumerate(columns):
            column.append(found.group(place + 1) if found else "" if place else text)
    return columns


def term_vectorizer(unit: str = WORDS, **settings: Any) -> Any:
    """Return the TF-IDF vectorizer of words and word pairs, or of runs of letters, rows of length 1; all comparisons of
    words use it."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(sublinear_tf=True, **_VECTORIZERS[unit], **settings)


def _fit_terms(unit: str, column: int, texts: Sequence[str]) -> TermWeights:
    """Fit the vocabulary of a column; it is empty where no text has a term."""
    vectorizer = term_vectorizer(unit, max_features=MAX_TERMS)
    try:
        vectorizer.fit(texts)
    except ValueError as error:
        if "empty vocabulary" not in str(error):
            raise
        return TermWeights(column=column, unit=unit, vocabulary={})
    vocabulary = {term: int(place) for term, place in vectorizer.vocabulary_.items()}
    return TermWeights(column=column, unit=unit, vocabulary=vocabulary, idf_F=vectorizer.idf_.astype(np.float64))


def _features(
    texts: Sequence[str],
    kind: str,
    template: Sequence[str],
    terms: Sequence[TermWeights],
    featurize: Featurizer | None,
) -> Any:
    """Return the features `[N, F]` of inputs: terms and embeddings of each column, and what pairs of columns share.

    Sparse where there are terms. Hidden states are of the whole input.
    """
    if featurize is None and (kind == HIDDEN or EMBEDDING in kind.split("+")):
        raise ValueError("this model was fitted on features of another model; pass their featurizer")
    if kind == HIDDEN and featurize is not None:
        return featurize(texts)
    from scipy import sparse

    columns = split_columns(texts, template)
    blocks: list[Any] = [one.features(columns[one.column]) for one in terms if one.vocabulary]
    embedded = [featurize(column) for column in columns] if featurize and EMBEDDING in kind.split("+") else []
    dense = [*embedded, *_shared_words(columns), *_alike(embedded)]
    if not blocks:
        return np.hstack(dense, dtype=np.float32)
    return sparse.hstack([*blocks, *map(sparse.csr_matrix, dense)], format="csr", dtype=np.float32)


def _shared_words(columns: Sequence[Sequence[str]]) -> Iterator[Array]:
    """Yield, for each pair of columns, the shares of the words of either that the other has, `[N, 2]`."""
    words = [[set(_WORD.findall(text.casefold())) for text in column] for column in columns]
    for first, second in combinations(words, 2):
        yield np.array(
            [[len(a & b) / max(1, len(a)), len(a & b) / max(1, len(b))] for a, b in zip(first, second, strict=True)],
            dtype=np.float64,
        ).reshape(-1, 2)


def _alike(embedded: Sequence[Array]) -> Iterator[Array]:
    """Yield, for each pair of embedded columns, their cosine, `[N, 1]`."""
    for first, second in combinations(embedded, 2):
        yield (first * second).sum(axis=1, keepdims=True)


_WORD = re.compile(r"\w+")
