"""Tables of the registry, created and upgraded by Alembic's steps below `migrations/`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.base.errors import PackageError
from trimtab.serving.database import DatabaseSchema

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData, Table

FORM = 3  # the last step below migrations/versions
FORM_TABLE = "trimtab_registry_form"
VERSIONS, MOVES, COLLECTED = "trimtab_versions", "trimtab_moves", "trimtab_collected"
EVIDENCE = "trimtab_evidence"
CANARIES, CANARY_ENDS, CANARY_TALLIES = "trimtab_canaries", "trimtab_canary_ends", "trimtab_canary_tallies"


@cache
def metadata() -> MetaData:
    """Return the present tables. Rows are only added, except tallies; `number` is assigned by the database and
    orders rows."""
    from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text

    number = BigInteger().with_variant(Integer, "sqlite")
    found = MetaData()
    Table(
        VERSIONS,
        found,
        Column("number", number, primary_key=True, autoincrement=True),
        Column("task", Text, nullable=False),
        Column("record", Text, nullable=False),
        Index("trimtab_versions_by_task", "task", "number"),
    )
    Table(
        MOVES,
        found,
        Column("number", number, primary_key=True, autoincrement=True),
        Column("task", Text, nullable=False),
        Column("alias", String(64), nullable=False),
        Column("version", number, ForeignKey(f"{VERSIONS}.number"), nullable=False),
        Column("record", Text, nullable=False),
        Index("trimtab_moves_by_alias", "task", "alias", "number"),
    )
    Table(
        COLLECTED,
        found,
        Column("version", number, ForeignKey(f"{VERSIONS}.number"), primary_key=True, autoincrement=False),
        Column("record", Text, nullable=False),
    )
    Table(  # the gate's record behind a move, apart from its row: programs of every form read that
        EVIDENCE,
        found,
        Column("move", number, ForeignKey(f"{MOVES}.number"), primary_key=True, autoincrement=False),
        Column("record", Text, nullable=False),
    )
    Table(
        CANARIES,
        found,
        Column("number", number, primary_key=True, autoincrement=True),
        Column("task", Text, nullable=False),
        Column("record", Text, nullable=False),
        Index("trimtab_canaries_by_task", "task", "number"),
    )
    Table(  # its key lets a canary end once
        CANARY_ENDS,
        found,
        Column("canary", number, ForeignKey(f"{CANARIES}.number"), primary_key=True, autoincrement=False),
        Column("move", number, ForeignKey(f"{MOVES}.number"), unique=True),
        Column("record", Text, nullable=False),
    )
    Table(  # the one table whose rows change: what each server has counted so far
        CANARY_TALLIES,
        found,
        Column("canary", number, ForeignKey(f"{CANARIES}.number"), primary_key=True, autoincrement=False),
        Column("server", String(32), primary_key=True),
        Column("record", Text, nullable=False),
    )
    return found


def table(name: str) -> Table:
    """Return one of the tables."""
    return metadata().tables[name]


def upgrade(connection: Connection) -> None:
    """Upgrade a database to the present form, within the open transaction."""
    try:
        from alembic import command
        from alembic.config import Config
    except ImportError:
        raise PackageError("alembic", "serve", "a registry") from None
    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    settings.attributes["connection"] = connection
    command.upgrade(settings, "head")


def form_of(connection: Connection) -> int | None:
    """Return the number of the step that a database is at; None if it is not a number."""
    from sqlalchemy import column, select
    from sqlalchemy import table as named

    found = connection.execute(select(column("version_num")).select_from(named(FORM_TABLE))).scalar()
    return int(found) if isinstance(found, str) and found.isdigit() and len(found) < 10 else None


# A step only adds, so this version reads and writes one form more than its own, and all before it.
# A record's text keeps the fields that it had when its table came: a program refuses a field that it does not know.
# What a record gains stands in a table of its own (tests/upkeep/test_registry_forms.py).
SCHEMA = DatabaseSchema(
    what="registry",
    holds="versions",
    option="--registry",
    tables=(FORM_TABLE, VERSIONS, MOVES, COLLECTED, EVIDENCE, CANARIES, CANARY_ENDS, CANARY_TALLIES),
    form=FORM,
    readable=range(1, FORM + 2),
    make=upgrade,
    form_of=form_of,
)
