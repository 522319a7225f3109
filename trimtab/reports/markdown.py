"""The report as Markdown: the view without charts, answers and the raw manifest."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trimtab.base.sanitize import visible
from trimtab.reports.components import ArmLabel, Cell, Column, Grid, Heading, Mark, Scored, StackedBar, StyledText
from trimtab.reports.formatting import DASH, replace_unprintable
from trimtab.reports.header import HeaderView
from trimtab.reports.study_view import StudyView

SPECIAL_CHARACTERS = re.compile(r"([\\`*_\[\]|<>~#&])")
# At the start of a line: a list item, a rule, an underlined heading.
BLOCK_START = re.compile(r"^(\d{0,9})([-+.)=])(?=[-+=\s]|$)")


def study_markdown(view: StudyView) -> str:
    """Return the report as Markdown; empty parts are left out."""
    return "\n".join([*_top(view.header), *_arms(view), *_explanations(view), *_results(view), *_details(view)])


def _top(top: HeaderView) -> list[str]:
    return [
        f"# {escape_markdown(top.headline)}",
        "",
        *([escape_markdown(top.more), ""] if top.more else []),
        *_list(top.before_relying.title, top.before_relying.entries),
        escape_markdown(top.next_step),
        "",
        f"**{top.state}** · task {escape_markdown(top.task)} · study {escape_markdown(top.study)}",
        "",
        *([f"**{escape_markdown(top.arm.arm.name)}**: {escape_markdown(top.arm.words)}.", ""] if top.arm else []),
        *(line for paragraph in top.in_full.entries for line in (escape_markdown(paragraph), "")),
        escape_markdown(top.rests_on),
        "",
        *_list(top.caveats.title, top.caveats.entries),
    ]


def _arms(view: StudyView) -> list[str]:
    quality = view.quality
    lines: list[str] = []
    if quality.arms:
        notes = [quality.heading.lead, _phrase(quality.note)]
        lines += ["## Arms", "", escape_markdown(" ".join(notes)), "", *_table(quality.arms)]
        basis = view.costs.basis if view.costs else ()
        lines += [escape_markdown(_phrase([part for part in basis if isinstance(part, str)])), ""] if basis else []
    glossary, missing = quality.glossary, quality.missing
    lines += _list(glossary.title, [f"{one.arm.name}: {one.words}" for one in glossary.entries])
    return lines + _list(missing.title, [f"{one.arm.name} {one.status}: {one.why}" for one in missing.entries])


def _explanations(view: StudyView) -> list[str]:
    """Return the interactions, the comparisons, and what would flip the verdict."""
    lines: list[str] = []
    if view.factorial:
        lines += _list(view.factorial.heading.title, [one.sentence for one in view.factorial.effects.entries])
    if view.comparisons:
        lines += [*_section(view.comparisons.heading), *_table(view.comparisons.grid)]
    return lines + (_list(view.costs.flips.title, view.costs.flips.entries) if view.costs else [])


def _results(view: StudyView) -> list[str]:
    """Return failures by kind, and scores per class and slice."""
    lines: list[str] = []
    if view.failures and view.failures.grid:
        lines += _led_table(view.failures.heading, view.failures.grid)
    if view.classes:
        lead = f"{view.classes.heading.lead} {view.classes.title}:"
        lines += [*_section(view.classes.heading), escape_markdown(lead), "", *_table(view.classes.grid)]
        if view.classes.calibration:
            lines += [escape_markdown(f"{view.classes.calibration.title}:"), "", *_table(view.classes.calibration.grid)]
    if view.probes:
        lines += _led_table(view.probes.heading, view.probes.grid)
    if view.slices:
        lines += [*_section(view.slices.heading), *(_table(view.slices.grid) if view.slices.grid else [])]
        lines += [escape_markdown(f"{view.slices.few.label}:"), "", *_table(view.slices.few)] if view.slices.few else []
        lines += [escape_markdown(view.slices.more), ""] if view.slices.more else []
    return lines


def _details(view: StudyView) -> list[str]:
    """Return the search, the data, the plan compared with the outcome, the machine and the hashes."""
    lines: list[str] = []
    for section in (view.learning, view.memorisation, view.effort):
        if section:
            lines += _led_table(section.heading, section.grid)
    rewritten = [one for one in view.effort.arms if one.reflection] if view.effort else []
    for one in rewritten:
        lines += [f"**{escape_markdown(one.arm.name)}**: {escape_markdown(one.reflection)}", ""]
    if view.data:
        remarks = [f"{one.word}: {one.text}" for one in view.data.remarks]
        facts = [view.data.facts.removesuffix(".")] if view.data.facts else []
        lines += _list(view.data.heading.title, [*facts, *remarks])
    if view.manifest is None:
        return lines
    if view.manifest.plan:
        lines += [f"## {escape_markdown(view.manifest.plan.label)}", "", *_table(view.manifest.plan)]
    return lines + _list(view.manifest.heading.title, view.manifest.origins)


def _section(heading: Heading) -> list[str]:
    return [f"## {escape_markdown(heading.title)}", ""]


def _led_table(heading: Heading, grid: Grid) -> list[str]:
    """Return a section of its introduction and a table."""
    return [*_section(heading), escape_markdown(heading.lead), "", *_table(grid)]


def _list(heading: str, items: Sequence[str]) -> list[str]:
    return (
        [f"## {escape_markdown(heading)}", "", *(f"- {escape_markdown(item)}" for item in items), ""] if items else []
    )


def _table(grid: Grid) -> list[str]:
    """Return a table, its first column left-aligned and the others right; secondary texts in cells are left out.

    A column with named intervals becomes two columns, the figures and their intervals.
    """
    head: list[str] = []
    for column in grid.columns:
        head += [_title(column), *([column.interval] if column.interval else [])]
    rule = ["---", *(["---:"] * (len(head) - 1))]
    body = [
        [
            part
            for column, cell in zip(grid.columns, row, strict=True)
            for part in (_score_and_interval(cell) if column.interval else [_cell(cell)])
        ]
        for row in grid.rows
    ]
    return [*(f"| {' | '.join(line)} |" for line in (head, rule, *body)), ""]


def _title(column: Column) -> str:
    """Return the head of a column in lower case unless it is a name, with its mark in brackets."""
    title = _cell(column.title)
    if isinstance(column.title, str) and title[1:2].islower():
        title = title[:1].lower() + title[1:]
    return f"{title} ({column.mark.word})" if column.mark else title


def _score_and_interval(cell: Cell) -> list[str]:
    return (
        [escape_markdown(cell.value), escape_markdown(cell.interval)]
        if isinstance(cell, Scored)
        else [_cell(cell), DASH]
    )


def _cell(cell: Cell) -> str:
    match cell:
        case str():
            return escape_markdown(cell)
        case ArmLabel():
            return f"**{escape_markdown(cell.name)}**" if cell.chosen else escape_markdown(cell.name)
        case Scored():
            return escape_markdown(cell.value)
        case StyledText():
            return escape_markdown(cell.text)
        case StackedBar():
            return "; ".join(f"{_cell(label)} {_cell(found)}" for label, found in cell.entries)
        case _:
            return escape_markdown(_phrase(cell))


def _phrase(phrase: Sequence[str | Mark]) -> str:
    """Return text with its marks as words."""
    return "".join(part if isinstance(part, str) else part.word for part in phrase)


def escape_markdown(text: str) -> str:
    """Return text that Markdown renders literally, on one line: no markup, HTML or entity, and no control
    characters."""
    line = SPECIAL_CHARACTERS.sub(r"\\\1", " ".join(visible(replace_unprintable(text)).split()))
    return BLOCK_START.sub(r"\1\\\2", line)


def code_block(text: str) -> str:
    """Return text as a code block; lines are kept, control characters are made visible, and no backticks can close
    it."""
    shown = replace_unprintable(visible(text))
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{fence}\n{shown}\n{fence}"
