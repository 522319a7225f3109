"""What was measured of every arm: quality with its intervals and all other figures, and quality against latency and cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from trimtab.base.grammar import TRIVIAL, describe
from trimtab.base.machine import is_busy
from trimtab.base.results import AuditedArm, Estimate, HumanAudit, TrivialArm
from trimtab.reports.components import (
    MEASURED,
    PREDICTED,
    Cell,
    Column,
    Dot,
    Grid,
    Heading,
    Listing,
    Scatter,
    Sentence,
    Whiskers,
    label,
    scored,
)
from trimtab.reports.folder import ArmEntry, StudyFolder
from trimtab.reports.formatting import NOTHING, interval, memory, money, p_value, plain, score, seconds, shorten, size
from trimtab.reports.labels import (
    FAMILIES,
    SHAPES,
    extra_called,
    family,
    metric_called,
    metric_means,
    setting_words,
    shape,
)
from trimtab.reports.view import ArmInWords, LegendItem, Missing, Quality, Tradeoffs

MOST_NAMES = 8  # arms whose names fit into a scatter
COUNTED = ("train_tokens", "steps", "planned_steps", "epochs", "skipped_rows", "facts_disagree")
STATUS = {"failed": "failed", "not_run": "did not run"}
Figures = tuple[Column, Callable[[ArmEntry], Cell | None]]  # a column, and an arm's cell in it; None: nothing to show


def quality(study: StudyFolder) -> Quality:
    """Scores with their intervals, and every figure of every arm."""
    corrected = (
        f"pass or fail against the target of {plain(study.target)} carries Holm’s correction."
        if study.target is not None
        else "comparisons carry Holm’s correction."
    )
    done = study.done
    effective = next((one.score.effective for one in done if one.score), "")
    of = f" of {effective}," if effective else ""
    lead = f"Scores ({metric_means(study.metric)}){of} best first, with unadjusted 95% intervals; {corrected}"
    return Quality(
        heading=Heading(id="quality", link="Quality", title="Quality", lead=lead if done else ""),
        empty=None if done else "No arm has a score.",
        legend=_legend(done) if done else (),
        chart=_whiskers(study) if done else None,
        arms=_with_trivial(_grid(study, "All arms", _deciding()), study.trivial),
        note=(
            *("Figures without a mark are ", MEASURED),
            f"; {NOTHING} is not measured, or does not apply.{_trivial_words(study.trivial)}",
        ),
        other=_grid(study, "Other measurements", _others(study)),
        missing=Listing(title="Without a score", entries=tuple(map(_missing, study.not_done))),
        glossary=Listing(
            title="What each arm is",
            entries=tuple(ArmInWords(arm=label(one.arm), words=describe(one.arm, one.extras)) for one in study.arms),
        ),
    )


def _missing(entry: ArmEntry) -> Missing:
    status = STATUS.get(entry.status, entry.status)
    return Missing(arm=label(entry.arm), status=status, why=entry.why or "no reason was written down")


def _dot(entry: ArmEntry, study: StudyFolder, x: float = 0.0) -> Dot:
    found = entry.score or Estimate(value=0.0, low=0.0, high=0.0, n=0)
    return Dot(
        label=entry.name,
        family=family(entry.arm),
        shape=shape(entry.arm.context),
        x=x,
        y=found.value,
        low=found.low,
        high=found.high,
        strong=entry.name == study.verdict.arm,
        title=f"{entry.name}: {score(found.value)}, 95% interval {interval(found.low, found.high)}",
    )


def _whiskers(study: StudyFolder) -> Whiskers:
    dots = tuple(_dot(one, study) for one in study.done)
    return Whiskers(
        title=f"{metric_called(study.metric)} of each arm",
        dots=dots,
        values=tuple(f"{score(dot.y)}  [{interval(dot.low, dot.high)}]" for dot in dots),
        short_values=tuple(score(dot.y) for dot in dots),
        target=study.target,
    )


def _legend(arms: Sequence[ArmEntry]) -> tuple[LegendItem, ...]:
    """The colours that occur, and the shapes where there are several."""
    families = {family(one.arm) for one in arms}
    shapes = {shape(one.arm.context) for one in arms}
    colours = [
        LegendItem(family=name, shape="circle", text=words) for name, words in FAMILIES.items() if name in families
    ]
    forms = [LegendItem(family="outline", shape=name, text=words) for name, words in SHAPES.items() if name in shapes]
    return (*colours, *(forms if len(forms) > 1 else ()))


# ---- the table of arms


def _deciding() -> list[Figures]:
    """The figures that decide."""
    return [
        (Column(title="Score", interval="95%"), lambda one: scored(one.score) if one.score else None),
        (Column(title="Words an answer"), _answer_words),
        (Column(title="Target"), _passes),
        (Column(title="p50"), lambda one: _milliseconds(one.latency_p50_ms)),
        (Column(title="p95"), _p95),
        (Column(title="Machine"), _machine),
        (Column(title="Training"), lambda one: seconds(one.train_seconds) if one.train_seconds else None),
        (
            Column(title="Peak memory"),
            lambda one: memory(one.peak_memory_mb) if one.peak_memory_mb is not None else None,
        ),
        (Column(title="Stored"), lambda one: size(one.stored_bytes) if one.stored_bytes else None),
        (
            Column(title="Cost", mark=PREDICTED),
            lambda one: money(one.cost.total, one.cost.currency) if one.cost else None,
        ),
    ]


def _others(study: StudyFolder) -> list[Figures]:
    """What was measured beside those."""
    extras = dict.fromkeys(name for one in study.done for name in one.extras if name != "answer_words")
    return [
        (
            Column(title="Target, p before Holm"),
            lambda one: p_value(one.p_target) if one.p_target is not None else None,
        ),
        (
            Column(title="Score of each seed"),
            lambda one: ", ".join(map(score, one.seed_scores)) if len(one.seed_scores) > 1 else None,
        ),
        (Column(title="Fits the format"), lambda one: f"{one.format_ok:.1%}" if one.format_ok is not None else None),
        (Column(title="Abstention precision"), _of_abstention("precision")),
        (Column(title="Abstention recall"), _of_abstention("recall")),
        *((Column(title=extra_called(name)), _extra(name)) for name in extras),
        *_of_audit(study.audit),
        (
            Column(title="Settings"),
            lambda one: shorten(setting_words(one.chosen), 120),
        ),
    ]


def _of_audit(audit: HumanAudit | None) -> list[Figures]:
    """How the metric agrees with people: each figure with its 95% interval."""
    if audit is None or not audit.arms:
        return []
    held = {arm.arm: arm for arm in audit.arms}
    kinds: dict[str, Callable[[AuditedArm], Estimate | None]] = {
        "Sensitivity (people)": lambda arm: arm.sensitivity,
        "Specificity (people)": lambda arm: arm.specificity,
        "κ (people)": lambda arm: arm.kappa,
        "Score by the metric": lambda arm: arm.metric_score,
    }

    def cells(of: Callable[[AuditedArm], Estimate | None]) -> Callable[[ArmEntry], Cell | None]:
        def cell(one: ArmEntry) -> Cell | None:
            found = of(held[one.name]) if one.name in held else None
            return scored(found) if found else None

        return cell

    return [(Column(title=title, interval="95%"), cells(of)) for title, of in kinds.items()] if held else []


def _grid(study: StudyFolder, title: str, figures: Sequence[Figures]) -> Grid | None:
    """The table of finished arms, of those columns that have a figure for some arm."""
    used = [(column, cell) for column, cell in figures if any(cell(one) for one in study.done)]
    if not used:
        return None
    rows = [(label(one.arm, study.verdict.arm), *(cell(one) or NOTHING for _, cell in used)) for one in study.done]
    return Grid(label=title, columns=(Column(title="Arm"), *(column for column, _ in used)), rows=tuple(rows))


def _with_trivial(grid: Grid | None, trivial: Sequence[TrivialArm]) -> Grid | None:
    """The table with the trivial arms below the others, softly: they have a score, its interval and nothing else."""
    if grid is None:
        return None
    nothing: list[Cell] = [NOTHING] * (len(grid.columns) - 2)
    return replace(grid, rows=(*grid.rows, *((_soft(one.arm), scored(one.score), *nothing) for one in trivial)))


def _soft(name: str) -> Sentence:
    return Sentence(text=name, tone="soft")


def _trivial_words(trivial: Sequence[TrivialArm]) -> str:
    """What the trivial arms below the table are."""
    words = "; ".join(f"{one.arm}, {TRIVIAL[one.arm].removeprefix('no model: ')}" for one in trivial)
    return f" The last rows are what answering without a model comes to, at no cost: {words}." if words else ""


def _passes(entry: ArmEntry) -> Cell | None:
    if entry.passes is None:
        return None
    return Sentence(text="passes", tone="yes") if entry.passes else Sentence(text="not shown", tone="soft")


def _milliseconds(value: float | None) -> str | None:
    return seconds(value / 1000) if value is not None else None


def _machine(entry: ArmEntry) -> Cell | None:
    """Told of an arm that was measured on a busy machine: what it had of the processor."""
    share = entry.processor_share
    return Sentence(text="busy", tone="no", soft=f"{share:.0%} of the processor") if share and is_busy(share) else None


def _p95(entry: ArmEntry) -> Cell | None:
    """The 95th percentile, and its upper bound behind it."""
    value, high = _milliseconds(entry.latency_p95_ms), _milliseconds(entry.latency_p95_high_ms)
    return Sentence(text=value, soft=f"up to {high}" if high else "") if value else None


def _of_abstention(name: str) -> Callable[[ArmEntry], Cell | None]:
    def cell(entry: ArmEntry) -> Cell | None:
        value = entry.abstention.get(name)
        return f"{value:.2f}" if value is not None else None

    return cell


def _answer_words(entry: ArmEntry) -> Cell | None:
    return plain(round(entry.extras["answer_words"])) if "answer_words" in entry.extras else None


def _extra(name: str) -> Callable[[ArmEntry], Cell | None]:
    def cell(entry: ArmEntry) -> Cell | None:
        value = entry.extras.get(name)
        if value is None or (not value and name == "skipped_rows"):
            return None
        return plain(value) if name in COUNTED else score(value)

    return cell


# ---- against latency and cost


def tradeoffs(study: StudyFolder) -> Tradeoffs | None:
    """Quality against latency, and against cost."""
    done = study.done
    p95 = all(one.latency_p95_ms is not None for one in done)
    timed = [(one, one.latency_p95_ms if p95 else one.latency_p50_ms) for one in done]
    bounds = {one.name: one.latency_p95_high_ms / 1000 for one in done if one.latency_p95_high_ms is not None}
    unit = next((one.cost.currency for one in done if one.cost), "")  # the best arm's; others cannot stand on one axis
    paid = [(one, one.cost.total) for one in done if one.cost and one.cost.currency == unit]
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
    lead = "Up is better, left is cheaper. Latency is measured, one question at a time; cost is predicted from measured seconds."
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
        dots = [dot if dot.strong or not _beaten(dot, dots) else replace(dot, label="") for dot in dots]
    metric = metric_called(study.metric)
    return Scatter(
        heading=heading,
        title=f"{metric} {heading.lower()}",
        x_title=x_title,
        y_title=metric,
        dots=tuple(dots),
        target=study.target,
        limit=limit,
    )


def _beaten(dot: Dot, dots: Sequence[Dot]) -> bool:
    """Whether another arm is better or cheaper, and at least equal in the other."""
    return any(other.y >= dot.y and other.x <= dot.x and (other.y, other.x) != (dot.y, dot.x) for other in dots)


def _horizon(study: StudyFolder) -> str:
    """The months that costs are for, as far as the files say."""
    return f"over {plain(study.volume.horizon_months)} months" if study.volume else "in all"


def _cost_unit(currency: str, most: float) -> tuple[str, float]:
    """The name of the cost axis, and how much of the recorded unit one of its own holds: machine time reads as in the tables."""
    if "second" not in currency:
        return f"cost, {currency}", 1.0
    return ("machine hours", 3600.0) if most >= 7200 else ("machine minutes", 60.0)
