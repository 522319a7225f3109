"""Bootstrap replicates of a study, of any size: items or whole groups drawn with replacement, and their tests.

The tests are those of `figures` where these are quick. For macro-F1, scores corrected by an audit, and sign flips,
whose bootstrap would be drawn anew for every replicate, they are the normal or t approximations that those tend to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from trimtab.base.metrics import find_metric
from trimtab.base.records import Answer
from trimtab.base.task import Task
from trimtab.measurement.audit import Audited
from trimtab.measurement.clusters import clustered_error, degrees_of_freedom, group_codes
from trimtab.measurement.dirichlet_bound import p_without_rare_normal
from trimtab.measurement.figures import scores_of
from trimtab.measurement.metrics import label_codes, macro_f1_parts
from trimtab.measurement.mix import effective_number, mix_weights
from trimtab.measurement.paired_proportions import mcnemar
from trimtab.measurement.resampling import FLIPS, STATISTIC_RESAMPLES, Array, Indices, p_flip_normal, sampling_units
from trimtab.measurement.runs import RunError, of_both, raised, run_error
from trimtab.measurement.statistics import FEW, Difference, p_noninferior_curve, p_reaches_curve

LEAN = 50.0  # the steepest tilt, in the exponent, over the whole range of scores


class Assumed(NamedTuple):
    """A true score that is assumed for an arm in place of the measured one."""

    arm: str
    score: float


class StudyScores:
    """The scores of all arms on the items that they all answered, from which replicates are drawn.

    `answers`: of every arm, all runs. `audited`: people's judgements that the scores are corrected by.
    """

    def __init__(self, answers: Mapping[str, Sequence[Answer]], task: Task, audited: Audited | None = None) -> None:
        self.audited, self.plain_mean = audited, not find_metric(task.metric).by_class
        by_arm = {arm: scores_of(arm_answers) for arm, arm_answers in answers.items()}
        names = sorted(set.intersection(*(set(arm_scores.items) for arm_scores in by_arm.values())))
        shared, first = set(names), next(iter(by_arm.values()))
        groups = dict(zip(first.items, first.groups, strict=True))
        self.items = len(names)
        self.codes_N = group_codes([groups[name] for name in names])
        units = sampling_units(self.items, self.codes_N)
        self._sizes_U = np.array([len(unit) for unit in units])
        self._starts_U, self._items_N = np.cumsum(self._sizes_U) - self._sizes_U, np.concatenate(units)
        slices = {row.item_id: row.slice for row in next(iter(answers.values()))}
        weights_N = mix_weights([slices[name] for name in names], task.data.mix)
        whole_N = np.ones(self.items) if weights_N is None else weights_N
        self.weights_N = whole_N
        self._weights_U = np.add.reduceat(whole_N[self._items_N], self._starts_U) / self._sizes_U
        self.efficiency = effective_number(whole_N) / self.items
        self._scores: dict[str, Array] = {}
        self._ends: dict[Assumed | None, Array] = {}
        self._labels: dict[str, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = {}
        for arm, arm_scores in by_arm.items():
            runs = [[answer for answer in run if answer.item_id in shared] for run in arm_scores.runs]
            if not self.plain_mean:
                self._labels[arm] = [
                    label_codes([answer.answer for answer in run], [answer.reference for answer in run]) for run in runs
                ]
            elif all(len(run) == self.items for run in runs):
                self._scores[arm] = np.array([[answer.score for answer in run] for run in runs])
            else:  # runs of different items: their mean alone
                self._scores[arm] = arm_scores.values_N[None, [item in shared for item in arm_scores.items]]

    def drawn(self, size: int, draw: int, assumed: Assumed | None = None) -> Replicate:
        """Return the `draw`-th replicate of about `size` items; a larger one with the same number begins with the same
        items.

        `assumed`: items are drawn so that this is the arm's true score, those on which it does well more often
        (exponential tilting). Under `data.mix` items are drawn as traffic has them, and so many that these are as
        sure as `size` weighted ones (`efficiency`).
        """
        count = max(1, round(size * self.efficiency * len(self._sizes_U) / self.items))
        chance = np.random.default_rng((0, draw)).random(count)
        if assumed is None and self.efficiency == 1.0:
            chosen = (chance * len(self._sizes_U)).astype(np.intp)
        else:
            if assumed not in self._ends:
                self._ends[assumed] = np.cumsum(self._weights_U if assumed is None else self._leaning(assumed))
            ends = self._ends[assumed]
            chosen = np.minimum(np.searchsorted(ends, chance * ends[-1]), len(ends) - 1)
        if self.codes_N is None:
            return Replicate(self, chosen, None)
        sizes = self._sizes_U[chosen]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        items = self._items_N[np.repeat(self._starts_U[chosen], sizes) + within]
        return Replicate(self, items, np.repeat(np.arange(count), sizes))

    def can_be(self, assumed: Assumed) -> bool:
        """True if the arm has scores on either side of the assumed one, so that drawing can reach it."""
        sums, _ = self._by_unit(assumed)
        return bool(sums.max() > 0 > sums.min())

    def _by_unit(self, assumed: Assumed) -> tuple[Array, Array]:
        """Return the excess of each unit's scores over the assumed one, in sum and on average."""
        parts_N = self.parts(assumed.arm, np.arange(self.items)).mean(0)[self._items_N]
        wanted, value = assumed.score, float(np.average(parts_N, weights=self.weights_N[self._items_N]))
        if self.audited is not None:
            wanted += value - self.audited.corrected_score(assumed.arm, value, 0.0)[0]
        sums = np.add.reduceat(parts_N, self._starts_U) - wanted * self._sizes_U
        return sums, sums / self._sizes_U

    def _leaning(self, assumed: Assumed) -> Array:
        """Return the weight of each unit under which the arm's mean is the assumed one."""
        sums, above = self._by_unit(assumed)

        def weights(lean: float) -> Array:
            tilted: Array = self._weights_U * np.exp(lean * (above - above.max()))
            return tilted

        steepest = LEAN / float(np.ptp(above))
        lean: float = optimize.brentq(lambda lean: float(weights(lean) @ sums), -steepest, steepest)
        return weights(lean)

    def parts(self, arm: str, items: Indices) -> Array:
        """Return `[runs, items]`: the contribution of each item to the arm's figure, which is their mean."""
        if self.plain_mean:
            return self._scores[arm][:, items]
        return np.array([macro_f1_parts(true[items], given[items]) for true, given in self._labels[arm]])

    def weighted(self, arm: str, weights_DN: Array) -> Array:
        """Return an arm's figure under each row of weights of the items, for macro-F1 to first order: `[rows]`."""
        found_D: Array = weights_DN @ self.parts(arm, np.arange(self.items)).mean(0) / weights_DN.sum(1)
        return found_D

    def run_error(self, arm: str) -> RunError:
        """Return the error of an arm's figure that comes from its runs."""
        parts_SN = self.parts(arm, np.arange(self.items))
        return run_error([float(np.average(parts_N, weights=self.weights_N)) for parts_N in parts_SN])

    def rarest_class(self, items: Indices) -> tuple[str, int] | None:
        """Return the class with fewer than 10 items, as `figures.rarest_class` does, without its name."""
        if self.plain_mean:
            return None
        true_N, _ = next(iter(self._labels.values()))[0]
        fewest = min(count for count in np.bincount(true_N[items]).tolist() if count)
        return ("", fewest) if fewest < FEW else None


class Replicate:
    """One drawn study: every arm's figure, and the tests that the decision makes. `chosen`: indices of the items;
    `codes`: their groups."""

    def __init__(self, study: StudyScores, items: Indices, codes: Indices | None) -> None:
        self._study, self.chosen, self.codes = study, items, codes
        self._known: dict[str, tuple[Array, RunError]] = {}

    @property
    def items(self) -> int:
        """The number of items drawn."""
        return len(self.chosen)

    @property
    def rarest_class(self) -> tuple[str, int] | None:
        """The class with fewer than 10 items among those drawn, where the metric counts classes."""
        return self._study.rarest_class(self.chosen)

    def value(self, arm: str) -> float:
        """Return the arm's figure, corrected by the audit if that of the study is."""
        parts_N, _ = self._arm(arm)
        audited = self._study.audited
        if audited is None or arm not in audited.arms:
            return float(parts_N.mean())
        return audited.corrected_score(arm, float(parts_N.mean()), 0.0)[0]

    def p_target(self, arm: str, target: float) -> float:
        """Return the one-sided p-value of "the arm does not reach the target"."""
        parts_N, runs = self._arm(arm)
        value = float(parts_N.mean())
        audited = self._study.audited
        if audited is not None and arm in audited.arms:
            error = math.hypot(self._error(parts_N), math.sqrt(runs.variance))
            return _t_above(target, *audited.corrected_score(arm, value, error, self._grown))
        if self._study.plain_mean:
            p = p_reaches_curve(parts_N, self.codes)(target)
        else:
            p = _t_above(target, value, self._error(parts_N), self._degrees)
        return raised(p, value - target, runs)

    def p_behind(self, arm: str, other: str, margin: float) -> float:
        """Return the one-sided p-value of "the arm is behind the other by the margin or more"."""
        (one_N, one_runs), (other_N, other_runs) = self._arm(arm), self._arm(other)
        gap, runs = float((one_N - other_N).mean()), of_both(one_runs, other_runs)
        if self._study.audited is not None:
            return _t_above(-margin, *self._audited_gap(self._study.audited, arm, other, gap, runs))
        if self._study.plain_mean:
            p = p_noninferior_curve(one_N, other_N, self.codes)(margin)
        else:
            p = _t_above(-margin, gap, self._error(one_N - other_N), self._degrees)
        return raised(p, gap + margin, runs)

    def difference(self, arm: str, other: str) -> Difference:
        """Return the arm's score minus the other's, and the two-sided p-value of "no difference"; without an interval,
        as none decides."""
        (one_N, one_runs), (other_N, other_runs) = self._arm(arm), self._arm(other)
        gaps_N, runs = one_N - other_N, of_both(one_runs, other_runs)
        gap = float(gaps_N.mean())
        if self._study.audited is not None:
            gap, error, degrees = self._audited_gap(self._study.audited, arm, other, gap, runs)
            return Difference(gap, -1.0, 1.0, min(1.0, 2 * _t_above(0.0, abs(gap), error, degrees)))
        if not self._study.plain_mean:
            p = max(2 * _t_above(0.0, abs(gap), self._error(gaps_N), self._degrees), 1 / STATISTIC_RESAMPLES)
        elif self.codes is not None:
            sums_G = np.bincount(self.codes, gaps_N).astype(np.float64)
            p = max(p_flip_normal(sums_G), 1 / (FLIPS + 1), p_without_rare_normal(sums_G * len(sums_G) / len(gaps_N)))
        elif self._right_wrong(one_N) and self._right_wrong(other_N):
            p = mcnemar(int(np.count_nonzero(gaps_N > 0)), int(np.count_nonzero(gaps_N < 0)))
        else:
            p = max(p_flip_normal(gaps_N), 1 / (FLIPS + 1), p_without_rare_normal(gaps_N))
        return Difference(gap, -1.0, 1.0, min(1.0, 2 * raised(p / 2, abs(gap), runs)))

    def _arm(self, arm: str) -> tuple[Array, RunError]:
        """Return an arm's score of each item, and the error that its runs add."""
        if arm not in self._known:
            parts_SN = self._study.parts(arm, self.chosen)
            single = len(parts_SN) == 1
            self._known[arm] = (
                (parts_SN[0], run_error(())) if single else (parts_SN.mean(0), run_error(list(parts_SN.mean(1))))
            )
        return self._known[arm]

    def _audited_gap(
        self, audited: Audited, arm: str, other: str, gap: float, runs: RunError
    ) -> tuple[float, float, float]:
        parts_N = self._arm(arm)[0] - self._arm(other)[0]
        error = math.hypot(self._error(parts_N), math.sqrt(runs.variance))
        return audited.corrected_gap(arm, other, gap, error, self._grown)

    @property
    def _grown(self) -> float:
        return self.items / (self._study.items * self._study.efficiency)

    def _error(self, parts_N: Array) -> float:
        """Return the standard error of the mean over items or groups."""
        if self.codes is not None and self.codes[-1] > 0:
            return clustered_error(parts_N, self.codes)
        return float(parts_N.std(ddof=1)) / math.sqrt(len(parts_N)) if len(parts_N) > 1 else math.inf

    @cached_property
    def _degrees(self) -> float:
        return math.inf if self.codes is None else degrees_of_freedom(self.codes)

    @staticmethod
    def _right_wrong(parts_N: Array) -> bool:
        return bool(((parts_N == 0) | (parts_N == 1)).all())


def _t_above(null: float, value: float, error: float, degrees: float) -> float:
    """Return the p-value of "the true value is at most `null`", for a value with this standard error."""
    if error <= 0 or not math.isfinite(error):
        return 1.0
    ratio = (value - null) / error
    return float(special.stdtr(degrees, -ratio) if math.isfinite(degrees) else special.ndtr(-ratio))
