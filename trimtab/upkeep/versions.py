"""Records of the registry: versions of arms, the moves of their aliases, and the evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from trimtab.base.records import Setting
from trimtab.base.results import Flip
from trimtab.base.show import Shown, ShownRow
from trimtab.upkeep.canary_records import CanaryRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionScore:
    """The measured score of a version, its 95% interval, the number of questions and the metric."""

    value: float
    low: float
    high: float
    n: int
    metric: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionBase:
    """The base model of a version, its revision, and the SHA-256 of its weights; None if the arm uses no base model."""

    model: str
    revision: str | None
    sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Version(Shown):
    """An arm as it was registered; immutable. `number` is None only of what was not registered (a dry run).

    `source`: the study or run that made it. `artifact_sha256`: of the list of its files with their hashes,
    `weights_sha256` of its trained weights alone, `index_sha256` of its index; None where it has none. `task_sha256`,
    `data_sha256`, `split_sha256`, `documents_sha256` and `judgements_sha256`: of what it was made from, as in the
    study's manifest. `sources`: rows by the source that they name. `outdated`: ids of test questions that the score
    leaves out, as the documents hold their right answer no more.
    """

    number: int | None
    task: str
    arm: str
    parent: int | None
    created: datetime
    by: str
    source: str
    artifact_sha256: str | None
    weights_sha256: str | None
    index_sha256: str | None
    base: VersionBase | None
    settings: Mapping[str, Setting]
    task_sha256: str | None = None
    data_sha256: str | None = None
    split_sha256: str | None = None
    documents_sha256: str | None = None
    judgements_sha256: str | None = None
    sources: Mapping[str, int] = field(default_factory=dict)
    score: VersionScore | None = None
    verdict: str | None = None
    flips: tuple[Flip, ...] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)
    outdated: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """Return the version in one line."""
        named = "not registered" if self.number is None else f"version {self.number}"
        return f"{named}: {self.arm} of {self.task}, {self.scored}"

    @property
    def scored(self) -> str:
        """Return the score with its interval, in words."""
        one = self.score
        return f"{one.metric} {one.value:.3f} [{one.low:.3f}, {one.high:.3f}] on {one.n:,}" if one else "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateTest:
    """One paired test of a gate. `claim`: what had to be shown about the candidate's score; `shown`: True if it was.

    `difference`: the candidate's mean score less production's over `questions` questions, with its 95% interval.
    `p`: one-sided, of the claim being false, compared with `level`. `look`: how many studies, this one included,
    have used the same questions; of "better", how many refreshes have tried to replace the same version, if more.
    """

    claim: Literal["better", "not worse"]
    questions: int
    candidate: float
    production: float
    difference: float
    low: float
    high: float
    p: float
    level: float
    look: int
    shown: bool
    shown_worse: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgetting:
    """Loss of the candidate's and of production's weights on general text: mean nats per token over `passages`
    passages, and the paired difference with its 95% interval. A higher loss means that tuning lost something that
    the task's questions do not test.
    """

    passages: int
    candidate: float
    production: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLatency:
    """Latency of a single question in milliseconds, for candidate and production, and the candidate's limit.

    With a limit in the task file `percentile` is 95 and `high` the upper 95% bound of the candidate's, None with too
    few timings. Else it is 50, and the limit a multiple of production's. `fits` is None if that is unknown.
    """

    percentile: Literal[50, 95]
    candidate: float | None
    production: float | None
    high: float | None
    limit: float
    fits: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRecord:
    """The result of comparing a candidate with production. `passed`: None is "not shown", and never a pass.

    `old_test`: on the questions that production was measured on, None where none of them still holds; `new_test`: on
    questions that came or changed since, None where there are none. `first_test`: against the first version of which
    production was made, on the same old questions; None where production is the first, or its answers are not here.
    `forgetting`: None where neither changes the
    base's weights. `reasons`: why it was not passed, a sentence each.
    """

    old_test: GateTest | None
    new_test: GateTest | None
    forgetting: Forgetting | None
    latency: GateLatency | None
    passed: bool | None
    reasons: tuple[str, ...] = ()
    first_test: GateTest | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Move(Shown):
    """One move of an alias: to which version and from which, when, by whom, why, and on what evidence; called `from` on
    disk.

    `number` orders all moves of a registry as its database did, whatever the clocks said; None of one that was not
    made (a dry run).
    """

    number: int | None
    alias: str
    version: int
    previous: int | None
    when: datetime
    who: str
    why: str
    kind: Literal["promote", "rollback"]
    evidence: GateRecord | CanaryRecord | None = None

    def shaped(self, plain: dict[str, Any]) -> dict[str, Any]:
        """Return the on-disk form."""
        return {"from" if key == "previous" else key: value for key, value in plain.items()}

    @classmethod
    def unshaped(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields from the on-disk form."""
        return {"previous" if key == "from" else key: value for key, value in plain.items()}

    @property
    def headline(self) -> str:
        """Return the move in one line."""
        before = f" (before: {self.previous})" if self.previous is not None else ""
        would = "would name" if self.number is None else "names"
        return f"{self.alias} {would} version {self.version}{before}"

    @property
    def row(self) -> ShownRow:
        """Return the move as a line of a table; of its evidence only what it is."""
        evidence = {GateRecord: "a gate", CanaryRecord: "a canary"}
        return {
            "number": self.number,
            "alias": self.alias,
            "version": self.version,
            "from": self.previous,
            "when": f"{self.when:%Y-%m-%d %H:%M}",
            "who": self.who,
            "kind": self.kind,
            "evidence": "" if self.evidence is None else evidence[type(self.evidence)],
            "why": self.why,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedVersion:
    """A version in a list. `aliases`: those that point to it now. `collected`: its files were deleted."""

    version: int
    arm: str
    aliases: str
    score: float | None
    created: datetime
    by: str
    source: str
    collected: bool

    @property
    def row(self) -> ShownRow:
        """Return the version as a line of a table."""
        return {
            "version": self.version,
            "arm": self.arm,
            "aliases": self.aliases,
            "score": self.score,
            "created": f"{self.created:%Y-%m-%d %H:%M}",
            "by": self.by,
            "source": self.source,
            "files": "deleted" if self.collected else "",
        }


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Lineage(Shown):
    """The versions of a task and every move of its aliases, oldest first. `page`: the file of the drawing."""

    task: str
    versions: tuple[Version, ...]
    moves: tuple[Move, ...]
    collected: tuple[int, ...]
    page: str | None = None

    @property
    def aliases(self) -> dict[str, int]:
        """Return the version that each alias points to now."""
        return {move.alias: move.version for move in self.moves}

    @property
    def headline(self) -> str:
        """Return the number of versions and moves, in words."""
        named = ", ".join(f"{alias} is {version}" for alias, version in self.aliases.items()) or "no alias"
        count = len(self.versions)
        return f"{count} version{'s' * (count != 1)} of {self.task}; {named}"

    def screen(self) -> Sequence[ShownRow]:
        """Return one row for each version: the data it was made from, and the aliases that have pointed to it."""
        return [
            {
                "version": one.number,
                "arm": one.arm,
                "data": (one.data_sha256 or "")[:8],
                "judgements": (one.judgements_sha256 or "")[:8],
                "source": one.source,
                "aliases": ", ".join(dict.fromkeys(move.alias for move in self.moves if move.version == one.number)),
            }
            for one in self.versions
        ]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Collected(Shown):
    """The result of `gc`, or its dry run: the versions whose files are deleted, with the number of files and bytes.
    `kept`: versions that stay whole.
    """

    dry_run: bool
    versions: tuple[int, ...]
    kept: tuple[int, ...]
    files: int
    bytes: int

    @property
    def headline(self) -> str:
        """Return the result in one line."""
        would = "would take" if self.dry_run else "took"
        count = len(self.versions)
        size = f"{self.bytes / 1e6:,.1f} MB"
        return f"{would} the files of {count} version{'s' * (count != 1)}: {self.files:,} files, {size}"
