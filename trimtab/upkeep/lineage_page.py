"""The HTML page of a registry's lineage: every version with its origins, and every move of an alias."""

from __future__ import annotations

from datetime import datetime

from trimtab.reports.components import Column, Grid
from trimtab.reports.formatting import DASH
from trimtab.reports.page import render_page
from trimtab.upkeep.canary_records import CanaryRecord
from trimtab.upkeep.versions import Lineage, Move, Version

_SHOWN = 8  # characters of a hash


def render_lineage(lineage: Lineage) -> str:
    """Return the page as HTML, without scripts and requests."""
    newest = tuple(reversed(lineage.versions))
    versions = Grid(
        label="Versions",
        columns=(
            Column(title="Version"),
            Column(title="Arm", text=True),
            Column(title="Score", text=True),
            Column(title="Follows"),
            Column(title="Named by", text=True),
        ),
        rows=tuple(_version(one, lineage) for one in newest),
    )
    origins = Grid(
        label="Origins",
        columns=(
            Column(title="Version"),
            Column(title="Study or run", text=True),
            Column(title="Rows"),
            Column(title="Judgements"),
            Column(title="Documents"),
            Column(title="Weights"),
            Column(title="Rows by source", text=True),
        ),
        rows=tuple(_origin(one) for one in newest),
    )
    moves = Grid(
        label="Moves",
        columns=(
            Column(title="When"),
            Column(title="Alias", text=True),
            Column(title="From"),
            Column(title="To"),
            Column(title="What", text=True),
            Column(title="Who", text=True),
            Column(title="Why", text=True),
        ),
        rows=tuple(_move(one) for one in reversed(lineage.moves)),
    )
    grids = {"versions": versions, "origins": origins, "moves": moves}
    return render_page(
        "lineage.html.j2",
        package="trimtab.upkeep",
        title=f"Versions of {lineage.task}",
        script="",
        lineage=lineage,
        **grids,
    )


def _version(one: Version, lineage: Lineage) -> tuple[str, ...]:
    now = lineage.aliases
    named_by = dict.fromkeys(move.alias for move in lineage.moves if move.version == one.number)
    aliases = [f"{alias} (now)" if now[alias] == one.number else alias for alias in named_by]
    return (
        f"{one.number}{' (files collected)' if one.number in lineage.collected else ''}",
        one.arm,
        one.scored,
        DASH if one.parent is None else str(one.parent),
        ", ".join(aliases) or DASH,
    )


def _origin(one: Version) -> tuple[str, ...]:
    hashes = (one.data_sha256, one.judgements_sha256, one.documents_sha256, one.weights_sha256)
    sources = ", ".join(f"{source}: {count:,}" for source, count in one.sources.items()) or DASH
    return (str(one.number), one.source, *map(_hash, hashes), sources)


def _move(one: Move) -> tuple[str, ...]:
    what = {"promote": "promoted", "rollback": "rolled back"}[one.kind]
    return (
        _time(one.when),
        one.alias,
        DASH if one.previous is None else str(one.previous),
        str(one.version),
        f"{what}, {_evidence(one)}" if one.evidence and one.evidence.passed else what,
        one.who,
        one.why,
    )


def _evidence(one: Move) -> str:
    return "after a canary" if isinstance(one.evidence, CanaryRecord) else "gate passed"


def _hash(value: str | None) -> str:
    return value[:_SHOWN] if value else DASH


def _time(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"
