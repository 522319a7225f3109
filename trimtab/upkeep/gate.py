"""Candidate gate: decides from both versions' answers to the same questions whether a candidate may replace
production."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from statistics import median
from typing import Literal

from scipy import stats

from trimtab.base.records import Answer
from trimtab.base.results import ArmResult
from trimtab.base.task import Task
from trimtab.measurement.figures import behind_curve, difference, score_estimate
from trimtab.measurement.power import GUESSED_DISCORDANCE
from trimtab.measurement.statistics import look_level
from trimtab.upkeep.versions import Forgetting, GateLatency, GateRecord, GateTest, VersionScore

MOST_FORGOTTEN = 0.1  # nats per token of general text, a tenth more perplexity, that a candidate may lose
SLOWER = 1.5  # times production's median that a candidate's may be, where the task file states no limit
BARELY = 20.0  # milliseconds more that nobody notices
INDEX_DISCORDANCE = 0.05  # share of the questions that hold on which an index and its update differ, at most
LEAST_OLD = 20  # old test questions, of fewer of which people decide


def candidate_gate(
    candidate: Sequence[Answer],
    production: Sequence[Answer],
    *,
    new: Collection[str],
    outdated: Collection[str],
    learnt: Collection[str],
    task: Task,
    old_look: int,
    new_look: int,
    first: Sequence[Answer] | None = (),
    forgetting: Forgetting | None,
    latency: GateLatency | None,
    of_index: bool = False,
) -> GateRecord:
    """Test whether a candidate is better on what is new and not worse on what is old, by the margin of the task.

    `candidate`, `production`: answers to the same test questions. `new`: ids of those that came or changed since
    production was measured. Two kinds of old questions are left out: `outdated`, whose right answer may have changed,
    and `learnt`, which were rows to learn from when production was made (`trimtab test --fresh` draws such).
    `old_look`, `new_look`: of how many studies of these questions this is the last, and at least of how many refreshes
    of this version; the tests' levels fall with them (`look_level`), so that a series of refreshes promotes nothing
    that is not better with a probability above 5%. `first`: the answers of the first version of the line, to which the
    candidate is held, too, as losses within the margin add up; empty where production is the first, None where they
    are gone. `of_index`: the candidate differs from production by its documents alone. It has to be not worse on what
    is old; on what is new, and against the first version, only what is shown to be worse counts.

    It is passed where every claim is shown, which needs no correction (an intersection-union test); it is failed where
    something is shown to be worse; else nothing is shown, and that is no pass.
    """
    old = {one.item_id for one in production} - {*new, *outdated, *learnt}
    on_old = _test(candidate, production, old, task, "not worse", old_look)
    on_new = _test(candidate, production, set(new), task, "better", new_look)
    on_first = _test(candidate, first or (), old & {one.item_id for one in first or ()}, task, "not worse", old_look)
    against = [
        *_of_old(on_old, learnt, task),
        *(_of_first(on_first, task, of_index) if first != () else ()),
        *_of_new(on_new, of_index),
        *_of_forgetting(forgetting),
        *_of_latency(latency),
    ]
    passed: bool | None = True
    if against:
        passed = False if any(is_bad for is_bad, _ in against) else None
    return GateRecord(
        old_test=on_old,
        new_test=on_new,
        forgetting=forgetting,
        latency=latency,
        passed=passed,
        reasons=tuple(reason for _, reason in against),
        first_test=on_first,
    )


def independent_discordance(score: VersionScore | None) -> float:
    """Return the share of questions on which two versions with this score differ if they err independently of each
    other, which is more than they do; GUESSED_DISCORDANCE at most, and without a score."""
    return GUESSED_DISCORDANCE if score is None else min(GUESSED_DISCORDANCE, 2 * score.value * (1 - score.value))


def new_discordance(score: float | None, gain: float) -> float | None:
    """Return the same of new questions, where production has this score and a candidate is better by `gain`; None
    without a score."""
    if score is None:
        return None
    better = min(1.0, score + gain)
    return score * (1 - better) + (1 - score) * better


def chance_not_worse(old: int, margin: float, discordance: float, effect: float, look: int) -> float:
    """Predict the chance that a candidate is shown to be not worse by `margin` which is as good on so many questions.

    Normal approximation of Tango's test, whose error is that of a candidate that is behind by the margin; 0 with fewer
    than LEAST_OLD questions.
    """
    if old < LEAST_OLD:
        return 0.0
    tested = math.sqrt(max(max(discordance, margin) - margin**2, 1e-9) * effect / old)
    spread = math.sqrt(max(discordance, 1e-9) * effect / old)
    return float(stats.norm.cdf((margin - stats.norm.isf(look_level(look)) * tested) / spread))


def chance_to_pass(
    old: int,
    new: int,
    gain: float,
    margin: float,
    effects: tuple[float, float],
    looks: tuple[int, int],
    old_discordance: float = GUESSED_DISCORDANCE,
    new_discordance: float | None = None,
) -> float:
    """Predict the chance that a candidate passes which is better by `gain` on so many new questions, and as good on so
    many old ones.

    `effects`, `looks`: of the groups of the old and of the new questions (`Variation.effect`), and of the tests.
    Discordances: the shares of the questions on which the versions differ; of the new ones GUESSED_DISCORDANCE, and at
    least the gain. Normal approximation (of McNemar's test, Miettinen 1968); 0 with fewer than LEAST_OLD old ones.
    """
    if not new:
        return 0.0
    differing = max(GUESSED_DISCORDANCE if new_discordance is None else new_discordance, gain)
    tested = math.sqrt(differing * effects[1] / new)
    spread = math.sqrt(max(differing - gain**2, 1e-9) * effects[1] / new)
    better = float(stats.norm.cdf((gain - stats.norm.isf(look_level(looks[1])) * tested) / spread))
    return chance_not_worse(old, margin, old_discordance, effects[0], looks[0]) * better


def latency_held(
    candidate: ArmResult,
    production: ArmResult,
    ours: Sequence[Sequence[float]],
    theirs: Sequence[Sequence[float]],
    task: Task,
) -> GateLatency | None:
    """Hold a candidate's latency to the task file's limit at the 95th percentile, by its upper bound; without one hold
    its median to production's: at most SLOWER times as long, or BARELY more. `ours` and `theirs`: seconds of questions
    alone, a list for each of several turns, of which the one counts in which the candidate is least behind: other load
    disturbs some, and a slower candidate is behind in all. None where nothing was timed.
    """
    limit = task.target.latency_p95_ms
    if limit is not None:
        high = candidate.latency_p95_high_ms
        return GateLatency(
            percentile=95,
            candidate=candidate.latency_p95_ms,
            production=production.latency_p95_ms,
            high=high,
            limit=limit,
            fits=None if high is None else high <= limit,
        )
    turns = [[1000 * median(side) for side in turn] for turn in zip(ours, theirs, strict=True) if all(turn)]
    if not turns:
        return None
    our_median, their_median = min(turns, key=lambda turn: turn[0] - max(SLOWER * turn[1], turn[1] + BARELY))
    limit = max(SLOWER * their_median, their_median + BARELY)
    return GateLatency(
        percentile=50,
        candidate=our_median,
        production=their_median,
        high=None,
        limit=limit,
        fits=our_median <= limit,
    )


def _test(
    candidate: Sequence[Answer],
    production: Sequence[Answer],
    items: Collection[str],
    task: Task,
    claim: Literal["better", "not worse"],
    look: int,
) -> GateTest | None:
    """Test a claim on some of the questions; None if there are none."""
    ours, theirs = ([one for one in answers if one.item_id in items] for answers in (candidate, production))
    if not ours:
        return None
    found, level = difference(ours, theirs, task), look_level(look)
    p = behind_curve(ours, theirs, task)(0.0 if claim == "better" else task.target.margin)
    return GateTest(
        claim=claim,
        questions=len({one.item_id for one in ours}),
        candidate=score_estimate(ours, task).value,
        production=score_estimate(theirs, task).value,
        difference=found.difference,
        low=found.low,
        high=found.high,
        p=p,
        level=level,
        look=look,
        shown=p <= level,
        shown_worse=behind_curve(theirs, ours, task)(0.0) <= level,
    )


# What speaks against a candidate: whether it is shown to be bad, or a good thing is not shown; and a sentence.
Against = list[tuple[bool, str]]


def _of_old(test: GateTest | None, learnt: Collection[str], task: Task) -> Against:
    if test is not None and test.questions >= LEAST_OLD:
        return _of_test(test, "old", f"at most {task.target.margin:g} worse")
    if learnt and test is None:
        said = (
            "no old test question is left that production was not made from; promote a version that trimtab study "
            "made since"
        )
        return [(False, said)]
    count = test.questions if test is not None else 0
    return [
        (
            test is not None and test.shown_worse,
            f"{count} old test questions are left, and {LEAST_OLD} are needed; decide by hand: registry promote",
        )
    ]


def _of_first(test: GateTest | None, task: Task, of_index: bool) -> Against:
    if of_index:
        return _of_test(test, "old", "") if test is not None and test.shown_worse else []
    if test is not None and test.questions >= LEAST_OLD:
        against = _of_test(test, "old", f"at most {task.target.margin:g} worse than the first version")
        return [(is_bad, reason.replace("is worse:", "is worse than the first version:")) for is_bad, reason in against]
    said = "the first version's answers to the old questions are not here, so that losses may have added up unseen"
    return [(False, f"{said}; decide by hand: registry promote")]


def _of_new(test: GateTest | None, of_index: bool) -> Against:
    if of_index:
        return _of_test(test, "new", "") if test is not None and test.shown_worse else []
    if test is None:
        return [(False, "no test question came or changed since production was measured")]
    return _of_test(test, "new", "better")


def _of_test(test: GateTest, which: str, wanted: str) -> Against:
    gap = f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}] on {test.questions:,} {which} questions"
    if test.shown:  # within the margin, even if it is a little worse
        return []
    if test.shown_worse:
        return [(True, f"the candidate is worse: {gap}")]
    return [(False, f"it is not shown that the candidate is {wanted}: {gap}, tested at {test.level:.3g}")]


def _of_forgetting(found: Forgetting | None) -> Against:
    if found is None or found.high <= MOST_FORGOTTEN:
        return []
    gap = f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}] nats a token of general text"
    if found.low > MOST_FORGOTTEN:
        return [(True, f"the candidate has forgotten: {gap}, where {MOST_FORGOTTEN:g} are allowed")]
    return [(False, f"it is not shown that the candidate has forgotten at most {MOST_FORGOTTEN:g}: {gap}")]


def _of_latency(found: GateLatency | None) -> Against:
    if found is None or found.fits:
        return []
    if found.percentile == 50:
        took = (
            f"a question takes {found.candidate or 0:,.0f} ms (median), and production takes "
            f"{found.production or 0:,.0f}"
        )
        return [(True, f"{took}: {found.limit:,.0f} are allowed")]
    limit = f"{found.limit:,.0f} ms at the 95th percentile"
    if found.fits is None:
        return [(False, f"the candidate was timed on too few questions to hold it to {limit}")]
    return [(True, f"the candidate may take {found.high or 0:,.0f} ms where {limit} are allowed")]
