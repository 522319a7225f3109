"""Canaries, how each ended, and what servers count of them."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "trimtab_canaries",
        sa.Column("number", _number, primary_key=True, autoincrement=True),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
    )
    op.create_index("trimtab_canaries_by_task", "trimtab_canaries", ["task", "number"])
    op.create_table(
        "trimtab_canary_ends",
        sa.Column("canary", _number, sa.ForeignKey("trimtab_canaries.number"), primary_key=True, autoincrement=False),
        sa.Column("move", _number, sa.ForeignKey("trimtab_moves.number"), unique=True),
        sa.Column("record", sa.Text, nullable=False),
    )
    op.create_table(
        "trimtab_canary_tallies",
        sa.Column("canary", _number, sa.ForeignKey("trimtab_canaries.number"), primary_key=True, autoincrement=False),
        sa.Column("server", sa.String(32), primary_key=True),
        sa.Column("record", sa.Text, nullable=False),
    )
