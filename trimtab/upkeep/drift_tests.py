"""Tests whether a window of answers in use differs from a reference, in any of several signals, at one stated rate
of false alarms.

Every signal is compared under the same random permutations of the pooled answers (of users or blocks, where answers
come in sessions: trimtab/measurement/units.py), and the least p-value of all is
compared with the least of each permutation (Westfall & Young 1993): without drift the family p is at most α with
probability at most α, however the signals depend on each other. While the reference grows by the windows that were
tested, these p-values are independent, as the ranks of a sequence are; once it is fixed, windows without drift are
independent given it, so the number up to the first alarm is geometric with a rate π whose mean is at most α, and by
Jensen's inequality its expectation E[1/π] is at least 1/α. Where windows depend on each other, P(alarm within k
windows) ≤ kα still gives an expectation of at least 1/(2α).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from trimtab.measurement.resampling import Indices

# The permutations for each window that is promised without an alarm: enough that one signal alone can raise one among
# ten.
PERMUTATIONS = 20
# Of a statistic: beyond these it is rounding errors, which the column that is not permuted has in another order than
# the others.
DECIMALS = 5
LEAST_VARIANCE = 1e-3  # of vectors, in shares of their squared length: below it they are equal but for rounding errors
# Of the classifier, in shares of the whole variance of the pooled vectors; a weak one detects less drift
# (docs/log.md, 2026-11-30).
RIDGE = 0.1
Vectors = NDArray[np.float32]
# [N, B + 1]: 1 where an answer counts to the window; column 0 is as it was, the others are permuted.
Members = NDArray[np.float32]
Values = NDArray[np.float64]
Statistic = Callable[[Members], Values]  # of each column
Name = TypeVar("Name", bound=str)  # of a signal


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalTest:
    """One signal of a window: its statistic, its own permutation p-value, and `adjusted`, the one that counts for
    the whole family."""

    statistic: float
    p: float
    adjusted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftTest(Generic[Name]):
    """The test of a window: the p-value of the whole family, and every signal's own."""

    p: float
    signals: Mapping[Name, SignalTest]


def drift_test(
    signals: Mapping[Name, Statistic],
    reference: int,
    window: int,
    *,
    alarm_free: int,
    units: Indices | None = None,
    seed: int = 0,
) -> DriftTest[Name]:
    """Test whether the last `window` of the pooled answers differ from the first `reference`; alarm where p ≤ 1 /
    alarm_free.

    `signals`: statistics of the pooled answers, in that order, greater the more the two differ. `alarm_free`: the
    promised expected number of windows without a false alarm. `units`: of each answer, where some are not independent
    of each other; they are permuted whole, and none may lie on both sides. Raises ValueError for an empty side or no
    signal.
    """
    if not signals or min(reference, window) < 2:
        raise ValueError("give at least one signal, and two answers on each side")
    permutations = PERMUTATIONS * alarm_free - 1
    if units is None:
        members = _members(reference, window, permutations, seed)
    else:
        border = int(units[:reference].max()) + 1
        members = _members(border, int(units.max()) + 1 - border, permutations, seed)[units]
    found = {name: np.round(statistic(members), DECIMALS) for name, statistic in signals.items()}
    ranks = {name: _upper_ranks(values) for name, values in found.items()}
    least = np.min(list(ranks.values()), axis=0)
    return DriftTest(
        p=float(np.mean(least <= least[0])),
        signals={
            name: SignalTest(
                statistic=float(values[0]),
                p=float(ranks[name][0]),
                adjusted=float(np.mean(least <= ranks[name][0])),
            )
            for name, values in found.items()
        },
    )


def mean_discrepancy(vectors_ND: Vectors) -> Statistic:
    """Return the unbiased MMD² of two samples of vectors (Gretton et al. 2012, eq. 3), with the kernel of
    `gaussian_kernel`."""
    kernel_NN = gaussian_kernel(vectors_ND)
    np.fill_diagonal(kernel_NN, 0.0)
    rows_N, whole = kernel_NN.sum(1), float(kernel_NN.sum())

    def statistic(members_NB: Members) -> Values:
        size = members_NB.sum(0, dtype=float)
        other = len(members_NB) - size
        inside_B = _quadratic(kernel_NN, members_NB)
        across_B = (rows_N @ members_NB).astype(float) - inside_B
        outside_B = whole - inside_B - 2 * across_B
        squared_B: Values = inside_B / (size * (size - 1)) + outside_B / (other * (other - 1))
        squared_B -= 2 * across_B / (size * other)
        return squared_B

    return statistic


def gaussian_kernel(vectors_ND: Vectors) -> Vectors:
    """Compute exp(-d²/2σ²) of every pair [N, N]; σ² is the median of the squared distances d² of all pairs of two
    vectors."""
    norms_N = np.einsum("nd,nd->n", vectors_ND, vectors_ND)
    squared_NN = np.maximum(norms_N[:, None] + norms_N - 2 * (vectors_ND @ vectors_ND.T), 0.0)
    apart = squared_NN[np.triu_indices(len(vectors_ND), 1)]
    scale = max(float(np.median(apart)), LEAST_VARIANCE * float(norms_N.mean())) or 1.0
    kernel_NN: Vectors = np.exp(squared_NN / (-2 * scale)).astype(np.float32)
    return kernel_NN


def classifier_margin(vectors_ND: Vectors) -> Statistic:
    """Return the mean margin of a linear classifier of the two samples, on answers that it was not fitted to: what it
    predicts of the window, on average, less what it predicts of the reference.

    A classifier two-sample test (Lopez-Paz & Oquab 2017) by ridge regression on ±1: its leave-one-out predictions
    are linear in the labels, so that it is fitted anew for every permutation.
    """
    predicted = _left_out(vectors_ND)

    def statistic(members_NB: Members) -> Values:
        predicted_NB = predicted(2 * members_NB - 1)
        size_B, inside_B = members_NB.sum(0, dtype=float), np.einsum("nb,nb->b", predicted_NB, members_NB)
        margin_B: Values = inside_B / size_B - (predicted_NB.sum(0) - inside_B) / (len(members_NB) - size_B)
        return margin_B

    return statistic


def classifier_accuracy(vectors_ND: Vectors, reference: int) -> float:
    """Compute the balanced accuracy of the classifier of `classifier_margin`, the `reference` first; 0.5 is chance."""
    sign_N1 = np.where(np.arange(len(vectors_ND)) < reference, -1, 1).astype(np.float32)[:, None]
    right_N = ((_left_out(vectors_ND)(sign_N1) > sign_N1.mean()) == (sign_N1 > 0))[:, 0]
    return float(right_N[:reference].mean() + right_N[reference:].mean()) / 2


def _left_out(vectors_ND: Vectors) -> Callable[[Members], Members]:
    """Return a function from labels ±1 to the leave-one-out prediction of each."""
    centred_ND = (vectors_ND - vectors_ND.mean(0)).astype(np.float64)
    gram_NN = centred_ND @ centred_ND.T
    whole = float(np.einsum("nd,nd->", vectors_ND, vectors_ND))
    ridge = RIDGE * max(float(np.trace(gram_NN)), LEAST_VARIANCE * whole) or 1.0
    # What is left of the labels once the classifier is fitted: I - 1/N - G(G + r)^-1, which is r(G + r)^-1 - 1/N.
    left_NN = ridge * np.linalg.inv(gram_NN + ridge * np.eye(len(gram_NN))) - 1 / len(gram_NN)
    residual_NN = (left_NN / np.diagonal(left_NN)[:, None]).astype(np.float32)
    return lambda sign_NB: sign_NB - residual_NN @ sign_NB


def label_mix(labels_N: Sequence[str]) -> Statistic:
    """Return the chi-square statistic of the counts of labels in two samples."""
    _, number_N = np.unique(np.asarray(labels_N), return_inverse=True)
    one_hot_NL = np.eye(int(number_N.max()) + 1, dtype=np.float32)[number_N]

    def statistic(members_NB: Members) -> Values:
        share_B = members_NB.mean(0, dtype=float)
        total_L = one_hot_NL.sum(0).astype(float)
        gap_LB = (one_hot_NL.T @ members_NB).astype(float) - share_B * total_L[:, None]
        chi_B: Values = (gap_LB**2 / total_L[:, None]).sum(0) / (share_B * (1 - share_B))
        return chi_B

    return statistic


def distribution_gap(values_N: Sequence[float]) -> Statistic:
    """Return the Kolmogorov-Smirnov statistic of two samples of numbers; of flags it is the difference of their
    shares."""
    own_N = np.asarray(values_N, dtype=float)
    order_N = np.argsort(own_N, kind="stable")
    # Where each of the V values begins among the sorted answers: the gap counts behind all that share one.
    first_V = np.flatnonzero(np.append(True, np.diff(own_N[order_N]) > 0))
    upto_V = np.append(first_V[1:], len(own_N)).astype(np.float32)

    def statistic(members_NB: Members) -> Values:
        size_B, count = members_NB.sum(0), len(members_NB)
        inside_VB = np.add.reduceat(members_NB[order_N], first_V, axis=0).cumsum(0)
        inside_VB *= count / size_B  # inside / size - (upto - inside) / other is this, less upto, over other
        inside_VB -= upto_V[:, None]
        gap_B: Values = np.maximum(inside_VB.max(0), -inside_VB.min(0)).astype(float) / (count - size_B)
        return gap_B

    return statistic


def typical(vectors_ND: Vectors, reference: int) -> Values:
    """Compute the witness function of MMD at each of N vectors, the first `reference` of them the reference.

    It is the mean kernel to the window less that to the reference: greater for what is typical of the window alone.
    """
    kernel_NN = gaussian_kernel(vectors_ND)
    np.fill_diagonal(kernel_NN, 0.0)
    count = len(vectors_ND)
    in_window_N = (np.arange(count) >= reference).astype(float)
    window_N: Values = kernel_NN @ in_window_N / (count - reference - in_window_N)
    reference_N: Values = kernel_NN @ (1 - in_window_N) / (reference - 1 + in_window_N)
    return window_N - reference_N


def _quadratic(matrix_NN: Vectors, members_NB: Members) -> Values:
    found_B: Values = np.einsum("nb,nb->b", matrix_NN @ members_NB, members_NB).astype(float)
    return found_B


def _upper_ranks(values_B: Values) -> Values:
    """Return, for each value, the share of all values that are at least as great."""
    count = len(values_B)
    return (count - np.searchsorted(np.sort(values_B), values_B, side="left")) / count


@lru_cache(maxsize=4)
def _members(reference: int, window: int, permutations: int, seed: int) -> Members:
    own_N = np.concatenate([np.zeros(reference, np.float32), np.ones(window, np.float32)])
    members_NB = np.repeat(own_N[:, None], permutations + 1, axis=1)
    members_NB[:, 1:] = np.random.default_rng(seed).permuted(members_NB[:, 1:], axis=0)
    members_NB.setflags(write=False)
    return members_NB
