"""The sections that explain the decision: weights × context with its interaction, comparisons, cost and what would flip it."""

from __future__ import annotations

from trimtab.base.records import Comparison, Estimate, Flip
from trimtab.reports.analysis import Factorial, factorials
from trimtab.reports.folder import Row, Study
from trimtab.reports.markup import Html, between, el, interval, join, mark, money, p_value, plain, score, signed
from trimtab.reports.parts import CONTEXTS, arm_label, section, table


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
    found = [
        _effects(one, "Share right" if study.metric == "macro_f1" else "Mean score") for one in factorials(study.done)
    ]
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


def _effects(one: Factorial, what: str) -> Html:
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
    note = f"{what} over the {one.interaction.n:,} questions that all four arms answered; paired bootstrap over {how}, unadjusted 95% intervals."
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
        el("ul", flips, class_="plain") if flips else el("p", "No threshold was found."),
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
