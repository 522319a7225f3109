"""From data to what is served, on one HTML page: every version with what it was made from, and every move of an alias."""

from __future__ import annotations

from datetime import datetime

from trimtab.base.canary import CanaryRecord
from trimtab.base.versions import Lineage, Move, Version
from trimtab.reports.components import Column, Grid
from trimtab.reports.formatting import NOTHING
from trimtab.reports.page import filled

_SHOWN = 8  # letters of a hash


def render(found: Lineage) -> str:
    """The page as HTML, without a script and without a request."""
    newest = tuple(reversed(found.versions))
    versions = Grid(
        label="Versions",
        columns=(
            Column(title="Version"),
            Column(title="Arm", text=True),
            Column(title="Score", text=True),
            Column(title="Follows"),
            Column(title="Named by", text=True),
        ),
        rows=tuple(_version(one, found) for one in newest),
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
        rows=tuple(_move(one) for one in reversed(found.moves)),
    )
    grids = {"versions": versions, "origins": origins, "moves": moves}
    return filled("lineage.html.j2", title=f"Versions of {found.task}", script="", found=found, **grids)


def _version(one: Version, found: Lineage) -> tuple[str, ...]:
    now = found.aliases
    named = dict.fromkeys(move.alias for move in found.moves if move.version == one.number)
    aliases = [f"{alias} (now)" if now[alias] == one.number else alias for alias in named]
    return (
        f"{one.number}{' (files collected)' if one.number in found.collected else ''}",
        one.arm,
        one.scored,
        NOTHING if one.parent is None else str(one.parent),
        ", ".join(aliases) or NOTHING,
    )


def _origin(one: Version) -> tuple[str, ...]:
    hashes = (one.data_sha256, one.judgements_sha256, one.documents_sha256, one.weights_sha256)
    sources = ", ".join(f"{source}: {count:,}" for source, count in one.sources.items()) or NOTHING
    return (str(one.number), one.source, *map(_hash, hashes), sources)


def _move(one: Move) -> tuple[str, ...]:
    what = {"promote": "promoted", "rollback": "rolled back"}[one.kind]
    return (
        _time(one.when),
        one.alias,
        NOTHING if one.previous is None else str(one.previous),
        str(one.version),
        f"{what}, {_proof(one)}" if one.evidence and one.evidence.passed else what,
        one.who,
        one.why,
    )


def _proof(one: Move) -> str:
    return "after a canary" if isinstance(one.evidence, CanaryRecord) else "gate passed"


def _hash(value: str | None) -> str:
    return value[:_SHOWN] if value else NOTHING


def _time(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"
