"""The content of a report as plain records without markup, from which HTML and Markdown are rendered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from trimtab.reports.components import (
    ArmLabel,
    Curves,
    Grid,
    Heading,
    Listing,
    Mark,
    Phrase,
    ReliabilityDiagram,
    Scatter,
    Whiskers,
)
from trimtab.reports.labels import Family, Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFigure:
    """One of the key figures."""

    name: str
    value: str
    mark: Mark
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmInWords:
    """An arm and its description."""

    arm: ArmLabel
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderView:
    """The header: the verdict, its basis, key figures, caveats, and the next step."""

    shown: bool
    state: str
    task: str
    study: str
    headline: str
    more: tuple[str, ...]
    needs: str | None
    arm: ArmInWords | None
    in_words: str
    rests_on: str
    facts: tuple[KeyFigure, ...]
    caveats: Listing[str]
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LegendItem:
    """The meaning of a colour (`outline`: any) or of a shape."""

    family: Family | Literal["outline"]
    shape: Shape
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """An arm without a score, and the reason."""

    arm: ArmLabel
    status: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Every arm with its figures; `empty` is the message if no arm has a score."""

    heading: Heading
    empty: str | None
    legend: tuple[LegendItem, ...]
    chart: Whiskers | None
    arms: Grid | None
    note: Phrase
    other: Grid | None
    missing: Listing[Missing]
    glossary: Listing[ArmInWords]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tradeoffs:
    """Quality against latency and cost."""

    heading: Heading
    charts: tuple[Scatter, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """One two-by-two: the interaction in words, the effects as a table, and their basis."""

    sentence: str
    grid: Grid
    note: Phrase


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsByContext:
    """The table of weights by contexts, and every two-by-two in it."""

    heading: Heading
    grid: Grid
    effects: Listing[Effects]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparisons:
    """The planned comparisons."""

    heading: Heading
    grid: Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The cost of each arm and its basis; `flips` only for a shown verdict. `robustness`: the verdict with one
    assumption changed."""

    heading: Heading
    grid: Grid | None
    basis: Phrase
    flips: Listing[str]
    robustness: Listing[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerView:
    """One arm's answer: its score, failure, retrieved passages, and its seed if there are several."""

    arm: ArmLabel
    score: str
    failure: str
    text: str
    passages: str
    seed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionView:
    """A question with its reference, its slice if any, and the answers of some arms."""

    question: str
    reference: str
    answers: tuple[AnswerView, ...]
    slice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureKind:
    """A kind of failure, its count, and examples."""

    name: str
    meaning: str
    count: str
    examples: tuple[QuestionView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """Failures by kind and arm, or the distribution of a graded metric's scores; `none` is the message without
    failures."""

    heading: Heading
    none: str | None
    grid: Grid | None
    note: str
    kinds: tuple[FailureKind, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationView:
    """The calibration of each arm's probabilities, before and after, with a chart each."""

    title: str
    note: str
    grid: Grid
    charts: tuple[ReliabilityDiagram, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ByClass:
    """One arm's classes, its confusions, selective accuracy, and calibration; many classes are `folded`."""

    heading: Heading
    mistakes: Grid | None
    title: str
    grid: Grid
    folded: bool
    surest: Grid | None
    surest_title: str
    surest_note: str
    calibration: CalibrationView | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide:
    """Questions on which the arms differ, with all their answers."""

    heading: Heading
    questions: tuple[QuestionView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AllAnswers:
    """All answers, to be filtered by arm, kind of failure, slice and words; a filter with one option is omitted.

    `without` is shown if no script runs, `left_out` if the answers do not fit into one page.
    """

    heading: Heading
    arms: tuple[ArmLabel, ...]
    kinds: tuple[str, ...]
    slices: tuple[str, ...]
    questions: tuple[QuestionView, ...]
    without: str
    left_out: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """Scores per slice, those of `few` questions apart; `more` tells how many slices are left out."""

    heading: Heading
    grid: Grid | None
    few: Grid | None
    more: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """The training curves of one stage of an arm, and the loop's notes."""

    arm: ArmLabel
    stage: str
    notes: tuple[str, ...]
    charts: tuple[Curves, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCurves:
    """Every training run; the legend explains the lines and dots: train, dev, kept."""

    heading: Heading
    legend: Mapping[Literal["train", "dev", "kept"], str]
    runs: tuple[TrainingRun, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EffortTrials:
    """Every trial of one arm."""

    arm: ArmLabel
    title: str
    grid: Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class EffortView:
    """The search effort of every arm, and its trials."""

    heading: Heading
    grid: Grid
    arms: tuple[EffortTrials, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCurves:
    """The learning curves of trained arms."""

    heading: Heading
    grid: Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorisationView:
    """The exposure of memorisation canaries by arm."""

    heading: Heading
    grid: Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRemark:
    """A remark of the data audit: `level` is stop, warn or note, `word` its written form."""

    level: str
    word: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataAudit:
    """Splits, refused rows, overlaps, remarks, sources and licences, and inferences made while reading."""

    heading: Heading
    facts: str
    remarks: tuple[DataRemark, ...]
    counted: tuple[tuple[str, str], ...]
    notes: Listing[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestView:
    """The manifest: plan and outcome, every figure with its origin, the manifest in full and in short."""

    heading: Heading
    plan: Grid | None
    figures: Grid | None
    figures_title: str
    figures_count: str
    manifest: str
    manifest_title: str
    manifest_holds: str
    origins: tuple[str, ...]


AnySection = (
    Quality
    | Tradeoffs
    | WeightsByContext
    | Comparisons
    | Costs
    | Failures
    | ByClass
    | SideBySide
    | AllAnswers
    | Slices
    | EffortView
    | LearningCurves
    | MemorisationView
    | TrainingCurves
    | DataAudit
    | ManifestView
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyView:
    """Everything that a report says; an empty section is None."""

    title: str
    header: HeaderView
    quality: Quality
    tradeoffs: Tradeoffs | None
    factorial: WeightsByContext | None
    comparisons: Comparisons | None
    costs: Costs | None
    failures: Failures | None
    classes: ByClass | None
    answers: SideBySide | None
    all_answers: AllAnswers | None
    slices: Slices | None
    effort: EffortView | None
    learning: LearningCurves | None
    memorisation: MemorisationView | None
    training: TrainingCurves | None
    data: DataAudit | None
    manifest: ManifestView | None
    footer: Phrase

    @property
    def sections(self) -> tuple[AnySection, ...]:
        """The sections that are not empty, in the order of the page."""
        every = (
            *(self.quality, self.tradeoffs, self.factorial, self.comparisons, self.costs, self.failures, self.classes),
            *(
                self.answers,
                self.all_answers,
                self.slices,
                self.effort,
                self.learning,
                self.memorisation,
                self.training,
            ),
            *(self.data, self.manifest),
        )
        return tuple(section for section in every if section is not None)
