"""What tuning and context do, alone and together: the table of both with every interaction; and the planned comparisons."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.base.grammar import context_words, method_of, parts_of
from trimtab.base.results import Comparison, Estimate
from trimtab.measurement.factorial import Factorial, factorial
from trimtab.reports.components import (
    MEASURED,
    Cell,
    Column,
    Grid,
    Heading,
    Listing,
    Sentence,
    StackedBar,
    label,
    scored,
)
from trimtab.reports.factorial import Square, squares
from trimtab.reports.folder import ArmEntry, StudyFolder
from trimtab.reports.formatting import NOTHING, between, p_value, signed
from trimtab.reports.labels import context_row, weights_called
from trimtab.reports.view import Comparisons, Effects, WeightsByContext


def weights_by_context(study: StudyFolder) -> WeightsByContext | None:
    """Contexts down and weights across, and every interaction; None where there is neither an interaction nor two of both.

    None, too, where fewer than two of these arms have a score: the table would say of the others only that they did not run.
    """
    entries = [one for one in study.arms if not method_of(one.arm).answers_alone]
    weights = dict.fromkeys(weights_called(one.arm) for one in sorted(entries, key=_base_first))
    contexts = sorted({one.arm.context for one in entries}, key=context_row)
    effects = _effects(study)
    scored_arms = sum(one.score is not None for one in entries)
    if scored_arms < 2 or (not effects and (len(weights) < 2 or len(contexts) < 2)):
        return None
    rows = []
    for context in contexts:
        here = [one for one in entries if one.arm.context == context]
        cells = [_cell([one for one in here if weights_called(one.arm) == name], study.verdict.arm) for name in weights]
        rows.append((context_words(context), *cells))
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
    """The arms of one place in the table, each with its score or with what became of it."""
    return (
        StackedBar(
            entries=tuple(
                (label(one.arm, chosen), scored(one.score))
                if one.status == "done" and one.score is not None
                else (label(one.arm), Sentence(text=one.status.replace("_", " "), tone="no"))
                for one in entries
            )
        )
        if entries
        else NOTHING
    )


def _effects(study: StudyFolder) -> tuple[Effects, ...]:
    """Every two by two of the finished arms whose answers lie in the folder."""
    answers = {one.name: one.answers for one in study.done if one.answers}
    what = "Share right" if study.metric == "macro_f1" else "Mean score"
    what = f"{what}, unweighted," if study.data and study.data.mix else what
    found = []
    for square in squares([one.arm for one in study.done if one.answers]):
        result = factorial(*(answers[arm.name] for arm in (square.neither, square.first, square.second, square.both)))
        if result is not None:
            found.append(_effect(square, result, what))
    return tuple(found)


def _effect(square: Square, found: Factorial, what: str) -> Effects:
    first, second = factors(square)

    def line(name: Cell, one: Estimate) -> tuple[Cell, ...]:
        return (name, signed(one.value), between(one.low, one.high))

    none = square.neither.name
    by = f", by their {found.groups:,} groups" if found.groups else ""
    note = f"{what} over the {found.interaction.n:,} questions that all four arms answered; unadjusted 95% t intervals{by}."
    return Effects(
        sentence=interaction(square, found.interaction),
        grid=Grid(
            label=f"Effects of {square.both.name}",
            columns=(Column(title="Effect"), Column(title="Difference"), Column(title="95% interval")),
            rows=(
                line(f"{first} alone ({square.first.name} − {none})", found.first),
                line(f"{second} alone ({square.second.name} − {none})", found.second),
                line(f"both ({square.both.name} − {none})", found.both),
                line(Sentence(text="interaction: both beyond the sum of the two", tone="strong"), found.interaction),
            ),
        ),
        note=(MEASURED, f" {note}"),
    )


def factors(square: Square) -> tuple[str, str]:
    """The two factors in words."""
    first, second = context_words(square.first.context), context_words(square.second.context)
    if not square.tuning:
        return first, second
    return "tuning", second if len(parts_of(square.second.context)) == 1 else f"context ({second})"


def interaction(square: Square, found: Estimate) -> str:
    """The interaction in words; it is called only where its interval is clear of zero."""
    first, second = factors(square)
    gains = f"{square.both.name} gains {signed(found.value)} ({between(found.low, found.high)})"
    if found.low > 0:
        word = f"help each other: {gains} beyond the sum of both"
    elif found.high < 0:
        word = f"overlap: {gains} against the sum of both"
    else:
        word = f"add up as far as these questions can tell: {gains} against their sum, and the interval holds zero"
    weights = square.first.name if square.tuning else weights_called(square.neither)
    return f"With {'base weights' if weights == 'base' else weights}, {first} and {second} {word}."


def comparisons(study: StudyFolder) -> Comparisons | None:
    """The planned comparisons in words."""
    if not study.comparisons:
        return None
    lead = (
        "The best arm with each other one, and each blend with its parts, on the same questions; differences are first minus "
        "second. Where test and interval disagree at the edge, the test decides."
    )
    rows = [
        (outcome(one, study.level), signed(one.difference), between(one.low, one.high), p_value(one.p_holm))
        for one in map(better_first, study.comparisons)
    ]
    columns = tuple(Column(title=title) for title in ("Outcome", "Difference", "95% interval", "p after Holm"))
    return Comparisons(
        heading=Heading(id="comparisons", link="Comparisons", title="Comparisons", lead=lead),
        grid=Grid(label="Comparisons", columns=columns, rows=tuple(rows)),
    )


def better_first(one: Comparison) -> Comparison:
    """The comparison seen from the arm that scored higher."""
    return one if one.difference >= 0 else one.swapped()


def outcome(one: Comparison, level: float) -> str:
    """A comparison in words, at the study's level after correction; `one.a` is the arm that scored higher."""
    if one.p_holm > level:
        return f"{one.a} and {one.b}: no difference shown"
    return f"{one.a} is better than {one.b}"
