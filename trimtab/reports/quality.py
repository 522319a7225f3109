"""The quality sections: every arm's score with its interval and its other figures, and quality against latency and
cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from trimtab.base.grammar import TRIVIAL, describe_arm
from trimtab.base.machine import is_busy
from trimtab.base.results import AuditedArm, Estimate, HumanAudit, TrivialArm
from trimtab.measurement.groundedness import JUDGED_SENTENCES
from trimtab.reports.components import (
    MEASURED,
    PREDICTED,
    ArmInWords,
    ArmLabel,
    Cell,
    Column,
    Dot,
    Grid,
    Heading,
    Listing,
    Phrase,
    Scatter,
    StyledText,
    Whiskers,
    arm_label,
    estimate_cell,
)
from trimtab.reports.folder import ArmEntry, StudyFolder
from trimtab.reports.formatting import (
    DASH,
    format_bytes,
    format_interval,
    format_memory,
    format_money,
    format_number,
    format_p,
    format_score,
    format_seconds,
    shorten,
)
from trimtab.reports.labels import (
    FAMILIES,
    SHAPES,
    Family,
    Shape,
    arm_family,
    context_shape,
    extra_label,
    settings_text,
)

MOST_NAMES = 8  # arms whose names fit into a scatter plot
WHOLE_NUMBERS = ("train_tokens", "steps", "planned_steps", "epochs", "skipped_rows", "facts_disagree", JUDGED_SENTENCES)
MAIN_EXTRAS = ("exact", "answer_words")  # that have a column in the table of arms
STATUS = {"failed": "failed", "not_run": "did not run"}
# A column, and the function that returns an arm's cell in it, None for an empty one.
FigureColumn = tuple[Column, Callable[[ArmEntry], Cell | None]]


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


def quality_section(study: StudyFolder) -> Quality:
    """Return the scores with their intervals, and every figure of every arm."""
    correction = (
        f"pass or fail against the target of {format_number(study.result.target)} carries Holm’s correction."
        if study.result.target is not None
        else "comparisons carry Holm’s correction."
    )
    done = study.done
    effective = next((entry.result.score.effective for entry in done if entry.result.score), "")
    of = f" of {effective}," if effective else ""
    definition = ": ".join(filter(None, (study.metric.label, study.metric.meaning)))
    lead = f"Scores ({definition}){of} best first, with unadjusted 95% intervals; {correction}"
    return Quality(
        heading=Heading(id="quality", link="Quality", title="Quality", lead=lead if done else ""),
        empty=None if done else "No arm has a score.",
        legend=_legend(done) if done else (),
        chart=_whiskers(study) if done else None,
        arms=_with_trivial(_grid(study, "All arms", _main_columns()), study.result.trivial),
        note=(
            *("Figures without a mark are ", MEASURED),
            f"; {DASH} is not measured, or does not apply.{_trivial_words(study.result.trivial)}",
        ),
        other=_grid(study, "Other measurements", _other_columns(study)),
        missing=Listing(title="Without a score", entries=tuple(map(_missing, study.not_done))),
        glossary=Listing(
            title="What each arm is",
            entries=tuple(
                ArmInWords(arm=arm_label(entry.arm), words=describe_arm(entry.arm, entry.result.extras))
                for entry in study.arms
            ),
        ),
    )


def _missing(entry: ArmEntry) -> Missing:
    status = STATUS.get(entry.result.status, entry.result.status)
    return Missing(arm=arm_label(entry.arm), status=status, why=entry.result.why or "no reason was written down")


def _dot(entry: ArmEntry, study: StudyFolder, x: float = 0.0) -> Dot:
    score = entry.result.score or Estimate(value=0.0, low=0.0, high=0.0, n=0)
    return Dot(
        label=entry.name,
        family=arm_family(entry.arm),
        shape=context_shape(entry.arm.context),
        x=x,
        y=score.value,
        low=score.low,
        high=score.high,
        strong=entry.name == study.result.verdict.use,
        title=f"{entry.name}: {format_score(score.value)}, 95% interval {format_interval(score.low, score.high)}",
    )


def _whiskers(study: StudyFolder) -> Whiskers:
    dots = tuple(_dot(entry, study) for entry in study.done)
    return Whiskers(
        title=f"{study.metric.label} of each arm",
        dots=dots,
        values=tuple(f"{format_score(dot.y)}  [{format_interval(dot.low, dot.high)}]" for dot in dots),
        short_values=tuple(format_score(dot.y) for dot in dots),
        target=study.result.target,
    )


def _legend(arms: Sequence[ArmEntry]) -> tuple[LegendItem, ...]:
    """Return the colours that occur, and the shapes if there are several."""
    families = {arm_family(entry.arm) for entry in arms}
    shapes = {context_shape(entry.arm.context) for entry in arms}
    colours = [
        LegendItem(family=name, shape="circle", text=words) for name, words in FAMILIES.items() if name in families
    ]
    shapes_shown = [
        LegendItem(family="outline", shape=name, text=words) for name, words in SHAPES.items() if name in shapes
    ]
    return (*colours, *(shapes_shown if len(shapes_shown) > 1 else ()))


# ---- the table of arms


def _main_columns() -> list[FigureColumn]:
    """Return the columns of the figures that decide."""
    return [
        (
            Column(title="Score", interval="95%"),
            lambda arm: estimate_cell(arm.result.score) if arm.result.score else None,
        ),
        (Column(title=extra_label("exact")), lambda arm: arm.result.exact or None),
        (Column(title=extra_label("answer_words")), _answer_words),
        (Column(title="Target"), _passes),
        (Column(title="p50"), lambda arm: _milliseconds(arm.result.latency_p50_ms)),
        (Column(title="p95"), _p95),
        (Column(title="Machine"), _machine),
        (
            Column(title="Training"),
            lambda arm: format_seconds(arm.result.train_seconds) if arm.result.train_seconds else None,
        ),
        (
            Column(title="Peak memory"),
            lambda arm: format_memory(arm.result.peak_memory_mb) if arm.result.peak_memory_mb is not None else None,
        ),
        (
            Column(title="Stored"),
            lambda arm: format_bytes(arm.result.stored_bytes) if arm.result.stored_bytes else None,
        ),
        (
            Column(title="Cost", mark=PREDICTED),
            lambda arm: format_money(arm.result.cost.total, arm.result.cost.currency) if arm.result.cost else None,
        ),
    ]


def _other_columns(study: StudyFolder) -> list[FigureColumn]:
    """Return the columns of the other figures."""
    extras = dict.fromkeys(name for arm in study.done for name in arm.result.extras if name not in MAIN_EXTRAS)
    return [
        (
            Column(title="Target, p before Holm"),
            lambda arm: format_p(arm.result.p_target) if arm.result.p_target is not None else None,
        ),
        (
            Column(title="Score of each seed"),
            lambda arm: (
                ", ".join(map(format_score, arm.result.seed_scores)) if len(arm.result.seed_scores) > 1 else None
            ),
        ),
        (
            Column(title="Fits the format"),
            lambda arm: f"{arm.result.format_ok:.1%}" if arm.result.format_ok is not None else None,
        ),
        (Column(title="Abstention precision"), _abstention_cell("precision")),
        (Column(title="Abstention recall"), _abstention_cell("recall")),
        *((Column(title=extra_label(name, extras)), _extra_cell(name)) for name in extras),
        *_audit_columns(study.result.audit),
        (
            Column(title="Settings"),
            lambda arm: shorten(settings_text(arm.result.chosen), 120),
        ),
    ]


def _audit_columns(audit: HumanAudit | None) -> list[FigureColumn]:
    """Return the agreement of the metric with people, each figure with its 95% interval."""
    if audit is None or not audit.arms:
        return []
    audited = {arm.arm: arm for arm in audit.arms}
    kinds: dict[str, Callable[[AuditedArm], Estimate | None]] = {
        "Sensitivity (people)": lambda arm: arm.sensitivity,
        "Specificity (people)": lambda arm: arm.specificity,
        "κ (people)": lambda arm: arm.kappa,
        "Score by the metric": lambda arm: arm.metric_score,
    }

    def cells(of: Callable[[AuditedArm], Estimate | None]) -> Callable[[ArmEntry], Cell | None]:
        def cell(entry: ArmEntry) -> Cell | None:
            figure = of(audited[entry.name]) if entry.name in audited else None
            return estimate_cell(figure) if figure else None

        return cell

    return [(Column(title=title, interval="95%"), cells(of)) for title, of in kinds.items()]


def _grid(study: StudyFolder, title: str, figures: Sequence[FigureColumn]) -> Grid | None:
    """Return the table of finished arms, with the columns that have a figure for some arm."""
    used = [(column, cell) for column, cell in figures if any(cell(one) for one in study.done)]
    if not used:
        return None
    rows = [
        (arm_label(one.arm, study.result.verdict.use), *(cell(one) or DASH for _, cell in used)) for one in study.done
    ]
    return Grid(label=title, columns=(Column(title="Arm"), *(column for column, _ in used)), rows=tuple(rows))


def _with_trivial(grid: Grid | None, trivial: Sequence[TrivialArm]) -> Grid | None:
    """Return the table with the trivial arms below; they have a score and its interval only."""
    if grid is None:
        return None
    dashes: list[Cell] = [DASH] * (len(grid.columns) - 2)
    rows = ((StyledText(text=rule.arm, tone="soft"), estimate_cell(rule.score), *dashes) for rule in trivial)
    return replace(grid, rows=(*grid.rows, *rows))


def _trivial_words(trivial: Sequence[TrivialArm]) -> str:
    """Return the explanation of the trivial arms."""
    words = "; ".join(f"{one.arm}, {TRIVIAL[one.arm]}" for one in trivial)
    return f" The last rows are what answering without a model comes to, at no cost: {words}." if words else ""


def _passes(entry: ArmEntry) -> Cell | None:
    if entry.result.passes is None:
        return None
    return StyledText(text="passes", tone="yes") if entry.result.passes else StyledText(text="not shown", tone="soft")


def _milliseconds(value: float | None) -> str | None:
    return format_seconds(value / 1000) if value is not None else None


def _machine(entry: ArmEntry) -> Cell | None:
    """Return the arm's share of the processor if it was measured on a busy machine."""
    share = entry.result.processor_share
    return (
        StyledText(text="busy", tone="no", soft=f"{share:.0%} of the processor") if share and is_busy(share) else None
    )


def _p95(entry: ArmEntry) -> Cell | None:
    """Return the 95th percentile and its upper bound."""
    value, high = _milliseconds(entry.result.latency_p95_ms), _milliseconds(entry.result.latency_p95_high_ms)
    return StyledText(text=value, soft=f"up to {high}" if high else "") if value else None


def _abstention_cell(name: str) -> Callable[[ArmEntry], Cell | None]:
    def cell(entry: ArmEntry) -> Cell | None:
        value = entry.result.abstention.get(name)
        return f"{value:.2f}" if value is not None else None

    return cell


def _answer_words(entry: ArmEntry) -> Cell | None:
    return format_number(round(entry.result.extras["answer_words"])) if "answer_words" in entry.result.extras else None


def _extra_cell(name: str) -> Callable[[ArmEntry], Cell | None]:
    def cell(entry: ArmEntry) -> Cell | None:
        value = entry.result.extras.get(name)
        if value is None or (not value and name == "skipped_rows"):
            return None
        return format_number(value) if name in WHOLE_NUMBERS else format_score(value)

    return cell


# ---- against latency and cost


def tradeoffs_section(study: StudyFolder) -> Tradeoffs | None:
    """Return quality against latency, and against cost."""
    done = study.done
    p95 = all(one.result.latency_p95_ms is not None for one in done)
    timed = [(one, one.result.latency_p95_ms if p95 else one.result.latency_p50_ms) for one in done]
    bounds = {
        one.name: one.result.latency_p95_high_ms / 1000 for one in done if one.result.latency_p95_high_ms is not None
    }
    unit = next(
        (one.result.cost.currency for one in done if one.result.cost), ""
    )  # of the best arm; other currencies do not fit on one axis
    paid = [(one, one.result.cost.total) for one in done if one.result.cost and one.result.cost.currency == unit]
    limit = study.limits.latency_p95_ms if study.limits and p95 else None
    charts = []
    figures = [(one, value / 1000) for one, value in timed if value is not None]
    if figures:
        name = "95% of answers within, seconds" if p95 else "half of answers within, seconds"
        held = bounds if p95 else {}
        charts.append(_scatter(study, figures, "Against latency", name, limit / 1000 if limit else None, held))
    if paid and max(value for _, value in paid) > 0:
        name, scale = _cost_unit(unit, max(value for _, value in paid))
        costs = [(one, value / scale) for one, value in paid]
        charts.append(_scatter(study, costs, "Against cost", f"{name} {_horizon(study)}", None, {}))
    if not charts:
        return None
    lead = (
        "Up is better, left is cheaper. Latency is measured, one question at a time; cost is predicted from "
        "measured seconds."
    )
    if p95 and bounds:
        lead += " A line to the right of a latency ends at its upper 95% bound, which a limit is held against."
    if len(done) > MOST_NAMES:
        lead += " Of so many arms, those are named that no other one beats both ways."
    return Tradeoffs(
        heading=Heading(id="tradeoffs", link="Trade-offs", title="What quality costs", lead=lead), charts=tuple(charts)
    )


def _scatter(
    study: StudyFolder,
    figures: Sequence[tuple[ArmEntry, float]],
    heading: str,
    x_title: str,
    limit: float | None,
    bounds: Mapping[str, float],
) -> Scatter:
    dots = [replace(_dot(one, study, value), x_high=bounds.get(one.name)) for one, value in figures]
    if len(dots) > MOST_NAMES:
        dots = [dot if dot.strong or not _is_dominated(dot, dots) else replace(dot, label="") for dot in dots]
    metric = study.metric.label
    return Scatter(
        heading=heading,
        title=f"{metric} {heading.lower()}",
        x_title=x_title,
        y_title=metric,
        dots=tuple(dots),
        target=study.result.target,
        limit=limit,
    )


def _is_dominated(dot: Dot, dots: Sequence[Dot]) -> bool:
    """True if another arm is better or cheaper, and at least equal in the other respect."""
    return any(other.y >= dot.y and other.x <= dot.x and (other.y, other.x) != (dot.y, dot.x) for other in dots)


def _horizon(study: StudyFolder) -> str:
    """Return the months that costs are for, as far as the files say."""
    return f"over {format_number(study.result.volume.horizon_months)} months" if study.result.volume else "in all"


def _cost_unit(currency: str, largest: float) -> tuple[str, float]:
    """Return the name of the cost axis, and its unit in recorded units; machine time is shown as in the tables."""
    if "second" not in currency:
        return f"cost, {currency}", 1.0
    return ("machine hours", 3600.0) if largest >= 7200 else ("machine minutes", 60.0)
