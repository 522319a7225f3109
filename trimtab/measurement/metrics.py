"""Metrics of every kind of task: scores of answers against references, abstention, classes and calibration."""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.base.errors import InputError
from trimtab.base.metrics import METRICS, MetricScore, find_metric
from trimtab.base.records import Answer
from trimtab.base.results import ClassRow
from trimtab.base.tables import resolve
from trimtab.measurement.contains import match
from trimtab.measurement.scorer import ScorerProgram as ScorerProgram
from trimtab.measurement.scorer import check_score

_ARTICLES = frozenset(("a", "an", "the"))
_DECIMAL_POINT = re.compile(r"(?<=\d)\.(?=\d)")
_CLAUSE_END = re.compile(r"[.,;:!?\n–—]|\s-")


def squad_normalised(text: str) -> str:
    """Return text as SQuAD compares it: lower case, without punctuation, articles and extra whitespace.

    Departs from SQuAD in three ways: every Unicode punctuation mark counts, after NFKC; a decimal point stays, so
    that 1.5 is not 15; and a text of nothing but punctuation or articles keeps them, so that the answer "A" is not
    the empty answer.
    """
    folded = unicodedata.normalize("NFKC", text).lower()
    points = {match.start() for match in _DECIMAL_POINT.finditer(folded)}
    kept = (char for place, char in enumerate(folded) if place in points or not _is_punctuation(char))
    bare = "".join(kept).split() or folded.split()
    return " ".join([word for word in bare if word not in _ARTICLES] or bare)


def _is_punctuation(char: str) -> bool:
    return char in string.punctuation or unicodedata.category(char).startswith("P")


def fold_label(label: str) -> str:
    """Return a label as labels are compared: without outer whitespace and case."""
    return unicodedata.normalize("NFC", label).strip().casefold()


def score_one(metric: str, answer: str, references: Sequence[str], question: str = "") -> float:
    """Return the score of one answer, 0 to 1, the best over the references. Raises InputError for a metric that scores
    no single answers, and for a score of an installed one that is not from 0 to 1.
    """
    score, best = _score_function(metric), 0.0
    for reference in references:
        value = score(question, reference, answer)
        best = best if value is None else max(best, check_score(value, f"the metric {metric}"))
        if best == 1.0:
            break
    return best


def _score_function(metric: str) -> MetricScore:
    score = METRICS[metric].score if metric in METRICS else None
    if score is None:
        known = [row.name for row in METRICS.values() if row.score is not None]
        raise InputError(f"no metric {metric!r} scores single answers", f"use one of: {', '.join(known)}")
    function: MetricScore = resolve(score)
    return function


def score_answer(metric: str, answer: str, references: Sequence[str], question: str, unknown: str) -> float:
    """Return the score of a short answer that may abstain: 1 for a due abstention, 0 for an undue one or for another
    answer where one is due."""
    due = any(has_abstained(reference, unknown) for reference in references)
    abstained = has_abstained(answer, unknown)
    if due or abstained:
        return float(due and abstained)
    return score_one(metric, answer, references, question)


def is_undecided(metric: str, answer: str, references: Sequence[str], question: str, unknown: str) -> bool:
    """True if the metric cannot tell whether a short answer is right: it is unsure of a reference, and no other one is
    met. It scores 0.
    """
    if not METRICS[metric].may_be_unsure:
        return False
    if has_abstained(answer, unknown) or any(has_abstained(reference, unknown) for reference in references):
        return False
    score = _score_function(metric)
    scores = {score(question, reference, answer) for reference in references}
    return None in scores and 1.0 not in scores


def states_fact(question: str, reference: str, answer: str) -> float | None:
    """Score an answer by whether it states the fact of the reference (`match`); None where its words do not decide."""
    return {"right": 1.0, "wrong": 0.0, "unsure": None}[match(answer, reference, question)]


def exact_match(_question: str, reference: str, answer: str) -> float:
    """Score 1 for an answer that equals the reference as SQuAD compares (Rajpurkar 2016, section 6.1), else 0."""
    return float(squad_normalised(answer) == squad_normalised(reference))


def token_f1(_question: str, reference: str, answer: str) -> float:
    """Score an answer by the words that it shares with the reference, as SQuAD does (Rajpurkar 2016, section 6.1)."""
    given, wanted = squad_normalised(answer).split(), squad_normalised(reference).split()
    if not given or not wanted:
        return float(given == wanted)
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted))


def same_label(_question: str, reference: str, answer: str) -> float:
    """Score 1 for the label of the reference, else 0."""
    return float(fold_label(answer) == fold_label(reference))


class _Words:
    """Tokeniser that gives rouge-score's tokens for ASCII text; rouge-score drops all other letters, this one keeps
    them."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"[^\W_]+", text.lower())


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words())


@cache
def _chrf_metric() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


def rouge_l(_question: str, reference: str, answer: str) -> float:
    """Score an answer by the F-measure of rouge-score's ROUGE-L, without stemming."""
    return float(_rouge().score(reference, answer)["rougeL"].fmeasure)


def chrf(_question: str, reference: str, answer: str) -> float:
    """Score an answer by sacrebleu's sentence chrF2, divided by 100."""
    return float(_chrf_metric().sentence_score(answer, [reference]).score) / 100


def aggregate(
    metric: str, answers: Sequence[str], references: Sequence[Sequence[str]], scores: Sequence[float]
) -> float:
    """Return the figure of a whole set: macro-F1, else the mean of `scores`; NaN for an empty set."""
    if not len(scores):
        return float("nan")
    if not find_metric(metric).by_class:
        return float(np.mean(scores))
    return macro_f1_statistic(answers, references)(np.arange(len(answers)))


def label_codes(
    answers: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each item's class and the answered class, as numbers from 0; an answer that is no class gets the number
    after the last."""
    names: dict[str, int] = {}
    true_N = np.array([names.setdefault(fold_label(item[0]), len(names)) for item in references], dtype=np.int64)
    return true_N, np.array([names.get(fold_label(answer), len(names)) for answer in answers], dtype=np.int64)


def macro_f1_parts(true_N: NDArray[np.int64], given_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each item's contribution to macro-F1, to first order (infinitesimal jackknife, Jaeckel 1972), so that
    their mean is macro-F1.

    Their mean is the macro-F1 of the items, and the standard error of that mean its standard error.
    """
    support_C = np.bincount(true_N, minlength=int(given_N.max()) + 1)
    chosen_C = np.bincount(given_N, minlength=len(support_C))
    right_C = np.bincount(true_N[true_N == given_N], minlength=len(support_C))
    present_C = support_C > 0
    weight_C = present_C / np.maximum(support_C + chosen_C, 1) / present_C.sum()
    f1_C = present_C * 2 * right_C / np.maximum(support_C + chosen_C, 1)
    own_N = (2 * (true_N == given_N) - f1_C[true_N]) * weight_C[true_N] - f1_C[given_N] * weight_C[given_N]
    parts_N: NDArray[np.float64] = f1_C.sum() / present_C.sum() + len(true_N) * own_N
    return parts_N


class MacroF1:
    """Macro-F1 as a function of item indices, for resampling; built by `macro_f1_statistic`."""

    def __init__(
        self, true_N: NDArray[np.int64], given_N: NDArray[np.int64], weights_N: NDArray[np.float64] | None
    ) -> None:
        self._true_N, self._given_N, self._weights_N = true_N, given_N, weights_N
        self._classes = int(true_N.max()) + 1

    def __call__(self, indices: NDArray[np.integer[Any]]) -> float:
        """Return macro-F1 of these items."""
        return float(self.of_rows(indices[None])[0])

    def of_rows(self, draws_RN: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """Return macro-F1 of each row of item indices: `[rows]`."""
        rows, wide = len(draws_RN), self._classes + 1  # the last one is what is no class
        starts_R = wide * np.arange(rows)[:, None]
        true_RN, given_RN = self._true_N[draws_RN], self._given_N[draws_RN]
        right_RN = true_RN == given_RN
        own_RN = None if self._weights_N is None else self._weights_N[draws_RN]

        def counted(codes: NDArray[np.int64], weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
            each = None if weights is None else weights.ravel()
            return np.bincount(codes.ravel(), each, minlength=rows * wide).reshape(rows, wide).astype(np.float64)

        support_RC = counted(true_RN + starts_R, own_RN)
        chosen_RC = counted(given_RN + starts_R, own_RN)
        hits = (true_RN + starts_R)[right_RN]
        right_RC = counted(hits, None if own_RN is None else own_RN[right_RN])
        present_RC = support_RC > 0
        f1_RC = 2 * right_RC / np.where(present_RC, support_RC + chosen_RC, 1.0)
        found_R: NDArray[np.float64] = (f1_RC * present_RC).sum(1) / present_RC.sum(1)
        return found_R


def macro_f1_statistic(
    answers: Sequence[str], references: Sequence[Sequence[str]], weights_N: NDArray[np.float64] | None = None
) -> MacroF1:
    """Return macro-F1 as a function of item indices, for resampling.

    The mean of F1 over the classes that occur among the references of the chosen items (scikit-learn's `f1_score`
    with `labels` set to those, and `sample_weight` to `weights_N`): an answer that is no class costs its item, but
    does not add a class.
    """
    return MacroF1(*label_codes(answers, references), weights_N)


def per_class(answers: Sequence[Answer]) -> tuple[ClassRow, ...]:
    """Return precision, recall and F1 of every class among the references, the most frequent first (scikit-learn's
    figures)."""
    if not answers:
        return ()
    from sklearn.metrics import precision_recall_fscore_support  # here: scikit-learn takes a second to import

    spelled = {fold_label(item.reference[0]): item.reference[0].strip() for item in reversed(answers)}
    right, said = zip(*((fold_label(item.reference[0]), fold_label(item.answer)) for item in answers), strict=True)
    support = Counter(right)
    names = sorted(support, key=lambda name: (-support[name], name))
    figures = precision_recall_fscore_support(right, said, labels=names, zero_division=0)
    return tuple(
        ClassRow(
            label=spelled[name], precision=float(precision), recall=float(recall), f1=float(f1), support=support[name]
        )
        for name, precision, recall, f1 in zip(names, *figures[:3], strict=True)
    )


def selective_accuracy(probabilities: Sequence[float], right: Sequence[bool]) -> dict[float, float]:
    """Return the accuracy on the most confident half, 70%, 80%, 90% and all of the answers (the gain from handing the
    others to a person).

    El-Yaniv & Wiener 2010, the risk-coverage curve; equal probabilities keep the order given. Empty for no items.
    """
    surest = np.argsort(-np.asarray(probabilities, dtype=float), kind="stable")
    right_N = np.asarray(right, dtype=float)[surest]
    counts = {share: math.ceil(share * len(right_N)) for share in (0.5, 0.7, 0.8, 0.9, 1.0)}
    return {share: float(right_N[:count].mean()) for share, count in counts.items() if count}


def has_abstained(answer: str, unknown: str) -> bool:
    """True if the answer is `unknown`, or its first clause is ("I don't know, the handbook is silent")."""
    wanted = squad_normalised(unknown)
    if squad_normalised(answer) == wanted:
        return True
    start = answer.lstrip()[: 2 * len(unknown) + 20]  # a first clause that says it ends in here
    return any(squad_normalised(start[: end.start()]) == wanted for end in _CLAUSE_END.finditer(start))


def abstention(answers: Sequence[Answer], unknown: str) -> dict[str, float]:
    """Return precision and recall of abstaining; a figure whose denominator is 0 is left out.

    precision: share of abstentions where `unknown` was the reference; recall: share of such items that abstained.
    """
    due = [any(has_abstained(reference, unknown) for reference in item.reference) for item in answers]
    both = sum(item.abstained and wanted for item, wanted in zip(answers, due, strict=True))
    abstained = sum(item.abstained for item in answers)
    figures = {"precision": (both, abstained), "recall": (both, sum(due))}
    return {name: part / whole for name, (part, whole) in figures.items() if whole}
