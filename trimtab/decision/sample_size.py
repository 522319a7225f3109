"""Finds how many test questions would show an arm, by resampling the study at other sizes (power by simulation), and
how many of them people must judge."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

from trimtab.decision.choice import shown_arm
from trimtab.decision.evidence import Evidence
from trimtab.measurement.audit import Audited
from trimtab.measurement.power import POWER
from trimtab.measurement.replicates import Assumed

PRACTICABLE = 100  # times as many test questions as there are: more are not asked for
DRAWS = 400  # resampled studies of one size at most
BELOW, ABOVE = 0.75, 0.85  # shares that are told apart with fewer draws
# Log-likelihood ratios that end the draws: wrong in 5% and in 0.5% (Wald 1945).
TOO_FEW, ENOUGH = -math.log(19), math.log(199)
NEAR = 1.1  # the search ends where a tenth fewer questions are too few


def questions_needed(study: Evidence, assumed: Assumed | None = None) -> int | None:
    """Find how many more test questions show an arm in 80% of studies, if the measured scores are the true ones.

    The whole decision is made on studies of that size, drawn from this one's questions (groups, where they repeat) with
    replacement. Their number doubles until it is enough, and the last step is halved on the scale of ratios; the same
    study gives the same number. `assumed`: a true score in place of the measured one. None where a hundred times as
    many questions as there are would be too few, or no draw of these has the assumed score.
    """
    scores = study.study_scores()
    if assumed is not None and not scores.can_be(assumed):
        return None
    asked = scores.items
    most = (PRACTICABLE - 1) * asked

    @cache
    def enough(more: int) -> bool:
        return is_mostly_shown(study, asked + more, assumed)

    few, more = 0, max(1, asked // 4)
    while not enough(more):
        if more == most:
            return None
        few, more = more, min(2 * more, most)
    while more > max(few + 1, NEAR * few):
        middle = min(max(few + 1, round(math.sqrt(max(few, 1) * more))), more - 1)
        few, more = (few, middle) if enough(middle) else (middle, more)
    return more


def questions_to_judge(people: Audited, evidence: Callable[[Audited], Evidence]) -> int | None:
    """Find how many questions people must have judged in all so that an arm is shown in 80% of audits, if the figures
    of today are the true ones.

    `evidence(audited)`: that of the study, corrected by these judgements. None where not even all questions are enough.
    """
    if people.never is not None or people.questions < people.least:
        return None

    def enough(count: int) -> bool:
        return shown_arm(evidence(people.planned(count))) is not None

    few, many = max(people.least, people.count), people.questions
    if not enough(many):
        return None
    if enough(few):
        return few
    while many > few + 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many


def is_mostly_shown(study: Evidence, size: int, assumed: Assumed | None = None) -> bool:
    """True if an arm is shown in at least 80% of studies of `size` questions drawn from this one's.

    At most 400 are drawn, and fewer where the share is clearly above or below (sequential probability ratio test of .75
    against .85).
    """
    shown, ratio = 0, 0.0
    for draw in range(DRAWS):
        is_shown = shown_arm(study.resampled(size, draw, assumed)) is not None
        shown += is_shown
        ratio += math.log(ABOVE / BELOW) if is_shown else math.log((1 - ABOVE) / (1 - BELOW))
        if not TOO_FEW < ratio < ENOUGH:
            return ratio > 0
    return shown >= POWER * DRAWS
