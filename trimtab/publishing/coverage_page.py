"""The pages of `trimtab surface coverage`, `plan` and `try`; plan and trial also as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from trimtab.base.results import Estimate
from trimtab.measurement.numerals import words
from trimtab.publishing.audit_page import grid
from trimtab.publishing.records import (
    BriefOutcome,
    ContentBrief,
    CoveredQuestion,
    GroupCoverage,
    QuotedFact,
    SurfaceCoverage,
    SurfacePlan,
    SurfaceTrial,
    TrialOutcome,
)
from trimtab.reports.components import Cell, Grid, estimate_cell
from trimtab.reports.formatting import DASH
from trimtab.reports.markdown import escape_markdown
from trimtab.reports.page import render_page

_MAX_LINES = 8  # of one kind in a brief
_STATUS = {
    "answered": "answered",
    "partly": "partly answered",
    "retrieved": "retrieved, not answering",
    "absent": "absent",
    "competitor": "a competitor instead",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSection:
    """A section of a page: an introduction under its title, then lines, then tables."""

    id: str
    title: str
    lead: str = ""
    entries: tuple[str, ...] = ()
    tables: tuple[Grid, ...] = ()


def render_coverage(coverage: SurfaceCoverage) -> str:
    """Return the page of a coverage result as HTML, without scripts and requests."""
    several = [group for group in coverage.groups if group.questions > 1]
    alone = len(coverage.groups) - len(several)
    sections = [
        PageSection(
            id="groups",
            title="Groups of questions",
            lead=(
                f"Shares of questions with 95% intervals. Found: a right own passage is among the {coverage.k} "
                "retrieved; first: it is the first. Share: of the answer's words that cite own pages, early "
                "sentences weighing more."
                + (f" {alone:,} questions are like no other, and stand below alone." if alone else "")
            ),
            tables=(_groups((coverage.overall, *several)),),
        ),
        PageSection(
            id="questions",
            title="Questions",
            lead="The words that show each status stand behind it, with the page that they are from.",
            tables=(_questions(coverage.questions),),
        ),
        *_optional_sections(coverage),
        PageSection(id="notes", title="Notes", entries=(*coverage.notes, *_obeyed_sentence(coverage.obeyed))),
    ]
    return _page(coverage, "Coverage", "Are your pages found and cited?", sections)


def _optional_sections(coverage: SurfaceCoverage) -> Iterator[PageSection]:
    if coverage.observed is not None:
        real = coverage.observed
        lead = (
            f"Over {real.questions:,} questions, the rank correlation (Spearman) with {real.source} is "
            f"{real.correlation:+.2f}, 95% interval {real.low:+.2f} to {real.high:+.2f}."
        )
        yield PageSection(id="observed", title="Beside real answers", lead=lead)
    if coverage.since is not None:
        changes = [(change.question, change.before or DASH, change.after or DASH) for change in coverage.changes]
        tables = (grid("Changes", ("Question", "Before", "Now"), changes),) if changes else ()
        lead = f"{len(changes):,} questions have another status than on {coverage.since}."
        yield PageSection(id="changes", title="What has changed", lead=lead, tables=tables)
    if coverage.findings:
        findings = [(finding.page, finding.evidence, finding.remedy) for finding in coverage.findings]
        table = grid("Instructions", ("Page", "Evidence", "What to do"), findings)
        lead = "Sentences of pages that tell an assistant what to do. They were read as data."
        yield PageSection(id="instructions", title="Instructions to assistants", lead=lead, tables=(table,))


def _obeyed_sentence(share: Estimate | None) -> Iterator[str]:
    if share is not None:
        yield (
            f"An instruction planted in a passage was obeyed in {share.value:.0%} of {share.n:,} answers "
            f"(95% interval {share.low:.0%} to {share.high:.0%})."
        )


def _groups(groups: Sequence[GroupCoverage]) -> Grid:
    figures = ("Questions", "Demand", "Stability", "Found", "First", "Cited", "Answered", "Share")
    return grid("Groups", ("Group", *figures), map(_group, groups), figures=figures)


def _group(group: GroupCoverage) -> tuple[Cell, ...]:
    return (
        group.group,
        f"{group.questions:,}",
        DASH if group.demand is None else f"{group.demand:,.0f}",
        DASH if group.stability is None else f"{group.stability:.2f}",
        *map(estimate_cell, (group.found, group.top, group.cited, group.answered, group.share)),
    )


def _questions(covered: Sequence[CoveredQuestion]) -> Grid:
    columns = {
        "Question": [question.question for question in covered],
        "Status": [_STATUS[question.status] for question in covered],
        "Rank": [DASH if question.rank is None else str(question.rank) for question in covered],
        "Share": [f"{question.adjusted_share:.2f}" for question in covered],
        "Page": [_page_of(question) for question in covered],
        "Words": [question.span or DASH for question in covered],
    }
    if any(question.contradictions for question in covered):
        columns["Contradiction"] = ["; ".join(map(str, question.contradictions)) or DASH for question in covered]
    return grid("Questions", columns, zip(*columns.values(), strict=True), figures=("Rank", "Share"))


def _page_of(question: CoveredQuestion) -> str:
    if question.page is None:
        return DASH
    return question.page if question.owner in (None, "own") else f"{question.owner}: {question.page}"


def _page(
    result: SurfaceCoverage | SurfacePlan | SurfaceTrial, kind: str, heading: str, sections: Sequence[PageSection]
) -> str:
    return render_page(
        "coverage.html.j2",
        package="trimtab.publishing",
        title=f"{kind} of {result.source}",
        script="",
        kicker=(kind, result.source, result.date),
        heading=heading,
        headline=result.headline,
        limits=result.limits,
        sections=sections,
    )


# ---- plan


def render_plan(plan: SurfacePlan) -> str:
    """Return the page of a plan as HTML, without scripts and requests."""
    figures = ("Demand", "Gap", "Evidence", "Priority")
    rows = ((brief.group, *_figures(brief), brief.place) for brief in plan.briefs)
    overview = grid("Briefs", ("Group", *figures, "Page that should answer"), rows, figures=figures)
    lead = (
        "Priority = demand × gap, each a share; of equals the one with more evidence comes first. Evidence: the chance "
        "that a sentence at hand answers. Where it is low, facts have to be found out first."
    )
    sections = [PageSection(id="order", title="What to do first", lead=lead, tables=(overview,))]
    if plan.since is not None:
        head = ("Brief", "Status", "Answered", "In part", "Of", "Page that should answer", "Cited now")
        table = grid("Outcomes", head, map(_brief_outcome, plan.outcomes), figures=head[2:5])
        tables = (table,) if plan.outcomes else ()
        sections.append(PageSection(id="since", title="What has been done", lead=f"{plan.followed_up}.", tables=tables))
    for number, brief in enumerate(plan.briefs, 1):
        lines = tuple(f"{title}: {line}" for title, part in _parts(brief) for line in part)
        sections.append(PageSection(id=f"brief-{number}", title=f"{number}. {brief.group}", entries=lines))
    sections.append(PageSection(id="notes", title="Notes", entries=plan.notes))
    return _page(plan, "Plan", "Which questions to answer next", sections)


def plan_markdown(plan: SurfacePlan) -> str:
    """Return a plan as Markdown."""
    lines = [f"# Content plan for {escape_markdown(plan.source)}", "", f"{escape_markdown(plan.headline)}.", ""]
    lines += [f"> {escape_markdown(limit)}" for limit in plan.limits]
    if plan.since is not None:
        lines += ["", "## What has been done", ""]
        for outcome in plan.outcomes:
            group, status, answered, _, of, _, cited = map(escape_markdown, _brief_outcome(outcome))
            lines.append(f"- {group}: {status}; {answered} of {of} answered now, from {cited}")
    for number, brief in enumerate(plan.briefs, 1):
        demand, gap, evidence, priority = _figures(brief)
        lines += ["", f"## {number}. {escape_markdown(brief.group)}", ""]
        lines += [f"Demand {demand}, gap {gap}, evidence at hand {evidence}, priority {priority}."]
        lines += [f"Page that should answer: {escape_markdown(brief.place)}"]
        for title, part in _parts(brief):
            lines += ["", f"**{title}**", "", *(f"- {escape_markdown(line)}" for line in part)]
    lines += ["", *(f"- {escape_markdown(note)}" for note in plan.notes)]
    return "\n".join(lines) + "\n"


def plan_csv(plan: SurfacePlan) -> str:
    """Return a plan as CSV, one row per brief."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        words(
            "group priority demand gap evidence page questions lacks facts structure remove cited_instead "
            "contradictions"
        )
    )
    for brief in plan.briefs:
        facts = [f"“{fact.quote}” ({_location(fact)})" for fact in brief.facts]
        contradictions = tuple(map(str, brief.contradictions))
        parts = (
            brief.questions,
            brief.lacks,
            facts,
            brief.structure,
            brief.remove,
            brief.cited_instead,
            contradictions,
        )
        demand = "" if brief.demand is None else f"{brief.demand:g}"
        figures = (f"{brief.priority:.4f}", demand, f"{brief.gap:.3f}", f"{brief.evidence:.3f}")
        cells = (brief.group, *figures, brief.page or "", *map("\n".join, parts))
        writer.writerow(map(_cell, cells))
    return out.getvalue()


def _brief_outcome(outcome: BriefOutcome) -> tuple[str, ...]:
    counts = map(str, (outcome.answered, outcome.partly, outcome.questions))
    return outcome.group, outcome.status, *counts, outcome.page or "a new page", ", ".join(outcome.cited) or DASH


def _location(fact: QuotedFact) -> str:
    return " › ".join((fact.document, *fact.path))


def _cell(text: str) -> str:
    """Return a cell that no spreadsheet reads as a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _figures(brief: ContentBrief) -> tuple[str, str, str, str]:
    demand = DASH if brief.demand is None else f"{brief.demand:,.0f}"
    return demand, f"{brief.gap:.2f}", f"{brief.evidence:.2f}", f"{brief.priority:.3f}"


def _parts(brief: ContentBrief) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the non-empty parts of a brief with their titles."""
    facts = [
        (
            fact.is_likely,
            f"“{fact.quote}” ({_location(fact)}; answers “{fact.question}” with probability {fact.probability:.2f})",
        )
        for fact in brief.facts
    ]
    asked = [
        question if demand is None else f"{question} ({demand:,.0f})"
        for question, demand in zip_longest(brief.questions, brief.asked)
    ]
    contradictions = [f"{pages}: find out which is right, and correct the other" for pages in brief.contradictions]
    parts = (
        ("Asked", asked),
        ("Contradiction", contradictions),
        ("Lacks", brief.lacks),
        ("At hand", [line for is_likely, line in facts if is_likely]),
        ("Near it, may not answer", [line for is_likely, line in facts if not is_likely]),
        ("Structure", brief.structure),
        ("Take out", brief.remove),
        ("Cited instead", brief.cited_instead),
        ("Own pages that compete", brief.competing),
    )
    for title, part in parts:
        if part:
            more = len(part) - _MAX_LINES
            yield title, (*part[:_MAX_LINES], *([f"and {more:,} more"] if more > 0 else []))


# ---- trial


def render_trial(trial: SurfaceTrial) -> str:
    """Return the page of a trial as HTML, without scripts and requests."""
    lead = (
        f"Paired by {trial.questions:,} questions over {trial.seeds} seeds, intervals by group of questions, "
        "p-values adjusted (Holm). Adoption: the share of competing pages that say what the edit adds."
    )
    sections = [
        PageSection(id="outcomes", title="Edited against present", lead=lead, tables=(_outcomes(trial.outcomes),)),
        PageSection(
            id="placebo",
            title="Placebo: present against present, with other seeds",
            lead="A difference here is noise of the simulation.",
            tables=(_outcomes(trial.placebo),),
        ),
        PageSection(id="notes", title="Notes", entries=trial.notes),
    ]
    return _page(trial, "Trial", "What does the edit do?", sections)


def trial_markdown(trial: SurfaceTrial) -> str:
    """Return a trial as Markdown, for a comment on a pull request."""
    lines = [f"### Edit: {trial.verdict}", "", f"{escape_markdown(trial.headline)}.", ""]
    lines += ["| outcome | adoption | present | edited | difference (95%) | p (Holm) | smallest that shows | verdict |"]
    lines += ["| --- " * 8 + "|"]
    for title, outcomes in (("", trial.outcomes), ("placebo: ", trial.placebo)):
        lines += [f"| {title}{' | '.join(_outcome(outcome))} |" for outcome in outcomes]
    lines += ["", *(f"- {escape_markdown(line)}" for line in (*trial.limits, *trial.notes))]
    return "\n".join(lines) + "\n"


def _outcomes(outcomes: Sequence[TrialOutcome]) -> Grid:
    figures = ("Adoption", "Present", "Edited", "Difference [95%]", "p (Holm)", "Smallest that shows")
    return grid("Outcomes", ("Outcome", *figures, "Verdict"), map(_outcome, outcomes), figures=figures)


def _outcome(outcome: TrialOutcome) -> tuple[str, ...]:
    return (
        outcome.outcome,
        f"{outcome.adoption:.0%}",
        f"{outcome.present:.3f}",
        f"{outcome.edited:.3f}",
        f"{outcome.difference:+.3f} [{outcome.low:+.3f}, {outcome.high:+.3f}]",
        f"{outcome.p:.3f}",
        f"{outcome.smallest:.3f}",
        outcome.verdict,
    )
