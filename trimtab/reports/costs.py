"""The cost section: the cost of each arm, the prices and volumes behind it, and what would flip the verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trimtab.base.config import CostTable
from trimtab.base.results import Flip, Volume
from trimtab.decision.sensitivity import MIX, NOT_SHOWN, VOLUME_FACTOR, chance_of_flip
from trimtab.reports.components import (
    MEASURED,
    PREDICTED,
    YOURS,
    Cell,
    Column,
    Grid,
    Heading,
    Listing,
    Phrase,
    arm_label,
)
from trimtab.reports.folder import ArmEntry, StudyFolder
from trimtab.reports.formatting import DASH, as_sentence, format_money, format_number

TARGETS = ("quality", "target")  # of a flip: what a target is called


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The cost of each arm and its basis; `flips` only for a shown verdict. `robustness`: the verdict with one
    assumption changed."""

    heading: Heading
    grid: Grid | None
    basis: Phrase
    flips: Listing[str]
    robustness: Listing[str]


def costs_section(study: StudyFolder) -> Costs | None:
    """Return the costs with the provenance of each figure; thresholds only if the verdict is shown."""
    entries = [entry for entry in study.done if entry.result.cost or entry.result.seconds_per_question is not None]
    if not entries and not study.result.verdict.flips and not study.result.verdict.robustness:
        return None
    shown = study.result.verdict.status == "shown"
    title = "Cost, and what would flip the verdict" if shown else "Cost"
    columns = (
        Column(title="Arm"),
        *(Column(title=name, mark=PREDICTED) for name in ("Up front", "A month", "Total")),
        Column(title="A question, mean", mark=MEASURED),
    )
    rows = tuple((arm_label(entry.arm, study.result.verdict.use), *_figures(entry)) for entry in entries)
    return Costs(
        heading=Heading(id="costs", link="Cost", title=title),
        grid=Grid(label="Costs", columns=columns, rows=rows) if rows else None,
        basis=_basis(study),
        flips=Listing(title="What would flip it", entries=tuple(flip_sentences(study)) if shown else ()),
        robustness=Listing(
            title="Robustness checks",
            entries=tuple(
                as_sentence(f"{check.what}: {check.arm or 'no arm is shown'}")
                for check in study.result.verdict.robustness
            ),
        ),
    )


def _figures(entry: ArmEntry) -> tuple[Cell, ...]:
    cost, question = entry.result.cost, entry.result.seconds_per_question
    amounts = (
        [format_money(value, cost.currency) for value in (cost.up_front, cost.monthly, cost.total)]
        if cost
        else [DASH] * 3
    )
    return (*amounts, f"{question:.3g} s" if question is not None else DASH)


def _basis(study: StudyFolder) -> Phrase:
    """Return the prices and volumes behind the costs, marked as the user's if the task file states any."""
    cost, volume = study.cost or CostTable(), study.result.volume
    parts = []
    if volume:
        months = (
            f"{format_number(volume.questions_per_month)} questions a month for "
            f"{format_number(volume.horizon_months)} months"
        )
        parts.append(months + (" (assumed: the task file states no volume)" if volume.assumed else ""))
    hour = cost.machine_hour
    if hour:
        source = f"({hour.source}, {hour.as_of.isoformat()})"
        parts.append(f"{format_number(hour.price)} {cost.currency} a machine hour {source}, {cost.hosting}")
        parts.append(f"machines used to {cost.utilisation:.0%}")
    else:
        parts.append("no price of a machine hour was given, so machine time is compared")
    if cost.label:
        parts.append(f"{format_number(cost.label.each)} {cost.currency} a labelled row")
    else:
        parts.append("labels are counted as free")
    text = f"{'; '.join(parts)}."
    return ("Costs are worked out with ", *((YOURS, " ") if cost.model_fields_set else ()), text)


def flip_sentences(study: StudyFolder) -> list[str]:
    """Return what would flip a shown verdict: `With questions a month below 12,000 (now 100,000) the verdict would be
    rag.`"""
    if not study.result.verdict.flips:
        tried = "at no volume, price, rate of change or mix of questions that was tried"
        return [f"No threshold was found: {tried} does another arm take its place."]
    return [_flip(flip, study) for flip in study.result.verdict.flips]


def _mix_flip(flip: Flip, study: StudyFolder) -> str:
    """Return `With more than 62% of the traffic on the slice billing (now 40%) the verdict would be rag.`"""
    name = flip.what.removeprefix(MIX)
    side, share = ("more", flip.above) if flip.above is not None else ("less", flip.below or 0.0)
    then = _then(flip, study.result.target is not None)
    return f"With {side} than {share:.0%} of the traffic on the slice {name}{_now(name, study)} {then}."


def _now(name: str, study: StudyFolder) -> str:
    """Return the share of a slice in the stated traffic, else among the test questions."""
    mix = study.data.mix if study.data else {}
    if name in mix:
        return f" (now {mix[name]:.0%})"
    counts = {part: estimate.n for entry in study.done[:1] for part, estimate in entry.result.slices.items()}
    return f" ({counts[name] / sum(counts.values()):.0%} of the test questions)" if name in counts else ""


def _then(flip: Flip, target: bool) -> str:
    """Return what the verdict would be, and why if no arm would be shown; `target` says whether arms are held to a
    target."""
    if flip.then != NOT_SHOWN:
        return f"the verdict would be {flip.then}"
    if target:
        return f"no arm would be shown to reach {'it' if flip.what in TARGETS else 'the target'}"
    return "the test questions would not show which arm to take"


def _flip(flip: Flip, study: StudyFolder) -> str:
    if flip.what.startswith(MIX):
        return _mix_flip(flip, study)
    cost, target, volume = study.cost, study.result.target, study.result.volume
    hour, change = (cost.machine_hour, cost.change) if cost else (None, None)
    known = {
        "questions_per_month": ("questions a month", volume.questions_per_month if volume else None, ""),
        "machine_hour": ("a machine hour", hour.price if hour else None, f" {cost.currency}" if cost else ""),
        "change.per_month": ("the monthly rate of change", change.per_month if change else None, ""),
        "change.kinds": ("all rates of change", None, " times the stated ones"),
        "horizon_months": ("a horizon in months", volume.horizon_months if volume else None, ""),
        "label": ("a label", cost.label.each if cost and cost.label else None, f" {cost.currency}" if cost else ""),
        "margin": ("a margin", study.limits.margin if study.limits else None, ""),
        "quality": ("a target", target, ""),
        "target": ("a target", target, ""),
    }
    name, now, unit = known.get(flip.what, (flip.what.replace("_", " "), None, ""))
    below, above = flip.below, flip.above
    if flip.what in TARGETS:  # to two digits, and on the far side of the threshold, so that the sentence stays true
        below = below and (math.floor(100 * below) / 100 or below)
        above = above and math.ceil(100 * above) / 100
    sides = [f"{side} {format_number(at)}{unit}" for side, at in (("below", below), ("above", above)) if at is not None]
    assumed = ", assumed" if volume and volume.assumed and flip.what == "questions_per_month" else ""
    stated = f" (now {format_number(now)}{assumed})" if now is not None else ""
    return f"With {name} {' or '.join(sides)}{stated} {_then(flip, target is not None)}.{_chance(flip, volume)}"


def _chance(flip: Flip, volume: Volume | None) -> str:
    """Return how likely a stated volume is on the other side of break-even; empty for other flips."""
    if flip.what != "questions_per_month" or volume is None or volume.assumed:
        return ""
    chance = chance_of_flip(flip, volume.questions_per_month)
    likely = "under 1%" if chance < 0.01 else f"{chance:.0%}"
    return f" If the volume may be off by a factor of {VOLUME_FACTOR:g}, the chance of that is {likely}."
