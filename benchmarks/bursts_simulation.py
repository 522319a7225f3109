"""Simulates answers that come in sessions, days and bursts: how often something false is said of them, before and
after the unit that is compared became the user, the day or a block.

`before` counts every answer as independent, as Trimtab did; `after` is what it does now. Every share has its Monte
Carlo error. Rows whose truth is "nothing differs" count false alarms, the others how often what is true is found.

    python benchmarks/bursts_simulation.py [means …] [--runs 400] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from simulated import plain_answer

from trimtab.base.files import write_json
from trimtab.base.records import Answer
from trimtab.base.task import Task
from trimtab.measurement.figures import score_estimate, target_curve
from trimtab.measurement.latency import PASSES, bounds_in_turn, latency_bound
from trimtab.measurement.over_time import newest_against_earlier, stretches_of_time, with_stretches
from trimtab.measurement.resampling import p_sign_flip
from trimtab.measurement.statistics import LEVEL, compare_paired, estimate
from trimtab.upkeep.drift import (
    DELTA,
    estimated_batch,
    signal_features,
    watched_quality,
    window_statistics,
    window_units,
)
from trimtab.upkeep.drift_tests import drift_test
from trimtab.upkeep.sequential import risk_bounds

RESULT = Path(__file__).parent / "results" / "bursts_simulation.json"
Numbers = NDArray[np.float64]
Row = dict[str, Any]


def share(count: int, runs: int) -> Row:
    """A share with its Monte Carlo error (of a share one event from the edge, where none or all came)."""
    inside = min(max(count, 1), runs - 1) / runs
    return {"share": round(count / runs, 4), "error": round(math.sqrt(inside * (1 - inside) / runs), 4)}


def row(what: str, runs: int, said: Callable[[np.random.Generator], tuple[bool, ...]], *names: str) -> Row:
    """Count how often each of several things is said in so many simulations."""
    told = np.array([said(np.random.default_rng([place])) for place in range(runs)])
    counted = {name: share(int(count), runs) for name, count in zip(names, told.sum(0), strict=True)}
    return {"what": what, "runs": runs, **counted}


# ---- equal means


def means(runs: int) -> Iterator[Row]:
    """Two arms on the same questions, graded: is a difference said to be there, at .05?"""

    def said(random: np.random.Generator, draw: Callable[..., tuple[Numbers, Numbers]]) -> tuple[bool, bool]:
        a, b = draw(random)
        return p_sign_flip(a - b, 0) <= LEVEL, compare_paired(a, b).p <= LEVEL

    def steady(random: np.random.Generator, n: int, rare: float, spread: float) -> tuple[Numbers, Numbers]:
        return 1 - rare + spread * random.uniform(-1, 1, n), (random.random(n) >= rare).astype(float)

    def graded(random: np.random.Generator, n: int, ahead: float) -> tuple[Numbers, Numbers]:
        shared, own, other = random.standard_normal((3, n)) * math.sqrt(0.5)
        a, b = stats.norm.cdf(shared + own), stats.norm.cdf(shared + other)
        return stats.beta.ppf(a, 4 * (0.7 + ahead), 4 * (0.3 - ahead)), stats.beta.ppf(b, 2.8, 1.2)

    for n, rare, spread in (
        (40, 0.02, 0),
        (40, 0.05, 0),
        (40, 0.05, 0.05),
        (100, 0.05, 0),
        (100, 0.1, 0),
        (200, 0.05, 0),
    ):
        what = f"equal means, {n} questions: a steady arm{' with noise' * (spread > 0)}, one with {rare:.0%} zeros"
        yield row(what, runs, partial(said, draw=partial(steady, n=n, rare=rare, spread=spread)), "before", "after")
    for n, ahead in ((40, 0.0), (100, 0.0), (40, 0.1), (100, 0.05), (200, 0.05)):
        what = f"{'ahead by ' + str(ahead) if ahead else 'equal means'}, {n} questions: two graded arms"
        yield row(what, runs, partial(said, draw=partial(graded, n=n, ahead=ahead)), "before", "after")


# ---- drift

WINDOW, REFERENCE, ALARM_FREE = 100, 3, 20  # a window behind a whole reference; one in twenty may raise a false alarm
TOPICS, WIDTH = 20, 16
NEW_TOPIC = 0.3  # of the questions of a window, where there is drift
Names = list[str | None]
Stream = Callable[[np.random.Generator, int], tuple[Numbers, Numbers, Names]]


def topics() -> Numbers:
    """Directions of the topics, the last of which is new in a window with drift."""
    found: Numbers = np.random.default_rng(9).standard_normal((TOPICS + 1, WIDTH)) / math.sqrt(WIDTH)
    return found


def asked(random: np.random.Generator, topic_N: NDArray[np.int64], alike_N: NDArray[np.int64]) -> Numbers:
    """Embeddings of questions about topics; those with one number in `alike_N` are nearly the same."""
    own_ND = random.standard_normal((int(alike_N.max()) + 1, WIDTH)) * 0.15
    found: Numbers = topics()[topic_N] + own_ND[alike_N] + random.standard_normal((len(topic_N), WIDTH)) * 0.04
    return found


def sessions(random: np.random.Generator, n: int, *, length: int, fixed: bool) -> tuple[Numbers, Numbers, Names]:
    """Users who ask so many questions in a row, exactly or on average, all about one topic."""
    lengths = np.full(n, length) if fixed else random.geometric(1 / length, n)
    start = 0 if fixed else int(random.integers(length))
    user_N = np.repeat(np.arange(n), lengths)[start : start + n]
    return by_user(random, user_N)


def by_user(random: np.random.Generator, user_N: NDArray[np.int64]) -> tuple[Numbers, Numbers, Names]:
    topic_U = random.integers(TOPICS, size=int(user_N.max()) + 1)
    return asked(random, topic_U[user_N], user_N), topic_U[user_N].astype(float), [str(user) for user in user_N]


def interleaved(random: np.random.Generator, n: int) -> tuple[Numbers, Numbers, Names]:
    """Ten users at a time, each with some hundred questions, of which a tenth is kept: ten of each, in random order."""
    return by_user(
        random, np.concatenate([10 * part + random.integers(10, size=WINDOW) for part in range(n // WINDOW)])
    )


def rhythm(random: np.random.Generator, n: int, *, day: int) -> tuple[Numbers, Numbers, Names]:
    """The first half of the topics by day and the other by night: from 90 to 10% within a day of so many questions."""
    share_N = 0.5 + 0.4 * np.sin(2 * np.pi * (np.arange(n) / day + random.random()))
    topic_N = random.integers(TOPICS // 2, size=n) + np.where(random.random(n) < share_N, 0, TOPICS // 2)
    return asked(random, topic_N, np.arange(n)), topic_N.astype(float), [None] * n


def repeats(random: np.random.Generator, n: int) -> tuple[Numbers, Numbers, Names]:
    """Of ten questions three repeat one of the ten before them."""
    source_N = np.arange(n)
    for place in range(1, n):
        if random.random() < 0.3:
            source_N[place] = source_N[place - random.integers(1, min(place, 10) + 1)]
    vectors, topic, _ = by_user(random, source_N)
    return vectors, topic, [None] * n


def drift(runs: int) -> Iterator[Row]:
    """A window of 100 answers behind a reference of 300: is there an alarm, of which 5% may be false?"""
    size = WINDOW * REFERENCE

    def said(random: np.random.Generator, stream: Stream, named: bool, new: float) -> tuple[bool, ...]:
        vectors, topic, names = stream(random, size + WINDOW)
        confidence = np.clip(0.7 + vectors[:, 0] + 0.1 * random.standard_normal(len(topic)), 0, 1)
        is_new = np.flatnonzero(random.random(WINDOW) < new) + size
        vectors[is_new] += (topics()[TOPICS] - topics()[topic[is_new].astype(int)]).astype(float)
        topic[is_new] = TOPICS
        own = names if named else [None] * len(names)
        labels = [str(int(one)) for one in topic]
        shared = window_statistics({"confidence": confidence.tolist()}, labels, vectors.astype(np.float32))
        before = drift_test(shared, size, WINDOW, alarm_free=ALARM_FREE)
        units = window_units(
            signal_features({"confidence": confidence.tolist()}, labels, vectors), own, size, ALARM_FREE
        )
        if isinstance(units, str):
            return before.p <= 1 / ALARM_FREE, False, True
        after = drift_test(shared, size, WINDOW, alarm_free=ALARM_FREE, units=units)
        return before.p <= 1 / ALARM_FREE, after.p <= 1 / ALARM_FREE, False

    worlds: list[tuple[str, Stream, bool]] = [
        ("independent questions", partial(sessions, length=1, fixed=True), False),
        *(
            (f"a user asks {k} alike", partial(sessions, length=k, fixed=True), known)
            for k in (2, 5, 20)
            for known in (False, True)
        ),
        *(("sessions of 3", partial(sessions, length=3, fixed=False), known) for known in (False, True)),
        *(("ten users interleaved, a tenth kept", interleaved, known) for known in (False, True)),
        ("a day of 150 questions", partial(rhythm, day=150), False),
        ("30% repeat a question before", repeats, False),
    ]
    for new in (0.0, NEW_TOPIC):
        for name, stream, known in worlds:
            what = f"{name}{', users known' * known}{f', {new:.0%} of a new topic' if new else ''}"
            yield row(what, runs // 2, partial(said, stream=stream, named=known, new=new), "before", "after", "refused")


# ---- quality

FLOOR, DAYS, LABELS = 0.8, 30, 20


def quality(runs: int) -> Iterator[Row]:
    """Twenty labels a day for thirty days: is the quality ever said to be below .8, which 5% may say falsely?"""

    def said(random: np.random.Generator, share_alike: float, memory: float, after_fall: float) -> tuple[bool, ...]:
        noise_D = random.standard_normal(DAYS)
        for day in range(1, DAYS):
            noise_D[day] = memory * noise_D[day - 1] + math.sqrt(1 - memory**2) * noise_D[day]
        mean_D = np.where(np.arange(DAYS) < DAYS // 2, FLOOR, after_fall)
        right_D = mean_D
        if share_alike:
            strength = 1 / share_alike - 1
            right_D = stats.beta.ppf(stats.norm.cdf(noise_D), mean_D * strength, (1 - mean_D) * strength)
        right_DL = random.random((DAYS, LABELS)) < right_D[:, None]
        halves = [estimated_batch([(float(one), 1.0) for one in part]) for part in right_DL.reshape(-1, LABELS // 2)]
        days = [estimated_batch([(float(one), 1.0) for one in part]) for part in right_DL]
        before = risk_bounds(halves, 1 - FLOOR, DELTA, least=1, dispersed=False)
        after = watched_quality(days, range(DAYS), [LABELS] * DAYS, FLOOR, DELTA, "days")
        return any(one.low > 1 - FLOOR for one in before), after.since is not None, after.why_not is not None

    for name, share_alike, memory, after_fall in (
        ("independent labels at the floor", 0.0, 0.0, FLOOR),
        ("right or wrong alike within a day (correlation .3)", 0.3, 0.0, FLOOR),
        ("days alike, too (correlation .7 from day to day)", 0.3, 0.7, FLOOR),
        ("independent labels, a fall to .6 half way", 0.0, 0.0, 0.6),
        ("independent labels, a fall to .7 half way", 0.0, 0.0, 0.7),
        ("alike within a day, a fall to .5 half way", 0.3, 0.0, 0.5),
    ):
        simulated = partial(said, share_alike=share_alike, memory=memory, after_fall=after_fall)
        yield row(name, runs, simulated, "before", "after", "refused")


# ---- newest against earlier

TASK = Task.model_validate(
    {"task": {"name": "t", "kind": "answer", "metric": "exact_match"}, "data": {"examples": ["rows.jsonl"]}}
)


def newest(runs: int) -> Iterator[Row]:
    """The newer half of the test questions against the older one: is a change said where incidents come and go?"""

    def said(random: np.random.Generator, n: int, lasting: int, fall: float) -> tuple[bool, ...]:
        is_bad, bad_N = random.random() < 0.25, np.zeros(n, dtype=bool)
        for place in range(n):  # a quarter of the time is an incident
            is_bad = random.random() >= 1 / lasting if is_bad else random.random() < 1 / (3 * lasting)
            bad_N[place] = is_bad and lasting > 1
        chance_N = np.where(bad_N, 0.3, 0.9) - np.where(np.arange(n) >= n // 2, fall, 0.0)
        right_N = random.random(n) < chance_N
        answers = [answer_at(number, bool(right)) for number, right in enumerate(right_N)]
        after = newest_against_earlier("rag", answers, TASK)
        earlier, new = (estimate(part.astype(float)) for part in (right_N[: n // 2], right_N[n // 2 :]))
        gap, high = new.value - earlier.value, math.hypot(new.high - new.value, earlier.value - earlier.low)
        low = math.hypot(new.value - new.low, earlier.high - earlier.value)
        before = gap - low > 0 or gap + high < 0
        if after is None:
            return before, False, True
        return before, after.low > 0 or after.high < 0, after.stretches > 0

    for what, n, lasting, fall in (
        ("independent questions", 120, 1, 0.0),
        ("independent questions, a fall by .25", 120, 1, 0.25),
        *((f"{n} questions, incidents of {lasting}", n, lasting, 0.0) for n in (120, 400) for lasting in (10, 30)),
    ):
        yield row(what, runs, partial(said, n=n, lasting=lasting, fall=fall), "before", "after", "stretches")


def period(runs: int) -> Iterator[Row]:
    """The newest rows as the test set: does the interval of the score hold that of a long time, and how often is a
    target said to be reached at which the long time lies? Incidents are a quarter of the time, of so many questions on
    average. `before`: every question counts; `after`: stretches of time do, where questions near in time do alike."""

    def said(random: np.random.Generator, n: int, lasting: int) -> tuple[bool, ...]:
        is_bad, bad_N = random.random() < 0.25, np.zeros(n, dtype=bool)
        for place in range(n):
            is_bad = random.random() >= 1 / lasting if is_bad else random.random() < 1 / (3 * lasting)
            bad_N[place] = is_bad if lasting > 1 else random.random() < 0.25
        right_N = random.random(n) < np.where(bad_N, 0.3, 0.9)
        answers = [answer_at(number, bool(right)) for number, right in enumerate(right_N)]
        stretches = stretches_of_time({"rag": answers})
        told: list[bool] = []
        for own in (answers, with_stretches(answers, stretches)):
            score = score_estimate(own, TASK)
            told += [score.low <= 0.75 <= score.high, target_curve(own, TASK)(0.75) <= LEVEL]
        return (*told, bool(stretches))

    names = ("held_before", "claimed_before", "held_after", "claimed_after", "stretches")
    for n in (120, 400):
        for lasting in (1, 10, 30, 100):
            what = f"{n} questions, incidents of {lasting}" if lasting > 1 else f"{n} independent questions"
            yield row(what, runs, partial(said, n=n, lasting=lasting), *names)


def answer_at(number: int, is_right: bool) -> Answer:
    """The answer to a question, one an hour."""
    when = datetime(2026, 1, 1) + timedelta(hours=number)
    return plain_answer(f"{number:04}", "", float(is_right), time=when.isoformat())


# ---- latency


def latency(runs: int) -> Iterator[Row]:
    """One of ten answers takes too long, twice as many as the limit allows: is any arm said to be fast enough?

    Nothing in timings tells of a spell that did not come, so only the time over which they are spread helps. The arms
    are timed in turn in three passes. `before`: each is bounded by its own timings; `after`: where those of any arm
    come in spells, by those of all. `interleaved`: each by its own, were they timed in turn question by question.
    """

    def said(random: np.random.Generator, n: int, arms: int, spell: int) -> tuple[bool, ...]:
        place = np.arange(n * arms)
        is_slow_N = spells(random, n * arms, spell)
        seconds_N = np.where(is_slow_N, 2.0, 0.5) * random.uniform(0.9, 1.1, n * arms)
        parts = seconds_N.reshape(PASSES, arms, n // PASSES)
        together = bounds_in_turn({str(arm): list(parts[:, arm]) for arm in range(arms)}, arms)
        own, in_turn = (
            [latency_bound(list(seconds_N[order == arm]), arms) for arm in range(arms)]
            for order in (place // (n // PASSES) % arms, place % arms)
        )
        return tuple(
            any(one is not None and one < 1000 for one in found) for found in (own, together.values(), in_turn)
        )

    cells = ((90, 1, 1), (90, 1, 20), (306, 1, 20), (1206, 1, 20), (90, 5, 1), (90, 5, 20), (306, 5, 20), (306, 5, 60))
    ways = ("before", "after", "interleaved")
    for n, arms, spell in cells:
        kind = f"in spells of {spell}" if spell > 1 else "one by one"
        what = f"{arms} arm{'s' * (arms > 1)}, {n} timings each, slow answers {kind}"
        yield row(what, runs, partial(said, n=n, arms=arms, spell=spell), *ways)


def spells(random: np.random.Generator, n: int, length: int) -> NDArray[np.bool_]:
    """One answer in ten is slow, so many in a row on average."""
    is_slow, found = random.random() < 0.1, np.zeros(n, dtype=bool)
    for place in range(n):
        is_slow = random.random() >= 1 / length if is_slow else random.random() < 1 / (9 * length)
        found[place] = is_slow
    return found if length > 1 else random.random(n) < 0.1


PARTS: dict[str, Callable[[int], Iterator[Row]]] = {
    "means": means,
    "drift": drift,
    "quality": quality,
    "newest": newest,
    "period": period,
    "latency": latency,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    found: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {}
    for part in options.parts:
        found[part] = []
        for one in PARTS[part](options.runs):
            found[part].append(one)
            print(json.dumps(one), flush=True)
        write_json(options.out, found)


if __name__ == "__main__":
    main()
