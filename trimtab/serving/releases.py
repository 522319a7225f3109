"""What the server knows of versions: a release, a canary, and what follows them for `trimtab serve --alias`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from trimtab.base.files import sha256_text

if TYPE_CHECKING:
    from trimtab.base.task import Task

BUCKETS = 1_000  # users are divided into so many buckets by hash; a canary's share is a number of buckets


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The version that an alias points to, with its bundle in a local folder: what a server loads."""

    alias: str
    version: int
    folder: Path


# Returns the version that an alias names now, with its files on this machine; None if its number is among those given.
FollowAlias = Callable[[Collection[int]], Release | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A canary: the candidate version answers a share of the users, beside the version in production, for at most
    `days` days.

    `salt` gives each canary a draw of users of its own. `margin` and `latency_p95_ms` are the limits that the task
    file had when it began, and `holds` is True where it had people decide: a candidate that is shown to be good is
    then not promoted by itself. `number` is the registry's; None for a dry run.
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
    holds: bool = False

    def bucket(self, user: str) -> int:
        """Return the bucket of a user, from a hash: the same at every request and in every server."""
        return int(sha256_text("canary", self.salt, user)[:13], 16) * BUCKETS // 16**13

    def takes(self, user: str) -> bool:
        """Return True for a user whom the candidate answers."""
        return self.takes_bucket(self.bucket(user))

    def takes_bucket(self, bucket: int) -> bool:
        """Return True for a bucket whose users the candidate answers."""
        return bucket < round(self.share * BUCKETS)

    def version_of(self, user: str) -> int:
        """Return the number of the version that answers a user."""
        return self.candidate if self.takes(user) else self.production


class EndedCanary(Protocol):
    """The part of the record of a canary's end that the server logs."""

    @property
    def canary(self) -> Canary:
        """Return the canary."""

    @property
    def outcome(self) -> str:
        """Return how it ended, in one word."""

    @property
    def why(self) -> str:
        """Return the reason."""


class CanarySource(Protocol):
    """The canaries of a task: which one is open, its candidate, and its end."""

    def current(self) -> Canary | None:
        """Return the canary that is open."""

    def release(self, canary: Canary) -> Release:
        """Return the candidate, with its files on this machine."""

    def reject(self, canary: Canary, why: str) -> EndedCanary:
        """End the canary as rolled back, because the candidate cannot answer."""

    def look(self, canary: Canary, answers: Mapping[int, int], failed: Mapping[int, int]) -> EndedCanary | None:
        """Store this server's counts by bucket of users; end the canary if it is due, and return None if it goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """An alias that the server follows, and the canaries of its task if users may be divided."""

    follow: FollowAlias
    canaries: CanarySource | None = None


class OpenFollowed(Protocol):
    """Opens an alias to follow: a plugin of the kind `releases`."""

    def __call__(
        self, task: Task | Path, alias: str, address: str | None, *, artifacts: str | None, store: str | None
    ) -> AbstractContextManager[Followed]:
        """Open the versions at an address. `store`: of traffic and feedback, as for `serve`."""
