"""The pieces that a view of a study is made of: sentences with marks, tables and their cells, and what charts draw."""

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
    """The mark that says where a figure comes from: measured, predicted or yours."""

    kind: ClassVar[str] = "mark"
    word: str


MEASURED, PREDICTED, YOURS = Mark(word="measured"), Mark(word="predicted"), Mark(word="yours")
Phrase = tuple[str | Mark, ...]  # a sentence with marks in it


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmLabel:
    """An arm's name with its mark: the colour by `family`, the shape by context; `short` where the name is too long."""

    kind: ClassVar[str] = "arm"
    name: str
    short: str
    family: Family
    shape: Shape
    chosen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A score and its interval."""

    kind: ClassVar[str] = "scored"
    value: str
    interval: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StyledText:
    """Words in a tone, and what stands softly behind them (a share, a number of questions)."""

    kind: ClassVar[str] = "styled"
    text: str
    tone: Literal["", "yes", "no", "soft", "strong"] = ""
    soft: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackedBar:
    """Several arms in one cell, each with its score or with what became of it."""

    kind: ClassVar[str] = "stack"
    entries: tuple[tuple[ArmLabel, Scored | StyledText], ...]


def arm_label(arm: Arm, chosen: str | None = None) -> ArmLabel:
    """The arm with its mark; it stands out where it is the one `chosen`."""
    return ArmLabel(
        name=arm.name,
        short=elide_middle(arm.name),
        family=arm_family(arm),
        shape=context_shape(arm.context),
        chosen=arm.name == chosen,
    )


def estimate_cell(found: Estimate) -> Scored:
    """A score and its interval, written."""
    return Scored(value=format_score(found.value), interval=format_interval(found.low, found.high))


Cell = str | ArmLabel | Scored | StyledText | StackedBar | Phrase


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The head of a column: its title, the name of the intervals in it, a mark for all its figures; text or figures."""

    title: str | ArmLabel | StyledText
    interval: str = ""
    mark: Mark | None = None
    text: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table: the first cell of each row heads it."""

    label: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Generic[TableEntry]):
    """A list under a title of its own; without entries there is nothing to show."""

    title: str
    entries: tuple[TableEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """A section's name in links, its short and its whole title, and the sentence under it."""

    id: str
    link: str
    title: str
    lead: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One arm in a chart: `family` gives the colour, `shape` the context, `title` what a pointer shows; `x_high`: x's upper bound."""

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
    """Scores with their intervals, one row an arm; what stands at its right, on a desktop and on a phone."""

    kind: ClassVar[str] = "whiskers"
    title: str
    dots: tuple[Dot, ...]
    values: tuple[str, ...]
    short_values: tuple[str, ...]
    target: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """Scores against time or cost; a `limit` on x, a `target` on y."""

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
    """How often answers of like probability are right; `bins` hold count, mean probability and share right, the least probable first."""

    kind: ClassVar[str] = "reliability"
    title: str
    y_title: str
    family: Family
    bins: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of a curve chart; `style`: train, or the arm's family; at `kept` its dot is filled."""

    name: str
    style: Family | Literal["train"]
    points: tuple[tuple[float, float], ...]
    kept_step: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Lines over optimizer steps, or over what `x_title` counts."""

    kind: ClassVar[str] = "curves"
    title: str
    y_title: str
    series: tuple[Series, ...]
    x_title: str = "step"
