"""Fits of the linear arm over features and penalties, and what each menu of them comes to when dev chooses (see
embeddings.py)."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from trimtab.base.records import Example
from trimtab.training.linear import fit_logistic, word_vectorizer

Array = np.ndarray[Any, Any]
PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0)
FORMER = (1.0, 10.0, 100.0)
HIDDEN = ("mean of middle", "mean of last", "end of middle", "end of last")
TERMS = 50_000

# name: features in their order, penalties
MENUS: dict[str, tuple[tuple[str, ...], tuple[float, ...]]] = {
    "words, embedding (until now)": (("words", "embedding"), FORMER),
    "words": (("words",), FORMER),
    "letters": (("letters",), FORMER),
    "embedding": (("embedding",), FORMER),
    **{name: ((name,), FORMER) for name in HIDDEN},
    "words, embedding, five penalties": (("words", "embedding"), PENALTIES),
    "words, letters, embedding": (("words", "letters", "embedding"), FORMER),
    "letters, embedding": (("letters", "embedding"), FORMER),
    "words, letters, embedding, five penalties": (("words", "letters", "embedding"), PENALTIES),
    **{f"words, embedding, {name}": (("words", "embedding", name), FORMER) for name in HIDDEN},
    "words, embedding, all hidden": (("words", "embedding", *HIDDEN), FORMER),
}
USUAL = next(iter(MENUS))

Fit = Mapping[str, Any]
RULES: dict[str, Callable[[Fit], tuple[float, ...]]] = {
    "accuracy": lambda one: (one["dev"],),
    "accuracy, then loss": lambda one: (one["dev"], -one["dev_loss"]),
    "loss": lambda one: (-one["dev_loss"],),
}


def letter_vectorizer(**settings: Any) -> Any:
    """TF-IDF of runs of two to five letters inside words, rows of length 1: endings and misspellings are seen too."""
    return TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, **settings)


def fit_all(rows: Sequence[Example], parts: Mapping[str, Sequence[int]], dense: Mapping[str, Array]) -> dict[str, Any]:
    """One split: its test rows, and of every kind of feature with every penalty the accuracy and loss on dev, which
    test rows were right, seconds of the processor."""
    texts = {name: [rows[number].input for number in part] for name, part in parts.items()}
    labels = {name: np.array([rows[number].references[0] for number in part]) for name, part in parts.items()}
    spaces: dict[str, dict[str, Any]] = {}
    for name, made in (("words", word_vectorizer), ("letters", letter_vectorizer)):
        vectorizer = made(max_features=TERMS).fit(texts["train"])
        spaces[name] = {part: vectorizer.transform(own) for part, own in texts.items()}
    for name, values_ND in dense.items():
        mean_D, spread_D = np.zeros(1), np.ones(1)
        if name in HIDDEN:  # some of their numbers are a hundred times as large as others
            train_ND = values_ND[parts["train"]]
            mean_D, spread_D = train_ND.mean(0), train_ND.std(0) * train_ND.shape[1] ** 0.5 + 1e-9  # length about 1
        spaces[name] = {part: (values_ND[own] - mean_D) / spread_D for part, own in parts.items()}
    fits = [
        _fitted(name, penalty, space, labels)
        for name, space in spaces.items()
        for penalty in (FORMER if name in HIDDEN else PENALTIES)
    ]
    return {"rows": {name: len(part) for name, part in parts.items()}, "test": list(parts["test"]), "fits": fits}


def _fitted(name: str, penalty: float, space: Mapping[str, Any], labels: Mapping[str, Array]) -> Fit:
    began = time.process_time()
    fitted = fit_logistic(space["train"], labels["train"].tolist(), penalty)
    seconds = time.process_time() - began
    chances_MC = fitted.predict_proba(space["dev"])
    place = {label: number for number, label in enumerate(fitted.classes_)}
    own = [row[place[label]] if label in place else 0.0 for row, label in zip(chances_MC, labels["dev"], strict=True)]
    return {
        "features": name,
        "penalty": penalty,
        "dev": float((fitted.predict(space["dev"]) == labels["dev"]).mean()),
        "dev_loss": float(-np.log(np.maximum(own, 1e-12)).mean()),
        "right": (fitted.predict(space["test"]) == labels["test"]).astype(int).tolist(),
        "seconds": round(seconds, 3),
    }


def chosen(fits: Sequence[Fit], menu: str, rule: str) -> Fit:
    """The fit that a menu comes to: the best on dev by the rule, the first of equals."""
    names, penalties = MENUS[menu]
    offered = [one for name in names for one in fits if one["features"] == name and one["penalty"] in penalties]
    return max(offered, key=RULES[rule])


def gap(
    ours: Sequence[Fit], theirs: Sequence[Fit], tests: Sequence[Sequence[int]], groups: Sequence[str]
) -> list[float]:
    """Mean difference of being right over all splits, and its standard error by group: a row counts in every split
    that tests it."""
    per_row = [
        (groups[number], one - other)
        for mine, yours, test in zip(ours, theirs, tests, strict=True)
        for number, one, other in zip(test, mine["right"], yours["right"], strict=True)
    ]
    mean = sum(value for _, value in per_row) / len(per_row)
    sums: defaultdict[str, float] = defaultdict(float)
    for group, value in per_row:
        sums[group] += value - mean
    error = (sum(value**2 for value in sums.values()) * len(sums) / (len(sums) - 1)) ** 0.5 / len(per_row)
    return [round(mean, 4), round(error, 4)]


def compare(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Test accuracy of each menu and rule, and its paired difference from the usual one with its standard error."""
    table = []
    for menu in MENUS:
        for rule in RULES:
            row: dict[str, Any] = {"menu": menu, "rule": rule, "test": {}, "on usual": {}, "picked": {}}
            for name, held in found.items():
                ours = [chosen(split["fits"], menu, rule) for split in held["splits"]]
                theirs = [chosen(split["fits"], USUAL, "accuracy") for split in held["splits"]]
                tests = [split["test"] for split in held["splits"]]
                row["test"][name] = round(float(np.mean([np.mean(one["right"]) for one in ours])), 4)
                row["on usual"][name] = gap(ours, theirs, tests, held["groups"])
                row["picked"][name] = [f"{one['features']} {one['penalty']:g}" for one in ours]
            table.append(row)
    sets = {
        name: {
            "rows": held["splits"][0]["rows"],
            "splits": len(held["splits"]),
            "processor_time_of_a_text_by_that_of_the_embedding": held["seconds"],
            "processor_seconds_of_a_fit": _fit_seconds([one for split in held["splits"] for one in split["fits"]]),
        }
        for name, held in found.items()
    }
    return {"sets": sets, "menus": table}


def _fit_seconds(fits: Sequence[Fit]) -> dict[str, float]:
    names = dict.fromkeys(one["features"] for one in fits)
    return {
        name: round(float(np.mean([one["seconds"] for one in fits if one["features"] == name])), 2) for name in names
    }
