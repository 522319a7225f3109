"""The sections of the report that carry the decision: verdict, quality, trade-offs, weights × context, comparisons, cost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from trimtab.base.records import Comparison, Estimate, Flip
from trimtab.reports.analysis import Factorial, factorials
from trimtab.reports.charts import Dot, both, dot_whisker, mark_shape, scatter
from trimtab.reports.folder import Row, Study
from trimtab.reports.markup import (
    METRIC_NAMES,
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

SHAPES = {"prompt": "circle", "few-shot": "square", "nearest-shots": "square", "rag": "diamond"}
CONTEXTS = {
    "prompt": "instruction",
    "few-shot": "fixed shots",
    "nearest-shots": "nearest shots",
    "rag": "retrieved passages",
}
FAMILIES = {
    "base": "base weights",
    "tuned": "tuned weights",
    "blend": "tuned weights with shots or passages",
    "linear": "linear classifier",
    "api": "endpoint",
}


def section(name: str, heading: str, *children: object, lead: object = None) -> Html:
    """One section of the page, with a heading that can be linked to."""
    return el("section", el("h2", heading), el("p", lead, class_="lead") if lead else None, *children, id=name)


def table(label: str, head: Sequence[object], rows: Sequence[Sequence[object]], *, texts: Collection[int] = ()) -> Html:
    """A table that scrolls inside itself; the first column heads its row, the others are figures but for `texts`."""
    kinds = [None if index == 0 or index in texts else "number" for index in range(len(head))]
    titles = [el("th", name, scope="col", class_=kind) for name, kind in zip(head, kinds, strict=True)]
    body = []
    for first, *rest in rows:
        cells = [el("td", cell, class_=kind) for cell, kind in zip(rest, kinds[1:], strict=True)]
        body.append(el("tr", el("th", first, scope="row"), cells))
    inner = el("table", el("thead", el("tr", titles)), el("tbody", body))
    return el("div", inner, class_="scroll", role="region", aria_label=label, tabindex=0)


def arm_label(row: Row, chosen: bool = False) -> Html:
    """An arm's name behind its mark."""
    shape = mark_shape(SHAPES.get(row.arm.context, "circle"), 8, 8, row.family)
    icon = el("svg", shape, viewBox="0 0 16 16", width=14, height=14, aria_hidden="true", class_="icon")
    return join(el("span", icon, el("strong" if chosen else "span", row.name), class_="arm"))


def metric_name(study: Study) -> str:
    """The metric as people write it."""
    return METRIC_NAMES.get(study.metric, study.metric)


def verdict(study: Study) -> Html:
    """The verdict in a sentence, what it rests on, and the four figures that matter."""
    shown = study.verdict.status == "shown"
    row = study.row(study.verdict.arm) or (study.done[0] if study.done else None)
    state = el("span", "Shown" if shown else "Not shown", class_="state " + ("yes" if shown else "no"))
    return el(
        "header",
        el("p", state, el("span", "Task ", el("b", study.task)), el("span", "study ", study.id), class_="kicker"),
        el("h1", study.verdict.sentence),
        el("p", "What would settle it: ", study.verdict.needs, class_="needs") if study.verdict.needs else None,
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
        ahead = "Ahead of" if rival.difference >= 0 else "Behind"
        note = f"95% interval {between(rival.low, rival.high)}; {p_value(rival.p_holm)} after Holm"
        facts.append(_fact(f"{ahead} {rival.b}, the best other arm", signed(rival.difference), note, "measured"))
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


def horizon(study: Study) -> str:
    """` over 12 months at 100,000 questions a month`, when the task file lies in the folder."""
    if study.cost is None:
        return ""
    return (
        f" over {plain(study.cost.horizon_months)} months at {plain(study.cost.questions_per_month)} questions a month"
    )


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
        ("Score [95%]", lambda row: row.score and _with_interval(row.score)),
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


def _with_interval(found: Estimate) -> Html:
    return join(el("b", score(found.value)), el("span", f" [{interval(found.low, found.high)}]", class_="soft"))


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
    p = f" ({p_value(row.p_target)})" if row.p_target is not None else ""
    return el("span", "passes" if row.passes else "not shown", p, class_="yes" if row.passes else "soft")


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


def weights_context(study: Study) -> Html | None:
    """The table of weights × context, main effects and interaction."""
    rows = [row for row in study.rows if row.family in ("base", "tuned", "blend")]
    columns = list(dict.fromkeys(_weights(row) for row in sorted(rows, key=lambda row: row.arm.weights != "base")))
    contexts = [name for name in CONTEXTS if any(row.arm.context == name for row in rows)]
    if len(columns) < 2 and len(contexts) < 2:
        return None
    body = []
    for context in contexts:
        cells: list[object] = [CONTEXTS[context]]
        for column in columns:
            here = [row for row in rows if row.arm.context == context and _weights(row) == column]
            cells.append([_cell(row, row.name == study.verdict.arm) for row in here] or "–")
        body.append(cells)
    found = [_effects(one) for one in factorials(study.done)]
    lead = "Tuning changes what the model is; context changes what it sees. Scores with unadjusted 95% intervals."
    effects = join(el("h3", "Do they help each other?"), found) if found else None
    grid = table("Weights by context", ["Context ↓ Weights →", *columns], body, texts=range(1, 99))
    return section("factorial", "Weights × context", grid, effects, lead=lead)


def _weights(row: Row) -> str:
    stages = "" if row.arm.stages in ((), ("sft",)) else f" ({', then '.join(row.arm.stages)})"
    return row.arm.weights + stages


def _cell(row: Row, chosen: bool) -> Html:
    if row.status != "done" or row.score is None:
        return el("div", arm_label(row), el("span", row.status.replace("_", " "), class_="no"), class_="cell")
    span = el("span", f"[{interval(row.score.low, row.score.high)}]", class_="soft")
    return el("div", arm_label(row, chosen), el("b", score(row.score.value)), " ", span, class_="cell")


def _effects(one: Factorial) -> Html:
    def line(name: object, found: Estimate) -> list[object]:
        return [
            name,
            signed(found.value),
            between(found.low, found.high),
        ]

    context = CONTEXTS[one.context.arm.context]
    lines = [
        line(f"tuning alone ({one.tuned.name} − {one.base.name})", one.tuning),
        line(f"{context} alone ({one.context.name} − {one.base.name})", one.contextual),
        line(f"both ({one.blend.name} − {one.base.name})", one.together),
        line(el("b", "interaction: both beyond the sum of the two"), one.interaction),
    ]
    how = "groups of questions" if one.clustered else "questions"
    note = f"Mean item score over the {one.interaction.n:,} questions that all four arms answered; paired bootstrap over {how}, unadjusted 95% intervals."
    return join(
        el("p", interaction_sentence(one)),
        table(f"Effects of {one.blend.name}", ["Effect", "Difference", "95% interval"], lines),
        el("p", mark("measured"), " ", note, class_="note"),
    )


def interaction_sentence(one: Factorial) -> str:
    """The interaction in words; it is called only where its interval is clear of zero."""
    context = CONTEXTS[one.context.arm.context]
    if one.interaction.low > 0:
        word = f"help each other: {one.blend.name} gains {signed(one.interaction.value)} beyond the sum of both"
    elif one.interaction.high < 0:
        word = f"overlap: {one.blend.name} gains {signed(one.interaction.value)} against the sum of both"
    else:
        word = f"add up as far as these questions can tell (interaction {signed(one.interaction.value)}, its interval holds zero)"
    return f"With {one.tuned.name}, tuning and {context} {word}."


def comparisons(study: Study) -> Html | None:
    """The planned comparisons in words."""
    if not study.comparisons:
        return None
    body = [
        [
            el("span", f"{one.a} − {one.b}", class_="arm"),
            signed(one.difference),
            between(one.low, one.high),
            p_value(one.p),
            p_value(one.p_holm),
            in_words(one),
        ]
        for one in study.comparisons
    ]
    lead = "Planned before the test set was opened, on the same questions. Where test and interval disagree at the edge, the test decides."
    head = ["Arms", "Difference", "95% interval", "p", "p after Holm", "In words"]
    return section("comparisons", "Comparisons", table("Comparisons", head, body, texts=(5,)), lead=lead)


def in_words(one: Comparison) -> str:
    """A comparison's outcome at the corrected 5% level."""
    if one.p_holm > 0.05:
        return "no difference shown"
    first, second = (one.a, one.b) if one.difference > 0 else (one.b, one.a)
    return f"{first} is better than {second}"


def costs(study: Study) -> Html | None:
    """Costs with where each figure comes from, and what would flip the verdict."""
    rows = [row for row in study.done if row.cost or row.seconds_per_question is not None]
    if not rows and not study.verdict.flips:
        return None
    body = [
        [
            arm_label(row, row.name == study.verdict.arm),
            *(
                [money(value, row.cost.currency) for value in (row.cost.up_front, row.cost.monthly, row.cost.total)]
                if row.cost
                else ["–"] * 3
            ),
            f"{row.seconds_per_question:.3g} s" if row.seconds_per_question is not None else "–",
        ]
        for row in rows
    ]
    head = [
        "Arm",
        *(join(name, " ", mark("predicted")) for name in ("Up front", "A month", "Total")),
        join("A question ", mark("measured")),
    ]
    flips = [el("li", flip_sentence(flip)) for flip in study.verdict.flips]
    return section(
        "costs",
        "Cost, and what would flip the verdict",
        table("Costs", head, body) if body else None,
        _basis(study),
        el("h3", "What would flip it"),
        el("ul", flips, class_="plain")
        if flips
        else el("p", "No threshold was found within the range that was tried."),
    )


def _basis(study: Study) -> Html | None:
    """What the costs were worked out from: the user's prices and volumes, marked as theirs."""
    if study.cost is None:
        return None
    parts = [f"{plain(study.cost.questions_per_month)} questions a month for {plain(study.cost.horizon_months)} months"]
    hour = study.cost.machine_hour
    if hour:
        parts.append(
            f"{plain(hour.price)} {study.cost.currency} a machine hour ({hour.source}, {hour.as_of.isoformat()}), {study.cost.hosting}"
        )
        parts.append(f"machines used to {study.cost.utilisation:.0%}")
    else:
        parts.append("no price of a machine hour was given, so machine time is compared")
    return el("p", "Worked out with ", mark("yours"), " ", "; ".join(parts), ".", class_="note")


def flip_sentence(flip: Flip) -> str:
    """`With questions per month below 12,000 the verdict would be rag.`"""
    sides = [f"below {plain(flip.below)}"] if flip.below is not None else []
    sides += [f"above {plain(flip.above)}"] if flip.above is not None else []
    return (
        f"With {' '.join([flip.what.replace('_', ' '), ' or '.join(sides)]).strip()} the verdict would be {flip.then}."
    )
