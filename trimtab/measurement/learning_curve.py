"""Learning curve: the expected gain of more training rows, from scores on the same questions after training on more and
more."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from trimtab.base.results import Estimate
from trimtab.measurement.clusters import ItemGroups, clustered_error, degrees_of_freedom, group_codes
from trimtab.measurement.statistics import t_quantile

# Of the power law; towards 0 it becomes growth with the logarithm.
EXPONENTS = tuple(step / 20 for step in range(1, 21))
RUN_SD = 0.03  # assumed standard deviation of a score from one training run to the next


def gain_of_more(rows: Sequence[int], scores: Sequence[ArrayLike], more: int, groups: ItemGroups) -> Estimate:
    """Estimate the gain in the mean score of `more` labelled rows beyond the last number, with its 95% interval.

    `scores[k]` are those of the same questions after training on `rows[k]` rows, each in one run. The score follows
    a power law, top - b * rows^-c (Hestness et al. 2017, arXiv 1712.00409). Few points do not tell c, so the gain is
    averaged over the exponents, each with the likelihood of its least-squares fit, and their spread is in the
    interval beside the error from question to question (by group where groups repeat) and from run to run (RUN_SD).
    It holds for the mean over runs, not for the next run.
    """
    table_KN = np.array([np.asarray(one, dtype=float) for one in scores])
    codes, count = group_codes(groups), table_KN.shape[1]
    degrees = count - 1.0 if codes is None else degrees_of_freedom(codes)
    gains, variances, likelihoods = [], [], []
    for exponent in EXPONENTS:
        basis_K = -(np.array(rows, dtype=float) ** -exponent)
        centred_K = basis_K - basis_K.mean()
        weights_K = centred_K / float(centred_K @ centred_K)
        step = float(rows[-1]) ** -exponent - float(rows[-1] + more) ** -exponent
        slopes_N = weights_K @ table_KN
        mean_K = table_KN.mean(axis=1)
        off_K = mean_K - mean_K.mean() - centred_K * float(slopes_N.mean())
        error = float(slopes_N.std(ddof=1)) / math.sqrt(count) if codes is None else clustered_error(slopes_N, codes)
        gains.append(step * float(slopes_N.mean()))
        variances.append(step**2 * (error**2 + RUN_SD**2 * float(weights_K @ weights_K)))
        likelihoods.append(math.exp(-float(off_K @ off_K) / (2 * RUN_SD**2)))
    share_C = np.array(likelihoods) / sum(likelihoods)
    value = float(share_C @ gains)
    spread = math.sqrt(float(share_C @ (np.array(variances) + (np.array(gains) - value) ** 2)))
    half = spread * t_quantile(degrees)
    return Estimate(value=value, low=value - half, high=value + half, n=count)
