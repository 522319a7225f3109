"""Human audit: people judge a sample of the answers, which gives the metric's error rates by arm and corrected scores.

Questions are drawn, and of each question every arm's answer is judged, so that arms are compared on the same
questions. They are drawn in three strata (`_strata`), each at its own rate (`_rates`), and weighted back. Where two
arms gave the same answer, their difference is 0 whatever people say of it: it is estimated from the other questions.
The corrected mean is that of PPI++ (Angelopoulos, Duchi & Zrnic 2023) over a stratified draw: λ·mean(f) +
mean(y − λ·f over the audited), f the metric's scores and y what people say, both from 0 to 1, with the λ that leaves
the least variance. The draw is of single questions, so that groups of questions do not matter for it; they matter for
how far all questions stand for further ones. Under `data.mix` every mean is the weighted one: a stratum counts as much
as its questions weigh, and the judged ones stand for it in proportion to their weights (Hájek's ratio).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trimtab.base.metrics import find_metric
from trimtab.base.records import Answer
from trimtab.base.results import AuditedArm, Estimate
from trimtab.base.task import Task
from trimtab.measurement.figures import difference, score_estimate
from trimtab.measurement.mix import effective_number, mix_weights
from trimtab.measurement.power import POWER
from trimtab.measurement.raters import ASKED, Sources
from trimtab.measurement.resampling import Curve
from trimtab.measurement.statistics import LEVEL, Difference

ENOUGH = 60  # audited answers of each arm from which on its score is corrected
# the least effective number of these under a mix of slices: of fewer, a few heavy answers make the correction
ENOUGH_WEIGHTED = 20
# How often questions on which right and wrong differ between arms are drawn, and those that all arms answered alike;
# the others count 1. Graded scores differ on most questions, and are no less sure there (`judged_simulation.py`).
RATE_DIFFERING, RATE_ALIKE = 1.5, 0.5
# Judged questions from which on their errors tell how many more are needed; with fewer the metric is taken to be right
# on average, and to differ from people by GUESSED_ERROR on a question (standard deviation, scores and differences).
PILOT, GUESSED_ERROR = 20, 0.3
LEAST_UNLIKE = 10  # judged questions with different answers, from which on a difference is estimated from these alone
Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class AuditItem:
    """One answer to be judged, with its question and references; it does not name the arm that gave it.

    `passages`: ids of the passages that were shown with the question. `criterion`: that of `[judge]` by which it is
    graded; empty where it is right or wrong. `against`: the answer that it is compared with; empty where it is judged
    alone.
    """

    item_id: str
    question: str
    references: tuple[str, ...]
    answer: str
    passages: tuple[str, ...] = ()
    criterion: str = ""
    against: str = ""

    @property
    def place(self) -> str:
        """The place of the answer beside the one it is compared with, drawn by a hash: `first` or `second`."""
        return "first" if int(_hash(f"{self.item_id}\0{self.answer}\0{self.criterion}"), 16) % 2 else "second"

    @property
    def parts(self) -> list[tuple[str, tuple[str, ...]]]:
        """The texts to display, with their headings; empty ones are left out."""
        sides = (self.answer, self.against) if self.place == "first" else (self.against, self.answer)
        alone = (("Answer", (self.answer,)),)
        shown = (
            ("Question", (self.question,)),
            ("Reference", self.references),
            ("Passages", self.passages),
            *((("First", sides[:1]), ("Second", sides[1:])) if self.against else alone),
            ("Criterion", (self.criterion,) if self.criterion else ()),
        )
        return [(name, texts) for name, texts in shown if texts]


def audited_answers(answers: Mapping[str, Sequence[Answer]]) -> dict[str, dict[str, Answer]]:
    """Return, for each arm, its answers in its first seed, by question."""
    return {arm: {one.item_id: one for one in sorted(own, key=lambda one: -one.seed)} for arm, own in answers.items()}


def criterion_shares(task: Task) -> dict[str, float]:
    """Return what people judge an answer by, with the weight in its score: the criteria of `[judge]` in their words,
    else one nameless criterion: whether it is right.
    """
    if task.judge is None:
        return {"": 1.0}
    of_pairs = " (of two answers)" * task.judges_pairs
    return {f"{name}{of_pairs}: {task.judge.criteria[name]}": share for name, share in task.judge.shares.items()}


def draw_audit(
    answers: Mapping[str, Sequence[Answer]],
    count: int,
    criteria: Iterable[str] = ("",),
    *,
    for_target: bool = False,
    pairs: bool = False,
) -> list[AuditItem]:
    """Draw the answers to be judged for an audit of `count` questions, each by every criterion; return them in the
    order in which they are displayed.

    Questions come from their strata in turn, as often as `_rates` says. The order within a stratum is that of a hash,
    so that a larger draw goes on where a smaller one ended; equal answers are judged once. `for_target`: scores are
    held against a target, for which a question counts as much where all arms answered alike. `pairs`: each answer is
    compared with the first reference, and nothing tells which of the two that is.
    """
    own, criteria = audited_answers(answers), tuple(criteria)
    turns = []
    for items, rate in zip(_strata(own), _rates(own, for_target=for_target), strict=True):
        ordered = sorted(items, key=_hash)
        turns += [((place + 0.5) / (rate * len(ordered)), item) for place, item in enumerate(ordered)]
    shown: list[AuditItem] = []
    for _, item in sorted(turns)[:count]:
        given = [arm[item] for arm in own.values()]
        texts = sorted({one.answer for one in given}, key=lambda text: _hash(f"{item}\0{text}"))
        first = given[0]
        sides = {"references": (), "against": first.reference[0]} if pairs else {"references": first.reference}
        shown += [
            AuditItem(item_id=item, question=first.input, answer=text, criterion=criterion, **sides)
            for text in texts
            for criterion in criteria
        ]
    return shown


def _strata(own: Mapping[str, Mapping[str, Answer]]) -> tuple[list[str], list[str], list[str]]:
    """Return three strata of the questions that every arm answered: those on which the arms' scores differ, those on
    which only the answers do, and those that all answered alike."""
    items = sorted(set.intersection(*(set(arm) for arm in own.values()))) if own else []
    differing = {item for item in items if len({arm[item].score for arm in own.values()}) > 1}
    alike = {item for item in items if item not in differing and len({arm[item].answer for arm in own.values()}) == 1}
    return sorted(differing), sorted(set(items) - differing - alike), sorted(alike)


def _rates(own: Mapping[str, Mapping[str, Answer]], *, for_target: bool) -> tuple[float, float, float]:
    """Return how often the questions of each stratum are drawn, beside those of which only the answers differ."""
    tells_right = all(one.score in (0.0, 1.0) for arm in own.values() for one in arm.values())
    are_compared = len(own) > 1 and not for_target
    return RATE_DIFFERING if tells_right else 1.0, 1.0, RATE_ALIKE if are_compared else 1.0


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _drawn(items: Sequence[str], judged: set[str], sources: Sources) -> list[str]:
    """Return the judged questions of a stratum that stand for all of it.

    Those that somebody chose to judge do not, but for those whose turn came: the draw is of the first questions by
    their hashes, up to the last that an audit asked for, whoever judged them.
    """
    ordered = sorted(items, key=_hash)
    if judged.issuperset(ordered):
        return ordered
    last = max((place for place, item in enumerate(ordered) if item in judged & sources.asked), default=-1)
    return [
        item for place, item in enumerate(ordered) if item in judged and (item not in sources.chosen or place <= last)
    ]


@dataclass(frozen=True, slots=True)
class _Part:
    """Some of the questions. By stratum: how many they are, and their share of all, by weight; `judged`: which judged
    questions are among them."""

    sizes: list[int]
    shares: list[float]
    judged: NDArray[np.bool_]


class Audited:
    """People's judgements of a study's answers beside the metric's scores; `judged`: a score from 0 to 1, by question
    and answer; right is 1 and wrong 0.

    `looks`: how often the study has been decided with people's judgements, this time included. Whoever judges on until
    something is shown would find it by chance: the k-th look is taken at the level of .05 / k^1.5 (`_wider`).
    `sources`: how the questions came to be judged; those that stand for no others are `unused`.
    """

    def __init__(
        self,
        answers: Mapping[str, Sequence[Answer]],
        judged: Mapping[tuple[str, str], float],
        task: Task,
        looks: int = 1,
        sources: Sources = ASKED,
    ) -> None:
        self._looks, self._wider, self._beyond = looks, _wider(looks), 0.0
        self._planned: int | None = None  # how many judged questions the errors are for, where not for those there are
        self.answers, self.judged, self.task, self._sources = answers, judged, task, sources
        self._plain_scores: dict[str, Estimate] = {}
        self._plain_gaps: dict[tuple[str, str], Difference] = {}
        own = audited_answers(answers)
        strata = _strata(own)
        self.arms, self._own, self._strata = tuple(answers), own, strata
        whole = sorted(item for part in strata for item in part)
        slices = {one.item_id: one.slice for one in next(iter(answers.values()), ())}
        found = mix_weights([slices[item] for item in whole], task.data.mix) if whole else None
        self._efficiency = None if found is None else effective_number(found) / len(found)
        weight = dict.fromkeys(whole, 1.0) if found is None else dict(zip(whole, found.tolist(), strict=True))
        self._weight_of = weight
        whole_judged = {item for item in whole if all((item, arm[item].answer) in judged for arm in own.values())}
        done = [_drawn(items, whole_judged, sources) for items in strata]
        self.unused = len(whole_judged) - sum(map(len, done))
        self._stratum = np.repeat(np.arange(len(strata)), [len(items) for items in done])
        items = [item for part in done for item in part]
        self._items, self._own_weights = items, np.array([weight[item] for item in items])
        self._all, self._parts = self._part(set(whole)), dict[tuple[str, str], _Part]()
        groups = {one.item_id: one.group for one in next(iter(answers.values()), ())}
        self._all_groups = [groups[item] or f"\0{item}" for item in whole]  # a row without a group is one of its own
        self._groups = [groups[item] or f"\0{item}" for item in items]
        self._said = {arm: np.array([float(judged[item, own[arm][item].answer]) for item in items]) for arm in own}
        self._scored = {arm: np.array([own[arm][item].score for item in items]) for arm in own}

    def _part(self, among: set[str]) -> _Part:
        inside = [[item for item in items if item in among] for items in self._strata]
        whole = max(1, len(self._weight_of))
        return _Part(
            sizes=[len(items) for items in inside],
            shares=[math.fsum(self._weight_of[item] for item in items) / whole for items in inside],
            judged=np.array([item in among for item in self._items], dtype=bool),
        )

    def _unlike(self, a: str, b: str) -> _Part:
        """Return the questions on which two arms' answers or scores differ; all, where few of these are judged."""
        if (a, b) not in self._parts:
            one, other = self._own[a], self._own[b]
            unlike = {
                item
                for item in self._weight_of
                if (one[item].answer, one[item].score) != (other[item].answer, other[item].score)
            }
            part = self._part(unlike)
            self._parts[a, b] = part if part.judged.sum() >= LEAST_UNLIKE else self._all
        return self._parts[a, b]

    @property
    def count(self) -> int:
        """Number of questions of which every arm's answer was judged."""
        return len(self._stratum)

    def planned(self, count: int) -> Audited:
        """Return the audit as it would be with `count` judged questions, at the next look.

        Figures stay as they are; errors are those by which so many questions show in POWER of audits what is truly so.
        """
        other = copy(self)
        other._planned = count
        other._wider = _wider(self._looks + 1)
        other._beyond = float(stats.norm.isf(1 - POWER) / stats.norm.isf(LEVEL / 2))
        return other

    @property
    def least(self) -> int:
        """The number of judged questions from which on scores are corrected, as far as it can be told before."""
        efficiency = self.effective / self.count if self.effective and self.count else self._efficiency or 1.0
        return max(ENOUGH, math.ceil(ENOUGH_WEIGHTED / efficiency))

    @property
    def questions(self) -> int:
        """Number of questions that every arm answered."""
        return len(self._weight_of)

    def under(self, task: Task) -> Audited | None:
        """Return the same judgements under the mix of slices of another task; None if they are too few for it."""
        found = Audited(self.answers, self.judged, task, self._looks, self._sources)
        return None if found.why_not else found

    @cached_property
    def effective(self) -> float | None:
        """Effective number of judged questions; None if all questions have the same weight.

        Kish's number by stratum, but no larger a share of them than of all questions: where no question of a heavy
        slice is judged, those that are weigh alike and know nothing of it.
        """
        if self._efficiency is None or not self.count:
            return None
        return self._effective(self._all)

    def _effective(self, part: _Part) -> float:
        count = int(part.judged.sum())
        if self._efficiency is None:
            return count
        of_strata = [
            self._own_weights[part.judged & (self._stratum == stratum)] for stratum in range(len(self._strata))
        ]
        found = math.fsum(effective_number(weights) for weights in of_strata if len(weights))
        return min(found, self._efficiency * count)

    @cached_property
    def why_not(self) -> str | None:
        """Reason for which scores are not corrected; None if they are."""
        if self.count < ENOUGH:
            return f"{self.count} of {ENOUGH} questions are judged"
        if self.never is not None:
            return self.never
        if self.effective is not None and self.effective < ENOUGH_WEIGHTED:
            return (
                f"weighted by data.mix, the {self.count} judged questions are as sure as {self.effective:.0f} "
                f"that count alike, and {ENOUGH_WEIGHTED} are needed"
            )
        return None

    @cached_property
    def never(self) -> str | None:
        """Reason for which scores are not corrected however many questions are judged; None if they are."""
        if find_metric(self.task.metric).by_class:
            return "macro-F1 is no mean over answers"
        if not self._tells_right and not find_metric(self.task.metric).judged:
            return "the metric gives parts of a point, and people say right or wrong"
        return None

    @cached_property
    def _tells_right(self) -> bool:
        """True if every score is 0 or 1: those of a metric that says right or wrong, and of many a scorer."""
        return all(answer.score in (0.0, 1.0) for rows in self.answers.values() for answer in rows)

    @cached_property
    def by_arm(self) -> tuple[AuditedArm, ...]:
        """The metric's agreement with people, arm by arm."""
        return tuple(self._agreement(arm) for arm in self.arms) if self.count else ()

    def _agreement(self, arm: str) -> AuditedArm:
        said, scored, weights = self._said[arm], self._scored[arm], self._weights
        right, wrong = (said == 1) & self._tells_right, (said == 0) & self._tells_right
        return AuditedArm(
            arm=arm,
            questions=self.count,
            sensitivity=_share(scored[right], weights[right]) if right.any() else None,
            specificity=_share(1 - scored[wrong], weights[wrong]) if wrong.any() else None,
            kappa=cohen_kappa(said, scored, weights) if self._tells_right else None,
            metric_score=self.plain_score(arm),
            corrected=self.score(arm),
        )

    @property
    def _weights(self) -> Numbers:
        """The share of all questions, by weight, that each judged one represents."""
        judged = np.bincount(self._stratum, self._own_weights, minlength=len(self._strata))
        shares = np.array([self._all.shares[stratum] / judged[stratum] for stratum in self._stratum])
        found: Numbers = shares * self._own_weights
        return found

    def score(self, arm: str) -> Estimate:
        """Estimate the share of right answers by people's judgement, from the metric's scores of all questions and the
        judgements of some."""
        value, error, degrees = self._score(arm)
        reach = float(stats.t.isf(LEVEL / 2, degrees)) * error
        count = len({row.item_id for row in self.answers[arm]})
        low, high = max(0.0, value - reach), min(1.0, value + reach)
        return Estimate(value=value, low=low, high=high, n=count, n_effective=self.plain_score(arm).n_effective)

    def floor(self, arm: str) -> float:
        """Return the lower one-sided 95% bound of the corrected score."""
        value, error, degrees = self._score(arm)
        return max(0.0, value - float(stats.t.isf(LEVEL, degrees)) * error)

    def target_curve(self, arm: str) -> Curve:
        """Return the one-sided p-value of "does not reach the target", as a function of the target."""
        value, error, degrees = self._score(arm)
        return lambda target: float(stats.t.sf((value - target) / error, degrees))

    def difference(self, a: str, b: str) -> Difference:
        """Return the corrected difference of arm a minus arm b on the same items."""
        value, error, degrees = self._gap(a, b)
        reach = float(stats.t.isf(LEVEL / 2, degrees)) * error
        p = min(1.0, 2 * float(stats.t.sf(abs(value) / error, degrees)))
        return Difference(value, max(-1.0, value - reach), min(1.0, value + reach), p)

    def behind_curve(self, a: str, b: str) -> Curve:
        """Return the one-sided p-value of "a is behind b by the margin or more", as a function of the margin."""
        value, error, degrees = self._gap(a, b)
        return lambda margin: float(stats.t.sf((value + margin) / error, degrees))

    def uneven(self, margin: float) -> tuple[str, str, float] | None:
        """Find two arms that the metric is shown to favour unequally by more than the margin; return them and the
        difference, or None.

        Shown at .05 over all pairs of arms (Bonferroni).
        """
        pairs = list(combinations(self.arms, 2))
        found = []
        for a, b in pairs:
            errors = [self._said[arm] - self._scored[arm] for arm in (a, b)]
            gap = errors[0] - errors[1]
            part = self._unlike(a, b)
            mean, variance = self._mean(gap, part)
            reach = float(stats.t.isf(LEVEL / 2 / len(pairs), self._degrees(part))) * math.sqrt(variance)
            if abs(mean) - reach > margin:
                found.append((a, b, mean))
        return max(found, key=lambda pair: abs(pair[2]), default=None)

    def corrected_score(self, arm: str, value: float, error: float, times: float = 1.0) -> tuple[float, float, float]:
        """Return an arm's corrected score, its standard error and degrees of freedom, given the metric's value and its
        standard error.

        `times`: as many questions as those of this study are asked, of which the same ones were judged.
        """
        return self._corrected(value, error, self._said[arm], self._scored[arm], times, self._all)

    def corrected_gap(
        self, a: str, b: str, value: float, error: float, times: float = 1.0
    ) -> tuple[float, float, float]:
        """Return the corrected difference of arm a minus arm b, as `corrected_score` does for a score."""
        said, scored = self._said[a] - self._said[b], self._scored[a] - self._scored[b]
        return self._corrected(value, error, said, scored, times, self._unlike(a, b))

    def plain_score(self, arm: str) -> Estimate:
        """Return an arm's score by the metric alone."""
        if arm not in self._plain_scores:
            self._plain_scores[arm] = score_estimate(self.answers[arm], self.task)
        return self._plain_scores[arm]

    def _score(self, arm: str) -> tuple[float, float, float]:
        plain = self.plain_score(arm)
        return self.corrected_score(arm, plain.value, _error(plain.low, plain.high))

    def plain_gap(self, a: str, b: str) -> Difference:
        """Return the difference of arm a minus arm b by the metric alone."""
        if (a, b) not in self._plain_gaps:
            self._plain_gaps[a, b] = difference(self.answers[a], self.answers[b], self.task)
        return self._plain_gaps[a, b]

    def _gap(self, a: str, b: str) -> tuple[float, float, float]:
        plain = self.plain_gap(a, b)
        return self.corrected_gap(a, b, plain.difference, _error(plain.low, plain.high))

    def _corrected(
        self, plain: float, error: float, said: Numbers, scored: Numbers, times: float, part: _Part
    ) -> tuple[float, float, float]:
        """Return value, standard error and degrees of freedom; outside of `part` all values are 0.

        The sampling error of the questions is that of people's judgements: of λ times the metric's figure and of the
        rest, or of both at once where questions come in groups, by which the two vary together. A metric that says
        little differs less from question to question than people do; the error of its figure is the least that is
        taken.
        """
        if self._planned is not None and self.count < PILOT:
            least = GUESSED_ERROR**2 * max(0.0, 1 / self._planned - 1 / (times * self.questions))
            return plain, self._whole_error(error**2, least), max(1.0, float(self._planned))
        share = self._share_of_metric(said, scored)
        rest, variance = self._mean(said - share * scored, part, times)
        if len(set(self._all_groups)) < len(self._all_groups):
            questions = self._asking_variance(said) / times
        else:
            questions = (share * error) ** 2 + self._asking_variance(said - share * scored) / times
        asked = max(error**2, questions)
        return share * plain + rest, self._whole_error(asked, variance), self._degrees(part)

    def _whole_error(self, asked: float, judged: float) -> float:
        """Return the standard error, from the variances that the choice of the questions and that of the judged ones
        leave."""
        return math.sqrt(self._wider**2 * asked + (self._wider + self._beyond) ** 2 * judged)

    def _asking_variance(self, values: Numbers) -> float:
        """Return the variance of the mean over all questions, as draws from the questions that could be asked; groups
        are drawn whole.

        The variance grows by 1 + ρ (Σ m² / N − 1), ρ the correlation within groups and m their sizes (Kish 1965), and
        its error is that of a t on as many degrees of freedom as groups but one.
        """
        weights, count = self._weights / self._weights.sum(), len(values)
        rest = values - float(weights @ values)
        spread = float(weights @ rest**2) * count / max(1, count - 1)
        each = spread / (len(self._all_groups) * (self._efficiency or 1.0))
        sizes = np.array(list(Counter(self._all_groups).values()), dtype=float)
        more = float((sizes**2).sum() / sizes.sum()) - 1
        if more == 0:
            return each
        wider = float(stats.t.isf(LEVEL / 2, max(1, len(sizes) - 1)) / stats.norm.isf(LEVEL / 2))
        return wider**2 * each * (1 + self._correlation(rest) * more)

    def _correlation(self, values: Numbers) -> float:
        """Return the correlation of values within groups, 0 to 1, by an analysis of variance of the judged questions
        (Donner 1986); 1 where none knows of it: no two of one group, or all of one.
        """
        by_group: dict[str, list[float]] = {}
        for group, value in zip(self._groups, values.tolist(), strict=True):
            by_group.setdefault(group, []).append(value)
        count, groups = len(values), len(by_group)
        if groups in (1, count):
            return 1.0
        sizes = np.array([len(own) for own in by_group.values()], dtype=float)
        gaps = np.array([np.mean(own) for own in by_group.values()]) - values.mean()
        between = float(sizes @ gaps**2)
        within = (count * float(values.var()) - between) / (count - groups)
        between /= groups - 1
        usual = (count - float(sizes @ sizes) / count) / (groups - 1)  # size of a group
        whole = between + (usual - 1) * within
        return float(np.clip((between - within) / whole, 0.0, 1.0)) if whole > 0 else 0.0

    def _share_of_metric(self, said: Numbers, scored: Numbers) -> float:
        """Return λ: the slope of the judgements on the metric's scores, clipped to 0..1; 1 if the metric gives all the
        same score."""
        weights = self._weights
        centred = scored - np.average(scored, weights=weights)
        spread = float(np.average(centred**2, weights=weights))
        return float(np.clip(np.average(centred * said, weights=weights) / spread, 0.0, 1.0)) if spread > 0 else 1.0

    def _mean(self, values: Numbers, part: _Part, times: float = 1.0) -> tuple[float, float]:
        """Return the mean over all questions, `times` as many as there are, and its variance, both estimated from the
        judged ones of `part`; outside of it all values are 0.

        One more deviation of a whole point to each side is counted, shared out over the strata: sixty answers
        without an error of the metric do not show that it makes none. Of questions that weigh differently the larger
        of two variances is taken: that of the ratio, and that of as many questions as they count for, each with the
        spread of all, since a few heavy ones may happen to agree.
        """
        mean = variance = 0.0
        here = {stratum: part.judged & (self._stratum == stratum) for stratum in range(len(self._strata))}
        here = {stratum: judged for stratum, judged in here.items() if judged.any()}
        effective = {stratum: effective_number(self._own_weights[judged]) for stratum, judged in here.items()}
        standing_for = math.fsum(part.shares) / math.fsum(part.shares[stratum] for stratum in here) if here else 0.0
        for stratum, judged in here.items():
            count, own = effective[stratum], values[judged]
            shares = self._own_weights[judged] / self._own_weights[judged].sum()
            whole = part.shares[stratum] * standing_for
            centre = float(shares @ own)
            squares = max(count * float(shares @ (own - centre) ** 2), (count * shares) ** 2 @ (own - centre) ** 2)
            more = 2 * count / sum(effective.values())
            spread = (squares + more) / max(1.0, count + more - 1)
            mean += whole * centre
            drawn = min(part.sizes[stratum], len(own) * self._grown)
            variance += whole**2 * (1 - drawn / (times * part.sizes[stratum])) * spread / (count * drawn / len(own))
        return mean, variance

    @property
    def _grown(self) -> float:
        return 1.0 if self._planned is None else self._planned / self.count

    def _degrees(self, part: _Part) -> float:
        return max(1.0, self._effective(part) * self._grown - len(set(self._stratum[part.judged].tolist())))


def _wider(looks: int) -> float:
    """Return how much wider than with one look the interval is with so many.

    In simulation a difference of equal arms is then shown in 2 to 5% of audits that are read 5 to 48 times; at .05 / k,
    and of the judgements' error alone, it was 5 to 14%.
    """
    return float(stats.norm.isf(LEVEL / 2 / max(1, looks) ** 1.5) / stats.norm.isf(LEVEL / 2))


def _error(low: float, high: float) -> float:
    """Return the standard error to which a 95% interval corresponds."""
    return max((high - low) / (2 * float(stats.norm.isf(0.025))), 1e-9)


def _share(values: Numbers, weights: Numbers) -> Estimate:
    """Return a weighted share with its 95% interval (Clopper & Pearson 1934, at the effective number of answers)."""
    share = float(np.average(values, weights=weights))
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    hits, misses = share * effective, (1 - share) * effective
    low = float(stats.beta.ppf(0.025, hits, misses + 1)) if hits > 0 else 0.0
    high = float(stats.beta.ppf(0.975, hits + 1, misses)) if misses > 0 else 1.0
    return Estimate(value=share, low=low, high=high, n=len(values))


def cohen_kappa(first: Numbers, second: Numbers, weights: Numbers | None = None) -> Estimate:
    """Return Cohen's κ (1960) of two raters who say right (1) or wrong (0) of the same answers, with its 95% interval
    at the expected chance agreement."""
    weights = np.ones(len(first)) if weights is None else weights
    agreement = _share((first == second).astype(float), weights)
    shares = [float(np.average(values, weights=weights)) for values in (first, second)]
    chance = shares[0] * shares[1] + (1 - shares[0]) * (1 - shares[1])

    def kappa(share: float) -> float:
        return (share - chance) / (1 - chance) if chance < 1 else float(share == 1)

    low, value, high = (kappa(share) for share in (agreement.low, agreement.value, agreement.high))
    return Estimate(value=value, low=low, high=high, n=agreement.n)
