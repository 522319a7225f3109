"""Canaries: starts one, compares its users' outcomes, errors and latencies, and ends it by `upkeep/canary_records.py`.

Everything that decides lies in databases, so that a server or a call that dies loses at most what a server counted
in its last minute.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from trimtab.base.errors import InputError, MissingError
from trimtab.base.machine import user_name
from trimtab.base.show import Shown
from trimtab.serving.config import TrafficTable
from trimtab.serving.database import Closing
from trimtab.serving.releases import BUCKETS, Canary, Release
from trimtab.serving.traffic_store import KEY_VOTER, LabelDraw, ServedAnswer, TrafficStore, traffic_of
from trimtab.upkeep.canary_records import (
    CanaryEvidence,
    CanaryOutcome,
    CanaryRecord,
    CanaryTally,
    LatencyComparison,
    Newcomers,
    UserComparison,
    decide_canary,
)
from trimtab.upkeep.config import upkeep_of
from trimtab.upkeep.gate import SLOWER
from trimtab.upkeep.labels import TRAFFIC, labelled
from trimtab.upkeep.registry import CANDIDATE, PRODUCTION, Registry
from trimtab.upkeep.user_comparison import (
    LEAST_USERS,
    WIDEST_VARIANCE,
    UserOutcome,
    always_valid_lower_bound,
    compare_users,
    user_means,
    user_variance,
    users_forecast,
    users_needed,
    variance_behind,
)
from trimtab.upkeep.versions import Version

GUARD_LEVEL = 0.01  # of a false alarm of errors, and of one of latency, at any look
CLEAR_HARM = 0.1  # a difference whose forecast stands beside that of the margin
PAST_DAYS = 30  # days of outcomes that a forecast takes the variance between users and their number a day from
CROWD = 2.0  # times the usual number of new names, from which on they decide nothing
SECONDS_A_DAY = 86_400.0
Numbers = NDArray[np.float64]
# Reads the judgements of users since a moment.
JudgedSince = Callable[[datetime], Iterable[UserOutcome]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryForecast:
    """A forecast of how many users must have an outcome, of both versions together, until something is shown with a
    chance of 80%.

    `clear_harm`: for a true difference of 0.1, by user. `margin`: for "not worse by the margin" by user and by question
    where both versions are as good, and for a true difference of the margin; None for a margin of 0. `margin_by_user`:
    for the bound by user alone. `is_measured`: True if the variance between users, and how unequally they ask, are
    those of production's users; False if the variance is the greatest that there can be, and all ask as much.
    `users_a_day`: users of production with an outcome, a day, over the last PAST_DAYS days.
    """

    clear_harm: int
    margin: int | None
    margin_by_user: int | None
    is_measured: bool
    users_a_day: float | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CanaryStatus(Shown):
    """A canary, the evidence so far, and its end; `record` is None while it is open."""

    canary: Canary
    evidence: CanaryEvidence
    forecast: CanaryForecast | None
    record: CanaryRecord | None

    @property
    def headline(self) -> str:
        """Return the state of the canary in one line."""
        if self.record is not None:
            return self.record.headline
        one, named = self.canary, "would begin" if self.canary.number is None else f"canary {self.canary.number}"
        return (
            f"{named}: version {one.candidate} answers {one.share:.1%} of the users, {one.production} the others; "
            f"open for {self.evidence.days:.1f} of {one.days:g} days"
        )


class Canaries(Closing):
    """The canaries of one task: `start`, `status` and `stop` for people, the others for a server.

    `opened` is closed with it. `store`: of traffic, as for `serve`. `judged`: reads the judgements of users.
    """

    def __init__(self, opened: Registry, *, store: str | None, judged: JudgedSince) -> None:
        self._registry, self._store, self._judged = opened, store, judged
        self._server = uuid4().hex
        # By canary: its days and the steady clock's seconds, when first looked at.
        self._since: dict[int, tuple[float, float]] = {}

    def start(
        self,
        version: int | None = None,
        *,
        share: float = 0.1,
        days: float = 14.0,
        why: str = "",
        by: str | None = None,
        dry_run: bool = False,
        anyway: bool = False,
    ) -> CanaryStatus:
        """Start a canary of `version`, or of the version that the alias `candidate` names. `dry_run` only forecasts.

        Raises InputError without a table `[traffic]`, where another canary is open, for a version that is in
        production, and, unless `anyway`, for one that was measured to be worse; MissingError where production names no
        version.
        """
        task = self._registry.task
        if task.table(TrafficTable) is None:
            remedy = f"add a table [traffic], and serve again: {task.command('serve --alias production')}"
            raise InputError("a canary needs traffic, and none is kept", remedy, file=task.file, field="traffic")
        if not 1 / BUCKETS <= share <= 0.5:
            raise InputError(f"a share of {share:g} of the users", f"give {1 / BUCKETS:g} to 0.5", field="--share")
        if not (math.isfinite(days) and 0 < days <= 365):
            raise InputError(f"{days:g} days", "give more than 0 and at most 365", field="--days")
        incumbent = self._registry.current(PRODUCTION)
        tried = self._registry.show(version if version is not None else CANDIDATE)
        production, candidate = incumbent.number or 0, tried.number or 0
        if candidate == production:
            named = "" if version is not None else f", and {CANDIDATE} names no other"
            problem = f"version {candidate} is in production already{named}"
            raise InputError(problem, "name another with --version", field="--version")
        if not anyway:
            _refuse_measured_worse(tried, incumbent)
        now = _now()
        begun = Canary(
            number=None,
            candidate=candidate,
            production=production,
            share=share,
            days=days,
            salt=uuid4().hex,
            margin=task.target.margin,
            latency_p95_ms=task.target.latency_p95_ms,
            begun=now,
            who=by or user_name(),
            why=why.strip()[:2_000],
            holds=upkeep_of(task).promote == "ask",
        )
        forecast = self._forecast(begun)
        if not dry_run:
            begun = self._registry.begin_canary(begun)
        nothing = CanaryEvidence(days=0.0, quality=None, errors=None, latency=None)
        return CanaryStatus(canary=begun, evidence=nothing, forecast=forecast, record=None)

    def status(self) -> CanaryStatus:
        """Return the open canary, after ending it if it is due; without one, the last that ended. Raises
        MissingError if there was none."""
        canary = self._registry.canary()
        if canary is None:
            records = self._registry.canary_records()
            if not records:
                raise self._none("no canary of this task yet")
            return CanaryStatus(
                canary=records[0].canary, evidence=records[0].evidence, forecast=None, record=records[0]
            )
        evidence = self._evidence(canary)
        record = self._decided(canary, evidence)
        return CanaryStatus(canary=canary, evidence=evidence, forecast=self._forecast(canary), record=record)

    def stop(self, why: str, by: str | None = None) -> CanaryRecord:
        """End the open canary by hand: rolled back. Raises MissingError if none is open, InputError without a
        reason."""
        if not why.strip():
            raise InputError("no reason is given", "say why in a few words", field="--why")
        canary = self.current()
        if canary is None:
            raise self._none("no canary is open")
        return self._end(canary, "rolled_back", f"stopped by hand: {why.strip()}"[:2_000], self._evidence(canary), by)

    def _none(self, problem: str) -> MissingError:
        begin = self._registry.task.command("canary start")
        return MissingError(f"{self._registry.name}: {problem}; begin one with: {begin}")

    def current(self) -> Canary | None:
        """Return the open canary, None without one."""
        return self._registry.canary()

    def release(self, canary: Canary) -> Release:
        """Return the candidate with its files on this machine; raises InputError if they are damaged, MissingError
        if they are gone."""
        return self._registry.release(canary.candidate, CANDIDATE)

    def reject(self, canary: Canary, why: str) -> CanaryRecord:
        """End a canary whose candidate cannot answer: rolled back."""
        return self._end(canary, "rolled_back", why, self._evidence(canary))

    def look(self, canary: Canary, answers: Mapping[int, int], failed: Mapping[int, int]) -> CanaryRecord | None:
        """Store what this server has counted so far, by bucket of users, and end the canary if it is due. Return its
        record, None if it goes on."""
        number, now = _number(canary), _now()
        tallies = self._registry.tallies(number)
        clock = _steady()
        days, since = self._since.setdefault(number, (days_known(canary, tallies, now), clock))
        days = max([days + (clock - since) / SECONDS_A_DAY, *(one.days for one in tallies)])
        tally = CanaryTally(days=days, when=now, answers=_named(answers), failed=_named(failed))
        self._registry.keep_tally(number, self._server, tally)
        return self._decided(canary, self._evidence(canary, days))

    def close(self) -> None:
        """Close the connections."""
        self._registry.close()

    def _decided(self, canary: Canary, evidence: CanaryEvidence) -> CanaryRecord | None:
        found = decide_canary(canary, evidence)
        if found is None and self._registry.current(PRODUCTION).number != canary.production:
            found = ("undecided", f"{PRODUCTION} was moved meanwhile")
        return None if found is None else self._end(canary, *found, evidence)

    def _end(
        self, canary: Canary, outcome: CanaryOutcome, why: str, evidence: CanaryEvidence, who: str | None = None
    ) -> CanaryRecord:
        record = CanaryRecord(
            canary=canary, outcome=outcome, why=why, when=_now(), who=who or user_name(), evidence=evidence
        )
        return self._registry.end_canary(record)

    def _evidence(self, canary: Canary, days: float | None = None) -> CanaryEvidence:
        """Compare both versions by the outcomes so far. `days`: how long the canary has run, by the servers' tallies
        unless given."""
        tallies = self._registry.tallies(_number(canary))
        since = canary.begun - timedelta(days=PAST_DAYS)
        with self._traffic() as traffic:
            outcomes = [*self._judged(since), *(_labels_since(traffic, since) if traffic else ())]
            served = traffic.answers(since=canary.begun) if traffic else []
            first_seen = traffic.first_seen(since) if traffic else {}
        for one in outcomes:
            seen = since if one.user.startswith(KEY_VOTER) else one.when  # whoever gave out a key knows its owner
            first_seen[one.user] = min(seen, first_seen.get(one.user, seen))
        days = days_known(canary, tallies, _now()) if days is None else days
        own = [one for one in outcomes if one.when >= canary.begun and one.version == str(canary.version_of(one.user))]
        earlier = {one.user for one in outcomes if one.when < canary.begun}
        newcomers = _newcomers(canary, {one.user for one in own}, earlier, first_seen, days)
        if not newcomers.decide:
            own = [one for one in own if first_seen[one.user] < canary.begun]
        quality, by_question = _quality(canary, own)
        return CanaryEvidence(
            days=days,
            quality=quality,
            by_question=by_question,
            newcomers=newcomers,
            errors=_errors(canary, tallies),
            latency=_latency(canary, served),
        )

    def _forecast(self, canary: Canary) -> CanaryForecast:
        since = _now() - timedelta(days=PAST_DAYS)
        with self._traffic() as traffic:
            outcomes = [*self._judged(since), *(_labels_since(traffic, since) if traffic else ())]
        own = [one for one in outcomes if one.version == str(canary.production)]
        means, counts = user_means(own), Counter(one.user for one in own)
        is_measured = len(means) >= LEAST_USERS
        mean_U, count_U = np.array([*means.values()]), np.array([counts[user] for user in means], dtype=float)

        variance = WIDEST_VARIANCE
        if is_measured:
            variance = variance_behind(float(mean_U.mean()), user_variance(mean_U), CLEAR_HARM)
        margin = users_forecast(canary.margin, mean_U, count_U, canary.share) if canary.margin else None
        return CanaryForecast(
            clear_harm=users_needed(CLEAR_HARM, variance, canary.share),
            margin=margin.both if margin else None,
            margin_by_user=margin.by_user if margin else None,
            is_measured=is_measured,
            users_a_day=len(means) / PAST_DAYS if is_measured else None,
        )

    @contextmanager
    def _traffic(self) -> Iterator[TrafficStore | None]:
        """Open the store of traffic; None where nothing was saved yet."""
        try:
            store = traffic_of(self._registry.task, self._store, make=False)
        except MissingError:
            yield None
            return
        with store:
            yield store


def _refuse_measured_worse(candidate: Version, production: Version) -> None:
    """Raise InputError if the whole interval of the candidate's measured score is below that of production's."""
    ours, theirs = candidate.score, production.score
    if ours is None or theirs is None or ours.metric != theirs.metric or ours.high >= theirs.low:
        return
    problem = (
        f"version {candidate.number} was measured at {ours.value:.3f} [{ours.low:.3f}, {ours.high:.3f}], production at "
        f"{theirs.value:.3f} [{theirs.low:.3f}, {theirs.high:.3f}]"
    )
    raise InputError(problem, "try another version, or give its users the worse one with --anyway", field="--version")


def days_known(canary: Canary, tallies: Sequence[CanaryTally], now: datetime) -> float:
    """Compute the days that a canary has run from what servers kept.

    A server counts them by its steady clock; since the last look of a server the wall clock counts, and never
    backwards. So a clock that is set while a server runs changes nothing, and one that is set back when none runs
    takes no day away.
    """
    last = max(tallies, key=lambda one: one.days, default=None)
    days, when = (0.0, canary.begun) if last is None else (last.days, last.when)
    return days + max(0.0, (now - when).total_seconds() / SECONDS_A_DAY)


def _labels_since(traffic: TrafficStore, since: datetime) -> list[UserOutcome]:
    """Read the labels of answers given since a moment, as outcomes.

    Only random draws count: where unsure answers are drawn more often, versions differ by how unsure they are.
    """

    def answers_of(draw: LabelDraw) -> list[ServedAnswer]:
        if draw.drawing != "random":
            return []
        return traffic.answers(after=draw.after_row, last=draw.last_row, since=since)

    found = labelled(traffic, TRAFFIC, answers_of)
    return [
        UserOutcome(user=voter, version=answer.version, right=float(right), when=answer.when)
        for answer, right in zip(found.answers, found.right, strict=True)
        if (voter := answer.voter or answer.user) and not math.isnan(right)
    ]


def _newcomers(
    canary: Canary, judging: Collection[str], earlier: Collection[str], first_seen: Mapping[str, datetime], days: float
) -> Newcomers:
    """Count the judging users who were first seen since the canary began; they decide with others unless a side has
    more than twice as many as came before in as many days.

    Whoever may name users can invent names, and have them judge one version. `earlier`: who judged before the canary.
    Their usual number is that of the later half of the days that are known before it: in the first half everybody
    looks new.
    """
    known = [first_seen[user] for user in earlier]
    half = (canary.begun - min(known)) / 2 if known else timedelta()
    fresh = sum(when >= canary.begun - half for when in known)
    usual = fresh / (half.total_seconds() / SECONDS_A_DAY) * days if half else 0.0
    new = [user for user in judging if first_seen[user] >= canary.begun]
    ours = sum(canary.takes(user) for user in new)
    limits = (CROWD * usual * canary.share, CROWD * usual * (1 - canary.share))
    return Newcomers(
        candidate=ours,
        production=len(new) - ours,
        usual=usual,
        decide=ours <= limits[0] and len(new) - ours <= limits[1],
    )


def _quality(canary: Canary, own: Sequence[UserOutcome]) -> tuple[UserComparison | None, UserComparison | None]:
    """Compare the shares of right answers, by user and by question; `own`: outcomes of the versions that their users
    were drawn for."""
    means, counts = user_means(own), Counter(one.user for one in own)
    drawn = [[user for user in means if canary.takes(user) is takes] for takes in (True, False)]
    candidate_U, production_U = (np.array([means[user] for user in side], dtype=float) for side in drawn)
    ours_U, theirs_U = (np.array([counts[user] for user in side], dtype=float) for side in drawn)
    by_user = compare_users(candidate_U, production_U)
    return by_user, compare_users(candidate_U, production_U, weights=(ours_U, theirs_U))


def _errors(canary: Canary, tallies: Sequence[CanaryTally]) -> UserComparison | None:
    """Compare the shares of answers that failed, by buckets of users."""
    answers: Counter[int] = Counter()
    failed: Counter[int] = Counter()
    for one in tallies:
        answers.update({int(bucket): count for bucket, count in one.answers.items()})
        failed.update({int(bucket): count for bucket, count in one.failed.items()})
    shares = {bucket: failed[bucket] / count for bucket, count in answers.items() if count}
    candidate = np.array([share for bucket, share in shares.items() if canary.takes_bucket(bucket)], dtype=float)
    production = np.array([share for bucket, share in shares.items() if not canary.takes_bucket(bucket)], dtype=float)
    return compare_users(candidate, production, GUARD_LEVEL)


def _latency(canary: Canary, served: Iterable[ServedAnswer]) -> LatencyComparison | None:
    """Compare the times of the answers in the sample of traffic; None with fewer than LEAST_USERS users on a side."""
    candidate: dict[str, list[float]] = {}
    production: dict[str, list[float]] = {}
    for one in served:
        voter = one.voter or one.user
        if voter and one.version == str(canary.version_of(voter)):
            side = candidate if canary.takes(voter) else production
            side.setdefault(voter, []).append(one.milliseconds)
    if min(len(candidate), len(production)) < LEAST_USERS:
        return None
    usual = _p95(production)
    limit = canary.latency_p95_ms or SLOWER * usual
    slow = np.array([np.mean([one > limit for one in times]) for times in candidate.values()])
    return LatencyComparison(
        candidate_p95_ms=_p95(candidate),
        production_p95_ms=usual,
        limit_ms=limit,
        slow=float(slow.mean()),
        slow_low=always_valid_lower_bound(slow, GUARD_LEVEL),
    )


def _p95(times: Mapping[str, Sequence[float]]) -> float:
    """Compute the 95th percentile of milliseconds by user, every user with the same weight."""
    pairs = sorted((one, 1 / len(own)) for own in times.values() for one in own)
    reached = np.cumsum([weight for _, weight in pairs])
    return pairs[min(int(np.searchsorted(reached, 0.95 * len(times))), len(pairs) - 1)][0]


def _named(counts: Mapping[int, int]) -> dict[str, int]:
    return {str(bucket): count for bucket, count in counts.items()}


def _number(canary: Canary) -> int:
    return canary.number or 0


def _steady() -> float:
    """Return the seconds of a clock that never jumps."""
    return time.monotonic()


def _now() -> datetime:
    return datetime.now(UTC)
