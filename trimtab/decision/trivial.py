"""Trivial arms (no model) beside a study: finds arms that are not shown to beat them, and writes the sentence; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from trimtab.base.grammar import joined
from trimtab.base.results import Estimate, TrivialArm
from trimtab.decision.summary import WITHOUT_MODEL, way
from trimtab.measurement.statistics import LEVEL, holm


def beside(
    arms: Sequence[str], trivial: Mapping[str, Estimate], p_behind: Callable[[str, str], float]
) -> tuple[TrivialArm, ...]:
    """Return each trivial arm with the arms that are not shown to be better than it.

    `p_behind(arm, trivial)`: one-sided p of "the arm is no better", the paired test that the verdict makes, with no
    margin. Holm over all pairs of an arm and a trivial arm: every arm might be the one that is said to beat one of
    them.
    """
    pairs = [(name, arm) for name in trivial for arm in arms]
    adjusted = dict(zip(pairs, holm([p_behind(arm, name) for name, arm in pairs]), strict=True))
    return tuple(
        TrivialArm(arm=name, score=score, not_beaten_by=tuple(arm for arm in arms if adjusted[(name, arm)] > LEVEL))
        for name, score in trivial.items()
    )


def sentence(trivial: Sequence[TrivialArm], scores: Mapping[str, float]) -> str:
    """Return the arms that are not shown to beat a trivial arm, each beside the best of those; empty if all beat all.

    `scores`: by arm; of one that scores no more than the trivial arm it is said that it scores no higher.
    """
    strongest: dict[str, TrivialArm] = {}
    for one in sorted(trivial, key=lambda one: -one.score.value):
        for arm in one.not_beaten_by:
            strongest.setdefault(arm, one)
    named = []
    for one in trivial:
        arms = [arm for arm, own in strongest.items() if own is one]
        no_better = [arm for arm in arms if scores[arm] <= one.score.value]
        rule = f"a fixed rule without a model, {WITHOUT_MODEL[one.arm]} ({one.arm}: {one.score.value:.3f})"
        for those, one_does, several_do in (
            (no_better, "scores no higher than", "score no higher than"),
            ([arm for arm in arms if arm not in no_better], "is not shown to beat", "are not shown to beat"),
        ):
            if those:
                named.append(f"{joined(map(way, those))} {one_does if len(those) == 1 else several_do} {rule}.")
                rule = f"that rule ({one.arm})"
    return " ".join(named)
