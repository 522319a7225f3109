"""Canaries: a candidate answers a share of the users beside production, until it is promoted, rolled back, or its days are over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from trimtab.base.files import sha256_text
from trimtab.base.show import Shown

CanaryOutcome = Literal["promoted", "rolled_back", "undecided"]
BUCKETS = 1_000  # into which users are divided: the share of a canary is a number of these


@dataclass(frozen=True, slots=True, kw_only=True)
class UserComparison:
    """A share among the users of a candidate less that among production's; every user counts once, whatever the number of answers.

    `low` and `high` hold at every look: each is on the wrong side of the true difference, ever, with a probability of 5% at most (of 1%
    for failed answers). `candidate` and `production` are the two shares.
    """

    candidate_users: int
    production_users: int
    candidate: float
    production: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        """Candidate less production."""
        return self.candidate - self.production

    @property
    def figures(self) -> str:
        """Both shares, their difference and its bounds, in words."""
        shares = f"{self.candidate:.1%} of {self.candidate_users:,} users against {self.production:.1%} of {self.production_users:,}"
        return f"{shares}, difference {self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyComparison:
    """The 95th percentiles of both versions in milliseconds, users counted alike, and the limit of the candidate's.

    `slow`: of the candidate's answers, the share that takes longer than the limit; `slow_low`: a lower bound of it that holds at every
    look with a probability of 99%. Above .05 the candidate's 95th percentile is shown to be over the limit.
    """

    candidate_p95_ms: float
    production_p95_ms: float
    limit_ms: float
    slow: float
    slow_low: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryEvidence:
    """What is known of a canary so far; None where too few users are known. `days` that it has run.

    `quality`: the share of answers that users or labellers call right; `errors`: the share that failed (HTTP 5xx), by buckets of users.
    """

    days: float
    quality: UserComparison | None
    errors: UserComparison | None
    latency: LatencyComparison | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A candidate beside the version in production, for a share of the users and for so many days at most.

    `salt` makes the draw of its users another than that of other canaries. `margin` and `latency_p95_ms` are the limits of the task file when it
    began. `number` is the registry's, None of one that was not begun (a dry run).
    """

    number: int | None
    candidate: int
    production: int
    share: float
    days: float
    salt: str
    margin: float
    latency_p95_ms: float | None
    begun: datetime
    who: str
    why: str

    def bucket(self, user: str) -> int:
        """The bucket of a user, by a hash: the same at every request and in every server."""
        return int(sha256_text("canary", self.salt, user)[:13], 16) * BUCKETS // 16**13

    def takes(self, user: str) -> bool:
        """True for the users whom the candidate answers."""
        return self.bucket(user) < round(self.share * BUCKETS)


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryTally:
    """What one server counted of a canary: by bucket the answers that users were to get, and those of them that failed.

    `days`: how long the canary had run when the server last looked, at the time `when`.
    """

    days: float
    when: datetime
    answers: Mapping[str, int]
    failed: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CanaryRecord(Shown):
    """How a canary ended, when, why, and on what evidence; what it was is in `canary`."""

    canary: Canary
    outcome: CanaryOutcome
    why: str
    when: datetime
    who: str
    evidence: CanaryEvidence

    @property
    def passed(self) -> bool:
        """True where the candidate was promoted."""
        return self.outcome == "promoted"

    @property
    def headline(self) -> str:
        """What happened, in one line."""
        return (
            f"canary {self.canary.number}: version {self.canary.candidate} {self.outcome.replace('_', ' ')}: {self.why}"
        )
