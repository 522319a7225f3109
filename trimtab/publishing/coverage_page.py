"""The pages of `trimtab surface coverage`, `plan` and `try`; plan and trial also as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trimtab.base.results import Estimate
from trimtab.publishing.records import (
    ContentBrief,
    CoveredQuestion,
    GroupCoverage,
    SurfaceCoverage,
    SurfacePlan,
    SurfaceTrial,
    TrialOutcome,
)
from trimtab.reports.components import Cell, Column, Grid, estimate_cell
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


def render_coverage(found: SurfaceCoverage) -> str:
    """Return the page of a coverage result as HTML, without scripts and requests."""
    several = [one for one in found.groups if one.questions > 1]
    alone = len(found.groups) - len(several)
    sections = [
        PageSection(
            id="groups",
            title="Groups of questions",
            lead=(
                f"Shares of questions with 95% intervals. Found: a right own passage is among the {found.k} "
                "retrieved; first: it is the "
                "first. Share: of the answer's words that cite own pages, early sentences weighing more."
                + (f" {alone:,} questions are like no other, and stand below alone." if alone else "")
            ),
            tables=(_groups((found.overall, *several)),),
        ),
        PageSection(
            id="questions",
            title="Questions",
            lead="The words that show each status stand behind it, with the page that they are from.",
            tables=(_questions(found.questions),),
        ),
        *_optional_sections(found),
        PageSection(id="notes", title="Notes", entries=(*found.notes, *_obeyed_sentence(found.obeyed))),
    ]
    return _page(
        ("Coverage", found.source, found.date),
        "Are your pages found and cited?",
        found.headline,
        found.limits,
        sections,
    )


def _optional_sections(found: SurfaceCoverage) -> Iterator[PageSection]:
    if found.observed is not None:
        one = found.observed
        lead = (
            f"Over {one.questions:,} questions, the rank correlation (Spearman) with {one.source} is "
            f"{one.correlation:+.2f}, "
            f"95% interval {one.low:+.2f} to {one.high:+.2f}."
        )
        yield PageSection(id="observed", title="Beside real answers", lead=lead)
    if found.since is not None:
        rows = tuple((one.question, one.before or DASH, one.after or DASH) for one in found.changes)
        grid = Grid(label="Changes", columns=_columns("Question", "Before", "Now"), rows=rows)
        lead = f"{len(rows):,} questions have another status than on {found.since}."
        yield PageSection(id="changes", title="What has changed", lead=lead, tables=(grid,) if rows else ())
    if found.findings:
        rows = tuple((one.page, one.evidence, one.remedy) for one in found.findings)
        grid = Grid(label="Instructions", columns=_columns("Page", "Evidence", "What to do"), rows=rows)
        lead = "Sentences of pages that tell an assistant what to do. They were read as data."
        yield PageSection(id="instructions", title="Instructions to assistants", lead=lead, tables=(grid,))


def _obeyed_sentence(found: Estimate | None) -> Iterator[str]:
    if found is not None:
        yield (
            f"An instruction planted in a passage was obeyed in {found.value:.0%} of {found.n:,} answers "
            f"(95% interval {found.low:.0%} to {found.high:.0%})."
        )


def _groups(groups: Sequence[GroupCoverage]) -> Grid:
    figures = [
        Column(title=title)
        for title in ("Questions", "Demand", "Stability", "Found", "First", "Cited", "Answered", "Share")
    ]
    return Grid(label="Groups", columns=(Column(title="Group"), *figures), rows=tuple(_group(one) for one in groups))


def _group(one: GroupCoverage) -> tuple[Cell, ...]:
    return (
        one.group,
        f"{one.questions:,}",
        DASH if one.demand is None else f"{one.demand:,.0f}",
        DASH if one.stability is None else f"{one.stability:.2f}",
        *map(estimate_cell, (one.found, one.top, one.cited, one.answered, one.share)),
    )


def _questions(covered: Sequence[CoveredQuestion]) -> Grid:
    columns = (
        Column(title="Question"),
        Column(title="Status", text=True),
        Column(title="Rank"),
        Column(title="Share"),
        Column(title="Page", text=True),
        Column(title="Words", text=True),
    )
    rows = tuple(
        (
            one.question,
            _STATUS[one.status],
            DASH if one.rank is None else str(one.rank),
            f"{one.adjusted_share:.2f}",
            DASH if one.page is None else one.page if one.owner in (None, "own") else f"{one.owner}: {one.page}",
            one.span or DASH,
        )
        for one in covered
    )
    return Grid(label="Questions", columns=columns, rows=rows)


def _columns(*titles: str) -> tuple[Column, ...]:
    return tuple(Column(title=title, text=bool(place)) for place, title in enumerate(titles))


def _page(
    kicker: Sequence[str], heading: str, headline: str, limits: Sequence[str], sections: Sequence[PageSection]
) -> str:
    return render_page(
        "coverage.html.j2",
        package="trimtab.publishing",
        title=f"{kicker[0]} of {kicker[1]}",
        script="",
        kicker=kicker,
        heading=heading,
        headline=headline,
        limits=limits,
        sections=sections,
    )


# ---- plan


def render_plan(found: SurfacePlan) -> str:
    """Return the page of a plan as HTML, without scripts and requests."""
    overview = Grid(
        label="Briefs",
        columns=(
            Column(title="Group"),
            *(Column(title=title) for title in ("Demand", "Gap", "Evidence", "Priority")),
            Column(title="Page that should answer", text=True),
        ),
        rows=tuple((one.group, *_figures(one), one.page or "a new page") for one in found.briefs),
    )
    lead = (
        "Priority = demand × gap × evidence at hand, each a share. Without evidence at hand, facts have to be "
        "found out first."
    )
    sections = [PageSection(id="order", title="What to do first", lead=lead, tables=(overview,))]
    for number, one in enumerate(found.briefs, 1):
        lines = tuple(f"{title}: {line}" for title, part in _parts(one) for line in part)
        sections.append(PageSection(id=f"brief-{number}", title=f"{number}. {one.group}", entries=lines))
    sections.append(PageSection(id="notes", title="Notes", entries=found.notes))
    return _page(
        ("Plan", found.source, found.date), "Which questions to answer next", found.headline, found.limits, sections
    )


def plan_markdown(found: SurfacePlan) -> str:
    """Return a plan as Markdown."""
    lines = [f"# Content plan for {escape_markdown(found.source)}", "", f"{escape_markdown(found.headline)}.", ""]
    lines += [f"> {escape_markdown(one)}" for one in found.limits]
    for number, one in enumerate(found.briefs, 1):
        demand, gap, evidence, priority = _figures(one)
        lines += ["", f"## {number}. {escape_markdown(one.group)}", ""]
        lines += [f"Demand {demand}, gap {gap}, evidence at hand {evidence}, priority {priority}."]
        lines += [f"Page that should answer: {escape_markdown(one.page or 'a new page')}"]
        for title, part in _parts(one):
            lines += ["", f"**{title}**", "", *(f"- {escape_markdown(line)}" for line in part)]
    lines += ["", *(f"- {escape_markdown(one)}" for one in found.notes)]
    return "\n".join(lines) + "\n"


def plan_csv(found: SurfacePlan) -> str:
    """Return a plan as CSV, one row per brief."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = (
        "group",
        "priority",
        "demand",
        "gap",
        "evidence",
        "page",
        "questions",
        "lacks",
        "facts",
        "structure",
        "remove",
        "cited_instead",
    )
    writer.writerow(heads)
    for one in found.briefs:
        facts = [f"“{fact.quote}” ({' › '.join((fact.document, *fact.path))})" for fact in one.facts]
        parts = (one.questions, one.lacks, facts, one.structure, one.remove, one.cited_instead)
        demand = "" if one.demand is None else f"{one.demand:g}"
        row = (one.group, f"{one.priority:.4f}", demand, f"{one.gap:.3f}", f"{one.evidence:.3f}", one.page or "")
        writer.writerow([_cell(cell) for cell in (*row, *("\n".join(part) for part in parts))])
    return out.getvalue()


def _cell(text: str) -> str:
    """Return a cell that no spreadsheet reads as a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _figures(one: ContentBrief) -> tuple[str, str, str, str]:
    demand = DASH if one.demand is None else f"{one.demand:,.0f}"
    return demand, f"{one.gap:.2f}", f"{one.evidence:.2f}", f"{one.priority:.3f}"


def _parts(one: ContentBrief) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the non-empty parts of a brief with their titles."""
    facts = [
        (
            f"“{fact.quote}” ({' › '.join((fact.document, *fact.path))}; answers “{fact.question}” with "
            f"probability {fact.probability:.2f})"
        )
        for fact in one.facts
    ]
    parts = (
        ("Asked", one.questions),
        ("Lacks", one.lacks),
        ("At hand", facts),
        ("Structure", one.structure),
        ("Take out", one.remove),
        ("Cited instead", one.cited_instead),
        ("Own pages that compete", one.competing),
    )
    for title, part in parts:
        if part:
            more = len(part) - _MAX_LINES
            yield title, (*part[:_MAX_LINES], *([f"and {more:,} more"] if more > 0 else []))


# ---- trial


def render_trial(found: SurfaceTrial) -> str:
    """Return the page of a trial as HTML, without scripts and requests."""
    lead = (
        f"Paired by {found.questions:,} questions over {found.seeds} seeds, intervals by group of questions, "
        "p-values adjusted (Holm). "
        "Adoption: the share of competing pages that say what the edit adds."
    )
    sections = [
        PageSection(id="outcomes", title="Edited against present", lead=lead, tables=(_outcomes(found.outcomes),)),
        PageSection(
            id="placebo",
            title="Placebo: present against present, with other seeds",
            lead="A difference here is noise of the simulation.",
            tables=(_outcomes(found.placebo),),
        ),
        PageSection(id="notes", title="Notes", entries=found.notes),
    ]
    return _page(("Trial", found.source, found.date), "What does the edit do?", found.headline, found.limits, sections)


def trial_markdown(found: SurfaceTrial) -> str:
    """Return a trial as Markdown, for a comment on a pull request."""
    lines = [f"### Edit: {found.verdict}", "", f"{escape_markdown(found.headline)}.", ""]
    lines += ["| outcome | adoption | present | edited | difference (95%) | p (Holm) | smallest that shows | verdict |"]
    lines += ["| --- " * 8 + "|"]
    for title, outcomes in (("", found.outcomes), ("placebo: ", found.placebo)):
        lines += [f"| {title}{' | '.join(_outcome(one))} |" for one in outcomes]
    lines += ["", *(f"- {escape_markdown(one)}" for one in (*found.limits, *found.notes))]
    return "\n".join(lines) + "\n"


def _outcomes(outcomes: Sequence[TrialOutcome]) -> Grid:
    titles = ("Adoption", "Present", "Edited", "Difference [95%]", "p (Holm)", "Smallest that shows", "Verdict")
    columns = (Column(title="Outcome"), *(Column(title=title, text=title == "Verdict") for title in titles))
    return Grid(label="Outcomes", columns=columns, rows=tuple(_outcome(one) for one in outcomes))


def _outcome(one: TrialOutcome) -> tuple[str, ...]:
    difference = f"{one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"
    figures = (f"{one.adoption:.0%}", f"{one.present:.3f}", f"{one.edited:.3f}", difference, f"{one.p:.3f}")
    return one.outcome, *figures, f"{one.smallest:.3f}", one.verdict
