"""From data to what is served, on one HTML page: every version with what it was made from, and every move of an alias."""

from __future__ import annotations

from datetime import datetime

from trimtab.base.versions import Lineage, Move, Version
from trimtab.reports.page import filled
from trimtab.reports.pieces import Column, Grid
from trimtab.reports.writing import NOTHING

_SHOWN = 12  # letters of a hash


def render(found: Lineage) -> str:
    """The page as HTML, without a script and without a request."""
    versions = Grid(
        label="Versions",
        columns=(
            Column(title="Version"),
            Column(title="Arm", text=True),
            Column(title="Made from", text=True),
            Column(title="Data"),
            Column(title="Judgements"),
            Column(title="Documents"),
            Column(title="Rows by source", text=True),
            Column(title="Weights"),
            Column(title="Score", text=True),
            Column(title="Follows"),
            Column(title="Named by", text=True),
        ),
        rows=tuple(_version(one, found) for one in reversed(found.versions)),
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
            Column(title="Evidence", text=True),
        ),
        rows=tuple(_move(one) for one in reversed(found.moves)),
    )
    title = f"Versions of {found.task}"
    return filled("lineage.html.j2", title=title, script="", found=found, versions=versions, moves=moves)


def _version(one: Version, found: Lineage) -> tuple[str, ...]:
    now = found.aliases
    named = dict.fromkeys(move.alias for move in found.moves if move.version == one.number)
    aliases = [f"{alias} (now)" if now[alias] == one.number else alias for alias in named]
    return (
        f"{one.number}{' (files collected)' if one.number in found.collected else ''}",
        one.arm,
        one.source,
        _hash(one.data_sha256),
        _hash(one.judgements_sha256),
        _hash(one.documents_sha256),
        ", ".join(f"{source}: {count:,}" for source, count in one.sources.items()) or NOTHING,
        _hash(one.weights_sha256),
        one.scored,
        NOTHING if one.parent is None else str(one.parent),
        ", ".join(aliases) or NOTHING,
    )


def _move(one: Move) -> tuple[str, ...]:
    passed = {True: "gate passed", False: "gate not passed", None: "not shown"}
    return (
        _time(one.when),
        one.alias,
        NOTHING if one.previous is None else str(one.previous),
        str(one.version),
        {"promote": "promoted", "rollback": "rolled back"}[one.kind],
        one.who,
        one.why,
        passed[one.evidence.passed] if one.evidence else NOTHING,
    )


def _hash(value: str | None) -> str:
    return value[:_SHOWN] if value else NOTHING


def _time(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"
