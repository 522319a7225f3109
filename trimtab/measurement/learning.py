"""Whether more rows still help: scores on the same questions after training on more and more of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from trimtab.base.results import Estimate
from trimtab.measurement.clusters import Groups, clustered_error, effective_groups, group_codes
from trimtab.measurement.statistics import t_quantile


def gain_of_more(rows: Sequence[int], scores: Sequence[ArrayLike], more: int, groups: Groups) -> Estimate:
    """What `more` labelled rows beyond the last number would add to the mean score, with its 95% interval.

    `scores[k]` are those of the same questions after training on `rows[k]` rows. The score is taken to grow with the logarithm of
    the rows: the slope of each question by least squares, their mean, and its error from question to question (by group where
    groups repeat). What another draw of the rows or another run would change is not in the interval.
    """
    table_KN = np.array([np.asarray(one, dtype=float) for one in scores])
    doublings_K = np.log2(np.array(rows, dtype=float))
    centred_K = doublings_K - doublings_K.mean()
    slopes_N = centred_K @ table_KN / float(centred_K @ centred_K)
    step = math.log2((rows[-1] + more) / rows[-1])
    codes, count = group_codes(groups), len(slopes_N)
    if codes is not None:
        error, degrees = clustered_error(slopes_N, codes), effective_groups(codes) - 1
    else:
        error, degrees = float(slopes_N.std(ddof=1)) / math.sqrt(count), count - 1.0
    value, half = step * float(slopes_N.mean()), step * error * t_quantile(degrees)
    return Estimate(value=value, low=value - half, high=value + half, n=count)
