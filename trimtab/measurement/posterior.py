"""Posterior draws of the true scores of all arms of a study: a Bayesian bootstrap over the items (Rubin 1981).

Each draw weighs the items, or the groups that they form, by exponential numbers, the same ones for every arm, so that
arms stay paired. To each arm half an item that is right and half an item that is wrong are added (Jeffreys' prior): 40
right answers of 40 do not mean certainty. Draws are stretched as t is wider than the normal distribution, by the number
of units, and at a later look at the same questions as the interval at its level is wider than one at .05.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import special

from trimtab.measurement.audit import Audited
from trimtab.measurement.clusters import degrees_of_freedom
from trimtab.measurement.replicates import StudyScores
from trimtab.measurement.resampling import CHUNK, Array
from trimtab.measurement.statistics import LEVEL

DRAWS = 2_000
SEED = 20


def posterior_draws(scores: StudyScores, values: Mapping[str, float], level: float = LEVEL) -> Array:
    """Return `[draws, arms]`: draws of the true scores of the arms, given the answers, their groups, mix, runs and
    audit.

    `values`: each arm's measured score, after the audit if there is one. `level`: of this look at the questions.
    """
    random, arms = np.random.default_rng(SEED), list(values)
    values_A = np.array(list(values.values()))
    units = scores.items if scores.codes_N is None else int(scores.codes_N.max()) + 1
    drawn_DA = _bootstrap(scores, arms, units, random)
    if not scores.plain_mean:
        drawn_DA += values_A - np.array([scores.weighted(arm, scores.weights_N[None])[0] for arm in arms])
    degrees = units - 1.0 if scores.codes_N is None else degrees_of_freedom(scores.codes_N)
    wider = math.sqrt((units + 1) / max(1, units - 1)) * special.ndtri(1 - level / 2) / special.ndtri(1 - LEVEL / 2)
    centre_A = drawn_DA.mean(0)
    drawn_DA = centre_A + wider * _t_scale(random, degrees)[:, None] * (drawn_DA - centre_A)
    for place, arm in enumerate(arms):
        runs = scores.run_error(arm)
        if runs.variance > 0:
            noise_D = random.standard_normal(DRAWS) * _t_scale(random, runs.degrees)
            drawn_DA[:, place] += math.sqrt(runs.variance) * noise_D
    if scores.audited is not None:
        drawn_DA = _audited(scores.audited, arms, values_A, drawn_DA, random)
    return np.clip(drawn_DA, 0.0, 1.0)


def _bootstrap(scores: StudyScores, arms: Sequence[str], units: int, random: np.random.Generator) -> Array:
    """Return `[draws, arms]`: each arm's figure under random weights of the units, with Jeffreys' half items."""
    drawn_DA, rows = np.empty((DRAWS, len(arms))), max(1, CHUNK // scores.items)
    for start in range(0, DRAWS, rows):
        part = slice(start, min(start + rows, DRAWS))
        weights_DU = random.standard_exponential((part.stop - start, units))
        weights_DN = weights_DU if scores.codes_N is None else weights_DU[:, scores.codes_N]
        weights_DN = weights_DN * scores.weights_N
        drawn_DA[part] = np.stack([scores.weighted(arm, weights_DN) for arm in arms], axis=1)
    count = units * scores.efficiency
    whole_D1 = random.gamma(count, size=(DRAWS, 1))
    right_DA, wrong_DA = random.gamma(0.5, size=(2, DRAWS, len(arms)))
    mixed: Array = (whole_D1 * drawn_DA + right_DA) / (whole_D1 + right_DA + wrong_DA)
    return mixed


def _audited(
    audited: Audited, arms: Sequence[str], values_A: Array, drawn_DA: Array, random: np.random.Generator
) -> Array:
    """Return draws about the scores corrected by people: normal, with the corrected errors of scores and of their
    differences."""
    count, degrees = len(arms), math.inf
    variance_AA = np.empty((count, count))
    for i, arm in enumerate(arms):
        _, error, degrees = audited.corrected_score(arm, values_A[i], float(drawn_DA[:, i].std()))
        variance_AA[i, i] = error**2
        for j, other in enumerate(arms[:i]):
            gap_error = float((drawn_DA[:, i] - drawn_DA[:, j]).std())
            _, error, _ = audited.corrected_gap(arm, other, values_A[i] - values_A[j], gap_error)
            variance_AA[i, j] = variance_AA[j, i] = (variance_AA[i, i] + variance_AA[j, j] - error**2) / 2
    normal_DA = random.multivariate_normal(np.zeros(count), variance_AA, DRAWS, check_valid="ignore", method="eigh")
    moved_DA: Array = values_A + normal_DA * _t_scale(random, degrees)[:, None]
    return moved_DA


def _t_scale(random: np.random.Generator, degrees: float) -> Array:
    """Return factors that turn normal draws into those of t."""
    if not math.isfinite(degrees):
        return np.ones(DRAWS)
    degrees = max(degrees, 1.0)
    scale: Array = np.sqrt(degrees / random.chisquare(degrees, DRAWS))
    return scale
