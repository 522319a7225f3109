"""What a report says, in plain records without markup: the page and the Markdown are both made from this, and say nothing else."""

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
    """One of the figures that matter most."""

    name: str
    value: str
    mark: Mark
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmInWords:
    """An arm and what it is."""

    arm: ArmLabel
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderView:
    """The verdict (its first sentence, then what stands beside it), what it means and rests on, the figures that matter, what weakens it, and what to do next."""

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
    """What a colour (`outline`: any) or a shape means."""

    family: Family | Literal["outline"]
    shape: Shape
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """An arm without a score, and why."""

    arm: ArmLabel
    status: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Every arm with its figures; `empty` says so where no arm has a score."""

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
    """One two by two: the interaction in words, the effects as a table, and what they were worked out from."""

    sentence: str
    grid: Grid
    note: Phrase


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsByContext:
    """The table of weights and contexts, and every two by two in it."""

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
    """What each arm costs, from what; nothing flips a verdict that is not shown. `robustness`: the decision with one thing changed."""

    heading: Heading
    grid: Grid | None
    basis: Phrase
    flips: Listing[str]
    robustness: Listing[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerView:
    """One arm's answer to a question: its score, how it failed, the passages that stood before it, its seed where there are several."""

    arm: ArmLabel
    score: str
    failure: str
    text: str
    passages: str
    seed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionView:
    """A question with its reference, its slice where there is one, and the answers of some arms."""

    question: str
    reference: str
    answers: tuple[AnswerView, ...]
    slice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureKind:
    """A kind of failure, how often it came, and examples."""

    name: str
    meaning: str
    count: str
    examples: tuple[QuestionView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """Failures by kind and arm, under a graded metric how scores spread; `none` says so where there is none."""

    heading: Heading
    none: str | None
    grid: Grid | None
    note: str
    kinds: tuple[FailureKind, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationView:
    """What the probabilities of each arm are worth, before and after its calibration; a chart for each."""

    title: str
    note: str
    grid: Grid
    charts: tuple[ReliabilityDiagram, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ByClass:
    """One arm's classes, what is mistaken for what, how sure all arms are and how right they are to be; many classes are `folded`."""

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
    """All answers, to be looked through by arm, kind of failure, slice and words; a choice of one is none.

    `without` is said where no script runs, `left_out` where the answers are too many for one page.
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
    """Scores for each value of the slice column, those of `few` questions apart; `more` tells of those that are left out."""

    heading: Heading
    grid: Grid | None
    few: Grid | None
    more: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """One arm's stage of training: its curves, and what the loop said of it."""

    arm: ArmLabel
    stage: str
    notes: tuple[str, ...]
    charts: tuple[Curves, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCurves:
    """Every training run; the legend says what the lines and dots are: train, dev, kept."""

    heading: Heading
    legend: Mapping[Literal["train", "dev", "kept"], str]
    runs: tuple[TrainingRun, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EffortTrials:
    """Everything that one arm tried."""

    arm: ArmLabel
    title: str
    grid: Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class EffortView:
    """What every arm spent on its search, and its trials one by one."""

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
    """The exposure of canaries, arm by arm."""

    heading: Heading
    grid: Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRemark:
    """What an audit of the data said: `level` is stop, warn or note, `word` how that is written."""

    level: str
    word: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataAudit:
    """Splits, refused rows, overlaps, remarks, sources and licences, and what was inferred while reading."""

    heading: Heading
    facts: str
    remarks: tuple[DataRemark, ...]
    counted: tuple[tuple[str, str], ...]
    notes: Listing[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestView:
    """What the study was made of: plan and outcome, every figure with its origin, the manifest whole and in short."""

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
    """Everything that a report says; a section for which there is nothing is None."""

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
        """The sections that there are, in the order of the page."""
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
