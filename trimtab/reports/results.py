"""The sections that carry the decision: the verdict, quality with its intervals, quality against latency and cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trimtab.base.records import Comparison, Estimate
from trimtab.reports.charts import Dot, both, dot_whisker, mark_shape, scatter
from trimtab.reports.folder import Row, Study
from trimtab.reports.markup import (
    Html,
    between,
    count,
    el,
    interval,
    join,
    mark,
    money,
    p_value,
    plain,
    score,
    seconds,
    signed,
    size,
)
from trimtab.reports.parts import FAMILIES, SHAPES, arm_label, horizon, metric_name, section, table, with_interval


def verdict(study: Study) -> Html:
    """The verdict in a sentence, what it rests on, and the four figures that matter."""
    shown = study.verdict.status == "shown"
    row = study.row(study.verdict.arm) or (study.done[0] if study.done else None)
    state = el("span", "Shown" if shown else "Not shown", class_="state " + ("yes" if shown else "no"))
    return el(
        "header",
        el("p", state, el("span", "Task ", el("b", study.task)), el("span", "study ", study.id), class_="kicker"),
        el("h1", study.verdict.sentence),
        el("p", "What would settle it: ", study.verdict.needs.rstrip("."), ".", class_="needs")
        if study.verdict.needs
        else None,
        el("p", "Rests on ", "; ".join(rests_on(study)), ".", class_="rests"),
        _facts(study, row, shown) if row else None,
    )


def rests_on(study: Study) -> list[str]:
    """What the verdict rests on, each part only when the files say it."""
    found = []
    items = max((row.score.n for row in study.done if row.score), default=0)
    if items:
        found.append(f"{count(items, 'test question')}, the same for every arm")
    openings = study.manifest.get("test_openings")
    if openings is not None:
        once = (
            "opened once"
            if openings == 1
            else f"opened {openings} times (each opening after the first makes it weaker)"
        )
        found.append(f"test set {once}")
    seeds = study.manifest.get("seeds")
    if isinstance(seeds, list):
        found.append(f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(str(seed) for seed in seeds)}")
    elif seeds is not None:
        found.append(count(int(seeds), "training seed"))
    cuts = study.manifest.get("cuts")
    if cuts:
        found.append(f"cut to fit the budget: {', '.join(map(str, cuts))}")
    smallest = study.manifest.get("smallest_difference")
    if smallest is not None:
        found.append(f"differences from {score(smallest)} up can be seen with 80% power (predicted)")
    return found or ["what the files of this study do not say"]


def _facts(study: Study, row: Row, shown: bool) -> Html:
    facts: list[Html] = []
    name = (
        row.name if shown else f"{row.name}, the nearest arm" if study.verdict.arm else f"{row.name}, the highest score"
    )
    if row.score:
        target = f"; target {plain(study.target)}" if study.target is not None else ""
        note = f"95% interval {interval(row.score.low, row.score.high)}{target}"
        facts.append(_fact(f"Score ({metric_name(study)}) of {name}", score(row.score.value), note, "measured"))
    rival = _rival(study, row)
    if rival:
        best = next((other.name for other in study.done if other.name != row.name), None)
        which = f"{rival.b}, the best other arm" if rival.b == best else f"{rival.b}, the best arm it was compared with"
        note = f"95% interval {between(rival.low, rival.high)}; {p_value(rival.p_holm)} after Holm"
        ahead = "Ahead of" if rival.difference >= 0 else "Behind"
        facts.append(_fact(f"{ahead} {which}", signed(rival.difference), note, "measured"))
    if row.latency_p95_ms is not None:
        note = f"half within {seconds(row.latency_p50_ms / 1000)}" if row.latency_p50_ms is not None else ""
        facts.append(_fact("95% of answers within", seconds(row.latency_p95_ms / 1000), note, "measured"))
    elif row.latency_p50_ms is not None:
        facts.append(_fact("Half of answers within", seconds(row.latency_p50_ms / 1000), "", "measured"))
    if row.cost:
        what = "Machine time" if "second" in row.cost.currency else "Cost"
        facts.append(
            _fact(what + horizon(study), money(row.cost.total, row.cost.currency), _cost_note(row), "predicted")
        )
    return el("dl", facts, class_="facts")


def _fact(name: str, value: str, note: str, provenance: str) -> Html:
    return el(
        "div", el("dt", name), el("dd", value, class_="value"), el("dd", mark(provenance), " ", note, class_="note")
    )


def _cost_note(row: Row) -> str:
    if not row.cost:
        return ""
    up_front, monthly = money(row.cost.up_front, row.cost.currency), money(row.cost.monthly, row.cost.currency)
    return f"{up_front} up front, {monthly} a month"


def _rival(study: Study, row: Row) -> Comparison | None:
    """The comparison of `row` with the best other arm that it was compared with, seen from `row`."""
    for other in study.done:
        for one in study.comparisons:
            if (one.a, one.b) == (row.name, other.name):
                return one
            if (one.a, one.b) == (other.name, row.name):
                return Comparison(
                    a=one.b,
                    b=one.a,
                    difference=-one.difference,
                    low=-one.high,
                    high=-one.low,
                    p=one.p,
                    p_holm=one.p_holm,
                )
    return None


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

    lead = f"Scores in {metric} on the test questions, best first. Whiskers are unadjusted 95% intervals; " + (
        "pass or fail against the target carries Holm’s correction."
        if study.target is not None
        else "comparisons carry Holm’s correction."
    )
    return section("quality", "Quality", _legend(study.rows), both(draw), arms_table(study), lead=lead)


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
        ("Questions", lambda row: row.score and row.score.n and plain(row.score.n)),
        ("Target, p before Holm", lambda row: row.p_target is not None and p_value(row.p_target)),
        ("Score of each seed", lambda row: len(row.seed_scores) > 1 and ", ".join(map(score, row.seed_scores))),
        ("Fits the format", lambda row: row.format_ok is not None and f"{row.format_ok:.1%}"),
        ("Abstention precision", _of_abstention("precision")),
        ("Abstention recall", _of_abstention("recall")),
        *((name.replace("_", " "), _extra(name)) for name in extras),
        (
            "Chosen on dev",
            lambda row: ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in row.chosen.items()),
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
    return lambda row: name in row.extras and f"{row.extras[name]:.3f}"


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
    paid = [(row, row.cost.total) for row in rows if row.cost]
    limit = study.limits.latency_p95_ms if study.limits and p95 else None
    charts = []
    figures = [(row, value / 1000) for row, value in timed if value is not None]
    if figures:
        name = "95% of answers within, seconds" if p95 else "half of answers within, seconds"
        charts.append(_scatter(study, figures, "Against latency", name, limit / 1000 if limit else None))
    if paid and max(value for _, value in paid) > 0:
        currency = paid[0][0].cost.currency if paid[0][0].cost else ""
        unit = currency if "second" in currency else f"cost, {currency}"
        charts.append(_scatter(study, paid, "Against cost", f"{unit} over the horizon", None))
    if not charts:
        return None
    lead = "Up is better, left is cheaper. Latency is measured, one question at a time; cost is predicted from measured seconds."
    return section("tradeoffs", "What quality costs", el("div", charts, class_="pair"), lead=lead)


def _scatter(
    study: Study, figures: Sequence[tuple[Row, float]], heading: str, x_title: str, limit: float | None
) -> Html:
    dots = [_dot(row, study, value) for row, value in figures]

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
