"""Computes an arm's figures from its answers: score with interval, slices, abstention, calibration, retrieval."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trimtab.base.errors import InputError
from trimtab.base.metrics import find_metric, metrics_of
from trimtab.base.records import Answer, Example, Generation
from trimtab.base.results import Classes, Estimate
from trimtab.base.task import Task
from trimtab.measurement.calibration import (
    calibration_error_by_chance,
    debiased_calibration_error,
    expected_calibration_error,
)
from trimtab.measurement.contains import disagrees
from trimtab.measurement.groundedness import SentenceJudge, groundedness_shares
from trimtab.measurement.json_answers import same_answer
from trimtab.measurement.languages import is_untried
from trimtab.measurement.metrics import (
    MacroF1,
    aggregate,
    fold_label,
    is_undecided,
    macro_f1_statistic,
    per_class,
    score_answer,
    score_one,
    selective_accuracy,
)
from trimtab.measurement.mix import effective_number, mix_weights
from trimtab.measurement.ranking import gold_names, mrr, ndcg, recall_at_k
from trimtab.measurement.resampling import Curve
from trimtab.measurement.runs import RunError, by_seed, of_both, raised, raised_curve, run_error, widened
from trimtab.measurement.selection_bias import corrected_for_picking, draws_of_figures, draws_of_means
from trimtab.measurement.statistics import (
    FEW,
    LEVEL,
    Difference,
    compare_paired,
    estimate,
    lower_bound,
    p_noninferior_curve,
    p_reaches_curve,
)

Statistic = Callable[[Any], float]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One score for each item, the mean over seeds, in the order of the items; `groups` are the groups that repeat.

    `runs`: each seed's answers, in the order of the items too. `weights_N`: of the items, None where all count alike.
    """

    items: tuple[str, ...]
    values_N: np.ndarray[Any, Any]
    groups: tuple[str | None, ...]
    runs: tuple[tuple[Answer, ...], ...]
    weights_N: np.ndarray[Any, Any] | None = None

    @property
    def clusters(self) -> tuple[str | None, ...] | None:
        """The groups; None if no group has two items."""
        named = [group for group in self.groups if group is not None]
        return self.groups if len(set(named)) < len(named) else None


def scores_of(answers: Sequence[Answer], mix: Mapping[str, float] | None = None) -> Scores:
    """Return the scores of the answers of one or several seeds, by item; weighted if there is a `mix` of slices."""
    ordered = sorted(answers, key=lambda one: (one.seed, one.item_id))
    items = {answer.item_id: answer for answer in reversed(ordered)}
    names = sorted(items)
    places = {name: place for place, name in enumerate(names)}
    codes = np.array([places[answer.item_id] for answer in ordered], dtype=np.intp)
    return Scores(
        items=tuple(names),
        values_N=np.bincount(codes, [answer.score for answer in ordered]) / np.bincount(codes),
        groups=tuple(items[name].group for name in names),
        runs=tuple(map(tuple, by_seed(ordered))),
        weights_N=mix_weights([items[name].slice for name in names], mix or {}),
    )


def _scores(answers: Sequence[Answer], task: Task) -> Scores:
    """Return the scores by item, weighted by the task's mix."""
    return scores_of(answers, task.data.mix)


@dataclass(frozen=True)
class _Sum:
    """A sum of figures, each times its factor, as a function of item indices."""

    parts: tuple[tuple[MacroF1 | _Sum, float], ...]

    def __call__(self, indices: Any) -> float:
        return math.fsum(factor * figure(indices) for figure, factor in self.parts)

    def of_rows(self, draws_RN: Any) -> Any:
        """Return the figure of each row of item indices: `[rows]`."""
        return sum(factor * figure.of_rows(draws_RN) for figure, factor in self.parts)


def _figures(scores: Scores, task: Task) -> list[MacroF1] | None:
    """Return macro-F1 of each seed as functions of item indices; None for metrics that are a mean over items.

    Raises InputError where a seed lacks items that another one has answered.
    """
    if not find_metric(task.metric).by_class:
        return None
    if any(len(run) != len(scores.items) for run in scores.runs):
        raise InputError("seeds have answered different questions", "answer every question with every seed")
    return [
        macro_f1_statistic([answer.answer for answer in run], [answer.reference for answer in run], scores.weights_N)
        for run in scores.runs
    ]


def set_figure(scores: Scores, task: Task) -> _Sum | None:
    """Return macro-F1 as a function of item indices, the mean over the seeds; None for metrics that are a mean over
    items."""
    figures = _figures(scores, task)
    if figures is None:
        return None
    return _Sum(tuple((figure, 1 / len(figures)) for figure in figures))


def _between_runs(scores: Scores, task: Task) -> RunError:
    figures, items = _figures(scores, task), np.arange(len(scores.items))
    if figures is not None:
        return run_error([figure(items) for figure in figures])
    return run_error([_run_mean(run, scores) for run in scores.runs])


def _run_mean(run: Sequence[Answer], scores: Scores) -> float:
    values = [answer.score for answer in run]
    if scores.weights_N is None:
        return float(np.mean(values))
    weights = dict(zip(scores.items, scores.weights_N, strict=True))
    return float(np.average(values, weights=[weights[answer.item_id] for answer in run]))


def score_estimate(answers: Sequence[Answer], task: Task) -> Estimate:
    """Return the metric over the answers with its 95% interval; with several seeds it includes the variance between
    runs."""
    scores = _scores(answers, task)
    found = estimate(scores.values_N, scores.clusters, weights=scores.weights_N, statistic=set_figure(scores, task))
    runs = _between_runs(scores, task)
    low, high = (widened(found.value, limit, runs) for limit in (found.low, found.high))
    return replace(found, low=max(0.0, low), high=min(1.0, high))


def score_value(answers: Sequence[Answer], task: Task) -> float:
    """Return the metric over the answers, without an interval."""
    scores = _scores(answers, task)
    return _value(scores, set_figure(scores, task))


def target_curve(answers: Sequence[Answer], task: Task) -> Curve:
    """Return the one-sided p-value of "does not reach the target", as a function of the target."""
    scores = _scores(answers, task)
    statistic = set_figure(scores, task)
    curve = p_reaches_curve(scores.values_N, scores.clusters, weights=scores.weights_N, statistic=statistic)
    return raised_curve(curve, _value(scores, statistic), _between_runs(scores, task))


def picked_estimate(answers: Sequence[Sequence[Answer]], task: Task) -> Estimate:
    """Return the highest score of several arms, corrected for selection bias; the variance between runs is not
    included.

    The interval reaches over that of the plain score, too: where the arm is highest because it is the best, nothing
    has to be corrected, and the measured scores hardly tell which of the two it is.
    """
    scores = [_scores(own, task) for own in answers]
    figures, items, groups = [set_figure(own, task) for own in scores], len(scores[0].items), scores[0].clusters
    values = np.array([_value(own, figure) for own, figure in zip(scores, figures, strict=True)])
    known = [figure for figure in figures if figure is not None]
    if known:
        draws = draws_of_figures(known, items, groups)
    else:
        draws = draws_of_means(np.stack([own.values_N for own in scores]), groups, scores[0].weights_N)
    corrected = corrected_for_picking(values, draws, items)
    plain = score_estimate(answers[int(values.argmax())], task)
    return replace(corrected, low=min(corrected.low, plain.low), high=max(corrected.high, plain.high))


def rarest_class(answers: Sequence[Answer], task: Task) -> tuple[str, int] | None:
    """Return the class with the fewest test questions, and their number, if these are fewer than 10 and the metric is
    macro-F1.

    Under a mix of slices the number is the effective one, rounded down. Of the labels that the task states one may
    have no test question.

    Macro-F1 weighs it like every other class, and of so few questions neither the bootstrap nor anything else knows
    how sure its part is.
    """
    if not find_metric(task.metric).by_class:
        return None
    asked = {fold_label(answer.reference[0]) for answer in answers}
    unasked = next((label for label in task.task.labels if fold_label(label) not in asked), None)
    if unasked is not None:
        return unasked, 0
    spelled = {answer.item_id: answer.reference[0].strip() for answer in answers}
    counts = Counter(map(fold_label, spelled.values()))
    scores = _scores(answers, task)
    if scores.weights_N is not None:
        labels_N = np.array([fold_label(spelled[name]) for name in scores.items])
        effective = {label: effective_number(scores.weights_N[labels_N == label]) for label in counts}
        counts = Counter({label: math.floor(number + 1e-9) for label, number in effective.items()})
    rare = min(counts, key=lambda name: counts[name])
    name = next(label for label in spelled.values() if fold_label(label) == rare)
    return (name, counts[rare]) if counts[rare] < FEW else None


def score_floor(answers: Sequence[Answer], task: Task) -> float:
    """Return the lower one-sided 95% bound of the metric."""
    scores = _scores(answers, task)
    statistic = set_figure(scores, task)
    floor = lower_bound(scores.values_N, scores.clusters, weights=scores.weights_N, statistic=statistic)
    return max(0.0, widened(_value(scores, statistic), floor, _between_runs(scores, task), LEVEL))


def difference(a: Sequence[Answer], b: Sequence[Answer], task: Task) -> Difference:
    """Return the difference of arm a minus arm b on the same items."""
    left, right = _scores(a, task), _scores(b, task)
    statistic = _paired(left, right, task)
    found = compare_paired(left.values_N, right.values_N, left.clusters, weights=left.weights_N, statistic=statistic)
    runs = of_both(_between_runs(left, task), _between_runs(right, task))
    low, high = (widened(found.difference, limit, runs) for limit in (found.low, found.high))
    p = min(1.0, 2 * raised(found.p / 2, abs(found.difference), runs))
    return Difference(found.difference, max(low, -1.0), min(high, 1.0), p)


def behind_curve(a: Sequence[Answer], b: Sequence[Answer], task: Task) -> Curve:
    """Return the one-sided p-value of "a is behind b by the margin or more", as a function of the margin."""
    left, right = _scores(a, task), _scores(b, task)
    statistic = _paired(left, right, task)
    curve = p_noninferior_curve(
        left.values_N, right.values_N, left.clusters, weights=left.weights_N, statistic=statistic
    )
    gap = _value(left, set_figure(left, task)) - _value(right, set_figure(right, task))
    runs = of_both(_between_runs(left, task), _between_runs(right, task))
    return lambda margin: raised(curve(margin), gap + margin, runs)


def _paired(left: Scores, right: Scores, task: Task) -> Statistic | None:
    one, other = set_figure(left, task), set_figure(right, task)
    return _Sum(((one, 1.0), (other, -1.0))) if one and other else None


def _value(scores: Scores, statistic: Statistic | None) -> float:
    if statistic is not None:
        return statistic(np.arange(len(scores.items)))
    return float(np.average(scores.values_N, weights=scores.weights_N))


def slice_estimates(answers: Sequence[Answer], task: Task) -> dict[str, Estimate]:
    """Return the metric for each value of the slice column."""
    names = sorted({answer.slice for answer in answers if answer.slice is not None})
    return {name: score_estimate([answer for answer in answers if answer.slice == name], task) for name in names}


def class_figures(answers: Sequence[Answer]) -> Classes:
    """Return the table of classes and the selective-accuracy curve."""
    sure = [(answer.probability, answer.score == 1.0) for answer in answers if answer.probability is not None]
    whole = len(sure) == len(answers)
    curve = selective_accuracy([chance for chance, _ in sure], [right for _, right in sure]) if whole else {}
    return Classes(rows=per_class(answers), selective=curve)


def prefill_and_decode(given: Sequence[Generation]) -> dict[str, float]:
    """Return the mean seconds of prefill and of decoding; empty if the answerer cannot tell them apart."""
    read = [one.prefill_seconds for one in given if one.prefill_seconds is not None]
    if not given or len(read) < len(given):
        return {}
    whole = float(np.mean([one.seconds for one in given]))
    return {"prefill_seconds": float(np.mean(read)), "decode_seconds": max(0.0, whole - float(np.mean(read)))}


def alone_figures(
    alone: Sequence[Generation], together: Sequence[Answer], score: Callable[[Sequence[Generation]], Sequence[float]]
) -> dict[str, float]:
    """Return how answers to questions asked alone compare with those given in a batch, as a server gives them.

    `same_alone` is the share that is equal: 1 but where a machine's sums depend on the batch. There `score_alone` is
    the mean score alone less that in a batch. `score` scores answers; it is asked for the unequal ones only.
    """
    given = {answer.item_id: answer for answer in together}
    pairs = [(generation, given[generation.id]) for generation in alone if generation.id in given]
    unequal = [(generation, answer) for generation, answer in pairs if generation.text != answer.answer]
    figures = {"same_alone": 1 - len(unequal) / len(pairs)} if pairs else {}
    if unequal:
        scores = score([generation for generation, _ in unequal])
        figures["score_alone"] = (sum(scores) - sum(answer.score for _, answer in unequal)) / len(pairs)
    return figures


def _answer_figures(answers: Sequence[Answer], task: Task) -> dict[str, float]:
    """Return short answers' scores by the other metrics of their kind."""
    metric, unknown = find_metric(task.metric), task.task.unknown
    figures = {
        name: float(np.mean([score_answer(name, one.answer, one.reference, one.input, unknown) for one in answers]))
        for name in (other.name for other in metrics_of("answer") if other.score is not None)
        if name != task.metric and answers
    }
    if metric.may_be_unsure and answers:
        unsure = [is_undecided(metric.name, one.answer, one.reference, one.input, unknown) for one in answers]
        figures["unsure"] = float(np.mean(unsure))
        untried = [any(map(is_untried, (one.answer, *one.reference))) for one in answers]
        if any(untried):
            figures["untried"] = float(np.mean(untried))
    if metric.counts_words:
        told = [one for one in answers if not one.abstained]
        figures["facts_disagree"] = float(sum(disagrees(one.answer, one.reference, one.input) for one in told))
    return figures


def extra_figures(
    answers: Sequence[Answer], examples: Sequence[Example], task: Task, sentence_judge: SentenceJudge | None = None
) -> dict[str, float]:
    """Return further metrics that do not decide: a classifier's calibration, retrieval of the right document, and
    others.

    `ece` is that of the probabilities that are served, `ece_before` what it would be without the arm's calibration,
    `ece_by_chance` what calibrated probabilities would show on as many answers, `ece_debiased` the error less what
    chance adds to it.

    Under contains also `unsure`: the share of answers that it cannot decide, which count as wrong, and `untried`: the
    share in a language that it was not tried in, if there are any. Under a metric of
    shared words also `facts_disagree`: how many answers give other numbers or dates than their references. Under one
    that does not tell which answers are exactly right, `exact`: the share of those that are. Of texts `answer_words`:
    the mean number of words of an answer that does not abstain, and the shares of `groundedness_shares`, by
    `sentence_judge` if there is one.
    """
    figures = _answer_figures(answers, task) if task.task.kind == "answer" else {}
    if find_metric(task.metric).tells_exact and answers:
        equal = [any(same_answer(reference, row.answer) for reference in row.reference) for row in answers]
        figures["exact"] = float(np.mean(equal))
    lengths = [len(answer.answer.split()) for answer in answers if not answer.abstained]
    if task.task.kind != "classify" and lengths:
        figures["answer_words"] = sum(lengths) / len(lengths)
        figures |= groundedness_shares(answers, task.task.unknown, sentence_judge)
    if task.task.kind == "classify":
        said, right = [answer.answer for answer in answers], [answer.reference for answer in answers]
        for other in (metric.name for metric in metrics_of("classify") if metric.name != task.metric):
            scores = [score_one(other, answer.answer, answer.reference, answer.input) for answer in answers]
            figures[other] = aggregate(other, said, right, scores)
    chances = [answer.probability for answer in answers if answer.probability is not None]
    if task.task.kind == "classify" and len(chances) == len(answers):
        hits = [answer.score == 1.0 for answer in answers]
        figures["ece"] = expected_calibration_error(chances, hits)
        figures["ece_by_chance"] = calibration_error_by_chance(chances)
        figures["ece_debiased"] = debiased_calibration_error(chances, hits)
        plain = [(one.plain_probability, bool(one.plain_right)) for one in answers if one.plain_probability is not None]
        if len(plain) == len(answers):
            before, right_before = zip(*plain, strict=True) if plain else ((), ())
            figures["ece_before"] = expected_calibration_error(before, right_before)
    known = {example.id: example.passages for example in examples if example.passages}
    asked = [answer for answer in answers if answer.hits and answer.item_id in known]
    if asked:
        relevant = [known[answer.item_id] for answer in asked]
        rankings = [gold_names(answer.hits, names) for answer, names in zip(asked, relevant, strict=True)]
        depth = max(len(ranking) for ranking in rankings)
        figures[f"recall_at_{depth}"] = recall_at_k(rankings, relevant, depth)
        figures["mrr"] = mrr(rankings, relevant)
        figures[f"ndcg_at_{depth}"] = ndcg(rankings, relevant, depth)
    return figures
