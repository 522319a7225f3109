"""Selection bias: corrects the score of an arm that was picked as the highest of several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trimtab.base.results import Estimate
from trimtab.measurement.clusters import ItemGroups, group_codes
from trimtab.measurement.resampling import Array, Statistic, sampling_units

DRAWS = 1_000


def corrected_for_picking(values_A: Array, draws_BA: Array, items: int) -> Estimate:
    """Return the highest of the arms' figures, minus its expected excess from being picked, with a 95% interval.

    `values_A`: each arm's figure; `draws_BA`: of bootstrap samples of the items, each the same for all arms. In each
    draw the error of the arm that comes out highest is noted; over the draws their mean and quantiles are what is
    taken off. The arms' true figures are taken to lie nearer to their mean than the measured ones, by the share of
    the spread that is chance (James and Stein 1961): of equal arms all of it is, of a clear winner nothing, which
    then is not corrected.
    """
    errors_BA, spread = draws_BA - values_A, float(values_A.var(ddof=1))
    apart_BA = errors_BA - errors_BA.mean(1, keepdims=True)
    chance = float((apart_BA**2).sum(1).mean()) / (len(values_A) - 1)
    kept = max(0.0, 1 - chance / spread) if spread > 0 else 0.0
    truths_A = values_A.mean() + kept * (values_A - values_A.mean())
    picked_B = np.argmax(truths_A + errors_BA, axis=1)
    too_high_B = errors_BA[np.arange(len(errors_BA)), picked_B]
    most, least = np.quantile(too_high_B, (0.975, 0.025))
    highest = float(values_A.max())
    return Estimate(
        value=highest - float(too_high_B.mean()),
        low=max(0.0, highest - float(most)),
        high=min(1.0, highest - float(least)),
        n=items,
    )


def draws_of_means(scores_AN: Array, groups: ItemGroups | None, weights_N: Array | None = None) -> Array:
    """Return every arm's mean score of bootstrap samples of the items, of whole groups where they repeat: `[draws,
    arms]`.

    `weights_N`: of the items, where the mean is a weighted one.
    """
    codes = None if groups is None else group_codes(groups)
    codes = np.arange(scores_AN.shape[1]) if codes is None else codes
    sizes_G = np.bincount(codes, weights_N).astype(np.float64)
    sums_AG = np.array(
        [np.bincount(codes, scores if weights_N is None else scores * weights_N) for scores in scores_AN]
    )
    drawn_BG = np.random.default_rng(0).multinomial(len(sizes_G), np.full(len(sizes_G), 1 / len(sizes_G)), DRAWS)
    means_BA: Array = (drawn_BG @ sums_AG.T) / (drawn_BG @ sizes_G)[:, None]
    return means_BA


def draws_of_figures(figures: Sequence[Statistic], items: int, groups: ItemGroups | None) -> Array:
    """Return the same for figures that are no mean over items (macro-F1), each a function of item indices."""
    units, random = sampling_units(items, None if groups is None else group_codes(groups)), np.random.default_rng(0)
    found_BA = np.empty((DRAWS, len(figures)))
    for draw in range(DRAWS):
        drawn = np.concatenate([units[place] for place in random.integers(0, len(units), len(units))])
        found_BA[draw] = [figure(drawn) for figure in figures]
    return found_BA
