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
    if len(columns) < 2 or len(contexts) < 2:
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
    by = f", by their {one.groups:,} groups" if one.groups else ""
    note = (
        f"{what} over the {one.interaction.n:,} questions that all four arms answered; unadjusted 95% t intervals{by}."
    )
    return join(
        el("p", interaction_sentence(one)),
        table(f"Effects of {one.blend.name}", ["Effect", "Difference", "95% interval"], lines),
        el("p", mark("measured"), " ", note, class_="note"),
    )


def interaction_sentence(one: Factorial) -> str:
    """The interaction in words; it is called only where its interval is clear of zero."""
    context, found = CONTEXTS[one.context.arm.context], one.interaction
    gains = f"{one.blend.name} gains {signed(found.value)} ({between(found.low, found.high)})"
    if found.low > 0:
        word = f"help each other: {gains} beyond the sum of both"
    elif found.high < 0:
        word = f"overlap: {gains} against the sum of both"
    else:
        word = f"add up as far as these questions can tell: {gains} against their sum, and the interval holds zero"
    return f"With {one.tuned.name}, tuning and {context} {word}."


def comparisons(study: Study) -> Html | None:
    """The planned comparisons in words."""
    if not study.comparisons:
        return None
    body = [
        [outcome(one), signed(one.difference), between(one.low, one.high), p_value(one.p_holm)]
        for one in map(better_first, study.comparisons)
    ]
    lead = (
        "The best arm with each other one, and each blend with its parts, on the same questions; differences are first minus "
        "second. Where test and interval disagree at the edge, the test decides."
    )
    head = ["Outcome", "Difference", "95% interval", "p after Holm"]
    return section("comparisons", "Comparisons", table("Comparisons", head, body), lead=lead)


def better_first(one: Comparison) -> Comparison:
    """The comparison seen from the arm that scored higher."""
    return one if one.difference >= 0 else one.swapped()


def outcome(one: Comparison) -> str:
    """A comparison in words, at the corrected 5% level; `one.a` is the arm that scored higher."""
    if one.p_holm > 0.05:
        return f"{one.a} and {one.b}: no difference shown"
    return f"{one.a} is better than {one.b}"


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
        join("A question, mean ", mark("measured")),
    ]
    costs = table("Costs", head, body) if body else None
    if study.verdict.status != "shown":
        return section("costs", "Cost", costs, _basis(study))
    return section(
        "costs",
        "Cost, and what would flip the verdict",
        costs,
        _basis(study),
        el("h3", "What would flip it"),
        el("ul", [el("li", one) for one in flip_sentences(study)], class_="plain"),
    )


def _basis(study: Study) -> Html | None:
    """What the costs were worked out from, marked as the user's where the task file states any of it."""
    parts = cost_basis(study)
    if study.cost is None or not parts:
        return None
    stated = mark("yours") if study.cost.model_fields_set else None
    return el("p", "Worked out with ", join(stated, " ") if stated else None, "; ".join(parts), ".", class_="note")


def cost_basis(study: Study) -> list[str]:
    """The prices and volumes behind the costs; empty where the task file does not lie in the folder."""
    if study.cost is None:
        return []
    volume = f"{plain(study.cost.questions_per_month)} questions a month for {plain(study.cost.horizon_months)} months"
    if "questions_per_month" not in study.cost.model_fields_set:
        volume += " (assumed: the task file states no volume)"
    parts = [volume]
    hour = study.cost.machine_hour
    if hour:
        parts.append(
            f"{plain(hour.price)} {study.cost.currency} a machine hour ({hour.source}, {hour.as_of.isoformat()}), {study.cost.hosting}"
        )
        parts.append(f"machines used to {study.cost.utilisation:.0%}")
    else:
        parts.append("no price of a machine hour was given, so machine time is compared")
    return parts


def flip_sentences(study: Study) -> list[str]:
    """What would flip a verdict that is shown: `With questions a month below 12,000 (now 100,000) the verdict would be rag.`"""
    if not study.verdict.flips:
        return [
            "No threshold was found: at no volume, price or rate of change that was tried does another arm take its place."
        ]
    return [_flip(flip, study) for flip in study.verdict.flips]


def _flip(flip: Flip, study: Study) -> str:
    cost, target = study.cost, study.target
    hour, change = (cost.machine_hour, cost.change) if cost else (None, None)
    known = {
        "questions_per_month": ("questions a month", cost.questions_per_month if cost else None, ""),
        "machine_hour": ("a machine hour", hour.price if hour else None, f" {cost.currency}" if cost else ""),
        "change.per_month": ("the monthly rate of change", change.per_month if change else None, ""),
        "quality": ("a target", target, ""),
        "target": ("a target", target, ""),
    }
    name, now, unit = known.get(flip.what, (flip.what.replace("_", " "), None, ""))
    sides = [
        f"{side} {plain(at)}{unit}" for side, at in (("below", flip.below), ("above", flip.above)) if at is not None
    ]
    stated = f" (now {plain(now)})" if now is not None else ""
    return f"With {name} {' or '.join(sides)}{stated} the verdict would be {flip.then}."
