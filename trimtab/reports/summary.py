"""The top of the page: the verdict in a sentence, what it rests on, the four figures that matter, and what weakens it."""

from __future__ import annotations

from trimtab.base.records import Comparison
from trimtab.reports.basis import caveats, rests_on
from trimtab.reports.folder import Row, Study
from trimtab.reports.markup import (
    Html,
    between,
    el,
    interval,
    mark,
    middle,
    money,
    p_value,
    plain,
    score,
    seconds,
    signed,
)
from trimtab.reports.parts import horizon, in_words, metric_name


def verdict(study: Study) -> Html:
    """The header of the page."""
    shown = study.verdict.status == "shown"
    row = study.row(study.verdict.arm) or (study.done[0] if study.done else None)
    state = el("span", "Shown" if shown else "Not shown", class_="state " + ("yes" if shown else "no"))
    needs = needed(study)
    weak = [el("li", one) for one in caveats(study)]
    return el(
        "header",
        el("p", state, el("span", "Task ", el("b", study.task)), el("span", "study ", study.id), class_="kicker"),
        el("h1", study.verdict.sentence),
        el("p", "What would settle it: ", needs, class_="needs") if needs else None,
        el("p", el("b", row.name), ": ", in_words(row.arm), ".") if row and shown else None,
        el("p", "Rests on ", "; ".join(rests_on(study)), ".", class_="rests"),
        _facts(study, row, shown) if row else None,
        el("div", el("h2", "Before you rely on it"), el("ul", weak), class_="caveats") if weak else None,
    )


def needed(study: Study) -> str | None:
    """What would settle an open verdict, where its sentence does not say it already."""
    needs = study.verdict.needs
    return f"{needs.rstrip('.')}." if needs and needs not in study.verdict.sentence else None


def _facts(study: Study, row: Row, shown: bool) -> Html:
    facts: list[Html] = []
    name = middle(row.name)
    if not shown:
        name += ", the nearest arm" if study.verdict.arm else ", the highest score"
    if row.score:
        target = f"; target {plain(study.target)}" if study.target is not None else ""
        note = f"95% interval {interval(row.score.low, row.score.high)}{target}"
        facts.append(_fact(f"Score ({metric_name(study)}) of {name}", score(row.score.value), note, "measured"))
    rival = _rival(study, row)
    if rival:
        best = next((other.name for other in study.done if other.name != row.name), None)
        which = f"{middle(rival.b)}, the best {'other arm' if rival.b == best else 'arm it was compared with'}"
        note = f"95% interval {between(rival.low, rival.high)}; {p_value(rival.p_holm)} after Holm"
        ahead = "Ahead of" if rival.difference >= 0 else "Behind"
        facts.append(_fact(f"{ahead} {which}", signed(rival.difference), note, "measured"))
    if row.latency_p95_ms is not None:
        note = f"half within {seconds(row.latency_p50_ms / 1000)}" if row.latency_p50_ms is not None else ""
        facts.append(_fact("95% of answers within", seconds(row.latency_p95_ms / 1000), note, "measured"))
    elif row.latency_p50_ms is not None:
        note = "what 95% stay within is known from 60 questions up"
        facts.append(_fact("Half of answers within", seconds(row.latency_p50_ms / 1000), note, "measured"))
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
                return one.swapped()
    return None
