"""The components of a report's view: text with marks, tables and their cells, and the data of charts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

from trimtab.base.records import Arm
from trimtab.base.results import Estimate
from trimtab.reports.formatting import elide_middle, format_interval, format_score
from trimtab.reports.labels import Family, Shape, arm_family, context_shape

TableEntry = TypeVar("TableEntry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The mark of a figure's provenance: measured, predicted or yours."""

    kind: ClassVar[str] = "mark"
    word: str


MEASURED, PREDICTED, YOURS = Mark(word="measured"), Mark(word="predicted"), Mark(word="yours")
Phrase = tuple[str | Mark, ...]  # text with marks in it


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmLabel:
    """An arm's name with its mark: the colour by `family`, the shape by context; `short` is an abbreviated name."""

    kind: ClassVar[str] = "arm"
    name: str
    short: str
    family: Family
    shape: Shape
    chosen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A score and its interval, as text."""

    kind: ClassVar[str] = "scored"
    value: str
    interval: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StyledText:
    """Text in a tone, followed by a secondary text (a share, a number of questions)."""

    kind: ClassVar[str] = "styled"
    text: str
    tone: Literal["", "yes", "no", "soft", "strong"] = ""
    soft: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackedBar:
    """Several arms in one cell, each with its score or its status."""

    kind: ClassVar[str] = "stack"
    entries: tuple[tuple[ArmLabel, Scored | StyledText], ...]


def arm_label(arm: Arm, chosen: str | None = None) -> ArmLabel:
    """Return the label of an arm; it is emphasised if it is the one `chosen`."""
    return ArmLabel(
        name=arm.name,
        short=elide_middle(arm.name),
        family=arm_family(arm),
        shape=context_shape(arm.context),
        chosen=arm.name == chosen,
    )


def estimate_cell(estimate: Estimate) -> Scored:
    """Return a score and its interval as text."""
    return Scored(value=format_score(estimate.value), interval=format_interval(estimate.low, estimate.high))


Cell = str | ArmLabel | Scored | StyledText | StackedBar | Phrase


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The head of a column: its title, the name of its intervals, the mark of all its figures; text or figures."""

    title: str | ArmLabel | StyledText
    interval: str = ""
    mark: Mark | None = None
    text: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table; the first cell of each row is its heading."""

    label: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Generic[TableEntry]):
    """A list with a title; without entries it is not shown."""

    title: str
    entries: tuple[TableEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """A section's anchor, link text, title and introduction."""

    id: str
    link: str
    title: str
    lead: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One arm in a chart: `family` gives the colour, `shape` the context, `title` the tooltip; `x_high`: upper bound of
    x."""

    label: str
    family: Family
    shape: Shape
    y: float
    low: float
    high: float
    x: float = 0.0
    x_high: float | None = None
    strong: bool = False
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whiskers:
    """Scores with their intervals, one row per arm; `values` stand at the right on a desktop, `short_values` on a
    phone."""

    kind: ClassVar[str] = "whiskers"
    title: str
    dots: tuple[Dot, ...]
    values: tuple[str, ...]
    short_values: tuple[str, ...]
    target: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """Scores against time or cost, with a `limit` on x and a `target` on y."""

    kind: ClassVar[str] = "scatter"
    heading: str
    title: str
    x_title: str
    y_title: str
    dots: tuple[Dot, ...]
    target: float | None
    limit: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityDiagram:
    """Accuracy by predicted probability; `bins` hold count, mean probability and accuracy, in ascending order."""

    kind: ClassVar[str] = "reliability"
    title: str
    y_title: str
    family: Family
    bins: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of a curve chart; `style`: train, or the arm's family; the dot at `kept_step` is filled."""

    name: str
    style: Family | Literal["train"]
    points: tuple[tuple[float, float], ...]
    kept_step: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Lines over optimizer steps, or over the unit of `x_title`."""

    kind: ClassVar[str] = "curves"
    title: str
    y_title: str
    series: tuple[Series, ...]
    x_title: str = "step"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmInWords:
    """An arm and its description."""

    arm: ArmLabel
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSection:
    """A section that is one table."""

    heading: Heading
    grid: Grid
