"""Tables of the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimtab.serving.database import DatabaseSchema, row_number

if TYPE_CHECKING:
    from sqlalchemy import MetaData

VERSIONS, MOVES, COLLECTED = "trimtab_versions", "trimtab_moves", "trimtab_collected"
CANARIES, CANARY_ENDS, CANARY_TALLIES = "trimtab_canaries", "trimtab_canary_ends", "trimtab_canary_tallies"


def _declare(metadata: MetaData) -> None:
    """Add the tables. Rows are only added, except tallies."""
    from sqlalchemy import BigInteger, Column, ForeignKey, Index, String, Table, Text

    def reference(name: str, table: str, *, is_key: bool = False) -> Column[int]:
        target = ForeignKey(f"{table}.number")
        return Column(name, BigInteger, target, primary_key=is_key, autoincrement=False, nullable=False)

    Table(
        VERSIONS,
        metadata,
        row_number(),
        Column("task", Text, nullable=False),
        Column("record", Text, nullable=False),
        Index("trimtab_versions_by_task", "task", "number"),
    )
    Table(
        MOVES,
        metadata,
        row_number(),
        Column("task", Text, nullable=False),
        Column("alias", String(64), nullable=False),
        reference("version", VERSIONS),
        Column("record", Text, nullable=False),
        Index("trimtab_moves_by_alias", "task", "alias", "number"),
    )
    Table(
        COLLECTED,
        metadata,
        reference("version", VERSIONS, is_key=True),
        Column("record", Text, nullable=False),
    )
    Table(
        CANARIES,
        metadata,
        row_number(),
        Column("task", Text, nullable=False),
        Column("record", Text, nullable=False),
        Index("trimtab_canaries_by_task", "task", "number"),
    )
    Table(  # its key lets a canary end once
        CANARY_ENDS,
        metadata,
        reference("canary", CANARIES, is_key=True),
        Column("record", Text, nullable=False),
    )
    Table(  # the one table whose rows change: what each server has counted so far
        CANARY_TALLIES,
        metadata,
        reference("canary", CANARIES, is_key=True),
        Column("server", String(32), primary_key=True),
        Column("record", Text, nullable=False),
    )


SCHEMA = DatabaseSchema(
    what="registry",
    holds="versions",
    made_by="make the first with: trimtab registry register",
    option="--registry",
    form=4,
    form_table="trimtab_registry_form",
    declare=_declare,
)
