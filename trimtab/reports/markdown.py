"""The report as Markdown: the view without its charts, the answers and the raw manifest."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trimtab.base.sanitize import visible
from trimtab.reports.components import ArmLabel, Cell, Column, Grid, Heading, Mark, Scored, Sentence, StackedBar
from trimtab.reports.formatting import NOTHING, clean
from trimtab.reports.view import StudyView, Top

SPECIAL = re.compile(r"([\\`*_\[\]|<>~#&])")
BLOCK = re.compile(
    r"^(\d{0,9})([-+.)=])(?=[-+=\s]|$)"
)  # at the start of a line: an item of a list, a rule, an underlined heading


def brief(view: StudyView) -> str:
    """The whole report in Markdown; a part for which there is nothing is left out."""
    return "\n".join([*_top(view.top), *_arms(view), *_why(view), *_found(view), *_made(view)])


def _top(top: Top) -> list[str]:
    return [
        f"# {escaped(top.headline)}",
        "",
        *([escaped(top.in_words), ""] if top.in_words else []),
        *(line for paragraph in top.more for line in (escaped(paragraph), "")),
        f"**{top.state}** · task {escaped(top.task)} · study {escaped(top.study)}",
        "",
        *([f"**{escaped(top.arm.arm.name)}**: {escaped(top.arm.words)}.", ""] if top.arm else []),
        *([escaped(top.needs), ""] if top.needs else []),
        escaped(top.rests_on),
        "",
        *_list(top.caveats.title, top.caveats.entries),
        escaped(top.next_step),
        "",
    ]


def _arms(view: StudyView) -> list[str]:
    quality = view.quality
    lines: list[str] = []
    if quality.arms:
        notes = [quality.heading.lead, _phrase(quality.note)]
        lines += ["## Arms", "", escaped(" ".join(notes)), "", *_table(quality.arms)]
        basis = view.costs.basis if view.costs else ()
        lines += [escaped(_phrase([part for part in basis if isinstance(part, str)])), ""] if basis else []
    glossary, missing = quality.glossary, quality.missing
    lines += _list(glossary.title, [f"{one.arm.name}: {one.words}" for one in glossary.entries])
    return lines + _list(missing.title, [f"{one.arm.name} {one.status}: {one.why}" for one in missing.entries])


def _why(view: StudyView) -> list[str]:
    """What tuning and context do together, the comparisons, and what would flip the verdict."""
    lines: list[str] = []
    if view.factorial:
        lines += _list(view.factorial.heading.title, [one.sentence for one in view.factorial.effects.entries])
    if view.comparisons:
        lines += [*_section(view.comparisons.heading), *_table(view.comparisons.grid)]
    return lines + (_list(view.costs.flips.title, view.costs.flips.entries) if view.costs else [])


def _found(view: StudyView) -> list[str]:
    """Failures by kind, and scores per class and slice."""
    lines: list[str] = []
    if view.failures and view.failures.grid:
        lines += [
            *_section(view.failures.heading),
            escaped(view.failures.heading.lead),
            "",
            *_table(view.failures.grid),
        ]
    if view.classes:
        lead = f"{view.classes.heading.lead} {view.classes.title}:"
        lines += [*_section(view.classes.heading), escaped(lead), "", *_table(view.classes.grid)]
        if view.classes.sureness:
            lines += [escaped(f"{view.classes.sureness.title}:"), "", *_table(view.classes.sureness.grid)]
    if view.slices:
        lines += [*_section(view.slices.heading), *(_table(view.slices.grid) if view.slices.grid else [])]
        lines += [escaped(f"{view.slices.few.label}:"), "", *_table(view.slices.few)] if view.slices.few else []
        lines += [escaped(view.slices.more), ""] if view.slices.more else []
    return lines


def _made(view: StudyView) -> list[str]:
    """What was tried, the data, the plan against what came, the machine and the hashes."""
    lines: list[str] = []
    for told in (view.learning, view.remembered):
        if told:
            lines += [*_section(told.heading), escaped(told.heading.lead), "", *_table(told.grid)]
    if view.effort:
        lines += [*_section(view.effort.heading), escaped(view.effort.heading.lead), "", *_table(view.effort.grid)]
    if view.data:
        said = [f"{one.word}: {one.text}" for one in view.data.remarks]
        facts = [view.data.facts.removesuffix(".")] if view.data.facts else []
        lines += _list(view.data.heading.title, [*facts, *said])
    if view.manifest is None:
        return lines
    if view.manifest.plan:
        lines += [f"## {escaped(view.manifest.plan.label)}", "", *_table(view.manifest.plan)]
    return lines + _list(view.manifest.heading.title, view.manifest.origins)


def _section(heading: Heading) -> list[str]:
    return [f"## {escaped(heading.title)}", ""]


def _list(heading: str, items: Sequence[str]) -> list[str]:
    return [f"## {escaped(heading)}", "", *(f"- {escaped(item)}" for item in items), ""] if items else []


def _table(grid: Grid) -> list[str]:
    """A table, its first column left and the others right; what stands softly in a cell is left out.

    A column with named intervals becomes two, the figures and their intervals.
    """
    head: list[str] = []
    for column in grid.columns:
        head += [_title(column), *([column.interval] if column.interval else [])]
    rule = ["---", *(["---:"] * (len(head) - 1))]
    body = [
        [
            part
            for column, cell in zip(grid.columns, row, strict=True)
            for part in (_two(cell) if column.interval else [_cell(cell)])
        ]
        for row in grid.rows
    ]
    return [*(f"| {' | '.join(line)} |" for line in (head, rule, *body)), ""]


def _title(column: Column) -> str:
    """The head of a column, without a capital unless it is a name, with its mark in brackets."""
    title = _cell(column.title)
    if isinstance(column.title, str) and title[1:2].islower():
        title = title[:1].lower() + title[1:]
    return f"{title} ({column.mark.word})" if column.mark else title


def _two(cell: Cell) -> list[str]:
    return [escaped(cell.value), escaped(cell.interval)] if isinstance(cell, Scored) else [_cell(cell), NOTHING]


def _cell(cell: Cell) -> str:
    match cell:
        case str():
            return escaped(cell)
        case ArmLabel():
            return f"**{escaped(cell.name)}**" if cell.chosen else escaped(cell.name)
        case Scored():
            return escaped(cell.value)
        case Sentence():
            return escaped(cell.text)
        case StackedBar():
            return "; ".join(f"{_cell(label)} {_cell(found)}" for label, found in cell.entries)
        case _:
            return escaped(_phrase(cell))


def _phrase(phrase: Sequence[str | Mark]) -> str:
    """A sentence with its marks as words."""
    return "".join(part if isinstance(part, str) else part.word for part in phrase)


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line: no markup, HTML or entity, no block, and nothing that a terminal obeys."""
    line = SPECIAL.sub(r"\\\1", " ".join(visible(clean(text)).split()))
    return BLOCK.sub(r"\1\\\2", line)


def fenced(text: str) -> str:
    """Text as a block of code, its lines kept, control characters drawn; no run of backticks in it closes the block."""
    shown = clean(visible(text))
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{fence}\n{shown}\n{fence}"
