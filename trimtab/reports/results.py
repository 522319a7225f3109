"""The sections that show what was measured: quality with its intervals, quality against latency and cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from trimtab.base.records import Estimate
from trimtab.reports.charts import Dot, both, dot_whisker, mark_shape, scatter
from trimtab.reports.folder import Row, Study
from trimtab.reports.markup import (
    Html,
    el,
    interval,
    join,
    mark,
    middle,
    money,
    p_value,
    plain,
    score,
    seconds,
    size,
)
from trimtab.reports.parts import (
    FAMILIES,
    METRICS,
    SHAPES,
    arm_label,
    in_words,
    metric_name,
    section,
    table,
    with_interval,
)


def _dot(row: Row, study: Study, x: float = 0.0) -> Dot:
    found = row.score or Estimate(value=0.0, low=0.0, high=0.0, n=0)
    return Dot(
        label=row.name,
        family=row.family,
        shape=SHAPES.get(row.arm.context, "circle"),
        x=x,
        y=found.value,
        low=found.low,
        high=found.high,
        strong=row.name == study.verdict.arm,
        title=f"{row.name}: {score(found.value)}, 95% interval {interval(found.low, found.high)}",
    )


def quality(study: Study) -> Html:
    """Scores with their intervals, and the table of all arms."""
    metric = metric_name(study)
    if not study.done:
        return section("quality", "Quality", el("p", "No arm has a score."), arms_table(study))
    dots = [_dot(row, study) for row in study.done]
    wide = [f"{score(dot.y)}  [{interval(dot.low, dot.high)}]" for dot in dots]

    def draw(width: int) -> Html:
        values = wide if width > 500 else [score(dot.y) for dot in dots]
        return dot_whisker(dots, title=f"{metric} of each arm", target=study.target, values=values, width=width)

    means = METRICS.get(study.metric)
    lead = f"Scores ({metric}{f': {means}' if means else ''}), best first. Whiskers are unadjusted 95% intervals; " + (
        "pass or fail against the target carries Holm’s correction."
        if study.target is not None
        else "comparisons carry Holm’s correction."
    )
    return section(
        "quality", "Quality", _legend(study.rows), both(draw), arms_table(study), _glossary(study), lead=lead
    )


def _glossary(study: Study) -> Html:
    """What each arm is, folded."""
    arms = []
    for row in study.rows:
        whole = f"{row.name}: " if middle(row.name) != row.name else ""
        arms.append(join(el("dt", arm_label(row)), el("dd", whole, in_words(row.arm))))
    return el("details", el("summary", el("b", "What each arm is")), el("dl", arms, class_="glossary"))


def _legend(rows: Sequence[Row]) -> Html:
    families = [name for name in FAMILIES if any(row.family == name for row in rows)]
    shapes = list(dict.fromkeys(SHAPES.get(row.arm.context, "circle") for row in rows))
    words = {"circle": "instruction alone", "square": "with shots", "diamond": "with passages"}

    def item(shape: str, family: str, text: str) -> Html:
        icon = el(
            "svg",
            mark_shape(shape, 8, 8, family),
            viewBox="0 0 16 16",
            width=14,
            height=14,
            aria_hidden="true",
            class_="icon",
        )
        return el("li", icon, text)

    return el(
        "ul",
        [item("circle", family, FAMILIES[family]) for family in families],
        [item(shape, "outline", words[shape]) for shape in words if shape in shapes] if len(shapes) > 1 else None,
        class_="legend",
    )


MOST_NAMES = 8  # arms whose names fit into a scatter
COUNTED = ("train_tokens", "steps", "epochs", "skipped_rows")
EXTRAS = {
    "ece": "Calibration error (ECE)",
    "lost_to_retrieval": "Lost to retrieval",
    "macro_f1": "Macro-F1",
    "mrr": "MRR",
    "prefill_seconds": "Reading the prompt, s",
    "decode_seconds": "Writing the answer, s",
    "same_alone": "Answers alike alone and in a batch",
    "train_tokens": "Training tokens",
    "steps": "Steps",
    "epochs": "Epochs",
    "skipped_rows": "Rows too long",
}
Column = tuple[object, Callable[[Row], object]]


def arms_table(study: Study) -> Html:
    """One row an arm with the figures that decide; the other measurements folded below; then the arms without a score."""
    deciding: list[Column] = [
        ("Score [95%]", lambda row: row.score and with_interval(row.score)),
        ("Target", _passes),
        ("p50", lambda row: row.latency_p50_ms is not None and seconds(row.latency_p50_ms / 1000)),
        ("p95", lambda row: row.latency_p95_ms is not None and seconds(row.latency_p95_ms / 1000)),
        ("Training", lambda row: row.train_seconds and seconds(row.train_seconds)),
        ("Peak memory", lambda row: row.peak_memory_mb is not None and f"{row.peak_memory_mb:,.0f} MB"),
        ("Stored", lambda row: row.stored_bytes and size(row.stored_bytes)),
        (join("Cost ", mark("predicted")), lambda row: row.cost and money(row.cost.total, row.cost.currency)),
    ]
    extras = dict.fromkeys(name for row in study.done for name in row.extras)
    other: list[Column] = [
        ("Target, p before Holm", lambda row: row.p_target is not None and p_value(row.p_target)),
        ("Score of each seed", lambda row: len(row.seed_scores) > 1 and ", ".join(map(score, row.seed_scores))),
        ("Fits the format", lambda row: row.format_ok is not None and f"{row.format_ok:.1%}"),
        ("Abstention precision", _of_abstention("precision")),
        ("Abstention recall", _of_abstention("recall")),
        *((_extra_name(name), _extra(name)) for name in extras),
        (
            "Shots, passages",
            lambda row: ", ".join(f"{value} {key.replace('_', ' ')}" for key, value in row.chosen.items()),
        ),
    ]
    note = el(
        "p", "Figures without a mark are ", mark("measured"), "; – is not measured, or does not apply.", class_="note"
    )
    more = _columns(study, "Other measurements", other)
    folded = el("details", el("summary", el("b", "Other measurements")), more) if more else None
    return join(_columns(study, "All arms", deciding), note if study.done else None, folded, not_run(study))


def _columns(study: Study, label: str, columns: Sequence[Column]) -> Html | None:
    """The table of finished arms, of those columns that have a figure for some arm."""
    used = [(name, cell) for name, cell in columns if any(cell(row) for row in study.done)]
    if not used:
        return None
    body = [
        [arm_label(row, row.name == study.verdict.arm)] + [cell(row) or "–" for _, cell in used] for row in study.done
    ]
    return table(label, ["Arm", *(name for name, _ in used)], body)


def _of_abstention(name: str) -> Callable[[Row], object]:
    def cell(row: Row) -> object:
        value = row.abstention.get(name)
        return value is not None and f"{value:.2f}"

    return cell


def _extra(name: str) -> Callable[[Row], object]:
    def cell(row: Row) -> object:
        value = row.extras.get(name)
        if not value and name == "skipped_rows":
            return None
        return value is not None and (plain(value) if name in COUNTED else score(value))

    return cell


def _extra_name(name: str) -> str:
    """`recall_at_3` as `recall@3`, and the words for the other measurements."""
    return EXTRAS.get(name, name.replace("_at_", "@").replace("_", " "))


def _passes(row: Row) -> object:
    if row.passes is None:
        return None
    return el("span", "passes" if row.passes else "not shown", class_="yes" if row.passes else "soft")


def not_run(study: Study) -> Html | None:
    """The arms without a score, each with its reason."""
    if not study.not_done:
        return None
    words = {"failed": "failed", "not_run": "did not run"}
    items = [
        el(
            "li",
            arm_label(row),
            " ",
            el("span", words.get(row.status, row.status), class_="no"),
            ": ",
            row.why or "no reason was written down",
        )
        for row in study.not_done
    ]
    return join(el("h3", "Without a score"), el("ul", items, class_="plain"))


def tradeoffs(study: Study) -> Html | None:
    """Quality against latency, and against cost."""
    rows = study.done
    p95 = all(row.latency_p95_ms is not None for row in rows)
    timed = [(row, row.latency_p95_ms if p95 else row.latency_p50_ms) for row in rows]
    unit = next((row.cost.currency for row in rows if row.cost), "")  # the best arm's; others cannot stand on one axis
    paid = [(row, row.cost.total) for row in rows if row.cost and row.cost.currency == unit]
    limit = study.limits.latency_p95_ms if study.limits and p95 else None
    charts = []
    figures = [(row, value / 1000) for row, value in timed if value is not None]
    if figures:
        name = "95% of answers within, seconds" if p95 else "half of answers within, seconds"
        charts.append(_scatter(study, figures, "Against latency", name, limit / 1000 if limit else None))
    if paid and max(value for _, value in paid) > 0:
        name, scale = _cost_unit(unit, max(value for _, value in paid))
        costs = [(row, value / scale) for row, value in paid]
        charts.append(_scatter(study, costs, "Against cost", f"{name} over the horizon", None))
    if not charts:
        return None
    lead = "Up is better, left is cheaper. Latency is measured, one question at a time; cost is predicted from measured seconds."
    if len(rows) > MOST_NAMES:
        lead += " Of so many arms, those are named that no other one beats both ways."
    return section("tradeoffs", "What quality costs", el("div", charts, class_="pair"), lead=lead)


def _beaten(dot: Dot, dots: Sequence[Dot]) -> bool:
    """Whether another arm is better or cheaper, and at least equal in the other."""
    return any(other.y >= dot.y and other.x <= dot.x and (other.y, other.x) != (dot.y, dot.x) for other in dots)


def _cost_unit(currency: str, most: float) -> tuple[str, float]:
    """The name of the cost axis, and how much of the recorded unit one of its own holds: machine time reads as in the tables."""
    if "second" not in currency:
        return f"cost, {currency}", 1.0
    return ("machine hours", 3600.0) if most >= 7200 else ("machine minutes", 60.0)


def _scatter(
    study: Study, figures: Sequence[tuple[Row, float]], heading: str, x_title: str, limit: float | None
) -> Html:
    dots = [_dot(row, study, value) for row, value in figures]
    if len(dots) > MOST_NAMES:
        dots = [dot if dot.strong or not _beaten(dot, dots) else replace(dot, label="") for dot in dots]

    def draw(width: int) -> Html:
        title = f"{metric_name(study)} {heading.lower()}"
        return scatter(
            dots,
            title=title,
            x_title=x_title,
            y_title=metric_name(study),
            width=width,
            target=study.target,
            limit=limit,
        )

    return el("div", el("h3", heading), both(draw, 505))
