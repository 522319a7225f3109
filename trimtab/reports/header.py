"""The top of a report: the verdict, what it means and rests on, the figures that matter, what weakens it, what to do next."""

from __future__ import annotations

import re

from trimtab.base.grammar import describe, joined
from trimtab.base.machine import is_busy
from trimtab.base.results import Comparison
from trimtab.measurement.clusters import group_count
from trimtab.reports.components import MEASURED, PREDICTED, Listing, label
from trimtab.reports.folder import ArmEntry, StudyFolder
from trimtab.reports.formatting import (
    between,
    count,
    interval,
    middle,
    money,
    p_value,
    plain,
    score,
    seconds,
    signed,
)
from trimtab.reports.labels import metric_called, other_facts
from trimtab.reports.summary import in_words, next_step, poor
from trimtab.reports.view import ArmInWords, KeyFigure, Top

SENTENCE = re.compile(r"(?<=\.)\s+(?=[A-Z])")  # between two sentences of a verdict


def top(study: StudyFolder) -> Top:
    """What stands before every section."""
    shown = study.verdict.status == "shown"
    entry = study.arm(study.verdict.arm) or next(iter(study.done), None)
    needs = study.verdict.needs
    first, *others = study.verdict.sentence.splitlines()
    headline, *rest = SENTENCE.split(first, maxsplit=1)
    return Top(
        shown=shown,
        state="Shown" if shown else "Not shown",
        task=study.task,
        study=study.id,
        headline=headline,
        more=(*rest, *others),
        needs=f"What would settle it: {needs.rstrip('.')}." if needs and _is_new(needs, study) else None,
        arm=ArmInWords(arm=label(entry.arm), words=describe(entry.arm, entry.extras)) if entry and shown else None,
        rests_on=f"Rests on {'; '.join(rests_on(study))}.",
        in_words=in_words(study, entry) if entry else "",
        facts=tuple(_facts(study, entry, shown)) if entry else (),
        caveats=Listing(
            title="Before you rely on it",
            entries=(*(poor(study, entry) if entry else ()), *caveats(study)),
        ),
        next_step=next_step(study, entry),
    )


def _is_new(needs: str, study: StudyFolder) -> bool:
    """Whether the sentence does not say it already; that more questions will not help it always says."""
    return needs not in study.verdict.sentence and not needs.startswith(("not ", "no "))


def rests_on(study: StudyFolder) -> list[str]:
    """What the verdict rests on, each part only when the files say it."""
    found = []
    items = max((one.score.n for one in study.done if one.score), default=0)
    if items:
        groups = _groups(study)
        within = f" in {groups:,} groups" if groups else ""
        of = f" of {study.sample.of['test']:,}" if study.sample and study.sample.of["test"] > items else ""
        found.append(f"{count(items, 'test question')}{of}{within}, the same for every arm")
        effective = next((one.score.n_effective for one in study.done if one.score), None)
        if effective is not None:
            found.append(f"weighted by the mix of traffic, as sure as {effective:,.0f} that count alike")
    openings = study.manifest.get("test_openings")
    if openings is not None:
        found.append("test set opened once" if openings == 1 else f"test set opened {openings} times")
    if study.base:
        found.append(f"base model {study.base}")
    seeds = study.manifest.get("seeds")
    if isinstance(seeds, list):
        found.append(f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(str(seed) for seed in seeds)}")
    elif seeds is not None:
        found.append(count(int(seeds), "training seed"))
    smallest = study.manifest.get("smallest_difference")
    if smallest is not None:
        seen = f"differences from {score(smallest)} up" if smallest < 1 else "no difference between arms"
        known = study.manifest.get("smallest_difference_from")
        found.append(f"{seen} can be seen with 80% power (predicted{f' from {known}' if known else ''})")
    return found or ["what the files of this study do not say"]


def _groups(study: StudyFolder) -> int | None:
    """The groups of the test questions, where they repeat."""
    answers = next((one.answers for one in study.done if one.answers), ())
    return group_count(list({answer.item_id: answer.group for answer in answers}.values()))


def caveats(study: StudyFolder) -> list[str]:
    """What weakens the verdict or may change it, each a sentence; empty where the files name nothing."""
    found = []
    openings = study.manifest.get("test_openings")
    if openings is not None and openings > 1:
        found.append(
            "Each opening of the test set after the first makes the verdict weaker: arms get chosen to fit it."
        )
    if study.sample is not None:
        found.append(study.sample.sentence)
    cuts = study.manifest.get("cuts")
    if cuts:
        found.append(f"To fit the budget: {'; '.join(map(str, cuts))}.")
    busy = [
        f"{one.name} ({one.processor_share:.0%} of the processor)" for one in study.done if is_busy(one.processor_share)
    ]
    if busy:
        found.append(f"Measured on a busy machine, so that times and costs are too high: {joined(busy)}.")
    groups = study.manifest.get("too_few_groups")
    if groups:
        found.append(f"The test questions count as only {groups} groups: of so few, intervals and tests are rough.")
    overlaps = study.manifest.get("overlaps")
    if isinstance(overlaps, int) and overlaps:
        found.append(f"{count(overlaps, 'overlap')} between splits let through: scores may be too high.")
    if study.not_done and study.done:
        names = joined([one.name for one in study.not_done])
        take = "it takes" if len(study.not_done) == 1 else "they take"
        found.append(f"Nothing is known of {names}: without a score {take} no part in the verdict.")
    for one in study.arms:
        found += [f"{one.name}: {note.rstrip('.')}." for note in one.health]
        left_out = int(one.extras.get("skipped_rows", 0))
        if left_out:
            found.append(f"{one.name}: {count(left_out, 'training row')} longer than the model’s context, left out.")
    other = other_facts({one.name: one.extras for one in study.done})
    found += [other] if other else []
    warnings = sum(1 for remark in study.manifest.get("remarks") or () if remark.get("level") in ("warn", "stop"))
    if warnings:
        found.append(f"{count(warnings, 'warning')} about the data: see “The data”.")
    return found


def _facts(study: StudyFolder, entry: ArmEntry, shown: bool) -> list[KeyFigure]:
    facts: list[KeyFigure] = []
    name = middle(entry.name)
    if not shown:
        name += ", the nearest arm" if study.verdict.arm else ", the highest score"
    if entry.score:
        target = f"; target {plain(study.target)}" if study.target is not None else ""
        note = f"95% interval {interval(entry.score.low, entry.score.high)}{target}"
        title = f"Score ({metric_called(study.metric)}) of {name}"
        facts.append(KeyFigure(name=title, value=score(entry.score.value), mark=MEASURED, note=note))
    rival = _rival(study, entry)
    if rival:
        best = next((other.name for other in study.done if other.name != entry.name), None)
        which = f"{middle(rival.b)}, the best {'other arm' if rival.b == best else 'arm it was compared with'}"
        note = f"95% interval {between(rival.low, rival.high)}; {p_value(rival.p_holm)} after Holm"
        ahead = "Ahead of" if rival.difference >= 0 else "Behind"
        facts.append(KeyFigure(name=f"{ahead} {which}", value=signed(rival.difference), mark=MEASURED, note=note))
    facts += _latency(study, entry)
    if entry.cost:
        currency = entry.cost.currency
        note = f"{money(entry.cost.up_front, currency)} up front, {money(entry.cost.monthly, currency)} a month"
        title = ("Machine time" if "second" in currency else "Cost") + _horizon(study)
        facts.append(KeyFigure(name=title, value=money(entry.cost.total, currency), mark=PREDICTED, note=note))
    return facts


def _latency(study: StudyFolder, entry: ArmEntry) -> list[KeyFigure]:
    """What 95% of answers stay within, with its upper bound, which a limit is held against; half of them, where that is not known."""
    half = seconds(entry.latency_p50_ms / 1000) if entry.latency_p50_ms is not None else ""
    if entry.latency_p95_ms is not None:
        limit = study.limits.latency_p95_ms if study.limits else None
        notes = [f"half within {half}"] if half else []
        if entry.latency_p95_high_ms is not None:
            held = f"; the limit is {seconds(limit / 1000)}" if limit else ""
            notes.append(f"upper 95% bound {seconds(entry.latency_p95_high_ms / 1000)}{held}")
        value = seconds(entry.latency_p95_ms / 1000)
        return [KeyFigure(name="95% of answers within", value=value, mark=MEASURED, note="; ".join(notes))]
    note = "what 95% stay within is known from 60 questions up"
    return [KeyFigure(name="Half of answers within", value=half, mark=MEASURED, note=note)] if half else []


def _horizon(study: StudyFolder) -> str:
    """` over 12 months at 100,000 questions a month`, assumed ones where the task file states none."""
    if study.volume is None:
        return ""
    assumed = "an assumed " if study.volume.assumed else ""
    questions, months = plain(study.volume.questions_per_month), plain(study.volume.horizon_months)
    return f" over {months} months at {assumed}{questions} questions a month"


def _rival(study: StudyFolder, entry: ArmEntry) -> Comparison | None:
    """The comparison of an arm with the best other one that it was compared with, seen from it."""
    for other in study.done:
        for one in study.comparisons:
            if (one.a, one.b) == (entry.name, other.name):
                return one
            if (one.a, one.b) == (other.name, entry.name):
                return one.swapped()
    return None
