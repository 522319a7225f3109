"""The record of an arm as the API serves it, with its self-check."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.base.records import Kind
from trimtab.base.results import ArmResult
from trimtab.reports.labels import Family, Shape
from trimtab.serving.releases import Release
from trimtab.serving.worker import ModelWorker


@dataclass(frozen=True, kw_only=True)
class SelfCheck:
    """An arm's answers to stored test questions beside the stored answers, counted.

    `equal`: word for word. `tied`: another answer, but both are so nearly equally likely where they part that rounding
    decides between them (`studies.equivalence.TIE`). `different`: the others.
    """

    equal: int
    tied: int
    different: int

    @property
    def questions(self) -> int:
        """Return the number of stored questions that were asked."""
        return self.equal + self.tied + self.different

    @property
    def sentence(self) -> str:
        """Return the counts in words."""
        unequal = [f"{self.tied} tied"] * bool(self.tied) + [f"{self.different} different"] * bool(self.different)
        return ", ".join([f"{self.equal} of {self.questions} stored answers equal", *unequal])


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """An arm as the API serves it: `id` is TASK:ARM, `version` the study or run of its weights, `result` its measured
    figures.

    `family` and `shape` are its colour and mark in the report; `questions` is the volume that its cost was computed
    for, 0 if unknown.
    """

    id: str
    arm: str
    version: str
    kind: Kind
    labels: tuple[str, ...]
    worker: ModelWorker
    created: int
    family: Family
    shape: Shape
    questions: float
    result: ArmResult | None = None
    check: SelfCheck | None = None  # at the start; None if no study has measured the arm
    release: Release | None = None  # its version in a registry, if the server follows an alias

    @property
    def recorded_version(self) -> str:
        """Return the version that is recorded with answers and feedback: the registry's number, else the study or
        run."""
        return str(self.release.version) if self.release else self.version
