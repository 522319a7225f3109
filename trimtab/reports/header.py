"""The header of a report: the verdict, its basis, key figures, caveats, and the next step."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from trimtab.base.grammar import describe_arm, joined
from trimtab.base.machine import is_busy
from trimtab.base.results import Comparison
from trimtab.measurement.clusters import group_count
from trimtab.reports.components import MEASURED, PREDICTED, ArmInWords, Listing, Mark, arm_label
from trimtab.reports.folder import ArmEntry, StudyFolder
from trimtab.reports.formatting import (
    elide_middle,
    format_difference_interval,
    format_interval,
    format_money,
    format_number,
    format_p,
    format_score,
    format_seconds,
    format_signed,
    plural,
)
from trimtab.reports.labels import fact_disagreements
from trimtab.reports.summary import accuracy_in_words, next_step, weaknesses

SENTENCE_BREAK = re.compile(r"(?<=\.)\s+")  # between two sentences of a verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFigure:
    """One of the key figures."""

    name: str
    value: str
    mark: Mark
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderView:
    """The first screen: what to do, key figures, what to know before relying on it, and the next step; then the verdict
    in full, its basis and caveats."""

    shown: bool
    state: str
    task: str
    study: str
    headline: str
    more: str
    facts: tuple[KeyFigure, ...]
    before_relying: Listing[str]
    next_step: str
    in_full: Listing[str]
    arm: ArmInWords | None
    rests_on: str
    caveats: Listing[str]


def header_section(study: StudyFolder) -> HeaderView:
    """Return the part of a report before its sections."""
    verdict = study.result.verdict
    entry = study.arm(verdict.use) or next(iter(study.done), None)
    shown = verdict.status == "shown"
    first, *others = verdict.sentence.splitlines()
    headline, *rest = SENTENCE_BREAK.split(first, maxsplit=1)
    needs = f"What would settle it: {verdict.needs.rstrip('.')}." if verdict.needs and _adds_information(study) else ""
    in_words = accuracy_in_words(study, entry) if entry else ""
    return HeaderView(
        shown=shown,
        state=(verdict.today.certainty if verdict.today else "shown" if shown else "not shown").capitalize(),
        task=study.result.task,
        study=study.result.study,
        headline=headline,
        more=" ".join(rest),
        arm=ArmInWords(arm=arm_label(entry.arm), words=describe_arm(entry.arm, entry.result.extras))
        if entry and shown
        else None,
        rests_on=f"Rests on {'; '.join(rests_on(study))}.",
        in_full=Listing(
            title="The verdict in full",
            entries=tuple(text for text in (in_words, *(verdict.details.splitlines() or others), needs) if text),
        ),
        facts=tuple(_facts(study, entry, shown)) if entry else (),
        caveats=Listing(
            title="What weakens it", entries=(*(weaknesses(study, entry) if entry else ()), *caveats(study))
        ),
        before_relying=Listing(title="Before you rely on it", entries=verdict.before_relying),
        next_step=next_step(study, entry),
    )


def _adds_information(study: StudyFolder) -> bool:
    """True if `needs` is not part of the verdict's text; that more questions do not help is always part of it."""
    verdict = study.result.verdict
    needs = verdict.needs or ""
    return needs not in f"{verdict.sentence} {verdict.details}" and not needs.startswith(("not ", "no "))


def rests_on(study: StudyFolder) -> list[str]:
    """Return what the verdict is based on, as far as the files tell."""
    grounds = []
    items = max((entry.result.score.n for entry in study.done if entry.result.score), default=0)
    if items:
        groups = _groups(study)
        within = f" in {groups:,} groups" if groups else ""
        total = (
            f" of {study.result.sample.of['test']:,}"
            if study.result.sample and study.result.sample.of["test"] > items
            else ""
        )
        grounds.append(f"{plural(items, 'test question')}{total}{within}, the same for every arm")
        effective = next((entry.result.score.n_effective for entry in study.done if entry.result.score), None)
        if effective is not None:
            grounds.append(f"weighted by the mix of traffic, as sure as {effective:,.0f} that count alike")
    openings = study.manifest.get("test_openings")
    if openings is not None:
        grounds.append("test set opened once" if openings == 1 else f"test set opened {openings} times")
    if study.base:
        grounds.append(f"base model {study.base}")
    seeds = study.manifest.get("seeds")
    if isinstance(seeds, list):
        grounds.append(f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(str(seed) for seed in seeds)}")
    elif seeds is not None:
        grounds.append(plural(int(seeds), "training seed"))
    if study.result.spent is not None:
        grounds.append(study.result.spent.sentence)
    smallest = study.manifest.get("smallest_difference")
    if smallest is not None:
        shown = (
            f"a true difference of {format_score(smallest)} is shown in 8 of 10 such studies, a smaller one less often"
        )
        source = study.manifest.get("smallest_difference_from")
        shown = shown if smallest < 1 else "too few to show any difference between arms reliably"
        grounds.append(f"{shown} (predicted{f' from {source}' if source else ''})")
    return grounds or ["what the files of this study do not say"]


def _groups(study: StudyFolder) -> int | None:
    """Return the number of groups of the test questions, None if they have none."""
    answers = next((entry.answers for entry in study.done if entry.answers), ())
    return group_count(list({answer.item_id: answer.group for answer in answers}.values()))


def caveats(study: StudyFolder) -> list[str]:
    """Return what weakens the verdict, a sentence each."""
    sentences = []
    openings = study.manifest.get("test_openings")
    if openings is not None and openings > 1:
        sentences.append(
            "Each opening of the test set after the first makes the verdict weaker: arms get chosen to fit it."
        )
    if study.result.sample is not None:
        sentences.append(study.result.sample.sentence)
    cuts = study.manifest.get("cuts")
    if cuts:
        sentences.append(f"To fit the budget: {'; '.join(map(str, cuts))}.")
    busy = [
        f"{entry.name} ({entry.result.processor_share:.0%} of the processor)"
        for entry in study.done
        if is_busy(entry.result.processor_share)
    ]
    if busy:
        sentences.append(f"Measured on a busy machine, so that times and costs are too high: {joined(busy)}.")
    groups = study.manifest.get("too_few_groups")
    if groups:
        sentences.append(f"The test questions count as only {groups} groups: of so few, intervals and tests are rough.")
    overlaps = study.manifest.get("overlaps")
    if isinstance(overlaps, int) and overlaps:
        sentences.append(f"{plural(overlaps, 'overlap')} between splits let through: scores may be too high.")
    if study.not_done and study.done:
        names = joined([entry.name for entry in study.not_done])
        take = "it takes" if len(study.not_done) == 1 else "they take"
        sentences.append(f"Nothing is known of {names}: without a score {take} no part in the verdict.")
    sentences += (text for entry in study.arms for text in _arm_caveats(entry))
    other = fact_disagreements({entry.name: entry.result.extras for entry in study.done})
    sentences += [other] if other else []
    warnings = sum(1 for remark in study.manifest.get("remarks") or () if remark.get("level") in ("warn", "stop"))
    if warnings:
        sentences.append(f"{plural(warnings, 'warning')} about the data: see “The data”.")
    return sentences


def _arm_caveats(arm: ArmEntry) -> Iterator[str]:
    """Yield what weakens one arm's figures: notes on its training, and rows that it left out."""
    yield from (f"{arm.name}: {note.rstrip('.')}." for note in arm.health)
    left_out = int(arm.result.extras.get("skipped_rows", 0))
    if left_out:
        yield f"{arm.name}: {plural(left_out, 'training row')} longer than the model’s context, left out."


def _facts(study: StudyFolder, entry: ArmEntry, shown: bool) -> list[KeyFigure]:
    facts: list[KeyFigure] = []
    name = elide_middle(entry.name)
    if not shown and study.result.verdict.today is None:
        name += ", the highest score"
    if entry.result.score:
        target = f"; target {format_number(study.result.target)}" if study.result.target is not None else ""
        exact = f"; exactly right {entry.result.exact}" if entry.result.exact else ""
        note = f"95% interval {format_interval(entry.result.score.low, entry.result.score.high)}{target}{exact}"
        title = f"Score ({study.metric.label}) of {name}"
        facts.append(KeyFigure(name=title, value=format_score(entry.result.score.value), mark=MEASURED, note=note))
    comparison = _best_comparison(study, entry)
    if comparison:
        best = next((other.name for other in study.done if other.name != entry.name), None)
        which = (
            f"{elide_middle(comparison.b)}, the best "
            f"{'other arm' if comparison.b == best else 'arm it was compared with'}"
        )
        note = (
            f"95% interval {format_difference_interval(comparison.low, comparison.high)}; "
            f"{format_p(comparison.p_holm)} after Holm"
        )
        ahead = "Ahead of" if comparison.difference >= 0 else "Behind"
        facts.append(
            KeyFigure(name=f"{ahead} {which}", value=format_signed(comparison.difference), mark=MEASURED, note=note)
        )
    facts += _latency(study, entry)
    if entry.result.cost:
        currency = entry.result.cost.currency
        note = (
            f"{format_money(entry.result.cost.up_front, currency)} up front, "
            f"{format_money(entry.result.cost.monthly, currency)} a month"
        )
        title = ("Machine time" if "second" in currency else "Cost") + _horizon(study)
        facts.append(
            KeyFigure(name=title, value=format_money(entry.result.cost.total, currency), mark=PREDICTED, note=note)
        )
    return facts


def _latency(study: StudyFolder, entry: ArmEntry) -> list[KeyFigure]:
    """Return the 95th percentile of the latency with its upper bound, which a limit is compared with; else the
    median."""
    half = format_seconds(entry.result.latency_p50_ms / 1000) if entry.result.latency_p50_ms is not None else ""
    if entry.result.latency_p95_ms is not None:
        limit = study.limits.latency_p95_ms if study.limits else None
        notes = [f"half within {half}"] if half else []
        if entry.result.latency_p95_high_ms is not None:
            limit_text = f"; the limit is {format_seconds(limit / 1000)}" if limit else ""
            high = format_seconds(entry.result.latency_p95_high_ms / 1000)
            notes.append(f"upper 95% bound in the minutes timed {high}{limit_text}")
        value = format_seconds(entry.result.latency_p95_ms / 1000)
        return [KeyFigure(name="95% of answers within", value=value, mark=MEASURED, note="; ".join(notes))]
    note = "what 95% stay within is known from 60 questions up"
    return [KeyFigure(name="Half of answers within", value=half, mark=MEASURED, note=note)] if half else []


def _horizon(study: StudyFolder) -> str:
    """Return ` over 12 months at 100,000 questions a month`, with "assumed" if the task file states no volume."""
    if study.result.volume is None:
        return ""
    assumed = "an assumed " if study.result.volume.assumed else ""
    questions, months = (
        format_number(study.result.volume.questions_per_month),
        format_number(study.result.volume.horizon_months),
    )
    return f" over {months} months at {assumed}{questions} questions a month"


def _best_comparison(study: StudyFolder, entry: ArmEntry) -> Comparison | None:
    """Return the comparison of an arm with the best other arm that it was compared with, from its side."""
    for other in study.done:
        for comparison in study.result.comparisons:
            if (comparison.a, comparison.b) == (entry.name, other.name):
                return comparison
            if (comparison.a, comparison.b) == (other.name, entry.name):
                return comparison.swapped()
    return None
