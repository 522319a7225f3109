"""Records of a canary, in which a candidate version answers a share of the users, and the decision how it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from trimtab.base.show import Shown
from trimtab.serving.releases import Canary

CanaryOutcome = Literal["promoted", "held", "rolled_back", "undecided"]
SLOW_SHARE = 0.05  # of a version's answers, that may take longer than its 95th percentile


@dataclass(frozen=True, slots=True, kw_only=True)
class UserComparison:
    """A comparison of the candidate's users with production's by the mean of one value each, such as the share of right
    answers; by question, each weighs as many answers as it gave.

    `candidate` and `production` are the two means. `low` and `high` bound their difference and hold at every look: each
    is ever on the wrong side of the true difference with a probability of 5% at most (1% for failed answers).
    """

    candidate_users: int
    production_users: int
    candidate: float
    production: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        """Return candidate less production."""
        return self.candidate - self.production

    @property
    def figures(self) -> str:
        """Return both shares, their difference and its bounds, in words."""
        candidate = f"{self.candidate:.1%} of {self.candidate_users:,} users"
        shares = f"{candidate} against {self.production:.1%} of {self.production_users:,}"
        return f"{shares}, difference {self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Newcomers:
    """Users who judged and were first seen after the canary began, on either side; `usual`: as many as came in as many
    days before, of both versions together. `decide`: True if their judgements count.
    """

    candidate: int
    production: int
    usual: float
    decide: bool

    @property
    def sentence(self) -> str:
        """Return in words who they are, and whether they count."""
        count = f"{self.candidate + self.production:,} new names judged ({self.candidate:,} the candidate)"
        if self.decide:
            return f"{count}, where {self.usual:.1f} are usual"
        return f"{count}, where {self.usual:.1f} are usual: a crowd, which decides nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyComparison:
    """A comparison of both versions' latency: 95th percentiles in milliseconds, every user with the same weight, and
    the candidate's limit.

    `slow`: the share of the candidate's answers that take longer than the limit. `slow_low`: a lower bound of that
    share, which holds at all looks together with a probability of 99%; above .05 the candidate's 95th percentile is
    shown to be over the limit.
    """

    candidate_p95_ms: float
    production_p95_ms: float
    limit_ms: float
    slow: float
    slow_low: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryEvidence:
    """The evidence on a canary so far. A comparison is None with too few users. `days`: how long the canary has run.

    `quality`: the share of answers that users or labellers call right, every user with the same weight; `by_question`:
    the same, every answer with the same weight, None too where few users gave most answers; `errors`: the share that
    failed (HTTP 5xx), by buckets of users.
    """

    days: float
    quality: UserComparison | None
    errors: UserComparison | None
    latency: LatencyComparison | None
    by_question: UserComparison | None = None
    newcomers: Newcomers | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryTally:
    """The counts of one server for a canary: all answers and failed answers, by bucket of users.

    `days`: how long the canary had run when the server last looked, at the time `when`.
    """

    days: float
    when: datetime
    answers: Mapping[str, int]
    failed: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CanaryRecord(Shown):
    """The outcome of a canary: when and why it ended, and the evidence."""

    canary: Canary
    outcome: CanaryOutcome
    why: str
    when: datetime
    who: str
    evidence: CanaryEvidence

    @property
    def passed(self) -> bool:
        """Return True if the candidate was promoted."""
        return self.outcome == "promoted"

    @property
    def headline(self) -> str:
        """Return what happened, in one line."""
        version = self.canary.candidate
        promote = f'trimtab registry promote {version} --why "…"'
        held = f"held: promote it with {promote}, or leave version {self.canary.production}"
        outcome = held if self.outcome == "held" else self.outcome.replace("_", " ")
        return f"canary {self.canary.number}: version {version} {outcome}: {self.why}"


def decide_canary(canary: Canary, evidence: CanaryEvidence) -> tuple[CanaryOutcome, str] | None:
    """Return how a canary ends by what is known, and why; None if it goes on.

    Harm comes first, and needs no margin: more failed answers, a 95th percentile over the limit, or a quality shown to
    be lower by anything, by user or by question. The candidate is promoted where its quality is shown to be higher, or
    not to be lower by the margin, by user; and by question, too, not to be lower by the margin. So a candidate that is
    better for most users and worse for the few who ask most is not promoted. Where the canary `holds`, it is held
    instead: production stays until a person promotes it.
    """
    errors, latency, quality, by_question = evidence.errors, evidence.latency, evidence.quality, evidence.by_question
    if errors is not None and errors.low > 0:
        return "rolled_back", f"more of its answers fail: {errors.candidate:.2%} against {errors.production:.2%}"
    if latency is not None and latency.slow_low > SLOW_SHARE:
        return "rolled_back", (
            f"it is too slow: 95th percentile {latency.candidate_p95_ms:,.0f} ms, limit {latency.limit_ms:,.0f} ms, "
            f"production {latency.production_p95_ms:,.0f} ms"
        )
    if quality is not None and quality.high < 0:
        return "rolled_back", f"it is shown to be worse: right for {quality.figures}"
    if by_question is not None and by_question.high < 0:
        return "rolled_back", f"it is shown to be worse by question: right for {by_question.figures}"
    shown = _shown_good(canary, quality)
    if shown is not None and by_question is not None and by_question.low > -canary.margin:
        return "held" if canary.holds else "promoted", f"{shown}; by question, right for {by_question.figures}"
    if evidence.days >= canary.days:
        lacking = f"{shown}, but {question_gap(evidence)}" if shown is not None else "nothing was shown"
        if evidence.newcomers is not None and not evidence.newcomers.decide:
            lacking = f"{lacking} ({evidence.newcomers.sentence})"
        return "undecided", f"{lacking} in {canary.days:g} days; version {canary.production} stays"
    return None


def question_gap(evidence: CanaryEvidence) -> str:
    """Return in words what is not shown by question."""
    if evidence.by_question is None:
        return "by question nothing can be said, as a few users ask most of them"
    return f"by question it is not shown: {evidence.by_question.figures}"


def _shown_good(canary: Canary, quality: UserComparison | None) -> str | None:
    """Return in words what good is shown of a candidate by user; None if nothing."""
    if quality is None or quality.low <= -canary.margin:
        return None
    claim = "to be better" if quality.low > 0 else f"not to be worse by {canary.margin:g}"
    return f"it is shown {claim}: right for {quality.figures}"
