"""The comparisons: the table of weights by contexts, every two-by-two in it, and the planned comparisons."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from trimtab.base.grammar import PARTS, describe_context, is_trained, method_of, parts_of
from trimtab.base.records import Arm
from trimtab.base.results import Comparison, Estimate
from trimtab.measurement.factorial import Factorial, factorial
from trimtab.reports.components import (
    MEASURED,
    Cell,
    Column,
    Grid,
    Heading,
    Listing,
    Phrase,
    StackedBar,
    StyledText,
    TableSection,
    arm_label,
    estimate_cell,
)
from trimtab.reports.folder import ArmEntry, StudyFolder
from trimtab.reports.formatting import DASH, format_difference_interval, format_p, format_signed
from trimtab.reports.labels import context_row, weights_label


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


def factorial_section(study: StudyFolder) -> WeightsByContext | None:
    """Return the table of contexts (rows) by weights (columns), and every interaction; None without an interaction or
    two of each.

    None, too, if fewer than two of these arms have a score: of the others the table would say only that they did not
    run.
    """
    entries = [entry for entry in study.arms if not method_of(entry.arm).answers_alone]
    weights = dict.fromkeys(weights_label(entry.arm) for entry in sorted(entries, key=_base_first))
    contexts = sorted({entry.arm.context for entry in entries}, key=context_row)
    effects = _effects(study)
    scored_arms = sum(entry.result.score is not None for entry in entries)
    if scored_arms < 2 or (not effects and (len(weights) < 2 or len(contexts) < 2)):
        return None
    rows = []
    for context in contexts:
        here = [entry for entry in entries if entry.arm.context == context]
        cells = [
            _cell([entry for entry in here if weights_label(entry.arm) == name], study.result.verdict.use)
            for name in weights
        ]
        rows.append((describe_context(context), *cells))
    lead = "Tuning changes what the model is; context changes what it sees. Scores with unadjusted 95% intervals."
    columns = (Column(title="Context ↓ Weights →"), *(Column(title=name, text=True) for name in weights))
    return WeightsByContext(
        heading=Heading(id="factorial", link="Weights × context", title="Weights × context", lead=lead),
        grid=Grid(label="Weights by context", columns=columns, rows=tuple(rows)),
        effects=Listing(title="Do they help each other?", entries=effects),
    )


def _base_first(entry: ArmEntry) -> int:
    return {"base": 0, "api": 2}.get(entry.arm.weights, 1)


def _cell(entries: Sequence[ArmEntry], chosen: str | None) -> Cell:
    """Return the arms of one cell of the table, each with its score or its status."""
    if not entries:
        return DASH
    return StackedBar(
        entries=tuple(
            (arm_label(entry.arm, chosen), estimate_cell(entry.result.score))
            if entry.result.status == "done" and entry.result.score is not None
            else (arm_label(entry.arm), StyledText(text=entry.result.status.replace("_", " "), tone="no"))
            for entry in entries
        )
    )


def _effects(study: StudyFolder) -> tuple[Effects, ...]:
    """Return the effects of every two-by-two of finished arms whose answers are in the folder."""
    answers = {entry.name: entry.answers for entry in study.done if entry.answers}
    measure = "Share right" if study.metric.by_class else "Mean score"
    measure = f"{measure}, unweighted," if study.data and study.data.mix else measure
    effects = []
    for square in two_by_twos([entry.arm for entry in study.done if entry.answers]):
        result = factorial(*(answers[arm.name] for arm in (square.neither, square.first, square.second, square.both)))
        if result is not None:
            effects.append(_effect(square, result, measure))
    return tuple(effects)


def _effect(square: TwoByTwo, result: Factorial, measure: str) -> Effects:
    first, second = factor_words(square)

    def line(name: Cell, effect: Estimate) -> tuple[Cell, ...]:
        return (name, format_signed(effect.value), format_difference_interval(effect.low, effect.high))

    none = square.neither.name
    by = f", by their {result.groups:,} groups" if result.groups else ""
    note = (
        f"{measure} over the {result.interaction.n:,} questions that all four arms answered; unadjusted 95% t "
        f"intervals{by}."
    )
    return Effects(
        sentence=interaction_words(square, result.interaction),
        grid=Grid(
            label=f"Effects of {square.both.name}",
            columns=(Column(title="Effect"), Column(title="Difference"), Column(title="95% interval")),
            rows=(
                line(f"{first} alone ({square.first.name} − {none})", result.first),
                line(f"{second} alone ({square.second.name} − {none})", result.second),
                line(f"both ({square.both.name} − {none})", result.both),
                line(StyledText(text="interaction: both beyond the sum of the two", tone="strong"), result.interaction),
            ),
        ),
        note=(MEASURED, f" {note}"),
    )


def factor_words(square: TwoByTwo) -> tuple[str, str]:
    """Return the names of the two factors."""
    first, second = describe_context(square.first.context), describe_context(square.second.context)
    if not square.tuning:
        return first, second
    return "tuning", second if len(parts_of(square.second.context)) == 1 else f"context ({second})"


def interaction_words(square: TwoByTwo, found: Estimate) -> str:
    """Describe the interaction; an effect is claimed only if its interval excludes zero."""
    first, second = factor_words(square)
    gains = (
        f"{square.both.name} gains {format_signed(found.value)} ({format_difference_interval(found.low, found.high)})"
    )
    if found.low > 0:
        word = f"help each other: {gains} beyond the sum of both"
    elif found.high < 0:
        word = f"overlap: {gains} against the sum of both"
    else:
        word = f"add up as far as these questions can tell: {gains} against their sum, and the interval holds zero"
    weights = square.first.name if square.tuning else weights_label(square.neither)
    return f"With {'base weights' if weights == 'base' else weights}, {first} and {second} {word}."


def comparisons_section(study: StudyFolder) -> TableSection | None:
    """Return the planned comparisons in words."""
    if not study.result.comparisons:
        return None
    lead = (
        "The best arm with each other one, and each blend with its parts, on the same questions; differences are first "
        "minus second. Where test and interval disagree at the edge, the test decides."
    )
    rows = [
        (
            comparison_words(one, study.result.level),
            format_signed(one.difference),
            format_difference_interval(one.low, one.high),
            format_p(one.p_holm),
        )
        for one in map(better_first, study.result.comparisons)
    ]
    columns = tuple(Column(title=title) for title in ("Outcome", "Difference", "95% interval", "p after Holm"))
    return TableSection(
        heading=Heading(id="comparisons", link="Comparisons", title="Comparisons", lead=lead),
        grid=Grid(label="Comparisons", columns=columns, rows=tuple(rows)),
    )


def better_first(one: Comparison) -> Comparison:
    """Return the comparison with the arm that scored higher first."""
    return one if one.difference >= 0 else one.swapped()


def comparison_words(one: Comparison, level: float) -> str:
    """Describe a comparison at the study's level after correction; `one.a` is the arm that scored higher."""
    if one.p_holm > level:
        return f"{one.a} and {one.b}: no difference shown"
    return f"{one.a} is better than {one.b}"


CONTEXT_SETTINGS = {part.setting for part in PARTS.values()}  # settings of a context, not of weights
FactorialParts = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoByTwo:
    """Four arms: `neither` factor, the `first` alone, the `second` alone, `both`; with `tuning` the first factor is
    tuned weights."""

    neither: Arm
    first: Arm
    second: Arm
    both: Arm
    tuning: bool


def two_by_twos(arms: Sequence[Arm]) -> tuple[TwoByTwo, ...]:
    """Return every two-by-two among `arms`, in their order; arms that differ in a setting count as different."""
    by_key = {(_weights_key(arm), _context_key(arm)): arm for arm in reversed(arms)}  # of equal arms the first counts
    base: Hashable = ("base",)
    no_parts: FactorialParts = frozenset()
    squares = []
    for arm in arms:
        weights, parts = _weights_key(arm), _context_key(arm)
        corners: list[tuple[bool, list[tuple[Hashable, FactorialParts]]]] = []
        if parts and is_trained(arm):
            corners.append((True, [(base, no_parts), (weights, no_parts), (base, parts), (weights, parts)]))
        if len(parts) == 2:
            passages, shots = (frozenset({part}) for part in sorted(parts, key=lambda part: part[0] != "rag"))
            corners.append((False, [(weights, no_parts), (weights, passages), (weights, shots), (weights, parts)]))
        for tuning, keys in corners:
            if all(corner in by_key for corner in keys) and by_key[keys[3]] is arm:
                neither, first, second, both = (by_key[corner] for corner in keys)
                squares.append(TwoByTwo(neither=neither, first=first, second=second, both=both, tuning=tuning))
    return tuple(squares)


def _weights_key(arm: Arm) -> Hashable:
    """Return what identifies weights: method, stages and settings; for an endpoint its name."""
    if arm.weights == "base":
        return ("base",)
    if arm.weights == "api":
        return ("api", arm.endpoint)
    settings = {key: value for key, value in arm.settings.items() if key not in CONTEXT_SETTINGS}
    return (arm.weights, arm.stages, repr(sorted(settings.items())))


def _context_key(arm: Arm) -> FactorialParts:
    """Return what identifies a context: its parts, each with the setting of its size."""
    return frozenset((part, repr(arm.settings.get(PARTS[part].setting))) for part in arm.parts)
